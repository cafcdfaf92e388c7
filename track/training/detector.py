"""Fine-tuning of a torchvision detector, judged by mean average precision."""

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

from track.detection.detector import UNCALIBRATED, build_detector, load_detector, save_detector
from track.evaluation.calibration import calibrated, fit_platt, reliability
from track.evaluation.detection import SCORE, count_tp_fp_fn, is_right, precision_recall
from track.evaluation.plots import plot_frames, plot_precision_recall, plot_reliability
from track.structures import Detections
from track.training.detection_data import DetectionDataModule, DetectionDataset, Target
from track.training.schedule import warmup_cosine

Batch = tuple[list[Tensor], list[Target]]
BACKBONE_RATE = 0.1  # of the learning rate, for a backbone that has learned before


class DetectorModule(lightning.LightningModule):
    """Trains the detector `name` on `classes` from official weights, a checkpoint, a backbone alone, or nothing.

    weights: an official weights' name, whose backbone is kept and whose head is made anew; None starts at random.
    backbone: a file of a classifier's features (a state_dict as torchvision saves it, or safetensors) for the backbone,
    in place of `weights`. A backbone that has learned before learns at a tenth of the rate, and its batch statistics
    stay as they are. freeze: parts that do not learn, by their names in the network ("backbone", "backbone.body.0").
    What is validated and exported is the running average of the weights.
    """

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
        self.name, self.learning_rate, self.weight_decay = name, learning_rate, weight_decay
        self.network, self.categories = build_detector(name, None, ["__background__", *classes])
        learned: list[Any] = []  # parts that have learned before
        if checkpoint is not None:
            self.name, self.network, found, _ = load_detector(checkpoint)
            if list(found) != self.categories:
                raise ValueError(f"{checkpoint}: expected a detector of {', '.join(classes)} alone, it has {found[1:]}")
            self.network.requires_grad_().train()
            learned = [getattr(self.network.backbone, "body", self.network.backbone)]
        elif backbone is not None:
            learned = [load_backbone(self.network, backbone)]
        elif weights is not None:
            self._borrow(build_detector(name, weights)[0].state_dict())
            learned = [self.network.backbone]
        parts = [_part(self.network, one).requires_grad_(False) for one in freeze]
        # few pictures make a batch, too few to estimate statistics anew
        self.frozen_norms = [m for part in learned + parts for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
        self.pretrained = {id(p) for part in learned for p in part.parameters()}
        self.average = AveragedModel(self.network, avg_fn=_average, use_buffers=True)
        self.precision = MeanAveragePrecision(backend="pycocotools")

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The sum of the network's losses, logged as train/loss."""
        for norm in self.frozen_norms:
            norm.eval()
        loss: Tensor = sum(self.network(*batch).values(), torch.zeros((), device=self.device))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch[0]))
        return loss

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Bring the average up to date."""
        self.average.update_parameters(self.network)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Gather what the averaged network finds."""
        images, targets = batch
        self.precision.update(self.average(images), targets)

    def on_validation_epoch_end(self) -> None:
        """val/map (over IoU .5 to .95) and val/map_50."""
        found = self.precision.compute()
        self.log_dict({"val/map": found["map"], "val/map_50": found["map_50"]}, prog_bar=True)
        self.precision.reset()

    def configure_optimizers(self) -> lightning.pytorch.utilities.types.OptimizerLRScheduler:
        """AdamW, warm-up and cosine over the whole run."""
        weights = [p for p in self.network.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in weights if id(p) in self.pretrained], "lr": BACKBONE_RATE * self.learning_rate},
            {"params": [p for p in weights if id(p) not in self.pretrained]},
        ]
        optimizer = torch.optim.AdamW(groups, self.learning_rate, weight_decay=self.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = warmup_cosine(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def export(self, folder: Path) -> Path:
        """Write the network where `detector.checkpoint` can name it; returns the file.

        After a training its scores are scaled to be, on the pictures that validate, the probability of being right, and
        precision_recall.png, reliability.png and frames.png (the best and the worst of them) lie beside it.
        """
        data, scale = getattr(self._trainer, "datamodule", None), UNCALIBRATED
        if isinstance(data, DetectionDataModule):
            truth, found = self._judged(data)
            scores = torch.cat([one.scores for one in found])
            right = torch.cat([is_right(*pair) for pair in zip(truth, found, strict=True)])
            scale = fit_platt(scores, right)
            found = [replace(one, scores=calibrated(one.scores, *scale)) for one in found]
            table = reliability(calibrated(scores, *scale), right)
            plot_reliability({"validation": table}, folder / "reliability.png")
            plot_precision_recall({"validation": precision_recall(truth, found)}, folder / "precision_recall.png")
            plot_frames(_best_and_worst(data.val, truth, found), folder / "frames.png")
        return save_detector(self.average.module, self.name, self.categories, folder / "detector.safetensors", scale)

    @torch.inference_mode()
    def _judged(self, data: DetectionDataModule) -> tuple[list[Detections], list[Detections]]:
        """Truth and what the averaged network finds in every picture that validates."""
        truth, found = [], []
        for images, targets in data.val_dataloader():
            outputs = self.average.eval()([image.to(self.device) for image in images])
            found += [Detections(**{k: one[k].cpu() for k in ("boxes", "scores", "labels")}) for one in outputs]
            truth += [Detections(one["boxes"], torch.ones(len(one["boxes"])), one["labels"]) for one in targets]
        return truth, found

    def _borrow(self, official: dict[str, Tensor]) -> None:
        """Take every official weight that has the same shape here: all but the last layers of the head."""
        own = self.network.state_dict()
        self.network.load_state_dict(own | {k: v for k, v in official.items() if own[k].shape == v.shape})


def _best_and_worst(
    pictures: DetectionDataset, truth: Sequence[Detections], found: Sequence[Detections]
) -> dict[str, tuple[Tensor, Detections, Detections]]:
    """Three of each with truth and detections, by what they are called."""
    right, false, missed = count_tp_fp_fn(truth, found).T
    order = (2 * right / (2 * right + false + missed).clamp(min=1) + 1e-3 * right).argsort().tolist()
    chosen = {}
    for title, index in [("best", i) for i in order[:-4:-1]] + [("worst", i) for i in order[:3]]:
        name = pictures.examples[index].file.name
        numbers = f"{right[index]} right, {false[index]} false, {missed[index]} missed"
        sure = found[index][found[index].scores >= SCORE]
        chosen[f"{title}: {name}, {numbers}"] = (255 * pictures[index][0]).byte(), truth[index], sure
    return chosen


def load_backbone(network: nn.Module, path: str) -> nn.Module:
    """Fill the network's backbone.body from a file of a classifier's weights, and return it; nothing is executed.

    ValueError where it cannot be read so, or lacks one of the backbone's weights.
    """
    try:
        found = load_file(path) if path.endswith(".safetensors") else torch.load(path, "cpu", weights_only=True)
        found = {key.removeprefix("features."): value for key, value in found.items()}
    except (OSError, RuntimeError, EOFError, AttributeError, SafetensorError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: expected the weights of a backbone ({str(error).splitlines()[0]})") from error
    body: nn.Module | None = getattr(network.backbone, "body", None)
    if body is None:
        raise ValueError(f"model.backbone: {type(network).__name__} has none that a file could fill")
    for key, value in body.state_dict().items():
        if not isinstance(found.get(key), Tensor) or found[key].shape != value.shape:
            raise ValueError(f"{path}: expected the weights of this detector's backbone, {key} is not there or differs")
    body.load_state_dict({key: found[key] for key in body.state_dict()})
    return body


def _part(network: nn.Module, name: str) -> nn.Module:
    parts = dict(network.named_modules())
    if not name or name not in parts:
        nearest = difflib.get_close_matches(name, parts, 3, 0)
        raise ValueError(f"model.freeze: {name!r} is no part of the network, nearest: {', '.join(nearest)}")
    return parts[name]


def _average(average: Tensor, new: Tensor, steps: Tensor | int) -> Tensor:
    """An average over some 500 steps, over fewer in the beginning."""
    return average + (new - average) * max(0.002, 9 / (10 + float(steps)))
