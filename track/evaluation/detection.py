"""How good a detector is: average precision as COCO counts it, precision and recall at one score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_iou

from track.evaluation.tracking import MATCH_IOU, OVERALL, PEDESTRIAN, distractor_classes
from track.structures import Detections
from track.tracking.association import assign

SCORE = 0.3  # where precision and recall are read
Pairs = Mapping[str, tuple[Sequence[Detections], Sequence[Detections]]]


def evaluate_detections(pairs: Pairs) -> pd.DataFrame:
    """Percentages, a row a sequence and `OVERALL`, of truth and detections of each by its name, a frame each.

    AP: average precision, the mean over IoU 0.5 to 0.95; AP50: at 0.5. recall, precision: of boxes with scores of at
    least 0.3, one to one at IoU 0.5 (as MATCH_IOU). Boxes of the truth whose score is 0 are neither missed nor false.
    """
    everything = tuple([frame for pair in pairs.values() for frame in pair[side]] for side in (0, 1))
    rows = {}
    for name, (truth, found) in [*pairs.items(), (OVERALL, everything)]:
        right, false, missed = count_tp_fp_fn(truth, found).sum(0).tolist()
        ratios = {"recall": right / max(1e-9, right + missed), "precision": right / max(1e-9, right + false)}
        figures = _average_precision(truth, found)
        rows[name] = {"AP": float(figures["map"]), "AP50": float(figures["map_50"]), **ratios}
    return 100 * pd.DataFrame.from_dict(rows, orient="index")


def precision_recall(truth: Sequence[Detections], found: Sequence[Detections]) -> tuple[Tensor, Tensor]:
    """(101,) recalls from 0 to 1 and the precision (101,) at each, at IoU 0.5, the mean over classes; 0 where no score
    reaches the recall."""
    precision = _average_precision(truth, found)["precision"][0, :, :, 0, -1]  # of (IoU, recall, class, area, limit)
    return torch.linspace(0, 1, 101), precision.clamp(min=0).mean(1).float()


def count_tp_fp_fn(truth: Sequence[Detections], found: Sequence[Detections]) -> Tensor:
    """(F, 3) of each frame, how many detections with scores of at least 0.3 are right, how many false, and how many
    boxes of the truth are missed."""
    return torch.tensor([_count(*pair) for pair in zip(truth, found, strict=True)]).reshape(-1, 3)


def is_right(truth: Detections, found: Detections) -> Tensor:
    """(N,) bool, which of one frame's detections are right: in order of score each takes the box of its class that it
    overlaps most of those left, at IoU 0.5."""
    overlap = box_iou(truth.boxes, found.boxes) * (truth.labels[:, None] == found.labels)
    right = torch.zeros(len(found), dtype=torch.bool)
    for j in found.scores.argsort(descending=True).tolist() if len(truth) else []:
        best, i = overlap[:, j].max(0)
        right[j] = best >= MATCH_IOU
        overlap[i] *= not right[j]
    return right


def pedestrians(name: str, truth: Detections) -> Detections:
    """Of ground truth by MOTChallenge's rules what a detector is judged by: pedestrians with score 1, what it may find
    or not with score 0, all of label 1. name: the sequence's."""
    person = (truth.labels == PEDESTRIAN) & (truth.scores != 0)
    either = torch.isin(truth.labels, torch.tensor(distractor_classes(name)))
    kept = person | either
    boxes = truth.boxes[kept]
    return Detections(boxes, person[kept].float(), torch.ones(len(boxes), dtype=torch.long))


def _count(truth: Detections, found: Detections) -> tuple[int, int, int]:
    sure = found[found.scores >= SCORE]
    overlap = box_iou(truth.boxes, sure.boxes) * (truth.labels[:, None] == sure.labels)
    i, j = assign(overlap, MATCH_IOU)
    judged = truth.scores != 0
    right = int(judged[i].sum())
    return right, len(sure) - len(j), int(judged.sum()) - right


def _average_precision(truth: Sequence[Detections], found: Sequence[Detections]) -> dict[str, Tensor]:
    measure = MeanAveragePrecision(
        backend="pycocotools", max_detection_thresholds=[1, 100, 1000], extended_summary=True
    )
    measure.warn_on_many_detections = False
    measure.update(
        [{"boxes": one.boxes, "scores": one.scores, "labels": one.labels} for one in found],
        [{"boxes": one.boxes, "labels": one.labels, "iscrowd": (one.scores == 0).long()} for one in truth],
    )
    result: dict[str, Tensor] = measure.compute()
    return result
