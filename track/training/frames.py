"""Images with boxes to train a detector on: MOTChallenge folders with frames, or the Penn-Fudan layout."""

from __future__ import annotations

import re
from collections.abc import Sequence as Many
from dataclasses import dataclass
from pathlib import Path

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

from track.mot import Sequence, find_sequences
from track.video import frames

Target = dict[str, Tensor]
CACHE = 2**32
BOX = re.compile(r"Bounding box for object \d+ .*: \((-?\d+), (-?\d+)\) - \((-?\d+), (-?\d+)\)")


@dataclass(frozen=True)
class Example:
    """A picture's file (or a sequence's video and frame number) and its boxes (N, 4) xyxy pixels, all persons."""

    file: Path
    number: int
    boxes: Tensor


class Pictures(Dataset[tuple[Tensor, Target]]):
    """Images (3, H, W) float in 0..1 with `boxes` and `labels` as torchvision's detectors take them.

    Decoded once and kept in memory, image files up to `CACHE` bytes. With `augment`: mirrored, brightness and colour
    changed at random.
    """

    def __init__(self, examples: Many[Example], augment: bool) -> None:
        self.examples, self.augment = list(examples), augment
        self.images: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        example = self.examples[index]
        picture = self.images[index] if index in self.images else self._decode(index)
        image, boxes = picture.float() / 255, _inside(example.boxes, picture)
        if self.augment and torch.rand(()) < 0.5:
            width = image.shape[2]
            image, boxes = (
                image.flip(2),
                torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1),
            )
        if self.augment:
            image = (image * torch.empty(3, 1, 1).uniform_(0.8, 1.2) + torch.empty(1, 1, 1).uniform_(-0.1, 0.1)).clamp(
                0, 1
            )
        return image, {"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.long)}

    def _decode(self, index: int) -> Tensor:
        """Read an image and keep it; of a video keep every frame that is wanted, since it is read from its start."""
        file = self.examples[index].file
        if not self.examples[index].number:
            picture = next(frames([file])).image
            if (len(self.images) + 1) * picture.numel() <= CACHE:
                self.images[index] = picture
            return picture
        wanted = {e.number: i for i, e in enumerate(self.examples) if e.file == file}
        self.images |= {wanted[f.number]: f.image for f in frames(file) if f.number in wanted}
        if index not in self.images:
            raise ValueError(f"{file}: expected a frame {self.examples[index].number}, the video is shorter")
        return self.images[index]


class FramesData(lightning.LightningDataModule):
    """Pictures below `root`: MOTChallenge folders with img1/ or a video, or PennFudanPed with Annotation/ and images.

    every: of a sequence, each so-manieth frame. val_fraction: the part of the sequences (of Penn-Fudan, the images)
    at the end that validates and is never trained on.
    """

    def __init__(
        self, root: str, split: str = "all", every: int = 1, val_fraction: float = 0.2, batch_size: int = 4
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"data.every: expected 1 or more, got {every}")
        self.root, self.split, self.every = Path(root), split, every
        self.val_fraction, self.batch_size = val_fraction, batch_size

    def setup(self, stage: str) -> None:
        """Find every picture and its boxes."""
        groups = penn_fudan(self.root) or [
            sequence_examples(s, self.every) for s in find_sequences(self.root, self.split)
        ]
        cut = len(groups) - max(1, round(self.val_fraction * len(groups)))
        if cut < 1:
            raise ValueError(f"{self.root}: expected at least two sequences, one to validate on")
        self.train = Pictures([e for group in groups[:cut] for e in group if len(e.boxes)], augment=True)
        self.val = Pictures([e for group in groups[cut:] for e in group], augment=False)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Target]]:
        """Augmented pictures, shuffled, as lists of images and targets."""
        return DataLoader(self.train, self.batch_size, shuffle=True, collate_fn=_lists)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Target]]:
        """The pictures that validate, as they are."""
        return DataLoader(self.val, self.batch_size, collate_fn=_lists)


def penn_fudan(root: Path) -> list[list[Example]]:
    """An example an image of the Penn-Fudan layout at or below root, none where root is not such a folder."""
    folder = root / "PennFudanPed" if (root / "PennFudanPed").is_dir() else root
    if not (folder / "Annotation").is_dir():
        return []
    return [[_annotated(folder, text)] for text in sorted((folder / "Annotation").glob("*.txt"))]


def _annotated(folder: Path, text: Path) -> Example:
    found = [Path(folder) / sub / (text.stem + end) for sub in ("PNGImages", "JPEGImages") for end in (".png", ".jpg")]
    file = next((f for f in found if f.is_file()), None)
    if file is None:
        raise ValueError(f"{text}: expected its image as PNGImages/{text.stem}.png or JPEGImages/{text.stem}.jpg")
    rows = [[int(value) - 1 for value in row] for row in BOX.findall(text.read_text(errors="replace"))]
    if not rows:
        raise ValueError(f"{text}: expected at least one line 'Bounding box for object ...'")
    return Example(file, 0, torch.tensor(rows).float())


def sequence_examples(sequence: Sequence, every: int) -> list[Example]:
    """Each `every`-nth frame of a sequence with its considered persons, from its images or else its video."""
    images, video = sequence.images(), sequence.video()
    if images is None and video is None:
        raise ValueError(f"{sequence.path}: expected {sequence.image_dir}/ or a video file to train a detector on")
    result = []
    for index, frame in enumerate(sequence.truth()):
        if index % every == 0:
            boxes = frame.boxes[(frame.scores > 0) & (frame.labels == 1)]
            file, number = (images[index], 0) if images else (video or sequence.path, sequence.kept[index])
            result.append(Example(file, number, boxes))
    return result


def _inside(boxes: Tensor, image: Tensor) -> Tensor:
    clipped = clip_boxes_to_image(boxes, image.shape[-2:])
    return clipped[remove_small_boxes(clipped, 2.0)]


def _lists(batch: list[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    return [image for image, _ in batch], [target for _, target in batch]
