"""A torchvision detection network as something that turns an image into Detections."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import detection, get_model_builder, get_model_weights, list_models
from torchvision.ops import clip_boxes_to_image

from track.checkpoint import load, save
from track.fcos import fcos_mobilenet_v2_fpn, small_fcos
from track.inference import streamline
from track.structures import Detections

OWN = {"small_fcos": small_fcos, "fcos_mobilenet_v2_fpn": fcos_mobilenet_v2_fpn}


class Detector:
    """Detections of one image at a time: `detector(image) -> Detections`.

    name: one of torchvision's detection builders, or of `track.fcos`. weights: the name of one of its official weights
    ("DEFAULT", "COCO_V1"), which torchvision downloads on first use; None for random ones. checkpoint: a file of
    `save_detector`, which also says name and categories, in place of both. classes: the categories to keep, by name.
    min_score: boxes below it are dropped. ValueError, in one line, for a name, class or file that does not fit.
    """

    def __init__(
        self,
        name: str = "fasterrcnn_mobilenet_v3_large_320_fpn",
        weights: str | None = "DEFAULT",
        checkpoint: str | Path | None = None,
        classes: Sequence[str] = ("person",),
        min_score: float = 0.1,
    ) -> None:
        if checkpoint is not None:
            _, self.network, self.categories = load_detector(checkpoint)
        else:
            self.network, self.categories = build(name, weights)
        self.network = self.network.eval().requires_grad_(False)
        self.labels = torch.tensor([index_of(one, self.categories) for one in classes])
        self.meaning = torch.tensor(streamline(self.network, self.labels.tolist(), min_score))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network.to(self.device)
        self.min_score = min_score

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Detections:
        """Detections in a (3, H, W) uint8 RGB image, boxes inside it, labels as indices of `categories`."""
        found = {k: v.cpu() for k, v in self.network([image.to(self.device).float() / 255])[0].items()}
        boxes = clip_boxes_to_image(found["boxes"].float(), image.shape[-2:])
        labels = self.meaning[found["labels"]]
        kept = (found["scores"] >= self.min_score) & torch.isin(labels, self.labels)
        return Detections(boxes, found["scores"].float(), labels)[kept]


def names() -> list[str]:
    """What `Detector(name=...)` accepts."""
    return [*(n for n in list_models(module=detection) if "keypoint" not in n and "mask" not in n), *OWN]


def build(name: str, weights: str | None, categories: Sequence[str] | None = None) -> tuple[nn.Module, list[str]]:
    """A network and its categories (index 0 is the background).

    weights: an official weights' name, or None for random ones of `categories` (default: background and person).
    """
    if name not in names():
        raise ValueError(f"detector.name: {name} is unknown, nearest: {_nearest(name, names())}")
    if weights is not None:
        return _official(name, weights)
    categories = list(categories or ("__background__", "person"))
    if name in OWN:
        return OWN[name](len(categories)), categories
    return get_model_builder(name)(weights=None, weights_backbone=None, num_classes=len(categories)), categories


def index_of(category: str, categories: Sequence[str]) -> int:
    """The label of a category's name. ValueError names the nearest ones."""
    if category not in categories:
        raise ValueError(f"classes: {category} is unknown, nearest: {_nearest(category, list(categories))}")
    return list(categories).index(category)


def save_detector(network: nn.Module, name: str, categories: Sequence[str], path: Path) -> Path:
    """Write weights, name and categories as safetensors; returns the path."""
    return save(path, {"detector": (network, {"name": name, "categories": list(categories)})})


def load_detector(path: str | Path) -> tuple[str, nn.Module, list[str]]:
    """The name, network and categories that `save_detector` wrote. ValueError where the file is not such a one."""
    network, options = load(path, "detector", lambda name, categories: build(name, None, categories)[0])
    return options["name"], network, options["categories"]


def _official(name: str, weights: str) -> tuple[nn.Module, list[str]]:
    if name in OWN:
        raise ValueError(f"{name} has no official weights: give a checkpoint, or train it with model.weights=null")
    enum = get_model_weights(name)
    if weights not in enum.__members__:
        raise ValueError(f"detector.weights: {weights} is unknown, expected one of {', '.join(enum.__members__)}")
    chosen = enum[weights]
    try:
        network = get_model_builder(name)(weights=chosen, weights_backbone=None)
    except (URLError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / chosen.url.rsplit("/", 1)[-1]
        raise ValueError(
            f"{name}: its weights could not be downloaded ({error}): put them at {file}, or give "
            "detector.checkpoint=FILE (scripts/train.py task=detector makes one), or detections=FILE"
        ) from error
    return network, list(chosen.meta["categories"])


def _nearest(word: str, known: list[str]) -> str:
    return ", ".join(difflib.get_close_matches(word, known, 3, 0) or known[:3])
