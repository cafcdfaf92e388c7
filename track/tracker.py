"""The tracker: owns identities and the memory of the live tracks."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad
from torchvision.ops import box_convert

from track.association import Association, Byte, Candidates, Decision
from track.checkpoint import holds
from track.graph import Learned, load_graph
from track.motion import SHIPPED, Motion, load_motion
from track.structures import Detections, Tracks

EVIDENCE, EVIDENCE_KEPT = 2.0, 0.9  # of a detection of score 1 for its class, nats; what remains at the next one


@dataclass(frozen=True)
class Memory:
    """The live tracks, a row each: birth is concatenation, death is a mask."""

    state: Tensor  # (N, S) the motion model's
    ids: Tensor  # (N,) int64
    evidence: Tensor  # (N, C) for each class, nats
    scores: Tensor  # (N,) of the last detection
    hits: Tensor  # (N,) detections so far
    missed: Tensor  # (N,) seconds since the last detection
    confirmed: Tensor  # (N,) bool: has been reported

    def __getitem__(self, rows: Tensor) -> Memory:
        return Memory(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class Reasons:
    """What a frame was decided by, to see why an identity switched. ids: (T,) of the live tracks, in whose rows
    `candidates` has their predictions; detections: those above `min_score`."""

    ids: Tensor
    candidates: Candidates
    detections: Detections
    decision: Decision


class Tracker:
    """Follows every object: feed it the detections of each frame in order, get back the tracks.

    motion: predicts boxes. association: decides pairs and newcomers. Where motion is not given, it comes from the file
    `weights` (default: the shipped networks), and so does association if the file has one; otherwise it is BYTE.
    min_hits: detections before a track is reported (those of the very first frame are at once). max_age: seconds
    without a detection after which a track ends. frame_rate: assumed where `update` is not told the time.
    `reasons` are the last frame's.
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
        self.motion, self.association = _networks(motion, association, weights or SHIPPED)
        self.min_score, self.min_hits, self.max_age, self.frame_rate = min_score, min_hits, max_age, frame_rate
        self.reset()

    def reset(self) -> None:
        """Forget every track: the next frame is the first of another video, and ids start again at 1."""
        self.time: float | None = None
        self.next_id, self.classes = 1, 1
        self.memory = self._born(Detections.empty())

    @torch.inference_mode()
    def update(self, detections: Detections, time: float | None = None, camera: Tensor | None = None) -> Tracks:
        """The tracks seen in this frame, from its detections.

        time: seconds, later than the last frame's; by default one frame after it. camera: (2, 3) affine from the
        previous frame's pixels to this frame's. ValueError where time does not increase.
        """
        first = self.time is None
        elapsed = self._elapse(time)
        detections = detections[detections.scores >= self.min_score]
        memory = self._advance(elapsed, camera, detections.labels)
        candidates = self._candidates(memory, elapsed)
        decision = self.association(candidates, detections)
        self.reasons = Reasons(memory.ids, candidates, detections, decision)
        memory = self._observe(memory, decision.tracks, detections[decision.detections])
        alive = (memory.missed <= self.max_age) & (memory.confirmed | (memory.missed == 0))
        self.memory = memory if bool(alive.all()) else memory[alive]
        if len(decision.newcomers):  # seldom, and a third of a millisecond
            self.memory = _cat(self.memory, self._born(detections[decision.newcomers], first))
        return self._report(self.memory)

    def _elapse(self, time: float | None) -> float:
        """Seconds since the last frame, 0 on the first one."""
        now = time if time is not None else 0.0 if self.time is None else self.time + 1 / self.frame_rate
        elapsed = 0.0 if self.time is None else now - self.time
        if self.time is not None and not elapsed > 0:
            raise ValueError(f"time: expected more than the last frame's {self.time} s, got {now} s")
        self.time = now
        return elapsed

    def _advance(self, elapsed: float, camera: Tensor | None, labels: Tensor) -> Memory:
        """The memory at this frame's time, in its pixels, with a column of evidence for every class in it."""
        memory = self.memory
        self.classes = max(self.classes, int(labels.max()) + 1) if len(labels) else self.classes
        evidence = pad(memory.evidence, (0, self.classes - memory.evidence.shape[1]))
        state = memory.state if camera is None else self.motion.warp(memory.state, camera)
        state = self.motion.predict(state, torch.full_like(memory.missed, elapsed))
        return replace(memory, state=state, missed=memory.missed + elapsed, evidence=evidence)

    def _candidates(self, memory: Memory, elapsed: float) -> Candidates:
        position, sigma = self.motion.locate(memory.state)
        boxes, labels = box_convert(position, "cxcywh", "xyxy"), memory.evidence.argmax(1)
        rest = memory.scores, memory.hits, memory.missed, memory.confirmed, memory.missed <= elapsed
        return Candidates(boxes, sigma, memory.state, labels, memory.evidence, *rest)

    def _observe(self, memory: Memory, rows: Tensor, seen: Detections) -> Memory:
        state, scores, evidence = memory.state.clone(), memory.scores.clone(), memory.evidence.clone()
        hits, missed = memory.hits.clone(), memory.missed.clone()
        state[rows] = self.motion.update(state[rows], seen.boxes, seen.scores)
        scores[rows] = seen.scores
        evidence[rows] = EVIDENCE_KEPT * evidence[rows] + self._vote(seen)
        hits[rows] += 1
        missed[rows] = 0.0
        confirmed = memory.confirmed | (hits >= self.min_hits)
        return Memory(state, memory.ids, evidence, scores, hits, missed, confirmed)

    def _born(self, seen: Detections, first: bool = False) -> Memory:
        count = len(seen)
        ids = torch.arange(self.next_id, self.next_id + count)
        self.next_id += count
        hits = torch.ones(count, dtype=torch.long)
        confirmed = (hits >= self.min_hits) | first
        state = self.motion.start(seen.boxes, seen.scores)
        return Memory(state, ids, self._vote(seen), seen.scores, hits, torch.zeros(count), confirmed)

    def _vote(self, seen: Detections) -> Tensor:
        """(N, C) what one detection says of an object's class, nats."""
        return EVIDENCE * seen.scores[:, None] * one_hot(seen.labels, self.classes)

    def _report(self, memory: Memory) -> Tracks:
        rows = (memory.confirmed & (memory.missed == 0)).nonzero()[:, 0]
        boxes = box_convert(self.motion.locate(memory.state[rows])[0], "cxcywh", "xyxy")
        return Tracks(boxes, memory.scores[rows], memory.evidence[rows].argmax(1), memory.ids[rows])


def _networks(
    motion: Motion | None, association: Association | None, weights: str | Path
) -> tuple[Motion, Association]:
    if motion is not None:
        return motion, association or Byte()
    loaded = load_motion(weights)
    learned = association is None and holds(weights, "association")
    return loaded, Learned(loaded, load_graph(weights)) if learned else association or Byte()


def _cat(a: Memory, b: Memory) -> Memory:
    return Memory(*(torch.cat([getattr(a, field.name), getattr(b, field.name)]) for field in fields(Memory)))
