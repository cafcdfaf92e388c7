"""Fine-tuning of a torchvision detector, judged by mean average precision."""

from __future__ import annotations

from pathlib import Path

import lightning
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from track.detector import build, load_detector, save_detector
from track.training.frames import Target
from track.training.schedule import warmup_cosine

Batch = tuple[list[Tensor], list[Target]]
CATEGORIES = ("__background__", "person")


class DetectorModule(lightning.LightningModule):
    """Trains the detector `name` on persons from official weights, a checkpoint, or nothing.

    weights: an official weights' name, whose backbone is kept and whose head is made anew, and whose batch statistics
    stay as they are; None starts at random.
    """

    def __init__(
        self,
        name: str = "fasterrcnn_mobilenet_v3_large_320_fpn",
        weights: str | None = "DEFAULT",
        checkpoint: str | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__()
        self.settled: list[torch.nn.BatchNorm2d] = []  # too few pictures a batch to estimate them anew
        self.name, self.learning_rate, self.weight_decay = name, learning_rate, weight_decay
        self.network, self.categories = build(name, None, CATEGORIES)
        if checkpoint is not None:
            self.name, self.network, self.categories = load_detector(checkpoint)
            if list(self.categories) != list(CATEGORIES):
                raise ValueError(
                    f"{checkpoint}: expected a detector of persons alone, its classes are {self.categories}"
                )
        elif weights is not None:
            self._borrow(build(name, weights)[0].state_dict())
            self.settled = [m for m in self.network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        self.precision = MeanAveragePrecision(backend="pycocotools")

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The sum of the network's losses, logged as train/loss."""
        for norm in self.settled:
            norm.eval()
        loss: Tensor = sum(self.network(*batch).values(), torch.zeros((), device=self.device))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        """Gather what the network finds."""
        images, targets = batch
        self.precision.update(self.network(images), targets)

    def on_validation_epoch_end(self) -> None:
        """val/map (over IoU .5 to .95) and val/map_50."""
        found = self.precision.compute()
        self.log_dict({"val/map": found["map"], "val/map_50": found["map_50"]}, prog_bar=True)
        self.precision.reset()

    def configure_optimizers(self) -> lightning.pytorch.utilities.types.OptimizerLRScheduler:
        """AdamW, warm-up and cosine over the whole run."""
        weights = [p for p in self.network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, self.learning_rate, weight_decay=self.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = warmup_cosine(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def export(self, folder: Path) -> Path:
        """Write the network where `detector.checkpoint` can name it; returns the file."""
        save_detector(self.network, self.name, self.categories, folder / "detector.safetensors")
        return folder / "detector.safetensors"

    def _borrow(self, official: dict[str, Tensor]) -> None:
        """Take every official weight that has the same shape here: all but the last layers of the head."""
        own = self.network.state_dict()
        self.network.load_state_dict(own | {k: v for k, v in official.items() if own[k].shape == v.shape})
