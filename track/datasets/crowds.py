"""Crowds that nobody filmed: trajectories of walkers, dancers and players, for weights that are free of any data set.

People move on a floor, in metres; a camera above it sees their boxes. Who covers whom, and what a detector makes of it,
is left to `track.training.simulation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from track.formats.mot import write_sequence

WIDTH, HEIGHT = 1920, 1080


@dataclass(frozen=True)
class CrowdProfile:
    """How a kind of crowd moves. Lengths in metres, times in seconds; pairs are ranges that a scene is drawn from."""

    people: tuple[int, int]
    depth: tuple[float, float]  # of the floor that they are on, from the camera
    camera: tuple[float, float]  # its height
    steady: float  # standard deviation of the velocity that each keeps
    still: float  # part of the people that keep none and stand
    restless: float  # of what is added to it
    patience: float  # how long that lasts
    home: float  # how strongly each is drawn back to a place of his own, 1 / s^2
    together: float  # standard deviation of the velocity that all share
    width: float  # standard deviation of the box's width, as a part of it: arms and legs
    height: float  # and of its height


CROWDS = {
    "walkers": CrowdProfile((15, 70), (4, 30), (1.5, 6), 0.9, 0.4, 0.15, 1.0, 0.0, 0.0, 0.08, 0.01),
    "dancers": CrowdProfile((4, 20), (5, 11), (1.2, 2.5), 0.05, 0.0, 0.6, 0.6, 0.5, 0.4, 0.13, 0.04),
    "players": CrowdProfile((10, 24), (12, 40), (5, 11), 0.3, 0.0, 1.6, 0.9, 0.03, 0.8, 0.18, 0.05),
}


def make_crowds(root: str | Path, sequences: int, frames: int = 400, seed: int = 0) -> Path:
    """Write `sequences` MOTChallenge folders (seqinfo.ini, gt/gt.txt, gmc.txt), kinds in turn, and return root."""
    for number in range(sequences):
        kind = list(CROWDS)[number % len(CROWDS)]
        rng = np.random.default_rng((seed, number))
        rate = float(rng.choice([20, 25, 30]))
        boxes, shifts = crowd(CROWDS[kind], frames, rate, rng)
        cameras = np.tile(np.eye(2, 3), (frames, 1, 1))
        cameras[1:, :, 2] = np.diff(shifts, axis=0)
        boxes = boxes + np.concatenate([shifts, shifts], 1)[:, None]
        write_sequence(Path(root) / f"{kind}-{seed:02d}-{number:03d}", boxes, cameras, rate, WIDTH, HEIGHT)
    return Path(root)


def crowd(scene: CrowdProfile, frames: int, rate: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (F, N, 4) xyxy pixels as of a camera that stands, NaN out of view, and how far it pans (F, 2) pixels."""
    count = int(rng.integers(*scene.people))
    focal, above = WIDTH * rng.uniform(0.7, 1.3), rng.uniform(*scene.camera)
    floor = _walk(scene, count, frames, rate, focal, rng)
    across, depth = floor[..., 0], floor[..., 1].clip(2)
    tall = rng.normal(1.72, 0.1, count) * (1 + scene.height * _restless(frames, count, 0.4, rate, rng))
    wide = 0.38 * tall * np.exp(scene.width * _restless(frames, count, 0.4, rate, rng) + rng.normal(0, 0.1, count))
    x = WIDTH / 2 + focal * across / depth
    feet = HEIGHT * rng.uniform(0.15, 0.35) + focal * above / depth
    boxes = np.stack([x - focal * wide / depth / 2, feet - focal * tall / depth, x + focal * wide / depth / 2, feet], 2)
    shifts = rng.choice([0, 1]) * np.cumsum(rng.uniform(1, 8) * _restless(frames, 2, 1.0, rate, rng) * [1, 0.2], 0)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2 + shifts[:, None]
    seen = ((middle > 0) & (middle < [WIDTH, HEIGHT])).all(2)
    return np.where(seen[..., None], boxes, np.nan), shifts


def _walk(
    scene: CrowdProfile, count: int, frames: int, rate: float, focal: float, rng: np.random.Generator
) -> np.ndarray:
    """(F, N, 2) where everybody stands: metres to the right of the camera, and away from it."""
    near, far = scene.depth
    depth = rng.uniform(near, far, count)
    half = 0.5 * WIDTH / focal * (depth if scene.home == 0 else np.full(count, (near + far) / 2))
    position = np.stack([rng.uniform(-half, half) * (0.7 if scene.home else 2.0), depth], 1)
    home, steady = position.copy(), rng.normal(0, scene.steady, (count, 2)) * [1.0, 0.5]
    moving = rng.random((count, 1)) >= scene.still
    steady = steady * moving
    restless = (
        (0.2 + 0.8 * moving)
        * scene.restless
        * _restless(frames, 2 * count, scene.patience, rate, rng).reshape(frames, count, 2)
    )
    shared = scene.together * _restless(frames, 2, 1.0, rate, rng)
    pull, path = np.zeros((count, 2)), np.empty((frames, count, 2))
    for frame in range(frames):
        path[frame] = position
        pull = 0.98 * pull + scene.home * (home - position) / rate
        position = position + (steady + pull + restless[frame] + shared[frame]) / rate
        back = (position[:, 1] < near) | (position[:, 1] > far)
        steady[back, 1] *= -1
        position[:, 1] = position[:, 1].clip(near, far)
    return path


def ornstein_uhlenbeck(kept: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(F, count) noise of variance 1, of which a frame keeps `kept` (F,) of the frame before: Ornstein and Uhlenbeck's
    where that is the same in every frame."""
    noise = rng.normal(size=(len(kept), count))
    for frame in range(1, len(kept)):
        noise[frame] = kept[frame] * noise[frame - 1] + np.sqrt(1 - kept[frame] ** 2) * noise[frame]
    return noise


def _restless(frames: int, count: int, patience: float, rate: float, rng: np.random.Generator) -> np.ndarray:
    """(F, count) noise that is forgotten over `patience` seconds."""
    return ornstein_uhlenbeck(np.full(frames, np.exp(-1 / rate / patience)), count, rng)
