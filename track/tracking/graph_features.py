"""Features for learned association: each frame as a graph of tracks, detections and the pairs that may match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from track.geometry import paired_iou, touching_boxes
from track.tracking.association import FrameDetections, TrackPredictions
from track.tracking.motion import STEPS_PER_SECOND, corners_to_centre
from track.tracking.recurrent import EMA_RATES, RecurrentMotion

GATE_SIGMAS = 4.0  # standard deviations that a detection may be away from touching a track's predicted box
HEIGHT_RATIOS = (0.37, 2.7)  # of a detection to a track's predicted box, for the two to be a pair
MAX_CANDIDATES = 64  # detections that a track is paired with, the nearest ones
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


# columns of `_place` that a track's quantities are compared with, and of the units that the differences are taken in:
# of width and height, none, the same with the sign changed, and of the four deviations
PAST, PAST_UNITS = [0, 6, 4, 5], [0, 1, 2, 2]
PLACE, PLACE_UNITS = [0, 1, 4, 5, 6], [3, 4, 5, 5, 4]
SIZE_AND_FOOT, SIZE_AND_FOOT_UNITS = [4, 5, 6], [5, 5, 4]
POSITION, POSITION_UNITS = [0, 1, 2, 3], [6, 7, 8, 9]
LENGTHS = len(PAST) * len(LAGS) + len(PLACE) + 2 * len(SIZE_AND_FOOT) + len(POSITION)


@dataclass(frozen=True)
class Neighbours:
    """Which boxes of a frame are near each other, found by position: the discrete part of its graph.

    i, j: (E,) int64, rows of the tracks and detections that may match. iou: (E,) of each pair. track_rivals: (T,)
    int64, row of the track that overlaps each track most, track_overlap: (T, 2) IoU with it, and the sum over all other
    tracks; detection_rivals (D,) and detection_overlap (D, 2): the same among detections.
    """

    i: np.ndarray
    j: np.ndarray
    iou: np.ndarray
    track_rivals: np.ndarray
    track_overlap: np.ndarray
    detection_rivals: np.ndarray
    detection_overlap: np.ndarray


def find_neighbours(tracks: TrackPredictions, detections: FrameDetections) -> Neighbours:
    """The pairs that are near enough and of similar height, and the rivals of each box."""
    count = len(tracks.boxes)
    boxes = np.concatenate([tracks.boxes, detections.boxes])
    gates = boxes.copy()
    margin = GATE_SIGMAS * tracks.sigma[:, :2]
    gates[:count, :2] -= margin
    gates[:count, 2:] += margin
    height = np.maximum(boxes[:, 3] - boxes[:, 1], 1)
    rivals = np.zeros(len(boxes), np.int64)
    overlap = np.zeros((len(boxes), 2), np.float32)
    candidates = []
    for i, j in touching_boxes(gates, boxes):
        iou = paired_iou(boxes.take(i, 0), boxes.take(j, 0))
        from_track, to_track = i < count, j < count
        ratio = height.take(j) / height.take(i)
        match = np.flatnonzero(from_track & ~to_track & (ratio > HEIGHT_RATIOS[0]) & (ratio < HEIGHT_RATIOS[1]))
        candidates.append(_nearest_pairs(boxes, tracks.sigma, i.take(match), j.take(match), iou.take(match)))
        rival = np.flatnonzero((from_track == to_track) & (iou > 0) & (i != j))
        _strongest(i.take(rival), j.take(rival), iou.take(rival), rivals, overlap)
    i, j, iou = candidates[0] if len(candidates) == 1 else map(np.concatenate, zip(*candidates, strict=True))
    rivals[count:] -= count * (overlap[count:, 0] > 0)
    return Neighbours(i, j - count, iou, rivals[:count], overlap[:count], rivals[count:], overlap[count:])


class GraphInputs(NamedTuple):
    """What the features of a frame are computed from: numpy arrays, or tensors of the same memory.

    state (T, S), boxes (T, 4), sigma (T, 4): see `TrackPredictions`. numbers: (T, 5) a track's score, seconds since its
    last detection, hits, confirmed, matched last frame. detection_boxes (D, 4), detection_scores (D,). class_gap: (E,)
    nats, the logit of the track's best class less that of the detection's. The others: see `Neighbours`.
    """

    state: Any
    boxes: Any
    sigma: Any
    numbers: Any
    detection_boxes: Any
    detection_scores: Any
    i: Any
    j: Any
    iou: Any
    class_gap: Any
    track_rivals: Any
    track_overlap: Any
    detection_rivals: Any
    detection_overlap: Any


OF_PAIRS = {"i", "j", "iou", "class_gap"}
OF_DETECTIONS = {"detection_boxes", "detection_scores", "detection_rivals", "detection_overlap"}
TRACK_ROWS, DETECTION_ROWS = ("i", "track_rivals"), ("j", "detection_rivals")  # inputs that are rows


class GraphFeatures(nn.Module):
    """The features of a frame's graph, relative to box sizes, predicted deviations and time."""

    def __init__(self, motion: RecurrentMotion) -> None:
        """motion: the model that the tracks' states are of.

        Raises ValueError if it remembers fewer observations than the features compare.
        """
        super().__init__()
        if motion.history_length <= max(LAGS):
            raise ValueError(f"history_length: expected at least {max(LAGS) + 1}, got {motion.history_length}")
        self.motion = motion
        self.lags: Tensor
        self.past: Tensor
        self.place: Tensor
        self.columns: Tensor
        self.units: Tensor
        columns = PAST * len(LAGS) + PLACE + SIZE_AND_FOOT * 2 + POSITION
        units = PAST_UNITS * len(LAGS) + PLACE_UNITS + SIZE_AND_FOOT_UNITS * 2 + POSITION_UNITS
        named = {"lags": LAGS, "past": PAST, "place": PLACE, "columns": columns, "units": units}
        for name, rows in named.items():
            self.register_buffer(name, torch.tensor(rows), persistent=False)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The columns tracks, detections and pairs of a `Graph`, from the fields of `GraphInputs`."""
        frame = GraphInputs(*inputs)
        position = corners_to_centre(frame.boxes)
        detected = corners_to_centre(frame.detection_boxes)
        memory = self.motion.track_features(frame.state, position)
        track_score, seconds, hits, flags = frame.numbers.split([1, 1, 1, 2], 1)
        numbers = torch.cat([track_score, (seconds * STEPS_PER_SECOND).log1p(), (hits / 10).clamp(max=10).log1p()], 1)
        score = frame.detection_scores[:, None]
        size = _log_size(detected)
        nearest = _nearest_box(
            torch.cat([frame.boxes, frame.detection_boxes]),
            torch.cat([frame.track_rivals, frame.detection_rivals + position.shape[0]]),
            torch.cat([frame.track_overlap, frame.detection_overlap]),
        )
        track_nearest, detection_nearest = nearest.split([position.shape[0], detected.shape[0]])
        track_rival = _of_rival(numbers, frame.track_rivals, frame.track_overlap)
        detection_rival = _of_rival(score, frame.detection_rivals, frame.detection_overlap)
        pairs = [
            self._differences(frame, position, detected),
            frame.iou[:, None],
            score.index_select(0, frame.j) - track_score.index_select(0, frame.i),
            frame.class_gap[:, None].clamp(max=4) / 4,
        ]
        return (
            torch.cat([memory, numbers, flags, track_nearest, track_rival], 1),
            torch.cat([score, size[:, :1] - size[:, 1:], detection_nearest, detection_rival], 1),
            torch.cat(pairs, 1),
        )

    def example(self) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
        """See `Compilable`: three tracks and four detections."""
        boxes = torch.tensor([[0.0, 0, 20, 40], [15, 0, 35, 42], [200, 10, 220, 50], [210, 9, 230, 51]])
        state = self.motion.initiate(boxes[:3], boxes.new_ones(3))
        state = self.motion.predict(state, boxes.new_full((3,), 0.1))
        tracks = TrackPredictions(
            boxes=boxes[:3].numpy(),
            sigma=np.ones((3, 4), np.float32),
            state=state.numpy(),
            class_logits=np.ones((3, 2), np.float32),
            scores=np.ones(3, np.float32),
            hits=np.ones(3, np.int64),
            time_since_update=np.ones(3, np.float32),
            confirmed=np.ones(3, bool),
            matched_last_frame=np.ones(3, bool),
        )
        detections = FrameDetections(boxes.numpy() + 1, np.ones(4, np.float32), np.ones(4, np.int64))
        inputs = graph_inputs(tracks, detections, find_neighbours(tracks, detections))
        axes = ("pair" if n in OF_PAIRS else "detection" if n in OF_DETECTIONS else "track" for n in inputs._fields)
        return tuple(map(torch.from_numpy, inputs)), tuple(axes)

    def _differences(self, frame: GraphInputs, position: Tensor, detected: Tensor) -> Tensor:
        """(E, from "history" to "extent overlap") how each pair's detection differs from the track's former
        observations, from its predicted box and from its moving averages.

        position (T, 4), detected (D, 4): the boxes as centre x, centre y, width, height. Each length is a quantity of
        the track less the same one of the detection, in units of the track: all are computed at once.
        """
        boxes, ages = self.motion.history(frame.state)
        past = _place(boxes.index_select(1, self.lags)).index_select(2, self.past)
        steps = (ages.index_select(1, self.lags) * STEPS_PER_SECOND).log1p()
        place = _place(position).index_select(1, self.place)
        averages = self.motion.unpack(frame.state).averages
        size, ones = 20 / position[:, 2:].clamp(min=1), torch.full_like(steps[:, :1], 20)
        units = torch.cat([size, ones, -size, -ones, -1 / frame.sigma.clamp(min=0.1)], 1).index_select(1, self.units)
        of_track = torch.cat([past.flatten(1), place, averages, position, units, steps, frame.boxes], 1)
        of_detection = torch.cat([_place(detected).index_select(1, self.columns), frame.detection_boxes], 1)
        here, unit, steps, low, high = of_track.index_select(0, frame.i).split([LENGTHS, LENGTHS, len(LAGS), 2, 2], 1)
        there, other_low, other_high = of_detection.index_select(0, frame.j).split([LENGTHS, 2, 2], 1)
        lengths, z = ((here - there) * unit).split([LENGTHS - 4, 4], 1)
        history, offsets = _half_asinh(lengths).split([4 * len(LAGS), LENGTHS - 4 - 4 * len(LAGS)], 1)
        shared = torch.minimum(high, other_high) - torch.maximum(low, other_low)
        span = (high - low) + (other_high - other_low) - shared
        columns = [
            torch.cat([history.unflatten(1, (len(LAGS), 4)), steps[..., None]], 2).flatten(1),
            offsets,
            (z / 2).clamp(-4, 4),
            (z * z).mean(1, keepdim=True).log1p() / 2,
            shared / span.clamp(min=1e-3),
        ]
        return torch.cat(columns, 1)


def graph_inputs(tracks: TrackPredictions, detections: FrameDetections, near: Neighbours) -> GraphInputs:
    """The inputs of `GraphFeatures`, as numpy arrays."""
    numbers = (tracks.scores, tracks.time_since_update, tracks.hits, tracks.confirmed, tracks.matched_last_frame)
    logits, labels = tracks.class_logits, detections.labels.take(near.j)
    return GraphInputs(
        state=tracks.state,
        boxes=tracks.boxes,
        sigma=tracks.sigma,
        numbers=np.stack(numbers, 1, dtype=np.float32, casting="unsafe"),
        detection_boxes=detections.boxes,
        detection_scores=detections.scores,
        class_gap=logits.max(1).take(near.i) - logits.ravel().take(near.i * logits.shape[1] + labels),
        **vars(near),
    )


def build_graph(features: GraphFeatures, tracks: TrackPredictions, detections: FrameDetections) -> Graph:
    """The graph of one frame."""
    neighbours = find_neighbours(tracks, detections)
    inputs = GraphInputs(*map(torch.from_numpy, graph_inputs(tracks, detections, neighbours)))
    nodes, others, pairs = features(*inputs)
    return Graph(nodes, others, pairs, inputs.i, inputs.j)


def collate_inputs(frames: Sequence[GraphInputs]) -> GraphInputs:
    """The inputs of several frames, which share no pair, as those of one."""
    columns = {name: np.concatenate([getattr(frame, name) for frame in frames]) for name in GraphInputs._fields}
    for names, counted in ((TRACK_ROWS, "boxes"), (DETECTION_ROWS, "detection_boxes")):
        first = np.cumsum([0, *(len(getattr(frame, counted)) for frame in frames[:-1])])
        for name in names:
            columns[name] += np.repeat(first, [len(getattr(frame, name)) for frame in frames])
    return GraphInputs(**columns)


def collate_graphs(graphs: list[Graph]) -> Graph:
    """One graph of several frames, which share no pair."""
    first_track = torch.tensor([0] + [len(graph.tracks) for graph in graphs]).cumsum(0)
    first_detection = torch.tensor([0] + [len(graph.detections) for graph in graphs]).cumsum(0)
    tracks, detections, pairs = (torch.cat([getattr(g, field.name) for g in graphs]) for field in fields(Graph)[:3])
    i = torch.cat([graph.i + first for graph, first in zip(graphs, first_track, strict=False)])
    j = torch.cat([graph.j + first for graph, first in zip(graphs, first_detection, strict=False)])
    return Graph(tracks, detections, pairs, i, j)


def _nearest_pairs(
    boxes: np.ndarray, sigma: np.ndarray, i: np.ndarray, j: np.ndarray, iou: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs, of each track the `MAX_CANDIDATES` nearest ones in its standard deviations."""
    counts = np.bincount(i, minlength=1)
    if counts.max() <= MAX_CANDIDATES:  # as good as always
        return i, j, iou
    offset = (boxes[j, :2] + boxes[j, 2:] - boxes[i, :2] - boxes[i, 2:]) / sigma[i, :2].clip(0.1)
    order = np.lexsort(((offset**2).sum(1), i))
    rank = np.arange(len(i)) - np.repeat(counts.cumsum() - counts, counts)
    chosen = np.sort(order[rank < MAX_CANDIDATES])
    return i[chosen], j[chosen], iou[chosen]


def _strongest(i: np.ndarray, j: np.ndarray, iou: np.ndarray, rivals: np.ndarray, overlap: np.ndarray) -> None:
    """Write the row j of the largest IoU of each box i, that IoU and the sum; i (E,) is ascending."""
    if not len(i):
        return
    start = np.concatenate([[0], np.flatnonzero(i[1:] != i[:-1]) + 1])
    rows = i.take(start)
    overlap[rows, 0] = np.maximum.reduceat(iou, start)
    overlap[rows, 1] = np.add.reduceat(iou, start)
    largest = np.flatnonzero(iou == overlap[:, 0].take(i))[::-1]  # of equal ones the first is written last
    rivals[i.take(largest)] = j.take(largest)


def _nearest_box(boxes: Tensor, rivals: Tensor, overlap: Tensor) -> Tensor:
    """(N, NEAREST_SIZE) how the box that overlaps each box (N, 4) most lies to it, zeros if none does.

    rivals: (N,) its row. overlap: (N, 2) IoU with it, and the sum over all.
    """
    iou = overlap[:, :1]
    other = boxes.index_select(0, rivals)
    low, high = boxes.split(2, 1)
    other_low, other_high = other.split(2, 1)
    size, other_size = (high - low).clamp(min=1), (other_high - other_low).clamp(min=1)
    shared = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0)
    in_front = (boxes[:, 3:] > other[:, 3:]).float()  # a lower edge that is lower in the image is nearer to the camera
    centre = (other_low + other_high - low - high) / 2
    offset = torch.cat([centre, other[:, 3:] - boxes[:, 3:]], 1) / torch.cat([size, size[:, 1:]], 1)
    lengths = _half_asinh(20 * torch.cat([offset, (other_size / size).log()], 1))
    hidden = (shared / size).prod(1, keepdim=True) * (1 - in_front)
    hides = (shared / other_size).prod(1, keepdim=True) * in_front
    return torch.cat([lengths, iou, hidden, hides], 1).clamp(-4, 4) * (iou > 0).float()


def _of_rival(numbers: Tensor, rivals: Tensor, overlap: Tensor) -> Tensor:
    """(N, K + 1) the numbers (N, K) of each box's rival, zeros without one, and the total overlap."""
    iou, total = overlap.split(1, 1)
    return torch.cat([numbers.index_select(0, rivals).clamp(-4, 4) * (iou > 0).float(), total.clamp(max=3)], 1)


def _place(position: Tensor) -> Tensor:
    """(..., 7) centre x, centre y, width, height, their logarithms and the foot's y, of the first four (..., 4)."""
    foot = position[..., 1:2] + position[..., 3:] / 2
    return torch.cat([position, _log_size(position), foot], -1)


def _log_size(position: Tensor) -> Tensor:
    """(..., 2) logarithms of width and height of (..., 4), of at least a pixel."""
    return position[..., 2:].clamp(min=1).log()


def _half_asinh(x: Tensor) -> Tensor:
    """asinh(x) / 2, which compresses lengths almost logarithmically: of 20 times a length in box sizes, differences of
    5 % stay resolvable. Written as a logarithm, which is vectorised where asinh is not."""
    return (x.abs() + (x * x + 1).sqrt()).log() * (x.sign() / 2)
