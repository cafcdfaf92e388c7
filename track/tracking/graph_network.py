"""Learned association: a network that scores each track-detection pair in the context of its competitors.

Tracks and detections are the nodes of a graph, the pairs that may match are its edges. Message passing tells each node
which others compete for its candidates, in the manner of Braso and Leal-Taixe, "Learning a Neural Solver for Multiple
Object Tracking" (CVPR 2020), but online, one frame at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from track.checkpoint import Options, load, save
from track.structures import Detections
from track.tracking.association import Matches, TrackPredictions, assign
from track.tracking.graph_features import (
    DETECTION_FEATURES,
    LAGS,
    PAIR_FEATURES,
    TRACK_FEATURES,
    Graph,
    build_graph,
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
        e = self.pair(torch.cat([graph.pairs, t[graph.i], d[graph.j]], 1))  # (E, H)
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
        return t, d, e + self.pair(torch.cat([e, t[i], d[j]], 1))


class GraphAssociation:
    """One assignment over all detections, by the network's log-odds that track and detection are the same object."""

    def __init__(self, motion: RecurrentMotion, network: MessagePassing, min_new_track: float = 0.5) -> None:
        """min_new_track: minimal probability that a detection is an object without a track, for it to start one.

        Raises ValueError if `motion` remembers fewer observations than the features compare.
        """
        if motion.history_length <= max(LAGS):
            raise ValueError(f"history_length: expected at least {max(LAGS) + 1}, got {motion.history_length}")
        self.motion = motion
        self.network = network
        self.min_new_track = min_new_track

    def __call__(self, tracks: TrackPredictions, detections: Detections) -> Matches:
        """See `Association`."""
        return self.decide(build_graph(self.motion, tracks, detections))

    def decide(self, graph: Graph) -> Matches:
        """The matches of a frame whose graph is built already."""
        logits = self.network(graph)
        affinity = torch.full((len(graph.tracks), len(graph.detections)), -torch.inf)
        affinity[graph.i, graph.j] = logits.pair - (logits.no_detection[graph.i] + logits.no_track[graph.j]) / 2
        rows, columns = assign(affinity, 0.0)
        unmatched = (logits.no_track - segment_logsumexp(logits.pair, logits.no_track, graph.j)).exp()
        starts = unmatched * logits.objectness.sigmoid() >= self.min_new_track
        starts[columns] = False
        return Matches(rows, columns, starts.nonzero()[:, 0], affinity, logits.objectness)


def segment_logsumexp(pair: Tensor, alone: Tensor, index: Tensor) -> Tensor:
    """(N,) per node log(exp(alone) + the sum of exp(pair) over its pairs): the normaliser of the node's choice.

    pair: (E,). alone: (N,). index: (E,) the node of each pair.
    """
    top = alone.detach().scatter_reduce(0, index, pair.detach(), "amax")
    return ((alone - top).exp().index_add(0, index, (pair - top[index]).exp())).log() + top


def save_network(
    motion: RecurrentMotion, network: MessagePassing, path: Path, existence: nn.Module | None = None
) -> Path:
    """Write the networks of a tracker into one safetensors file; returns the path."""
    networks: dict[str, tuple[nn.Module, Options]] = {
        "motion": (motion, motion.options),
        "association": (network, network.options),
    }
    return save(path, networks | ({} if existence is None else {"existence": (existence, {})}))


def load_graph(path: str | Path | None = None) -> MessagePassing:
    """The association network in a file of weights (default: the shipped one), frozen.

    Raises ValueError if the file has none.
    """
    return load(path or SHIPPED, "association", MessagePassing)[0]


def _aggregate(node: Tensor, e: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """(N, 2 * H + 1) each node, the weighted mean of its pairs, and log1p of the sum of their weights.

    node: (N, H). e: (E, H). weight: (E, 1). index: (E,) the node of each pair.
    """
    total = node.new_zeros(len(node), 1 + e.shape[1]).index_add(0, index, torch.cat([weight, weight * e], 1))
    return torch.cat([node, total[:, 1:] / (1 + total[:, :1]), total[:, :1].log1p()], 1)


def _mlp(inputs: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.SiLU()
    )
