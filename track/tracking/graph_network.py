"""Learned association: a network that scores each track-detection pair in the context of its competitors.

Tracks and detections are the nodes of a graph, the pairs that may match are its edges. Message passing tells each node
which others compete for its candidates, in the manner of Braso and Leal-Taixe, "Learning a Neural Solver for Multiple
Object Tracking" (CVPR 2020), but online, one frame at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from track.checkpoint import load, save
from track.engine.compiled import Compiled
from track.tracking.association import FrameDetections, Matches, TrackPredictions, assign_pairs
from track.tracking.graph_features import (
    DETECTION_FEATURES,
    PAIR_FEATURES,
    TRACK_FEATURES,
    Graph,
    GraphFeatures,
    GraphInputs,
    Neighbours,
    collate_inputs,
    find_neighbours,
    graph_inputs,
)
from track.tracking.recurrent import SHIPPED, RecurrentMotion


@dataclass(frozen=True)
class AssociationLogits:
    """The network's output, nats.

    Each track chooses among its pairs (E,) and no_detection (T,), each detection among its pairs and no_track (D,).
    objectness: (D,) log-odds that the detection is an object.
    """

    pair: Tensor
    no_detection: Tensor
    no_track: Tensor
    objectness: Tensor


class MessagePassing(nn.Module):
    """The network: encoders of nodes and pairs, rounds of message passing, one head for each of `AssociationLogits`."""

    def __init__(self, feature_size: int, hidden: int = 64, rounds: int = 2, dropout: float = 0.0) -> None:
        """feature_size: columns of the motion model's `track_features`."""
        super().__init__()
        self.options = {"feature_size": feature_size, "hidden": hidden, "rounds": rounds, "dropout": dropout}
        self.track = _mlp(feature_size + sum(TRACK_FEATURES.values()), hidden, dropout)
        self.detection = _mlp(sum(DETECTION_FEATURES.values()), hidden, dropout)
        self.pair = _mlp(sum(PAIR_FEATURES.values()) + 2 * hidden, hidden, dropout)
        self.rounds = nn.ModuleList(MessagePassingLayer(hidden, dropout) for _ in range(rounds))
        self.heads = nn.ModuleList(nn.Linear(hidden, 1) for _ in fields(AssociationLogits))

    def forward(self, graph: Graph) -> AssociationLogits:
        """The logits of one frame, or of several collated ones."""
        t = self.track(graph.tracks)  # (T, H)
        d = self.detection(graph.detections)  # (D, H)
        e = _of_pairs(self.pair, graph.pairs, t, d, graph.i, graph.j)  # (E, H)
        for layer in self.rounds:
            t, d, e = layer(t, d, e, graph.i, graph.j)
        return AssociationLogits(*(head(x)[:, 0] for head, x in zip(self.heads, (e, t, d, d), strict=True)))


class MessagePassingLayer(nn.Module):
    """One round: each node aggregates its pairs, weighted by learned importance, and each pair then its two nodes."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.weight = nn.Linear(hidden, 2)
        self.track = _mlp(2 * hidden + 1, hidden, dropout)
        self.detection = _mlp(2 * hidden + 1, hidden, dropout)
        self.pair = _mlp(3 * hidden, hidden, dropout)

    def forward(self, t: Tensor, d: Tensor, e: Tensor, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tracks (T, H), detections (D, H) and pairs (E, H) after the round; i, j: (E,) rows of each pair."""
        weight = self.weight(e).clamp(-8, 8).exp()
        t = t + self.track(_aggregate(t, e, weight[:, :1], i))
        d = d + self.detection(_aggregate(d, e, weight[:, 1:], j))
        return t, d, e + _of_pairs(self.pair, e, t, d, i, j)


class Score(nn.Module):
    """From the predicted tracks and the detections of a frame to the log-odds of every pair, to be compiled."""

    def __init__(self, motion: RecurrentMotion, network: MessagePassing) -> None:
        super().__init__()
        self.features = GraphFeatures(motion)
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The fields of `Scores`, from the inputs of `GraphFeatures`."""
        frame = GraphInputs(*inputs)
        tracks, detections, pairs = self.features(*inputs)
        graph = Graph(tracks, detections, pairs, frame.i, frame.j)
        logits = self.network(graph)
        alone = logits.no_detection.index_select(0, graph.i) + logits.no_track.index_select(0, graph.j)
        affinity = logits.pair - alone / 2
        unmatched = (logits.no_track - segment_logsumexp(logits.pair, logits.no_track, graph.j)).exp()
        return affinity, unmatched * logits.objectness.sigmoid(), tracks, detections, pairs

    def example(self) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
        """See `Compilable`."""
        return self.features.example()


class Scores(NamedTuple):
    """The network's view of a frame, by numpy.

    affinity: (E,) nats, that a pair is the same object rather than each alone. new_track: (D,) probability that a
    detection is an object without a track. tracks, detections, pairs: the columns of the `Graph`.
    """

    affinity: np.ndarray
    new_track: np.ndarray
    tracks: np.ndarray
    detections: np.ndarray
    pairs: np.ndarray


class GraphAssociation:
    """One assignment over all detections, by the network's log-odds that track and detection are the same object."""

    def __init__(self, motion: RecurrentMotion, network: MessagePassing, min_new_track: float = 0.5) -> None:
        """min_new_track: minimal probability that a detection is an object without a track, for it to start one.

        Raises ValueError if `motion` remembers fewer observations than the features compare.
        """
        self.motion = motion
        self.network = network
        self.min_new_track = min_new_track
        self.score = Compiled(Score(motion, network))

    def __call__(self, frames: Sequence[tuple[TrackPredictions, FrameDetections]]) -> list[Matches]:
        """See `Association`; the network sees all frames at once."""
        neighbours = [find_neighbours(*frame) for frame in frames]
        inputs = [graph_inputs(*frame, near) for frame, near in zip(frames, neighbours, strict=True)]
        affinity, new_track = self.score(*(inputs[0] if len(inputs) == 1 else collate_inputs(inputs)), outputs=2)
        ends = np.cumsum([[len(near.i), len(near.detection_rivals)] for near in neighbours], 0)[:-1]
        columns = np.split(affinity, ends[:, 0]), np.split(new_track, ends[:, 1])
        return [self._decide(near, *values) for near, *values in zip(neighbours, *columns, strict=True)]

    def decide_and_describe(self, tracks: TrackPredictions, detections: FrameDetections) -> tuple[Matches, Graph]:
        """The matches of one frame, and the graph that they were decided on."""
        near = find_neighbours(tracks, detections)
        scores = Scores(*self.score(*graph_inputs(tracks, detections, near)))
        graph = Graph(*map(torch.from_numpy, (*scores[2:], near.i, near.j)))
        return self._decide(near, scores.affinity, scores.new_track), graph

    def _decide(self, near: Neighbours, affinity: np.ndarray, new_track: np.ndarray) -> Matches:
        chosen = assign_pairs(near.i, near.j, affinity.astype(np.float64))
        columns = near.j.take(chosen)
        starts = new_track >= self.min_new_track
        starts[columns] = False
        return Matches(near.i.take(chosen), columns, np.flatnonzero(starts), near.i, near.j, affinity)


def segment_logsumexp(pair: Tensor, alone: Tensor, index: Tensor) -> Tensor:
    """(N,) per node log(exp(alone) + the sum of exp(pair) over its pairs): the normaliser of the node's choice.

    pair: (E,). alone: (N,). index: (E,) the node of each pair.
    """
    top = alone.detach().scatter_reduce(0, index, pair.detach(), "amax")
    return ((alone - top).exp().index_add(0, index, (pair - top.index_select(0, index)).exp())).log() + top


def save_network(motion: RecurrentMotion, network: MessagePassing, path: Path) -> Path:
    """Write both networks of a tracker into one safetensors file; returns the path."""
    return save(path, {"motion": (motion, motion.options), "association": (network, network.options)})


def load_graph(path: str | Path | None = None) -> MessagePassing:
    """The association network in a file of weights (default: the shipped one), frozen.

    Raises ValueError if the file has none.
    """
    return load(path or SHIPPED, "association", MessagePassing)[0]


def _aggregate(node: Tensor, e: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """(N, 2 * H + 1) each node, the weighted mean of its pairs, and log1p of the sum of their weights.

    node: (N, H). e: (E, H). weight: (E, 1). index: (E,) the node of each pair.
    """
    total = node.new_zeros(node.shape[0], 1 + e.shape[1]).index_add(0, index, torch.cat([weight, weight * e], 1))
    return torch.cat([node, total[:, 1:] / (1 + total[:, :1]), total[:, :1].log1p()], 1)


def _of_pairs(mlp: nn.Sequential, e: Tensor, t: Tensor, d: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """(E, H) the perceptron of each pair (E, P), its track (T, H) and its detection (D, H), side by side.

    Its first layer is applied to tracks and detections before they are repeated: there are more pairs.
    """
    first = cast(nn.Linear, mlp[0])
    of_pair, of_track, of_detection = first.weight.split([e.shape[1], t.shape[1], d.shape[1]], 1)
    inner = linear(e, of_pair, first.bias)
    inner = inner + linear(t, of_track).index_select(0, i) + linear(d, of_detection).index_select(0, j)
    return cast(Tensor, mlp[1:](inner))


def _mlp(inputs: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.SiLU()
    )
