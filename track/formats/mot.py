"""Read and write MOTChallenge folders. No other file knows their columns, 1-based pixels, classes and splits."""

from __future__ import annotations

import configparser
import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from track.checkpoint import atomic_write, first_line
from track.geometry import compose_affines
from track.structures import Detections, Tracks

SPLITS = ("all", "train-half", "val-half")
PEDESTRIAN = 1  # the class that is scored
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm")
Rows = TypeVar("Rows", bound=Detections)


@dataclass(frozen=True)
class MotSequence:
    """A folder `ROOT/<name>` of `length` frames, of which `frame_numbers` (from 1, ascending) are used.

    frame_rate: frames per second. width, height: pixels. image_dir: the folder of images, relative to `path`.
    """

    path: Path
    frame_rate: float
    width: int
    height: int
    length: int
    frame_numbers: range | list[int]
    image_dir: str = "img1"

    @property
    def name(self) -> str:
        """The folder's name, by which result files are called too."""
        return self.path.resolve().name

    def __len__(self) -> int:
        return len(self.frame_numbers)

    @property
    def times(self) -> list[float]:
        """Seconds from the first used frame to each used frame."""
        return [(number - self.frame_numbers[0]) / self.frame_rate for number in self.frame_numbers]

    def truth(self) -> list[Tracks]:
        """Ground truth, one `Tracks` per frame: scores are the `consider` flag, labels the class (MOT15: 1)."""
        return self._used(read_tracks(self._file("gt/gt.txt"), self.length, truth=True))

    def detections(self, file: str = "det/det.txt") -> list[Detections]:
        """The detections in one of the sequence's files, one `Detections` per frame; rows may be in any order."""
        return self._used(read_detections(self._file(file), self.length))

    def affines(self) -> Tensor:
        """(frames, 2, 3) affines from the previous used frame's pixels to each frame's, 0-based pixels."""
        affines = read_affines(self._file("gmc.txt"), self.length)
        starts = [self.frame_numbers[0] - 1, *self.frame_numbers]
        return torch.stack([compose_affines(affines[a:b]) for a, b in zip(starts, self.frame_numbers, strict=False)])

    def has(self, file: str) -> bool:
        """Whether the sequence has the file. Raises ValueError for a path that leaves the folder."""
        return self._inside(file).is_file()

    def images(self) -> list[Path] | None:
        """The image files of the used frames in order, or None without an image folder.

        Raises ValueError if the folder holds fewer images than seqinfo.ini says.
        """
        folder = self._inside(self.image_dir)
        if not folder.is_dir():
            return None
        files = image_files(folder)
        if len(files) < self.length:
            raise ValueError(f"{folder}: expected {self.length} frames as seqinfo.ini says, found {len(files)}")
        return self._used(files)

    def video(self) -> Path | None:
        """The sequence's video file, or None."""
        names = sorted(file.name for file in self.path.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES)
        return self._inside(names[0]) if names else None

    def has_footage(self) -> bool:
        """Whether the sequence has images or a video."""
        return self.images() is not None or self.video() is not None

    def _used(self, frames: list[Any]) -> list[Any]:
        return [frames[number - 1] for number in self.frame_numbers]

    def _inside(self, file: str) -> Path:
        target = self.path / file
        if not target.resolve().is_relative_to(self.path.resolve()):
            raise ValueError(f"{self.path}: {file} leaves the sequence's folder")
        return target

    def _file(self, file: str) -> Path:
        if not self.has(file):
            raise ValueError(f"{self.path / file}: no such file, expected the sequence to have it")
        return self._inside(file)


def image_files(folder: Path) -> list[Path]:
    """The images in a folder in numerical order: 2.jpg before 10.jpg."""

    def by_number(file: Path) -> list[str | int]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)]

    return sorted((file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES), key=by_number)


def find_sequences(
    root: str | Path,
    split: str = "all",
    stride: int = 1,
    drop_rate: float = 0.0,
    names: Collection[str] | None = None,
) -> list[MotSequence]:
    """Every sequence (folder with a seqinfo.ini) at or below `root`, by path; with `names`, only those.

    split: one of `SPLITS`. stride: frame stride within the split; 3 keeps every third frame. drop_rate: fraction of the
    remaining frames to drop at random (fixed seed). Raises ValueError if there is no sequence, if a name is unknown or
    not unique, or if an option is out of range.
    """
    if stride < 1:
        raise ValueError(f"stride: expected at least 1, got {stride}")
    if not 0 <= drop_rate < 1:
        raise ValueError(f"drop_rate: expected 0 or more, below 1, got {drop_rate}")
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split}")
    if not Path(root).is_dir():
        raise ValueError(f"{root}: no such folder, expected sequences below it")
    sequences = [read_sequence(ini.parent) for ini in sorted(Path(root).rglob("seqinfo.ini"))]
    if not sequences:
        raise ValueError(f"{root}: no sequences below it, expected folders with a seqinfo.ini")
    known = [sequence.name for sequence in sequences]
    repeated = next((name for name in known if known.count(name) > 1), None)
    if repeated:
        raise ValueError(f"{root}: two sequences are called {repeated}, expected each name once")
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise ValueError(f"{root}: no sequence is called {unknown[0]}, expected some of {', '.join(known)}")
    chosen = [sequence for sequence in sequences if names is None or sequence.name in names]
    return [_subsample(_cut(sequence, split), stride, drop_rate) for sequence in chosen]


def read_sequence(path: str | Path) -> MotSequence:
    """Read a sequence's seqinfo.ini. Raises ValueError with the key that is missing or out of range."""
    ini = Path(path) / "seqinfo.ini"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(ini.read_text(encoding="utf-8-sig"))
        section = parser["Sequence"]
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError) as error:
        raise ValueError(f"{ini}: expected an ini file with a [Sequence] section ({first_line(error)})") from error

    def number(key: str) -> float:
        try:
            value = float(section[key])
        except (KeyError, ValueError):
            value = 0.0
        if not 0 < value < float("inf") or (key != "frameRate" and value % 1):
            kind = "positive number" if key == "frameRate" else "whole number of at least 1"
            raise ValueError(f"{ini}: {key}: expected a {kind}, got {section.get(key)}")
        return value

    width, height, length = int(number("imWidth")), int(number("imHeight")), int(number("seqLength"))
    images = section.get("imDir", "img1")
    return MotSequence(Path(path), number("frameRate"), width, height, length, range(1, length + 1), images)


def read_tracks(path: Path, length: int, truth: bool = False) -> list[Tracks]:
    """Read rows `frame, id, left, top, width, height, score[, class, ...]` into one `Tracks` per frame 1 to `length`.

    truth: whether the file is ground truth, in which column 8 may be a class; results, and MOT15's ten columns, are
    class 1.
    Raises ValueError with the file and line of a malformed row, or of an id that repeats within a frame.
    """
    table, lines = _read_table(path, columns=6 if not truth else 7)
    whole = (table[:, 1] == np.round(table[:, 1])) & (np.abs(table[:, 1]) <= 2**53)
    _require(path, lines, whole, "expected a whole number as id in column 2")
    order = np.lexsort((table[:, 1], table[:, 0]))
    repeated = np.zeros(len(table), bool)
    repeated[order[1:]] = (np.diff(table[order][:, :2], axis=0) == 0).all(1)
    _require(path, lines, ~repeated, "expected each id once in a frame")
    scores = table[:, 6] if table.shape[1] > 6 else np.ones(len(table))
    labels = table[:, 7] if truth and table.shape[1] in (8, 9) else np.ones(len(table))
    rows = Tracks(
        _boxes(table),
        torch.from_numpy(scores).float(),
        torch.from_numpy(labels).long(),
        torch.from_numpy(table[:, 1]).long(),
    )
    return _by_frame(path, rows, table[:, 0], lines, length)


def read_detections(path: Path, length: int) -> list[Detections]:
    """Read rows `frame, -1, left, top, width, height, score[, ...]` into one `Detections` per frame 1 to `length`.

    A class of 1 or more in column 8 is the label; other rows are class 1. Raises ValueError as `read_tracks` does.
    """
    table, lines = _read_table(path, columns=7)
    labels = table[:, 7].clip(1) if table.shape[1] > 7 else np.ones(len(table))
    rows = Detections(_boxes(table), torch.from_numpy(table[:, 6]).float(), torch.from_numpy(labels).long())
    return _by_frame(path, rows, table[:, 0], lines, length)


def read_affines(path: Path, length: int) -> Tensor:
    """Read rows `frame, a11, a12, tx, a21, a22, ty` into (length, 2, 3) affines; a frame without a row is the identity.

    Raises ValueError with the file and line of a malformed row, or of a frame that repeats.
    """
    table, lines = _read_table(path, columns=7, boxes=False)
    affines = np.tile(np.eye(2, 3), (length, 1, 1))
    index = _frame_index(path, table[:, 0], lines, length)
    first_rows = np.unique(index, return_index=True)[1]
    _require(path, lines, np.isin(np.arange(len(index)), first_rows), "expected each frame once")
    affines[index] = table[:, 1:7].reshape(-1, 2, 3)
    return torch.from_numpy(affines).float()


def considered_pedestrians(truth: Tracks) -> Tracks:
    """The ground truth that is scored: pedestrians whose `consider` flag is not 0."""
    return truth[is_considered_pedestrian(truth)]


def is_considered_pedestrian(truth: Detections) -> Tensor:
    """(N,) bool, which rows of one frame's ground truth are scored: pedestrians whose `consider` flag is not 0."""
    return (truth.labels == PEDESTRIAN) & (truth.scores != 0)


def distractor_classes(name: str) -> tuple[int, ...]:
    """Classes that may be tracked or not in the sequence `name`, by MOTChallenge's rules.

    Person on vehicle, static person, distractor and reflection; in sequences of MOT20 other vehicles too.
    """
    return (2, 6, 7, 8, 12) if name.startswith("MOT20") else (2, 7, 8, 12)


def write_tracks(path: Path, frames: Iterable[Tracks]) -> None:
    """Write a result file, frames numbered from 1; it replaces an earlier one only once it is complete."""
    _write(path, (row for number, tracks in enumerate(frames, 1) for row in track_rows(number, tracks)))


def write_detections(path: Path, frames: Iterable[Detections]) -> None:
    """Write a detection file, frames numbered from 1; it replaces an earlier one only once it is complete."""
    rows = (
        _row(number, -1, box, score, label)
        for number, frame in enumerate(frames, 1)
        for box, score, label in zip(frame.boxes.tolist(), frame.scores.tolist(), frame.labels.tolist(), strict=True)
    )
    _write(path, rows)


def write_sequence(
    folder: Path, boxes: np.ndarray, affines: np.ndarray, frame_rate: float, width: int, height: int
) -> None:
    """Write a sequence without footage: seqinfo.ini, gt/gt.txt and gmc.txt.

    boxes: (F, N, 4) xyxy pixels of N pedestrians, NaN in frames without them. affines: (F, 2, 3), from the previous
    frame's pixels to each frame's.
    """
    rows = (
        f"{frame},{identity},{x1 + 1:.2f},{y1 + 1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},1,{PEDESTRIAN},1\n"
        for frame, table in enumerate(boxes.tolist(), 1)
        for identity, (x1, y1, x2, y2) in enumerate(table, 1)
        if not math.isnan(x1)
    )
    _write(folder / "gt" / "gt.txt", rows)
    affine_rows = enumerate(affines.reshape(len(affines), 6).tolist(), 1)
    _write(folder / "gmc.txt", (",".join(map(str, (frame, *values))) + "\n" for frame, values in affine_rows))
    write_info(folder, frame_rate, len(boxes), width, height)


def write_info(folder: Path, frame_rate: float, length: int, width: int, height: int) -> None:
    """Write a sequence's seqinfo.ini; the sequence is called as the folder is."""
    sizes = f"seqLength={length}\nimWidth={width}\nimHeight={height}\nimExt=.jpg\n"
    _write(folder / "seqinfo.ini", [f"[Sequence]\nname={folder.name}\nimDir=img1\nframeRate={frame_rate:g}\n{sizes}"])


def track_rows(frame: int, tracks: Tracks) -> Iterator[str]:
    """The result file's rows of one frame."""
    columns = zip(tracks.ids.tolist(), tracks.boxes.tolist(), tracks.scores.tolist(), strict=True)
    return (_row(frame, identity, box, score) for identity, box, score in columns)


def _row(frame: int, identity: int, box: list[float], score: float, label: int = -1) -> str:
    x1, y1, x2, y2 = box
    return f"{frame},{identity},{x1 + 1:.2f},{y1 + 1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},{label},-1,-1\n"


def _write(path: Path, rows: Iterable[str]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(rows)


def _cut(sequence: MotSequence, split: str) -> MotSequence:
    half = sequence.length // 2 + 1
    first, last = {"train-half": (1, half), "val-half": (half + 1, sequence.length)}.get(split, (1, sequence.length))
    return replace(sequence, frame_numbers=range(first, min(last, sequence.length) + 1))


def _subsample(sequence: MotSequence, stride: int, drop_rate: float) -> MotSequence:
    """Every `stride`-th frame of these without a random fraction, but at least the first one."""
    numbers = sequence.frame_numbers[::stride]
    if not drop_rate:
        return replace(sequence, frame_numbers=numbers)
    chances = np.random.default_rng(0).random(len(numbers))
    remaining = [number for number, chance in zip(numbers, chances, strict=True) if chance >= drop_rate]
    return replace(sequence, frame_numbers=remaining or [*numbers[:1]])


def _read_table(path: Path, columns: int, boxes: bool = True) -> tuple[np.ndarray, list[int]]:
    """The float64 table in a comma-separated file and the line number of each row; blank lines are skipped.

    Raises ValueError with the file and line of a row that is not `columns` or more finite numbers, of another length
    than the first row, or (with `boxes`) of negative width or height.
    """
    rows: list[list[float]] = []
    lines: list[int] = []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a text file of comma-separated numbers ({error})") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = [float(value) for value in line.strip().rstrip(",").split(",")]
        except ValueError:
            raise ValueError(f"{path}, line {number}: expected comma-separated numbers, got {line[:80]!r}") from None
        if len(row) < columns or (rows and len(row) != len(rows[0])):
            expected = f"{len(rows[0])} columns as before" if rows else f"at least {columns} columns"
            raise ValueError(f"{path}, line {number}: expected {expected}, got {len(row)}")
        rows.append(row)
        lines.append(number)
    table = np.array(rows, np.float64).reshape(len(rows), -1 if rows else columns)
    _require(path, lines, np.isfinite(table).all(1), "expected finite numbers")
    if boxes:
        _require(path, lines, (table[:, 4:6] >= 0).all(1), "expected a width and height that are not negative")
    return table, lines


def _require(path: Path, lines: list[int], valid: Any, expected: str) -> None:
    """Raise ValueError with the line number of the first row that is not valid."""
    if not valid.all():
        raise ValueError(f"{path}, line {lines[int(valid.argmin())]}: {expected}")


def _boxes(table: np.ndarray) -> Tensor:
    """(N, 4) xyxy, 0-based, from columns 3 to 6: left and top, 1-based, width and height."""
    top_left = table[:, 2:4] - 1
    return torch.from_numpy(np.hstack([top_left, top_left + table[:, 4:6]])).float()


def _frame_index(path: Path, column: np.ndarray, lines: list[int], length: int) -> np.ndarray:
    """0-based frame indices. Raises ValueError for a frame number that is not a whole number from 1 to `length`."""
    valid = (column >= 1) & (column <= length) & (column == np.round(column))
    _require(path, lines, valid, f"expected a frame number from 1 to {length} in column 1")
    return column.astype(np.int64) - 1


def _by_frame(path: Path, rows: Rows, column: np.ndarray, lines: list[int], length: int) -> list[Rows]:
    """The rows of each frame, by the frame numbers in `column`, in the order of the file."""
    frames = _frame_index(path, column, lines, length)
    order = np.argsort(frames, kind="stable")
    bounds = np.searchsorted(frames[order], np.arange(length + 1))
    index = torch.from_numpy(order)
    return [rows[index[start:end]] for start, end in pairwise(bounds.tolist())]
