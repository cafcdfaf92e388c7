"""One frame of the learned tracker as a single function of arrays, for programs without torch: see `grutrack export`.

It computes what `Tracker` computes, apart from the assignment, the end of tracks and the ids, which are left to the
program that calls it. Each track is a row of numbers, `TrackRows`, that goes in and comes out.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from track.engine.exporting import Axes
from track.tracking.existence import (
    EMA_RATE,
    EVIDENCE,
    LEVEL_DELAY,
    LEVEL_TIME,
    MEMORY_SIZE,
    USUAL_LEVEL,
    Existence,
)
from track.tracking.graph_features import GATE_SIGMAS, HEIGHT_RATIOS, MAX_CANDIDATES, GraphInputs
from track.tracking.graph_network import MessagePassing, Score
from track.tracking.motion import KalmanState, centre_to_corners
from track.tracking.recurrent import RecurrentMotion
from track.tracking.tracker import CLASS_DECAY, CLASS_WEIGHT

FAR_BOX = [1e8, 1e8, 1e8 + 64, 1e8 + 64]  # of the dummy, beyond `MAX_COORDINATE`
CERTAIN = 100.0  # log-odds of every track without an existence model, above those of any probability


COLUMNS = {  # of a track
    "box": "xyxy, pixels",
    "sigma": "standard deviations of the box's centre x, centre y, width and height, pixels",
    "score": "of the last detection, lifted to that of a usual detector",
    "seconds": "since the last detection",
    "hits": "detections so far",
    "confirmed": "1 if the track ever had min_hits detections, else 0",
    "log_odds": "that the track is a real object, nats",
    "existence": "what was observed of the track so far, that the log-odds follow from",
    "state": "of the motion model",
    "class_logits": "one for each class, nats; all columns to the end",
}
INPUTS: dict[str, tuple[Axes, str]] = {
    "tracks": (("track", "column"), "the tracks after the frame before, rows of this function's outputs"),
    "elapsed": ((1,), "seconds since the frame before"),
    "affine": ((2, 3), "camera motion, from the previous frame's pixels to this frame's: identity if it stands still"),
    "boxes": (("detection", 4), "detected boxes, xyxy, pixels from 0"),
    "scores": (("detection",), "of the detections, 0 to 1"),
    "labels": (("detection",), "of the detections, from 0 to the number of classes less 1"),
    "min_hits": ((1,), "detections from which a track is confirmed; 1 in a video's first frame"),
    "level": ((3,), "next_level of the frame before; zeros in a video's first frame"),
}
OUTPUTS: dict[str, tuple[Axes, str]] = {
    "predicted": (("track", "column"), "each track at this frame's time, if it is not matched"),
    "pairs": (("pair", 2), "row of the track and row of the detection, of those worth a match"),
    "affinity": (("pair",), "log-odds that the two are one object rather than each alone, nats, above 0"),
    "updated": (("pair", "column"), "the pair's track, if it is matched with the pair's detection"),
    "new_track": (("detection",), "probability that the detection is an object without a track"),
    "initiated": (("detection", "column"), "the track that the detection starts, if it starts one"),
    "next_level": ((3,), "of the best scores so far: weighted sum, sum of weights, seconds; to be handed back"),
}


class TrackRows(NamedTuple):
    """N tracks, by the names of `COLUMNS`: box and sigma (N, 4), five of (N, 1), existence (N, MEMORY_SIZE), state
    (N, S), class_logits (N, C)."""

    box: Tensor
    sigma: Tensor
    score: Tensor
    seconds: Tensor
    hits: Tensor
    confirmed: Tensor
    log_odds: Tensor
    existence: Tensor
    state: Tensor
    class_logits: Tensor

    def pack(self) -> Tensor:
        """(N, R) one row for each track."""
        return torch.cat(self, 1)


class StepInputs(NamedTuple):
    """What `TrackerStep` takes, see `INPUTS`: float32, and int64 `labels`. There may be no track and no detection."""

    tracks: Tensor
    elapsed: Tensor
    affine: Tensor
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    min_hits: Tensor
    level: Tensor


class StepOutputs(NamedTuple):
    """What `TrackerStep` returns, see `OUTPUTS`: float32, and int64 `pairs`."""

    predicted: Tensor
    pairs: Tensor
    affinity: Tensor
    updated: Tensor
    new_track: Tensor
    initiated: Tensor
    next_level: Tensor


class TrackerStep(nn.Module):
    """One frame of the learned tracker, from `INPUTS` to `OUTPUTS`; nothing is remembered between calls.

    The tracks after the frame are a choice of rows: `updated` for the pairs of the assignment that has the largest sum
    of affinities, `predicted` for the other tracks that have not ended, `initiated` for the detections left over that
    are likely to be new. The first frame has no tracks: (0, R), R the columns of a track including one for each class.
    Tracks whose log-odds are large enough are reported.
    """

    def __init__(self, motion: RecurrentMotion, network: MessagePassing, existence: Existence | None = None) -> None:
        """existence: without it, all tracks are certain. Raises ValueError if `motion` remembers fewer observations
        than the network compares."""
        super().__init__()
        self.motion = motion
        self.existence = existence
        self.score = Score(motion, network)
        state = motion.initiate(torch.ones(1, 4), torch.ones(1))
        self.widths = [4, 4, 1, 1, 1, 1, 1, MEMORY_SIZE, state.shape[1]]  # of `COLUMNS`, but for the class logits

    def forward(self, *inputs: Tensor) -> StepOutputs:
        """See the class.

        A dummy track and a dummy detection, the last rows, are a pair far away from all others: so no array is empty,
        which kernels of ONNX Runtime and torch's cells do not survive.
        """
        given = StepInputs(*inputs)
        level, lift = self._level(given)
        given = given._replace(scores=(given.scores * lift).clamp(max=1))
        scores, logits = pad(given.scores, (0, 1)), self._logits(given)
        initiated = self._initiate(torch.cat([given.boxes, torch.tensor([FAR_BOX])]), scores, logits, given.min_hits)
        predicted = self._predict(given, initiated)
        boxes = torch.cat([given.boxes, predicted.box[-1:]])
        frame = graph_inputs(predicted, boxes, scores, pad(given.labels, (0, 1)), given.elapsed)
        affinity, new_track, objectness, *_ = self.score(*frame)
        better = (affinity > 0) | (frame.i == given.tracks.shape[0])
        rows, columns = frame.i[better], frame.j[better]
        torch._check(rows.shape[0] > 0)  # the dummy, which `torch.export` cannot know
        affinity = affinity[better]
        before = TrackRows(*(column.index_select(0, rows) for column in predicted))
        alone = [objectness, scores, torch.zeros_like(scores), frame.detection_overlap[:, 0]]  # `EVIDENCE`
        paired = [column.index_select(0, columns) for column in alone]
        paired[EVIDENCE.index("affinity")] = affinity
        boxes, scores, logits = (array.index_select(0, columns) for array in (boxes, scores, logits))
        updated = self._update(before, boxes, scores, logits, given.min_hits)
        outputs = StepOutputs(
            predicted=self._weigh(predicted, lift).pack(),
            pairs=torch.stack([rows, columns], 1),
            affinity=affinity,
            updated=self._weigh(updated, lift, torch.stack(paired, 1)).pack(),
            new_track=new_track,
            initiated=self._weigh(initiated, lift, torch.stack(alone, 1)).pack(),
            next_level=pad(level, (0, 1)),
        )
        return StepOutputs(*(output[:-1] for output in outputs))

    def columns(self) -> dict[str, tuple[int, int | None]]:
        """First column and end of each of `COLUMNS`; the last has no end, there are as many as classes."""
        ends = [0, *accumulate(self.widths), None]
        return {name: (int(ends[k] or 0), ends[k + 1]) for k, name in enumerate(COLUMNS)}

    def state_columns(self) -> dict[str, tuple[int, int]]:
        """First column of a track and end of each part of its state, see `RecurrentState` and `KalmanState`."""
        start, _ = self.columns()["state"]
        parts = self.motion.unpack(torch.zeros(1, self.widths[-1]))._asdict()
        filtered = KalmanState.unpack(parts.pop("kalman"))._asdict()
        parts = {f"kalman {name}": part for name, part in filtered.items()} | parts
        ends = [start, *(start + end for end in accumulate(part.shape[1] for part in parts.values()))]
        return dict(zip(parts, pairwise(ends), strict=True))

    def example(self) -> tuple[Tensor, ...]:
        """Inputs to trace the module with: two tracks, three detections, two classes."""
        boxes = torch.tensor([[0.0, 0, 20, 40], [15, 0, 35, 42], [200, 10, 220, 50]])
        scores, labels, one = torch.tensor([0.9, 0.5, 0.7]), torch.tensor([0, 1, 0]), torch.ones(1)
        nothing = torch.zeros(0, sum(self.widths) + 2)
        first = self(*StepInputs(nothing, 0 * one, torch.eye(2, 3), boxes, scores, labels, one, torch.zeros(3)))
        rows, level = first.initiated[:2], first.next_level
        return StepInputs(rows, one / 30, torch.eye(2, 3), boxes + 1, scores, labels, one + 1, level)

    def _rows(self, tracks: Tensor) -> TrackRows:
        """The columns of tracks (N, R)."""
        fixed = sum(self.widths)
        columns = [*tracks[:, :fixed].split(self.widths, 1), tracks[:, fixed:]]
        return TrackRows(*columns)

    def _level(self, given: StepInputs) -> tuple[Tensor, Tensor]:
        """The level (3,) after the frame's scores, and the lift (1,), as of `ScoreLevel`."""
        best = pad(given.scores, (0, 1)).amax(0)
        seen = pad(torch.ones_like(given.scores), (0, 1)).amax(0)  # 0 in a frame without detections
        total, weight, seconds = given.level.split(1)
        decay = (-given.elapsed / LEVEL_TIME).exp()
        faded = torch.cat([total * decay, weight * decay, seconds])
        level = faded + seen * torch.cat([best[None], torch.ones(1), given.elapsed])
        total, weight, seconds = level.split(1)
        lift = (USUAL_LEVEL * weight / total.clamp(min=1e-6)).clamp(min=1)
        return level, lift.where(seconds >= (torch.inf if self.existence is None else LEVEL_DELAY), 1)

    def _weigh(self, tracks: TrackRows, lift: Tensor, evidence: Tensor | None = None) -> TrackRows:
        """The tracks with what was observed in this frame, as by `update` and `Existence`; evidence: (N, E) of their
        detections, if they have one."""
        frames, hits, *averages = tracks.existence.split([1, 1, *3 * [len(EVIDENCE)]], 1)
        frames = frames + 1
        if evidence is not None:
            hits = hits + 1
            mean, average, _ = averages
            share = 1 / hits
            mean = mean + share * (evidence - mean)
            averages = [mean, average + share.clamp(min=EMA_RATE) * (evidence - average), evidence]
        memory = torch.cat([frames, hits, *averages], 1)
        if self.existence is None:
            return tracks._replace(existence=memory, log_odds=torch.full_like(hits, CERTAIN))
        count = hits.clamp(min=1)
        features = [(1 - 1 / lift) / count, 1 / count, count.log(), 1 - count / frames, *averages]
        return tracks._replace(existence=memory, log_odds=self.existence.linear(torch.cat(features, 1)))

    def _logits(self, given: StepInputs) -> Tensor:
        """(D + 1, C) what each detection adds to the class logits of its track, nats; the dummy nothing."""
        classes = torch.arange(given.tracks.shape[1] - sum(self.widths))
        evidence = CLASS_WEIGHT * given.scores.clamp(min=1e-3)  # a class is better than none
        return pad((given.labels[:, None] == classes) * evidence[:, None], (0, 0, 0, 1))

    def _initiate(self, boxes: Tensor, scores: Tensor, logits: Tensor, min_hits: Tensor) -> TrackRows:
        """The track that each detection starts."""
        none = torch.zeros_like(scores[:, None])
        return self._located(
            self.motion.initiate(boxes, scores),
            score=scores[:, None],
            seconds=none,
            hits=none + 1,
            confirmed=(none + 1 >= min_hits).float(),
            log_odds=none,
            existence=none.expand(-1, MEMORY_SIZE),
            class_logits=logits,
        )

    def _predict(self, given: StepInputs, initiated: TrackRows) -> TrackRows:
        """The tracks at the frame's time, and the dummy track, which is that of the dummy detection."""
        tracks = self._rows(given.tracks)
        moved = self.motion.apply_camera_motion(tracks.state, given.affine)
        state = self.motion.predict(moved, given.elapsed)
        tracks = tracks._replace(state=state, seconds=tracks.seconds + given.elapsed)
        joined = (torch.cat([column, dummy[-1:]]) for column, dummy in zip(tracks, initiated, strict=True))
        return self._located(**TrackRows(*joined)._asdict())

    def _update(self, tracks: TrackRows, boxes: Tensor, scores: Tensor, logits: Tensor, min_hits: Tensor) -> TrackRows:
        """The tracks after a detection each."""
        hits = tracks.hits + 1
        return self._located(
            self.motion.update(tracks.state, boxes, scores),
            score=scores[:, None],
            seconds=torch.zeros_like(hits),
            hits=hits,
            confirmed=torch.maximum(tracks.confirmed, (hits >= min_hits).float()),
            log_odds=tracks.log_odds,
            existence=tracks.existence,
            class_logits=CLASS_DECAY * tracks.class_logits + logits,
        )

    def _located(self, state: Tensor, **columns: Tensor) -> TrackRows:
        """Rows whose box and deviations are those of their state."""
        position, sigma = self.motion.project(state)
        return TrackRows(**columns | {"box": centre_to_corners(position), "sigma": sigma, "state": state})


def graph_inputs(tracks: TrackRows, boxes: Tensor, scores: Tensor, labels: Tensor, elapsed: Tensor) -> GraphInputs:
    """The inputs of the graph features, by dense tables of all tracks and detections; the last of each is a dummy.

    boxes (D + 1, 4), scores (D + 1,), labels (D + 1,).
    """
    i, j = _candidates(tracks, boxes).nonzero().unbind(1)
    matched_last_frame = (tracks.seconds <= elapsed).float()
    numbers = [tracks.score, tracks.seconds, tracks.hits, tracks.confirmed, matched_last_frame]
    logits = tracks.class_logits.index_select(0, i)
    logit_of_label = logits.gather(1, labels.index_select(0, j)[:, None])
    track_rivals, track_overlap = _rivals(tracks.box)
    detection_rivals, detection_overlap = _rivals(boxes)
    return GraphInputs(
        state=tracks.state,
        boxes=tracks.box,
        sigma=tracks.sigma,
        numbers=torch.cat(numbers, 1),
        detection_boxes=boxes,
        detection_scores=scores,
        i=i,
        j=j,
        iou=_iou(tracks.box.index_select(0, i).T, boxes.index_select(0, j).T),
        class_gap=logits.amax(1) - logit_of_label[:, 0],
        track_rivals=track_rivals,
        track_overlap=track_overlap,
        detection_rivals=detection_rivals,
        detection_overlap=detection_overlap,
    )


def _candidates(tracks: TrackRows, boxes: Tensor) -> Tensor:
    """(T, D) bool, which may match: see `find_neighbours`."""
    low, high = tracks.box.T[:, :, None].split(2)  # (2, T, 1): x and y come first, which is fastest in ONNX Runtime
    other_low, other_high = boxes.T[:, None].split(2)  # (2, 1, D)
    sigma = tracks.sigma[:, :2].T[:, :, None]
    margin = GATE_SIGMAS * sigma
    reached = (low - margin <= other_high) & (other_low <= high + margin)
    ratio = (other_high - other_low)[1].clamp(min=1) / (high - low)[1].clamp(min=1)
    may_match = reached[0] & reached[1] & (ratio > HEIGHT_RATIOS[0]) & (ratio < HEIGHT_RATIOS[1])
    offset = (other_low + other_high - low - high) / sigma.clamp(min=0.1)
    distance = (offset * offset).sum(0).where(may_match, torch.inf)
    nearest = pad(distance, (0, MAX_CANDIDATES), value=torch.inf).topk(MAX_CANDIDATES, largest=False)[0]
    return may_match & (distance <= nearest[:, -1:])


def _rivals(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) row of the box that overlaps each most, and (N, 2) IoU with it and the sum over all: see `Neighbours`."""
    iou = _iou(boxes.T[:, :, None], boxes.T[:, None]) * (1 - torch.eye(boxes.shape[0]))
    most, rivals = iou.max(1)
    return rivals, torch.stack([most, iou.sum(1)], 1)


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """(...) intersection over union of boxes (4, ...) and (4, ...), 0 for those without area: see `paired_iou`."""
    low, high = a.split(2)
    other_low, other_high = b.split(2)
    sides = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0)
    shared = sides[0] * sides[1]
    union = (high - low).prod(0) + (other_high - other_low).prod(0) - shared
    return shared / union.where(union > 0, 1)
