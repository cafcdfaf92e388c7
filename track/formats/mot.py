"""MOTChallenge folders: the only file that knows their columns, 1-based pixels and splits."""

from __future__ import annotations

import configparser
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from track.geometry import compose_affines
from track.structures import Detections, Tracks

SPLITS = ("all", "train-half", "val-half")
Rows = TypeVar("Rows", bound=Detections)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm")


@dataclass(frozen=True)
class MotSequence:
    """One folder `ROOT/<name>` of `length` frames, of which those in `frame_numbers` (from 1, ascending) are used."""

    path: Path
    frame_rate: float
    width: int
    height: int
    length: int
    frame_numbers: range | list[int]
    image_dir: str = "img1"

    @property
    def name(self) -> str:
        """The folder's name, which is also the result file's."""
        return self.path.resolve().name

    def __len__(self) -> int:
        return len(self.frame_numbers)

    @property
    def times(self) -> list[float]:
        """Seconds of each frame after the first."""
        return [(number - self.frame_numbers[0]) / self.frame_rate for number in self.frame_numbers]

    def truth(self) -> list[Tracks]:
        """Ground truth, a `Tracks` a frame: scores are the `consider` flag, labels the class (MOT15: 1)."""
        return self._split(read_tracks(self._file("gt/gt.txt"), self.length, truth=True))

    def detections(self, file: str = "det/det.txt") -> list[Detections]:
        """Detections of one of the sequence's files, a `Detections` a frame; rows in any order."""
        return self._split(read_detections(self._file(file), self.length))

    def affines(self) -> Tensor:
        """Affines from the previous used frame's pixels to each frame's, (frames, 2, 3), 0-based pixels."""
        steps = read_affines(self._file("gmc.txt"), self.length)
        starts = [self.frame_numbers[0] - 1, *self.frame_numbers]
        return torch.stack([compose_affines(steps[a:b]) for a, b in zip(starts, self.frame_numbers, strict=False)])

    def has(self, file: str) -> bool:
        """Whether the sequence has the file; a path that leaves the folder is refused."""
        return self._inside(file).is_file()

    def images(self) -> list[Path] | None:
        """The frames' files in order, or None where there is no image folder."""
        folder = self._inside(self.image_dir)
        if not folder.is_dir():
            return None
        files = image_files(folder)
        if len(files) < self.length:
            raise ValueError(f"{folder}: expected {self.length} frames as seqinfo.ini says, found {len(files)}")
        return self._split(files)

    def video(self) -> Path | None:
        """The sequence's video file, or None where there is none."""
        names = sorted(f.name for f in self.path.iterdir() if f.suffix.lower() in VIDEO_SUFFIXES)
        return self._inside(names[0]) if names else None

    def has_footage(self) -> bool:
        """Whether the sequence has images or a video."""
        return self.images() is not None or self.video() is not None

    def _split(self, frames: list[Any]) -> list[Any]:
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
    """The pictures in a folder, 2.jpg before 10.jpg."""
    files = (f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(files, key=lambda f: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", f.name)])


def find_sequences(
    root: str | Path,
    split: str = "all",
    stride: int = 1,
    drop_rate: float = 0.0,
    names: Collection[str] | None = None,
) -> list[MotSequence]:
    """Every folder at or below `root` that has a seqinfo.ini, by path; of these, those called `names`.

    stride: frame stride within the split; 3 keeps every third frame. drop_rate: fraction of the remaining frames to drop
    at random (fixed seed). Raises ValueError where there is no sequence, for a name that none has, or for a number out
    of range.
    """
    if stride < 1 or not 0 <= drop_rate < 1:
        raise ValueError(
            f"stride: expected at least 1, got {stride}; drop_rate: expected 0 or more, below 1, got {drop_rate}"
        )
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split}")
    if not Path(root).is_dir():
        raise ValueError(f"{root}: no such folder, expected sequences below it")
    whole = (read_sequence(ini.parent) for ini in sorted(Path(root).rglob("seqinfo.ini")))
    found = [_thin(_cut(sequence, split), stride, drop_rate) for sequence in whole]
    if not found:
        raise ValueError(f"{root}: no sequences below it, expected folders with a seqinfo.ini")
    known = [sequence.name for sequence in found]
    twice = next((name for name in known if known.count(name) > 1), None)
    if twice:
        raise ValueError(f"{root}: two sequences are called {twice}, expected each name once")
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise ValueError(f"{root}: no sequence is called {unknown[0]}, expected some of {', '.join(known)}")
    return [sequence for sequence in found if names is None or sequence.name in names]


def read_sequence(path: str | Path) -> MotSequence:
    """One sequence's seqinfo.ini. ValueError names the key that is missing or out of range."""
    ini = Path(path) / "seqinfo.ini"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(ini.read_text(encoding="utf-8-sig"))
        section = parser["Sequence"]
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{ini}: expected an ini file with a [Sequence] section ({reason})") from error

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
    """Rows `frame, id, left, top, width, height, score[, class, ...]` of frames 1 to length, a `Tracks` a frame.

    Ground truth may number its classes; results, and MOT15's ten columns with -1 there, are class 1.
    ValueError names the file and line of a row that is not so, or of an id that is twice in a frame.
    """
    table, lines = _read_table(path, columns=6 if not truth else 7)
    whole = (table[:, 1] == np.round(table[:, 1])) & (np.abs(table[:, 1]) <= 2**53)
    _refuse(path, lines, ~whole, "expected a whole number as id in column 2")
    order = np.lexsort((table[:, 1], table[:, 0]))
    twice = np.zeros(len(table), bool)
    twice[order[1:]] = (np.diff(table[order][:, :2], axis=0) == 0).all(1)
    _refuse(path, lines, twice, "expected each id once in a frame")
    scores = table[:, 6] if table.shape[1] > 6 else np.ones(len(table))
    labels = table[:, 7] if truth and table.shape[1] in (8, 9) else np.ones(len(table))
    columns = torch.from_numpy(scores).float(), torch.from_numpy(labels).long(), torch.from_numpy(table[:, 1]).long()
    return _by_frame(path, Tracks(_boxes(table), *columns), table[:, 0], lines, length)


def read_detections(path: Path, length: int) -> list[Detections]:
    """Rows `frame, -1, left, top, width, height, score[, ...]` of frames 1 to length, a `Detections` a frame.

    A class of 1 or more in column 8 is the label, other rows are class 1. ValueError as in `read_tracks`.
    """
    table, lines = _read_table(path, columns=7)
    labels = table[:, 7].clip(1) if table.shape[1] > 7 else np.ones(len(table))
    columns = torch.from_numpy(table[:, 6]).float(), torch.from_numpy(labels).long()
    return _by_frame(path, Detections(_boxes(table), *columns), table[:, 0], lines, length)


def read_affines(path: Path, length: int) -> Tensor:
    """Rows `frame, a11, a12, tx, a21, a22, ty`: (frames, 2, 3) affines, identity where a frame has no row."""
    table, lines = _read_table(path, columns=7, boxes=False)
    affines = np.tile(np.eye(2, 3), (length, 1, 1))
    index = _frame_index(path, table[:, 0], lines, length)
    _refuse(
        path,
        lines,
        np.isin(np.arange(len(index)), np.unique(index, return_index=True)[1], invert=True),
        "expected each frame once",
    )
    affines[index] = table[:, 1:7].reshape(-1, 2, 3)
    return torch.from_numpy(affines).float()


def write_tracks(path: Path, frames: Iterable[Tracks]) -> None:
    """Write results, frames numbered from 1, under a temporary name until they are whole."""
    rows = (row for number, tracks in enumerate(frames, 1) for row in track_rows(number, tracks))
    _write(path, rows)


def write_detections(path: Path, frames: Iterable[Detections]) -> None:
    """Write detections, frames numbered from 1, so that trackers can be tuned without the detector."""
    rows = (
        _row(number, -1, box, score, label)
        for number, frame in enumerate(frames, 1)
        for (box, score), label in zip(_columns(frame), frame.labels.tolist(), strict=True)
    )
    _write(path, rows)


def write_sequence(
    folder: Path, boxes: np.ndarray, cameras: np.ndarray, frame_rate: float, width: int, height: int
) -> None:
    """A sequence of ground truth alone: boxes (F, N, 4) xyxy pixels, NaN where absent, cameras (F, 2, 3)."""
    rows = (
        f"{frame},{k},{x1 + 1:.2f},{y1 + 1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},1,1,1\n"
        for frame, table in enumerate(boxes.tolist(), 1)
        for k, (x1, y1, x2, y2) in enumerate(table, 1)
        if x1 == x1
    )
    _write(folder / "gt" / "gt.txt", rows)
    affines = enumerate(cameras.reshape(len(cameras), 6).tolist(), 1)
    _write(folder / "gmc.txt", (",".join(map(str, (frame, *values))) + "\n" for frame, values in affines))
    write_info(folder, frame_rate, len(boxes), width, height)


def write_info(folder: Path, frame_rate: float, length: int, width: int, height: int) -> None:
    """Write a sequence's seqinfo.ini; its name is the folder's."""
    sizes = f"seqLength={length}\nimWidth={width}\nimHeight={height}\nimExt=.jpg\n"
    _write(folder / "seqinfo.ini", [f"[Sequence]\nname={folder.name}\nimDir=img1\nframeRate={frame_rate:g}\n{sizes}"])


def track_rows(frame: int, tracks: Tracks) -> Iterator[str]:
    """The result file's rows of one frame."""
    for (box, score), identity in zip(_columns(tracks), tracks.ids.tolist(), strict=True):
        yield _row(frame, identity, box, score)


def _columns(frame: Detections) -> Iterator[tuple[list[float], float]]:
    return zip(frame.boxes.tolist(), frame.scores.tolist(), strict=True)


def _row(frame: int, identity: int, box: list[float], score: float, label: int = -1) -> str:
    x1, y1, x2, y2 = box
    return f"{frame},{identity},{x1 + 1:.2f},{y1 + 1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},{label},-1,-1\n"


def _write(path: Path, rows: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as file:
        try:
            file.writelines(rows)
        except BaseException:
            os.unlink(file.name)
            raise
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def _cut(sequence: MotSequence, split: str) -> MotSequence:
    half = sequence.length // 2 + 1
    first, last = {"train-half": (1, half), "val-half": (half + 1, sequence.length)}.get(split, (1, sequence.length))
    return replace(sequence, frame_numbers=range(first, min(last, sequence.length) + 1))


def _thin(sequence: MotSequence, stride: int, drop_rate: float) -> MotSequence:
    numbers = sequence.frame_numbers[::stride]
    if not drop_rate:
        return replace(sequence, frame_numbers=numbers)
    chance = np.random.default_rng(0).random(len(numbers))
    return replace(
        sequence, frame_numbers=[n for n, c in zip(numbers, chance, strict=True) if c >= drop_rate] or [*numbers[:1]]
    )


def _read_table(path: Path, columns: int, boxes: bool = True) -> tuple[np.ndarray, list[int]]:
    """A comma-separated file as float64 and the line number of each row; blank lines are passed over."""
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
    _refuse(path, lines, ~np.isfinite(table).all(1), "expected finite numbers")
    if boxes:
        _refuse(path, lines, (table[:, 4:6] < 0).any(1), "expected a width and height that are not negative")
    return table, lines


def _refuse(path: Path, lines: list[int], bad: Any, expected: str) -> None:
    if bad.any():
        raise ValueError(f"{path}, line {lines[int(bad.argmax())]}: {expected}")


def _boxes(table: np.ndarray) -> Tensor:
    top_left = table[:, 2:4] - 1
    return torch.from_numpy(np.hstack([top_left, top_left + table[:, 4:6]])).float()


def _frame_index(path: Path, column: np.ndarray, lines: list[int], length: int) -> np.ndarray:
    """0-based frame indices; a frame number that is not a whole number from 1 to length is refused."""
    whole = (column >= 1) & (column <= length) & (column == np.round(column))
    _refuse(path, lines, ~whole, f"expected a frame number from 1 to {length} in column 1")
    return column.astype(np.int64) - 1


def _by_frame(path: Path, rows: Rows, column: np.ndarray, lines: list[int], length: int) -> list[Rows]:
    frames = _frame_index(path, column, lines, length)
    order = np.argsort(frames, kind="stable")
    bounds = np.searchsorted(frames[order], np.arange(length + 1))
    index = torch.from_numpy(order)
    return [rows[index[start:end]] for start, end in pairwise(bounds.tolist())]
