"""Variety for the episodes: what a detector would see of a truth, and other scenes made of the ones there are.

The detector's statistics were measured on YOLOX's detections of DanceTrack and MOT17, see docs/experiments.md.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from track.geometry import box_centers, compose_affines, invert_affine, occluded_fraction
from track.structures import Detections, Tracks
from track.tracking.association import assign

Boxes = TypeVar("Boxes", Detections, Tracks)
SEEN = 0.1  # detections of lower scores are dropped
SAME = 0.3  # IoU from which a box is somebody's: below the evaluator's 0.5, a poor box carries a track on all the same


@dataclass(frozen=True)
class Episode:
    """A stretch of video. truth: a `Tracks` a frame. seen: its detections. cameras: (2, 3) affines from the frame
    before, or None where they are unknown. times: seconds."""

    truth: list[Tracks]
    seen: list[Detections]
    cameras: list[Tensor] | None
    times: list[float]


def people(frame: Tracks) -> Tracks:
    """The ground truth that a tracker must follow."""
    return frame[(frame.labels == 1) & (frame.scores > 0)]


def skip(episode: Episode, kept: list[int]) -> Episode:
    """The frames `kept` alone, as from a slower camera or with dropped frames."""
    cameras = episode.cameras
    if cameras is not None:
        ends = [kept[0], *kept]
        cameras = [compose_affines(cameras[a + 1 : b + 1]) for a, b in zip(ends, kept, strict=False)]
    truth, seen = [episode.truth[k] for k in kept], [episode.seen[k] for k in kept]
    return Episode(truth, seen, cameras, [episode.times[k] for k in kept])


def mirror(episode: Episode) -> Episode:
    """Left becomes right."""
    truth, seen = [_mirror(frame) for frame in episode.truth], [_mirror(frame) for frame in episode.seen]
    sign = torch.tensor([[1.0, -1, -1], [-1, 1, 1]])
    return Episode(truth, seen, episode.cameras and [sign * camera for camera in episode.cameras], episode.times)


def reverse(episode: Episode) -> Episode:
    """The last frame first."""
    cameras = episode.cameras
    if cameras is not None:
        cameras = [torch.eye(2, 3), *(invert_affine(camera) for camera in cameras[:0:-1])]
    end = episode.times[-1]
    return Episode(episode.truth[::-1], episode.seen[::-1], cameras, [end - time for time in episode.times[::-1]])


def mix(truth: list[Tracks], other: list[Tracks], rng: np.random.Generator) -> list[Tracks]:
    """Two crowds in one place: the other scaled to this one's size and moved onto it, maybe mirrored or reversed."""
    if rng.random() < 0.5:
        other = [_mirror(frame) for frame in other]
    if rng.random() < 0.5:
        other = other[::-1]
    (middle, height), (far, high) = _middle(truth), _middle(other)
    scale = float(height / high) * rng.uniform(0.8, 1.25)
    shift = (
        middle + height * torch.tensor([0.7, 0.1]) * torch.from_numpy(rng.normal(size=2)).float() - far * scale
    ).repeat(2)
    first = 1 + max(int(frame.ids.max()) if len(frame) else 0 for frame in truth)
    other = [replace(frame, boxes=frame.boxes * scale + shift, ids=frame.ids + first) for frame in other[: len(truth)]]
    other += [Tracks.empty()] * (len(truth) - len(other))
    return [Tracks.cat([a, b]) for a, b in zip(truth, other, strict=True)]


def squeeze(truth: list[Tracks], rng: np.random.Generator) -> list[Tracks]:
    """The same people nearer to each other."""
    middle, _ = _middle(truth)
    apart = 1 - rng.uniform(0.35, 1.0)
    return [
        replace(frame, boxes=frame.boxes + (apart * (middle - box_centers(frame.boxes))).repeat(1, 2))
        for frame in truth
    ]


def simulate(truth: list[Tracks], rng: np.random.Generator) -> list[Detections]:
    """What a detector sees of people: who is covered by somebody nearer scores lower, is off by more and is missed at
    times, all of it correlated from frame to frame; some boxes are false."""
    drift: dict[int, np.ndarray] = defaultdict(lambda: rng.normal(size=6))
    strength, shake, lower = rng.uniform(0.6, 2.5), rng.uniform(0.4, 1.2), rng.uniform(0, 1.2)
    rate, result = rng.uniform(0.1, 1.2), []
    ghosts = _static_false_positives(truth, rng)
    plain, hidden = torch.tensor([0.03, 0.018, 0.065, 0.036]), torch.tensor([0.055, 0.04, 0.12, 0.09])
    for frame, false in zip(truth, ghosts, strict=True):
        for k in frame.ids.tolist():
            drift[k] = 0.8 * drift[k] + 0.6 * rng.normal(size=6)
        slow = np.array([drift[k] for k in frame.ids.tolist()]).reshape(-1, 6)
        noise = torch.from_numpy(0.9 * slow + 0.44 * rng.normal(size=slow.shape)).float()
        cover = occluded_fraction(frame.boxes)
        logit = 3.2 - lower - strength * (1.5 * cover + 0.8 * cover**2) + (0.7 + 0.8 * cover) * noise[:, 4]
        missed = torch.special.ndtr(noise[:, 5]) < strength * (0.005 + 0.25 * cover**4)
        boxes = _jitter(frame.boxes, shake * (plain + cover[:, None] * hidden) * noise[:, :4])
        seen = Detections(boxes, logit.sigmoid(), frame.labels)[~missed & (logit.sigmoid() > SEEN)]
        result.append(Detections.cat([seen, false, _clutter(seen, rng, rate)]))
    return result


def degrade(seen: list[Detections], truth: list[Tracks], rng: np.random.Generator) -> list[Detections]:
    """Detections as of a network that never saw the footage: lower scores where somebody is hidden, noise, misses."""
    drift: dict[int, np.ndarray] = defaultdict(lambda: rng.normal(size=5))
    strength, result = rng.uniform(0.3, 1.3), []
    for frame, real in zip(seen, truth, strict=True):
        whose = match(frame.boxes, real).tolist()
        noise = torch.from_numpy(
            np.array([drift[k] if k >= 0 else rng.normal(size=5) for k in whose]).reshape(-1, 5)
        ).float()
        for k in whose:
            drift[k] = 0.9 * drift[k] + 0.44 * rng.normal(size=5)
        cover = occluded_fraction(frame.boxes)
        logit = frame.scores.logit(1e-3) - strength * (0.5 + 2.0 * cover - noise[:, 4])
        white = torch.from_numpy(rng.normal(size=(len(frame), 4))).float()
        boxes = _jitter(frame.boxes, strength * 0.012 * (1 + 2 * cover)[:, None] * (noise[:, :4] + white))
        one = Detections(boxes, logit.sigmoid(), frame.labels)[logit.sigmoid() > SEEN]
        result.append(Detections.cat([one, _clutter(one, rng, 0.15 * strength)]))
    return result


def relabel(episode: Episode, rng: np.random.Generator, classes: int = 4) -> Episode:
    """Objects of several classes, whose detections are given a wrong one at times."""
    kind: dict[int, int] = defaultdict(lambda: int(rng.integers(classes)))
    flicker, seen = rng.choice([0.0, 0.1, 0.3]), []
    for frame, truth in zip(episode.seen, episode.truth, strict=True):
        labels = np.array([kind[k] for k in match(frame.boxes, truth).tolist()], dtype=np.int64)
        wrong = rng.random(len(labels)) < flicker
        labels[wrong] = rng.integers(classes, size=wrong.sum())
        seen.append(replace(frame, labels=torch.from_numpy(labels)))
    return replace(episode, seen=seen)


def match(boxes: Tensor, truth: Tracks) -> Tensor:
    """(N,) whose each box is, by one-to-one matching at IoU `SAME`; -1 where nobody's."""
    i, j = assign(box_iou(truth.boxes, boxes).nan_to_num(0.0), SAME)
    whose = torch.full((len(boxes),), -1)
    whose[j] = truth.ids[i]
    return whose


def _clutter(seen: Detections, rng: np.random.Generator, rate: float) -> Detections:
    """False boxes near true ones: two people in one box, parts of one."""
    count = min(len(seen), rng.poisson(rate))
    some = seen[torch.from_numpy(rng.permutation(len(seen))[:count])]
    size = (some.boxes[:, 2:] - some.boxes[:, :2]).repeat(1, 2)
    boxes = some.boxes + 0.25 * size * torch.from_numpy(rng.normal(size=(count, 4))).float()
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 4)
    return Detections(boxes, torch.from_numpy(rng.uniform(SEEN, 0.6, count)).float(), some.labels)


def _static_false_positives(truth: list[Tracks], rng: np.random.Generator) -> list[Detections]:
    """False boxes that stay where they are for a while, a frame's each: a statue, a picture, a reflection."""
    everybody = Tracks.cat(truth)
    if not len(everybody):
        return [Detections.empty()] * len(truth)
    count = rng.poisson(rng.uniform(0, 8))
    some = everybody[torch.from_numpy(rng.integers(len(everybody), size=count))]
    low, high = everybody.boxes[:, :2].amin(0), everybody.boxes[:, 2:].amax(0)
    size = (some.boxes[:, 2:] - some.boxes[:, :2]) * torch.from_numpy(rng.uniform(0.6, 1.3, (count, 1))).float()
    corner = low + (high - low - size) * torch.from_numpy(rng.random((count, 2))).float()
    boxes = torch.cat([corner, corner + size], 1)
    start, last = rng.uniform(-100, len(truth), count), rng.exponential(80, count)
    logit, often = rng.normal(-1.0, 0.8, count), rng.uniform(0.2, 1.0, count)
    result = []
    for f in range(len(truth)):
        there = (f >= start) & (f < start + last) & (rng.random(count) < often)
        rows = torch.from_numpy(there.nonzero()[0])
        scores = torch.from_numpy(logit[there] + rng.normal(0, 0.4, len(rows))).float().sigmoid()
        noise = 0.02 * torch.from_numpy(rng.normal(size=(len(rows), 4))).float()
        found = Detections(_jitter(boxes[rows], noise), scores, some.labels[rows])
        result.append(found[found.scores > SEEN])
    return result


def _jitter(boxes: Tensor, noise: Tensor) -> Tensor:
    """Boxes whose centre, width and height are off by so much of their size."""
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    centre = box_centers(boxes) + noise[:, :2] * size
    half = (size * (1 + noise[:, 2:])).clamp(min=2) / 2
    return torch.cat([centre - half, centre + half], 1)


def _middle(truth: list[Tracks]) -> tuple[Tensor, Tensor]:
    """(2,) where the crowd is, and its median height, pixels; of no people, of one in a corner."""
    boxes = torch.cat([frame.boxes for frame in truth] or [torch.zeros(0, 4)])
    boxes = boxes if len(boxes) else torch.tensor([[0.0, 0, 50, 100]])
    return box_centers(boxes).median(0).values, (boxes[:, 3] - boxes[:, 1]).median()


def _mirror(frame: Boxes) -> Boxes:
    return replace(frame, boxes=frame.boxes[:, [2, 1, 0, 3]] * frame.boxes.new_tensor([-1.0, 1, -1, 1]))
