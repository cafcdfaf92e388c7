"""Learned association: a network that scores every track-detection pair in the context of its rivals.

Tracks and detections are the nodes of a graph, the pairs near enough to be one are its edges. Rounds of message
passing tell each node who else competes for its candidates, in the manner of Braso and Leal-Taixe, "Learning a Neural
Solver for Multiple Object Tracking" (CVPR 2020), but one frame at a time, online.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert, box_iou

from track.association import Candidates, Decision, assign
from track.checkpoint import load, save
from track.motion import SHIPPED, STEPS_PER_SECOND, Recurrent
from track.structures import Detections

LAGS = [0, 1, 2, 3, 5, 7, 10, 14, 19, 25, 32, 39]  # observations ago that a detection is compared with
TRACK, DETECTION, PAIR = 17, 12, 21 + 5 * len(LAGS)  # columns that describe each beside the motion model's memory
REACH = 4.0  # standard deviations that a detection may be away from a track's predicted box


@dataclass(frozen=True)
class Graph:
    """A frame: tracks (T, described + TRACK), detections (D, DETECTION), pairs (E, PAIR) of rows i and j (E,)."""

    tracks: Tensor
    detections: Tensor
    pairs: Tensor
    i: Tensor
    j: Tensor


@dataclass(frozen=True)
class Scores:
    """What the network says, in nats. pair: (E,) and nobody: (T,) are the logits of each track's choice, pair and
    newcomer: (D,) those of each detection's. real: (D,) log-odds that the detection is an object."""

    pair: Tensor
    nobody: Tensor
    newcomer: Tensor
    real: Tensor


class MessagePassing(nn.Module):
    """The network: node and edge encoders, rounds of messages, a head for each of `Scores`."""

    def __init__(self, described: int, hidden: int = 64, rounds: int = 2, dropout: float = 0.0) -> None:
        """described: columns of the motion model's `describe`."""
        super().__init__()
        self.options = {"described": described, "hidden": hidden, "rounds": rounds, "dropout": dropout}
        self.track = _mlp(described + TRACK, hidden, dropout)
        self.detection = _mlp(DETECTION, hidden, dropout)
        self.pair = _mlp(PAIR + 2 * hidden, hidden, dropout)
        self.rounds = nn.ModuleList(Round(hidden, dropout) for _ in range(rounds))
        self.heads = nn.ModuleList(nn.Linear(hidden, 1) for _ in fields(Scores))

    def forward(self, graph: Graph) -> Scores:
        """Scores of a frame, or of many frames stacked."""
        t, d = self.track(graph.tracks), self.detection(graph.detections)
        e = self.pair(torch.cat([graph.pairs, t[graph.i], d[graph.j]], 1))
        for exchange in self.rounds:
            t, d, e = exchange(t, d, e, graph.i, graph.j)
        return Scores(*(head(x)[:, 0] for head, x in zip(self.heads, (e, t, d, d), strict=True)))


class Round(nn.Module):
    """One exchange: every node hears from its pairs, weighted by how likely they are, every pair from its nodes."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.weight = nn.Linear(hidden, 2)
        self.track, self.detection = _mlp(2 * hidden + 1, hidden, dropout), _mlp(2 * hidden + 1, hidden, dropout)
        self.pair = _mlp(3 * hidden, hidden, dropout)

    def forward(self, t: Tensor, d: Tensor, e: Tensor, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tracks (T, H), detections (D, H) and pairs (E, H) after the exchange."""
        weight = self.weight(e).clamp(-8, 8).exp()
        t = t + self.track(_hear(t, e, weight[:, :1], i))
        d = d + self.detection(_hear(d, e, weight[:, 1:], j))
        return t, d, e + self.pair(torch.cat([e, t[i], d[j]], 1))


def _hear(node: Tensor, e: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """(N, 2 H + 1) each node, the weighted mean of its pairs, and the log of their weights' sum."""
    total = node.new_zeros(len(node), 1 + e.shape[1]).index_add(0, index, torch.cat([weight, weight * e], 1))
    return torch.cat([node, total[:, 1:] / (1 + total[:, :1]), total[:, :1].log1p()], 1)


def _mlp(inputs: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.SiLU()
    )


class Learned:
    """One assignment over all detections, by the network's log-odds that a pair is one rather than apart."""

    def __init__(self, motion: Recurrent, network: MessagePassing, min_newcomer: float = 0.5) -> None:
        """min_newcomer: probability of being an object and of no track, from which a detection starts one."""
        self.motion, self.network, self.min_newcomer = motion, network, min_newcomer

    def __call__(self, tracks: Candidates, detections: Detections) -> Decision:
        """See `Association`."""
        return self.decide(build(self.motion, tracks, detections))

    def decide(self, graph: Graph) -> Decision:
        """The decision of a frame whose graph is there already."""
        scores = self.network(graph)
        gain = torch.full((len(graph.tracks), len(graph.detections)), -torch.inf)
        gain[graph.i, graph.j] = scores.pair - (scores.nobody[graph.i] + scores.newcomer[graph.j]) / 2
        rows, columns = assign(gain, 0.0)
        new = (scores.newcomer - log_total(scores.pair, scores.newcomer, graph.j)).exp() * scores.real.sigmoid()
        free = new >= self.min_newcomer
        free[columns] = False
        return Decision(rows, columns, free.nonzero()[:, 0], gain)


def log_total(pair: Tensor, alone: Tensor, index: Tensor) -> Tensor:
    """(N,) log of exp(alone) plus the sum of exp(pair) over each node's pairs: what its choice is normalised by."""
    top = alone.detach().scatter_reduce(0, index, pair.detach(), "amax")
    return ((alone - top).exp().index_add(0, index, (pair - top[index]).exp())).log() + top


def build(motion: Recurrent, tracks: Candidates, detections: Detections) -> Graph:
    """The graph of a frame: everything is relative to sizes, predicted deviations and time."""
    position, seen = box_convert(tracks.boxes, "xyxy", "cxcywh"), box_convert(detections.boxes, "xyxy", "cxcywh")
    off, reach = seen[:, :2] - position[:, None, :2], (position[:, None, 2:] + seen[:, 2:]) / 2
    near = (off.abs() < reach + REACH * tracks.sigma[:, None, :2]).all(2)
    taller = seen[:, 3].clamp(min=1) / position[:, None, 3].clamp(min=1)
    i, j = (near & (taller > 0.37) & (taller < 2.7)).nonzero(as_tuple=True)
    overlap = box_iou(*2 * [torch.cat([tracks.boxes, detections.boxes])]).nan_to_num(0.0).fill_diagonal_(0)
    count = len(position)
    description = motion.describe(tracks.state, position)
    flags = torch.stack([tracks.confirmed, tracks.seen], 1)
    steps = (tracks.missed * STEPS_PER_SECOND).log1p()
    numbers = torch.stack([tracks.scores, steps, (tracks.hits / 10).clamp(max=10).log1p()], 1)
    nodes = torch.cat([description, numbers, flags, _rival(tracks.boxes, overlap[:count, :count], numbers)], 1)
    shape = (seen[:, 2:3].clamp(min=1) / seen[:, 3:].clamp(min=1)).log()
    scores = detections.scores[:, None]
    found = torch.cat([scores, shape, _rival(detections.boxes, overlap[count:, count:], scores)], 1)
    edges = [
        _path(motion, tracks, position, seen, i, j),
        _geometry(tracks, detections, position, seen, i, j, description),
        overlap[:count, count:][i, j, None],
    ]
    return Graph(nodes, found, torch.cat([*edges, _doubts(tracks, detections, i, j)], 1), i, j)


def _geometry(
    tracks: Candidates,
    detections: Detections,
    position: Tensor,
    seen: Tensor,
    i: Tensor,
    j: Tensor,
    description: Tensor,
) -> Tensor:
    """(E, 18) how the detected boxes differ from the predicted ones, and from the slow averages."""
    a, b = tracks.boxes[i], detections.boxes[j]
    position, seen = position[i], seen[j]
    off, size = seen - position, position[:, 2:].clamp(min=1)
    z = off / tracks.sigma[i].clamp(min=0.1)
    looks = torch.cat([(seen[:, 2:].clamp(min=1) / size).log(), (b[:, 3:] - a[:, 3:]) / size[:, 1:]], 1)
    shared = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])
    span = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    columns = [
        _fine(torch.cat([off[:, :2] / size, looks, looks.repeat(1, 2) - description[i, :6]], 1)),
        (z / 2).clamp(-4, 4),
        (z**2).mean(1, keepdim=True).log1p() / 2,
        shared / span.clamp(min=1e-3),
    ]
    return torch.cat(columns, 1)


def _path(motion: Recurrent, tracks: Candidates, position: Tensor, seen: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """(E, 5 LAGS) where the track was, seen from the detection: its middle and its feet in sizes, log ratios of width
    and height, and log seconds."""
    boxes, ages = motion.past(tracks.state)
    boxes, now, size = boxes[:, LAGS][i], seen[j, None], position[i, None, 2:].clamp(min=1)
    off = boxes - now
    off[..., 1] += off[..., 3] / 2
    ratio = (boxes[..., 2:].clamp(min=1) / now[..., 2:].clamp(min=1)).log()
    steps = (ages[:, LAGS] * STEPS_PER_SECOND).log1p()[i, :, None]
    return torch.cat([_fine(torch.cat([off[..., :2] / size, ratio], 2)), steps], 2).flatten(1)


def _fine(part: Tensor) -> Tensor:
    """Parts of a size, nearly logarithmic: who stands a twentieth of his height nearer stays so while people cross."""
    return (20 * part).asinh() / 2


def _doubts(tracks: Candidates, detections: Detections, i: Tensor, j: Tensor) -> Tensor:
    """(E, 2) difference of scores, and how much the track's best class is ahead of the detection's."""
    behind = tracks.evidence.amax(1)[i] - tracks.evidence[i, detections.labels[j]]
    return torch.stack([detections.scores[j] - tracks.scores[i], behind.clamp(max=4) / 4], 1)


def _rival(boxes: Tensor, overlap: Tensor, numbers: Tensor) -> Tensor:
    """(N, 9 + K) of each box the one that overlaps it most: where it is, how large, who covers whom, and its numbers
    (N, K); zeros where none does. And the sum of all overlaps."""
    if not len(boxes):
        return torch.cat([boxes.new_zeros(0, 9), numbers], 1)
    most, rival = overlap.max(1)
    other, size = boxes[rival], (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    its = (other[:, 2:] - other[:, :2]).clamp(min=1)
    shared = (
        (torch.minimum(boxes[:, 2:], other[:, 2:]) - torch.maximum(boxes[:, :2], other[:, :2])).clamp(min=0).prod(1)
    )
    front = (boxes[:, 3] > other[:, 3]).float()  # feet lower in the picture are nearer
    off = torch.cat([(other[:, :2] + other[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2, other[:, 3:] - boxes[:, 3:]], 1)
    columns = [
        _fine(torch.cat([off / size[:, [0, 1, 1]], (its / size).log()], 1)),
        most[:, None],
        (shared / size.prod(1) * (1 - front))[:, None],
        (shared / its.prod(1) * front)[:, None],
        numbers[rival],
    ]
    known = torch.cat(columns, 1).clamp(-4, 4) * (most > 0)[:, None]
    return torch.cat([known, overlap.sum(1, keepdim=True).clamp(max=3)], 1)


def stack(graphs: list[Graph]) -> Graph:
    """One graph of many frames, which share no edge."""
    shift_i = torch.tensor([0] + [len(g.tracks) for g in graphs]).cumsum(0)
    shift_j = torch.tensor([0] + [len(g.detections) for g in graphs]).cumsum(0)
    nodes, found, edges = (torch.cat([getattr(g, field.name) for g in graphs]) for field in fields(Graph)[:3])
    i = torch.cat([g.i + s for g, s in zip(graphs, shift_i, strict=False)])
    j = torch.cat([g.j + s for g, s in zip(graphs, shift_j, strict=False)])
    return Graph(nodes, found, edges, i, j)


def save_network(motion: Recurrent, network: MessagePassing, path: Path) -> Path:
    """Write both networks of a tracker into one file of safetensors; returns the path."""
    return save(path, {"motion": (motion, motion.options), "association": (network, network.options)})


def load_graph(path: str | Path | None = None) -> MessagePassing:
    """The association network in a file of weights (default: the shipped one). ValueError where there is none."""
    return load(path or SHIPPED, "association", MessagePassing)[0]
