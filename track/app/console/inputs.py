"""What a config takes in: which frames of which videos, and their detections."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from omegaconf import DictConfig, ListConfig
from rich.progress import Progress

from track.app.console.cli import instantiate
from track.app.console.progress import print_line
from track.detection.cache import CachedDetector
from track.detection.detector import Detector
from track.detection.source import DetectionSource
from track.media.sources import FileSource, Selection
from track.pipeline import detections_from_file


def selection(cfg: DictConfig) -> Selection:
    """Which frames of which sequences a config asks for."""
    names = cfg.sequences
    if names is not None:
        names = [str(one) for one in (names if isinstance(names, ListConfig) else [names])]
    return Selection(cfg.split, cfg.stride, cfg.drop_rate, names)


def detector_of(cfg: DictConfig) -> Detector | None:
    """The detector of a config; None if detections are read from a file."""
    return instantiate(cfg.detector) if cfg.detections is None else None


def detections_of(
    cfg: DictConfig, source: FileSource, detector: Detector | None, progress: Progress
) -> DetectionSource:
    """The detections of a source: from a file, from an earlier run into the same output, or from the detector."""
    if detector is None:
        return detections_from_file(str(cfg.detections), source, cfg.scores, partial(print_line, progress))
    if not source.footage.exists():  # a URL: its content may change without notice
        return detector
    file = Path(str(cfg.output_dir)) / source.name / "det" / f"{detector.name}.txt"
    cached = CachedDetector(detector, file, source.footage, source.selection)
    if not cached.needs_pixels:
        print_line(progress, f"{source.name}: detections of an earlier run, {file}")
    return cached
