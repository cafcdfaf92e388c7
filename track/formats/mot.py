"""Read and write MOTChallenge folders. No other file knows their columns, 1-based pixels, classes and splits."""

from __future__ import annotations

import configparser
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from track.checkpoint import atomic_write, first_line, printable
from track.formats.annotated import IGNORED_REGION, MAX_SIZE
from track.formats.annotated import is_ignored_region as is_ignored_region  # also imported from here
from track.formats.footage import (
    DEFAULT_RATE,
    Footage,
    check_names,
    image_numbers,
    name_numbers,
    probe_images,
    probe_video,
)
from track.formats.footage import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from track.formats.footage import VIDEO_SUFFIXES as VIDEO_SUFFIXES
from track.formats.footage import image_files as image_files
from track.formats.table import (
    MAX_LENGTH,
    frame_index,
    last_frame,
    read_table,
    read_text,
    require,
    rows_by_frame,
    whole,
)
from track.geometry import compose_affines, is_camera_motion
from track.structures import Detections, Tracks

SPLITS = ("all", "train-half", "val-half")
RESULT_ROW = re.compile(r"\d+,\d+(,-?\d+\.\d\d){4},\d\.\d{4},-?\d+,-1,-1")  # as `track_rows` writes it
PEDESTRIAN = 1  # the class that is scored; also the label of rows without a class


@dataclass(frozen=True)
class MotSequence:
    """A folder `ROOT/<name>` of `length` frames, of which `frame_numbers` (from 1, ascending) are used.

    frame_rate: frames per second. width, height: pixels. image_dir: the folder of images, relative to `path`.
    has_seqinfo: whether length, rate and size are those of seqinfo.ini. Without it they are those of the video or the
    images (`DEFAULT_RATE`), or of the rows in gt/ and det/ if there is no footage.
    """

    path: Path
    frame_rate: float
    width: int
    height: int
    length: int
    frame_numbers: range | list[int]
    image_dir: str = "img1"
    has_seqinfo: bool = True

    @property
    def name(self) -> str:
        """The folder's name, by which result files are called too; of a link its own name."""
        return Path(os.path.abspath(self.path)).name

    def __len__(self) -> int:
        return len(self.frame_numbers)

    @property
    def times(self) -> list[float]:
        """Seconds from the first used frame to each used frame."""
        return [(number - self.frame_numbers[0]) / self.frame_rate for number in self.frame_numbers]

    def truth(self) -> list[Tracks]:
        """Ground truth, one `Tracks` per frame: scores are the `consider` flag, labels the class or 1.

        Regions to be ignored are rows too, see `is_ignored_region`.
        """
        return self._used(read_tracks(self._file("gt/gt.txt"), self.length, truth=True))

    def label_names(self) -> dict[int, str] | None:
        """The name of each label, from 1, in gt/labels.txt as CVAT exports it, one name per line; None without it.

        Raises ValueError if the file cannot be read.
        """
        if not self.has("gt/labels.txt"):
            return None
        return dict(enumerate((line.strip() for line in read_text(self._file("gt/labels.txt")).splitlines()), 1))

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
        """The image file of each used frame in order, or None without an image folder.

        If images are numbered with gaps, the number in a name is the frame's number (`image_numbers`), and the path of
        a frame in a gap names no file. Raises ValueError if the images end before the sequence does.
        """
        folder = self._inside(self.image_dir)
        if not folder.is_dir():
            return None
        files = image_files(folder)
        if not files and not self.has_seqinfo:
            return None
        numbers = image_numbers(files)
        names = name_numbers(files)
        if len(files) < self.length and names[-1:] == [self.length]:
            numbers = names  # the first images are missing
        last = numbers[-1] if numbers else 0
        if last < self.length:
            reason = "as seqinfo.ini says" if self.has_seqinfo else "as its rows say"
            raise ValueError(f"{folder}: expected {self.length} frames {reason}, found {last}")
        if last > max(self.length, len(files)):
            raise ValueError(f"{folder}: images are numbered up to {last} with gaps, expected seqLength={last}")
        by_number = dict(zip(numbers, files, strict=True))
        return [by_number.get(number, _absent(files[0], number)) for number in self.frame_numbers]

    def video(self) -> Path | None:
        """The sequence's video file, or None."""
        names = _video_names(self.path)
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


def find_sequences(
    root: str | Path,
    split: str = "all",
    stride: int = 1,
    drop_rate: float = 0.0,
    names: Collection[str] | None = None,
) -> list[MotSequence]:
    """Every sequence at or below `root`, by path; with `names`, only those. See `is_sequence`.

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
    sequences = [read_sequence(folder) for folder in sequence_folders(root)]
    if not sequences:
        raise ValueError(f"{root}: no sequences below it, expected folders with a seqinfo.ini, gt/gt.txt or img1/")
    check_names(root, "sequence", [sequence.name for sequence in sequences], names)
    chosen = [sequence for sequence in sequences if names is None or sequence.name in names]
    return [_subsample(_cut(sequence, split), stride, drop_rate) for sequence in chosen]


def sequence_folders(root: str | Path) -> list[Path]:
    """The folders of all sequences at or below `root`, by path; none inside another one without a seqinfo.ini.

    Links to folders are followed; a folder that is reached twice counts once.
    """
    found: list[Path] = []
    visited: set[Path] = set()
    for parent, folders, files in os.walk(root, followlinks=True):
        folder, target = Path(parent), Path(parent).resolve()
        if target in visited:
            folders.clear()
            continue
        visited.add(target)
        if "seqinfo.ini" in files:
            found.append(folder)
        elif is_sequence(folder):
            found.append(folder)
            folders.clear()
    return sorted(found)


def is_sequence(folder: Path) -> bool:
    """Whether a folder is a sequence: it has a seqinfo.ini, gt/gt.txt, images in img1/, or one video and det/*.txt."""
    if any((folder / file).is_file() for file in ("seqinfo.ini", "gt/gt.txt")):
        return True
    has_images = (folder / "img1").is_dir() and bool(image_files(folder / "img1"))
    return has_images or (any((folder / "det").glob("*.txt")) and len(_video_names(folder)) == 1)


def read_sequence(path: str | Path) -> MotSequence:
    """Read a sequence's seqinfo.ini, or find out about a sequence without one, see `MotSequence`.

    Raises ValueError with the key of seqinfo.ini that is missing or out of range, or if nothing says how long a
    sequence is.
    """
    ini = Path(path) / "seqinfo.ini"
    if not ini.is_file():
        return _inferred_sequence(Path(path))
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(ini.read_text(encoding="utf-8-sig"))
        section = parser["Sequence"]
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError) as error:
        raise ValueError(f"{ini}: expected an ini file with a [Sequence] section ({first_line(error)})") from error

    def number(key: str, highest: float = float("inf")) -> float:
        try:
            value = float(section[key])
        except (KeyError, ValueError):
            value = 0.0
        if not 0 < value < float("inf") or (key != "frameRate" and value % 1):
            kind = "positive number" if key == "frameRate" else "whole number of at least 1"
            raise ValueError(f"{ini}: {key}: expected a {kind}, got {printable(section.get(key))}")
        if value > highest:
            raise ValueError(f"{ini}: {key}: expected at most {highest}, got {printable(section[key])}")
        return value

    width, height = int(number("imWidth", MAX_SIZE)), int(number("imHeight", MAX_SIZE))
    length = int(number("seqLength", MAX_LENGTH))
    images = section.get("imDir", "img1")
    return MotSequence(Path(path), number("frameRate"), width, height, length, range(1, length + 1), images)


def read_tracks(path: Path, length: int, truth: bool = False) -> list[Tracks]:
    """Read rows `frame, id, left, top, width, height, score[, class, ...]` into one `Tracks` per frame 1 to `length`.

    truth: whether the file is ground truth, which needs the score and may have a visibility. Labels are those of
    `_labels`.
    Raises ValueError with the file and line of a malformed row, or of an id that repeats within a frame, unless it is
    that of regions to be ignored.
    """
    table, lines = read_table(path, columns=6 if not truth else 7)
    require(path, lines, whole(table[:, 1]), "expected a whole number as id in column 2")
    labels = _labels(path, table, lines, truth)
    scores = table[:, 6] if table.shape[1] > 6 else np.ones(len(table))
    region = (labels == IGNORED_REGION) & (scores == 0) & truth
    order = np.lexsort((table[:, 1], table[:, 0]))
    order = order[~region[order]]
    repeated = np.zeros(len(table), bool)
    repeated[order[1:]] = (np.diff(table[order][:, :2], axis=0) == 0).all(1)
    require(path, lines, ~repeated, "expected each id once in a frame")
    rows = Tracks(
        _boxes(table),
        torch.from_numpy(scores).float(),
        torch.from_numpy(labels).long(),
        torch.from_numpy(table[:, 1]).long(),
    )
    return rows_by_frame(path, rows, table[:, 0], lines, length)


def read_detections(path: Path, length: int) -> list[Detections]:
    """Read rows `frame, -1, left, top, width, height, score[, class, ...]` into one `Detections` per frame to `length`.

    Labels are those of `_labels`. Raises ValueError as `read_tracks` does.
    """
    table, lines = read_table(path, columns=7)
    labels = torch.from_numpy(_labels(path, table, lines)).long()
    rows = Detections(_boxes(table), torch.from_numpy(table[:, 6]).float(), labels)
    return rows_by_frame(path, rows, table[:, 0], lines, length)


def read_affines(path: Path, length: int) -> Tensor:
    """Read rows `frame, a11, a12, tx, a21, a22, ty` into (length, 2, 3) affines; a frame without a row is the identity.

    Raises ValueError with the file and line of a malformed row, or of a frame that repeats.
    """
    table, lines = read_table(path, columns=7, boxes=False)
    affines = np.tile(np.eye(2, 3), (length, 1, 1))
    index = frame_index(path, table[:, 0], lines, length)
    first_rows = np.unique(index, return_index=True)[1]
    require(path, lines, np.isin(np.arange(len(index)), first_rows), "expected each frame once")
    rows = torch.from_numpy(table[:, 1:7].reshape(-1, 2, 3))
    require(path, lines, is_camera_motion(rows).numpy(), "expected an affine that can be inverted")
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
    """The result file's rows of one frame; column 8 is the class, or -1 for label 1."""
    columns = tracks.ids.tolist(), tracks.boxes.tolist(), tracks.scores.tolist(), tracks.labels.tolist()
    for identity, box, score, label in zip(*columns, strict=True):
        yield _row(frame, identity, box, score, -1 if label == PEDESTRIAN else label)


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


def _boxes(table: np.ndarray) -> Tensor:
    """(N, 4) xyxy, 0-based, from columns 3 to 6: left and top, 1-based, width and height."""
    top_left = table[:, 2:4] - 1
    return torch.from_numpy(np.hstack([top_left, top_left + table[:, 4:6]])).float()


def _labels(path: Path, table: np.ndarray, lines: list[int], truth: bool = False) -> np.ndarray:
    """(N,) the class in column 8; 1 for rows with -1 there, and for all rows of a file without classes.

    Files of up to nine columns have classes if they have a column 8: MOT16 and later, CVAT. Ten columns end in MOT15's
    world coordinates x, y, z, unless columns 9 and 10 show that they are `class, -1, -1` (this program's files) or, in
    ground truth, `class, visibility, ...` and VisDrone's `class, truncation, occlusion`.
    """
    ones = np.ones(len(table))
    if table.shape[1] < 8 or (table.shape[1] >= 10 and not _has_class(table, truth)):
        return ones
    column = table[:, 7]
    valid = whole(column) & (column >= -1)
    require(path, lines, valid, "expected a class in column 8: a whole number from 0, or -1 for none")
    return np.where(column == -1, ones, column)


def _has_class(table: np.ndarray, truth: bool) -> bool:
    """Whether column 8 of a table of ten columns is a class, not a coordinate in metres."""
    label, ninth, tenth = table[:, 7:10].T
    absent = (ninth == -1) & (tenth == -1)
    visibility = (ninth >= 0) & (ninth <= 1) & np.isin(tenth, (-1, 0, 1, 2)) & truth
    return bool((whole(label) & (label >= -1) & (absent | visibility)).all())


def _inferred_sequence(path: Path) -> MotSequence:
    """A sequence without seqinfo.ini: from its images, its video, or its rows. Raises ValueError if it has none."""
    files = image_files(path / "img1") if (path / "img1").is_dir() else []
    videos = _video_names(path)
    tables = [file for file in (path / "gt/gt.txt", *sorted((path / "det").glob("*.txt"))) if file.is_file()]
    if files:
        footage = probe_images(files)
    elif videos:
        footage = probe_video(path / videos[0])
    elif tables:
        footage = footage_of_rows(tables)
    else:
        raise ValueError(f"{path}: expected seqinfo.ini, img1/, a video, gt/gt.txt or det/")
    if not 0 < footage.length <= MAX_LENGTH:
        raise ValueError(f"{path}: expected 1 to {MAX_LENGTH} frames, found {footage.length}")
    numbers = range(1, footage.length + 1)
    return MotSequence(path, footage.frame_rate, footage.width, footage.height, footage.length, numbers, "img1", False)


def footage_of_rows(tables: list[Path]) -> Footage:
    """Length and size of a sequence without footage: the last frame and the farthest sides of its boxes."""
    length = max(last_frame(file) for file in tables)
    boxes = np.vstack([read_table(file, columns=6)[0][:, 2:6] for file in tables])
    width, height = (boxes[:, :2] + boxes[:, 2:]).max(0, initial=2).clip(2, MAX_SIZE + 1) - 1
    return Footage(length, DEFAULT_RATE, math.ceil(width), math.ceil(height))


def _video_names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES)


def _absent(sibling: Path, number: int) -> Path:
    """The name that the image of a frame would have, were it not missing."""
    return sibling.with_stem(f"{number:0{len(sibling.stem)}d}")
