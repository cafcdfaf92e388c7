"""Detection sources, from which the pipeline takes its detections: the protocol, and detections computed in advance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from track.structures import Detections, Frame

MOT_NAMES = ("background", "person")  # of MOTChallenge's labels; class_name numbers the others
SCORES = ("auto", "probability", "percent", "logit", "unknown", "calibrate")
MAX_LOGIT = 20.0  # scores up to it may be log-odds, larger ones are percentages
USUAL_HIGH_SCORE = 0.9  # the 95th percentile of a well calibrated detector's scores


class DetectionSource(Protocol):
    """Detects the objects in frames: `Detector`, `CachedDetector`, `PrecomputedDetections`, or your own."""

    @property
    def label_names(self) -> Sequence[str]:
        """The class name of each label."""
        ...

    @property
    def needs_pixels(self) -> bool:
        """Whether `detect` reads the frames' images."""
        ...

    def detect(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Detections]]:
        """Each frame with its detections, in order; several frames may be read before the first one is yielded."""
        ...


class PrecomputedDetections:
    """The detections of a whole video, read from a file or computed in advance.

    detections: one `Detections` per frame, from frame 1; later frames have none. label_names: by default
    MOTChallenge's, where label 1 is a person and the other classes are numbered.
    """

    needs_pixels = False

    def __init__(self, detections: Sequence[Detections], label_names: Sequence[str] | None = None) -> None:
        self.detections = detections
        self.label_names = label_names or MOT_NAMES

    def detect(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Detections]]:
        """See `DetectionSource`; detections are looked up by the frame's number."""
        for frame in frames:
            known = frame.number <= len(self.detections)
            yield frame, self.detections[frame.number - 1] if known else Detections.empty()


def with_probabilities(
    detections: Sequence[Detections], scores: str, file: Path, report: Callable[[str], None]
) -> Sequence[Detections]:
    """The detections of a file with scores from 0 to 1; `report` receives a line if they were converted.

    scores: what the file has, one of `SCORES`. auto: percentages and log-odds are recognised by their range; -1, 0 or 1
    throughout means that there are no scores, so that every detection counts as certain. calibrate: scales the scores
    so that their 95th percentile is that of a well calibrated detector. Raises ValueError for other scores.
    """
    if scores not in SCORES:
        raise ValueError(f"scores: expected one of {', '.join(SCORES)}, got {scores}")
    values = torch.cat([frame.scores for frame in detections] or [torch.zeros(0)])
    if not len(values):
        return detections
    kind = _kind(values, file) if scores == "auto" else scores
    converted = _convert(values, kind)
    if not ((converted >= 0) & (converted <= 1)).all():
        raise ValueError(f"{file}: expected scores from 0 to 1, got {values.min():g} to {values.max():g}; see scores=")
    if kind == "probability" or torch.equal(values, converted):
        return detections
    reading = "calibrated" if kind == "calibrate" else f"read as {kind}"
    report(f"{file}: scores from {values.min():g} to {values.max():g} {reading}")
    parts = converted.split([len(frame) for frame in detections])
    return [replace(frame, scores=part) for frame, part in zip(detections, parts, strict=True)]


def _kind(values: Tensor, file: Path) -> str:
    """What scores are, by their range."""
    low, high = values.min().item(), values.max().item()
    if low == high and low in (-1.0, 0.0, 1.0):
        return "unknown"
    if low >= 0 and high <= 1:
        return "probability"
    if low >= -MAX_LOGIT and high <= MAX_LOGIT:
        return "logit"
    if low >= 0 and high <= 100:
        return "percent"
    raise ValueError(
        f"{file}: expected scores from 0 to 1, got {low:g} to {high:g}; say scores=percent, logit or unknown"
    )


def _convert(values: Tensor, kind: str) -> Tensor:
    if kind == "percent":
        return values / 100
    if kind == "logit":
        return values.sigmoid()
    if kind == "unknown":
        return torch.ones_like(values)
    if kind == "calibrate":
        return (values * (USUAL_HIGH_SCORE / values.quantile(0.95).clamp(min=1e-6))).clamp(0, 1)
    return values
