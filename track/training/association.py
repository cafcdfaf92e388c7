"""Training of the association network on samples recorded by the tracker itself, and of existence, which tells those of
its tracks that are objects."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import cast

import lightning
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from track.detection.source import PrecomputedDetections
from track.evaluation.calibration import calibration_error, reliability
from track.evaluation.plots import plot_reliability
from track.evaluation.tracking import OVERALL, evaluate_tracking
from track.formats.mot import find_sequences
from track.pipeline import Pipeline
from track.structures import Frame, Tracks
from track.tracking.camera_motion import Static
from track.tracking.existence import MIN_SILENT, Existence, features
from track.tracking.graph_network import GraphAssociation, MessagePassing, load_graph, save_network, segment_logsumexp
from track.tracking.recurrent import load_motion
from track.tracking.tracker import Tracker
from track.training.episodes import EpisodeDataModule, LabelledSequence
from track.training.recording import AssociationSample, collate_samples, record, true_objectness
from track.training.run import warmup_cosine
from track.training.simulation import Episode, identify, simulate_clutter, simulate_lone_object, subsample
from track.training.trajectories import per_root

VALIDATION_BATCH = 100  # frames
OBJECTNESS_WEIGHT = 0.2  # of its loss compared with those of the matches
TRUE_IOU = 0.5  # of a track's box with the ground truth, as the evaluation has it
STRIDES = 1, 3, 6  # of the frames of each sequence
Observed = tuple[Tensor, Tensor]  # features (N, FEATURES) of tracks in a frame, and whether each is an object (N,)
PROBABILITIES = ("match, given the track", "match, given the detection", "object")  # that are checked for calibration


class AssociationModule(lightning.LightningModule):
    """Learns the match of each track among its detections or none, and of each detection among its tracks or none, by
    cross-entropy in both directions. The motion model is frozen.

    motion: weights of the motion model (default: the shipped ones). checkpoint: weights of both networks to start from;
    hidden, rounds and dropout are then those of the file. average: decay of the exponential moving average of the
    weights, which is what tracks in validation, records episodes and is exported.
    """

    exported = "gru.safetensors"  # the file that `export` writes

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
        return save_network(self.motion, self._averaged(), folder / self.exported)

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


class ExistenceDataModule(lightning.LightningDataModule):
    """What the tracker observes of its tracks on every sequence below `root` (one folder or several).

    split: one for all roots, or one for each. detections: files of detections; those of each file below each root are a
    group, at several frame rates, and detections are simulated for a root without any of them. Lone objects and clutter
    of low scores are simulated as two groups more. All groups weigh alike. held_out: names of sequences that are not
    used. episodes: how many of a lone object, and of clutter, are simulated.
    """

    def __init__(
        self,
        root: str | Sequence[str],
        split: str | list[str] = "all",
        detections: Sequence[str] = ("det/yolox.txt", "det/frcnn.txt"),
        held_out: Sequence[str] = (),
        episodes: int = 40,
    ) -> None:
        super().__init__()
        self.roots = [root] if isinstance(root, str) else list(root)
        self.splits = per_root("split", split, self.roots)
        self.detections = [detections] if isinstance(detections, str) else list(detections)
        self.held_out = set(held_out)
        self.episodes = episodes
        self.groups: list[list[Episode]] = []

    def setup(self, stage: str) -> None:
        """Read every sequence, once. Raises ValueError if there is none."""
        for root, split in zip(self.roots, self.splits, strict=True):
            sequences = [one for one in find_sequences(root, split) if one.name not in self.held_out]
            groups = [[s for s in sequences if s.has(file)] for file in self.detections]
            pairs = [(file, group) for file, group in zip(self.detections, groups, strict=True) if group]
            for file, group in pairs or [("", sequences)]:
                episodes = [LabelledSequence(s, [file] if file else []).episode() for s in group]
                self.groups.append([every(episode, stride) for stride in STRIDES for episode in episodes])
        if not any(self.groups):
            raise ValueError(f"{', '.join(self.roots)}: expected sequences other than data.held_out")

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
        """One batch of everything: features, whether each is an object, and weights that sum to 1."""
        assert self.trainer is not None
        module = self.trainer.lightning_module
        assert isinstance(module, ExistenceModule)
        rng = np.random.default_rng(0)
        lone = [simulate_lone_object(rng) for _ in range(self.episodes)]
        clutter = [simulate_clutter(rng) for _ in range(self.episodes)]
        groups = [observe_all(module, group) for group in [*self.groups, lone, clutter]]
        groups = [group for group in groups if len(group[1])]
        weights = torch.cat([torch.full_like(y, 1 / len(y) / len(groups)) for _, y in groups])
        batch = (*(torch.cat(columns) for columns in zip(*groups, strict=True)), weights)
        return DataLoader([batch], batch_size=None)  # type: ignore[arg-type]


class ExistenceModule(lightning.LightningModule):
    """Fits existence for the networks in `weights` (default: the shipped ones) by LBFGS, with all data at once.

    penalty: of the squared weights of standardised features.
    """

    exported = "gru.safetensors"  # the file that `export` writes

    def __init__(self, weights: str = "gru", penalty: float = 1e-3, max_iter: int = 200) -> None:
        super().__init__()
        self.motion, self.network = load_motion(weights), load_graph(weights)
        self.existence = Existence()
        self.penalty, self.max_iter = penalty, max_iter

    def tracker(self) -> Tracker:
        """A tracker whose tracks are observed; what it reports depends on an untrained existence."""
        return Tracker(self.motion, GraphAssociation(self.motion, self.network, MIN_SILENT), Existence())

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], index: int) -> Tensor:
        """The loss, logged as train/loss."""
        x, y, weight = batch
        spread = (weight @ (x - weight @ x) ** 2).sqrt()
        loss = weight @ binary_cross_entropy_with_logits(self.existence.linear(x)[:, 0], y, reduction="none")
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss + self.penalty * ((self.existence.linear.weight[0] * spread) ** 2).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """LBFGS of the regression alone; its one step is the whole fit."""
        return torch.optim.LBFGS(self.existence.parameters(), max_iter=self.max_iter, line_search_fn="strong_wolfe")

    def export(self, folder: Path) -> Path:
        """Write the networks with their existence to a file that `tracker.weights` can name; returns the file."""
        return save_network(self.motion, self.network, folder / self.exported, self.existence)


def every(episode: Episode, stride: int) -> Episode:
    """Every `stride`-th frame of an episode, from the first."""
    return subsample(episode, list(range(0, len(episode.truth), stride)))


def observe_all(module: ExistenceModule, episodes: Sequence[Episode]) -> Observed:
    """What is observed in all frames of some episodes."""
    tracker = module.tracker()
    parts = [part for episode in episodes for part in observe(tracker, episode)]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


@torch.no_grad()
def observe(tracker: Tracker, episode: Episode) -> list[Observed]:
    """The features of all confirmed tracks with a detection, and whether they are objects, per frame of an episode.

    Tracks on distractors and on what is not scored are left out.
    """
    pipeline = Pipeline(PrecomputedDetections(episode.detections), Static(), tracker)
    pipeline.reset()
    parts = []
    for number, (truth, time) in enumerate(zip(episode.truth, episode.times, strict=True), 1):
        pipeline.step(Frame.blank(1, 1, time, number))
        live = tracker.memory
        memory = live[np.flatnonzero((live.time_since_update == 0) & live.confirmed)]
        objectness = true_objectness(identify(torch.from_numpy(memory.boxes), truth, TRUE_IOU), truth)
        scored = objectness >= 0
        observed = torch.from_numpy(features(memory.existence, tracker.score_level.lift))
        parts.append((observed[scored], objectness[scored].float()))
    return parts


def _update_average(decay: float, average: list[Tensor], current: list[Tensor], count: Tensor) -> None:
    """Torch's exponential moving average, as a function that other processes can be given."""
    get_ema_multi_avg_fn(decay)(average, current, count)
