"""The form that every format is read into and written from: a video's tracks, with its rate, size and class names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import torch
from torch import Tensor

from track.checkpoint import atomic_write
from track.formats.footage import DEFAULT_RATE
from track.formats.table import MAX_INTEGER, MAX_LENGTH
from track.structures import MAX_COORDINATE, Detections, Tracks

IGNORED_REGION = 0  # with score 0, the label of a region in which nothing is scored
REGION_NAME = "ignored region"  # the class of such a region in formats that name classes
MAX_SIZE = 65536  # pixels
Row = tuple[int, int, int, float, Sequence[float]]  # frame from 1, id, label, score, box (x1, y1, x2, y2), 0-based


@dataclass(frozen=True)
class AnnotatedVideo:
    """Ground truth or results of one video.

    frames: one `Tracks` per frame. Scores of ground truth are 1, or 0 for boxes that are not scored; a row of label
    `IGNORED_REGION` and score 0 is a region in which nothing is scored. frame_rate: frames per second. width, height:
    pixels. label_names: as far as they are known.
    Raises ValueError for a name that cannot be a file's, for example one that leaves its folder or cannot be printed.
    """

    name: str
    frames: list[Tracks]
    frame_rate: float
    width: int
    height: int
    label_names: Mapping[int, str]

    def __post_init__(self) -> None:
        is_one_part = PureWindowsPath(self.name).name == self.name  # knows both kinds of slashes
        if not is_one_part or self.name in ("", ".", "..") or not self.name.isprintable():
            raise ValueError(f"{self.name!r}: expected a video's name without folders")

    def name_of(self, label: int) -> str:
        """The name of a class; `class 7` if it has none."""
        return " ".join(self.label_names.get(label, f"class {label}").split())

    def labels(self) -> list[int]:
        """The labels of all rows but ignored regions, ascending."""
        used = [frame.labels[~is_ignored_region(frame)] for frame in self.frames]
        return torch.cat(used).unique().tolist() if used else []


class Format(NamedTuple):
    """A file format. name: the option's value. title: what people call it.

    matches: whether a path holds this format, by its content. read: every video at a path; raises ValueError with the
    file and the line or key of what is malformed. write: videos into a folder; the files that were written. losses: a
    line for each thing that writing loses.
    """

    name: str
    title: str
    matches: Callable[[Path], bool]
    read: Callable[[Path], list[AnnotatedVideo]]
    write: Callable[[Path, Sequence[AnnotatedVideo]], list[Path]]
    losses: Callable[[Sequence[AnnotatedVideo]], list[str]] = lambda videos: []


def files_at(path: Path, suffix: str) -> list[Path]:
    """The file at `path`, or the files in the folder at `path`, that have the suffix, by name."""
    if path.is_file():
        return [path] if path.suffix.lower() == suffix else []
    return sorted(file for file in path.glob("*") if file.suffix.lower() == suffix and file.is_file())


def is_ignored_region(truth: Detections) -> Tensor:
    """(N,) bool, which rows of ground truth are regions in which nothing is scored: class 0 with flag 0, VisDrone's."""
    return (truth.labels == IGNORED_REGION) & (truth.scores == 0)


def build_video(
    name: str,
    file: Path,
    rows: Sequence[Row],
    label_names: Mapping[int, str],
    frame_rate: float = DEFAULT_RATE,
    size: tuple[int, int] | None = None,
    length: int = 0,
) -> AnnotatedVideo:
    """A video of checked rows in any order, of `length` frames or as many as the rows have.

    size: width and height in pixels; by default those that hold every box. Raises ValueError with the file and the
    frame for an id that repeats within a frame; regions to be ignored may share one.
    """
    by_frame: dict[int, list[list[float]]] = {}
    for frame, identity, label, score, box in rows:
        by_frame.setdefault(frame, []).append([*box, score, label, identity])
    tables = {frame: Tracks.from_rows(table) for frame, table in by_frame.items()}
    for frame, tracks in tables.items():
        ids = tracks.ids[~is_ignored_region(tracks)]
        if len(ids.unique()) < len(ids):
            raise ValueError(f"{file}: {name}, frame {frame}: expected each id once in a frame")
    empty = Tracks.empty()
    frames = [tables.get(number, empty) for number in range(1, max([length, *tables]) + 1)]
    return AnnotatedVideo(name, frames, frame_rate, *(size or _size(tables.values())), label_names)


def check_row(where: str, row: Row) -> Row:
    """The row, if its numbers are in range. Raises ValueError, which begins with `where`, if they are not."""
    frame, identity, label, _, (x1, y1, x2, y2) = row
    if not 1 <= frame <= MAX_LENGTH:
        raise ValueError(f"{where}: expected a frame of at most {MAX_LENGTH}, got {frame}")
    if max(abs(identity), abs(label)) > MAX_INTEGER:
        raise ValueError(f"{where}: expected an id and a class of at most {MAX_INTEGER}")
    if not all(map(isfinite, (row[3], x1, y1, x2, y2))):
        raise ValueError(f"{where}: expected finite numbers")
    if max(map(abs, (x1, y1, x2, y2))) > MAX_COORDINATE:
        raise ValueError(f"{where}: expected a box within {MAX_COORDINATE:g} pixels")
    if x2 < x1 or y2 < y1:
        raise ValueError(f"{where}: expected a width and height that are not negative")
    return row


def write_text(path: Path, rows: Iterable[str]) -> Path:
    """Write lines; they replace an earlier file only once they are complete."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(rows)
    return path


def _size(frames: Iterable[Tracks]) -> tuple[int, int]:
    corners = torch.cat([torch.ones(1, 2), *(frame.boxes[:, 2:] for frame in frames)])
    width, height = corners.amax(0).ceil().clamp(max=MAX_SIZE).int().tolist()
    return width, height
