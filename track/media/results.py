"""Result files that are written as the frames come: MOTChallenge text, CSV, JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from track.formats.mot import track_rows
from track.structures import Frame, TrackedFrame, Tracks

COLUMNS = ["frame", "time", "id", "class", "x1", "y1", "x2", "y2", "score"]
RESULT_SUFFIXES = (".txt", ".csv", ".jsonl")


class ResultWriter:
    """A sink that writes tracks into a file by its suffix: .txt in MOTChallenge format, .csv or .jsonl with `COLUMNS`.

        with ResultWriter("tracks.csv", label_names) as results:
            results.write(tracked_frame)

    Boxes are xyxy pixels, 0-based (1-based in .txt), times seconds, classes the names of the labels. Each frame is on
    the disk before the next one. Raises ValueError where the file cannot be written.
    """

    def __init__(self, path: str | Path, label_names: Sequence[str]) -> None:
        self.path, self.label_names = Path(path), list(label_names)
        if self.path.suffix not in RESULT_SUFFIXES:
            raise ValueError(f"{path}: expected a name that ends with {', '.join(RESULT_SUFFIXES)}")
        self.file = open_text(self.path)
        if self.path.suffix == ".csv":
            csv.writer(self.file).writerow(COLUMNS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.file.close()
        except OSError as failed:
            if kind is None:  # otherwise it was reported already
                raise ValueError(f"{self.path}: could not be written ({failed.strerror})") from failed

    def write(self, result: TrackedFrame) -> None:
        """Append a frame's tracks."""
        frame, tracks = result.frame, result.tracks
        try:
            if self.path.suffix == ".txt":
                self.file.writelines(track_rows(frame.number, tracks))
            elif self.path.suffix == ".csv":
                csv.writer(self.file).writerows(result_rows(tracks, frame, self.label_names))
            else:
                rows = result_rows(tracks, frame, self.label_names)
                self.file.writelines(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in rows)
            self.file.flush()
        except OSError as error:
            raise ValueError(
                f"{self.path}: could not be written on at frame {frame.number} ({error.strerror})"
            ) from error


def result_rows(tracks: Tracks, frame: Frame, label_names: Sequence[str]) -> Iterator[list[Any]]:
    """The values of `COLUMNS` for each track of a frame."""
    columns = tracks.ids.tolist(), tracks.labels.tolist(), tracks.boxes.tolist(), tracks.scores.tolist()
    for identity, label, box, score in zip(*columns, strict=True):
        pixels = [round(side, 2) for side in box]
        yield [frame.number, round(frame.time, 4), identity, label_names[label], *pixels, round(score, 4)]


def open_text(path: Path) -> IO[str]:
    """A text file to write, whose folder is made. Raises ValueError where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: expected a file that can be written ({error.strerror})") from error
