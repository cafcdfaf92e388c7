"""Tracks written as they come, a frame at a time: MOTChallenge text, CSV or JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from track.mot import track_rows
from track.structures import Frame, Tracks

COLUMNS = ["frame", "time", "id", "class", "x1", "y1", "x2", "y2", "score"]
KINDS = (".txt", ".csv", ".jsonl")


class ResultWriter:
    """A file of tracks, by its suffix: .txt as MOTChallenge has it, .csv or .jsonl with `COLUMNS`.

    with ResultWriter("tracks.csv", categories) as results:
        results.write(tracks, frame)

    Boxes are xyxy pixels, 0-based (but in .txt), times seconds, classes the names of the labels in `categories`. Every
    frame is on the disk before the next one. ValueError where the file cannot be written.
    """

    def __init__(self, path: str | Path, categories: Sequence[str]) -> None:
        self.path, self.categories = Path(path), list(categories)
        if self.path.suffix not in KINDS:
            raise ValueError(f"{path}: expected a name that ends with {', '.join(KINDS)}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise ValueError(f"{path}: expected a file that can be written ({error.strerror})") from error
        if self.path.suffix == ".csv":
            csv.writer(self.file).writerow(COLUMNS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.file.close()
        except OSError as failed:
            if kind is None:  # else it is the error that was told already
                raise ValueError(f"{self.path}: could not be written ({failed.strerror})") from failed

    def write(self, tracks: Tracks, frame: Frame) -> None:
        """Append a frame's tracks."""
        try:
            if self.path.suffix == ".txt":
                self.file.writelines(track_rows(frame.number, tracks))
            elif self.path.suffix == ".csv":
                csv.writer(self.file).writerows(rows_of(tracks, frame, self.categories))
            else:
                rows = rows_of(tracks, frame, self.categories)
                self.file.writelines(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in rows)
            self.file.flush()
        except OSError as error:
            raise ValueError(
                f"{self.path}: could not be written on at frame {frame.number} ({error.strerror})"
            ) from error


def rows_of(tracks: Tracks, frame: Frame, categories: Sequence[str]) -> Iterator[list[Any]]:
    """The values of `COLUMNS` for each track of a frame."""
    columns = tracks.ids.tolist(), tracks.labels.tolist(), tracks.boxes.tolist(), tracks.scores.tolist()
    for identity, label, box, score in zip(*columns, strict=True):
        pixels = [round(side, 2) for side in box]
        yield [frame.number, round(frame.time, 4), identity, categories[label], *pixels, round(score, 4)]
