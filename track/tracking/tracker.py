"""The tracker: owns the identities and the state of every live track."""

from __future__ import annotations

import math
import warnings
from collections import deque
from dataclasses import dataclass, fields, replace
from numbers import Real
from pathlib import Path
from statistics import median_low
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchvision.ops import box_convert

from track.checkpoint import holds
from track.geometry import identity_affine, is_camera_motion
from track.structures import MAX_COORDINATE, Detections, Tracks
from track.tracking.association import Association, ByteAssociation, Matches, TrackPredictions
from track.tracking.existence import (
    HYSTERESIS,
    MIN_SILENT,
    Existence,
    ScoreLevel,
    evidence,
    initiate,
    load_existence,
    update,
)
from track.tracking.graph_network import GraphAssociation, load_graph
from track.tracking.motion import Motion
from track.tracking.recurrent import SHIPPED, load_motion

CLASS_WEIGHT = 2.0  # nats that a detection of score 1 adds to its class
CLASS_DECAY = 0.9  # what is left of a class's logit at the next detection
LONG_INTERVAL = 1.0  # seconds between frames beyond which time is scaled: the networks were not trained on longer ones
SCALED_INTERVAL = 0.5  # seconds that such an interval counts as
RECENT_INTERVALS = 9  # of which the median is the usual one
MAX_DETECTIONS = 2000  # per frame: every track is compared with every detection
MAX_CLASSES = 2000  # each track has a logit for each class
MIN_AGE = 2.5  # usual intervals without a detection that a track survives, however short `max_age` is


@dataclass(frozen=True)
class TrackMemory:
    """The live tracks, one row each: birth is concatenation, death is a mask."""

    state: Tensor  # (N, S) the motion model's
    keys: Tensor  # (N,) int64, unique from birth to death
    ids: Tensor  # (N,) int64, as reported; 0 until a track is first reported
    class_logits: Tensor  # (N, C) nats
    scores: Tensor  # (N,) of the last detection
    hits: Tensor  # (N,) detections so far
    time_since_update: Tensor  # (N,) seconds since the last detection
    confirmed: Tensor  # (N,) bool, has had `min_hits` detections
    existence: Tensor  # (N, MEMORY_SIZE) of `track.tracking.existence`
    detection_rows: Tensor  # (N,) int64, of the given detections of the last frame; -1 if unmatched

    def __getitem__(self, rows: Tensor) -> TrackMemory:
        return TrackMemory(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class AssociationTrace:
    """What the association of a frame was decided on, to see why an identity switched.

    keys: (T,) of the live tracks, the rows of `predictions`, unique from birth to death. ids: (T,) as reported, 0 for a
    track that was not reported yet. detections: those of at least `min_score`, with labels as columns of
    `predictions.class_logits`.
    """

    keys: Tensor
    ids: Tensor
    predictions: TrackPredictions
    detections: Detections
    matches: Matches


class Tracker:
    """Tracks every object online: `tracks = tracker.update(detections, time)` for each frame in order.

    motion: predicts boxes. association: matches them to detections and starts new tracks. existence: decides which
    tracks are reported; without it, all are. Without `motion`, it is loaded from `weights` (default: the shipped file),
    as are association and existence if the file holds them; otherwise ByteTrack's rule is used. min_score: detections
    below it are ignored. min_hits: detections before a track is reported (those of the first frame are reported at
    once). max_age: seconds without a detection after which a track ends. min_new_track: for the learned association,
    probability of being an object from which a track is reported; in weights without existence, from which a detection
    starts a track. boxes: "filtered" by the motion model, or as "detected". coasting: seconds for which a track is
    reported while it is hidden, at its predicted box. frame_rate: assumed if `update` is not told the time.

    Raises ValueError if `weights` is not a weights file or is given together with `motion`, or for an option out of
    range.
    """

    def __init__(
        self,
        motion: Motion | None = None,
        association: Association | None = None,
        existence: Existence | None = None,
        *,
        weights: str | Path | None = None,
        min_score: float = 0.1,
        min_hits: int = 2,
        max_age: float = 2.0,
        min_new_track: float = 0.5,
        boxes: Literal["filtered", "detected"] = "filtered",
        coasting: float = 0.0,
        frame_rate: float = 30.0,
    ) -> None:
        _check_range("min_score", min_score, 0, 1)
        _check_range("min_hits", min_hits, 1)
        _check_range("max_age", max_age, 0)
        _check_range("min_new_track", min_new_track, 0, 1)
        _check_range("coasting", coasting, 0)
        _check_range("frame_rate", frame_rate, 1e-6)
        if boxes not in ("filtered", "detected"):
            raise ValueError(f"tracker.boxes: expected filtered or detected, got {boxes}")
        networks = _networks(motion, association, existence, weights, min_new_track)
        self.motion, self.association, self.existence = networks
        self.min_existence = math.log(max(min_new_track, 1e-6) / max(1 - min_new_track, 1e-6))  # log-odds
        self.min_score, self.min_hits = min_score, min_hits
        self.max_age, self.frame_rate = max_age, frame_rate
        self.boxes, self.coasting = boxes, coasting
        self.reset()

    def reset(self) -> None:
        """Forget every track: the next frame is the first of another video, and ids start again at 1."""
        self._time: float | None = None
        self._next_key = self._next_id = 1
        self._labels = torch.zeros(1, dtype=torch.long)  # the label of each column of class logits, ascending
        self._intervals: deque[float] = deque(maxlen=RECENT_INTERVALS)
        self.score_level = ScoreLevel()
        self.memory = self._initiate(Detections.empty(), torch.zeros(0, dtype=torch.long))
        self.trace: AssociationTrace | None = None  # of the last frame

    def update(self, detections: Detections, time: float | None = None, affine: Tensor | None = None) -> Tracks:
        """The tracks that were detected in this frame, and those that are still coasting.

        time: seconds, later than the last frame's; by default one frame later. Where frames are usually more than
        a second apart, time is scaled so that motion and association see half a second; `max_age` and `coasting` are
        seconds of that time then. affine: (2, 3) camera motion, from the previous frame's pixels to this frame's; by
        default none. Detections whose box or score is no usable number, and all but the `MAX_DETECTIONS` with the
        highest scores, are dropped with a warning.

        Raises ValueError, and changes nothing, if time does not increase, for scores above 1, for an affine that is no
        camera's motion, and for more than `MAX_CLASSES` classes.
        """
        if not isinstance(detections, Detections):
            kind = type(detections).__name__
            raise ValueError(f"detections: expected Detections, got {kind}; Detections.from_numpy converts arrays")
        affine = identity_affine() if affine is None else affine
        if affine.shape != (2, 3) or not is_camera_motion(affine):
            raise ValueError(f"affine: expected finite numbers (2, 3) that can be inverted, got {affine.tolist()}")
        with torch.inference_mode():
            tracks = self._update(detections, time, affine)
        return Tracks(*(getattr(tracks, field.name).clone() for field in fields(tracks)))  # ordinary tensors

    def _update(self, detections: Detections, time: float | None, affine: Tensor) -> Tracks:
        given = detections
        is_first = self._time is None
        rows = self._usable(detections)
        labels = self._known_labels(detections[rows])
        elapsed = self._time_step(time)
        detections = self._with_columns(detections[rows], labels)
        if self.existence is not None:
            self.score_level.update(detections.scores, elapsed)
            detections = replace(detections, scores=self.score_level.lifted(detections.scores))
        memory = self._predict(elapsed, affine)
        predictions = self._predictions(memory, elapsed)
        matches = self.association(predictions, detections)
        self.trace = AssociationTrace(memory.keys, memory.ids, predictions, detections, matches)
        memory = self._update_matched(memory, matches, detections, rows)
        memory = self._remove_lost(memory)
        if len(matches.new_tracks):  # seldom, and a third of a millisecond
            new = self._initiate(detections[matches.new_tracks], rows[matches.new_tracks], is_first)
            memory = _concatenate(memory, new)
        memory = self._weigh_existence(memory, rows, evidence(detections, matches))
        reported = self._reported(memory, is_first)
        self.memory = self._assign_ids(memory, reported)
        return self._output(self.memory, reported, given)

    def _time_step(self, time: float | None) -> float:
        """Seconds since the last frame, 0 on the first one, scaled if frames are usually far apart."""
        if time is not None and not (isinstance(time, Real) and math.isfinite(time)):
            raise ValueError(f"time: expected seconds, got {time}")
        if self._time is None:
            self._time = 0.0 if time is None else time
            return 0.0
        now = self._time + 1 / self.frame_rate if time is None else time
        elapsed = now - self._time
        if not elapsed > 0:
            raise ValueError(f"time: expected more than the last frame's {self._time} s, got {now} s")
        self._time = now
        self._intervals.append(elapsed)
        usual = self._usual_interval()
        if usual >= 5 and now == round(now) and len(self._intervals) == 5:
            warnings.warn(
                f"frames are {usual:g} s apart: if these times are milliseconds, divide them by 1000", stacklevel=4
            )
        return elapsed * SCALED_INTERVAL / usual if usual > LONG_INTERVAL else elapsed

    def _usual_interval(self) -> float:
        """Seconds between two frames, 0 before there were two."""
        return median_low(self._intervals) if self._intervals else 0.0

    def _usable(self, detections: Detections) -> Tensor:
        """(N,) the rows of the detections that are tracked."""
        boxes, scores = detections.boxes, detections.scores
        usable = (boxes.abs() <= MAX_COORDINATE).all(1) & (boxes[:, 2:] >= boxes[:, :2]).all(1) & scores.isfinite()
        if not usable.all():
            count = int((~usable).sum())
            expected = "finite scores, and corners with x1 <= x2 and y1 <= y2"
            warnings.warn(f"{count} detections were dropped: expected {expected}", stacklevel=4)
        highest = scores[usable].max().item() if usable.any() else 0.0
        if highest > 1:
            raise ValueError(f"scores: expected 0 to 1, got {highest:g}: divide percentages by 100")
        rows = (usable & (scores >= self.min_score)).nonzero()[:, 0]
        if len(rows) <= MAX_DETECTIONS:
            return rows
        warnings.warn(f"{len(rows)} detections in a frame: the best {MAX_DETECTIONS} are tracked", stacklevel=4)
        return rows[scores[rows].topk(MAX_DETECTIONS).indices.sort().values]

    def _known_labels(self, detections: Detections) -> Tensor:
        """(C,) the labels so far and those of the detections, ascending."""
        labels = torch.cat([self._labels, detections.labels]).unique()
        if len(labels) > MAX_CLASSES:
            raise ValueError(f"labels: expected at most {MAX_CLASSES} classes, got {len(labels)}")
        return labels

    def _with_columns(self, detections: Detections, labels: Tensor) -> Detections:
        """The detections with labels as columns of class logits, which are added for new `labels` (C,): labels
        themselves may be any numbers, and size nothing."""
        if len(labels) > len(self._labels):
            logits = self.memory.class_logits
            widened = logits.new_zeros(len(logits), len(labels))
            widened[:, torch.searchsorted(labels, self._labels)] = logits
            self.memory = replace(self.memory, class_logits=widened)
            self._labels = labels
        return replace(detections, labels=torch.searchsorted(self._labels, detections.labels))

    def _predict(self, elapsed: float, affine: Tensor) -> TrackMemory:
        """The memory at this frame's time, in its pixels."""
        memory = self.memory
        state = memory.state
        if not torch.equal(affine, identity_affine()):
            state = self.motion.apply_camera_motion(state, affine)
        state = self.motion.predict(state, torch.full_like(memory.time_since_update, elapsed))
        time_since_update = memory.time_since_update + elapsed
        return replace(memory, state=state, time_since_update=time_since_update)

    def _predictions(self, memory: TrackMemory, elapsed: float) -> TrackPredictions:
        position, sigma = self.motion.project(memory.state)
        return TrackPredictions(
            boxes=box_convert(position, "cxcywh", "xyxy"),
            sigma=sigma,
            state=memory.state,
            labels=memory.class_logits.argmax(1),
            class_logits=memory.class_logits,
            scores=memory.scores,
            hits=memory.hits,
            time_since_update=memory.time_since_update,
            confirmed=memory.confirmed,
            matched_last_frame=memory.time_since_update <= elapsed,
        )

    def _update_matched(
        self, memory: TrackMemory, matches: Matches, detections: Detections, given_rows: Tensor
    ) -> TrackMemory:
        """The memory after its matches; given_rows: of each detection in what the tracker was given."""
        rows = matches.tracks
        matched = detections[matches.detections]
        detection_rows = torch.full_like(memory.ids, -1)
        detection_rows[rows] = given_rows[matches.detections]
        state = memory.state.clone()
        scores = memory.scores.clone()
        class_logits = memory.class_logits.clone()
        hits = memory.hits.clone()
        time_since_update = memory.time_since_update.clone()
        state[rows] = self.motion.update(state[rows], matched.boxes, matched.scores)
        scores[rows] = matched.scores
        class_logits[rows] = CLASS_DECAY * class_logits[rows] + self._class_logit_gain(matched)
        hits[rows] += 1
        time_since_update[rows] = 0.0
        confirmed = memory.confirmed | (hits >= self.min_hits)
        return replace(
            memory,
            state=state,
            class_logits=class_logits,
            scores=scores,
            hits=hits,
            time_since_update=time_since_update,
            confirmed=confirmed,
            detection_rows=detection_rows,
        )

    def _remove_lost(self, memory: TrackMemory) -> TrackMemory:
        """The memory without tracks past `max_age`, and without unconfirmed ones that were not matched at once."""
        matched = memory.time_since_update == 0
        usual = self._usual_interval()
        max_age = max(self.max_age, MIN_AGE * (SCALED_INTERVAL if usual > LONG_INTERVAL else usual))
        alive = (memory.time_since_update <= max_age) & (memory.confirmed | matched)
        return memory if bool(alive.all()) else memory[alive]

    def _initiate(self, detections: Detections, rows: Tensor, confirmed: bool = False) -> TrackMemory:
        """New tracks, one for each detection; rows: (N,) of these in what the tracker was given."""
        count = len(detections)
        keys = torch.arange(self._next_key, self._next_key + count)
        self._next_key += count
        hits = torch.ones(count, dtype=torch.long)
        return TrackMemory(
            state=self.motion.initiate(detections.boxes, detections.scores),
            keys=keys,
            ids=torch.zeros_like(keys),
            class_logits=self._class_logit_gain(detections),
            scores=detections.scores,
            hits=hits,
            time_since_update=torch.zeros(count),
            confirmed=(hits >= self.min_hits) | confirmed,
            existence=initiate(count),
            detection_rows=rows,
        )

    def _weigh_existence(self, memory: TrackMemory, rows: Tensor, observed: Tensor) -> TrackMemory:
        """The memory with what was observed of each track; observed: (D, E) of the detections in the given `rows`."""
        matched = (memory.time_since_update == 0).nonzero()[:, 0]
        found = torch.searchsorted(rows, memory.detection_rows[matched])  # rows ascend
        return replace(memory, existence=update(memory.existence, matched, observed[found]))

    def _reported(self, memory: TrackMemory, is_first: bool) -> Tensor:
        """(N,) bool, which tracks are real enough to be reported: those of the first frame need no more than others
        that were reported before."""
        if self.existence is None:
            return memory.confirmed
        logits = self.existence(memory.existence, self.score_level.lift)
        bias = torch.where((memory.ids > 0) | is_first, HYSTERESIS, -HYSTERESIS)
        return memory.confirmed & (logits + bias >= self.min_existence)

    def _assign_ids(self, memory: TrackMemory, reported: Tensor) -> TrackMemory:
        """The memory with the next ids for tracks that are reported for the first time, so that ids have no gaps."""
        new = (reported & (memory.ids == 0)).nonzero()[:, 0]
        if not len(new):
            return memory
        ids = memory.ids.clone()
        ids[new] = torch.arange(self._next_id, self._next_id + len(new))
        self._next_id += len(new)
        return replace(memory, ids=ids)

    def _class_logit_gain(self, detections: Detections) -> Tensor:
        """(N, C) what each detection adds to its track's class logits, nats."""
        scores = detections.scores.clamp(min=1e-3)  # a class is better than none
        return CLASS_WEIGHT * scores[:, None] * one_hot(detections.labels, len(self._labels))

    def _output(self, memory: TrackMemory, reported: Tensor, given: Detections) -> Tracks:
        """The reported tracks that were matched in this frame, or are still coasting."""
        rows = (reported & (memory.time_since_update <= self.coasting)).nonzero()[:, 0]
        boxes = box_convert(self.motion.project(memory.state[rows])[0], "cxcywh", "xyxy")
        scores = memory.scores[rows]
        detection_rows = memory.detection_rows[rows]
        matched = detection_rows >= 0
        scores[matched] = given.scores[detection_rows[matched]]
        if self.boxes == "detected":
            boxes[matched] = given.boxes[detection_rows[matched]]
        labels = self._labels[memory.class_logits[rows].argmax(1)]
        return Tracks(boxes, scores, labels, memory.ids[rows], detection_rows)


def _networks(
    motion: Motion | None,
    association: Association | None,
    existence: Existence | None,
    weights: str | Path | None,
    min_new_track: float,
) -> tuple[Motion, Association, Existence | None]:
    if motion is not None:
        if weights is not None:
            raise ValueError(f"tracker.weights: {weights} would be ignored, expected either weights or a motion model")
        return motion, association or ByteAssociation(), existence
    file = weights or SHIPPED
    loaded = load_motion(file)
    if association is None and holds(file, "association"):
        existence = existence or load_existence(file)
        start = min_new_track if existence is None else min(min_new_track, MIN_SILENT)
        association = GraphAssociation(loaded, load_graph(file), start)
    return loaded, association or ByteAssociation(), existence


def _check_range(name: str, value: object, low: float, high: float = math.inf) -> None:
    """Raise ValueError for an option that is not a number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        expected = f"a number of at least {low:g}" if math.isinf(high) else f"a number from {low:g} to {high:g}"
        raise ValueError(f"tracker.{name}: expected {expected}, got {value}")


def _concatenate(a: TrackMemory, b: TrackMemory) -> TrackMemory:
    return TrackMemory(*(torch.cat([getattr(a, f.name), getattr(b, f.name)]) for f in fields(TrackMemory)))
