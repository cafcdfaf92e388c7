"""Score result files: `python scripts/evaluate.py truth=ROOT predictions=DIR`, a row a sequence and OVERALL."""

from pathlib import Path

import hydra
import motmetrics
import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig
from predict import predict
from refuse import refusing
from rich.console import Console
from rich.table import Table

from track.metrics import overlaps, score, score_motmetrics
from track.mot import Sequence, find_sequences, read_detections, read_tracks
from track.plot import plot_identities, plot_precision_recall
from track.precision import pedestrians, precision_recall, score_detections
from track.structures import Tracks


@hydra.main(version_base=None, config_path="../conf", config_name="evaluate")
@refusing
def main(cfg: DictConfig) -> None:
    """Print the chosen evaluator's figures and write them to `output_dir` as CSV."""
    if cfg.evaluator not in ("trackeval", "motmetrics", "detections"):
        raise ValueError(f"evaluator: expected trackeval, motmetrics or detections, got {cfg.evaluator}")
    sequences = find_sequences(str(cfg.truth), cfg.split, cfg.every, cfg.dropped, cfg.sequences)
    truth = {sequence.name: sequence.truth() for sequence in sequences}  # refused before the tracking, if it must be
    if cfg.evaluator == "detections":
        judge_detections(cfg, sequences, truth)
        return
    folder = predict(cfg) if cfg.predictions is None else Path(str(cfg.predictions))
    pairs = {sequence.name: (truth[sequence.name], read_results(folder, sequence)) for sequence in sequences}
    if cfg.evaluator == "trackeval":
        figures, file = score(pairs), Path(str(cfg.output_dir)) / "metrics.csv"
        print_figures(figures)
    else:
        figures, file = score_motmetrics(pairs), Path(str(cfg.output_dir)) / "metrics-motmetrics.csv"
        formatters, names = motmetrics.metrics.create().formatters, motmetrics.io.motchallenge_metric_names
        print(motmetrics.io.render_summary(figures, formatters=formatters, namemap=names))
    write_figures(figures, file)
    print(file)
    for name, (true, results) in pairs.items() if cfg.plots else ():
        plot_identities(file.with_name(f"{name}.png"), overlaps(name, true, results))
        print(file.with_name(f"{name}.png"))


def judge_detections(cfg: DictConfig, sequences: list[Sequence], truth: dict[str, list[Tracks]]) -> None:
    """Print and write the figures of a file of detections, or of the detector, which is run first."""
    if cfg.detections is None:
        folder, name = predict(cfg), instantiate(cfg.detector, _convert_="all").name
        found = {s.name: read_detections(folder / s.name / "det" / f"{name}.txt", len(s)) for s in sequences}
    else:
        found = {s.name: s.detections(cfg.detections) for s in sequences}
    pairs = {name: ([pedestrians(name, frame) for frame in truth[name]], found[name]) for name in found}
    figures, file = score_detections(pairs), Path(str(cfg.output_dir)) / "metrics-detections.csv"
    print_figures(figures)
    write_figures(figures, file)
    print(file)
    if cfg.plots:
        plot_precision_recall({name: precision_recall(*pair) for name, pair in pairs.items()}, file.with_suffix(".png"))
        print(file.with_suffix(".png"))


def read_results(folder: Path, sequence: Sequence) -> list[Tracks]:
    """The result file of a sequence. ValueError where there is none, or it is malformed."""
    file = folder / f"{sequence.name}.txt"
    if not file.is_file():
        raise ValueError(f"{file}: no such file, expected the results of {sequence.name}")
    return read_tracks(file, len(sequence))


def print_figures(figures: pd.DataFrame) -> None:
    """A table: counts as they are, percentages with two decimals; never cut where there is no terminal."""
    table = Table(str(figures.index.name or "sequence"), box=None, pad_edge=False)
    for column in figures.columns:
        table.add_column(column, justify="right", no_wrap=True)
    for name, *row in figures.itertuples():
        table.add_row(str(name), *(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row))
    console = Console()
    console.width = console.width if console.is_terminal else 200
    console.print(table)


def write_figures(figures: pd.DataFrame, file: Path) -> None:
    """CSV with six decimals. ValueError where the folder cannot be made or written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figures.to_csv(file, index_label="sequence", float_format="%.6f")
    except OSError as error:
        raise ValueError(f"output_dir: expected a folder that can be written ({error})") from error


if __name__ == "__main__":
    main()
