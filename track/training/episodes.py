"""Episodes for training association, recorded again in every epoch under the network that is being trained.

Learning from the states that its own decisions lead to is the idea of Ross et al., "A Reduction of Imitation Learning
and Structured Prediction to No-Regret Online Learning" (AISTATS 2011).
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from track.formats.mot import MotSequence, considered_pedestrians, find_sequences
from track.structures import Tracks
from track.tracking.association import Association, ByteAssociation
from track.tracking.graph_network import GraphAssociation
from track.tracking.recurrent import RecurrentMotion
from track.training.recording import AssociationSample, collate_samples, record
from track.training.run import LazyDataLoader
from track.training.simulation import (
    Episode,
    degrade_detections,
    mirror,
    mix_crowds,
    relabel,
    reverse,
    simulate_detections,
    squeeze,
    subsample,
)
from track.training.trajectories import held_out, per_root, scored_detections

EPISODE_LENGTH = 300  # frames
STRIDES = [1] * 8 + [2, 3, 4, 6]  # one is drawn
DROP_RATES = [0.0] * 5 + [0.3]  # one is drawn
SOURCES = 0.5, 0.25, 0.25  # probabilities that an episode's detections are those of a file, degraded, or simulated
IN_SAMPLE_SOURCES = 0.0, 0.67, 0.33  # the same for a detector that was trained on the frames
Weights = dict[str, Tensor]  # of a network, by name


class EpisodeDataModule(lightning.LightningDataModule):
    """Association samples of episodes from every sequence below `root` (one folder or several).

    In the first epoch episodes are recorded under ByteTrack's association, later under the network that is being
    trained.

    split: one for all roots, or one for each. detections: files of detections, used where a sequence has them;
    simulated detections are used besides. in_sample: whether the detector was trained on these very frames, so that
    its detections are better than on any other footage; one value, or one for each root. held_out: names of sequences
    to validate on and never train on; by default every sixth of each root, or the last of fewer. episodes: how many to
    record per epoch; roots take equal shares, but one without detections takes half a share. batches, batch_size: per
    epoch, and in frames. on_policy: whether later epochs are recorded under the network, not under ByteTrack's
    association again. Raises ValueError if `episodes` is below 1.
    """

    max_devices = 1  # each epoch's episodes are recorded once, by the process that trains

    def __init__(
        self,
        root: str | Sequence[str],
        split: str | list[str] = "all",
        detections: Sequence[str] = ("det/yolox.txt", "det/frcnn.txt"),
        in_sample: bool | list[bool] = False,
        held_out: Sequence[str] | None = None,
        episodes: int = 120,
        batches: int = 1200,
        batch_size: int = 64,
        on_policy: bool = True,
    ) -> None:
        super().__init__()
        if episodes < 1:
            raise ValueError(f"data.episodes: expected 1 or more, got {episodes}")
        self.roots = [root] if isinstance(root, str) else list(root)
        self.splits = per_root("split", split, self.roots)
        self.in_sample = per_root("in_sample", in_sample, self.roots)
        self.detections = [detections] if isinstance(detections, str) else list(detections)
        self.held_out = held_out
        self.episodes = episodes
        self.batches = batches
        self.batch_size = batch_size
        self.on_policy = on_policy
        self.groups: list[list[LabelledSequence]] = []  # to train on, by root
        self.held_out_sequences: list[LabelledSequence] = []
        self.samples: list[AssociationSample] = []
        self.recordings: list[tuple[int, Weights | None]] = []  # seed and weights of each epoch's

    def setup(self, stage: str) -> None:
        """Read every sequence, once.

        Raises ValueError if none is left to train on, or, unless `held_out` is empty, to validate on.
        """
        if self.groups:
            return
        by_root = [find_sequences(root, split) for root, split in zip(self.roots, self.splits, strict=True)]
        validation = [sequence for group in by_root for sequence in held_out(group, self.held_out)]
        self.held_out_sequences = [LabelledSequence(sequence, self.detections) for sequence in validation]
        paths = {sequence.path for sequence in validation}
        groups = [
            [LabelledSequence(one, self.detections, in_sample) for one in group if one.path not in paths]
            for group, in_sample in zip(by_root, self.in_sample, strict=True)
        ]
        self.groups = [group for group in groups if group]
        if not self.groups:
            raise ValueError(f"{', '.join(self.roots)}: expected sequences to train on other than data.held_out")
        if not validation and (self.held_out is None or len(self.held_out)):
            roots = ", ".join(self.roots)
            raise ValueError(f"{roots}: expected sequences to validate on, or data.held_out=[] and monitor=null")

    def record(self, learned: GraphAssociation) -> None:
        """Record this epoch's episodes, and keep half of the earlier samples; `learned` as the network is by now.

        In a resumed run the episodes of the earlier epochs are recorded again first.
        """
        is_byte = not self.recordings or not self.on_policy
        weights = None if is_byte else {key: value.clone() for key, value in learned.network.state_dict().items()}
        self.recordings.append((int(torch.randint(2**62, ())), weights))
        for seed, network in self.recordings[-1 if self.samples else 0 :]:
            self._record(seed, network, learned)

    def state_dict(self) -> dict[str, Any]:
        """The seed of each epoch's episodes, and the network's weights that they were recorded under."""
        return {"recordings": self.recordings}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take in those of a checkpoint."""
        self.recordings = state_dict["recordings"]

    def train_dataloader(self) -> DataLoader[AssociationSample]:
        """Batches of the recorded samples, drawn with replacement."""
        sampler = RandomSampler(self.samples, True, self.batches * self.batch_size)
        return LazyDataLoader(self.samples, self.batch_size, sampler=sampler, collate_fn=collate_samples)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[LabelledSequence]:
        """The held-out sequences, to be tracked."""
        return DataLoader(self.held_out_sequences, batch_size=None)  # type: ignore[arg-type]

    def _record(self, seed: int, weights: Weights | None, learned: GraphAssociation) -> None:
        """Add the samples of episodes under the network of those weights, or under ByteTrack's association."""
        association: Association = ByteAssociation()
        if weights is not None:
            network = deepcopy(learned.network)
            network.load_state_dict(weights)
            association = GraphAssociation(learned.motion, network)
        episodes = EpisodeDataset(self.groups, learned.motion, association, self.episodes, seed)
        loader = DataLoader(episodes, None, num_workers=2, generator=torch.Generator())  # the run's own is untouched
        recorded = [sample for part in loader for sample in pickle.loads(part)]  # written by our own workers
        self.samples[:] = self.samples[::2] + recorded


class LabelledSequence:
    """A sequence with its ground truth and detections in memory.

    files: names of its files of detections; detections are simulated for a sequence that has none of them. in_sample:
    whether the detector was trained on it.
    """

    def __init__(self, sequence: MotSequence, files: Sequence[str], in_sample: bool = False) -> None:
        self.name = sequence.name
        self.times = sequence.times
        self.in_sample = in_sample
        self.truth = sequence.truth()
        self.detections = [scored_detections(sequence, file) for file in files if sequence.has(file)]  # of each file
        self.affines = list(sequence.affines()) if sequence.has("gmc.txt") else None

    def episode(self) -> Episode:
        """The whole sequence as it is, with the first file's detections and without camera motion."""
        if self.detections:
            return Episode(self.truth, self.detections[0], None, self.times)
        simulated = simulate_detections(_pedestrians(self.truth), np.random.default_rng(0))
        return Episode(self.truth, simulated, None, self.times)


class EpisodeDataset(Dataset[bytes]):
    """Random episodes recorded under an association: a list of samples each.

    Lists are pickled, because sharing so many small tensors between processes is slow.
    """

    def __init__(
        self,
        groups: list[list[LabelledSequence]],
        motion: RecurrentMotion,
        association: Association,
        count: int,
        seed: int,
    ) -> None:
        self.groups = groups
        self.motion = motion
        self.association = association
        self.count = count
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> bytes:
        rng = np.random.default_rng([self.seed, index])
        share = np.array([2.0 if any(one.detections for one in group) else 1.0 for group in self.groups])
        group = self.groups[rng.choice(len(share), p=share / share.sum())]
        sequence = group[rng.integers(len(group))]
        episode = sample_episode(sequence, [one for group in self.groups for one in group], rng)
        samples, _ = record(self.motion, self.association, episode)
        return pickle.dumps(samples)


def sample_episode(sequence: LabelledSequence, others: list[LabelledSequence], rng: np.random.Generator) -> Episode:
    """A random episode of a sequence.

    Its detections are those of a file, maybe degraded, or simulated, then maybe with the crowd of one of the `others`
    mixed in. Frame rate, dropped frames, mirroring, time reversal, camera motion and classes are random too.
    """
    stride = int(rng.choice(STRIDES))
    start = int(rng.integers(max(1, len(sequence.truth) - EPISODE_LENGTH * stride + 1)))
    frames = slice(start, start + EPISODE_LENGTH * stride)
    truth = sequence.truth[frames]
    affines = None if sequence.affines is None else sequence.affines[frames]
    probabilities = IN_SAMPLE_SOURCES if sequence.in_sample else SOURCES
    source = rng.choice(3, p=probabilities) if sequence.detections else 2
    if source < 2:
        detections = sequence.detections[rng.integers(len(sequence.detections))][frames]
        detections = degrade_detections(detections, truth, rng) if source == 1 else detections
    else:
        truth, is_changed = _vary_crowd(_pedestrians(truth), others, rng)
        affines = None if is_changed else affines  # no camera motion fits people who were moved
        detections = simulate_detections(truth, rng)
    episode = Episode(truth, detections, affines if rng.random() < 0.5 else None, sequence.times[frames])
    drop_rate = rng.choice(DROP_RATES)
    remaining = [k for k in range(0, len(truth), stride) if rng.random() >= drop_rate] or [0]
    episode = subsample(episode, remaining) if len(remaining) < len(truth) else episode
    for augment in (mirror, reverse):
        episode = augment(episode) if rng.random() < 0.5 else episode
    return relabel(episode, rng) if rng.random() < 0.25 else episode


def _vary_crowd(
    truth: list[Tracks], others: list[LabelledSequence], rng: np.random.Generator
) -> tuple[list[Tracks], bool]:
    """The crowd, maybe mixed with another one, maybe squeezed; and whether it was changed."""
    is_mixed, is_squeezed = rng.random(2) < 0.6
    if is_mixed:
        other = others[rng.integers(len(others))].truth
        start = int(rng.integers(max(1, len(other) - len(truth) + 1)))
        truth = mix_crowds(truth, _pedestrians(other[start : start + len(truth)]), rng)
    return squeeze(truth, rng) if is_squeezed else truth, bool(is_mixed or is_squeezed)


def _pedestrians(truth: list[Tracks]) -> list[Tracks]:
    return [considered_pedestrians(frame) for frame in truth]
