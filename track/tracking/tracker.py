"""The tracker: owns the identities and the state of every live track."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from statistics import median_low
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from track.checkpoint import holds
from track.engine.compiled import Compiled, make_graph
from track.geometry import identity_affine, is_camera_motion
from track.structures import MAX_COORDINATE, Detections, Tracks
from track.tracking.association import Association, ByteAssociation, FrameDetections, Matches, TrackPredictions
from track.tracking.existence import (
    HYSTERESIS,
    MIN_SILENT,
    Existence,
    ScoreLevel,
    initiate,
    load_existence,
    update,
)
from track.tracking.graph_network import GraphAssociation, Score, load_graph
from track.tracking.motion import Advance, Initiate, Motion, Move, Observe
from track.tracking.recurrent import SHIPPED, load_motion

CLASS_WEIGHT = 2.0  # nats that a detection of score 1 adds to its class
CLASS_DECAY = 0.9  # what is left of a class's logit at the next detection
LONG_INTERVAL = 1.0  # seconds between frames beyond which time is scaled: the networks were not trained on longer ones
SCALED_INTERVAL = 0.5  # seconds that such an interval counts as
RECENT_INTERVALS = 9  # of which the median is the usual one
MAX_DETECTIONS = 20_000  # per frame
MAX_CLASSES = 2000  # each track has a logit for each class
IDENTITY = identity_affine().numpy()
MIN_AGE = 2.5  # usual intervals without a detection that a track survives, however short `max_age` is


@dataclass(frozen=True)
class TrackMemory:
    """The live tracks, one row each: birth is concatenation, death is a mask."""

    state: np.ndarray  # (N, S) the motion model's
    boxes: np.ndarray  # (N, 4) that the state stands for, xyxy pixels
    keys: np.ndarray  # (N,) int64, unique from birth to death
    ids: np.ndarray  # (N,) int64, as reported; 0 until a track is first reported
    class_logits: np.ndarray  # (N, C) nats
    scores: np.ndarray  # (N,) of the last detection, as the networks read it
    given_scores: np.ndarray  # (N,) of the last detection, as it was given
    hits: np.ndarray  # (N,) detections so far
    time_since_update: np.ndarray  # (N,) seconds since the last detection
    confirmed: np.ndarray  # (N,) bool, has had `min_hits` detections
    existence: np.ndarray  # (N, MEMORY_SIZE) of `track.tracking.existence`
    detection_rows: np.ndarray  # (N,) int64, of the given detections of the last frame; -1 if unmatched

    def __getitem__(self, rows: np.ndarray) -> TrackMemory:
        return TrackMemory(*(column.take(rows, 0) for column in vars(self).values()))


@dataclass(frozen=True)
class AssociationTrace:
    """What the association of a frame was decided on, to see why an identity switched.

    keys: (T,) of the live tracks, the rows of `predictions`, unique from birth to death. ids: (T,) as reported, 0 for a
    track that was not reported yet. detections: those of at least `min_score`, with labels as columns of
    `predictions.class_logits`.
    """

    keys: np.ndarray
    ids: np.ndarray
    predictions: TrackPredictions
    detections: FrameDetections
    matches: Matches


class MotionFunctions:
    """What the tracker asks of a motion model in each frame, for all tracks at once; by numpy."""

    def __init__(self, motion: Motion) -> None:
        self.initiate, self.move = Compiled(Initiate(motion)), Compiled(Move(motion))
        self.advance, self.observe = Compiled(Advance(motion)), Compiled(Observe(motion))


class Tracker:
    """Tracks every object online: `tracks = tracker.update(detections, time)` for each frame in order.

    motion: predicts boxes. association: matches them to detections and starts new tracks. existence: decides which
    tracks are reported; without it, all are. Without `motion`, it is loaded from `weights` (default: the shipped
    file), as are association and existence if the file holds them; otherwise ByteTrack's rule is used. min_score:
    detections below it are ignored. min_hits: detections before a track may be reported, one for those of the first
    frame. max_age: seconds without a detection after which a track ends. min_new_track: probability of being an
    object from which a track is reported; tracks start silently at that or at `MIN_SILENT`, whichever is lower. In
    weights without existence, probability from which a detection starts a track, which is then reported. boxes:
    "filtered" by the motion model, or as "detected". coasting: seconds for which a track is reported while it is
    hidden, at its predicted box. frame_rate: assumed if `update` is not told the time.

    Raises ValueError if `weights` is not a weights file or is given together with `motion`, for existence without the
    learned association, or for an option out of range.
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
        self._functions = MotionFunctions(self.motion)
        self.min_score, self.min_hits = min_score, min_hits
        self.max_age, self.frame_rate = max_age, frame_rate
        self.boxes, self.coasting = boxes, coasting
        self.reset()

    def reset(self) -> None:
        """Forget every track: the next frame is the first of another video, and ids start again at 1."""
        self._time: float | None = None
        self._next_key = self._next_id = 1
        self._labels = np.zeros(1, np.int64)  # the label of each column of class logits, ascending
        self._intervals: deque[float] = deque(maxlen=RECENT_INTERVALS)
        self.score_level = ScoreLevel()
        nothing = FrameDetections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
        self.memory = self._new_tracks(
            nothing, np.zeros(0, np.int64), nothing.scores, self._functions.initiate(*nothing[:2])
        )
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
        return update_together([self], [(detections, time, affine)])[0]

    def _check(self, given: Detections, time: float | None, affine: Tensor | None) -> _Step:
        """What is to be done with this frame. Changes nothing; raises ValueError for bad input."""
        if not isinstance(given, Detections):
            kind = type(given).__name__
            raise ValueError(f"detections: expected Detections, got {kind}; Detections.from_numpy converts arrays")
        if affine is not None and not isinstance(affine, Tensor):
            raise ValueError(f"affine: expected a tensor (2, 3), got {type(affine).__name__}")
        matrix = None if affine is None else affine.numpy(force=True).astype(np.float32)
        if matrix is None or np.array_equal(matrix, IDENTITY):
            matrix = None
        elif affine is not None and (affine.shape != (2, 3) or not is_camera_motion(affine)):
            raise ValueError(f"affine: expected finite numbers (2, 3) that can be inverted, got {affine.tolist()}")
        boxes, scores, labels = (column.numpy(force=True) for column in (given.boxes, given.scores, given.labels))
        rows = self._usable(boxes, scores)
        detections = FrameDetections(boxes.take(rows, 0), scores.take(rows), labels.take(rows))
        return _Step(
            self, boxes, scores, rows, detections, self._known_labels(detections.labels), self._now(time), matrix
        )

    def _now(self, time: float | None) -> float:
        """Seconds of this frame. Raises ValueError if they are not later than the last frame's."""
        if time is not None and not (isinstance(time, Real) and math.isfinite(time)):
            raise ValueError(f"time: expected seconds, got {time}")
        if self._time is None:
            return 0.0 if time is None else time
        now = self._time + 1 / self.frame_rate if time is None else time
        if not now > self._time:
            raise ValueError(f"time: expected more than the last frame's {self._time} s, got {now} s")
        return now

    def _begin(self, step: _Step) -> None:
        """Let time pass, and make room for new labels; the step's detections get labels as columns."""
        step.is_first = self._time is None
        step.elapsed = self._pass_time(step.now)
        if len(step.labels) > len(self._labels):
            self._widen(step.labels)
        columns, scores = np.searchsorted(self._labels, step.detections.labels), step.detections.scores
        if self.existence is not None:
            self.score_level.update(scores, step.elapsed)
            scores = self.score_level.lifted(scores)
        step.detections = step.detections._replace(scores=scores, labels=columns)

    def _pass_time(self, now: float) -> float:
        """Seconds since the last frame, 0 on the first one, scaled if frames are usually far apart."""
        elapsed = 0.0 if self._time is None else now - self._time
        self._time = now
        if not elapsed:
            return elapsed
        self._intervals.append(elapsed)
        usual = self._usual_interval()
        if usual >= 5 and now == round(now) and len(self._intervals) == 5:
            warnings.warn(
                f"frames are {usual:g} s apart: if these times are milliseconds, divide them by 1000", stacklevel=5
            )
        return elapsed * SCALED_INTERVAL / usual if usual > LONG_INTERVAL else elapsed

    def _usual_interval(self) -> float:
        """Seconds between two frames, 0 before there were two."""
        return median_low(self._intervals) if self._intervals else 0.0

    def _usable(self, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """(N,) the rows of the detections that are tracked."""
        near = np.abs(boxes) <= MAX_COORDINATE
        usable = near.all(1) & (boxes[:, 2] >= boxes[:, 0]) & (boxes[:, 3] >= boxes[:, 1]) & np.isfinite(scores)
        if not usable.all():
            count = int((~usable).sum())
            expected = "finite scores, and corners with x1 <= x2 and y1 <= y2"
            warnings.warn(f"{count} detections were dropped: expected {expected}", stacklevel=5)
        highest = scores.max(initial=0, where=usable)
        if highest > 1:
            raise ValueError(f"scores: expected 0 to 1, got {highest:g}: divide percentages by 100")
        rows = np.flatnonzero(usable & (scores >= self.min_score))
        if len(rows) <= MAX_DETECTIONS:
            return rows
        warnings.warn(f"{len(rows)} detections in a frame: the best {MAX_DETECTIONS} are tracked", stacklevel=5)
        return np.sort(rows[np.argsort(-scores[rows], kind="stable")[:MAX_DETECTIONS]])

    def _known_labels(self, labels: np.ndarray) -> np.ndarray:
        """(C,) the labels so far and those of the detections, ascending."""
        known = self._labels
        places = np.searchsorted(known, labels)
        if (places == len(known)).any() or (known[places] != labels).any():
            known = np.union1d(known, labels)
        if len(known) > MAX_CLASSES:
            raise ValueError(f"labels: expected at most {MAX_CLASSES} classes, got {len(known)}")
        return known

    def _widen(self, labels: np.ndarray) -> None:
        """Add columns of class logits for new labels (C,): labels themselves may be any numbers, and size nothing."""
        logits = self.memory.class_logits
        widened = np.zeros((len(logits), len(labels)), np.float32)
        widened[:, np.searchsorted(labels, self._labels)] = logits
        self.memory = replace(self.memory, class_logits=widened)
        self._labels = labels

    def _predictions(self, memory: TrackMemory, sigma: np.ndarray, elapsed: float) -> TrackPredictions:
        return TrackPredictions(
            boxes=memory.boxes,
            sigma=sigma,
            state=memory.state,
            class_logits=memory.class_logits,
            scores=memory.scores,
            hits=memory.hits,
            time_since_update=memory.time_since_update,
            confirmed=memory.confirmed,
            matched_last_frame=memory.time_since_update <= np.float32(elapsed),
        )

    def _finish(
        self, step: _Step, matches: Matches, updated: Sequence[np.ndarray], new: Sequence[np.ndarray] | None
    ) -> Tracks:
        """The tracks of this frame; updated, new: states and boxes of the matched tracks, and of new ones."""
        memory = self._remove_lost(self._update_matched(step, matches, *updated))
        if new is not None:
            detections = FrameDetections(*(column.take(matches.new_tracks, 0) for column in step.detections))
            rows = step.rows.take(matches.new_tracks)
            initiated = self._new_tracks(detections, rows, step.given_scores.take(rows), new, step.is_first)
            memory = _concatenate(memory, initiated)
        if self.existence is not None and matches.evidence is not None:
            memory = self._weigh_existence(memory, step.rows, matches.evidence)
        reported = self._reported(memory, step.is_first)
        self.memory = self._assign_ids(memory, reported)
        return self._output(self.memory, reported, step)

    def _update_matched(self, step: _Step, matches: Matches, state: np.ndarray, boxes: np.ndarray) -> TrackMemory:
        """The memory after its matches; state, boxes: (M, S) and (M, 4) of the matched tracks."""
        memory, rows = step.memory, matches.tracks
        matched = FrameDetections(*(column.take(matches.detections, 0) for column in step.detections))
        states, all_boxes = memory.state.copy(), memory.boxes.copy()  # the trace keeps the predicted ones
        states[rows] = state
        all_boxes[rows] = boxes
        scores, given_scores = memory.scores.copy(), memory.given_scores.copy()
        class_logits, hits = memory.class_logits.copy(), memory.hits.copy()
        scores[rows] = matched.scores
        class_logits[rows] = CLASS_DECAY * class_logits.take(rows, 0) + self._class_logit_gain(matched)
        hits[rows] += 1
        time_since_update = memory.time_since_update.copy()
        time_since_update[rows] = 0
        detection_rows = np.full_like(memory.ids, -1)
        detection_rows[rows] = step.rows.take(matches.detections)
        given_scores[rows] = step.given_scores.take(detection_rows.take(rows))
        return replace(
            memory,
            state=states,
            boxes=all_boxes,
            class_logits=class_logits,
            scores=scores,
            given_scores=given_scores,
            hits=hits,
            time_since_update=time_since_update,
            confirmed=memory.confirmed | (hits >= self.min_hits),
            detection_rows=detection_rows,
        )

    def _remove_lost(self, memory: TrackMemory) -> TrackMemory:
        """The memory without tracks past `max_age`, and without unconfirmed ones that were not matched at once."""
        matched = memory.time_since_update == 0
        usual = self._usual_interval()
        max_age = max(self.max_age, MIN_AGE * (SCALED_INTERVAL if usual > LONG_INTERVAL else usual))
        alive = matched | (memory.confirmed & (memory.time_since_update <= max_age))
        return memory if alive.all() else memory[np.flatnonzero(alive)]

    def _new_tracks(
        self,
        detections: FrameDetections,
        rows: np.ndarray,
        given_scores: np.ndarray,
        initiated: Sequence[np.ndarray],
        confirmed: bool = False,
    ) -> TrackMemory:
        """New tracks, one for each detection.

        rows, given_scores: (N,) of these in what the tracker was given. initiated: states (N, S) and boxes (N, 4).
        """
        count = len(rows)
        keys = np.arange(self._next_key, self._next_key + count)
        self._next_key += count
        return TrackMemory(
            state=initiated[0],
            boxes=initiated[1],
            keys=keys,
            ids=np.zeros_like(keys),
            class_logits=self._class_logit_gain(detections),
            scores=detections.scores,
            given_scores=given_scores,
            hits=np.ones(count, np.int64),
            time_since_update=np.zeros(count, np.float32),
            confirmed=np.full(count, confirmed or self.min_hits <= 1),
            existence=initiate(count),
            detection_rows=rows,
        )

    def _weigh_existence(self, memory: TrackMemory, rows: np.ndarray, evidence: np.ndarray) -> TrackMemory:
        """The memory with what was observed of each track; evidence: (D, E) of the detections in the given `rows`."""
        matched = np.flatnonzero(memory.detection_rows >= 0)
        found = np.searchsorted(rows, memory.detection_rows.take(matched))  # rows ascend
        return replace(memory, existence=update(memory.existence, matched, evidence.take(found, 0)))

    def _reported(self, memory: TrackMemory, is_first: bool) -> np.ndarray:
        """(N,) bool, which tracks are real enough to be reported: those of the first frame need no more than others
        that were reported before. All are where frames are far apart: the fit saw no such video."""
        if self.existence is None or self._usual_interval() > LONG_INTERVAL:
            return memory.confirmed
        margin = np.where((memory.ids > 0) | is_first, HYSTERESIS, -HYSTERESIS)
        log_odds = self.existence.log_odds(memory.existence, self.score_level.lift)
        return np.asarray(memory.confirmed & (log_odds + margin >= self.min_existence))

    def _assign_ids(self, memory: TrackMemory, reported: np.ndarray) -> TrackMemory:
        """The memory with the next ids for tracks that are reported for the first time, so that ids have no gaps."""
        new = np.flatnonzero(reported & (memory.ids == 0))
        if not len(new):
            return memory
        ids = memory.ids.copy()
        ids[new] = np.arange(self._next_id, self._next_id + len(new))
        self._next_id += len(new)
        return replace(memory, ids=ids)

    def _class_logit_gain(self, detections: FrameDetections) -> np.ndarray:
        """(N, C) what each detection adds to its track's class logits, nats."""
        gain = np.zeros((len(detections.scores), len(self._labels)), np.float32)
        scores = detections.scores.clip(1e-3)  # a class is better than none
        gain[np.arange(len(gain)), detections.labels] = np.float32(CLASS_WEIGHT) * scores
        return gain

    def _output(self, memory: TrackMemory, reported: np.ndarray, step: _Step) -> Tracks:
        """The reported tracks that were matched in this frame, or are still coasting."""
        rows = np.flatnonzero(reported & (memory.time_since_update <= self.coasting))
        boxes, detection_rows = memory.boxes.take(rows, 0), memory.detection_rows.take(rows)
        if self.boxes == "detected":
            matched = np.flatnonzero(detection_rows >= 0)
            boxes[matched] = step.given_boxes.take(detection_rows.take(matched), 0)
        labels = self._labels.take(memory.class_logits.take(rows, 0).argmax(1))
        columns = (boxes, memory.given_scores.take(rows), labels, memory.ids.take(rows), detection_rows)
        return Tracks(*map(torch.from_numpy, columns))


class MultiTracker:
    """Tracks several videos at once, each with its own identities: the networks see all their frames in one call.

    The tracks are those of one `Tracker` for each video; a frame costs less the more videos there are.
    """

    def __init__(self, videos: int, tracker: Tracker | None = None) -> None:
        """videos: how many. tracker: of which each video gets a copy without tracks, by default `Tracker()`."""
        _check_range("videos", videos, 1)
        self.trackers = [copy(tracker or Tracker()) for _ in range(videos)]
        for one in self.trackers:
            one.reset()

    def update(
        self,
        detections: Sequence[Detections | None],
        times: Sequence[float | None] | None = None,
        affines: Sequence[Tensor | None] | None = None,
    ) -> list[Tracks | None]:
        """The tracks of the next frame of each video, None for a video that has no frame now.

        detections: None for a video without a frame. times, affines: for each video, as for `Tracker.update`. Raises
        ValueError for bad input; no video is tracked then.
        """
        count = len(self.trackers)
        times = [None] * count if times is None else times
        affines = [None] * count if affines is None else affines
        for name, values in (("detections", detections), ("times", times), ("affines", affines)):
            if len(values) != count:
                raise ValueError(f"{name}: expected one for each of {count} videos, got {len(values)}")
        rows = [row for row, frame in enumerate(detections) if frame is not None]
        frames = [(frame, times[row], affines[row]) for row, frame in enumerate(detections) if frame is not None]
        tracks = dict(zip(rows, update_together([self.trackers[row] for row in rows], frames), strict=True))
        return [tracks.get(row) for row in range(count)]


@dataclass
class _Step:
    """One tracker's work on one frame: what it was given, and the tracks at the frame's time."""

    tracker: Tracker
    given_boxes: np.ndarray  # (G, 4) of all given detections
    given_scores: np.ndarray  # (G,)
    rows: np.ndarray  # (D,) of these, which are tracked
    detections: FrameDetections
    labels: np.ndarray  # (C,) known so far, and new ones
    now: float  # seconds
    affine: np.ndarray | None  # (2, 3)
    elapsed: float = 0.0  # seconds since the last frame, as the networks see them
    is_first: bool = False

    @property
    def memory(self) -> TrackMemory:
        return self.tracker.memory


def update_together(
    trackers: Sequence[Tracker], frames: Sequence[tuple[Detections, float | None, Tensor | None]]
) -> list[Tracks]:
    """One frame of each of several videos: detections, time and affine as for `Tracker.update`.

    trackers: of the same motion model and association, whose networks see all frames at once. Raises ValueError for bad
    input; no tracker is changed then.
    """
    steps = []
    for tracker, frame in zip(trackers, frames, strict=True):
        steps.append(tracker._check(*frame))  # no comprehension, which is a frame of warnings' stack in Python 3.11
    if not steps:
        return []
    for step in steps:
        step.tracker._begin(step)
    functions, association = trackers[0]._functions, trackers[0].association
    moving = [step for step in steps if step.affine is not None]
    moves = [(s.memory.state, np.tile(s.affine, (len(s.memory.keys), 1, 1))) for s in moving if s.affine is not None]
    for step, (state,) in zip(moving, _together(functions.move, moves), strict=True):
        step.tracker.memory = replace(step.memory, state=state)
    advances = [(s.memory.state, np.full(len(s.memory.keys), s.elapsed, np.float32)) for s in steps]
    predicted = []
    for step, (state, boxes, sigma) in zip(steps, _together(functions.advance, advances), strict=True):
        time_since_update = step.memory.time_since_update + np.float32(step.elapsed)
        memory = replace(step.memory, state=state, boxes=boxes, time_since_update=time_since_update)
        step.tracker.memory = memory
        predicted.append((step.tracker._predictions(memory, sigma, step.elapsed), step.detections))
    matches = association(predicted)
    updates = []
    births = []
    for step, match, (predictions, found) in zip(steps, matches, predicted, strict=True):
        step.tracker.trace = AssociationTrace(step.memory.keys, step.memory.ids, predictions, found, match)
        detected = (column.take(match.detections, 0) for column in found[:2])
        updates.append((predictions.state.take(match.tracks, 0), *detected))
        if len(match.new_tracks):
            births.append(tuple(column[match.new_tracks] for column in found[:2]))
    updated, born = _together(functions.observe, updates), iter(_together(functions.initiate, births))
    return [
        step.tracker._finish(step, match, values, next(born) if len(match.new_tracks) else None)
        for step, match, values in zip(steps, matches, updated, strict=True)
    ]


def _together(function: Compiled, inputs: Sequence[tuple[np.ndarray, ...]]) -> list[list[np.ndarray]]:
    """The outputs of a function for each of several inputs, computed at once; rows are independent."""
    if len(inputs) == 1:
        return [function(*inputs[0])]
    if not inputs:
        return []
    ends = np.cumsum([len(columns[0]) for columns in inputs])[:-1]
    outputs = function(*(np.concatenate(column) for column in zip(*inputs, strict=True)))
    return [list(columns) for columns in zip(*(np.split(output, ends) for output in outputs), strict=True)]


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
        return motion, *_decided_by(association, existence)
    file = weights or SHIPPED
    loaded = load_motion(file)
    for step in (Initiate, Move, Advance, Observe):
        make_graph(step(loaded))
    if association is None and holds(file, "association"):
        existence = existence or load_existence(file)
        network = load_graph(file)
        make_graph(Score(loaded, network))
        start = min_new_track if existence is None else min(min_new_track, MIN_SILENT)
        association = GraphAssociation(loaded, network, start)
    return loaded, *_decided_by(association, existence)


def _decided_by(association: Association | None, existence: Existence | None) -> tuple[Association, Existence | None]:
    """The association, by default ByteTrack's rule. Raises ValueError if it gives existence no evidence."""
    if existence is not None and not isinstance(association, GraphAssociation):
        raise ValueError("tracker.existence: expected the learned association beside it, which gives the evidence")
    return association or ByteAssociation(), existence


def _check_range(name: str, value: object, low: float, high: float = math.inf) -> None:
    """Raise ValueError for an option that is not a number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        expected = f"a number of at least {low:g}" if math.isinf(high) else f"a number from {low:g} to {high:g}"
        raise ValueError(f"tracker.{name}: expected {expected}, got {value}")


def _concatenate(a: TrackMemory, b: TrackMemory) -> TrackMemory:
    return TrackMemory(*(np.concatenate(pair) for pair in zip(vars(a).values(), vars(b).values(), strict=True)))
