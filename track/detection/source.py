"""Detection sources, from which the pipeline takes its detections: the protocol, and detections computed in advance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from track.structures import Detections, Frame


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
        self.label_names = label_names or _numbered_names(detections)

    def detect(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Detections]]:
        """See `DetectionSource`; detections are looked up by the frame's number."""
        for frame in frames:
            known = frame.number <= len(self.detections)
            yield frame, self.detections[frame.number - 1] if known else Detections.empty()


def _numbered_names(detections: Sequence[Detections]) -> list[str]:
    highest = max((int(frame.labels.max()) for frame in detections if len(frame)), default=1)
    return ["background", "person", *(f"class {label}" for label in range(2, highest + 1))]
