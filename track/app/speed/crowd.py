"""Crowds of any size, to see how the cost of tracking grows with the number of objects."""

from __future__ import annotations

import numpy as np
import torch

from track.structures import Detections

SPACING = 40.0  # pixels of the scene's side for each object's: the density is the same in every crowd
WIDTHS, HEIGHTS = (14.0, 24.0), (34.0, 60.0)  # pixels
SPEED, TURN = 1.5, 0.15  # pixels per frame: standard deviation of the velocity, and of its change in a frame
NOISE, MISSED = 0.6, 0.08  # pixels of a detection's error, and the fraction of boxes that are not detected


def crowd_detections(count: int, frames: int, seed: int = 0) -> list[Detections]:
    """The detections of `count` boxes that walk about in a square, for each frame; the same for the same seed.

    Boxes turn back at the borders. Detections are noisy, in no order, and some boxes are missed.
    """
    rng = np.random.default_rng((seed, count))
    side = SPACING * np.ceil(np.sqrt(count)) + 2 * SPACING
    centres = rng.uniform(0, side, (count, 2))
    velocities = rng.normal(0, SPEED, (count, 2))
    sizes = np.stack([rng.uniform(*WIDTHS, count), rng.uniform(*HEIGHTS, count)], 1)
    found = []
    for _ in range(frames):
        velocities += rng.normal(0, TURN, velocities.shape)
        ahead = centres + velocities
        velocities[(ahead < 0) | (ahead > side)] *= -1
        centres += velocities
        rows = rng.permutation(count)[rng.random(count) >= MISSED]
        corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)[rows]
        boxes = corners + rng.normal(0, NOISE, corners.shape)
        scores = rng.uniform(0.35, 0.99, len(rows))
        columns = torch.from_numpy(boxes).float(), torch.from_numpy(scores).float(), torch.ones(len(rows)).long()
        found.append(Detections(*columns))
    return found
