"""Existence: whether a track is a real object, as log-odds that are carried from frame to frame.

A single box says too little: tracks start silently on doubtful detections, and what is observed of a track while it
lives decides in every frame whether it is reported.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from torch import nn

from track.checkpoint import holds, load

EVIDENCE = (  # of each detection
    "objectness",  # log-odds of being an object
    "score",
    "affinity",  # to its track, 0 without one
    "overlap",  # the largest IoU with another detection
)
MEMORY_SIZE = 2 + 3 * len(EVIDENCE)  # frames, hits, then of each evidence the mean, a moving average and the last
FEATURES = 4 + 3 * len(EVIDENCE)
HYSTERESIS = 0.5  # nats above the threshold at which a track is first reported, and below it at which it is no longer
EMA_RATE = 0.1  # of the moving average, per detection
MIN_SILENT = 0.35  # probability of a new object from which a detection starts a track, silent at first

USUAL_LEVEL = 0.9  # the best score in a frame of a usual detector
LEVEL_DELAY = 0.299  # seconds with detections before the level is trusted; no sum of usual intervals, which are rounded
LEVEL_TIME = 10.0  # seconds after which a detection's weight in the level has decayed to 1/e


class Existence(nn.Module):
    """Logistic regression on what was observed of each track so far; its memory has one row per track."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, 1)

    def log_odds(self, memory: np.ndarray, lift: float = 1.0) -> np.ndarray:
        """(N,) that each track is a real object. memory: (N, MEMORY_SIZE). lift: of `ScoreLevel`."""
        weight, bias = (parameter.numpy(force=True) for parameter in self.linear.parameters())
        return np.asarray(features(memory, lift) @ weight[0] + bias)


def initiate(count: int) -> np.ndarray:
    """(count, MEMORY_SIZE) the memory of tracks of which nothing was observed yet."""
    return np.zeros((count, MEMORY_SIZE), np.float32)


def update(memory: np.ndarray, matched: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """The memory (N, MEMORY_SIZE) after one more frame.

    matched: (M,) rows of the tracks with a detection. observed: (M, len(EVIDENCE)) the evidence of these detections.
    """
    memory = memory.copy()
    memory[:, 0] += 1
    memory[matched, 1] += 1
    rows = memory.take(matched, 0)
    share = 1 / rows[:, 1:2]
    mean, average, _ = np.split(rows[:, 2:], 3, 1)
    mean = mean + share * (observed - mean)
    average = average + np.maximum(share, np.float32(EMA_RATE)) * (observed - average)
    memory[matched, 2:] = np.concatenate([mean, average, observed], 1)
    return memory


def features(memory: np.ndarray, lift: float = 1.0) -> np.ndarray:
    """(N, FEATURES): 1 - 1 / lift and 1, both divided by the number of detections; log of that number; fraction of
    frames without a detection; the evidence."""
    hits = np.maximum(memory[:, 1:2], 1)
    missed = 1 - hits / np.maximum(memory[:, :1], 1)
    return np.concatenate([np.float32(1 - 1 / lift) / hits, 1 / hits, np.log(hits), missed, memory[:, 2:]], 1)


class ScoreLevel:
    """The best score that a detector usually gives in this video, a moving average over the frames with detections.

    Where it is low, scores are lifted to those of a usual detector: a lone object of score 0.3 is the best there is,
    beside an object of score 0.9 it is a doubtful one.
    """

    def __init__(self) -> None:
        self.lift = 1.0  # that scores are multiplied by
        self._total = self._weight = self._seconds = 0.0

    def update(self, scores: np.ndarray, elapsed: float) -> None:
        """Take in the scores (N,) of the next frame. elapsed: seconds since the last one."""
        decay = math.exp(-elapsed / LEVEL_TIME)
        self._total *= decay
        self._weight *= decay
        if not len(scores):
            return
        self._total += float(scores.max())
        self._weight += 1
        self._seconds += elapsed
        if self._seconds >= LEVEL_DELAY:
            self.lift = max(1.0, USUAL_LEVEL * self._weight / max(self._total, 1e-6))

    def lifted(self, scores: np.ndarray) -> np.ndarray:
        """The scores (N,) as a usual detector would give them."""
        return np.minimum(scores * np.float32(self.lift), 1) if self.lift > 1 else scores


def load_existence(path: str | Path) -> Existence | None:
    """The existence model in a file of weights, frozen; None if it has none."""
    return load(path, "existence", Existence)[0] if holds(path, "existence") else None
