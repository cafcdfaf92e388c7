"""The types that flow through the pipeline: frames, and parallel arrays selected together by `rows[mask]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """One video frame. image: (3, H, W) uint8 RGB. time: seconds. number: from 1."""

    image: Tensor
    time: float
    number: int

    @classmethod
    def blank(cls, height: int, width: int, time: float, number: int) -> Self:
        """A black frame, for pixels that are not needed or cannot be read; one byte in memory whatever its size."""
        return cls(torch.zeros(1, dtype=torch.uint8).expand(3, height, width), time, number)

    @property
    def is_blank(self) -> bool:
        """Whether the frame was made by `blank`, so that its image shows nothing."""
        return self.image.untyped_storage().nbytes() == 1


@dataclass(frozen=True)
class Detections:
    """Boxes detected in one frame.

    boxes: (N, 4) float32, xyxy pixels, 0-based. scores: (N,) float32. labels: (N,) int64.
    Raises ValueError for other types or shapes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        for field in fields(self):
            expected = torch.float32 if field.name in ("boxes", "scores") else torch.int64
            column = getattr(self, field.name)
            if getattr(column, "dtype", None) != expected or not isinstance(column, Tensor):
                raise ValueError(f"{field.name}: expected a tensor of {expected}, got {_type_name(column)}")
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4:
            raise ValueError(f"boxes: expected shape (N, 4), got {tuple(self.boxes.shape)}")
        for field in fields(self)[1:]:
            column = getattr(self, field.name)
            if column.shape != self.boxes.shape[:1]:
                raise ValueError(f"{field.name}: expected shape ({len(self)},), got {tuple(column.shape)}")

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Tensor | slice) -> Self:
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def empty(cls) -> Self:
        """Zero rows with the right shapes and types."""
        return cls.from_rows([])

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts, in order."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[float]]) -> Self:
        """Build from rows of x1, y1, x2, y2, score, label (and, for `Tracks`, id)."""
        table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4 + len(fields(cls)) - 1)
        columns = [table[:, 4].float(), *(column.long() for column in table[:, 5:].T)]
        return cls(table[:, :4].float(), *columns)


def class_name(label: int, names: Sequence[str]) -> str:
    """The name of a class: `names[label]`, or "class 5" for a label without a name."""
    return names[label] if 0 <= label < len(names) else f"class {label}"


def _type_name(column: object) -> str:
    return str(column.dtype) if isinstance(column, Tensor) else type(column).__name__


@dataclass(frozen=True)
class Tracks(Detections):
    """Boxes with identities in one frame: ground truth and tracker output alike. ids: (N,) int64."""

    ids: Tensor


@dataclass(frozen=True)
class Observation:
    """What a tracker is told about one frame.

    number: the frame's number, from 1. time: seconds. affine: (2, 3) float32, from the previous frame's pixels to this
    frame's; the identity if the camera stands still or its motion is unknown.
    """

    number: int
    time: float
    detections: Detections
    affine: Tensor


@dataclass(frozen=True)
class TrackedFrame:
    """What the pipeline yields for each frame, and what every sink takes."""

    frame: Frame
    observation: Observation
    tracks: Tracks
