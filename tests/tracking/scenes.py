"""Scenes that several tests of tracking share: boxes that move at constant velocity, and neighbours to associate."""

from __future__ import annotations

import torch
from torch import Tensor

from track.structures import Detections
from track.tracking.association import TrackPredictions
from track.tracking.motion import Motion
from track.tracking.recurrent import RecurrentMotion

BOXES = torch.tensor([[10.0, 20, 30, 80], [100, 100, 150, 220], [5, 5, 9, 17]])
SCORES = torch.tensor([0.9, 0.5, 0.7])
VELOCITY = torch.tensor([3.0, 1, 3, 1])  # pixels per frame

NEIGHBOURS = torch.tensor([[0.0, 0, 20, 40], [15, 0, 35, 42], [200, 10, 220, 50]])  # two that overlap, one apart
DETECTED = Detections.from_rows([[16, 0, 36, 42, 0.9, 1], [1, 0, 21, 40, 0.8, 1], [201, 10, 221, 50, 0.6, 1]])


def observe_moving_boxes(motion: Motion, frames: int = 6, elapsed: float = 1 / 30) -> Tensor:
    """The state after BOXES moved at VELOCITY for some frames."""
    state = motion.initiate(BOXES, SCORES)
    for frame in range(1, frames):
        state = motion.predict(state, torch.full((3,), elapsed))
        state = motion.update(state, BOXES + frame * VELOCITY, SCORES)
    return state


def predictions_of(motion: RecurrentMotion, boxes: Tensor = NEIGHBOURS, sigma: float = 1.0) -> TrackPredictions:
    """Confirmed tracks that were at `boxes` in the previous frame and are predicted to stay there."""
    count = len(boxes)
    state = motion.initiate(boxes, torch.ones(count))
    return TrackPredictions(
        boxes=boxes,
        sigma=torch.full_like(boxes, sigma),
        state=motion.predict(state, torch.full((count,), 1 / 30)),
        labels=torch.ones(count, dtype=torch.long),
        class_logits=torch.tensor([0.0, 9.0]).expand(count, 2),
        scores=torch.full((count,), 0.9),
        hits=torch.full((count,), 5),
        time_since_update=torch.full((count,), 1 / 30),
        confirmed=torch.ones(count, dtype=torch.bool),
        matched_last_frame=torch.ones(count, dtype=torch.bool),
    )
