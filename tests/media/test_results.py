"""Result files: the columns of each format, flushed after every frame."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Self

import pytest
import torch

from track.formats.mot import read_tracks
from track.geometry import identity_affine
from track.media.results import RESULT_COLUMNS, ResultWriter, RotatingWriter
from track.structures import Detections, Frame, Observation, TrackedFrame, Tracks

NAMES = ["background", "person", "car"]
TRACKS = Tracks.from_rows([[10, 20, 40.5, 90, 0.75, 1, 7], [50, 60, 90, 100, 0.5, 2, 8]])


def tracked(tracks: Tracks, time: float, number: int) -> TrackedFrame:
    frame = Frame(torch.zeros(3, 4, 4, dtype=torch.uint8), time, number)
    return TrackedFrame(frame, Observation(number, time, Detections.empty(), identity_affine()), tracks)


def write(path: Path) -> Path:
    with ResultWriter(path, NAMES) as results:
        results.write(tracked(Tracks.empty(), 0.0, 1))
        results.write(tracked(TRACKS, 0.5, 2))
    return path


def test_csv_has_a_row_per_track_with_its_class_by_name(tmp_path: Path) -> None:
    with write(tmp_path / "a.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == RESULT_COLUMNS
    assert rows[1] == ["2", "0.5", "7", "person", "10.0", "20.0", "40.5", "90.0", "0.75"]
    assert [row[3] for row in rows[1:]] == ["person", "car"]


def test_a_label_without_a_name_is_written_by_its_number(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "a.csv", NAMES[:2]) as results:
        results.write(tracked(TRACKS, 0.5, 2))
    rows = (tmp_path / "a.csv").read_text().splitlines()
    assert [row.split(",")[3] for row in rows] == ["class", "person", "class 2"]


def test_json_lines_hold_the_same_columns(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in write(tmp_path / "a.jsonl").read_text().splitlines()]
    assert rows[1] == dict(zip(RESULT_COLUMNS, [2, 0.5, 8, "car", 50.0, 60.0, 90.0, 100.0, 0.5], strict=True))


def test_text_is_in_the_format_that_evaluation_reads(tmp_path: Path) -> None:
    first, second = read_tracks(write(tmp_path / "a.txt"), 2)
    assert len(first) == 0
    assert second.boxes.tolist() == TRACKS.boxes.tolist()
    assert second.ids.tolist() == [7, 8]


def test_each_frame_is_on_disk_before_the_next(tmp_path: Path) -> None:
    results = ResultWriter(tmp_path / "a.csv", NAMES)
    results.write(tracked(TRACKS, 0.5, 2))
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 3


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.xml: expected a name that ends with \.txt, \.csv, \.jsonl"):
        ResultWriter(tmp_path / "a.xml", NAMES)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match=r"folder\.csv: expected a file that can be written \(Is a directory\)"):
        ResultWriter(tmp_path / "folder.csv", NAMES)
    full = Path("/dev/full")
    if full.exists():
        (tmp_path / "full.csv").symlink_to(full)
        refused = pytest.raises(ValueError, match=r"full\.csv: write failed at frame 2 \(No space left")
        with refused, ResultWriter(tmp_path / "full.csv", NAMES) as results:
            results.write(tracked(TRACKS, 0.5, 2))


def test_a_rotated_file_has_the_header_and_the_rows_of_its_hour(tmp_path: Path) -> None:
    noon = datetime(2026, 1, 31, 22, tzinfo=UTC)
    with RotatingWriter(tmp_path / "a.csv", 3600, lambda path: ResultWriter(path, NAMES), noon) as results:
        for hour in (0, 0.5, 0.9999, 1, 1.9, 5.25):  # nothing between, as a camera was unplugged
            results.write(tracked(TRACKS, 3600 * hour, round(1000 * hour) + 1))
    files = sorted(tmp_path.iterdir())
    starts = ["20260131T220000Z", "20260131T230000Z", "20260201T031500Z"]
    assert [file.name for file in files] == [f"a-{start}.csv" for start in starts]
    tables = [list(csv.DictReader(file.open())) for file in files]
    assert [[row["frame"] for row in table[::2]] for table in tables] == [
        ["1", "501", "1001"],
        ["1001", "1901"],
        ["5251"],
    ]
    assert [row["time"] for row in tables[2]] == ["18900.0", "18900.0"]


def test_a_rotated_file_is_named_by_when_its_first_frame_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        minute_now = 0

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls(2026, 1, 31, 12, cls.minute_now, tzinfo=tz)

    monkeypatch.setattr("track.media.results.datetime", Clock)
    with RotatingWriter(tmp_path / "a.csv", 60, lambda path: ResultWriter(path, NAMES)) as results:
        Clock.minute_now = 5  # a detector was loaded, and frames were dropped meanwhile
        results.write(tracked(TRACKS, 30.0, 1))
        results.write(tracked(TRACKS, 90.0, 2))
    names = [file.name for file in sorted(tmp_path.iterdir())]
    assert names == ["a-20260131T120500Z.csv", "a-20260131T120600Z.csv"]


def test_a_rotated_file_is_complete_when_the_next_one_starts_and_none_is_replaced(tmp_path: Path) -> None:
    start = datetime(2026, 1, 31, tzinfo=UTC)
    rotating = RotatingWriter(tmp_path / "a.csv", 60, lambda path: ResultWriter(path, NAMES), start)
    rotating.write(tracked(TRACKS, 0.0, 1))
    first = rotating._writer
    rotating.write(tracked(TRACKS, 60.0, 2))
    assert isinstance(first, ResultWriter)
    assert first.file.closed
    again = RotatingWriter(tmp_path / "a.csv", 60, lambda path: ResultWriter(path, NAMES), start)
    with pytest.raises(ValueError, match=r"a-20260131T000000Z\.csv: exists"):
        again.write(tracked(TRACKS, 0.0, 1))
    with pytest.raises(ValueError, match=r"rotate: expected at least 1 s, got 0\.36 s"):
        RotatingWriter(tmp_path / "a.csv", 0.36, lambda path: ResultWriter(path, NAMES))
