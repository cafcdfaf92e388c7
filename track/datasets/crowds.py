"""Simulated crowds: trajectories of walkers, dancers and players, for weights without data-set restrictions.

People move on a floor, in metres, and a camera above it sees their boxes. Occlusions and detection errors are added by
`track.training.simulation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from track.formats.mot import write_sequence

WIDTH, HEIGHT = 1920, 1080  # pixels


@dataclass(frozen=True)
class CrowdProfile:
    """How a kind of crowd moves. Lengths in metres, times in seconds; pairs are ranges to draw from.

    people: how many. depth: of the floor, from the camera. camera_height: above the floor. standing: fraction of the
    people that have no lasting velocity. walk, wander, shared: standard deviations of the velocity that a person keeps,
    of one that varies over wander_time, and of one that all have in common. attraction: towards each person's own
    place, 1 / s^2. box_width, box_height: standard deviations of the box's size as a fraction of it, by arms and legs.
    """

    people: tuple[int, int]
    depth: tuple[float, float]
    camera_height: tuple[float, float]
    walk: float
    standing: float
    wander: float
    wander_time: float
    attraction: float
    shared: float
    box_width: float
    box_height: float


CROWDS = {
    "walkers": CrowdProfile((15, 70), (4, 30), (1.5, 6), 0.9, 0.4, 0.15, 1.0, 0.0, 0.0, 0.08, 0.01),
    "dancers": CrowdProfile((4, 20), (5, 11), (1.2, 2.5), 0.05, 0.0, 0.6, 0.6, 0.5, 0.4, 0.13, 0.04),
    "players": CrowdProfile((10, 24), (12, 40), (5, 11), 0.3, 0.0, 1.6, 0.9, 0.03, 0.8, 0.18, 0.05),
}


def make_crowds(root: str | Path, sequences: int, frames: int = 400, seed: int = 0) -> Path:
    """Write `sequences` MOTChallenge folders (seqinfo.ini, gt/gt.txt, gmc.txt), crowds in turn, and return `root`."""
    for number in range(sequences):
        kind = list(CROWDS)[number % len(CROWDS)]
        rng = np.random.default_rng((seed, number))
        frame_rate = float(rng.choice([20, 25, 30]))
        boxes, shifts = crowd(CROWDS[kind], frames, frame_rate, rng)
        affines = np.tile(np.eye(2, 3), (frames, 1, 1))
        affines[1:, :, 2] = np.diff(shifts, axis=0)
        boxes = boxes + np.concatenate([shifts, shifts], 1)[:, None]
        write_sequence(Path(root) / f"{kind}-{seed:02d}-{number:03d}", boxes, affines, frame_rate, WIDTH, HEIGHT)
    return Path(root)


def crowd(
    profile: CrowdProfile, frames: int, frame_rate: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (F, N, 4) xyxy pixels seen by a static camera, NaN outside the image, and its pan (F, 2) in pixels."""
    count = int(rng.integers(*profile.people))
    focal = WIDTH * rng.uniform(0.7, 1.3)
    camera_height = rng.uniform(*profile.camera_height)
    floor = _walk(profile, count, frames, frame_rate, focal, rng)
    across = floor[..., 0]
    depth = floor[..., 1].clip(2)
    height = rng.normal(1.72, 0.1, count)
    limbs = _correlated_noise(frames, count, 0.4, frame_rate, rng)
    height = height * (1 + profile.box_height * limbs)
    limbs = _correlated_noise(frames, count, 0.4, frame_rate, rng)
    width = 0.38 * height * np.exp(profile.box_width * limbs + rng.normal(0, 0.1, count))
    x = WIDTH / 2 + focal * across / depth
    feet = HEIGHT * rng.uniform(0.15, 0.35) + focal * camera_height / depth
    half = focal * width / depth / 2
    boxes = np.stack([x - half, feet - focal * height / depth, x + half, feet], 2)
    pans = rng.choice([0, 1])
    speed = rng.uniform(1, 8)
    shifts = pans * np.cumsum(speed * _correlated_noise(frames, 2, 1.0, frame_rate, rng) * [1, 0.2], 0)
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2 + shifts[:, None]
    visible = ((centres > 0) & (centres < [WIDTH, HEIGHT])).all(2)
    return np.where(visible[..., None], boxes, np.nan), shifts


def _walk(
    profile: CrowdProfile, count: int, frames: int, frame_rate: float, focal: float, rng: np.random.Generator
) -> np.ndarray:
    """(F, N, 2) positions on the floor: metres to the right of the camera, and away from it."""
    near, far = profile.depth
    depth = rng.uniform(near, far, count)
    if profile.attraction:
        half_width = 0.5 * WIDTH / focal * np.full(count, (near + far) / 2)
        spread = 0.7
    else:
        half_width = 0.5 * WIDTH / focal * depth
        spread = 2.0
    position = np.stack([rng.uniform(-half_width, half_width) * spread, depth], 1)
    home = position.copy()
    walk = rng.normal(0, profile.walk, (count, 2)) * [1.0, 0.5]
    moving = rng.random((count, 1)) >= profile.standing
    walk = walk * moving
    noise = _correlated_noise(frames, 2 * count, profile.wander_time, frame_rate, rng)
    wander = (0.2 + 0.8 * moving) * profile.wander * noise.reshape(frames, count, 2)
    shared = profile.shared * _correlated_noise(frames, 2, 1.0, frame_rate, rng)
    pull = np.zeros((count, 2))
    path = np.empty((frames, count, 2))
    for frame in range(frames):
        path[frame] = position
        pull = 0.98 * pull + profile.attraction * (home - position) / frame_rate
        position = position + (walk + pull + wander[frame] + shared[frame]) / frame_rate
        outside = (position[:, 1] < near) | (position[:, 1] > far)
        walk[outside, 1] *= -1
        position[:, 1] = position[:, 1].clip(near, far)
    return path


def ornstein_uhlenbeck(correlation: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(F, count) noise of variance 1, each frame correlated with the frame before by `correlation` (F,).

    With the same correlation in every frame it is a discretised Ornstein-Uhlenbeck process.
    """
    noise = rng.normal(size=(len(correlation), count))
    for frame in range(1, len(correlation)):
        innovation = np.sqrt(1 - correlation[frame] ** 2) * noise[frame]
        noise[frame] = correlation[frame] * noise[frame - 1] + innovation
    return noise


def _correlated_noise(
    frames: int, count: int, time_constant: float, frame_rate: float, rng: np.random.Generator
) -> np.ndarray:
    """(F, count) Ornstein-Uhlenbeck noise of variance 1 whose correlation decays over `time_constant` seconds."""
    return ornstein_uhlenbeck(np.full(frames, np.exp(-1 / frame_rate / time_constant)), count, rng)
