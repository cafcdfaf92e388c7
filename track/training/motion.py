"""Training of the recurrent motion model: the tracker's own functions, unrolled over trajectories."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import lightning
import pandas as pd
import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from track.evaluation.calibration import calibration_error, coverage, interval_level
from track.evaluation.plots import plot_reliability
from track.evaluation.tracking import evaluate_motmetrics
from track.tracking.motion import Kalman, Motion
from track.tracking.recurrent import RecurrentMotion, load_motion, save_motion
from track.tracking.tracker import Tracker
from track.training.schedule import warmup_cosine
from track.training.trajectories import HORIZONS, Batch, TrajectoryDataModule


class MotionModule(lightning.LightningModule):
    """Learns where the truth is after every observation, at every horizon, by a Laplace likelihood.

    cell: gru, lstm or rnn. checkpoint: weights to start from. tracked: how many held-out sequences with detections are
    also tracked at each validation (0: none), scored by motmetrics.
    """

    def __init__(
        self,
        cell: str = "gru",
        hidden: int = 64,
        dropout: float = 0.0,
        weight_decay: float = 1e-2,
        learning_rate: float = 3e-3,
        checkpoint: str | None = None,
        tracked: int = 1,
    ) -> None:
        super().__init__()
        self.network = (
            load_motion(checkpoint).requires_grad_().train() if checkpoint else RecurrentMotion(cell, hidden, dropout)
        )
        self.network.history_length = 1
        self.weight_decay, self.learning_rate, self.tracked = weight_decay, learning_rate, tracked
        self.regions: list[tuple[Tensor, Tensor]] = []  # of this validation: horizon's index (N,), region (N, 4)
        self.tables: dict[str, pd.DataFrame] = {}

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The loss, logged as train/loss."""
        state, target, _ = unroll(self.network, batch)
        loss = laplace_loss(*self.network.project(state), target)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["boxes"]))
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        """val/loss, and the mean IoU with the truth 1, 5 and 30 frames ahead beside the Kalman filter's."""
        state, target, horizon = unroll(self.network, batch)
        predicted = self.network.project(state)
        self.log("val/loss", laplace_loss(*predicted, target), batch_size=len(target))
        self.regions.append((horizon.cpu(), interval_level(*predicted, target).cpu()))
        truth = box_convert(target, "cxcywh", "xyxy")
        for name, motion in (("", self.network), ("kalman_", Kalman())):
            position = motion.project(unroll(motion, batch)[0])[0]
            overlap = pair_iou(box_convert(position, "cxcywh", "xyxy"), truth)
            for frames in (1, 5, 30):
                rows = overlap[horizon == HORIZONS.index(frames)]
                self.log(f"val/{name}iou_{frames}", rows.mean(), batch_size=len(rows), prog_bar=frames == 1)

    def on_validation_epoch_end(self) -> None:
        """How much the predicted regions hold; and track held-out sequences: val/mota and val/idf1."""
        horizon, regions = (torch.cat(column) for column in zip(*self.regions, strict=True))
        self.regions = []
        rows = {f"{frames} frames": regions[horizon == HORIZONS.index(frames)] for frames in (1, 5, 30)}
        self.tables = {name: coverage(held, torch.arange(0.05, 1, 0.05)) for name, held in rows.items()}
        for name, table in self.tables.items():
            self.log(f"val/calibration_{name.split()[0]}", calibration_error(table))
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, TrajectoryDataModule) or self.trainer.sanity_checking:
            return
        network = deepcopy(self.network).cpu()
        sequences = [s for s in data.held_out_sequences if s.has(data.detections)][: self.tracked]
        pairs = {}
        for sequence in sequences:
            tracker = Tracker(network, frame_rate=sequence.frame_rate)
            pairs[sequence.name] = sequence.truth(), [tracker.update(d) for d in sequence.detections(data.detections)]
        if pairs:
            overall = evaluate_motmetrics(pairs).loc["OVERALL"]
            self.log_dict({"val/mota": overall["mota"], "val/idf1": overall["idf1"]}, prog_bar=True)

    def configure_optimizers(self) -> lightning.pytorch.utilities.types.OptimizerLRScheduler:
        """AdamW, warm-up and cosine over the whole run."""
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = warmup_cosine(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def export(self, folder: Path) -> Path:
        """Write the network where `tracker.weights` can name it, and a picture of its reliability; returns the file."""
        if self.tables:
            plot_reliability(self.tables, folder / "reliability.png")
        save_motion(self.network, folder / "motion.safetensors")
        return folder / "motion.safetensors"


def laplace_loss(position: Tensor, sigma: Tensor, target: Tensor) -> Tensor:
    """Mean negative log-likelihood of targets (N, 4) under Laplace distributions, in units of the box's size."""
    size = target[:, [2, 3, 2, 3]].clamp(min=1.0)
    scale = (sigma / size).clamp(min=1e-4) / 2**0.5
    return ((position - target).abs() / size / scale + scale.log()).mean()


def unroll(motion: Motion, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """States (M, S) at every horizon whose truth is known, that truth (M, 4), and the horizon's index (M,)."""
    boxes, scores, elapsed = batch["boxes"], batch["scores"], batch["elapsed"]
    state = motion.initiate(boxes[:, 0], scores[:, 0])
    states = [state]
    for t in range(1, boxes.shape[1]):
        state = motion.update(motion.predict(state, elapsed[:, t]), boxes[:, t], scores[:, t])
        states.append(state)
    known = batch["targets"].isfinite().all(3) & (batch["valid"][..., None] > 0)  # (B, T, K)
    rows, times, horizons = known.nonzero(as_tuple=True)
    target = box_convert(batch["targets"][known], "xyxy", "cxcywh")
    return motion.predict(torch.stack(states, 1)[rows, times], batch["ahead"][known]), target, horizons


def pair_iou(a: Tensor, b: Tensor) -> Tensor:
    """(N,) IoU of each box with its partner."""
    return box_iou(a[:, None], b[:, None])[:, 0, 0]
