"""grutrack evaluate: score results, or detections, against ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import motmetrics
import pandas as pd
from omegaconf import DictConfig, ListConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from track.app.console.cli import command
from track.app.console.inputs import detections_of, detector_of, selection
from track.app.console.outputs import check_selection, output_folder, partial_file
from track.app.console.progress import progress_bar, unreadable_frames
from track.app.predict import predict
from track.checkpoint import atomic_write
from track.detection.detector import Detector
from track.evaluation.classes import (
    AUTO,
    ClassPairs,
    SequenceTruth,
    choose_classes,
    label_truth,
    protocol_notes,
    split_classes,
)
from track.evaluation.detection import (
    detection_pairs,
    evaluate_detection_classes,
    evaluate_detections,
    join_classes,
    precision_recall,
)
from track.evaluation.plots import plot_identities, plot_precision_recall
from track.evaluation.tracking import (
    Pairs,
    class_row,
    evaluate_classes,
    evaluate_motmetrics,
    evaluate_tracking,
    scored_frames,
)
from track.formats.mot import MotSequence, find_sequences, read_tracks
from track.formats.table import read_text
from track.media.sources import SequenceSource, prefetch
from track.structures import Detections, Tracks


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Print the figures and write them to OUTPUT_DIR as CSV."""
    if cfg.metrics == "detection" and cfg.predictions is not None:
        raise ValueError("predictions: expected none with metrics=detection, give detections=FILE")
    if cfg.classes == []:
        raise ValueError("classes: expected at least one, or auto, or any")
    output_folder(cfg)
    chosen = selection(cfg)
    ground_truth = str(cfg.ground_truth)
    sequences = find_sequences(ground_truth, chosen.split, chosen.stride, chosen.drop_rate, chosen.names)
    truth = {sequence.name: sequence.truth() for sequence in sequences}  # refused now, before anything is tracked
    names = {sequence.name: sequence.label_names() or {} for sequence in sequences}
    labelled = label_truth(truth, names, cfg.protocol)
    choose_classes(labelled, asked_classes(cfg))
    if cfg.metrics == "detection":
        score_detections(cfg, sequences, labelled)
    else:
        score_tracks(cfg, sequences, labelled)


def score_tracks(cfg: DictConfig, sequences: list[MotSequence], truth: list[SequenceTruth]) -> None:
    """Print and write the figures of result files, after tracking where none are given."""
    folder = predict(cfg) if cfg.predictions is None else Path(str(cfg.predictions))
    check_selection(folder, cfg, overwrite=cfg.predictions is None)
    results = {sequence.name: read_results(folder, sequence) for sequence in sequences}
    scored = split_classes(truth, results, result_names(folder), asked_classes(cfg))
    print_notes(cfg, truth, scored)
    by_sequence = join_names(scored.pairs)
    output = Path(str(cfg.output_dir))
    if cfg.evaluator == "trackeval":
        is_single = len(scored.pairs) == 1
        figures = (
            evaluate_tracking(by_sequence, cfg.protocol) if is_single else evaluate_classes(scored.pairs, cfg.protocol)
        )
        file = output / "metrics.csv"
        print_figures(figures)
    else:
        figures, file = evaluate_motmetrics(by_sequence, cfg.protocol), output / "metrics-motmetrics.csv"
        formatters, names = motmetrics.metrics.create().formatters, motmetrics.io.motchallenge_metric_names
        print(motmetrics.io.render_summary(figures, formatters=formatters, namemap=names))
    write_figures(figures, file)
    print(file)
    if cfg.plots:
        for name, (true, predicted) in by_sequence.items():
            plot_identities(output / f"{name}.png", scored_frames(name, true, predicted, cfg.protocol))
            print(output / f"{name}.png")


def score_detections(cfg: DictConfig, sequences: list[MotSequence], truth: list[SequenceTruth]) -> None:
    """Print and write the figures of a file of detections, or of the detector, which is run first."""
    detector = detector_of(cfg)
    names = dict(enumerate(detector.label_names)) if detector else {}
    scored = split_classes(truth, detect_all(cfg, sequences, detector), names, asked_classes(cfg))
    print_notes(cfg, truth, scored)
    classes = detection_pairs(scored.pairs)
    pairs = join_classes(classes)
    figures = evaluate_detections(pairs) if len(classes) == 1 else evaluate_detection_classes(classes)
    file = Path(str(cfg.output_dir)) / "metrics-detections.csv"
    print_figures(figures)
    write_figures(figures, file)
    print(file)
    if cfg.plots:
        plot_precision_recall({name: precision_recall(*pair) for name, pair in pairs.items()}, file.with_suffix(".png"))
        print(file.with_suffix(".png"))


def detect_all(cfg: DictConfig, sequences: list[MotSequence], detector: Detector | None) -> dict[str, list[Detections]]:
    """The detections of every sequence by its name, one `Detections` per frame."""
    detected = {}
    progress = progress_bar()
    with unreadable_frames(cfg.on_error) as report:
        sources = [SequenceSource(sequence, report) for sequence in sequences]
        detections = [detections_of(cfg, source, detector, progress) for source in sources]
        with progress:
            for source, given in zip(sources, detections, strict=True):
                frames = prefetch(source if given.needs_pixels else source.without_pixels())
                pairs = progress.track(given.detect(frames), source.frame_count, description=escape(source.name))
                detected[source.name] = [one for _, one in pairs]
    return detected


def asked_classes(cfg: DictConfig) -> str | int | list[str | int]:
    """The option `classes` as plain values."""
    return list(cfg.classes) if isinstance(cfg.classes, ListConfig) else cfg.classes


def result_names(folder: Path) -> dict[int, str]:
    """The class names of the results' labels, from labels.txt beside them, one per line; none without it."""
    file = folder / "labels.txt"
    return dict(enumerate(read_text(file).splitlines(), 1)) if file.is_file() else {}


def join_names(classes: Mapping[str, Pairs]) -> dict[str, tuple[Sequence[Tracks], Sequence[Tracks]]]:
    """The ground truth and results of each sequence; of several classes, each as a sequence `NAME class CLASS`."""
    if len(classes) == 1:
        return dict(next(iter(classes.values())))
    return {
        f"{sequence} {class_row(name)}": pair for name, pairs in classes.items() for sequence, pair in pairs.items()
    }


def print_notes(cfg: DictConfig, truth: list[SequenceTruth], scored: ClassPairs[Any]) -> None:
    """Print, in one line, what was decided about protocol and classes, unless it is obvious."""
    notes = [*(protocol_notes(truth) if cfg.protocol == AUTO else []), *scored.notes]
    if notes:
        print("scored: " + "; ".join(notes))


def read_results(folder: Path, sequence: MotSequence) -> list[Tracks]:
    """The result file of a sequence. Raises ValueError if there is none, if it was cut, or if it is malformed."""
    file = folder / f"{sequence.name}.txt"
    partial = partial_file(file)
    if partial.exists():
        raise ValueError(f"{partial}: this run was cut, expected complete results: track {sequence.name} again")
    if not file.is_file():
        raise ValueError(f"{file}: no such file, expected the results of {sequence.name}")
    return read_tracks(file, len(sequence))


def print_figures(figures: pd.DataFrame) -> None:
    """A table: counts as they are, percentages with two decimals; never cut, however narrow the terminal."""
    table = Table(str(figures.index.name or "sequence"), box=None, pad_edge=False)
    for column in figures.columns:
        table.add_column(column, justify="right", no_wrap=True)
    for name, *row in figures.itertuples():
        table.add_row(escape(str(name)), *(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row))
    console = Console()
    console.width = max(console.width, console.measure(table, options=console.options.update(width=1000)).maximum)
    console.print(table)


def write_figures(figures: pd.DataFrame, file: Path) -> None:
    """CSV with six decimals. Raises ValueError if it cannot be written."""
    try:
        with atomic_write(file) as temporary:
            figures.to_csv(temporary, index_label="sequence", float_format="%.6f")
    except OSError as error:
        raise ValueError(f"output_dir: expected a folder that can be written ({error})") from error
