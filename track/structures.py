"""The types that flow through the pipeline: frames, and parallel arrays selected together by `rows[mask]`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from importlib import import_module
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

MAX_COORDINATE = 1e7  # pixels, beyond which a box is a mistake, and its area no longer a number to calculate with


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

    boxes: (N, 4) float32, xyxy pixels, 0-based. scores: (N,) float32, from 0 to 1. labels: (N,) int64.
    Raises ValueError for other types or shapes; `from_numpy` converts.
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

    def __getitem__(self, rows: Tensor | slice | int) -> Self:
        """The chosen rows; an integer gives one row, which is still a table of rows."""
        if isinstance(rows, int):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"row {rows}: expected one of {len(self)}")
            rows = slice(rows % len(self), rows % len(self) + 1)
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    def __iter__(self) -> Iterator[Self]:
        """The rows one by one, each a table of one row."""
        return (self[row] for row in range(len(self)))

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
        names = [field.name for field in fields(cls) if field.default is MISSING]
        table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3 + len(names))
        columns = [table[:, 4].float(), *(column.long() for column in table[:, 5:].T)]
        return cls(table[:, :4].float(), *columns)

    @classmethod
    def from_numpy(cls, boxes: Any, scores: Any = 1.0, labels: Any = 1) -> Self:
        """Build from arrays, tensors or nested lists of any numeric type; a single score or label is for every row.

        boxes: (N, 4) xyxy pixels, or empty. scores: (N,). labels: (N,), whole numbers.
        Raises ValueError for other shapes, for labels that are not whole numbers, and for what is not numeric.
        """
        table = _numeric("boxes", boxes)
        table = table.reshape(0, 4) if table.size == 0 else table
        count = len(table) if table.ndim else 0
        columns = {"scores": _numeric("scores", scores), "labels": _numeric("labels", labels)}
        if not np.equal(columns["labels"], np.round(columns["labels"])).all():
            raise ValueError("labels: expected whole numbers")
        columns = {name: np.full(count, column) if column.ndim == 0 else column for name, column in columns.items()}
        return cls(
            torch.from_numpy(table.astype(np.float32)),
            torch.from_numpy(columns["scores"].astype(np.float32)),
            torch.from_numpy(columns["labels"].astype(np.int64)),
        )

    @classmethod
    def from_supervision(cls, detections: Any) -> Self:
        """Build from `supervision.Detections`: absent confidences are 1, absent classes 1."""
        scores = 1.0 if detections.confidence is None else detections.confidence
        labels = 1 if detections.class_id is None else detections.class_id
        return cls.from_numpy(detections.xyxy, scores, labels)

    def to_supervision(self, source: Any = None) -> Any:
        """As `supervision.Detections`, with `tracker_id` for `Tracks`.

        source: the `supervision.Detections` that the tracks were made from; its masks, classes and data are kept.
        Raises ValueError if supervision is not installed.
        """
        supervision = _import("supervision")
        ids = self.ids.numpy() if isinstance(self, Tracks) else None
        if source is None or not isinstance(self, Tracks):
            return supervision.Detections(
                xyxy=self.boxes.numpy(), confidence=self.scores.numpy(), class_id=self.labels.numpy(), tracker_id=ids
            )
        result = source[self.detection_rows.numpy()]
        result.xyxy = self.boxes.numpy()
        result.tracker_id = ids
        return result

    def to_pandas(self) -> Any:
        """As a `pandas.DataFrame` with the columns x1, y1, x2, y2, score, label, and id for `Tracks`."""
        pandas = _import("pandas")
        columns = dict(zip(("x1", "y1", "x2", "y2"), self.boxes.T.tolist(), strict=True))
        columns |= {"score": self.scores.tolist(), "label": self.labels.tolist()}
        if isinstance(self, Tracks):
            columns |= {"id": self.ids.tolist(), "detection_row": self.detection_rows.tolist()}
        return pandas.DataFrame(columns)


def class_name(label: int, names: Sequence[str]) -> str:
    """The name of a class: `names[label]`, or "class 5" for a label without a name."""
    return names[label] if 0 <= label < len(names) else f"class {label}"


def _type_name(column: object) -> str:
    return str(column.dtype) if isinstance(column, Tensor) else type(column).__name__


def _numeric(name: str, values: Any) -> np.ndarray:
    """(...) float64 array of numbers. Raises ValueError, naming the column, for anything else."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers, got {type(values).__name__}") from error
    return array


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"{name} is missing: pip install {name}") from error


@dataclass(frozen=True)
class Tracks(Detections):
    """Boxes with identities in one frame: ground truth and tracker output alike.

    ids: (N,) int64. detection_rows: (N,) int64, the row of the given detections that each box came from, so that masks,
    keypoints or any other data of a detection stay attached to its track; -1 for a box without one: ground truth, and
    tracks that are reported while they are hidden.
    """

    ids: Tensor
    detection_rows: Tensor = None  # type: ignore[assignment]  # by default -1 for every row

    def __post_init__(self) -> None:
        if self.detection_rows is None:
            object.__setattr__(self, "detection_rows", torch.full((len(self.boxes),), -1))
        super().__post_init__()


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
