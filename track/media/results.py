"""Result files, written frame by frame: MOTChallenge text, CSV or JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from track.formats.mot import track_rows
from track.formats.tabular import RESULT_COLUMNS
from track.structures import Frame, TrackedFrame, Tracks, class_name

RESULT_SUFFIXES = (".txt", ".csv", ".jsonl")


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


def _rows(frame: Frame, tracks: Tracks, label_names: Sequence[str]) -> Iterator[list[Any]]:
    """The values of `RESULT_COLUMNS` for each track."""
    columns = tracks.ids.tolist(), tracks.labels.tolist(), tracks.boxes.tolist(), tracks.scores.tolist()
    for identity, label, box, score in zip(*columns, strict=True):
        pixels = [round(side, 2) for side in box]
        name = class_name(label, label_names)
        yield [frame.number, round(frame.time, 4), identity, name, *pixels, round(score, 4)]
