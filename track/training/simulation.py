"""Simulated detections and augmented scenes: variety for the episodes that association is trained on.

The detector's error statistics were measured on YOLOX's detections of DanceTrack and MOT17; see docs/experiments.md.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from track.geometry import box_centers, compose_affines, identity_affine, invert_affine, occluded_fraction
from track.structures import Detections, Tracks
from track.tracking.association import assign

MIN_SCORE = 0.1  # detections with lower scores are dropped
MIN_IOU = 0.3  # to match a box to an identity: below the evaluator's 0.5, because a poor box still continues a track
BOX_NOISE = torch.tensor([0.03, 0.018, 0.065, 0.036])  # of centre x, y, width and height, in box sizes
OCCLUDED_BOX_NOISE = torch.tensor([0.055, 0.04, 0.12, 0.09])  # added to it on a fully occluded box
LOW_SCORES = 0.15, 0.6  # of a lone object and of clutter
CLUTTER_AREAS = [(1920, 1080), (1280, 720), (640, 480)]  # pixels
Rows = TypeVar("Rows", bound=Detections)


@dataclass(frozen=True)
class Episode:
    """A stretch of video with its ground truth and detections, one item per frame.

    affines: (2, 3) camera motion from the previous frame of the episode, or None where it is unknown. times: seconds.
    """

    truth: list[Tracks]
    detections: list[Detections]
    affines: list[Tensor] | None
    times: list[float]


def subsample(episode: Episode, frames: list[int]) -> Episode:
    """The frames of an episode at the given indices, as from a slower camera or after dropped frames."""
    affines = episode.affines
    if affines is not None:
        previous = [frames[0], *frames]
        affines = [compose_affines(affines[a + 1 : b + 1]) for a, b in zip(previous, frames, strict=False)]
    truth = [episode.truth[k] for k in frames]
    detections = [episode.detections[k] for k in frames]
    return Episode(truth, detections, affines, [episode.times[k] for k in frames])


def mirror(episode: Episode) -> Episode:
    """An episode mirrored left to right."""
    truth = [_mirror_boxes(frame) for frame in episode.truth]
    detections = [_mirror_boxes(frame) for frame in episode.detections]
    sign = torch.tensor([[1.0, -1, -1], [-1, 1, 1]])
    affines = None if episode.affines is None else [sign * affine for affine in episode.affines]
    return Episode(truth, detections, affines, episode.times)


def reverse(episode: Episode) -> Episode:
    """An episode played backwards."""
    affines = episode.affines
    if affines is not None:
        affines = [identity_affine(), *(invert_affine(affine) for affine in affines[:0:-1])]
    end = episode.times[-1]
    return Episode(episode.truth[::-1], episode.detections[::-1], affines, [end - time for time in episode.times[::-1]])


def mix_crowds(truth: list[Tracks], other: list[Tracks], rng: np.random.Generator) -> list[Tracks]:
    """Two crowds in one place: the other is scaled and moved onto the first, and maybe mirrored or reversed."""
    if rng.random() < 0.5:
        other = [_mirror_boxes(frame) for frame in other]
    if rng.random() < 0.5:
        other = other[::-1]
    centre, height = _centre_and_height(truth)
    other_centre, other_height = _centre_and_height(other)
    scale = float(height / other_height) * rng.uniform(0.8, 1.25)
    offset = height * torch.tensor([0.7, 0.1]) * torch.from_numpy(rng.normal(size=2)).float()
    shift = (centre + offset - other_centre * scale).repeat(2)
    first_id = 1 + max(int(frame.ids.max()) if len(frame) else 0 for frame in truth)
    other = [
        replace(frame, boxes=frame.boxes * scale + shift, ids=frame.ids + first_id) for frame in other[: len(truth)]
    ]
    other += [Tracks.empty()] * (len(truth) - len(other))
    return [Tracks.cat([a, b]) for a, b in zip(truth, other, strict=True)]


def squeeze(truth: list[Tracks], rng: np.random.Generator) -> list[Tracks]:
    """The same people at their own sizes, moved towards the centre of the crowd."""
    centre, _ = _centre_and_height(truth)
    fraction = 1 - rng.uniform(0.35, 1.0)
    return [
        replace(frame, boxes=frame.boxes + (fraction * (centre - box_centers(frame.boxes))).repeat(1, 2))
        for frame in truth
    ]


def simulate_detections(truth: list[Tracks], rng: np.random.Generator) -> list[Detections]:
    """The detections that a detector would make of people, one `Detections` per frame.

    Occlusion lowers a person's score, blurs the box and raises the chance of a miss. Errors of one identity are
    correlated over time. Some boxes are false: clutter around people, and static false positives.
    """
    strength = rng.uniform(0.6, 2.5)  # of the effect of occlusion
    noise_scale = rng.uniform(0.4, 1.2)
    score_drop = rng.uniform(0, 1.2)  # log-odds
    clutter_rate = rng.uniform(0.1, 1.2)
    identity_noise: dict[int, np.ndarray] = defaultdict(lambda: rng.normal(size=6))  # of box (4), score and miss
    result = []
    for frame, false_positives in zip(truth, _static_false_positives(truth, rng), strict=True):
        for k in frame.ids.tolist():
            identity_noise[k] = 0.8 * identity_noise[k] + 0.6 * rng.normal(size=6)
        correlated = np.array([identity_noise[k] for k in frame.ids.tolist()]).reshape(-1, 6)
        noise = torch.from_numpy(0.9 * correlated + 0.44 * rng.normal(size=correlated.shape)).float()
        hidden = occluded_fraction(frame.boxes)
        logit = 3.2 - score_drop - strength * (1.5 * hidden + 0.8 * hidden**2) + (0.7 + 0.8 * hidden) * noise[:, 4]
        missed = torch.special.ndtr(noise[:, 5]) < strength * (0.005 + 0.25 * hidden**4)
        box_noise = noise_scale * (BOX_NOISE + hidden[:, None] * OCCLUDED_BOX_NOISE) * noise[:, :4]
        detections = Detections(_jitter(frame.boxes, box_noise), logit.sigmoid(), frame.labels)
        detections = detections[~missed & (detections.scores > MIN_SCORE)]
        result.append(Detections.cat([detections, false_positives, _clutter(detections, rng, clutter_rate)]))
    return result


def degrade_detections(detections: list[Detections], truth: list[Tracks], rng: np.random.Generator) -> list[Detections]:
    """Detections as if the detector had not been trained on the footage: occluded people score lower, boxes are noisy,
    some are missed and some are false."""
    strength = rng.uniform(0.3, 1.3)
    identity_noise: dict[int, np.ndarray] = defaultdict(lambda: rng.normal(size=5))  # of box (4) and score
    result = []
    for frame, true in zip(detections, truth, strict=True):
        identities = identify(frame.boxes, true).tolist()
        correlated = [identity_noise[k] if k >= 0 else rng.normal(size=5) for k in identities]
        noise = torch.from_numpy(np.array(correlated).reshape(-1, 5)).float()
        for k in identities:
            identity_noise[k] = 0.9 * identity_noise[k] + 0.44 * rng.normal(size=5)
        hidden = occluded_fraction(frame.boxes)
        logit = frame.scores.logit(1e-3) - strength * (0.5 + 2.0 * hidden - noise[:, 4])
        white = torch.from_numpy(rng.normal(size=(len(frame), 4))).float()
        boxes = _jitter(frame.boxes, strength * 0.012 * (1 + 2 * hidden)[:, None] * (noise[:, :4] + white))
        degraded = Detections(boxes, logit.sigmoid(), frame.labels)
        degraded = degraded[degraded.scores > MIN_SCORE]
        result.append(Detections.cat([degraded, _clutter(degraded, rng, 0.15 * strength)]))
    return result


def relabel(episode: Episode, rng: np.random.Generator, classes: int = 4) -> Episode:
    """An episode whose objects are of several classes, some detections of which have a wrong label."""
    class_of: dict[int, int] = defaultdict(lambda: int(rng.integers(classes)))
    error_rate = rng.choice([0.0, 0.1, 0.3])
    detections = []
    for frame, truth in zip(episode.detections, episode.truth, strict=True):
        labels = np.array([class_of[k] for k in identify(frame.boxes, truth).tolist()], dtype=np.int64)
        wrong = rng.random(len(labels)) < error_rate
        labels[wrong] = rng.integers(classes, size=wrong.sum())
        detections.append(replace(frame, labels=torch.from_numpy(labels)))
    return replace(episode, detections=detections)


def simulate_lone_object(rng: np.random.Generator, frames: int = 150) -> Episode:
    """One steady object, all that a detector finds in the video, at a score that other detectors give to clutter."""
    size = _random_size(rng)
    start = rng.uniform(0, [1200, 600])
    velocity = rng.normal(size=2) * rng.choice([0, 0.01]) * size[1]  # pixels per frame
    score, score_noise = rng.uniform(*LOW_SCORES), rng.uniform(0, 0.08)
    noise, miss_rate = rng.uniform(0, 0.02), rng.choice([0, 0.05, 0.2])
    truth, detections = [], []
    for f in range(frames):
        corner = start + f * velocity
        truth.append(Tracks.from_rows([[*corner, *(corner + size), 1, 1, 1]]))
        boxes = _jitter(truth[-1].boxes, noise * torch.from_numpy(rng.normal(size=(1, 4))).float())
        scores = torch.tensor([score + score_noise * rng.normal()]).float().clamp(MIN_SCORE, 1)
        one = Detections(boxes, scores, truth[-1].labels)
        detections.append(one[:0] if rng.random() < miss_rate else one)
    return Episode(truth, detections, None, [f / 30 for f in range(frames)])


def simulate_clutter(rng: np.random.Generator, frames: int = 150) -> Episode:
    """False boxes at random places of every frame, all that a detector finds in the video."""
    area = np.array(CLUTTER_AREAS[rng.integers(len(CLUTTER_AREAS))])
    size, count = _random_size(rng), rng.integers(1, 16)
    score, score_noise = rng.uniform(*LOW_SCORES), rng.uniform(0, 0.08)
    detections = []
    for _ in range(frames):
        corners = rng.uniform(0, area, (count, 2))
        scores = (score + score_noise * rng.normal(size=(count, 1))).clip(MIN_SCORE, 1)
        rows = np.concatenate([corners, corners + size, scores, np.ones((count, 1))], 1)
        detections.append(Detections.from_rows(rows.tolist()))
    return Episode([Tracks.empty()] * frames, detections, None, [f / 30 for f in range(frames)])


def _random_size(rng: np.random.Generator) -> np.ndarray:
    """(2,) width and height of an object, pixels."""
    return np.exp(rng.uniform(np.log(20), np.log(300))) * np.array([rng.uniform(0.3, 2.0), 1.0])


def identify(boxes: Tensor, truth: Tracks, min_iou: float = MIN_IOU) -> Tensor:
    """(N,) the identity of each box (N, 4), by one-to-one matching with one frame's ground truth at IoU `min_iou`; -1
    for a box without a match."""
    i, j = assign(box_iou(truth.boxes, boxes).nan_to_num(0.0), min_iou)
    identities = torch.full((len(boxes),), -1)
    identities[j] = truth.ids[i]
    return identities


def _clutter(detections: Detections, rng: np.random.Generator, rate: float) -> Detections:
    """False boxes near true ones: two people in one box, or a part of one. rate: the mean number per frame."""
    count = min(len(detections), rng.poisson(rate))
    near = detections[torch.from_numpy(rng.permutation(len(detections))[:count])]
    size = (near.boxes[:, 2:] - near.boxes[:, :2]).repeat(1, 2)
    boxes = near.boxes + 0.25 * size * torch.from_numpy(rng.normal(size=(count, 4))).float()
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 4)
    return Detections(boxes, torch.from_numpy(rng.uniform(MIN_SCORE, 0.6, count)).float(), near.labels)


def _static_false_positives(truth: list[Tracks], rng: np.random.Generator) -> list[Detections]:
    """False boxes that stay in place for a while, such as a statue, a poster or a reflection, per frame."""
    people = Tracks.cat(truth)
    if not len(people):
        return [Detections.empty()] * len(truth)
    count = rng.poisson(rng.uniform(0, 8))
    models = people[torch.from_numpy(rng.integers(len(people), size=count))]  # templates for size and label
    low = people.boxes[:, :2].amin(0)
    high = people.boxes[:, 2:].amax(0)
    scale = torch.from_numpy(rng.uniform(0.6, 1.3, (count, 1))).float()
    size = (models.boxes[:, 2:] - models.boxes[:, :2]) * scale
    corner = low + (high - low - size) * torch.from_numpy(rng.random((count, 2))).float()
    boxes = torch.cat([corner, corner + size], 1)
    start = rng.uniform(-100, len(truth), count)  # frame indices
    duration = rng.exponential(80, count)
    logit = rng.normal(-1.0, 0.8, count)
    rate = rng.uniform(0.2, 1.0, count)  # of detection, per frame
    result = []
    for f in range(len(truth)):
        detected = (f >= start) & (f < start + duration) & (rng.random(count) < rate)
        rows = torch.from_numpy(detected.nonzero()[0])
        scores = torch.from_numpy(logit[detected] + rng.normal(0, 0.4, len(rows))).float().sigmoid()
        noise = 0.02 * torch.from_numpy(rng.normal(size=(len(rows), 4))).float()
        false_positives = Detections(_jitter(boxes[rows], noise), scores, models.labels[rows])
        result.append(false_positives[scores > MIN_SCORE])
    return result


def _jitter(boxes: Tensor, noise: Tensor) -> Tensor:
    """Boxes (N, 4) with noise (N, 4) of centre x, centre y, width and height, as fractions of the box's size."""
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    centre = box_centers(boxes) + noise[:, :2] * size
    half = (size * (1 + noise[:, 2:])).clamp(min=2) / 2
    return torch.cat([centre - half, centre + half], 1)


def _centre_and_height(truth: list[Tracks]) -> tuple[Tensor, Tensor]:
    """The crowd's median centre (2,) and median height (), pixels; those of one box in the corner if it is empty."""
    boxes = torch.cat([frame.boxes for frame in truth] or [torch.zeros(0, 4)])
    boxes = boxes if len(boxes) else torch.tensor([[0.0, 0, 50, 100]])
    return box_centers(boxes).median(0).values, (boxes[:, 3] - boxes[:, 1]).median()


def _mirror_boxes(frame: Rows) -> Rows:
    return replace(frame, boxes=frame.boxes[:, [2, 1, 0, 3]] * frame.boxes.new_tensor([-1.0, 1, -1, 1]))
