"""Annotated images for training a detector: decoded once, cached, augmented at random and batched."""

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
from track.training.run import LazyDataLoader

Target = dict[str, Tensor]
CACHE_BYTES = 2**32
GREY = 114.0  # around an image that is zoomed out
MIN_SIDE = 2.0  # pixels; boxes with a shorter side are dropped


class DetectionDataset(Dataset[tuple[Tensor, Target]]):
    """Images (3, H, W) float in 0..1 with `boxes` and `labels` as torchvision's detectors take them.

    Images are decoded once and cached in memory, image files up to `CACHE_BYTES`. With `augment`, colours and contrast
    vary at random, and images may be zoomed out (people down to half their size), cropped (larger people, some of them
    cut) and mirrored.
    """

    def __init__(self, examples: Sequence[AnnotatedImage], augment: bool) -> None:
        self.examples, self.augment = list(examples), augment
        self.cache: dict[int, Tensor] = {}  # images by index
        self.augmentation = v2.Compose(
            [
                v2.RandomPhotometricDistort(p=0.5),
                v2.RandomZoomOut(fill=GREY, side_range=(1.0, 2.0), p=0.2),
                v2.RandomApply([v2.RandomIoUCrop(min_scale=0.4)], p=0.6),
                v2.RandomHorizontalFlip(),
                v2.SanitizeBoundingBoxes(min_size=MIN_SIDE),
            ]
        )

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        example = self.examples[index]
        image = self.cache[index] if index in self.cache else self._decode(index)
        boxes = clip_boxes_to_image(example.boxes, image.shape[-2:])
        rows = remove_small_boxes(boxes, MIN_SIDE)
        target: dict[str, Any] = {"boxes": boxes[rows], "labels": example.labels[rows]}
        if self.augment:
            size: Any = tuple(image.shape[-2:])
            target["boxes"] = BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size)
            image, target = self.augmentation(Image(image), target)
        plain = {key: value.as_subclass(Tensor) for key, value in target.items()}
        return image.as_subclass(Tensor).float() / 255, plain

    def _decode(self, index: int) -> Tensor:
        """Read an image into the cache, and with a frame of a video all of its annotated frames, because videos are
        decoded from the start."""
        example = self.examples[index]
        if not example.number:
            image = read_image(example.file)
            if image is None:
                raise ValueError(f"{example.file}: expected an image that can be read")
            if (len(self.cache) + 1) * image.numel() <= CACHE_BYTES:
                self.cache[index] = image
            return image
        annotated = {one.number: row for row, one in enumerate(self.examples) if one.file == example.file}
        frames = VideoFile(example.file)
        self.cache |= {annotated[frame.number]: frame.image for frame in frames if frame.number in annotated}
        if index not in self.cache:
            raise ValueError(f"{example.file}: expected a frame {example.number}, the video is shorter")
        return self.cache[index]


class DetectionDataModule(lightning.LightningDataModule):
    """Batches of the images at `root` or several roots, each anything that `find_examples` reads.

    classes: the categories to learn. split, stride: of sequences; stride 3 takes every third frame. val_fraction: the
    part of each root, from its end, that is validated on and never trained on: of its sequences, of the frames where it
    has one sequence, or of its images.

    Raises ValueError for a stride below 1 or a fraction that is not between 0 and 1.
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
        """Find every image and its boxes; images without boxes are not trained on."""
        train, val = [], []
        for root in self.roots:
            groups = find_examples(root, self.classes, self.split, self.stride)
            if len(groups) == 1:
                groups = [[example] for example in groups[0]]
            cut = len(groups) - max(1, round(self.val_fraction * len(groups)))
            if cut < 1:
                raise ValueError(f"{root}: expected at least two images, one to validate on")
            train += [example for group in groups[:cut] for example in group if len(example.boxes)]
            val += [example for group in groups[cut:] for example in group]
        self.train = DetectionDataset(train, augment=True)
        self.val = DetectionDataset(val, augment=False)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Target]]:
        """Augmented images, shuffled, as lists of images and targets."""
        return LazyDataLoader(self.train, self.batch_size, shuffle=True, collate_fn=_collate)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Target]]:
        """The images to validate on, unchanged."""
        return DataLoader(self.val, self.batch_size, collate_fn=_collate)


def _collate(batch: list[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    return [image for image, _ in batch], [target for _, target in batch]
