"""Trajectories to train motion on: what a detector saw of each object, and where the object really was."""

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
from track.formats.mot import MotSequence, find_sequences
from track.structures import Detections, Tracks
from track.tracking.association import assign

HORIZONS = (0, 1, 2, 5, 8, 15, 30)  # frames after an observation at which the prediction is judged
NOISE = np.array([0.02, 0.012, 0.045, 0.025])  # of centre x, y, width and height, in sizes: YOLOX on DanceTrack
VARIED = 0.5  # part of the stretches that are not as they were filmed: more, and deviations are too large on those
KEPT = 0.95  # of the noise that stays for a while, each frame
Batch = dict[str, Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class Trajectory:
    """One object in one sequence, F consecutive frames, boxes as centre x, centre y, width, height.

    truth, seen: (F, 4), NaN where absent. scores: (F,). camera: (F, 3, 3) from a frame's pixels to the first frame's.
    clean: whether the detector was trained on these frames.
    """

    truth: np.ndarray
    seen: np.ndarray
    scores: np.ndarray
    camera: np.ndarray
    frame_rate: float
    clean: bool = False


class Trajectories(Dataset[Batch]):
    """Stretches of trajectories as a tracker would meet them.

    An item has `observations` observations (fewer are padded): boxes (T, 4) xyxy, scores (T,), elapsed (T,) seconds
    before each, valid (T,); and the truth at each of `HORIZONS` after each: targets (T, K, 4) xyxy, NaN where unknown,
    ahead (T, K) seconds. With `augment` stretches are drawn at random, mirrored, with the camera's motion taken out or
    left in, `VARIED` of them, and all clean ones, with frame strides, misses, noise; without, they are cut one after
    another, every frame.
    """

    def __init__(self, trajectories: Sequence[Trajectory], observations: int = 24, augment: bool = True) -> None:
        self.trajectories, self.observations, self.augment = trajectories, observations, augment
        step = observations if not augment else observations // 2
        self.starts = [(t, f) for t, one in enumerate(trajectories) for f in range(0, max(1, len(one.truth) - 8), step)]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Batch:
        number, start = self.starts[index]
        one = self.trajectories[number]
        rng = np.random.default_rng(int(torch.randint(2**62, ())) if self.augment else index)
        varied = self.augment and (one.clean or rng.random() < VARIED)
        stride = int(rng.choice([1, 1, 1, 1, 2, 3, 4, 6])) if varied else 1
        start = max(0, start - int(rng.integers(self.observations))) if self.augment else start
        frames = start + stride * np.arange(self.observations)
        frames = frames[frames < len(one.truth)]
        boxes, scores = self._observe(one, frames, varied, rng)
        kept = np.isfinite(boxes[:, 0]) & (rng.random(len(frames)) >= (rng.choice([0, 0.1, 0.4]) if varied else 0))
        frames, boxes, scores = frames[kept], boxes[kept], scores[kept]
        later = frames[:, None] + np.array(HORIZONS)
        known = later < len(one.truth)
        truth = np.where(known[..., None], one.truth[np.where(known, later, 0)], np.nan)
        if len(frames) and rng.random() < 0.5 * self.augment:
            boxes, truth = _compensate(one, frames[0], frames, boxes), _compensate(one, frames[0], later * known, truth)
        if rng.random() < 0.5 * self.augment:
            boxes[:, 0], truth[..., 0] = -boxes[:, 0], -truth[..., 0]
        elapsed = np.diff(frames, prepend=frames[:1]) / one.frame_rate
        return self._pad(boxes, scores, elapsed, truth, np.array(HORIZONS) / one.frame_rate)

    def _observe(
        self, one: Trajectory, frames: np.ndarray, varied: bool, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Detections, or truth where they are few or (at random) instead, with a detector's noise: some of it white,
        some that stays for a while, because who is half hidden is seen too small for a while."""
        boxes, scores = one.seen[frames], one.scores[frames]
        blind = np.isfinite(one.seen[:, 0]).mean() < 0.2
        if blind or (varied and rng.random() < 0.3):
            boxes, scores = one.truth[frames], rng.uniform(0.4, 1.0, len(frames))
        white, slow = (rng.choice([0, 0, 0.5, 1, 2]), rng.choice([0, 0.5, 1, 2])) if varied else (blind, 0)
        noise = rng.normal(size=boxes.shape)
        lasting = ornstein_uhlenbeck(KEPT ** np.diff(frames, prepend=frames[:1]), 4, rng)
        size = boxes[:, [2, 3, 2, 3]]
        boxes = boxes + NOISE * size * (white * noise + slow * lasting)
        boxes[:, 2:] = boxes[:, 2:].clip(1)
        return boxes, scores

    def _pad(
        self, boxes: np.ndarray, scores: np.ndarray, elapsed: np.ndarray, truth: np.ndarray, ahead: np.ndarray
    ) -> Batch:
        empty = self.observations - len(boxes)
        rows = {"boxes": boxes, "scores": scores, "elapsed": elapsed, "valid": np.ones(len(boxes)), "targets": truth}
        item = {
            name: torch.from_numpy(np.concatenate([row, np.zeros((empty, *row.shape[1:]))])).float()
            for name, row in rows.items()
        }
        item["boxes"][len(boxes) :] = torch.tensor([0.0, 0.0, 10.0, 10.0])
        item["ahead"] = torch.from_numpy(ahead).float().expand(self.observations, -1)
        return {**item, "boxes": _xyxy(item["boxes"]), "targets": _xyxy(item["targets"])}


class TrajectoryDataModule(lightning.LightningDataModule):
    """Trajectories of every sequence below `root` (one folder or several).

    split: of every root, or one for each. detections: the file of detections, where a sequence has it; elsewhere they
    are simulated from the truth. clean: whether their detector was trained on these very frames, so that they are
    better than any it will make again. held_out: names of sequences that are never trained on and validate instead; by
    default every sixth of each root, or the last of fewer.
    """

    def __init__(
        self,
        root: str | Sequence[str],
        split: str | list[str] = "all",
        detections: str = "det/yolox.txt",
        clean: bool | list[bool] = False,
        held_out: Sequence[str] | None = None,
        batch_size: int = 128,
        observations: int = 24,
    ) -> None:
        super().__init__()
        self.roots = [root] if isinstance(root, str) else list(root)
        self.splits, self.clean = each("split", split, self.roots), each("clean", clean, self.roots)
        self.detections, self.held_out, self.batch_size = detections, held_out, batch_size
        self.observations = observations
        self.held_out_sequences: list[MotSequence] = []

    def setup(self, stage: str) -> None:
        """Read every sequence, once."""
        if self.held_out_sequences:
            return
        found = [find_sequences(root, split) for root, split in zip(self.roots, self.splits, strict=True)]
        self.held_out_sequences = [s for group in found for s in self._held_out(group)]
        train = [
            one
            for group, clean in zip(found, self.clean, strict=True)
            for sequence in group
            if sequence not in self.held_out_sequences
            for one in trajectories(sequence, self.detections, clean)
        ]
        if not train or not self.held_out_sequences:
            roots = ", ".join(self.roots)
            raise ValueError(f"{roots}: expected sequences to train on and others to validate on (data.held_out)")
        held_out = [one for sequence in self.held_out_sequences for one in trajectories(sequence, self.detections)]
        self.train = Trajectories(train, self.observations)
        self.val = Trajectories(held_out, self.observations, augment=False)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Augmented stretches, shuffled."""
        ragged = len(self.train) > self.batch_size
        return DataLoader(self.train, self.batch_size, True, drop_last=ragged, num_workers=1, persistent_workers=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Held-out stretches as they are."""
        return DataLoader(self.val, 4 * self.batch_size)

    def _held_out(self, group: list[MotSequence]) -> list[MotSequence]:
        if self.held_out is not None:
            return [sequence for sequence in group if sequence.name in self.held_out]
        return group[5::6] or group[1:][-1:]


def each(name: str, value: T | list[T], roots: list[str]) -> list[T]:
    """An option's value for each root. ValueError where there is neither one for all nor one for each."""
    values = value if isinstance(value, list) else [value] * len(roots)
    if len(values) != len(roots):
        raise ValueError(f"{name}: expected one, or one for each of {len(roots)} roots, got {len(values)}")
    return values


def trajectories(sequence: MotSequence, detections: str, clean: bool = False) -> list[Trajectory]:
    """Every object of at least 8 frames with the detections matched to it (IoU at least 0.5, one to one)."""
    truth = [frame[(frame.scores > 0) & (frame.labels == 1)] for frame in sequence.truth()]
    seen = sequence.detections(detections) if sequence.has(detections) else [Detections.empty()] * len(truth)
    camera = _cumulative(sequence)
    ids = torch.cat([frame.ids for frame in truth]).unique()
    table = np.full((len(ids), len(truth), 9), np.nan)
    for f, (frame, found) in enumerate(zip(truth, seen, strict=True)):
        rows = torch.searchsorted(ids, frame.ids)
        table[rows, f, :4] = _cxcywh(frame)
        i, j = assign(box_iou(frame.boxes, found.boxes).nan_to_num(0.0), 0.5)
        table[rows[i], f, 4:8], table[rows[i], f, 8] = _cxcywh(found[j]), found.scores[j]
    result = []
    for one in table:
        present = np.flatnonzero(np.isfinite(one[:, 0]))
        span = slice(present[0], present[-1] + 1)
        if len(present) >= 8:
            columns = one[span, :4], one[span, 4:8], one[span, 8]
            result.append(Trajectory(*columns, camera[span], sequence.frame_rate, clean))
    return result


def _cumulative(sequence: MotSequence) -> np.ndarray:
    """(F, 3, 3) affines from each frame's pixels to the first frame's; identity without gmc.txt."""
    total = np.tile(np.eye(3), (len(sequence), 1, 1))
    if not sequence.has("gmc.txt"):
        return total
    for f, step in enumerate(sequence.affines().numpy()[1:], 1):
        total[f] = total[f - 1] @ np.linalg.inv(np.vstack([step, [0, 0, 1]]))
    return total


def _compensate(one: Trajectory, origin: int, frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Boxes (..., 4) of the frames (...) in the pixels of frame `origin`, as the motion models' `apply_camera_motion` moves them."""
    affine = np.linalg.inv(one.camera[origin]) @ one.camera[frames]
    centre = (affine[..., :2, :2] @ boxes[..., :2, None])[..., 0] + affine[..., :2, 2]
    zoom = np.sqrt(np.abs(np.linalg.det(affine[..., :2, :2])))[..., None]
    return np.concatenate([centre, boxes[..., 2:] * zoom], -1)


def _cxcywh(frame: Detections | Tracks) -> Tensor:
    return box_convert(frame.boxes, "xyxy", "cxcywh")


def _xyxy(boxes: Tensor) -> Tensor:
    return box_convert(boxes, "cxcywh", "xyxy")
