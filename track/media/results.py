"""Result files, written frame by frame: MOTChallenge text, CSV or JSON lines; and files that are rotated by time."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from track.formats.mot import track_rows
from track.formats.tabular import RESULT_COLUMNS
from track.structures import Frame, TrackedFrame, Tracks, class_name

RESULT_SUFFIXES = (".txt", ".csv", ".jsonl")
MIN_ROTATION = 1.0  # seconds, as names tell them apart


class Writer(Protocol):
    """A sink that writes a file and, as a context, closes it."""

    def __enter__(self) -> Self:
        """The sink itself."""
        ...

    def write(self, result: TrackedFrame) -> None:
        """Append a frame."""
        ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        ...


class ResultWriter:
    """A sink that writes tracks to a file, by its suffix: .txt in MOTChallenge format, .csv or .jsonl (RESULT_COLUMNS).

        with ResultWriter("tracks.csv", label_names) as results:
            results.write(tracked_frame)

    label_names: the class name of each label. Boxes are xyxy pixels, 0-based (1-based in .txt), times are seconds. Each
    frame is on disk before the next one. Raises ValueError if the file cannot be written.
    """

    def __init__(self, path: str | Path, label_names: Sequence[str]) -> None:
        self.path, self.label_names = Path(path), list(label_names)
        if self.path.suffix not in RESULT_SUFFIXES:
            raise ValueError(f"{path}: expected a name that ends with {', '.join(RESULT_SUFFIXES)}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise ValueError(f"{path}: expected a file that can be written ({error.strerror})") from error
        if self.path.suffix == ".csv":
            csv.writer(self.file).writerow(RESULT_COLUMNS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.file.close()
        except OSError as failure:
            if kind is None:  # otherwise `write` has already reported it
                raise ValueError(f"{self.path}: write failed ({failure.strerror})") from failure

    def write(self, result: TrackedFrame) -> None:
        """Append the tracks of a frame."""
        frame, tracks = result.frame, result.tracks
        try:
            if self.path.suffix == ".txt":
                self.file.writelines(track_rows(frame.number, tracks))
            elif self.path.suffix == ".csv":
                csv.writer(self.file).writerows(_rows(frame, tracks, self.label_names))
            else:
                named = (dict(zip(RESULT_COLUMNS, row, strict=True)) for row in _rows(frame, tracks, self.label_names))
                self.file.writelines(json.dumps(row) + "\n" for row in named)
            self.file.flush()
        except OSError as error:
            reason = f"write failed at frame {frame.number} ({error.strerror})"
            raise ValueError(f"{self.path}: {reason}") from error


class RotatingWriter:
    """A sink that starts another file every `seconds` of the source's time, for cameras that run for months.

        with RotatingWriter("tracks.csv", 3600, lambda path: ResultWriter(path, label_names)) as results:
            results.write(tracked_frame)        # into tracks-20260131T120000Z.csv, named by its first frame's time

    open_writer: makes the writer of a file. began: when the source's time was 0; by default, such that the first frame
    is of the time at which it is written. A file is complete when the next one is opened, and names sort by time.
    Raises ValueError for less than a second, and if a file exists.
    """

    def __init__(
        self,
        path: str | Path,
        seconds: float,
        open_writer: Callable[[Path], Writer],
        began: datetime | None = None,
    ) -> None:
        if not seconds >= MIN_ROTATION:
            raise ValueError(f"rotate: expected at least {MIN_ROTATION:g} s, got {seconds:g} s")
        self.path, self.seconds, self.open_writer = Path(path), seconds, open_writer
        self.began = began
        self._writer: Writer | None = None
        self._due = 0.0  # the source's time at which the next file starts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.__exit__(kind, error, at)

    def write(self, result: TrackedFrame) -> None:
        """Append a frame, to a new file if it is time."""
        time = result.frame.time
        if self._writer is None or time >= self._due:
            self.__exit__(None, None, None)
            self._writer = self.open_writer(self._next_file(time))
            self._due = time + self.seconds
        self._writer.write(result)

    def _next_file(self, time: float) -> Path:
        if self.began is None:
            self.began = datetime.now(UTC) - timedelta(seconds=time)
        stamp = (self.began + timedelta(seconds=time)).strftime("%Y%m%dT%H%M%SZ")
        file = rotated_file(self.path, stamp)
        if file.exists():
            raise ValueError(f"{file}: exists")
        return file


def rotated_file(path: Path, stamp: str) -> Path:
    """The name of a rotated file, with the time at which it starts."""
    return path.with_name(f"{path.stem}-{stamp}{path.suffix}")


def _rows(frame: Frame, tracks: Tracks, label_names: Sequence[str]) -> Iterator[list[Any]]:
    """The values of `RESULT_COLUMNS` for each track."""
    columns = tracks.ids.tolist(), tracks.labels.tolist(), tracks.boxes.tolist(), tracks.scores.tolist()
    for identity, label, box, score in zip(*columns, strict=True):
        pixels = [round(side, 2) for side in box]
        name = class_name(label, label_names)
        yield [frame.number, round(frame.time, 4), identity, name, *pixels, round(score, 4)]
