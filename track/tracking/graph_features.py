"""Features for learned association: each frame as a graph of tracks, detections and the pairs that may match."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from track.structures import Detections
from track.tracking.association import TrackPredictions
from track.tracking.motion import STEPS_PER_SECOND
from track.tracking.recurrent import EMA_RATES, RecurrentMotion

GATE_SIGMAS = 4.0  # standard deviations that a detection may be away from touching a track's predicted box
HEIGHT_RATIOS = (0.37, 2.7)  # of a detection to a track's predicted box, for the two to be a pair
LAGS = [0, 1, 2, 3, 5, 7, 10, 14, 19, 25, 32, 39]  # observations ago that a detection is compared with

# names and widths of the columns of each node and pair, in order; lengths are relative to the box's size
NEAREST_FEATURES = {  # of the box that overlaps a node's box most
    "offset": 3,  # of the centre and of the foot's y
    "log size ratio": 2,
    "iou": 1,
    "hidden": 1,  # fraction of the node's box, where the other is in front
    "hides": 1,  # fraction of the other, where the node's box is in front
}
TRACK_NUMBERS = {"score": 1, "log steps": 1, "log hits": 1}  # steps: since the track's last detection
NEAREST_SIZE = sum(NEAREST_FEATURES.values())
TRACK_FEATURES = {  # after those of the motion model
    **TRACK_NUMBERS,
    "confirmed": 1,
    "matched last frame": 1,
    "nearest": NEAREST_SIZE,
    "nearest numbers": len(TRACK_NUMBERS),
    "total overlap": 1,
}
DETECTION_FEATURES = {
    "score": 1,
    "log aspect ratio": 1,
    "nearest": NEAREST_SIZE,
    "nearest score": 1,
    "total overlap": 1,
}
PAIR_FEATURES = {
    "history": 5 * len(LAGS),  # per lag: offset of centre x and foot, log ratios of width and height, log steps
    "offset": 2,  # of the centre
    "size and foot": 3,  # log ratios of width and height, offset of the foot
    "size and foot from averages": len(EMA_RATES),
    "normalised offset": 4,  # in standard deviations
    "mean squared offset": 1,  # of the normalised one
    "extent overlap": 2,  # of the extents along x and y
    "iou": 1,
    "score difference": 1,
    "class gap": 1,
}


@dataclass(frozen=True)
class Graph:
    """One frame, or several that share no pair.

    tracks: (T, motion's feature_size + those of TRACK_FEATURES). detections: (D, those of DETECTION_FEATURES).
    pairs: (E, those of PAIR_FEATURES), of track row i (E,) and detection row j (E,).
    """

    tracks: Tensor
    detections: Tensor
    pairs: Tensor
    i: Tensor
    j: Tensor


def build_graph(motion: RecurrentMotion, tracks: TrackPredictions, detections: Detections) -> Graph:
    """The graph of one frame. Its features are relative to box sizes, predicted deviations and time.

    motion: the model that the tracks' states are of; it remembers more observations than the largest of LAGS.
    """
    predicted = box_convert(tracks.boxes, "xyxy", "cxcywh")
    detected = box_convert(detections.boxes, "xyxy", "cxcywh")
    i, j = _candidate_pairs(predicted, tracks.sigma, detected)
    boxes = torch.cat([tracks.boxes, detections.boxes])
    overlap = box_iou(boxes, boxes).nan_to_num(0.0).fill_diagonal_(0)
    count = len(predicted)
    memory = motion.track_features(tracks.state, predicted)
    pair = predicted[i], detected[j]
    averages = memory[i, : len(EMA_RATES)]
    pairs = [
        _history_features(motion, tracks.state, i, *pair),
        _offset_features(tracks.boxes[i], detections.boxes[j], *pair, tracks.sigma[i], averages),
        overlap[:count, count:][i, j, None],
        _score_gap(tracks, detections, i, j),
    ]
    return Graph(
        tracks=torch.cat([memory, _track_features(tracks, overlap[:count, :count])], 1),
        detections=_detection_features(detections, detected, overlap[count:, count:]),
        pairs=torch.cat(pairs, 1),
        i=i,
        j=j,
    )


def collate_graphs(graphs: list[Graph]) -> Graph:
    """One graph of several frames, which share no pair."""
    first_track = torch.tensor([0] + [len(graph.tracks) for graph in graphs]).cumsum(0)
    first_detection = torch.tensor([0] + [len(graph.detections) for graph in graphs]).cumsum(0)
    tracks, detections, pairs = (torch.cat([getattr(g, field.name) for g in graphs]) for field in fields(Graph)[:3])
    i = torch.cat([graph.i + first for graph, first in zip(graphs, first_track, strict=False)])
    j = torch.cat([graph.j + first for graph, first in zip(graphs, first_detection, strict=False)])
    return Graph(tracks, detections, pairs, i, j)


def _candidate_pairs(predicted: Tensor, sigma: Tensor, detected: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of tracks (E,) and of detections (E,) that are near enough and of similar height.

    predicted: (T, 4) and detected: (D, 4), centre x, centre y, width, height. sigma: (T, 4).
    """
    offset = (detected[:, :2] - predicted[:, None, :2]).abs()  # (T, D, 2)
    touching = (predicted[:, None, 2:] + detected[:, 2:]) / 2
    near = (offset < touching + GATE_SIGMAS * sigma[:, None, :2]).all(2)
    ratio = detected[:, 3].clamp(min=1) / predicted[:, None, 3].clamp(min=1)
    similar = (ratio > HEIGHT_RATIOS[0]) & (ratio < HEIGHT_RATIOS[1])
    i, j = (near & similar).nonzero(as_tuple=True)
    return i, j


def _track_features(tracks: TrackPredictions, overlap: Tensor) -> Tensor:
    """(T, those of TRACK_FEATURES); overlap: (T, T) IoU between tracks."""
    steps = (tracks.time_since_update * STEPS_PER_SECOND).log1p()
    hits = (tracks.hits / 10).clamp(max=10).log1p()
    numbers = torch.stack([tracks.scores, steps, hits], 1)
    flags = torch.stack([tracks.confirmed, tracks.matched_last_frame], 1)
    return torch.cat([numbers, flags, _nearest_overlap(tracks.boxes, overlap, numbers)], 1)


def _detection_features(detections: Detections, detected: Tensor, overlap: Tensor) -> Tensor:
    """(D, those of DETECTION_FEATURES); overlap: (D, D) IoU between detections."""
    ratio = (detected[:, 2:3].clamp(min=1) / detected[:, 3:].clamp(min=1)).log()
    scores = detections.scores[:, None]
    return torch.cat([scores, ratio, _nearest_overlap(detections.boxes, overlap, scores)], 1)


def _history_features(motion: RecurrentMotion, state: Tensor, i: Tensor, predicted: Tensor, detected: Tensor) -> Tensor:
    """(E, 5 * len(LAGS)) each pair's former observations relative to its detection.

    i: (E,) rows of state. predicted, detected: (E, 4) of each pair, centre x, centre y, width, height.
    """
    boxes, ages = motion.history(state)
    boxes = boxes[:, LAGS][i]
    detected = detected[:, None]
    offset = boxes - detected
    offset[..., 1] += offset[..., 3] / 2  # centre y to the foot's y
    ratio = (boxes[..., 2:].clamp(min=1) / detected[..., 2:].clamp(min=1)).log()
    lengths = torch.cat([offset[..., :2] / predicted[:, None, 2:].clamp(min=1), ratio], 2)
    steps = (ages[:, LAGS] * STEPS_PER_SECOND).log1p()[i, :, None]
    return torch.cat([_asinh_scale(lengths), steps], 2).flatten(1)


def _offset_features(
    a: Tensor, b: Tensor, predicted: Tensor, detected: Tensor, sigma: Tensor, averages: Tensor
) -> Tensor:
    """(E, 18) how each pair's detection differs from the predicted box and from the track's moving averages.

    a, b: (E, 4) predicted and detected boxes, xyxy; predicted, detected: the same as centre x, centre y, width, height.
    sigma: (E, 4) of the prediction. averages: (E, len(EMA_RATES)) from `track_features`.
    """
    offset = detected - predicted
    size = predicted[:, 2:].clamp(min=1)
    ratio = (detected[:, 2:].clamp(min=1) / size).log()
    size_and_foot = torch.cat([ratio, (b[:, 3:] - a[:, 3:]) / size[:, 1:]], 1)
    from_averages = size_and_foot.repeat(1, 2) - averages
    z = offset / sigma.clamp(min=0.1)
    shared = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])
    span = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    columns = [
        _asinh_scale(torch.cat([offset[:, :2] / size, size_and_foot, from_averages], 1)),
        (z / 2).clamp(-4, 4),
        (z**2).mean(1, keepdim=True).log1p() / 2,
        shared / span.clamp(min=1e-3),
    ]
    return torch.cat(columns, 1)


def _score_gap(tracks: TrackPredictions, detections: Detections, i: Tensor, j: Tensor) -> Tensor:
    """(E, 2) detection's score less track's, and the logit of the track's best class less that of the detection's."""
    gap = tracks.class_logits.amax(1)[i] - tracks.class_logits[i, detections.labels[j]]
    return torch.stack([detections.scores[j] - tracks.scores[i], gap.clamp(max=4) / 4], 1)


def _nearest_overlap(boxes: Tensor, overlap: Tensor, numbers: Tensor) -> Tensor:
    """(N, NEAREST_SIZE + K + 1) the box that overlaps each box (N, 4) most, zeros if none does; and the total overlap.

    overlap: (N, N) IoU, 0 on the diagonal. numbers: (N, K) of each box, reported for the nearest one.
    """
    if not len(boxes):
        return torch.cat([boxes.new_zeros(0, NEAREST_SIZE + 1), numbers], 1)
    most, nearest = overlap.max(1)
    other = boxes[nearest]
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    other_size = (other[:, 2:] - other[:, :2]).clamp(min=1)
    corners = torch.minimum(boxes[:, 2:], other[:, 2:]) - torch.maximum(boxes[:, :2], other[:, :2])
    shared = corners.clamp(min=0).prod(1)
    in_front = (boxes[:, 3] > other[:, 3]).float()  # a lower edge that is lower in the image is nearer to the camera
    centre = (other[:, :2] + other[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2
    offset = torch.cat([centre, other[:, 3:] - boxes[:, 3:]], 1) / size[:, [0, 1, 1]]
    columns = [
        _asinh_scale(torch.cat([offset, (other_size / size).log()], 1)),
        most[:, None],
        (shared / size.prod(1) * (1 - in_front))[:, None],
        (shared / other_size.prod(1) * in_front)[:, None],
        numbers[nearest],
    ]
    features = torch.cat(columns, 1).clamp(-4, 4) * (most > 0)[:, None]
    return torch.cat([features, overlap.sum(1, keepdim=True).clamp(max=3)], 1)


def _asinh_scale(length: Tensor) -> Tensor:
    """Lengths in box sizes, compressed almost logarithmically: differences of 5 % stay resolvable."""
    return (20 * length).asinh() / 2
