"""The layout of COCO data sets: which annotations of a json are valid, and where its images lie."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from track.checkpoint import printable

log = logging.getLogger(__name__)


class CocoBox(NamedTuple):
    """An annotation. image, category: their ids. box: left, top, width and height in pixels."""

    image: Any
    category: Any
    box: list[float]
    is_crowd: bool


def valid_annotations(
    file: Path, annotations: list[dict[str, Any]], images: Container[Any], categories: Container[Any]
) -> tuple[list[int], list[CocoBox]]:
    """The annotations with a box of a listed image and category, and their numbers, from 0; the others are named."""
    numbers: list[int] = []
    rows: list[CocoBox] = []
    invalid: dict[str, list[int]] = {}
    for number, one in enumerate(annotations):
        box = _four_numbers(one.get("bbox"))
        if box is None:
            invalid.setdefault("without a bbox of four numbers", []).append(number)
        elif one.get("image_id") not in images:
            invalid.setdefault("of an image that is not listed", []).append(number)
        elif one.get("category_id") not in categories:
            invalid.setdefault("of a category that is not listed", []).append(number)
        else:
            numbers.append(number)
            rows.append(CocoBox(one["image_id"], one["category_id"], box, bool(one.get("iscrowd"))))
    for reason, those in invalid.items():
        log.warning(f"{file}: left out {len(those)} annotations {reason}, first annotations[{those[0]}]")
    return numbers, rows


def _four_numbers(value: Any) -> list[float] | None:
    """Left, top, width and height, or None if they are not four finite numbers."""
    try:
        box = [float(side) for side in value]
    except (TypeError, ValueError):
        return None
    return box if len(box) == 4 and all(math.isfinite(side) for side in box) else None


def image_paths(file: Path, names: list[str]) -> list[Path]:
    """The path of each image, none twice. Raises ValueError with the first one that is missing or outside."""
    beside = file.absolute().parent
    root = beside.parent if beside.name.lower() == "annotations" else beside  # the data set's folder
    split = file.stem.split("_")[-1]  # train2017
    folders = [beside, root / split, root / "images" / split, root / "images", root, beside / "images"]
    paths = {name: _image_path(file, name, folders, root) for name in names}
    missing = [name for name in names if paths[name] is None]
    if missing:
        where = f"expected beside it, in {split}/, images/{split}/ or images/"
        first = printable(missing[0])
        raise ValueError(f"{file}: {len(missing)} of {len(names)} images are missing, first {first}: {where}")
    name_of: dict[Path | None, str] = {}
    for name, path in paths.items():
        if name_of.setdefault(path, name) != name:
            raise ValueError(f"{file}: {name_of[path]} and {name} are both {path}, expected each image once")
    return [path for name in names if (path := paths[name]) is not None]


def _image_path(file: Path, name: str, folders: Sequence[Path], root: Path) -> Path | None:
    """The first file that exists in one of the folders, or None. Links may lead out of `root`, names may not.

    name: a relative path with either separator; or a URL or another computer's path, of which the last parts count.
    """
    path = name.replace("\\", "/")
    is_foreign = "://" in path or bool(re.match(r"[A-Za-z]:/", path)) or path.startswith("/")
    if "://" in path:
        path = unquote(urlsplit(path).path)
    parts = path.split("/")
    if not is_foreign and not _normal(folders[0] / path).is_relative_to(root):
        raise ValueError(f"{file}: {name} leaves the data set's folder")
    suffixes = ["/".join(parts[start:]) for start in range(1, len(parts))] if is_foreign else [path]
    candidates = (_normal(folder / suffix) for suffix in suffixes for folder in folders)
    return next((one for one in candidates if one.is_relative_to(root) and one.is_file()), None)


def _normal(path: Path) -> Path:
    """A path without "..", which does not follow links."""
    return Path(os.path.normpath(path))
