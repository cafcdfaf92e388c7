"""Trajectories for training motion: the detections of each object, and its true boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.ops import box_convert, box_iou

from track.datasets.crowds import ornstein_uhlenbeck
from track.detection.source import with_probabilities
from track.formats.mot import MotSequence, considered_pedestrians, find_sequences
from track.structures import Detections, Tracks
from track.tracking.association import assign
from track.training.run import LazyDataLoader, SeededSampler

HORIZONS = (0, 1, 2, 5, 8, 15, 30)  # frames after an observation for which the prediction is trained
BOX_NOISE = np.array([0.02, 0.012, 0.045, 0.025])  # of centre x, y, width, height, in box sizes: YOLOX on DanceTrack
AUGMENTED = 0.5  # fraction of windows with changed detections; more makes predicted sigmas too large on real detections
NOISE_MEMORY = 0.95  # fraction of the correlated noise that a frame inherits from the previous one
MIN_FRAMES = 8  # of a trajectory
Batch = dict[str, Tensor]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Trajectory:
    """One object in one sequence over F consecutive frames; boxes are centre x, centre y, width and height, pixels.

    truth, detected: (F, 4), NaN where absent. scores: (F,) of the detections. to_first: (F, 3, 3) affines from each
    frame's pixels to those of the sequence's first frame. in_sample: whether the detector was trained on these frames.
    """

    truth: np.ndarray
    detected: np.ndarray
    scores: np.ndarray
    to_first: np.ndarray
    frame_rate: float
    in_sample: bool = False


class TrajectoryDataset(Dataset[Batch]):
    """Windows of trajectories as a tracker observes them.

    An item has T = `observations` rows, of which the last are padding where there are fewer: boxes (T, 4) xyxy, scores
    (T,), elapsed (T,) seconds since the previous observation, valid (T,); and the ground truth at each of the K
    `HORIZONS` after each observation: targets (T, K, 4) xyxy, NaN where unknown, and horizon (T, K) seconds.

    With `augment` windows start at random frames, may be mirrored, and may have the camera's motion compensated;
    `AUGMENTED` of them, and all of in-sample detections, also have a random frame stride, misses and noise. Without,
    windows follow one another and have every frame.
    """

    def __init__(self, trajectories: Sequence[Trajectory], observations: int = 24, augment: bool = True) -> None:
        self.trajectories = trajectories
        self.observations = observations
        self.augment = augment
        step = observations // 2 if augment else observations
        self.starts = [
            (index, frame)
            for index, trajectory in enumerate(trajectories)
            for frame in range(0, max(1, len(trajectory.truth) - MIN_FRAMES), step)
        ]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, key: int | tuple[int, int]) -> Batch:
        """The item of an index, or of an index and the seed of its augmentation (see `SeededSampler`)."""
        if not isinstance(key, tuple):
            key = key, int(torch.randint(2**62, ())) if self.augment else key
        index, seed = key
        number, start = self.starts[index]
        trajectory = self.trajectories[number]
        rng = np.random.default_rng(seed)
        is_varied = self.augment and (trajectory.in_sample or rng.random() < AUGMENTED)
        stride = int(rng.choice([1, 1, 1, 1, 2, 3, 4, 6])) if is_varied else 1
        start = max(0, start - int(rng.integers(self.observations))) if self.augment else start
        frames = start + stride * np.arange(self.observations)
        frames = frames[frames < len(trajectory.truth)]
        boxes, scores = _observe(trajectory, frames, is_varied, rng)
        chance = rng.random(len(frames))
        miss_rate = rng.choice([0, 0.1, 0.4]) if is_varied else 0
        observed = np.isfinite(boxes[:, 0]) & (chance >= miss_rate)
        frames = frames[observed]
        boxes = boxes[observed]
        scores = scores[observed]
        later = frames[:, None] + np.array(HORIZONS)
        is_known = later < len(trajectory.truth)
        later = later.clip(max=len(trajectory.truth) - 1)
        truth = np.where(is_known[..., None], trajectory.truth[later], np.nan)
        if len(frames) and rng.random() < 0.5 * self.augment:
            boxes = _compensate(trajectory, frames[0], frames, boxes)
            truth = _compensate(trajectory, frames[0], later, truth)
        if rng.random() < 0.5 * self.augment:
            boxes[:, 0] *= -1
            truth[..., 0] *= -1
        elapsed = np.diff(frames, prepend=frames[:1]) / trajectory.frame_rate
        return self._pad(boxes, scores, elapsed, truth, np.array(HORIZONS) / trajectory.frame_rate)

    def _pad(
        self, boxes: np.ndarray, scores: np.ndarray, elapsed: np.ndarray, truth: np.ndarray, horizon: np.ndarray
    ) -> Batch:
        missing = self.observations - len(boxes)
        rows = {"boxes": boxes, "scores": scores, "elapsed": elapsed, "valid": np.ones(len(boxes)), "targets": truth}
        item = {
            name: torch.from_numpy(np.concatenate([row, np.zeros((missing, *row.shape[1:]))])).float()
            for name, row in rows.items()
        }
        item["boxes"][len(boxes) :] = torch.tensor([0.0, 0.0, 10.0, 10.0])
        item["horizon"] = torch.from_numpy(horizon).float().expand(self.observations, -1)
        return {**item, "boxes": _xyxy(item["boxes"]), "targets": _xyxy(item["targets"])}


class TrajectoryDataModule(lightning.LightningDataModule):
    """Trajectories of every sequence below `root` (one folder or several).

    split: one for all roots, or one for each. detections: the file of detections, where a sequence has it; elsewhere
    they are simulated from ground truth. in_sample: whether the detector was trained on these very frames, so that its
    detections are better than on any other footage; one value, or one for each root. held_out: names of sequences to
    validate on and never train on; by default every sixth of each root, or the last of fewer.
    """

    def __init__(
        self,
        root: str | Sequence[str],
        split: str | list[str] = "all",
        detections: str = "det/yolox.txt",
        in_sample: bool | list[bool] = False,
        held_out: Sequence[str] | None = None,
        batch_size: int = 128,
        observations: int = 24,
    ) -> None:
        super().__init__()
        self.roots = [root] if isinstance(root, str) else list(root)
        self.splits = per_root("split", split, self.roots)
        self.in_sample = per_root("in_sample", in_sample, self.roots)
        self.detections = detections
        self.held_out = held_out
        self.batch_size = batch_size
        self.observations = observations
        self.held_out_sequences: list[MotSequence] = []

    def setup(self, stage: str) -> None:
        """Read every sequence, once. Raises ValueError unless there are some to train on and others to validate on."""
        if self.held_out_sequences:
            return
        by_root = [find_sequences(root, split) for root, split in zip(self.roots, self.splits, strict=True)]
        self.held_out_sequences = [sequence for group in by_root for sequence in held_out(group, self.held_out)]
        train = [
            trajectory
            for group, in_sample in zip(by_root, self.in_sample, strict=True)
            for sequence in group
            if sequence not in self.held_out_sequences
            for trajectory in read_trajectories(sequence, self.detections, in_sample)
        ]
        if not train or not self.held_out_sequences:
            roots = ", ".join(self.roots)
            raise ValueError(f"{roots}: expected sequences to train on and others to validate on (data.held_out)")
        val = [one for sequence in self.held_out_sequences for one in read_trajectories(sequence, self.detections)]
        self.train = TrajectoryDataset(train, self.observations)
        self.val = TrajectoryDataset(val, self.observations, augment=False)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Augmented windows, shuffled."""
        drop_last = len(self.train) > self.batch_size
        sampler, own = SeededSampler(len(self.train)), torch.Generator()  # the run's own is for the sampler alone
        return LazyDataLoader(
            self.train, self.batch_size, sampler=sampler, drop_last=drop_last, num_workers=1, persistent_workers=True,
            generator=own,
        )  # fmt: skip

    def val_dataloader(self) -> DataLoader[Batch]:
        """Windows of the held-out sequences, unchanged."""
        return DataLoader(self.val, 4 * self.batch_size)


def held_out(group: list[MotSequence], names: Sequence[str] | None) -> list[MotSequence]:
    """The sequences of one root to validate on: those named, or else every sixth, or the last of fewer."""
    if names is not None:
        return [sequence for sequence in group if sequence.name in names]
    return group[5::6] or group[1:][-1:]


def per_root(name: str, value: Value | list[Value], roots: list[str]) -> list[Value]:
    """The value of an option for each root. Raises ValueError unless it is one for all roots, or one for each."""
    values = value if isinstance(value, list) else [value] * len(roots)
    if len(values) != len(roots):
        raise ValueError(f"{name}: expected one, or one for each of {len(roots)} roots, got {len(values)}")
    return values


def scored_detections(sequence: MotSequence, file: str) -> list[Detections]:
    """A sequence's detections with scores from 0 to 1, whatever the file has; see `with_probabilities`."""
    return list(with_probabilities(sequence.detections(file), "auto", sequence.path / file, print))


def read_trajectories(sequence: MotSequence, file: str, in_sample: bool = False) -> list[Trajectory]:
    """Every pedestrian of a sequence with at least `MIN_FRAMES` true boxes, and the detections matched to it.

    file: of detections; without it in the sequence nothing is detected. Boxes match one to one at IoU 0.5 or more.
    """
    truth = [considered_pedestrians(frame) for frame in sequence.truth()]
    detections = scored_detections(sequence, file) if sequence.has(file) else [Detections.empty()] * len(truth)
    to_first = _affines_to_first(sequence)
    ids = torch.cat([frame.ids for frame in truth]).unique()
    table = np.full((len(ids), len(truth), 9), np.nan)  # true box, detected box, score
    for f, (true, detected) in enumerate(zip(truth, detections, strict=True)):
        rows = torch.searchsorted(ids, true.ids)
        table[rows, f, :4] = _cxcywh(true)
        i, j = assign(box_iou(true.boxes, detected.boxes).nan_to_num(0.0), 0.5)
        table[rows[i], f, 4:8] = _cxcywh(detected[j])
        table[rows[i], f, 8] = detected.scores[j]
    result = []
    for one in table:
        present = np.flatnonzero(np.isfinite(one[:, 0]))
        span = slice(present[0], present[-1] + 1)
        if len(present) >= MIN_FRAMES:
            columns = one[span, :4], one[span, 4:8], one[span, 8]
            result.append(Trajectory(*columns, to_first[span], sequence.frame_rate, in_sample))
    return result


def _observe(
    trajectory: Trajectory, frames: np.ndarray, is_varied: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Detections in the frames: boxes (F, 4) and scores (F,), NaN where absent.

    Simulated from ground truth where there are too few, or at random instead. Noise is white, and correlated over time,
    because the box of a partly hidden person is too small for a while.
    """
    boxes = trajectory.detected[frames]
    scores = trajectory.scores[frames]
    is_undetected = np.isfinite(trajectory.detected[:, 0]).mean() < 0.2
    if is_undetected or (is_varied and rng.random() < 0.3):
        boxes = trajectory.truth[frames]
        scores = rng.uniform(0.4, 1.0, len(frames))
    white_scale = rng.choice([0, 0, 0.5, 1, 2]) if is_varied else float(is_undetected)
    correlated_scale = rng.choice([0, 0.5, 1, 2]) if is_varied else 0.0
    white = rng.normal(size=boxes.shape)
    correlated = ornstein_uhlenbeck(NOISE_MEMORY ** np.diff(frames, prepend=frames[:1]), 4, rng)
    boxes = boxes + BOX_NOISE * boxes[:, [2, 3, 2, 3]] * (white_scale * white + correlated_scale * correlated)
    boxes[:, 2:] = boxes[:, 2:].clip(1)
    return boxes, scores


def _affines_to_first(sequence: MotSequence) -> np.ndarray:
    """(F, 3, 3) affines from each frame's pixels to the first frame's, in float64; the identity without gmc.txt."""
    total = np.tile(np.eye(3), (len(sequence), 1, 1))
    if not sequence.has("gmc.txt"):
        return total
    for f, affine in enumerate(sequence.affines().numpy()[1:], 1):
        total[f] = total[f - 1] @ np.linalg.inv(np.vstack([affine, [0, 0, 1]]))
    return total


def _compensate(trajectory: Trajectory, origin: int, frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Boxes (..., 4) of frames (...) in the pixels of frame `origin`, as `Motion.apply_camera_motion` moves them."""
    affine = np.linalg.inv(trajectory.to_first[origin]) @ trajectory.to_first[frames]
    centre = (affine[..., :2, :2] @ boxes[..., :2, None])[..., 0] + affine[..., :2, 2]
    zoom = np.sqrt(np.abs(np.linalg.det(affine[..., :2, :2])))[..., None]
    return np.concatenate([centre, boxes[..., 2:] * zoom], -1)


def _cxcywh(frame: Detections | Tracks) -> Tensor:
    return box_convert(frame.boxes, "xyxy", "cxcywh")


def _xyxy(boxes: Tensor) -> Tensor:
    return box_convert(boxes, "cxcywh", "xyxy")
