"""COCO's json with videos: frame numbers, instance ids, crowds, and values that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from track.formats.annotated import is_ignored_region
from track.formats.coco import COCO


def make_table(**annotation: Any) -> dict[str, Any]:
    row = {"id": 1, "image_id": 11, "category_id": 3, "instance_id": 5, "bbox": [399.0, 182.0, 121.0, 229.0]}
    return {
        "videos": [{"id": 1, "name": "train/street"}],
        "images": [
            {"id": 10, "video_id": 1, "frame_id": 0, "width": 640, "height": 480, "file_name": "0.jpg"},
            {"id": 11, "video_id": 1, "frame_id": 4, "width": 640, "height": 480, "file_name": "4.jpg"},
        ],
        "annotations": [row | annotation],
        "categories": [{"id": 3, "name": "car"}],
    }


def put(tmp_path: Path, table: dict[str, Any]) -> Path:
    (tmp_path / "a.json").write_text(json.dumps(table))
    return tmp_path / "a.json"


def test_a_video_is_read(tmp_path: Path) -> None:
    (video,) = COCO.read(put(tmp_path, make_table()))
    assert (video.name, video.width, video.height, video.frame_rate) == ("street", 640, 480, 30.0)
    assert [len(frame) for frame in video.frames] == [0, 0, 0, 0, 1]
    assert video.frames[4].boxes.tolist() == [[399, 182, 520, 411]]
    assert (video.frames[4].ids.tolist(), video.labels(), video.name_of(3)) == ([5], [3], "car")


def test_frame_ids_from_1_are_kept_and_crowds_are_ignored_regions(tmp_path: Path) -> None:
    table = make_table(iscrowd=1)
    table["images"][0]["frame_id"] = 1
    (video,) = COCO.read(put(tmp_path, table))
    assert len(video.frames) == 4
    assert is_ignored_region(video.frames[3]).tolist() == [True]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"bbox": [1, 2, 3]}, r"annotations\[0\]: expected a bbox of four numbers"),
        ({"bbox": [1, 2, float("nan"), 3]}, r"annotations\[0\]: expected finite numbers"),
        ({"bbox": [1, 2, -3, 3]}, r"annotations\[0\]: expected a width and height"),
        ({"category_id": 10**20}, r"annotations\[0\]: category_id: expected a whole number of at most"),
        ({"instance_id": None}, r"annotations\[0\]: expected a track_id or instance_id"),
        ({"image_id": 99}, "KeyError"),
    ],
)
def test_a_malformed_annotation_is_named(annotation: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        COCO.read(put(tmp_path, make_table(**annotation)))


@pytest.mark.parametrize(("key", "value"), [("frame_id", 10**12), ("width", 10**9)])
def test_a_number_that_would_size_memory_is_refused(key: str, value: int, tmp_path: Path) -> None:
    table = make_table()
    table["images"][0][key] = value
    with pytest.raises(ValueError, match="expected a whole number of at most"):
        COCO.read(put(tmp_path, table))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"fps":10', '"fps":' + "9" * 400), "fps: expected a positive number"),
        (('"fps":10', '"fps":"abc"'), r"video.json: street.1: fps: expected a positive number, got abc"),
        (('"fps":10', '"fps":10,"width":0,"height":-5'), "expected a width and height of at least 1"),
        (("[1,2,3,4]", "[1,2,3," + "9" * 400 + "]"), "expected a bbox of four numbers|within 1e"),
    ],
)
def test_numbers_beyond_reason_are_refused_with_the_file(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = (
        '{"videos":[{"id":1,"name":"street.1","fps":10}],"images":[{"id":1,"video_id":1,"frame_id":0,"file_name":"a"}],'
        '"annotations":[{"id":1,"image_id":1,"category_id":1,"bbox":[1,2,3,4],"track_id":5}],'
        '"categories":[{"id":1,"name":"car"}]}'
    )
    file = tmp_path / "video.json"
    file.write_text(text)
    assert [video.name for video in COCO.read(file)] == ["street.1"]
    file.write_text(text.replace(*change))
    with pytest.raises(ValueError, match=message):
        COCO.read(file)
