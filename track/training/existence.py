"""Training of existence on what the tracker itself observes of its tracks, each of them an object or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from torchvision.ops import box_convert

from track.detection.source import PrecomputedDetections
from track.formats.mot import find_sequences
from track.pipeline import Pipeline
from track.structures import Frame
from track.tracking.camera_motion import Static
from track.tracking.existence import MIN_SILENT, Existence, features
from track.tracking.graph_network import GraphAssociation, load_graph, save_network
from track.tracking.recurrent import load_motion
from track.tracking.tracker import Tracker
from track.training.episodes import LabelledSequence
from track.training.recording import true_objectness
from track.training.simulation import Episode, identify, simulate_clutter, simulate_lone_object, subsample
from track.training.trajectories import per_root

TRUE_IOU = 0.5  # of a track's box with the ground truth, as the evaluation has it
STRIDES = 1, 3, 6  # of the frames of each sequence
Observed = tuple[Tensor, Tensor]  # features (N, FEATURES) of tracks in a frame, and whether each is an object (N,)


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
        return save_network(self.motion, self.network, folder / "gru.safetensors", self.existence)


def every(episode: Episode, stride: int) -> Episode:
    """Every `stride`-th frame of an episode, from the first."""
    return subsample(episode, list(range(0, len(episode.truth), stride)))


def observe_all(module: ExistenceModule, episodes: Sequence[Episode]) -> Observed:
    """What is observed in all frames of some episodes."""
    parts = [part for episode in episodes for part in observe(module.tracker(), episode)]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


@torch.no_grad()
def observe(tracker: Tracker, episode: Episode) -> list[Observed]:
    """The features of all tracks with a detection, and whether they are objects, for each frame of an episode.

    Tracks on distractors and on what is not scored are left out.
    """
    pipeline = Pipeline(PrecomputedDetections(episode.detections), Static(), tracker)
    pipeline.reset()
    parts = []
    for number, (truth, time) in enumerate(zip(episode.truth, episode.times, strict=True), 1):
        pipeline.step(Frame.blank(1, 1, time, number))
        memory = tracker.memory[(tracker.memory.time_since_update == 0) & tracker.memory.confirmed]
        boxes = box_convert(tracker.motion.project(memory.state)[0], "cxcywh", "xyxy")
        objectness = true_objectness(identify(boxes, truth, TRUE_IOU), truth)
        scored = objectness >= 0
        parts.append((features(memory.existence[scored], tracker.score_level.lift), objectness[scored].float()))
    return parts
