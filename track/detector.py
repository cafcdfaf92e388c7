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

from track.calibration import calibrated
from track.checkpoint import load, save
from track.fcos import fcos_mobilenet_v2_fpn, small_fcos
from track.inference import streamline
from track.runtime import export
from track.structures import Detections

SMALL = 320  # pixels of a picture's shorter side, of which a CPU takes several at once
SCALE = 1.0, 0.0  # of the scores' log-odds, slope and offset: as they are
OWN = {"small_fcos": small_fcos, "fcos_mobilenet_v2_fpn": fcos_mobilenet_v2_fpn}
SHIPPED = {"fcos_mobilenet_v2_fpn": Path(__file__).parent / "weights" / "pedestrians.safetensors"}


class Detector:
    """Detections of one image at a time: `detector(image) -> Detections`; of several: `detector.batch(images)`.

    name: one of torchvision's detection builders, or of `track.fcos`. weights: the name of one of its official weights
    ("DEFAULT", "COCO_V1"), which torchvision downloads on first use (those of "fcos_mobilenet_v2_fpn" are in the
    package); None for random ones of the same categories.
    checkpoint: a file of `save_detector`, which also says name and categories, in place of both. network: in place of
    all three any module that takes and gives what torchvision's do, with its categories (labels are indices of them, 0
    is the background). classes: the categories to keep, by name. min_score: boxes below it are dropped. batch_size: how
    many pictures of a file the commands give it at once; None for what is fastest. autocast: compute in bfloat16 where
    torch does so, faster on what has it, less exact. onnx: on a CPU compute in ONNX Runtime (the extra `onnx`), the
    same boxes sooner, after some seconds of preparation for each size of picture.
    ValueError, in one line, for a name, class or file that does not fit.
    """

    def __init__(
        self,
        name: str = "fasterrcnn_mobilenet_v3_large_320_fpn",
        weights: str | None = "DEFAULT",
        checkpoint: str | Path | None = None,
        classes: Sequence[str] = ("person",),
        min_score: float = 0.1,
        network: nn.Module | None = None,
        categories: Sequence[str] = ("__background__", "person"),
        batch_size: int | None = None,
        autocast: bool = False,
        onnx: bool = False,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"detector.batch_size: expected 1 or more, got {batch_size}")
        self.scale = SCALE
        checkpoint = checkpoint or _shipped(name, weights)
        if network is not None:
            self.name, self.network, self.categories = type(network).__name__.lower(), network, list(categories)
        elif checkpoint is not None:
            self.name, self.network, self.categories, self.scale = load_detector(checkpoint)
        else:
            for one in classes:
                index_of(one, categories_of(name))  # before anything is downloaded
            self.name, (self.network, self.categories) = name, build(name, weights)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = self.network.eval().requires_grad_(False).to(self.device)
        self.labels = torch.tensor([index_of(one, self.categories) for one in classes])
        self.meaning = torch.arange(len(self.categories))  # of the labels that the network gives
        if network is None:
            raw = (torch.tensor(min_score).logit(1e-6) - self.scale[1]) / self.scale[0]
            self.meaning = torch.tensor(streamline(self.network, self.labels.tolist(), raw.sigmoid().item()))
        if onnx and network is None and self.device.type == "cpu":
            export(self.network)
        self.min_score, self.autocast = min_score, autocast
        self.batch_size = batch_size or _batch_size(self.network, self.device)

    def __call__(self, image: Tensor) -> Detections:
        """Detections in a (3, H, W) uint8 RGB image, boxes inside it, labels as indices of `categories`."""
        return self.batch([image])[0]

    @torch.inference_mode()
    def batch(self, images: Sequence[Tensor]) -> list[Detections]:
        """The detections of each of several images, of any sizes."""
        given = [image.to(self.device).float() / 255 for image in images]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            found = self.network(given) if given else []
        return [self._wanted(image, one) for image, one in zip(images, found, strict=True)]

    def _wanted(self, image: Tensor, found: dict[str, Tensor]) -> Detections:
        boxes, scores, labels = (found[key].cpu() for key in ("boxes", "scores", "labels"))
        scores = scores.float() if self.scale == SCALE else calibrated(scores.float(), *self.scale)
        labels = self.meaning[labels]
        kept = (scores >= self.min_score) & torch.isin(labels, self.labels)
        return Detections(clip_boxes_to_image(boxes.float(), image.shape[-2:]), scores, labels)[kept]


def names() -> list[str]:
    """What `Detector(name=...)` accepts."""
    return [*(n for n in list_models(module=detection) if "keypoint" not in n and "mask" not in n), *OWN]


def build(name: str, weights: str | None, categories: Sequence[str] | None = None) -> tuple[nn.Module, list[str]]:
    """A network and its categories (index 0 is the background).

    weights: an official weights' name, or None for random ones of `categories` (default: those of the official ones).
    """
    categories = list(categories or categories_of(name))
    if weights is not None:
        return _official(name, weights)
    if name in OWN:
        return OWN[name](len(categories)), categories
    return get_model_builder(name)(weights=None, weights_backbone=None, num_classes=len(categories)), categories


def categories_of(name: str) -> list[str]:
    """The categories of a network's official weights; background and person where it has none."""
    if name not in names():
        raise ValueError(f"detector.name: {name} is unknown, nearest: {_nearest(name, names())}")
    return ["__background__", "person"] if name in OWN else list(get_model_weights(name).DEFAULT.meta["categories"])


def index_of(category: str, categories: Sequence[str]) -> int:
    """The label of a category's name. ValueError names the nearest ones."""
    if category not in categories:
        raise ValueError(f"classes: {category} is unknown, nearest: {_nearest(category, wanted(categories))}")
    return list(categories).index(category)


def wanted(categories: Sequence[str]) -> list[str]:
    """Those of a network's categories that somebody can want: without the background, and the gaps of COCO's."""
    return [one for one in categories if one not in ("__background__", "N/A")]


def save_detector(
    network: nn.Module, name: str, categories: Sequence[str], path: Path, scale: tuple[float, float] = SCALE
) -> Path:
    """Write weights, name, categories and the scale of the scores (slope and offset of their log-odds) as safetensors;
    returns the path."""
    options = {"name": name, "categories": list(categories), "scale": list(scale)}
    return save(path, {"detector": (network, options)})


def load_detector(path: str | Path) -> tuple[str, nn.Module, list[str], tuple[float, float]]:
    """The name, network, categories and scale that `save_detector` wrote. ValueError where the file is no such one."""
    network, options = load(path, "detector", lambda name, categories, scale=SCALE: build(name, None, categories)[0])
    slope, offset = options.get("scale", SCALE)
    return options["name"], network, options["categories"], (float(slope), float(offset))


def _batch_size(network: nn.Module, device: torch.device) -> int:
    """A CPU's caches are too small for several large pictures."""
    sides = getattr(getattr(network, "transform", None), "min_size", ())
    return 4 if device.type != "cpu" or (sides and max(sides) <= SMALL) else 1


def _shipped(name: str, weights: str | None) -> Path | None:
    return SHIPPED.get(name) if weights == "DEFAULT" else None


def _official(name: str, weights: str) -> tuple[nn.Module, list[str]]:
    if file := _shipped(name, weights):
        return load_detector(file)[1:3]
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
            f"{name}: its weights could not be downloaded ({error}): put them at {file}, or take those in the package "
            "(pedestrians, detector=fcos_mobilenet_v2), or give detector.checkpoint=FILE or detections=FILE"
        ) from error
    return network, list(chosen.meta["categories"])


def _nearest(word: str, known: list[str]) -> str:
    return ", ".join(difflib.get_close_matches(word, known, 3, 0) or known[:3])
