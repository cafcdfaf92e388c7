from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_convert

from track.structures import Detections, Frame, Tracks
from track.tracking.tracker import AssociationTrace, Tracker

pytest.importorskip("rerun")
from rerun.chunk import RrdReader

from track.display.rerun import Viewer

CATEGORIES = ["background", "person"]
Row = dict[str, Any]


def crossing(count: int) -> list[Detections]:
    """Two people who walk through each other; nobody is detected in the last frame."""
    boxes = [[[20.0 + 8 * t, 30, 60 + 8 * t, 130], [260.0 - 8 * t, 34, 300 - 8 * t, 134]] for t in range(count - 1)]
    return [*(Detections.from_rows([[*box, 0.9, 1] for box in frame]) for frame in boxes), Detections.empty()]


def written(file: Path, frames: list[Detections]) -> tuple[list[tuple[Tracks, AssociationTrace]], dict[str, list[Row]]]:
    """What the tracker said of each frame, and the rows of the file it was written to, by entity."""
    tracker, viewer, said = Tracker(frame_rate=10), Viewer(file), []
    for number, detections in enumerate(frames, 1):
        tracks = tracker.update(detections)
        image = torch.full((3, 240, 320), number, dtype=torch.uint8)
        viewer.write(Frame(image, (number - 1) / 10, number), tracks, tracker.reasons, CATEGORIES)
        said.append((tracks, tracker.reasons))
    del viewer  # which ends the file
    return said, read(file)


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
    _, rows = written(tmp_path / "a.rrd", crossing(20))
    for entity in ("/picture/image", "/picture/tracks", "/picture/detections", "/picture/uncertainty", "/affinity"):
        assert [row["frame"] for row in rows[entity]] == list(range(1, 21))


def test_boxes_are_where_the_tracker_and_the_detector_saw_them(tmp_path: Path) -> None:
    said, rows = written(tmp_path / "a.rrd", crossing(20))
    for (tracks, reasons), *logged in zip(said, rows["/picture/tracks"], rows["/picture/detections"], strict=True):
        for boxes, row in zip((tracks.boxes, reasons.detections.boxes), logged, strict=True):
            found = torch.tensor([[*c, *h] for c, h in zip(row["centers"], row["half_sizes"], strict=True)])
            wanted = box_convert(boxes, "xyxy", "cxcywh") * torch.tensor([1, 1, 0.5, 0.5])
            torch.testing.assert_close(found.reshape(-1, 4), wanted)
    assert rows["/picture/tracks"][5]["labels"] == ["person 1", "person 2"]
    assert rows["/picture/tracks"][-1]["labels"] == []


def test_a_prediction_says_its_best_affinities_and_what_it_takes(tmp_path: Path) -> None:
    said, rows = written(tmp_path / "a.rrd", crossing(20))
    for (_, reasons), row in zip(said[1:-1], rows["/picture/predictions"][1:-1], strict=True):
        taken = dict(zip(reasons.decision.tracks.tolist(), reasons.decision.detections.tolist(), strict=True))
        for track, (identity, label) in enumerate(zip(reasons.ids.tolist(), row["labels"], strict=True)):
            best = int(reasons.decision.affinity[track].argmax())
            start = f"{identity}, 0.10 s | #{best}: {float(reasons.decision.affinity[track, best]):+.2f}"
            assert label.startswith(start)
            assert label.endswith(f"| takes #{taken[track]}")
    assert rows["/picture/predictions"][-1]["labels"] == [f"{i}, 0.10 s | none possible | takes none" for i in (1, 2)]


def test_a_detection_says_who_took_it_or_that_it_starts_a_track(tmp_path: Path) -> None:
    said, rows = written(tmp_path / "a.rrd", crossing(3))
    affinity = float(said[1][1].decision.affinity[0, 0])
    assert rows["/picture/detections"][0]["labels"] == [f"#{row} 0.90 | none possible | new" for row in (0, 1)]
    assert rows["/picture/detections"][1]["labels"][0] == f"#0 0.90 | 1: {affinity:+.2f} | taken by 1"


def test_the_table_has_every_affinity_and_the_pairs_bold(tmp_path: Path) -> None:
    said, rows = written(tmp_path / "a.rrd", crossing(20))
    t = next(t for t, (_, reasons) in enumerate(said) if reasons.decision.affinity.isfinite().sum() == 4)
    lines = [line.strip("| ").split(" | ") for line in rows["/affinity"][t]["text"][0].splitlines()]
    (a, b), (c, d) = said[t][1].decision.affinity.tolist()
    assert lines == [
        ["#0", "#1"],
        ["---"] * 3,
        ["1", f"**{a:+.2f}**", f"{b:+.2f}"],
        ["2", f"{c:+.2f}", f"**{d:+.2f}**"],
    ]


def test_the_uncertainty_is_two_standard_deviations_of_an_edge_around_the_prediction(tmp_path: Path) -> None:
    said, rows = written(tmp_path / "a.rrd", crossing(20))
    for (_, reasons), *logged in zip(said, rows["/picture/predictions"], rows["/picture/uncertainty"], strict=True):
        inner, outer = (extent(row["strips"]) for row in logged)
        torch.testing.assert_close(inner, reasons.candidates.boxes)
        variance = reasons.candidates.sigma.square()
        edge = (variance[:, :2] + variance[:, 2:] / 4).sqrt()
        torch.testing.assert_close(outer - inner, torch.cat([-2 * edge, 2 * edge], 1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["missing/a.rrd", "."])
def test_a_file_that_cannot_be_written_is_refused_in_a_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^viewer: Failed to create file: [^\n]*$") as refused:
        Viewer(tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)


def test_without_a_display_the_window_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"^viewer: no display [^\n]*$"):
        Viewer(None)
