"""grutrack evaluate: score results, or detections, against ground truth."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import motmetrics
import pandas as pd
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from track.app.cli import command
from track.app.predict import CHOICES as PREDICT_CHOICES
from track.app.predict import (
    cached_detections,
    check_choices,
    detector_of,
    output_folder,
    predict,
    progress_bar,
    selection,
    unreadable_frames,
)
from track.evaluation.detection import evaluate_detections, pedestrians, precision_recall
from track.evaluation.plots import plot_identities, plot_precision_recall
from track.evaluation.tracking import evaluate_motmetrics, evaluate_tracking, scored_frames
from track.formats.mot import MotSequence, find_sequences, read_tracks
from track.media.sources import SequenceSource, prefetch
from track.structures import Detections, Tracks

CHOICES: dict[str, tuple[str, ...]] = {"metrics": ("tracking", "detection"), "evaluator": ("trackeval", "motmetrics")}


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Print the figures and write them to OUTPUT_DIR as CSV."""
    check_choices(cfg, CHOICES | PREDICT_CHOICES)
    if cfg.metrics == "detection" and cfg.predictions is not None:
        raise ValueError("predictions: expected none with metrics=detection, give detections=FILE")
    output_folder(cfg)
    chosen = selection(cfg)
    ground_truth = str(cfg.ground_truth)
    sequences = find_sequences(ground_truth, chosen.split, chosen.stride, chosen.drop_rate, chosen.names)
    truth = {sequence.name: sequence.truth() for sequence in sequences}  # refused now, before anything is tracked
    if cfg.metrics == "detection":
        score_detections(cfg, sequences, truth)
    else:
        score_tracks(cfg, sequences, truth)


def score_tracks(cfg: DictConfig, sequences: list[MotSequence], truth: dict[str, list[Tracks]]) -> None:
    """Print and write the figures of result files, after tracking where none are given."""
    folder = predict(cfg) if cfg.predictions is None else Path(str(cfg.predictions))
    pairs = {sequence.name: (truth[sequence.name], read_results(folder, sequence)) for sequence in sequences}
    output = Path(str(cfg.output_dir))
    if cfg.evaluator == "trackeval":
        figures, file = evaluate_tracking(pairs), output / "metrics.csv"
        print_figures(figures)
    else:
        figures, file = evaluate_motmetrics(pairs), output / "metrics-motmetrics.csv"
        formatters, names = motmetrics.metrics.create().formatters, motmetrics.io.motchallenge_metric_names
        print(motmetrics.io.render_summary(figures, formatters=formatters, namemap=names))
    write_figures(figures, file)
    print(file)
    if cfg.plots:
        for name, (true, results) in pairs.items():
            plot_identities(output / f"{name}.png", scored_frames(name, true, results))
            print(output / f"{name}.png")


def score_detections(cfg: DictConfig, sequences: list[MotSequence], truth: dict[str, list[Tracks]]) -> None:
    """Print and write the figures of a file of detections, or of the detector, which is run first."""
    found = detect_all(cfg, sequences)
    pairs = {name: ([pedestrians(name, frame) for frame in truth[name]], found[name]) for name in found}
    figures, file = evaluate_detections(pairs), Path(str(cfg.output_dir)) / "metrics-detections.csv"
    print_figures(figures)
    write_figures(figures, file)
    print(file)
    if cfg.plots:
        plot_precision_recall({name: precision_recall(*pair) for name, pair in pairs.items()}, file.with_suffix(".png"))
        print(file.with_suffix(".png"))


def detect_all(cfg: DictConfig, sequences: list[MotSequence]) -> dict[str, list[Detections]]:
    """The detections of every sequence by its name, one `Detections` per frame."""
    detector = detector_of(cfg)
    found = {}
    with progress_bar() as progress, unreadable_frames(cfg.on_error) as report:
        for sequence in sequences:
            with closing(SequenceSource(sequence, report)) as source:
                detections = cached_detections(cfg, source, detector, progress)
                frames = prefetch(source if detections.needs_pixels else source.without_pixels())
                pairs = progress.track(detections.detect(frames), source.frame_count, description=escape(source.name))
                found[source.name] = [one for _, one in pairs]
    return found


def read_results(folder: Path, sequence: MotSequence) -> list[Tracks]:
    """The result file of a sequence. Raises ValueError if there is none, or if it is malformed."""
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
        table.add_row(escape(str(name)), *(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row))
    console = Console()
    console.width = console.width if console.is_terminal else 200
    console.print(table)


def write_figures(figures: pd.DataFrame, file: Path) -> None:
    """CSV with six decimals. Raises ValueError if it cannot be written."""
    try:
        figures.to_csv(file, index_label="sequence", float_format="%.6f")
    except OSError as error:
        raise ValueError(f"output_dir: expected a folder that can be written ({error})") from error
