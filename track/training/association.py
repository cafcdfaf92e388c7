"""Training of the association network on what the tracker itself asked."""

from __future__ import annotations

from copy import deepcopy
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
from track.tracking.tracker import Tracker
from track.training.episodes import AssociationSample, LabelledSequence, collate_samples, record
from track.training.schedule import warmup_cosine


class AssociationModule(lightning.LightningModule):
    """Learns each track's choice among its detections or nobody, and each detection's among its tracks or none, by
    cross-entropy both ways. The motion model stays as it is.

    motion: weights of the motion model (default: the shipped). checkpoint: weights of both networks to start from, in
    place of a new one. What is tracked with and exported is the running average of the weights.
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
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(average))
        self.weight_decay, self.learning_rate = weight_decay, learning_rate
        self.tracked: dict[str, tuple[list[Tracks], list[Tracks]]] = {}
        self.claims: list[tuple[Tensor, ...]] = []
        self.tables: dict[str, pd.DataFrame] = {}

    def training_step(self, batch: AssociationSample, index: int) -> Tensor:
        """The loss, logged as train/loss."""
        loss = choice_loss(self.network, batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.of_track))
        return loss

    def on_train_batch_end(self, *_: object) -> None:
        """Move the average on."""
        self.average.update_parameters(self.network)

    def validation_step(self, video: LabelledSequence, index: int) -> None:
        """Track a held-out sequence: val/loss on what was asked."""
        questions, results = record(self.tracker(), video.episode())
        self.tracked[video.sequence.name] = video.truth, results
        for start in range(0, len(questions), 100):
            batch = collate_samples(questions[start : start + 100])
            loss = choice_loss(self._averaged(), batch)
            self.log("val/loss", loss, batch_size=len(batch.of_track), on_epoch=True)
            self.claims.append(pair_claims(self._averaged(), batch))

    def on_validation_epoch_end(self) -> None:
        """val/hota, val/idf1 and val/mota over the held-out sequences, and how far claims are from what observed."""
        columns = [torch.cat(column) for column in zip(*self.claims, strict=True)]
        names = "a pair, of the track", "a pair, of the detection", "a real object"
        pairs = zip(columns[::2], columns[1::2], strict=True)
        self.tables = {
            name: reliability(confidence, true) for name, (confidence, true) in zip(names, pairs, strict=True)
        }
        self.log("val/calibration", calibration_error(self.tables[names[0]]))
        self.claims = []
        figures = evaluate_tracking(self.tracked).loc[OVERALL]
        self.log_dict({f"val/{name.lower()}": float(figures[name]) for name in ("HOTA", "IDF1", "MOTA")}, prog_bar=True)
        self.tracked = {}

    def configure_optimizers(self) -> lightning.pytorch.utilities.types.OptimizerLRScheduler:
        """AdamW, warm-up and cosine over the whole run."""
        weights = self.network.parameters()
        optimizer = torch.optim.AdamW(weights, self.learning_rate, weight_decay=self.weight_decay)
        schedule = warmup_cosine(optimizer, int(self.trainer.estimated_stepping_batches), 0.03)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def tracker(self) -> Tracker:
        """A tracker with a copy of the averaged network."""
        motion, network = (
            deepcopy(self.motion).cpu().eval(),
            deepcopy(self._averaged()).cpu().eval().requires_grad_(False),
        )
        return Tracker(motion, GraphAssociation(motion, network))

    def export(self, folder: Path) -> Path:
        """Write both networks where `tracker.weights` can name them, and a picture of their reliability; returns the
        file."""
        if self.tables:
            plot_reliability(self.tables, folder / "reliability.png")
        return save_network(self.motion, self._averaged(), folder / "gru.safetensors")

    def _averaged(self) -> MessagePassing:
        return cast(MessagePassing, self.average.module)


def choice_loss(network: MessagePassing, question: AssociationSample) -> Tensor:
    """Mean negative log-likelihood of the tracks' and of the detections' choices, and a fifth of that of `real`."""
    graph, scores = question.graph, network(question.graph)
    true = question.of_track[graph.i] == graph.j
    of_tracks = (
        segment_logsumexp(scores.pair, scores.no_detection, graph.i).sum()
        - scores.no_detection[question.of_track < 0].sum()
    )
    of_detections = (
        segment_logsumexp(scores.pair, scores.no_track, graph.j).sum()
        - scores.no_track[question.of_detection < 0].sum()
    )
    chosen = scores.pair[true].sum()
    asked = question.real >= 0
    real = binary_cross_entropy_with_logits(scores.objectness[asked], question.real[asked].float(), reduction="sum")
    counts = max(1, len(question.of_track)), max(1, len(question.of_detection)), max(1, int(asked.sum()))
    return (of_tracks - chosen) / counts[0] + (of_detections - chosen) / counts[1] + 0.2 * real / counts[2]


@torch.no_grad()
def pair_claims(network: MessagePassing, question: AssociationSample) -> tuple[Tensor, ...]:
    """Probabilities and what observed: of each pair for its track, for its detection, and of detections being real.
    Pairs with a box of nobody's are left out: whether a track of nobody goes on with one has no answer."""
    graph, scores = question.graph, network(question.graph)
    somebody, asked = question.real[graph.j] != 0, question.real >= 0
    true = (question.of_track[graph.i] == graph.j)[somebody]
    of_track = (scores.pair - segment_logsumexp(scores.pair, scores.no_detection, graph.i)[graph.i]).exp()[somebody]
    of_detection = (scores.pair - segment_logsumexp(scores.pair, scores.no_track, graph.j)[graph.j]).exp()[somebody]
    return of_track, true, of_detection, true, scores.objectness[asked].sigmoid(), question.real[asked] > 0
