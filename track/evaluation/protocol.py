"""Which boxes are scored: MOTChallenge's distractor rule, data sets with classes of their own, ignored regions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_iou

from track.formats.annotated import IGNORED_REGION, is_ignored_region
from track.formats.mot import PEDESTRIAN, distractor_classes, is_considered_pedestrian
from track.structures import Detections, Tracks

PROTOCOLS = ("auto", "motchallenge", "plain")
MATCH_IOU = 0.5
MOTCHALLENGE_CLASSES = range(1, 14)
MAX_COVERED = 0.5  # fraction of a prediction's area that may lie in ignored regions
EPSILON = np.finfo(float).eps


def protocol_of(name: str, truth: Sequence[Detections], label_names: Mapping[int, str] | None = None) -> str:
    """By which protocol, `motchallenge` or `plain`, the sequence `name` is to be scored, judged by its ground truth.

    truth: one entry per frame; scores are flags. label_names: the names that the data set itself gives its classes.

    motchallenge: the classes are MOTChallenge's and some are distractors: they have MOTChallenge's names, or none and
    either the sequence is called as those of MOT16, MOT17 or MOT20 are, or only pedestrians are flagged. plain: any
    other ground truth, of which every flagged box is scored.
    """
    labels = torch.cat([torch.empty(0, dtype=torch.long), *(frame.labels.cpu() for frame in truth)])
    flagged = torch.cat([torch.empty(0, dtype=torch.bool), *(frame.scores.cpu() != 0 for frame in truth)])
    classes, objects = set(labels.tolist()), set(labels[flagged].tolist())
    if not classes.issubset(MOTCHALLENGE_CLASSES) or classes.isdisjoint(distractor_classes(name)):
        return "plain"
    if label_names:
        return "motchallenge" if label_names.get(8, "").lower() == "distractor" else "plain"
    only_pedestrians = objects <= {PEDESTRIAN}
    official = has_official_name(name) and PEDESTRIAN in objects
    return "motchallenge" if only_pedestrians or official else "plain"


def has_official_name(name: str) -> bool:
    """Whether a sequence is called as those of the data sets that annotate distractors are: MOT16, MOT17, MOT20."""
    return re.match(r"MOT(16|17|20)(?!\d)", name) is not None


def distractors_of(name: str, truth: Sequence[Detections], protocol: str = "auto") -> tuple[int, ...]:
    """The distractor classes in the ground truth of the sequence `name`; none if it is scored by `plain`.

    Raises ValueError for a protocol that is none of `PROTOCOLS`.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {protocol}")
    decided = protocol_of(name, truth) if protocol == "auto" else protocol
    return distractor_classes(name) if decided == "motchallenge" else ()


def remove_distractors(truth: Tracks, iou: np.ndarray, distractors: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Masks of one frame's ground truth (G,) and predictions (P,) that are scored. iou: (G, P).

    Predictions are assigned to all ground truth for the largest summed IoU, each at least 0.5; those assigned to a
    class in `distractors` are not scored. Of the ground truth, considered pedestrians are scored; without `distractors`
    the flag alone decides.
    """
    predictions_scored = np.ones(iou.shape[1], bool)
    if not distractors:
        return truth.scores.numpy(force=True) != 0, predictions_scored
    rows, columns = _assign(iou)
    on_distractor = np.isin(truth.labels.numpy(force=True)[rows], distractors)
    predictions_scored[columns[on_distractor]] = False
    return is_considered_pedestrian(truth).numpy(force=True), predictions_scored


def ignored_regions(truth: Sequence[Detections]) -> list[Tensor]:
    """(N,) bool for each frame of a sequence, which boxes are ignored regions: class 0 with flag 0.

    In ground truth that flags boxes of class 0, these are ordinary objects, and there are no such regions.
    """
    are_objects = any(((frame.labels == IGNORED_REGION) & (frame.scores != 0)).any() for frame in truth)
    return [is_ignored_region(frame) & (not are_objects) for frame in truth]


def in_ignored_region(predictions: Tensor, regions: Tensor, iou: np.ndarray) -> np.ndarray:
    """(P,) bool, which predictions lie mostly in ignored regions without being matched to a scored object.

    predictions: (P, 4) and regions: (R, 4) xyxy. iou: (G, P) with the scored ground truth.
    """
    if not len(regions):
        return np.zeros(len(predictions), bool)
    ignored = covered_fraction(predictions.numpy(force=True), regions.numpy(force=True)) > MAX_COVERED
    ignored[_assign(iou)[1]] = False
    return ignored


def outside_ignored_regions(truth: Sequence[Detections], detections: Sequence[Detections]) -> list[Detections]:
    """The detections in each frame without those that `in_ignored_region` finds."""
    frames = []
    for true, detected, is_region in zip(truth, detections, ignored_regions(truth), strict=True):
        iou = box_iou(true.boxes[true.scores != 0], detected.boxes).nan_to_num(0).numpy(force=True)
        frames.append(detected[torch.from_numpy(~in_ignored_region(detected.boxes, true.boxes[is_region], iou))])
    return frames


def covered_fraction(boxes: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """(P,) which fraction of each box's area the union of the regions covers. boxes: (P, 4), regions: (R, 4) xyxy."""
    boxes = boxes.astype(np.float64)
    x = np.unique(regions[:, 0::2])  # the regions' sides divide the plane into cells
    y = np.unique(regions[:, 1::2])
    left, top, right, bottom = (side[:, None] for side in regions.T)
    columns = (left <= x[:-1]) & (x[1:] <= right)  # (R, X)
    rows = (top <= y[:-1]) & (y[1:] <= bottom)  # (R, Y)
    covered = (rows[:, :, None] & columns[:, None, :]).any(0)  # (Y, X)
    widths = _overlap(boxes[:, 0::2], x)
    heights = _overlap(boxes[:, 1::2], y)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    inside = np.einsum("py,yx,px->p", heights, covered, widths)
    return np.divide(inside, area, out=np.zeros_like(area), where=area > 0)


def _overlap(intervals: np.ndarray, borders: np.ndarray) -> np.ndarray:
    """(P, B - 1) how much of each interval (P, 2) lies between each two neighbouring borders (B,)."""
    return (np.minimum(intervals[:, 1:], borders[1:]) - np.maximum(intervals[:, :1], borders[:-1])).clip(min=0)


def _assign(iou: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of the one-to-one assignment of the largest summed IoU, each at least 0.5."""
    enough = iou >= MATCH_IOU - EPSILON
    rows, columns = linear_sum_assignment(np.where(enough, iou, 0), maximize=True)
    return rows[enough[rows, columns]], columns[enough[rows, columns]]
