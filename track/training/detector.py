"""Fine-tuning of a torchvision detector, validated by mean average precision."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchmetrics.detection import MeanAveragePrecision

from track.checkpoint import first_line
from track.detection.detector import BACKGROUND, UNCALIBRATED, build_detector, load_detector, save_detector
from track.evaluation.calibration import calibrated, fit_platt, reliability
from track.evaluation.detection import SCORE, count_tp_fp_fn, is_true_positive, precision_recall
from track.evaluation.plots import plot_frames, plot_precision_recall, plot_reliability
from track.structures import Detections
from track.training.detection_data import DetectionDataModule, DetectionDataset, Target
from track.training.run import warmup_cosine

Batch = tuple[list[Tensor], list[Target]]
BACKBONE_RATE = 0.1  # of the learning rate, for a pretrained backbone
SHOWN = 3  # best images, and worst images, in frames.png


class DetectorModule(lightning.LightningModule):
    """Trains the detector `name` on `classes` from official weights, a checkpoint, a backbone alone, or from scratch.

    weights: the name of official weights; the head's last layers, which do not fit other classes, start from scratch.
    None starts at random. checkpoint: a file of `save_detector` for the same classes, in place of `name` and `weights`.
    backbone: a file of a classifier's weights (a state_dict as torchvision saves it, or safetensors) for the backbone,
    in place of `weights`. A pretrained backbone learns at a tenth of the rate with its batch statistics frozen. freeze:
    parts that do not learn, by their names in the network ("backbone", "backbone.body.0").

    The exponential moving average of the weights is what is validated and exported. Raises ValueError for a file or
    name that does not fit.
    """

    exported = "detector.safetensors"  # the file that `export` writes

    def __init__(
        self,
        name: str = "fasterrcnn_mobilenet_v3_large_320_fpn",
        weights: str | None = "DEFAULT",
        checkpoint: str | None = None,
        backbone: str | None = None,
        classes: Sequence[str] = ("person",),
        freeze: Sequence[str] = (),
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__()
        self.name = name
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.network, self.categories = build_detector(name, None, [BACKGROUND, *classes])
        pretrained: list[Any] = []
        if checkpoint is not None:
            self.name, self.network, categories, _ = load_detector(checkpoint)
            if list(categories) != self.categories:
                expected = f"expected a detector of {', '.join(classes)} alone"
                raise ValueError(f"{checkpoint}: {expected}, it has {categories[1:]}")
            self.network.requires_grad_().train()
            pretrained = [getattr(self.network.backbone, "body", self.network.backbone)]
        elif backbone is not None:
            pretrained = [load_backbone(self.network, backbone)]
        elif weights is not None:
            self._load_matching(build_detector(name, weights)[0].state_dict())
            pretrained = [self.network.backbone]
        frozen = [_part(self.network, one).requires_grad_(False) for one in freeze]
        # a batch of few images is too small to estimate statistics again
        self.frozen_norms = [m for part in pretrained + frozen for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
        self.pretrained = {id(parameter) for part in pretrained for parameter in part.parameters()}
        self.average = AveragedModel(self.network, avg_fn=_moving_average, use_buffers=True)
        self.mean_average_precision = MeanAveragePrecision(backend="pycocotools")

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The sum of the network's losses, logged as train/loss."""
        for norm in self.frozen_norms:
            norm.eval()
        loss: Tensor = sum(self.network(*batch).values(), torch.zeros((), device=self.device))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch[0]))
        return loss

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Update the average of the weights."""
        self.average.update_parameters(self.network)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Score the detections of the averaged network."""
        images, targets = batch
        self.mean_average_precision.update(self.average(images), targets)

    def on_validation_epoch_end(self) -> None:
        """Log val/map (the mean over IoU 0.5 to 0.95) and val/map_50."""
        figures = self.mean_average_precision.compute()
        self.log_dict({"val/map": figures["map"], "val/map_50": figures["map_50"]}, prog_bar=True)
        self.mean_average_precision.reset()

    def configure_optimizers(self) -> lightning.pytorch.utilities.types.OptimizerLRScheduler:
        """AdamW, with warm-up and cosine decay over the whole run; a pretrained backbone learns at `BACKBONE_RATE`."""
        weights = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        backbone = [parameter for parameter in weights if id(parameter) in self.pretrained]
        others = [parameter for parameter in weights if id(parameter) not in self.pretrained]
        groups: list[dict[str, Any]] = [
            {"params": backbone, "lr": BACKBONE_RATE * self.learning_rate},
            {"params": others},
        ]
        optimizer = torch.optim.AdamW(groups, self.learning_rate, weight_decay=self.weight_decay)
        schedule = warmup_cosine(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def export(self, folder: Path) -> Path:
        """Write the averaged network to a file that `detector.checkpoint` can name; returns the file.

        After training, scores are calibrated on the validation images to be the probability of being correct, and
        precision_recall.png, reliability.png and frames.png (the best and the worst images) are written beside it.
        """
        data = getattr(self._trainer, "datamodule", None)
        calibration = UNCALIBRATED
        if isinstance(data, DetectionDataModule):
            truth, detections = self._detect(data)
            scores = torch.cat([one.scores for one in detections])
            correct = torch.cat([is_true_positive(*pair) for pair in zip(truth, detections, strict=True)])
            calibration = fit_platt(scores, correct)
            detections = [replace(one, scores=calibrated(one.scores, *calibration)) for one in detections]
            table = reliability(calibrated(scores, *calibration), correct)
            curve = precision_recall(truth, detections)
            plot_reliability({"validation": table}, folder / "reliability.png")
            plot_precision_recall({"validation": curve}, folder / "precision_recall.png")
            plot_frames(_best_and_worst(data.val, truth, detections), folder / "frames.png")
        file = folder / self.exported
        return save_detector(self.average.module, self.name, self.categories, file, calibration)

    @torch.inference_mode()
    def _detect(self, data: DetectionDataModule) -> tuple[list[Detections], list[Detections]]:
        """Ground truth and the averaged network's detections in every validation image."""
        truth, detections = [], []
        for images, targets in data.val_dataloader():
            outputs = self.average.eval()([image.to(self.device) for image in images])
            detections += [Detections(**{k: one[k].cpu() for k in ("boxes", "scores", "labels")}) for one in outputs]
            truth += [Detections(one["boxes"], torch.ones(len(one["boxes"])), one["labels"]) for one in targets]
        return truth, detections

    def _load_matching(self, official: dict[str, Tensor]) -> None:
        """Load every official weight that has the same shape here: all but the head's last layers."""
        own = self.network.state_dict()
        self.network.load_state_dict(own | {k: v for k, v in official.items() if own[k].shape == v.shape})


def load_backbone(network: nn.Module, path: str) -> nn.Module:
    """Load a classifier's weights into `network.backbone.body`, and return it; nothing in the file is executed.

    Raises ValueError if the file cannot be read so, or lacks one of the backbone's weights.
    """
    try:
        state = load_file(path) if path.endswith(".safetensors") else torch.load(path, "cpu", weights_only=True)
        state = {key.removeprefix("features."): value for key, value in state.items()}
    except (OSError, RuntimeError, EOFError, AttributeError, SafetensorError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: expected the weights of a backbone ({first_line(error)})") from error
    body: nn.Module | None = getattr(network.backbone, "body", None)
    if body is None:
        raise ValueError(f"model.backbone: {type(network).__name__} has none that a file could fill")
    for key, value in body.state_dict().items():
        if not isinstance(state.get(key), Tensor) or state[key].shape != value.shape:
            raise ValueError(f"{path}: expected the weights of this detector's backbone, {key} is not there or differs")
    body.load_state_dict({key: state[key] for key in body.state_dict()})
    return body


def _best_and_worst(
    images: DetectionDataset, truth: Sequence[Detections], detections: Sequence[Detections]
) -> dict[str, tuple[Tensor, Detections, Detections]]:
    """By title, the `SHOWN` images of the best and of the worst F1, with ground truth and detections.

    Each true positive adds a thousandth to F1, so that among perfect images those with most people are the best.
    """
    tp, fp, fn = count_tp_fp_fn(truth, detections).T
    order = (2 * tp / (2 * tp + fp + fn).clamp(min=1) + 1e-3 * tp).argsort().tolist()
    best = [("best", index) for index in order[: -SHOWN - 1 : -1]]
    worst = [("worst", index) for index in order[:SHOWN]]
    chosen = {}
    for title, index in best + worst:
        name = images.examples[index].file.name
        counts = f"{tp[index]} right, {fp[index]} false, {fn[index]} missed"
        confident = detections[index][detections[index].scores >= SCORE]
        chosen[f"{title}: {name}, {counts}"] = (255 * images[index][0]).byte(), truth[index], confident
    return chosen


def _part(network: nn.Module, name: str) -> nn.Module:
    parts = dict(network.named_modules())
    if not name or name not in parts:
        nearest = difflib.get_close_matches(name, parts, 3, 0)
        raise ValueError(f"model.freeze: {name!r} is no part of the network, nearest: {', '.join(nearest)}")
    return parts[name]


def _moving_average(average: Tensor, new: Tensor, steps: Tensor | int) -> Tensor:
    """An exponential average over some 500 steps, over fewer at the start."""
    return average + (new - average) * max(0.002, 9 / (10 + float(steps)))
