"""GraphAssociation association: a network that scores every track-detection pair in the context of its rivals.

Tracks and detections are the nodes of a graph, the pairs near enough to be one are its edges. Rounds of message
passing tell each node who else competes for its candidates, in the manner of Braso and Leal-Taixe, "Learning a Neural
Solver for Multiple Object Tracking" (CVPR 2020), but one frame at a time, online.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from track.checkpoint import load, save
from track.structures import Detections
from track.tracking.association import Matches, TrackPredictions, assign
from track.tracking.graph_features import DETECTION, PAIR, TRACK, Graph, build_graph
from track.tracking.recurrent import SHIPPED, RecurrentMotion


@dataclass(frozen=True)
class AssociationLogits:
    """What the network says, in nats. pair: (E,) and no_detection: (T,) are the logits of each track's choice,
    pair and no_track: (D,) those of each detection's. objectness: (D,) log-odds that the detection is an object."""

    pair: Tensor
    no_detection: Tensor
    no_track: Tensor
    objectness: Tensor


class MessagePassing(nn.Module):
    """The network: node and edge encoders, rounds of messages, a head for each of `AssociationLogits`."""

    def __init__(self, feature_size: int, hidden: int = 64, rounds: int = 2, dropout: float = 0.0) -> None:
        """feature_size: columns of the motion model's `track_features`."""
        super().__init__()
        self.options = {"feature_size": feature_size, "hidden": hidden, "rounds": rounds, "dropout": dropout}
        self.track = _mlp(feature_size + TRACK, hidden, dropout)
        self.detection = _mlp(DETECTION, hidden, dropout)
        self.pair = _mlp(PAIR + 2 * hidden, hidden, dropout)
        self.rounds = nn.ModuleList(MessagePassingLayer(hidden, dropout) for _ in range(rounds))
        self.heads = nn.ModuleList(nn.Linear(hidden, 1) for _ in fields(AssociationLogits))

    def forward(self, graph: Graph) -> AssociationLogits:
        """AssociationLogits of a frame, or of many frames stacked."""
        t, d = self.track(graph.tracks), self.detection(graph.detections)
        e = self.pair(torch.cat([graph.pairs, t[graph.i], d[graph.j]], 1))
        for exchange in self.rounds:
            t, d, e = exchange(t, d, e, graph.i, graph.j)
        return AssociationLogits(*(head(x)[:, 0] for head, x in zip(self.heads, (e, t, d, d), strict=True)))


class MessagePassingLayer(nn.Module):
    """One exchange: every node hears from its pairs, weighted by how likely they are, every pair from its nodes."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.weight = nn.Linear(hidden, 2)
        self.track, self.detection = _mlp(2 * hidden + 1, hidden, dropout), _mlp(2 * hidden + 1, hidden, dropout)
        self.pair = _mlp(3 * hidden, hidden, dropout)

    def forward(self, t: Tensor, d: Tensor, e: Tensor, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tracks (T, H), detections (D, H) and pairs (E, H) after the exchange."""
        weight = self.weight(e).clamp(-8, 8).exp()
        t = t + self.track(_aggregate(t, e, weight[:, :1], i))
        d = d + self.detection(_aggregate(d, e, weight[:, 1:], j))
        return t, d, e + self.pair(torch.cat([e, t[i], d[j]], 1))


def _aggregate(node: Tensor, e: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """(N, 2 H + 1) each node, the weighted mean of its pairs, and the log of their weights' sum."""
    total = node.new_zeros(len(node), 1 + e.shape[1]).index_add(0, index, torch.cat([weight, weight * e], 1))
    return torch.cat([node, total[:, 1:] / (1 + total[:, :1]), total[:, :1].log1p()], 1)


def _mlp(inputs: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.SiLU()
    )


class GraphAssociation:
    """One assignment over all detections, by the network's log-odds that a pair is one rather than apart."""

    def __init__(self, motion: RecurrentMotion, network: MessagePassing, min_new_track: float = 0.5) -> None:
        """min_new_track: probability of being an object and of no track, from which a detection starts one."""
        self.motion, self.network, self.min_new_track = motion, network, min_new_track

    def __call__(self, tracks: TrackPredictions, detections: Detections) -> Matches:
        """See `Association`."""
        return self.decide(build_graph(self.motion, tracks, detections))

    def decide(self, graph: Graph) -> Matches:
        """The decision of a frame whose graph is there already."""
        scores = self.network(graph)
        gain = torch.full((len(graph.tracks), len(graph.detections)), -torch.inf)
        gain[graph.i, graph.j] = scores.pair - (scores.no_detection[graph.i] + scores.no_track[graph.j]) / 2
        rows, columns = assign(gain, 0.0)
        new = (
            scores.no_track - segment_logsumexp(scores.pair, scores.no_track, graph.j)
        ).exp() * scores.objectness.sigmoid()
        free = new >= self.min_new_track
        free[columns] = False
        return Matches(rows, columns, free.nonzero()[:, 0], gain)


def segment_logsumexp(pair: Tensor, alone: Tensor, index: Tensor) -> Tensor:
    """(N,) log of exp(alone) plus the sum of exp(pair) over each node's pairs: what its choice is normalised by."""
    top = alone.detach().scatter_reduce(0, index, pair.detach(), "amax")
    return ((alone - top).exp().index_add(0, index, (pair - top[index]).exp())).log() + top


def save_network(motion: RecurrentMotion, network: MessagePassing, path: Path) -> Path:
    """Write both networks of a tracker into one file of safetensors; returns the path."""
    return save(path, {"motion": (motion, motion.options), "association": (network, network.options)})


def load_graph(path: str | Path | None = None) -> MessagePassing:
    """The association network in a file of weights (default: the shipped one). ValueError where there is none."""
    return load(path or SHIPPED, "association", MessagePassing)[0]
