"""Training of the association network on samples recorded by the tracker itself."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import cast

import lightning
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from track.evaluation.calibration import calibration_error, reliability
from track.evaluation.plots import plot_reliability
from track.evaluation.tracking import OVERALL, evaluate_tracking
from track.structures import Tracks
from track.tracking.graph_network import GraphAssociation, MessagePassing, load_graph, save_network, segment_logsumexp
from track.tracking.recurrent import load_motion
from track.training.episodes import EpisodeDataModule, LabelledSequence
from track.training.recording import AssociationSample, collate_samples, record
from track.training.run import warmup_cosine

VALIDATION_BATCH = 100  # frames
OBJECTNESS_WEIGHT = 0.2  # of its loss compared with those of the matches
PROBABILITIES = ("match, given the track", "match, given the detection", "object")  # that are checked for calibration


class AssociationModule(lightning.LightningModule):
    """Learns the match of each track among its detections or none, and of each detection among its tracks or none, by
    cross-entropy in both directions. The motion model is frozen.

    motion: weights of the motion model (default: the shipped ones). checkpoint: weights of both networks to start from;
    hidden, rounds and dropout are then those of the file. average: decay of the exponential moving average of the
    weights, which is what tracks in validation, records episodes and is exported.
    """

    def __init__(
        self,
        motion: str | None = None,
        checkpoint: str | None = None,
        hidden: int = 64,
        rounds: int = 2,
        dropout: float = 0.1,
        weight_decay: float = 1e-2,
        learning_rate: float = 2e-3,
        average: float = 0.998,
    ) -> None:
        super().__init__()
        self.motion = load_motion(checkpoint or motion)
        if checkpoint:
            self.network = load_graph(checkpoint).requires_grad_().train()
        else:
            self.network = MessagePassing(self.motion.feature_size, hidden, rounds, dropout)
        self.average = AveragedModel(self.network, multi_avg_fn=partial(_update_average, average))
        self.weight_decay, self.learning_rate = weight_decay, learning_rate
        self.tracked: dict[str, tuple[list[Tracks], list[Tracks]]] = {}  # truth and results of this validation
        self.outcomes: list[tuple[tuple[Tensor, Tensor], ...]] = []  # of its batches, as `probabilities` returns them
        self.tables: dict[str, pd.DataFrame] = {}  # reliability, by `PROBABILITIES`

    def on_train_epoch_start(self) -> None:
        """Record this epoch's episodes."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, EpisodeDataModule):
            data.record(self.association())

    def training_step(self, batch: AssociationSample, index: int) -> Tensor:
        """The loss, logged as train/loss."""
        loss = association_loss(self.network, batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.detection_of_track))
        return loss

    def on_train_batch_end(self, *_: object) -> None:
        """Update the average of the weights."""
        self.average.update_parameters(self.network)

    def validation_step(self, sequence: LabelledSequence, index: int) -> None:
        """Track a held-out sequence and log val/loss on its samples."""
        association = self.association()
        samples, results = record(association.motion, association, sequence.episode())
        self.tracked[sequence.name] = sequence.truth, results
        for start in range(0, len(samples), VALIDATION_BATCH):
            batch = collate_samples(samples[start : start + VALIDATION_BATCH])
            loss = association_loss(self._averaged(), batch)
            self.log("val/loss", loss, batch_size=len(batch.detection_of_track), on_epoch=True)
            self.outcomes.append(probabilities(self._averaged(), batch))

    def on_validation_epoch_end(self) -> None:
        """Log val/hota, val/idf1 and val/mota over the held-out sequences, and val/calibration of the matches."""
        if self.outcomes:  # a network that has hardly learned may start no track, and then there is no match to predict
            for name, pairs in zip(PROBABILITIES, zip(*self.outcomes, strict=True), strict=True):
                confidence, observed = (torch.cat(column) for column in zip(*pairs, strict=True))
                self.tables[name] = reliability(confidence, observed)
            self.log("val/calibration", calibration_error(self.tables[PROBABILITIES[0]]))
        figures = evaluate_tracking(self.tracked).loc[OVERALL]
        self.log_dict({f"val/{name.lower()}": float(figures[name]) for name in ("HOTA", "IDF1", "MOTA")}, prog_bar=True)
        self.outcomes = []
        self.tracked = {}

    def configure_optimizers(self) -> lightning.pytorch.utilities.types.OptimizerLRScheduler:
        """AdamW, with warm-up and cosine decay over the whole run."""
        optimizer = torch.optim.AdamW(self.network.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        schedule = warmup_cosine(optimizer, int(self.trainer.estimated_stepping_batches), 0.03)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def association(self) -> GraphAssociation:
        """The association as it is learned so far, with the motion model: frozen copies on the CPU."""
        motion = deepcopy(self.motion).cpu().eval()
        network = deepcopy(self._averaged()).cpu().eval().requires_grad_(False)
        return GraphAssociation(motion, network)

    def export(self, folder: Path) -> Path:
        """Write both networks to a file that `tracker.weights` can name, and plot their reliability; returns the
        file."""
        if self.tables:
            plot_reliability(self.tables, folder / "reliability.png")
        return save_network(self.motion, self._averaged(), folder / "gru.safetensors")

    def _averaged(self) -> MessagePassing:
        return cast(MessagePassing, self.average.module)


def association_loss(network: MessagePassing, sample: AssociationSample) -> Tensor:
    """The mean negative log-likelihood of the tracks' matches, plus that of the detections' matches, plus
    `OBJECTNESS_WEIGHT` times that of objectness."""
    graph = sample.graph
    logits = network(graph)
    is_match = sample.detection_of_track[graph.i] == graph.j
    scored = sample.objectness >= 0
    track_loss = (
        segment_logsumexp(logits.pair, logits.no_detection, graph.i).sum()
        - logits.no_detection[sample.detection_of_track < 0].sum()
    )
    detection_loss = (
        segment_logsumexp(logits.pair, logits.no_track, graph.j).sum()
        - logits.no_track[sample.track_of_detection < 0].sum()
    )
    matched = logits.pair[is_match].sum()
    objectness_loss = binary_cross_entropy_with_logits(
        logits.objectness[scored], sample.objectness[scored].float(), reduction="sum"
    )
    return (
        (track_loss - matched) / max(1, len(sample.detection_of_track))
        + (detection_loss - matched) / max(1, len(sample.track_of_detection))
        + OBJECTNESS_WEIGHT * objectness_loss / max(1, int(scored.sum()))
    )


@torch.no_grad()
def probabilities(network: MessagePassing, sample: AssociationSample) -> tuple[tuple[Tensor, Tensor], ...]:
    """Predicted probabilities and whether each event was observed, for each of `PROBABILITIES`.

    Pairs with a false positive are left out: whether a track of one continues with another has no ground truth.
    """
    graph = sample.graph
    logits = network(graph)
    is_object = sample.objectness[graph.j] != 0
    scored = sample.objectness >= 0
    is_match = (sample.detection_of_track[graph.i] == graph.j)[is_object]
    given_track = logits.pair - segment_logsumexp(logits.pair, logits.no_detection, graph.i)[graph.i]
    given_detection = logits.pair - segment_logsumexp(logits.pair, logits.no_track, graph.j)[graph.j]
    return (
        (given_track.exp()[is_object], is_match),
        (given_detection.exp()[is_object], is_match),
        (logits.objectness[scored].sigmoid(), sample.objectness[scored] > 0),
    )


def _update_average(decay: float, average: list[Tensor], current: list[Tensor], count: Tensor) -> None:
    """Torch's exponential moving average, as a function that other processes can be given."""
    get_ema_multi_avg_fn(decay)(average, current, count)
