"""Episodes to learn association from: what the tracker itself asked in each frame, and whose each box really was."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.ops import box_convert

from track.formats.mot import MotSequence, find_sequences
from track.structures import Detections, Tracks
from track.tracking.association import Association, ByteAssociation, Matches, TrackPredictions, assign
from track.tracking.graph_features import Graph, build_graph, collate_graphs
from track.tracking.graph_network import GraphAssociation
from track.tracking.recurrent import RecurrentMotion
from track.tracking.tracker import Tracker
from track.training.simulation import (
    Episode,
    degrade,
    match,
    mirror,
    mix,
    people,
    relabel,
    reverse,
    simulate,
    skip,
    squeeze,
)
from track.training.trajectories import each

DECAY = 0.93  # of a vote for a track's identity, each frame
TRACKABLE = (1, 2, 7, 8, 12)  # MOTChallenge classes that may be tracked: people, and what is scored as neither
LENGTH = 300  # frames of an episode
STRIDES = [1] * 8 + [2, 3, 4, 6]
DROPPED = [0.0] * 5 + [0.3]
KINDS = 0.5, 0.25, 0.25  # of an episode's detections: as they are, degraded, simulated
CLEAN_KINDS = 0.0, 0.67, 0.33  # the same, where they are better than the detector will ever be again


@dataclass(frozen=True)
class AssociationSample:
    """What the tracker asked in a frame, or in many stacked, and the answers.

    of_track: (T,) the detection of each track, -1 nobody. of_detection: (D,) the track of each, -1 none. real: (D,) 1
    an object, 0 not, -1 not asked.
    """

    graph: Graph
    of_track: Tensor
    of_detection: Tensor
    real: Tensor

    def to(self, device: torch.device, **options: bool) -> AssociationSample:
        """The same on another device."""
        graph, *rest = (getattr(self, field.name) for field in fields(self))
        columns = (getattr(graph, field.name).to(device, **options) for field in fields(graph))
        return AssociationSample(Graph(*columns), *(column.to(device, **options) for column in rest))


class RecordingAssociation:
    """An association that keeps what it was asked, as a graph."""

    def __init__(self, association: Association, motion: RecurrentMotion) -> None:
        self.association, self.motion = association, motion

    def __call__(self, tracks: TrackPredictions, detections: Detections) -> Matches:
        """See `Association`."""
        self.graph, self.detections = build_graph(self.motion, tracks, detections), detections
        if isinstance(self.association, GraphAssociation):  # it would build_graph the same again
            return self.association.decide(self.graph)
        return self.association(tracks, detections)


@torch.no_grad()
def record(tracker: Tracker, episode: Episode) -> tuple[list[AssociationSample], list[Tracks]]:
    """Track an episode; every frame's question, and the results. The tracker's motion model is a `RecurrentMotion`."""
    tracker.association = recorder = RecordingAssociation(tracker.association, cast(RecurrentMotion, tracker.motion))
    tracker.reset()
    votes: dict[int, dict[int, float]] = {}
    questions, results = [], []
    cameras: Sequence[Tensor | None] = episode.cameras or [None] * len(episode.times)
    for truth, seen, camera, time in zip(episode.truth, episode.seen, cameras, episode.times, strict=True):
        ids = tracker.memory.ids.tolist()
        results.append(tracker.update(seen, time, camera))
        truth = truth[torch.isin(truth.labels, torch.tensor(TRACKABLE))]
        if len(ids) and len(recorder.detections):
            whose = match(recorder.detections.boxes, truth)
            answers = answer(recorder.graph, [votes[k] for k in ids], whose, truth)
            questions.append(AssociationSample(recorder.graph, *answers))
        vote(tracker, truth, votes)
    tracker.association = recorder.association
    return questions, results


def answer(graph: Graph, votes: list[dict[int, float]], whose: Tensor, truth: Tracks) -> tuple[Tensor, Tensor, Tensor]:
    """of_track, of_detection and real of a `AssociationSample`.

    Tracks and identities are matched one to one by the most votes: after a swap a track returns to its owner, and who
    was mistaken for somebody that another track follows goes to whom nobody does. votes: of each track, weights by
    identity (-1: nobody). whose: (D,) identity of each detection.
    """
    known = sorted({identity for ballot in votes for identity in ballot if identity >= 0})
    weights = torch.tensor([[ballot.get(identity, 0.0) for identity in known] for ballot in votes])
    rows, columns = assign(weights, 0.0)
    owner = dict(zip([known[k] for k in columns.tolist()], rows.tolist(), strict=True))
    pairs = set(zip(graph.i.tolist(), graph.j.tolist(), strict=True))
    of_track, of_detection = torch.full((len(votes),), -1), torch.full((len(whose),), -1)
    for column, identity in enumerate(whose.tolist()):
        row = owner.get(identity, -1)
        if (row, column) in pairs:
            of_track[row], of_detection[column] = column, row
    wanted = set(people(truth).ids.tolist())
    real = torch.tensor([0 if k < 0 else 1 if k in wanted else -1 for k in whose.tolist()])
    return of_track, of_detection, real


def collate_samples(questions: Sequence[AssociationSample]) -> AssociationSample:
    """Sequence frames as one."""
    graphs = [question.graph for question in questions]
    shift_i = np.cumsum([0] + [len(graph.tracks) for graph in graphs])
    shift_j = np.cumsum([0] + [len(graph.detections) for graph in graphs])
    of_track = [torch.where(q.of_track >= 0, q.of_track + s, -1) for q, s in zip(questions, shift_j, strict=False)]
    of_detection = [
        torch.where(q.of_detection >= 0, q.of_detection + s, -1) for q, s in zip(questions, shift_i, strict=False)
    ]
    real = [question.real for question in questions]
    return AssociationSample(collate_graphs(graphs), *(torch.cat(column) for column in (of_track, of_detection, real)))


class EpisodeDataModule(lightning.LightningDataModule):
    """Episodes of every sequence below `root` (one folder or several), recorded anew in each epoch under the network
    that is trained; in the first one under BYTE.

    split: of every root, or one for each. detections: files of detections, where a sequence has them; besides, all are
    simulated from the truth. clean: whether their detector was trained on these very frames, so that they are better
    than any it will make again. held_out: names of sequences that are never trained on and validate instead; by default
    every sixth of each root that has more than five. episodes: recorded in an epoch; roots take equal shares, one
    without detections half of one. on_policy: record the later epochs under the network, not under BYTE again.
    """

    def __init__(
        self,
        root: str | Sequence[str],
        split: str | list[str] = "all",
        detections: Sequence[str] = ("det/yolox.txt", "det/frcnn.txt"),
        clean: bool | list[bool] = False,
        held_out: Sequence[str] | None = None,
        episodes: int = 120,
        batches: int = 1200,
        batch_size: int = 64,
        on_policy: bool = True,
    ) -> None:
        super().__init__()
        self.on_policy = on_policy
        self.roots = [root] if isinstance(root, str) else list(root)
        self.splits, self.clean = each("split", split, self.roots), each("clean", clean, self.roots)
        self.detections, self.held_out = list(detections), held_out
        self.episodes, self.batches, self.batch_size = episodes, batches, batch_size
        self.groups: list[list[LabelledSequence]] = []
        self.questions: list[AssociationSample] = []

    def setup(self, stage: str) -> None:
        """Read every sequence, once."""
        if self.groups:
            return
        found = [find_sequences(root, split) for root, split in zip(self.roots, self.splits, strict=True)]
        self.held_out_videos = [LabelledSequence(s, self.detections) for group in found for s in self._held_out(group)]
        names = {video.sequence.path for video in self.held_out_videos}
        groups = [
            [LabelledSequence(s, self.detections, clean) for s in group if s.path not in names]
            for group, clean in zip(found, self.clean, strict=True)
        ]
        self.groups = [group for group in groups if group]
        if not self.groups:
            raise ValueError(f"{', '.join(self.roots)}: expected sequences to train on beside data.held_out")

    def train_dataloader(self) -> DataLoader[AssociationSample]:
        """Frames of the episodes of this epoch, and half of those before."""
        assert self.trainer is not None
        policy: Tracker = cast(Any, self.trainer.lightning_module).tracker()
        if self.trainer.current_epoch == 0 or not self.on_policy:
            policy.association = ByteAssociation()
        recordings = EpisodeDataset(self.groups, policy, self.episodes)
        loader = DataLoader(recordings, batch_size=None, num_workers=2)
        fresh = [question for part in loader for question in pickle.loads(part)]  # our own workers'
        self.questions = self.questions[::2] + fresh
        sampler = RandomSampler(self.questions, True, self.batches * self.batch_size)
        return DataLoader(self.questions, self.batch_size, sampler=sampler, collate_fn=collate_samples)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[LabelledSequence]:
        """Held-out sequences, to be tracked."""
        return DataLoader(self.held_out_videos, batch_size=None)  # type: ignore[arg-type]

    def _held_out(self, group: list[MotSequence]) -> list[MotSequence]:
        if self.held_out is not None:
            return [sequence for sequence in group if sequence.name in self.held_out]
        return group[5::6]


class LabelledSequence:
    """A sequence in memory. files: its detections by file; a sequence without any has those simulated. clean: whether
    the detector was trained on it."""

    def __init__(self, sequence: MotSequence, detections: Sequence[str], clean: bool = False) -> None:
        self.sequence, self.clean = sequence, clean
        self.truth = sequence.truth()
        self.files = [sequence.detections(file) for file in detections if sequence.has(file)]
        self.cameras = list(sequence.affines()) if sequence.has("gmc.txt") else None
        self.times = sequence.times

    def episode(self) -> Episode:
        """All of it, as the tracker would meet it."""
        seen = self.files[0] if self.files else simulate([people(t) for t in self.truth], np.random.default_rng(0))
        return Episode(self.truth, seen, None, self.times)


class EpisodeDataset(Dataset[bytes]):
    """Random episodes, recorded under a policy; pickled, because so many small tensors are slow to share."""

    def __init__(self, groups: list[list[LabelledSequence]], policy: Tracker, count: int) -> None:
        self.groups, self.policy, self.count = groups, policy, count
        self.seed = int(torch.randint(2**62, ()))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> bytes:
        rng = np.random.default_rng([self.seed, index])
        share = np.array([2.0 if any(video.files for video in group) else 1.0 for group in self.groups])
        group = self.groups[rng.choice(len(share), p=share / share.sum())]
        episode = sample(group[rng.integers(len(group))], [video for g in self.groups for video in g], rng)
        return pickle.dumps(record(self.policy, episode)[0])


def sample(video: LabelledSequence, others: list[LabelledSequence], rng: np.random.Generator) -> Episode:
    """A random episode of a video: its detections as they are or degraded, or simulated, maybe with a second crowd
    mixed in; at some frame rate, with frames dropped; mirrored, reversed; with the camera's motion or without."""
    stride = int(rng.choice(STRIDES))
    start = int(rng.integers(max(1, len(video.truth) - LENGTH * stride + 1)))
    span = slice(start, start + LENGTH * stride)
    truth, cameras = video.truth[span], video.cameras and video.cameras[span]
    kind = rng.choice(3, p=CLEAN_KINDS if video.clean else KINDS) if video.files else 2
    if kind < 2:
        seen = video.files[rng.integers(len(video.files))][span]
        seen = degrade(seen, truth, rng) if kind else seen
    else:
        truth, moved = _crowd([people(frame) for frame in truth], others, rng)
        cameras, seen = None if moved else cameras, simulate(truth, rng)
    episode = Episode(truth, seen, cameras if rng.random() < 0.5 else None, video.times[span])
    dropped = rng.choice(DROPPED)
    kept = [k for k in range(0, len(truth), stride) if rng.random() >= dropped] or [0]
    episode = skip(episode, kept) if len(kept) < len(truth) else episode
    for change in (mirror, reverse):
        episode = change(episode) if rng.random() < 0.5 else episode
    return relabel(episode, rng) if rng.random() < 0.25 else episode


def _crowd(truth: list[Tracks], others: list[LabelledSequence], rng: np.random.Generator) -> tuple[list[Tracks], bool]:
    """Maybe another crowd in it, maybe nearer together; and whether it was changed, so that no camera fits."""
    mixed, squeezed = rng.random(2) < 0.6
    if mixed:
        other = others[rng.integers(len(others))].truth
        start = int(rng.integers(max(1, len(other) - len(truth) + 1)))
        truth = mix(truth, [people(frame) for frame in other[start : start + len(truth)]], rng)
    return squeeze(truth, rng) if squeezed else truth, bool(mixed or squeezed)


def vote(tracker: Tracker, truth: Tracks, votes: dict[int, dict[int, float]]) -> None:
    """Count whose detections the tracks were given in this frame; the votes of all others fade too, so that who has
    followed somebody of late outvotes who lost him."""
    for ballot in votes.values():
        for identity in ballot:
            ballot[identity] *= DECAY
    memory = tracker.memory[tracker.memory.time_since_update == 0]
    boxes = box_convert(tracker.motion.project(memory.state)[0], "cxcywh", "xyxy")
    for key, identity in zip(memory.ids.tolist(), match(boxes, truth).tolist(), strict=True):
        ballot = votes.setdefault(key, {})
        ballot[identity] = ballot.get(identity, 0.0) + 1
