"""Labelled pictures in memory, varied at random, in batches to train a detector on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.ops import clip_boxes_to_image, remove_small_boxes
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, Image

from track.datasets.annotations import AnnotatedImage, find_examples
from track.media.images import read_image
from track.media.sources import VideoFile

Target = dict[str, Tensor]
CACHE = 2**32
GREY = 114.0  # what a picture is set into where it is moved away


class DetectionDataset(Dataset[tuple[Tensor, Target]]):
    """Images (3, H, W) float in 0..1 with `boxes` and `labels` as torchvision's detectors take them.

    Decoded once and kept in memory, image files up to `CACHE` bytes. With `augment`, at random: colours and contrast,
    further away (people half as large), cropped (people larger, some cut), mirrored.
    """

    def __init__(self, examples: Sequence[AnnotatedImage], augment: bool) -> None:
        self.examples, self.augment = list(examples), augment
        self.images: dict[int, Tensor] = {}
        self.vary = v2.Compose(
            [
                v2.RandomPhotometricDistort(p=0.5),
                v2.RandomZoomOut(fill=GREY, side_range=(1.0, 2.0), p=0.2),
                v2.RandomApply([v2.RandomIoUCrop(min_scale=0.4)], p=0.6),
                v2.RandomHorizontalFlip(),
                v2.SanitizeBoundingBoxes(min_size=2),
            ]
        )

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        example = self.examples[index]
        picture = self.images[index] if index in self.images else self._decode(index)
        clipped = clip_boxes_to_image(example.boxes, picture.shape[-2:])
        kept = remove_small_boxes(clipped, 2.0)
        target: dict[str, Any] = {"boxes": clipped[kept], "labels": example.labels[kept]}
        if self.augment:
            canvas: Any = tuple(picture.shape[-2:])
            target["boxes"] = BoundingBoxes(target["boxes"], format="XYXY", canvas_size=canvas)
            picture, target = self.vary(Image(picture), target)
        return picture.as_subclass(Tensor).float() / 255, {k: v.as_subclass(Tensor) for k, v in target.items()}

    def _decode(self, index: int) -> Tensor:
        """Read an image and keep it; of a video keep stride frame that is wanted, since it is read from its start."""
        file = self.examples[index].file
        if not self.examples[index].number:
            picture = read_image(file)
            if picture is None:
                raise ValueError(f"{file}: expected an image that can be read")
            if (len(self.images) + 1) * picture.numel() <= CACHE:
                self.images[index] = picture
            return picture
        wanted = {e.number: i for i, e in enumerate(self.examples) if e.file == file}
        self.images |= {wanted[f.number]: f.image for f in VideoFile(file) if f.number in wanted}
        if index not in self.images:
            raise ValueError(f"{file}: expected a frame {self.examples[index].number}, the video is shorter")
        return self.images[index]


class DetectionDataModule(lightning.LightningDataModule):
    """DetectionDataset of `root` or of several: MOTChallenge folders with img1/ or a video, PennFudanPed, or a COCO json.

    classes: the categories to learn. split, stride: of sequences, the half and each so-manieth frame. val_fraction: of
    each root, the part of its sequences (of one sequence, its frames; of photographs, these) at the end, which
    validates and is never trained on.
    """

    def __init__(
        self,
        root: str | Sequence[str],
        classes: Sequence[str] = ("person",),
        split: str = "all",
        stride: int = 1,
        val_fraction: float = 0.2,
        batch_size: int = 4,
    ) -> None:
        super().__init__()
        if stride < 1:
            raise ValueError(f"data.stride: expected 1 or more, got {stride}")
        if not 0 < val_fraction < 1:
            raise ValueError(f"data.val_fraction: expected more than 0 and less than 1, got {val_fraction}")
        self.roots = [Path(one) for one in ([root] if isinstance(root, str) else root)]
        self.classes, self.split, self.stride = list(classes), split, stride
        self.val_fraction, self.batch_size = val_fraction, batch_size

    def setup(self, stage: str) -> None:
        """Find stride picture and its boxes."""
        train, val = [], []
        for root in self.roots:
            groups = find_examples(root, self.classes, self.split, self.stride)
            if len(groups) == 1:
                groups = [[example] for example in groups[0]]
            cut = len(groups) - max(1, round(self.val_fraction * len(groups)))
            if cut < 1:
                raise ValueError(f"{root}: expected at least two pictures, one to validate on")
            train += [example for group in groups[:cut] for example in group if len(example.boxes)]
            val += [example for group in groups[cut:] for example in group]
        self.train, self.val = DetectionDataset(train, augment=True), DetectionDataset(val, augment=False)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Target]]:
        """Augmented pictures, shuffled, as lists of images and targets."""
        return DataLoader(self.train, self.batch_size, shuffle=True, collate_fn=_lists)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Target]]:
        """The pictures that validate, as they are."""
        return DataLoader(self.val, self.batch_size, collate_fn=_lists)


def _lists(batch: list[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    return [image for image, _ in batch], [target for _, target in batch]
