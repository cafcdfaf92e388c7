"""Scenes that several tests of tracking share: boxes that move at constant velocity, and neighbours to associate."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from track.structures import Detections
from track.tracking.association import FrameDetections, TrackPredictions
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
    state = motion.predict(motion.initiate(boxes, torch.ones(count)), torch.full((count,), 1 / 30))
    return TrackPredictions(
        boxes=boxes.numpy(),
        sigma=np.full((count, 4), sigma, np.float32),
        state=state.numpy(),
        class_logits=np.tile(np.float32([0, 9]), (count, 1)),
        scores=np.full(count, 0.9, np.float32),
        hits=np.full(count, 5),
        time_since_update=np.full(count, 1 / 30, np.float32),
        confirmed=np.ones(count, bool),
        matched_last_frame=np.ones(count, bool),
    )


def arrays(detections: Detections) -> FrameDetections:
    """The detections as the association takes them."""
    return FrameDetections(detections.boxes.numpy(), detections.scores.numpy(), detections.labels.numpy())
