"""Pictures with labelled boxes: MOTChallenge folders with frames or a video, the Penn-Fudan layout, COCO json."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from track.detection.detector import label_of
from track.formats.mot import MotSequence, find_sequences
from track.geometry import occluded_fraction

BOX = re.compile(r"Bounding box for object \d+ .*: \((-?\d+), (-?\d+)\) - \((-?\d+), (-?\d+)\)")
HIDDEN = 0.75  # so much of a box behind a nearer one, and a picture shows nothing to learn from
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnnotatedImage:
    """A picture's file (number 0; or a video and the frame's number), its boxes (N, 4) xyxy pixels and labels (N,)."""

    file: Path
    number: int
    boxes: Tensor
    labels: Tensor


def find_examples(
    root: Path, classes: Sequence[str], split: str = "all", stride: int = 1
) -> list[list[AnnotatedImage]]:
    """Everything labelled at root, in groups that belong together: a sequence's frames, otherwise a picture each.

    Labels are 1 + the index in `classes`. Folders have persons alone. split, stride: of sequences. ValueError, in one
    line, for what cannot be read, is absent or would leave the folder.
    """
    if root.is_file():
        return [[example] for example in coco(root, classes)]
    if "person" not in classes:
        raise ValueError(f"{root}: its boxes are persons, expected person among classes, got {', '.join(classes)}")
    person = torch.tensor(1 + list(classes).index("person"))
    if pictures := penn_fudan(root, person):
        return [[example] for example in pictures]
    return [sequence_examples(sequence, person, stride) for sequence in find_sequences(root, split)]


def penn_fudan(root: Path, person: Tensor) -> list[AnnotatedImage]:
    """An example an image of the Penn-Fudan layout at or below root, none where root is not such a folder."""
    folder = root / "PennFudanPed" if (root / "PennFudanPed").is_dir() else root
    return [_annotated(folder, text, person) for text in sorted((folder / "Annotation").glob("*.txt"))]


def _annotated(folder: Path, text: Path, person: Tensor) -> AnnotatedImage:
    found = [folder / sub / (text.stem + end) for sub in ("PNGImages", "JPEGImages") for end in (".png", ".jpg")]
    file = next((f for f in found if f.is_file()), None)
    if file is None:
        raise ValueError(f"{text}: expected its image as PNGImages/{text.stem}.png or JPEGImages/{text.stem}.jpg")
    rows = [[int(value) - 1 for value in row] for row in BOX.findall(text.read_text(errors="replace"))]
    if not rows:
        raise ValueError(f"{text}: expected at least one line 'Bounding box for object ...'")
    return AnnotatedImage(file, 0, torch.tensor(rows).float(), person.expand(len(rows)))


def sequence_examples(sequence: MotSequence, person: Tensor, stride: int) -> list[AnnotatedImage]:
    """Each `stride`-th frame of a sequence with its considered persons who are to be seen, from its images or else
    its video."""
    images, video = sequence.images(), sequence.video()
    if images is None and video is None:
        raise ValueError(f"{sequence.path}: expected {sequence.image_dir}/ or a video file to train a detector on")
    examples, empty = [], []
    for index, frame in list(enumerate(sequence.truth()))[::stride]:
        there = frame[(frame.scores > 0) & (frame.labels == 1)]
        inside = _inside(there.boxes, torch.tensor([sequence.width, sequence.height]))
        empty += [f"frame {sequence.frame_numbers[index]}, id {k}" for k in there.ids[~inside].tolist()]
        boxes = there.boxes[inside & (occluded_fraction(there.boxes) < HIDDEN)]
        file, number = (images[index], 0) if images else (video or sequence.path, sequence.frame_numbers[index])
        examples.append(AnnotatedImage(file, number, boxes, person.expand(len(boxes))))
    _report(sequence.path / "gt/gt.txt", empty)
    return examples


def coco(file: Path, classes: Sequence[str]) -> list[AnnotatedImage]:
    """An example an image of a COCO json ("instances"), its boxes of `classes`; the images lie beside it or in
    images/. Boxes of crowds are left out."""
    try:
        table: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        names = {one["id"]: str(one["name"]) for one in table["categories"]}
        images = {one["id"]: (str(one["file_name"]), one["width"], one["height"]) for one in table["images"]}
        found = table["annotations"]
        rows = [(one["image_id"], one["category_id"], one["bbox"], one.get("iscrowd", 0)) for one in found]
        boxes = torch.tensor([[float(v) for v in box] for _, _, box, _ in rows]).reshape(len(rows), 4)
        where = [images[image] for image, *_ in rows]
        kinds = [names[category] for _, category, *_ in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__} {str(error).splitlines()[0]}"
        raise ValueError(f"{file}: expected COCO's json of images, annotations and categories ({reason})") from error
    for name in classes:
        label_of(name, list(names.values()))
    boxes[:, 2:] += boxes[:, :2]
    inside = _inside(boxes, torch.tensor([size for _, *size in where]).reshape(-1, 2))
    _report(file, [f"annotations[{row}]" for row in (~inside).nonzero().flatten().tolist()])
    chosen: dict[Any, list[int]] = {image: [] for image in images}
    for row, (image, _, _, crowd) in enumerate(rows):
        if kinds[row] in classes and not crowd and inside[row]:
            chosen[image].append(row)
    files = _coco_files(file, [name for name, *_ in images.values()])
    labels = torch.tensor([1 + list(classes).index(kind) if kind in classes else 0 for kind in kinds], dtype=torch.long)
    return [
        AnnotatedImage(path, 0, boxes[some], labels[some]) for path, some in zip(files, chosen.values(), strict=True)
    ]


def _coco_files(file: Path, names: list[str]) -> list[Path]:
    """Where each image is. ValueError names the first that is not there, and one outside the json's folder."""
    folder = file.parent.resolve()
    paths = []
    for name in names:
        path = next((p for p in (folder / name, folder / "images" / name) if p.is_file()), None)
        paths.append(path or folder / name)
        if not paths[-1].resolve().is_relative_to(folder):
            raise ValueError(f"{file}: {name} leaves the json's folder")
    missing = [name for name, path in zip(names, paths, strict=True) if not path.is_file()]
    if missing:
        raise ValueError(f"{file}: {len(missing)} of {len(names)} images are missing beside it, first {missing[0]}")
    return paths


def _inside(boxes: Tensor, size: Tensor) -> Tensor:
    """(N,) which boxes have a pixel of their picture, of (N, 2) or (2,) width and height."""
    return (torch.minimum(boxes[:, 2:], size) - boxes[:, :2].clamp(min=0) >= 1).all(1)


def _report(file: Path, empty: list[str]) -> None:
    if empty:
        log.warning(f"{file}: left out {len(empty)} boxes without a pixel in the picture, first {empty[0]}")
