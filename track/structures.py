"""The types that travel through the pipeline: parallel arrays, selected together by `rows[mask]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """One picture. image: (3, H, W) uint8 RGB. time: seconds. number: from 1."""

    image: Tensor
    time: float
    number: int


@dataclass(frozen=True)
class Detections:
    """Boxes seen in one frame.

    boxes: (N, 4) float32, xyxy pixels, 0-based. scores: (N,) float32. labels: (N,) int64.
    Raises ValueError where types or shapes are not these.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        for field in fields(self):
            wanted = torch.float32 if field.name in ("boxes", "scores") else torch.int64
            column = getattr(self, field.name)
            if getattr(column, "dtype", None) != wanted or not isinstance(column, Tensor):
                raise ValueError(f"{field.name}: expected a tensor of {wanted}, got {_kind(column)}")
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
        """No rows, with the right shapes and types."""
        return cls.from_rows([])

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """All rows of all parts, in order."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[float]]) -> Self:
        """Rows of x1, y1, x2, y2, score, label: handy in tests and at borders."""
        table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4 + len(fields(cls)) - 1)
        columns = [table[:, 4].float(), *(column.long() for column in table[:, 5:].T)]
        return cls(table[:, :4].float(), *columns)


def _kind(column: object) -> str:
    return str(column.dtype) if isinstance(column, Tensor) else type(column).__name__


@dataclass(frozen=True)
class Tracks(Detections):
    """Boxes with identities in one frame; ground truth and tracker output alike. ids: (N,) int64."""

    ids: Tensor
