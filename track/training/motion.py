"""Training of the recurrent motion model: the functions that the tracker calls, unrolled over trajectories."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import lightning
import pandas as pd
import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from track.detection.source import PrecomputedDetections
from track.evaluation.calibration import calibration_error, coverage, interval_level
from track.evaluation.plots import plot_reliability
from track.evaluation.tracking import OVERALL, evaluate_motmetrics
from track.formats.mot import MotSequence
from track.media.sources import SequenceSource
from track.pipeline import Pipeline
from track.structures import Tracks
from track.tracking.camera_motion import Static
from track.tracking.motion import Kalman, Motion
from track.tracking.recurrent import RecurrentMotion, load_motion, save_motion
from track.tracking.tracker import Tracker
from track.training.run import warmup_cosine
from track.training.trajectories import HORIZONS, Batch, TrajectoryDataModule, scored_detections

REPORTED_HORIZONS = (1, 5, 30)  # frames


class MotionModule(lightning.LightningModule):
    """Learns the true box at every horizon after every observation, by a Laplace likelihood.

    cell: gru, lstm or rnn. checkpoint: weights to start from; cell, hidden and dropout are then those of the file.
    tracked_sequences: how many of the held-out sequences with detections are tracked at each validation.
    """

    exported = "motion.safetensors"  # the file that `export` writes

    def __init__(
        self,
        cell: str = "gru",
        hidden: int = 64,
        dropout: float = 0.0,
        weight_decay: float = 1e-2,
        learning_rate: float = 3e-3,
        checkpoint: str | None = None,
        tracked_sequences: int = 1,
    ) -> None:
        super().__init__()
        if checkpoint:
            self.network = load_motion(checkpoint, history_length=1).requires_grad_().train()
        else:
            self.network = RecurrentMotion(cell, hidden, dropout, history_length=1)  # only association reads more
        self.weight_decay, self.learning_rate = weight_decay, learning_rate
        self.tracked_sequences = tracked_sequences
        self.levels: list[tuple[Tensor, Tensor]] = []  # of this validation: horizon's index (N,), interval level (N, 4)
        self.tables: dict[str, pd.DataFrame] = {}  # reliability of the predicted intervals, by horizon

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The loss, logged as train/loss."""
        state, target, _ = unroll(self.network, batch)
        loss = laplace_loss(*self.network.project(state), target)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["boxes"]))
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        """Log val/loss and, for 1, 5 and 30 frames ahead, the mean IoU with the true box: the network's (val/iou_1) and
        the Kalman filter's (val/kalman_iou_1)."""
        state, target, horizon = unroll(self.network, batch)
        predicted = self.network.project(state)
        self.log("val/loss", laplace_loss(*predicted, target), batch_size=len(target), sync_dist=True)
        self.levels.append((horizon.cpu(), interval_level(*predicted, target).cpu()))
        truth = box_convert(target, "cxcywh", "xyxy")
        for prefix, motion in (("", self.network), ("kalman_", Kalman())):
            state, _, _ = unroll(motion, batch)
            iou = paired_iou(box_convert(motion.project(state)[0], "cxcywh", "xyxy"), truth)
            for frames in REPORTED_HORIZONS:
                rows = iou[horizon == HORIZONS.index(frames)]
                self.log(f"val/{prefix}iou_{frames}", rows.mean(), batch_size=len(rows), prog_bar=frames == 1)

    def on_validation_epoch_end(self) -> None:
        """Log the calibration error of the predicted intervals (val/calibration_1, _5 and _30); track held-out
        sequences and log val/mota and val/idf1."""
        horizon, levels = (torch.cat(column) for column in zip(*self.levels, strict=True))
        self.levels = []
        for frames in REPORTED_HORIZONS:
            table = coverage(levels[horizon == HORIZONS.index(frames)], torch.arange(0.05, 1, 0.05))
            self.tables[f"{frames} frames"] = table
            self.log(f"val/calibration_{frames}", calibration_error(table))
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, TrajectoryDataModule) or self.trainer.sanity_checking:
            return
        sequences = [one for one in data.held_out_sequences if one.has(data.detections)][: self.tracked_sequences]
        if sequences:
            pairs = {one.name: (one.truth(), self._track(one, data.detections)) for one in sequences}
            overall = evaluate_motmetrics(pairs).loc[OVERALL]
            self.log_dict({"val/mota": overall["mota"], "val/idf1": overall["idf1"]}, prog_bar=True)

    def configure_optimizers(self) -> lightning.pytorch.utilities.types.OptimizerLRScheduler:
        """AdamW, with warm-up and cosine decay over the whole run."""
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        schedule = warmup_cosine(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def export(self, folder: Path) -> Path:
        """Write the network to a file that `tracker.weights` can name, and plot its reliability; returns the file."""
        if self.tables:
            plot_reliability(self.tables, folder / "reliability.png")
        return save_motion(self.network, folder / self.exported)

    def _track(self, sequence: MotSequence, file: str) -> list[Tracks]:
        """The tracks of a sequence by the network, with ByteTrack's association and without camera motion."""
        detections = PrecomputedDetections(scored_detections(sequence, file))
        pipeline = Pipeline(detections, Static(), Tracker(deepcopy(self.network).cpu()))
        return [result.tracks for result in pipeline(SequenceSource(sequence).without_pixels())]


def laplace_loss(position: Tensor, sigma: Tensor, target: Tensor) -> Tensor:
    """Mean negative log-likelihood of targets (N, 4) under Laplace distributions, in units of the box's size.

    position, sigma: (N, 4) means and standard deviations. All are of centre x, centre y, width and height, in pixels.
    """
    size = target[:, [2, 3, 2, 3]].clamp(min=1.0)
    scale = (sigma / size).clamp(min=1e-4) / 2**0.5
    return ((position - target).abs() / size / scale + scale.log()).mean()


def unroll(motion: Motion, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Run a motion model over a batch of B `TrajectoryDataset` items.

    Returns, for the M pairs of an observation and a horizon whose true box is known: the state predicted there (M, S),
    the true box (M, 4) as centre x, centre y, width, height, and the index of the horizon (M,).
    """
    boxes, scores, elapsed = batch["boxes"], batch["scores"], batch["elapsed"]
    state = motion.initiate(boxes[:, 0], scores[:, 0])
    states = [state]
    for t in range(1, boxes.shape[1]):
        state = motion.update(motion.predict(state, elapsed[:, t]), boxes[:, t], scores[:, t])
        states.append(state)
    known = batch["targets"].isfinite().all(3) & (batch["valid"][..., None] > 0)  # (B, T, K)
    rows, times, horizons = known.nonzero(as_tuple=True)
    target = box_convert(batch["targets"][known], "xyxy", "cxcywh")
    return motion.predict(torch.stack(states, 1)[rows, times], batch["horizon"][known]), target, horizons


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """(N,) the IoU of each box of `a` (N, 4) with the same row of `b` (N, 4), xyxy."""
    return box_iou(a[:, None], b[:, None])[:, 0, 0]
