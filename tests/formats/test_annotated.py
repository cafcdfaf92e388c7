"""Every format: a video survives a round trip through it, and what is malformed is refused with its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from track.formats.annotated import AnnotatedVideo, Format, is_ignored_region
from track.formats.coco import COCO
from track.formats.cvat import CVAT, MOT
from track.formats.kitti import KITTI
from track.formats.tabular import CSV, JSONL, PARQUET
from track.formats.visdrone import VISDRONE
from track.structures import Tracks

FORMATS = (CVAT, COCO, PARQUET, JSONL, CSV, VISDRONE, MOT, KITTI)
NAMES = {1: "car", 4: "pedestrian"}


def make_video(name: str = "street", region: bool = True) -> AnnotatedVideo:
    """Two objects, of classes 4 and 1, and a region to be ignored; the second frame is empty."""
    rows = [[10, 20, 50, 120, 1, 4, 7], [200.5, 30, 260.25, 80, 1, 1, 9]]
    regions = [[300, 0, 320, 100, 0, 0, -1]] if region else []
    frames = [Tracks.from_rows([*rows, *regions]), Tracks.empty(), Tracks.from_rows(rows[:1])]
    return AnnotatedVideo(name, frames, 30.0, 320, 240, NAMES)


def rows_of(video: AnnotatedVideo) -> list[list[tuple[object, ...]]]:
    """Per frame: class name, id and box of each object, and the box of each ignored region."""
    frames = []
    for frame in video.frames:
        columns = is_ignored_region(frame).tolist(), frame.labels.tolist(), frame.ids.tolist(), frame.boxes.tolist()
        rows = [("region",) if one else (video.name_of(label), k) for one, label, k in zip(*columns[:3], strict=True)]
        frames.append([(*row, *box) for row, box in zip(rows, columns[3], strict=True)])
    return frames


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_a_video_survives_a_round_trip_and_its_format_is_recognised(kind: Format, tmp_path: Path) -> None:
    if kind is PARQUET:
        pytest.importorskip("pyarrow")
    video = make_video()
    (file,) = kind.write(tmp_path, [video])
    assert [one.name for one in FORMATS if one.matches(tmp_path)][0] == kind.name  # noqa: RUF015
    (back,) = kind.read(tmp_path)
    assert back.name == "street"
    assert len(back.frames) == 3
    assert rows_of(back) == rows_of(video)
    if kind not in (MOT, VISDRONE):
        assert rows_of(kind.read(file)[0]) == rows_of(video)


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_other_formats_are_not_taken_for_it(kind: Format, tmp_path: Path) -> None:
    if kind is PARQUET:
        pytest.importorskip("pyarrow")
    kind.write(tmp_path, [make_video()])
    earlier = FORMATS[: FORMATS.index(kind)]
    assert [one.name for one in earlier if one.matches(tmp_path)] == []


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_an_empty_folder_and_a_missing_path_hold_no_format(kind: Format, tmp_path: Path) -> None:
    assert not kind.matches(tmp_path)
    assert not kind.matches(tmp_path / "absent")


def test_result_scores_survive_where_the_format_has_them(tmp_path: Path) -> None:
    frames = [Tracks.from_rows([[10, 20, 50, 120, 0.625, 4, 7]])]
    video = replace(make_video(), frames=frames)
    for kind in (COCO, JSONL, CSV, KITTI, VISDRONE):
        kind.write(tmp_path / kind.name, [video])
        torch.testing.assert_close(kind.read(tmp_path / kind.name)[0].frames[0].scores, torch.tensor([0.625]))


@pytest.mark.parametrize("name", ["", "..", "a/b", "..\\b", "/etc", "C:x"])
def test_a_name_that_leaves_its_folder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected a video's name without folders"):
        make_video(name)


@pytest.mark.parametrize(
    ("kind", "file", "text", "message"),
    [
        (KITTI, "a.txt", "0 1 Car 0 0 -1 10 10 20\n", "line 1: expected at least 10 columns, got 9"),
        (KITTI, "a.txt", "0 1 Car 0 0 -1 10 10 20 nan\n", "line 1: expected finite numbers"),
        (KITTI, "a.txt", "0 1 Car 0 0 -1 10 10 5 20\n", "line 1: expected a width and height"),
        (KITTI, "a.txt", "0 1 Car 0 0 -1 10 10 20 20\n" * 2, "frame 1: expected each id once"),
        (KITTI, "a.txt", "0 one Car 0 0 -1 10 10 20 20\n", "line 1: expected `frame id type"),
        (KITTI, "a.txt", "99999999999 1 Car 0 0 -1 10 10 20 20\n", "line 1: expected a frame of at most"),
        (VISDRONE, "a.txt", "1,1,1,1,5,5,1,1,0,0\n1,2,1,1,-5,5,1,1,0,0\n", "line 2: expected a width and height"),
        (CSV, "a.csv", "frame,id,class,x1,y1,x2,y2\n1,1,car,0,0,nan,9\n", "line 2: expected finite numbers"),
        (CSV, "a.csv", "frame,id,class,x1,y1,x2,y2\n1,1,car,0,0\n", "line 2: expected numbers in frame, time"),
        (CSV, "a.csv", "frame,id,class,x1,y1,x2,y2\n0,1,car,0,0,1,1\n", "line 2: expected a frame of at most"),
        (JSONL, "a.jsonl", '{"frame": 1}\n', "line 1: expected the columns frame, id"),
        (JSONL, "a.jsonl", "[1]\n", "expected a JSON object per line"),
        (COCO, "a.json", '{"videos": 3, "images": [], "annotations": [], "categories": []}', "expected COCO's json"),
        (COCO, "a.json", "[" * 100_000, "expected COCO's json"),
    ],
)
def test_a_malformed_file_is_refused_with_the_place(
    kind: Format, file: str, text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=message) as refused:
        kind.read(tmp_path / file)
    assert str(refused.value).startswith(str(tmp_path / file))
