"""Features for learned association: a frame as a graph of tracks, detections and the pairs near enough to match."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from track.structures import Detections
from track.tracking.association import TrackPredictions
from track.tracking.motion import STEPS_PER_SECOND
from track.tracking.recurrent import RecurrentMotion

LAGS = [0, 1, 2, 3, 5, 7, 10, 14, 19, 25, 32, 39]  # observations ago that a detection is compared with
TRACK, DETECTION, PAIR = 17, 12, 21 + 5 * len(LAGS)  # columns that track_features each beside the motion model's memory
GATE_SIGMAS = 4.0  # standard deviations that a detection may be away from a track's predicted box


@dataclass(frozen=True)
class Graph:
    """A frame: tracks (T, feature_size + TRACK), detections (D, DETECTION), pairs (E, PAIR) of rows i and j (E,)."""

    tracks: Tensor
    detections: Tensor
    pairs: Tensor
    i: Tensor
    j: Tensor


def build_graph(motion: RecurrentMotion, tracks: TrackPredictions, detections: Detections) -> Graph:
    """The graph of a frame: everything is relative to sizes, predicted deviations and time."""
    position, seen = box_convert(tracks.boxes, "xyxy", "cxcywh"), box_convert(detections.boxes, "xyxy", "cxcywh")
    off, reach = seen[:, :2] - position[:, None, :2], (position[:, None, 2:] + seen[:, 2:]) / 2
    near = (off.abs() < reach + GATE_SIGMAS * tracks.sigma[:, None, :2]).all(2)
    taller = seen[:, 3].clamp(min=1) / position[:, None, 3].clamp(min=1)
    i, j = (near & (taller > 0.37) & (taller < 2.7)).nonzero(as_tuple=True)
    overlap = box_iou(*2 * [torch.cat([tracks.boxes, detections.boxes])]).nan_to_num(0.0).fill_diagonal_(0)
    count = len(position)
    description = motion.track_features(tracks.state, position)
    flags = torch.stack([tracks.confirmed, tracks.matched_last_frame], 1)
    steps = (tracks.time_since_update * STEPS_PER_SECOND).log1p()
    numbers = torch.stack([tracks.scores, steps, (tracks.hits / 10).clamp(max=10).log1p()], 1)
    nodes = torch.cat(
        [description, numbers, flags, _nearest_overlap(tracks.boxes, overlap[:count, :count], numbers)], 1
    )
    shape = (seen[:, 2:3].clamp(min=1) / seen[:, 3:].clamp(min=1)).log()
    scores = detections.scores[:, None]
    found = torch.cat([scores, shape, _nearest_overlap(detections.boxes, overlap[count:, count:], scores)], 1)
    edges = [
        _history_features(motion, tracks, position, seen, i, j),
        _geometry(tracks, detections, position, seen, i, j, description),
        overlap[:count, count:][i, j, None],
    ]
    return Graph(nodes, found, torch.cat([*edges, _score_gap(tracks, detections, i, j)], 1), i, j)


def _geometry(
    tracks: TrackPredictions,
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
        _asinh_scale(torch.cat([off[:, :2] / size, looks, looks.repeat(1, 2) - description[i, :6]], 1)),
        (z / 2).clamp(-4, 4),
        (z**2).mean(1, keepdim=True).log1p() / 2,
        shared / span.clamp(min=1e-3),
    ]
    return torch.cat(columns, 1)


def _history_features(
    motion: RecurrentMotion, tracks: TrackPredictions, position: Tensor, seen: Tensor, i: Tensor, j: Tensor
) -> Tensor:
    """(E, 5 LAGS) where the track was, seen from the detection: its middle and its feet in sizes, log ratios of width
    and height, and log seconds."""
    boxes, ages = motion.history(tracks.state)
    boxes, now, size = boxes[:, LAGS][i], seen[j, None], position[i, None, 2:].clamp(min=1)
    off = boxes - now
    off[..., 1] += off[..., 3] / 2
    ratio = (boxes[..., 2:].clamp(min=1) / now[..., 2:].clamp(min=1)).log()
    steps = (ages[:, LAGS] * STEPS_PER_SECOND).log1p()[i, :, None]
    return torch.cat([_asinh_scale(torch.cat([off[..., :2] / size, ratio], 2)), steps], 2).flatten(1)


def _asinh_scale(part: Tensor) -> Tensor:
    """Parts of a size, nearly logarithmic: who stands a twentieth of his height nearer stays so while people cross."""
    return (20 * part).asinh() / 2


def _score_gap(tracks: TrackPredictions, detections: Detections, i: Tensor, j: Tensor) -> Tensor:
    """(E, 2) difference of scores, and how much the track's best class is ahead of the detection's."""
    behind = tracks.class_logits.amax(1)[i] - tracks.class_logits[i, detections.labels[j]]
    return torch.stack([detections.scores[j] - tracks.scores[i], behind.clamp(max=4) / 4], 1)


def _nearest_overlap(boxes: Tensor, overlap: Tensor, numbers: Tensor) -> Tensor:
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
        _asinh_scale(torch.cat([off / size[:, [0, 1, 1]], (its / size).log()], 1)),
        most[:, None],
        (shared / size.prod(1) * (1 - front))[:, None],
        (shared / its.prod(1) * front)[:, None],
        numbers[rival],
    ]
    known = torch.cat(columns, 1).clamp(-4, 4) * (most > 0)[:, None]
    return torch.cat([known, overlap.sum(1, keepdim=True).clamp(max=3)], 1)


def collate_graphs(graphs: list[Graph]) -> Graph:
    """One graph of many frames, which share no edge."""
    shift_i = torch.tensor([0] + [len(g.tracks) for g in graphs]).cumsum(0)
    shift_j = torch.tensor([0] + [len(g.detections) for g in graphs]).cumsum(0)
    nodes, found, edges = (torch.cat([getattr(g, field.name) for g in graphs]) for field in fields(Graph)[:3])
    i = torch.cat([g.i + s for g, s in zip(graphs, shift_i, strict=False)])
    j = torch.cat([g.j + s for g, s in zip(graphs, shift_j, strict=False)])
    return Graph(nodes, found, edges, i, j)
