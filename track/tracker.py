"""The tracker: owns identities and the memory of the live tracks."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torchvision.ops import box_convert

from track.association import Association, Byte, Candidates
from track.motion import Motion, load_motion
from track.structures import Detections, Tracks


@dataclass(frozen=True)
class Memory:
    """The live tracks, a row each: birth is concatenation, death is a mask."""

    state: Tensor  # (N, S) the motion model's
    ids: Tensor  # (N,) int64
    labels: Tensor  # (N,) int64
    scores: Tensor  # (N,) of the last detection
    hits: Tensor  # (N,) detections so far
    missed: Tensor  # (N,) seconds since the last detection
    confirmed: Tensor  # (N,) bool: has been reported

    def __getitem__(self, rows: Tensor) -> Memory:
        return Memory(*(getattr(self, field.name)[rows] for field in fields(self)))


class Tracker:
    """Follows every object: feed it the detections of each frame in order, get back the tracks.

    motion: predicts boxes; by default the shipped GRU. association: decides pairs. new_score: a detection of at least
    this score starts a track. min_hits: detections before a track is reported (those of the very first frame are at
    once). max_age: seconds without a detection after which a track ends. frame_rate: assumed where `update` is not told
    the time.
    """

    def __init__(
        self,
        motion: Motion | None = None,
        association: Association | None = None,
        *,
        min_score: float = 0.1,
        new_score: float = 0.7,
        min_hits: int = 2,
        max_age: float = 1.0,
        frame_rate: float = 30.0,
    ) -> None:
        self.motion: Motion = motion or load_motion()
        self.association: Association = association or Byte()
        self.min_score, self.new_score = min_score, new_score
        self.min_hits, self.max_age, self.frame_rate = min_hits, max_age, frame_rate
        self.reset()

    def reset(self) -> None:
        """Forget every track: the next frame is the first of another video, and ids start again at 1."""
        self.time: float | None = None
        self.next_id = 1
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
        memory = self._advance(elapsed, camera)
        rows, columns = self.association(self._candidates(memory, elapsed), detections)
        memory = self._observe(memory, rows, detections[columns])
        alive = (memory.missed <= self.max_age) & (memory.confirmed | (memory.missed == 0))
        unmatched = torch.ones(len(detections), dtype=torch.bool)
        unmatched[columns] = False
        born = self._born(detections[unmatched & (detections.scores >= self.new_score)], first)
        self.memory = _cat(memory[alive], born)
        return self._report(self.memory)

    def _elapse(self, time: float | None) -> float:
        """Seconds since the last frame, 0 on the first one."""
        now = time if time is not None else 0.0 if self.time is None else self.time + 1 / self.frame_rate
        elapsed = 0.0 if self.time is None else now - self.time
        if self.time is not None and not elapsed > 0:
            raise ValueError(f"time: expected more than the last frame's {self.time} s, got {now} s")
        self.time = now
        return elapsed

    def _advance(self, elapsed: float, camera: Tensor | None) -> Memory:
        memory = self.memory
        state = memory.state if camera is None else self.motion.warp(memory.state, camera)
        state = self.motion.predict(state, torch.full_like(memory.missed, elapsed))
        return replace(memory, state=state, missed=memory.missed + elapsed)

    def _candidates(self, memory: Memory, elapsed: float) -> Candidates:
        position, sigma = self.motion.locate(memory.state)
        boxes = box_convert(position, "cxcywh", "xyxy")
        return Candidates(boxes, sigma, memory.labels, memory.confirmed, memory.missed <= elapsed)

    def _observe(self, memory: Memory, rows: Tensor, seen: Detections) -> Memory:
        state, scores = memory.state.clone(), memory.scores.clone()
        hits, missed = memory.hits.clone(), memory.missed.clone()
        state[rows] = self.motion.update(state[rows], seen.boxes, seen.scores)
        scores[rows] = seen.scores
        hits[rows] += 1
        missed[rows] = 0.0
        confirmed = memory.confirmed | (hits >= self.min_hits)
        return replace(memory, state=state, scores=scores, hits=hits, missed=missed, confirmed=confirmed)

    def _born(self, seen: Detections, first: bool = False) -> Memory:
        count = len(seen)
        ids = torch.arange(self.next_id, self.next_id + count)
        self.next_id += count
        hits = torch.ones(count, dtype=torch.long)
        confirmed = (hits >= self.min_hits) | first
        state = self.motion.start(seen.boxes, seen.scores)
        return Memory(state, ids, seen.labels, seen.scores, hits, torch.zeros(count), confirmed)

    def _report(self, memory: Memory) -> Tracks:
        memory = memory[memory.confirmed & (memory.missed == 0)]
        boxes = box_convert(self.motion.locate(memory.state)[0], "cxcywh", "xyxy")
        return Tracks(boxes, memory.scores, memory.labels, memory.ids)


def _cat(a: Memory, b: Memory) -> Memory:
    return Memory(*(torch.cat([getattr(a, field.name), getattr(b, field.name)]) for field in fields(Memory)))
