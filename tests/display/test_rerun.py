"""Rerun recordings, read back: boxes, labels and affinities of every frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_convert

from track.detection.source import PrecomputedDetections
from track.pipeline import Pipeline
from track.structures import Detections, Frame, Tracks
from track.tracking.camera_motion import Static
from track.tracking.tracker import AssociationTrace, Tracker

pytest.importorskip("rerun")
from rerun.chunk import RrdReader

from track.display.rerun import RerunViewer

NAMES = ["background", "person"]
Row = dict[str, Any]


class Step(NamedTuple):
    """What the tracker put out for a frame, and why."""

    tracks: Tracks
    trace: AssociationTrace


def crossing(count: int) -> list[Detections]:
    """Two people who walk through each other; the last frame has no detections."""
    boxes = [[[20.0 + 8 * t, 30, 60 + 8 * t, 130], [260.0 - 8 * t, 34, 300 - 8 * t, 134]] for t in range(count - 1)]
    return [*(Detections.from_rows([[*box, 0.9, 1] for box in frame]) for frame in boxes), Detections.empty()]


def record(file: Path, video: list[Detections], names: list[str] = NAMES) -> tuple[list[Step], dict[str, list[Row]]]:
    """Track a video and write it to a file; returns each frame's step, and the file's rows by entity."""
    tracker = Tracker()
    pipeline = Pipeline(PrecomputedDetections(video), Static(), tracker)
    steps = []
    with RerunViewer(file, tracker, names) as viewer:
        for number in range(1, 1 + len(video)):
            image = torch.full((3, 240, 320), number, dtype=torch.uint8)
            result = pipeline.step(Frame(image, (number - 1) / 10, number))
            viewer.write(result)
            assert tracker.trace is not None
            steps.append(Step(result.tracks, tracker.trace))
    return steps, read(file)


def read(file: Path) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {}
    for chunk in RrdReader(file).stream():
        batch = chunk.to_record_batch()
        columns = {name.split(":")[-1]: batch.column(name).to_pylist() for name in batch.schema.names if name != "time"}
        rows.setdefault(chunk.entity_path, []).extend(
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        )
    return rows


def extent(strips: list[list[list[float]]]) -> Tensor:
    corners = torch.tensor(strips).reshape(-1, 5, 2)
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


def test_every_frame_is_written_with_its_number(tmp_path: Path) -> None:
    _, rows = record(tmp_path / "a.rrd", crossing(20))
    for entity in ("/frame/image", "/frame/tracks", "/frame/detections", "/frame/uncertainty", "/affinity"):
        assert [row["frame"] for row in rows[entity]] == list(range(1, 21))


def test_boxes_are_those_of_the_tracker_and_the_detector(tmp_path: Path) -> None:
    steps, rows = record(tmp_path / "a.rrd", crossing(20))
    for step, *logged in zip(steps, rows["/frame/tracks"], rows["/frame/detections"], strict=True):
        for boxes, row in zip((step.tracks.boxes, torch.from_numpy(step.trace.detections.boxes)), logged, strict=True):
            halves = torch.tensor([[*c, *h] for c, h in zip(row["centers"], row["half_sizes"], strict=True)])
            expected = box_convert(boxes, "xyxy", "cxcywh") * torch.tensor([1, 1, 0.5, 0.5])
            torch.testing.assert_close(halves.reshape(-1, 4), expected)
    assert rows["/frame/tracks"][5]["labels"] == ["person 1", "person 2"]
    assert rows["/frame/tracks"][-1]["labels"] == []


def test_a_label_without_a_name_is_shown_by_its_number(tmp_path: Path) -> None:
    _, rows = record(tmp_path / "a.rrd", crossing(3), NAMES[:1])
    assert rows["/frame/tracks"][1]["labels"] == ["class 1 1", "class 1 2"]


def test_a_predictions_label_has_its_best_affinities_and_its_match(tmp_path: Path) -> None:
    steps, rows = record(tmp_path / "a.rrd", crossing(20))
    for (_, trace), row in zip(steps[1:-1], rows["/frame/predictions"][1:-1], strict=True):
        matched = dict(zip(trace.matches.tracks.tolist(), trace.matches.detections.tolist(), strict=True))
        for track, (identity, label) in enumerate(zip(trace.ids.tolist(), row["labels"], strict=True)):
            affinity = trace.matches.table(2, 2)[track]
            start = f"{identity}, 0.10 s | #{affinity.argmax()}: {affinity.max():+.2f}"
            assert label.startswith(start)
            assert label.endswith(f"| matched to #{matched[track]}")
    assert rows["/frame/predictions"][-1]["labels"] == [f"{i}, 0.10 s | none possible | unmatched" for i in (1, 2)]


def test_a_detections_label_has_its_track_or_says_that_it_starts_one(tmp_path: Path) -> None:
    steps, rows = record(tmp_path / "a.rrd", crossing(3))
    affinity = steps[1].trace.matches.table(2, 2)[0, 0]
    assert rows["/frame/detections"][0]["labels"] == [f"#{row} 0.90 | none possible | new" for row in (0, 1)]
    assert rows["/frame/detections"][1]["labels"][0] == f"#0 0.90 | 1: {affinity:+.2f} | matched to 1"


def test_the_table_has_every_affinity_and_the_matches_in_bold(tmp_path: Path) -> None:
    steps, rows = record(tmp_path / "a.rrd", crossing(20))
    t = next(t for t, (_, trace) in enumerate(steps) if len(trace.matches.affinity) == 4)
    lines = [line.strip("| ").split(" | ") for line in rows["/affinity"][t]["text"][0].splitlines()]
    (a, b), (c, d) = steps[t].trace.matches.table(2, 2).tolist()
    assert lines == [
        ["#0", "#1"],
        ["---"] * 3,
        ["1", f"**{a:+.2f}**", f"{b:+.2f}"],
        ["2", f"{c:+.2f}", f"**{d:+.2f}**"],
    ]


def test_the_uncertainty_is_two_standard_deviations_of_an_edge_around_the_prediction(tmp_path: Path) -> None:
    steps, rows = record(tmp_path / "a.rrd", crossing(20))
    for (_, trace), *logged in zip(steps, rows["/frame/predictions"], rows["/frame/uncertainty"], strict=True):
        inner, outer = (extent(row["strips"]) for row in logged)
        torch.testing.assert_close(inner, torch.from_numpy(trace.predictions.boxes))
        variance = torch.from_numpy(trace.predictions.sigma).square()
        edge = (variance[:, :2] + variance[:, 2:] / 4).sqrt()
        torch.testing.assert_close(outer - inner, torch.cat([-2 * edge, 2 * edge], 1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["missing/a.rrd", "."])
def test_a_file_that_cannot_be_written_is_refused_in_one_line(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"^viewer: \[Errno \d+\] [^\n]*$") as refusal:
        RerunViewer(tmp_path / name, Tracker(), NAMES)
    assert str(tmp_path / name) in str(refusal.value)
    assert capfd.readouterr().err == ""


def test_without_a_display_the_window_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"^viewer: no display [^\n]*$"):
        RerunViewer(None, Tracker(), NAMES)
