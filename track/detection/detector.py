"""Object detection with torchvision's networks: images in, `Detections` out."""

from __future__ import annotations

import difflib
import hashlib
import pickle
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import detection, get_model_builder, get_model_weights, list_models
from torchvision.ops import clip_boxes_to_image

from track.checkpoint import WEIGHTS_FOLDER, load, save
from track.detection.architectures import fcos_mobilenet_v2_fpn, small_fcos
from track.detection.onnx_backend import use_onnx_runtime
from track.detection.optimize import optimize_for_inference
from track.evaluation.calibration import calibrated
from track.media.images import as_image
from track.structures import Detections, Frame

MAX_BATCHED_SIDE = 320  # pixels of an image's shorter side up to which a CPU is faster with several images at once
UNCALIBRATED = (1.0, 0.0)  # slope and offset of the scores' log-odds
BACKGROUND = "__background__"
OWN = {"small_fcos": small_fcos, "fcos_mobilenet_v2_fpn": fcos_mobilenet_v2_fpn}
PACKAGED = {"fcos_mobilenet_v2_fpn": WEIGHTS_FOLDER / "pedestrians.safetensors"}


class LoadedDetector(NamedTuple):
    """A network with its name in `available_detectors()`, the categories of its labels, and its scores' calibration.

    calibration: slope and offset of the scores' log-odds.
    """

    name: str
    network: nn.Module
    categories: list[str]
    calibration: tuple[float, float]


class Detector:
    """Detects objects: `detector(image) -> Detections`, `detector.batch(images)`, or as a pipeline's detection source.

    name: one of `available_detectors()`.
    weights: the name of its official weights ("DEFAULT", "COCO_V1"), which torchvision downloads on first use (those of
    "fcos_mobilenet_v2_fpn" are in the package), or None for random ones.
    checkpoint: a file that `save_detector` wrote, in place of name and weights.
    network: in place of all three, any module with torchvision's detection interface.
    categories: the class names of `network`; its labels are indices of them, and index 0 is the background.
    classes: names of the categories to detect.
    min_score: detections below it are dropped.
    batch_size: how many frames of a file are detected at once; None for what is fastest.
    autocast: compute in bfloat16 where torch supports it: faster on hardware that has it, less exact.
    onnx: on a CPU, compute in ONNX Runtime (the extra `onnx`): the same boxes, faster, after some seconds of
    preparation for each image size.

    Raises ValueError, in one line, for an unknown name or class, an option out of range, or a malformed file.
    """

    needs_pixels = True

    def __init__(
        self,
        name: str = "fasterrcnn_mobilenet_v3_large_320_fpn",
        weights: str | None = "DEFAULT",
        checkpoint: str | Path | None = None,
        classes: Sequence[str] = ("person",),
        min_score: float = 0.1,
        network: nn.Module | None = None,
        categories: Sequence[str] = (BACKGROUND, "person"),
        batch_size: int | None = None,
        autocast: bool = False,
        onnx: bool = False,
    ) -> None:
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise ValueError(f"detector.batch_size: expected a whole number of at least 1, got {batch_size}")
        if not 0 <= min_score <= 1:
            raise ValueError(f"detector.min_score: expected 0 to 1, got {min_score}")
        classes = [classes] if isinstance(classes, str) else classes
        if not classes:
            raise ValueError("detector.classes: expected at least one")
        if network is None:
            loaded = _load(name, weights, checkpoint, classes)
        else:
            loaded = LoadedDetector(type(network).__name__.lower(), network, list(categories), UNCALIBRATED)
        self.name = loaded.name
        self.categories = loaded.categories
        self.calibration = loaded.calibration
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = loaded.network.eval().requires_grad_(False).to(self.device)
        self.labels = torch.tensor([label_of(category, self.categories) for category in classes])
        self.label_map = torch.arange(len(self.categories))  # from the network's labels to indices of `categories`
        self.min_score = min_score
        self.autocast = autocast
        self.onnx = onnx
        if network is None:
            self._optimize()
        self.batch_size = batch_size or _fastest_batch_size(self.network, self.device)

    @property
    def label_names(self) -> list[str]:
        """See `DetectionSource`: the network's categories."""
        return self.categories

    def __call__(self, image: Tensor) -> Detections:
        """The detections in an image as `as_image` takes it: boxes clipped to it, labels as indices of `categories`."""
        return self.batch([as_image(image)])[0]

    @torch.inference_mode()
    def batch(self, images: Sequence[Tensor]) -> list[Detections]:
        """The detections of each of several (3, H, W) uint8 RGB images, of any sizes."""
        scaled = [image.to(self.device).float() / 255 for image in images]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            outputs = self.network(scaled) if scaled else []
        return [self._select(image, output) for image, output in zip(images, outputs, strict=True)]

    def detect(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Detections]]:
        """See `DetectionSource`: `batch_size` frames at once, none in blank ones.

        Boxes and scores are rounded as a detection file stores them, so that a run from the cache gives equal tracks.
        A ValueError of `frames` is raised after the frames before it.
        """
        for batch in _batches(frames, self.batch_size):
            detections = iter(self.batch([frame.image for frame in batch if not frame.is_blank]))
            for frame in batch:
                yield frame, Detections.empty() if frame.is_blank else rounded(next(detections))

    def fingerprint(self) -> dict[str, Any]:
        """What the detections of an image depend on, for json: the content of the weights, hashed, and the options."""
        digest = hashlib.sha256()
        for key, value in self.network.state_dict().items():
            digest.update(key.encode())
            digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return {
            "name": self.name,
            "sha256": digest.hexdigest(),
            "calibration": list(self.calibration),
            "labels": self.labels.tolist(),
            "min_score": self.min_score,
            "autocast": self.autocast,
            "onnx": self.onnx,
        }

    def _optimize(self) -> None:
        slope, offset = self.calibration
        raw_score = ((torch.tensor(self.min_score).logit(1e-6) - offset) / slope).sigmoid().item()
        network: Any = self.network
        self.label_map = torch.tensor(optimize_for_inference(network, self.labels.tolist(), raw_score))
        if self.onnx and self.device.type == "cpu":
            use_onnx_runtime(network)

    def _select(self, image: Tensor, output: dict[str, Tensor]) -> Detections:
        """The detections in the network's output for an image, of the requested classes and at least `min_score`."""
        boxes, scores, labels = (output[key].cpu() for key in ("boxes", "scores", "labels"))
        scores = scores.float()
        if self.calibration != UNCALIBRATED:
            scores = calibrated(scores, *self.calibration)
        labels = self.label_map[labels]
        chosen = (scores >= self.min_score) & torch.isin(labels, self.labels)
        return Detections(clip_boxes_to_image(boxes.float(), image.shape[-2:]), scores, labels)[chosen]


def rounded(detections: Detections) -> Detections:
    """Detections as they are read back from a detection file: boxes to 0.01 pixels, scores to 0.0001."""
    return Detections(detections.boxes.round(decimals=2), detections.scores.round(decimals=4), detections.labels)


def available_detectors() -> list[str]:
    """What `Detector(name=...)` accepts: torchvision's box detectors, and two small ones of this package."""
    models = list_models(module=detection)
    return [*(name for name in models if "keypoint" not in name and "mask" not in name), *OWN]


def build_detector(
    name: str, weights: str | None, categories: Sequence[str] | None = None
) -> tuple[nn.Module, list[str]]:
    """A network and its categories, of which index 0 is the background.

    weights: the name of official weights, which have their own categories, or None for random ones.
    categories: those of random weights; by default the official ones. Raises ValueError as `Detector` does.
    """
    categories = list(categories or categories_of(name))
    if weights is not None:
        return _official(name, weights)
    if name in OWN:
        return OWN[name](len(categories)), categories
    return get_model_builder(name)(weights=None, weights_backbone=None, num_classes=len(categories)), categories


def categories_of(name: str) -> list[str]:
    """The categories of a network's official weights; background and person for this package's own networks.

    Raises ValueError, with the nearest names, for a name that is not in `available_detectors()`.
    """
    if name not in available_detectors():
        raise ValueError(f"detector.name: {name} is unknown, nearest: {_nearest(name, available_detectors())}")
    return [BACKGROUND, "person"] if name in OWN else list(get_model_weights(name).DEFAULT.meta["categories"])


def label_of(category: str, categories: Sequence[str]) -> int:
    """The label of a category's name. Raises ValueError, with the nearest names, if there is no such category."""
    if category not in categories:
        nearest = _nearest(category, selectable_classes(categories))
        raise ValueError(f"classes: {category} is unknown, nearest: {nearest}")
    return list(categories).index(category)


def selectable_classes(categories: Sequence[str]) -> list[str]:
    """The categories that can be detected: all but the background and the unused labels of COCO."""
    return [category for category in categories if category not in (BACKGROUND, "N/A")]


def save_detector(
    network: nn.Module,
    name: str,
    categories: Sequence[str],
    path: Path,
    calibration: tuple[float, float] = UNCALIBRATED,
) -> Path:
    """Write weights, name, categories and the scores' calibration as safetensors, and return the path."""
    options = {"name": name, "categories": list(categories), "calibration": list(calibration)}
    return save(path, {"detector": (network, options)})


def load_detector(path: str | Path) -> LoadedDetector:
    """Read what `save_detector` wrote. Raises ValueError for any other file."""

    def build(name: str, categories: list[str], calibration: object = UNCALIBRATED) -> nn.Module:
        return build_detector(name, None, categories)[0]

    network, options = load(path, "detector", build)
    slope, offset = options.get("calibration", UNCALIBRATED)
    return LoadedDetector(options["name"], network, options["categories"], (float(slope), float(offset)))


def _load(name: str, weights: str | None, checkpoint: str | Path | None, classes: Sequence[str]) -> LoadedDetector:
    file = checkpoint or _packaged(name, weights)
    if file is not None:
        return load_detector(file)
    for category in classes:
        label_of(category, categories_of(name))  # raises before anything is downloaded
    return LoadedDetector(name, *build_detector(name, weights), UNCALIBRATED)


def _batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Lists of `size` frames, the last one of those left. A ValueError of `frames` follows the frames before it."""
    batch: list[Frame] = []
    try:
        for frame in frames:
            batch.append(frame)
            if len(batch) == size:
                yield batch
                batch = []
    except ValueError:
        yield batch
        raise
    yield batch


def _fastest_batch_size(network: nn.Module, device: torch.device) -> int:
    """Several images, but on a CPU only small ones: its caches do not hold several large ones."""
    sides = getattr(getattr(network, "transform", None), "min_size", ())
    return 4 if device.type != "cpu" or (sides and max(sides) <= MAX_BATCHED_SIDE) else 1


def _packaged(name: str, weights: str | None) -> Path | None:
    return PACKAGED.get(name) if weights == "DEFAULT" else None


def _official(name: str, weights: str) -> tuple[nn.Module, list[str]]:
    if file := _packaged(name, weights):
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
            f"{name}: its weights could not be downloaded ({error}): put them at {file}, or use the packaged "
            "pedestrian detector (detector.name=fcos_mobilenet_v2_fpn, in training model.name), your own "
            "(detector.checkpoint=FILE), detections=FILE or, in training, model.weights=null"
        ) from error
    return network, list(chosen.meta["categories"])


def _nearest(word: str, known: list[str]) -> str:
    return ", ".join(difflib.get_close_matches(word, known, 3, 0) or known[:3])
