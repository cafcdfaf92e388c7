"""The tracker: owns the identities and the state of every live track."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad
from torchvision.ops import box_convert

from track.checkpoint import holds
from track.geometry import identity_affine
from track.structures import Detections, Tracks
from track.tracking.association import Association, ByteAssociation, Matches, TrackPredictions
from track.tracking.graph_network import GraphAssociation, load_graph
from track.tracking.motion import Motion
from track.tracking.recurrent import SHIPPED, load_motion

CLASS_WEIGHT = 2.0  # nats that a detection of score 1 adds to its class
CLASS_DECAY = 0.9  # what is left of a class's logit at the next detection


@dataclass(frozen=True)
class TrackMemory:
    """The live tracks, one row each: birth is concatenation, death is a mask."""

    state: Tensor  # (N, S) the motion model's
    ids: Tensor  # (N,) int64
    class_logits: Tensor  # (N, C) nats
    scores: Tensor  # (N,) of the last detection
    hits: Tensor  # (N,) detections so far
    time_since_update: Tensor  # (N,) seconds since the last detection
    confirmed: Tensor  # (N,) bool, has been reported

    def __getitem__(self, rows: Tensor) -> TrackMemory:
        return TrackMemory(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class AssociationTrace:
    """What the association of a frame was decided on, to see why an identity switched.

    ids: (T,) of the live tracks, the rows of `predictions`. detections: those of at least `min_score`.
    """

    ids: Tensor
    predictions: TrackPredictions
    detections: Detections
    matches: Matches


class Tracker:
    """Tracks every object online: `tracks = tracker.update(detections, time)` for each frame in order.

    motion: predicts boxes. association: matches them to detections and starts new tracks. Without `motion`, it is
    loaded from `weights` (default: the shipped file), as is the association if the file holds one; otherwise
    ByteTrack's rule is used. min_score: detections below it are ignored. min_hits: detections before a track is
    reported (those of the first frame are reported at once). max_age: seconds without a detection after which a track
    ends. frame_rate: assumed if `update` is not told the time.

    Raises ValueError if `weights` is not a weights file, or is given together with `motion`.
    """

    def __init__(
        self,
        motion: Motion | None = None,
        association: Association | None = None,
        *,
        weights: str | Path | None = None,
        min_score: float = 0.1,
        min_hits: int = 2,
        max_age: float = 2.0,
        frame_rate: float = 30.0,
    ) -> None:
        self.motion, self.association = _networks(motion, association, weights)
        self.min_score, self.min_hits = min_score, min_hits
        self.max_age, self.frame_rate = max_age, frame_rate
        self.reset()

    def reset(self) -> None:
        """Forget every track: the next frame is the first of another video, and ids start again at 1."""
        self._time: float | None = None
        self._next_id = 1
        self._class_count = 1
        self.memory = self._initiate(Detections.empty())
        self.trace: AssociationTrace | None = None  # of the last frame

    @torch.inference_mode()
    def update(self, detections: Detections, time: float | None = None, affine: Tensor | None = None) -> Tracks:
        """The tracks that were detected in this frame.

        time: seconds, later than the last frame's; by default one frame later. affine: (2, 3) camera motion, from the
        previous frame's pixels to this frame's; by default none. Raises ValueError if time does not increase.
        """
        is_first = self._time is None
        elapsed = self._time_step(time)
        detections = detections[detections.scores >= self.min_score]
        memory = self._predict(elapsed, identity_affine() if affine is None else affine, detections.labels)
        predictions = self._predictions(memory, elapsed)
        matches = self.association(predictions, detections)
        self.trace = AssociationTrace(memory.ids, predictions, detections, matches)
        memory = self._update_matched(memory, matches.tracks, detections[matches.detections])
        memory = self._remove_lost(memory)
        if len(matches.new_tracks):  # seldom, and a third of a millisecond
            memory = _concatenate(memory, self._initiate(detections[matches.new_tracks], is_first))
        self.memory = memory
        return self._output(memory)

    def _time_step(self, time: float | None) -> float:
        """Seconds since the last frame, 0 on the first one."""
        if self._time is None:
            self._time = 0.0 if time is None else time
            return 0.0
        now = self._time + 1 / self.frame_rate if time is None else time
        elapsed = now - self._time
        if not elapsed > 0:
            raise ValueError(f"time: expected more than the last frame's {self._time} s, got {now} s")
        self._time = now
        return elapsed

    def _predict(self, elapsed: float, affine: Tensor, labels: Tensor) -> TrackMemory:
        """The memory at this frame's time, in its pixels, with a column of logits for every class in it."""
        memory = self.memory
        self._class_count = max(self._class_count, int(labels.max()) + 1) if len(labels) else self._class_count
        class_logits = pad(memory.class_logits, (0, self._class_count - memory.class_logits.shape[1]))
        state = memory.state
        if not torch.equal(affine, identity_affine()):
            state = self.motion.apply_camera_motion(state, affine)
        state = self.motion.predict(state, torch.full_like(memory.time_since_update, elapsed))
        time_since_update = memory.time_since_update + elapsed
        return replace(memory, state=state, time_since_update=time_since_update, class_logits=class_logits)

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

    def _update_matched(self, memory: TrackMemory, rows: Tensor, detections: Detections) -> TrackMemory:
        """The memory after `rows` of it were given these detections, one each."""
        state = memory.state.clone()
        scores = memory.scores.clone()
        class_logits = memory.class_logits.clone()
        hits = memory.hits.clone()
        time_since_update = memory.time_since_update.clone()
        state[rows] = self.motion.update(state[rows], detections.boxes, detections.scores)
        scores[rows] = detections.scores
        class_logits[rows] = CLASS_DECAY * class_logits[rows] + self._class_logit_gain(detections)
        hits[rows] += 1
        time_since_update[rows] = 0.0
        confirmed = memory.confirmed | (hits >= self.min_hits)
        return TrackMemory(state, memory.ids, class_logits, scores, hits, time_since_update, confirmed)

    def _remove_lost(self, memory: TrackMemory) -> TrackMemory:
        """The memory without tracks past `max_age`, and without unconfirmed ones that were not matched at once."""
        matched = memory.time_since_update == 0
        alive = (memory.time_since_update <= self.max_age) & (memory.confirmed | matched)
        return memory if bool(alive.all()) else memory[alive]

    def _initiate(self, detections: Detections, confirmed: bool = False) -> TrackMemory:
        """New tracks, one for each detection."""
        count = len(detections)
        ids = torch.arange(self._next_id, self._next_id + count)
        self._next_id += count
        hits = torch.ones(count, dtype=torch.long)
        return TrackMemory(
            state=self.motion.initiate(detections.boxes, detections.scores),
            ids=ids,
            class_logits=self._class_logit_gain(detections),
            scores=detections.scores,
            hits=hits,
            time_since_update=torch.zeros(count),
            confirmed=(hits >= self.min_hits) | confirmed,
        )

    def _class_logit_gain(self, detections: Detections) -> Tensor:
        """(N, C) what each detection adds to its track's class logits, nats."""
        return CLASS_WEIGHT * detections.scores[:, None] * one_hot(detections.labels, self._class_count)

    def _output(self, memory: TrackMemory) -> Tracks:
        rows = (memory.confirmed & (memory.time_since_update == 0)).nonzero()[:, 0]
        boxes = box_convert(self.motion.project(memory.state[rows])[0], "cxcywh", "xyxy")
        return Tracks(boxes, memory.scores[rows], memory.class_logits[rows].argmax(1), memory.ids[rows])


def _networks(
    motion: Motion | None, association: Association | None, weights: str | Path | None
) -> tuple[Motion, Association]:
    if motion is not None:
        if weights is not None:
            raise ValueError(f"tracker.weights: {weights} would be ignored, expected either weights or a motion model")
        return motion, association or ByteAssociation()
    file = weights or SHIPPED
    loaded = load_motion(file)
    if association is None and holds(file, "association"):
        association = GraphAssociation(loaded, load_graph(file))
    return loaded, association or ByteAssociation()


def _concatenate(a: TrackMemory, b: TrackMemory) -> TrackMemory:
    return TrackMemory(*(torch.cat([getattr(a, f.name), getattr(b, f.name)]) for f in fields(TrackMemory)))
