"""Annotated images to train a detector on: MOTChallenge sequences, Penn-Fudan's layout, COCO json."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from track.checkpoint import first_line
from track.datasets.coco_layout import image_paths, valid_annotations
from track.detection.detector import label_of
from track.formats.mot import MotSequence, considered_pedestrians, find_sequences
from track.geometry import occluded_fraction

PENN_FUDAN_BOX = re.compile(r"Bounding box for object \d+ .*: \((-?\d+), (-?\d+)\) - \((-?\d+), (-?\d+)\)")
MAX_OCCLUSION = 0.75  # fraction of a box behind a nearer one, from which the image shows too little to learn from
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnnotatedImage:
    """An image with its boxes (N, 4) xyxy pixels and labels (N,).

    file: an image, with number 0; or a video, with the frame's number, from 1.
    """

    file: Path
    number: int
    boxes: Tensor
    labels: Tensor


def find_examples(
    root: Path, classes: Sequence[str], split: str = "all", stride: int = 1
) -> list[list[AnnotatedImage]]:
    """Every annotated image at `root`, in groups that must not be divided: a sequence's frames, or a single image.

    root: a COCO json file, a folder in Penn-Fudan's layout, or a folder of MOTChallenge sequences; folders have persons
    only. Labels are 1 + the index in `classes`. split, stride: of sequences, as in `find_sequences`. Raises ValueError,
    in one line, for what is absent, malformed or outside the folder.
    """
    if root.is_file():
        return [[example] for example in coco(root, classes)]
    if "person" not in classes:
        raise ValueError(f"{root}: its boxes are persons, expected person among classes, got {', '.join(classes)}")
    person = torch.tensor(1 + list(classes).index("person"))
    if examples := penn_fudan(root, person):
        return [[example] for example in examples]
    return [sequence_examples(sequence, person, stride) for sequence in find_sequences(root, split)]


def penn_fudan(root: Path, person: Tensor) -> list[AnnotatedImage]:
    """The images of a folder in Penn-Fudan's layout, or none if `root` is no such folder.

    person: () int64, the label of every box. Raises ValueError for an annotation without boxes or without its image.
    """
    folder = root / "PennFudanPed" if (root / "PennFudanPed").is_dir() else root
    return [_penn_fudan_image(folder, text, person) for text in sorted((folder / "Annotation").glob("*.txt"))]


def _penn_fudan_image(folder: Path, text: Path, person: Tensor) -> AnnotatedImage:
    candidates = [folder / sub / (text.stem + end) for sub in ("PNGImages", "JPEGImages") for end in (".png", ".jpg")]
    image = next((file for file in candidates if file.is_file()), None)
    if image is None:
        raise ValueError(f"{text}: expected its image as PNGImages/{text.stem}.png or JPEGImages/{text.stem}.jpg")
    corners = PENN_FUDAN_BOX.findall(text.read_text(errors="replace"))
    if not corners:
        raise ValueError(f"{text}: expected at least one line 'Bounding box for object ...'")
    boxes = torch.tensor([[int(value) - 1 for value in row] for row in corners]).float()
    return AnnotatedImage(image, 0, boxes, person.expand(len(boxes)))


def sequence_examples(sequence: MotSequence, person: Tensor, stride: int) -> list[AnnotatedImage]:
    """Every `stride`-th frame of a sequence with its visible considered pedestrians, from its images or else its video.

    person: () int64, the label of every box. Raises ValueError if the sequence has no footage or no ground truth.
    """
    images, video = sequence.images(), sequence.video()
    if images is None and video is None:
        raise ValueError(f"{sequence.path}: expected {sequence.image_dir}/ or a video file to train a detector on")
    examples, empty = [], []
    for index, frame in list(enumerate(sequence.truth()))[::stride]:
        if images and not os.path.lexists(images[index]):
            continue  # in a gap of numbered images
        truth = considered_pedestrians(frame)
        inside = _has_pixels(truth.boxes, torch.tensor([sequence.width, sequence.height]))
        empty += [f"frame {sequence.frame_numbers[index]}, id {k}" for k in truth.ids[~inside].tolist()]
        boxes = truth.boxes[inside & (occluded_fraction(truth.boxes) < MAX_OCCLUSION)]
        file, number = (images[index], 0) if images else (video or sequence.path, sequence.frame_numbers[index])
        examples.append(AnnotatedImage(file, number, boxes, person.expand(len(boxes))))
    _warn(sequence.path / "gt/gt.txt", empty)
    return examples


def coco(file: Path, classes: Sequence[str]) -> list[AnnotatedImage]:
    """The images of a COCO json ("instances") with their boxes of `classes`; crowds are left out.

    Image files lie beside the json, in images/, in the folder that the json is named after (train2017/ for
    instances_train2017.json) or in that folder of images/; for a json in annotations/, in the folders beside that one
    too. An annotation without a valid bbox, image or category is left out with a warning. Raises ValueError if the json
    is malformed, no annotation is valid, a class is not among its categories, or an image is missing or outside the
    data set.
    """
    try:
        table: dict[str, Any] = json.loads(file.read_text(encoding="utf-8-sig"))
        names = {one["id"]: str(one["name"]) for one in table["categories"]}
        images = {one["id"]: str(one["file_name"]) for one in table["images"]}
        size_of = {one["id"]: (one.get("width") or math.inf, one.get("height") or math.inf) for one in table["images"]}
        numbers, rows = valid_annotations(file, table["annotations"], images, names)
        boxes = torch.tensor([row.box for row in rows]).reshape(len(rows), 4)
        sizes = torch.tensor([size_of[row.image] for row in rows]).reshape(len(rows), 2)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__} {first_line(error)}"
        raise ValueError(f"{file}: expected COCO's json of images, annotations and categories ({reason})") from error
    if table["annotations"] and not rows:
        raise ValueError(f"{file}: expected annotations with a bbox of a listed image and category, found none")
    for name in classes:
        label_of(name, list(names.values()))
    boxes[:, 2:] += boxes[:, :2]  # from left, top, width, height
    inside = _has_pixels(boxes, sizes)
    _warn(file, [f"annotations[{numbers[row]}]" for row in (~inside).nonzero().flatten().tolist()])
    rows_of_image: dict[Any, list[int]] = {image: [] for image in images}
    for index, row in enumerate(rows):
        if names[row.category] in classes and not row.is_crowd and inside[index]:
            rows_of_image[row.image].append(index)
    files = image_paths(file, list(images.values()))
    categories = [names[row.category] for row in rows]
    labels = torch.tensor([1 + list(classes).index(one) if one in classes else 0 for one in categories]).long()
    return [
        AnnotatedImage(image, 0, boxes[chosen], labels[chosen])
        for image, chosen in zip(files, rows_of_image.values(), strict=True)
    ]


def _has_pixels(boxes: Tensor, size: Tensor) -> Tensor:
    """(N,) bool, which boxes (N, 4) have a pixel in their image of width and height `size`, (N, 2) or (2,)."""
    return (torch.minimum(boxes[:, 2:], size) - boxes[:, :2].clamp(min=0) >= 1).all(1)


def _warn(file: Path, empty: list[str]) -> None:
    if empty:
        log.warning(f"{file}: left out {len(empty)} boxes without a pixel in the image, first {empty[0]}")
