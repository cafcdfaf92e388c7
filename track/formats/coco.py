"""COCO's json with videos: `videos`, `images` with video_id and frame_id, `annotations` with track_id or instance_id.

    {"id": 7, "image_id": 3, "category_id": 1, "track_id": 12, "bbox": [399.0, 182.0, 121.0, 229.0]}

bbox: left, top, width, height in pixels from 0. iscrowd: a region in which nothing is scored. frame_id: from 0 or, in a
video that has no frame 0, from 1; without it, images are numbered in order. score: of results.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from track.checkpoint import first_line
from track.formats.annotated import (
    IGNORED_REGION,
    MAX_SIZE,
    AnnotatedVideo,
    Format,
    Row,
    build_video,
    check_row,
    files_at,
    is_ignored_region,
    write_text,
)
from track.formats.footage import DEFAULT_RATE, VIDEO_SUFFIXES
from track.formats.table import MAX_INTEGER, MAX_LENGTH

FILE_NAME = "tracks.json"
KEYS = ("videos", "images", "annotations", "categories")


def matches(path: Path) -> bool:
    """Whether `path` is a json file, or a folder of them, whose text has the four keys."""
    files = files_at(path, ".json")
    text = files[0].read_text(encoding="utf-8", errors="replace") if files else ""
    return text.lstrip().startswith("{") and all(f'"{key}"' in text for key in KEYS)


def read(path: Path) -> list[AnnotatedVideo]:
    """Each video of each file; categories keep their ids as labels."""
    return [video for file in files_at(path, ".json") for video in _read_file(file)]


def write(folder: Path, videos: Sequence[AnnotatedVideo]) -> list[Path]:
    """One tracks.json with all videos, whose categories are matched by name; frame_id is from 0."""
    categories: dict[str, int] = {}
    for video in videos:
        for label in sorted({*video.label_names, *video.labels()}):
            categories.setdefault(video.name_of(label), len(categories) + 1)
    table: dict[str, list[dict[str, Any]]] = {key: [] for key in KEYS}
    table["categories"] = [{"id": number, "name": name} for name, number in categories.items()]
    for number, video in enumerate(videos, 1):
        size = {"width": video.width, "height": video.height}
        table["videos"].append({"id": number, "name": video.name, "fps": video.frame_rate, **size})
        for frame in range(len(video.frames)):
            image = {"id": len(table["images"]) + 1, "video_id": number, "frame_id": frame, **size}
            table["images"].append(image | {"file_name": f"{video.name}/img1/{frame + 1:06d}.jpg"})
            table["annotations"] += _annotations(video, frame, image["id"], categories, len(table["annotations"]))
    return [write_text(folder / FILE_NAME, [json.dumps(table)])]


def _read_file(path: Path) -> list[AnnotatedVideo]:
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        names = {_integer(f"{path}: categories", one["id"]): str(one["name"]) for one in table["categories"]}
        images: dict[Any, list[dict[str, Any]]] = defaultdict(list)  # by video
        for image in table["images"]:
            images[image["video_id"]].append(image)
        numbers = {image: n for own in images.values() for image, n in _frame_numbers(path, own).items()}
        video_of_image = {one["id"]: one["video_id"] for one in table["images"]}
        rows: dict[Any, list[Row]] = defaultdict(list)  # by video
        for index, annotation in enumerate(table["annotations"]):
            row = _row(f"{path}: annotations[{index}]", annotation, numbers)
            rows[video_of_image[annotation["image_id"]]].append(row)
        return [_video(path, one, rows[one["id"]], names, images[one["id"]]) for one in table["videos"]]
    except (
        OSError,
        UnicodeDecodeError,
        json.JSONDecodeError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as e:
        reason = f"{type(e).__name__} {first_line(e)}"
        raise ValueError(f"{path}: expected COCO's json of videos, images, annotations, categories ({reason})") from e


def _frame_numbers(path: Path, images: list[dict[str, Any]]) -> dict[Any, int]:
    """The frame number, from 1, of each image of one video by the image's id."""
    if not all("frame_id" in one for one in images):
        return {one["id"]: number for number, one in enumerate(images, 1)}
    numbers = [_integer(f"{path}: images: frame_id", one["frame_id"], MAX_LENGTH - 1) for one in images]
    shift = 1 if 0 in numbers else 0
    return {one["id"]: number + shift for one, number in zip(images, numbers, strict=True)}


def _row(where: str, annotation: dict[str, Any], numbers: dict[Any, int]) -> Row:
    identity = annotation.get("track_id", annotation.get("instance_id"))
    if identity is None:
        raise ValueError(f"{where}: expected a track_id or instance_id")
    try:
        left, top, width, height = (float(side) for side in annotation["bbox"])
        score = float(annotation.get("score", 1.0))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(f"{where}: expected a bbox of four numbers, left, top, width and height") from None
    label = _integer(f"{where}: category_id", annotation["category_id"])
    if annotation.get("iscrowd"):
        label, score = IGNORED_REGION, 0.0
    box = [left, top, left + width, top + height]
    return check_row(where, (numbers[annotation["image_id"]], _integer(where, identity), label, score, box))


def _video(
    path: Path, video: dict[str, Any], rows: list[Row], names: dict[int, str], images: list[dict[str, Any]]
) -> AnnotatedVideo:
    file = Path(str(video.get("name") or video.get("file_name") or video["id"]))
    name = file.stem if file.suffix.lower() in VIDEO_SUFFIXES else file.name
    rate = video.get("fps") or DEFAULT_RATE
    if not isinstance(rate, int | float) or not 0 < rate < 1e6:
        raise ValueError(f"{path}: {name}: fps: expected a positive number, got {str(rate)[:80]}")
    first: dict[str, Any] = images[0] if images else {}
    sides = [video.get(key, first.get(key)) for key in ("width", "height")]
    size = None if None in sides else [_integer(f"{path}: {name}: size", side, MAX_SIZE) for side in sides]
    if size and min(size) < 1:
        raise ValueError(f"{path}: {name}: expected a width and height of at least 1, got {size}")
    length = max(_frame_numbers(path, images).values(), default=0)
    return build_video(name, path, rows, names, float(rate), (size[0], size[1]) if size else None, length)


def _integer(where: str, value: Any, highest: int = MAX_INTEGER) -> int:
    if not isinstance(value, int) or not -MAX_INTEGER <= value <= highest:
        raise ValueError(f"{where}: expected a whole number of at most {highest}, got {str(value)[:80]}")
    return value


def _annotations(
    video: AnnotatedVideo, frame: int, image: int, categories: dict[str, int], count: int
) -> Iterator[dict[str, Any]]:
    """The annotations of one frame; ids go on from `count`."""
    tracks = video.frames[frame]
    columns = tracks.ids.tolist(), tracks.labels.tolist(), tracks.scores.tolist(), tracks.boxes.tolist()
    regions = is_ignored_region(tracks).tolist()
    for number, (region, identity, label, score, (x1, y1, x2, y2)) in enumerate(
        zip(regions, *columns, strict=True), count + 1
    ):
        box = [round(side, 2) for side in (x1, y1, x2 - x1, y2 - y1)]
        category = next(iter(categories.values()), 1) if region else categories[video.name_of(label)]
        row = {"id": number, "image_id": image, "category_id": category, "track_id": identity, "bbox": box}
        yield row | {"area": round(box[2] * box[3], 2), "iscrowd": int(region), "score": round(score, 6)}


COCO = Format("coco", "COCO video json", matches, read, write)
