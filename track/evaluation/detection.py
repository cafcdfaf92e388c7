"""Scores of detections: average precision as COCO computes it, and precision and recall at one score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_iou

from track.evaluation.protocol import MATCH_IOU, outside_ignored_regions
from track.evaluation.tracking import OVERALL, class_row
from track.formats.mot import distractor_classes, is_considered_pedestrian
from track.structures import Detections, Tracks
from track.tracking.association import assign

SCORE = 0.3  # the threshold at which precision and recall are measured

# Ground truth and detections of each sequence by name, one `Detections` per frame.
DetectionPairs = Mapping[str, tuple[Sequence[Detections], Sequence[Detections]]]


def evaluate_detections(pairs: DetectionPairs) -> pd.DataFrame:
    """AP, AP50, recall and precision in percent: one row per sequence, then `OVERALL`.

    AP: average precision, the mean over IoU 0.5 to 0.95; AP50: at IoU 0.5. recall, precision: of detections that score
    at least `SCORE`, matched one to one at `MATCH_IOU`. Ground truth with score 0 counts neither when it is detected
    nor when it is missed. Without ground truth AP and AP50 are NaN.
    """
    all_frames = tuple([frame for pair in pairs.values() for frame in pair[side]] for side in (0, 1))
    rows = {}
    for name, (truth, detections) in [*pairs.items(), (OVERALL, all_frames)]:
        tp, fp, fn = count_tp_fp_fn(truth, detections).sum(0).tolist()
        average_precision = _average_precision(truth, detections)
        rows[name] = {
            "AP": _nan_if_undefined(average_precision["map"]),
            "AP50": _nan_if_undefined(average_precision["map_50"]),
            "recall": tp / max(1e-9, tp + fn),
            "precision": tp / max(1e-9, tp + fp),
        }
    return 100 * pd.DataFrame.from_dict(rows, orient="index")


def evaluate_detection_classes(classes: Mapping[str, DetectionPairs]) -> pd.DataFrame:
    """The figures of `evaluate_detections` for several classes of distinct labels, with a row per class.

    Rows: one per sequence and `OVERALL`, in which AP is the mean of the classes', and `class NAME` before it.
    """
    together = evaluate_detections(join_classes(classes))
    rows = {class_row(name): evaluate_detections(pairs).loc[OVERALL] for name, pairs in classes.items()}
    return pd.concat([together[:-1], pd.DataFrame.from_dict(rows, orient="index"), together[-1:]])


def join_classes(classes: Mapping[str, DetectionPairs]) -> dict[str, tuple[list[Detections], list[Detections]]]:
    """The ground truth and detections of all classes, for each sequence."""

    def join(sequence: str, side: int) -> list[Detections]:
        frames = zip(*(pairs[sequence][side] for pairs in classes.values()), strict=True)
        return [Detections.cat(parts) for parts in frames]

    sequences = dict.fromkeys(name for pairs in classes.values() for name in pairs)
    return {name: (join(name, 0), join(name, 1)) for name in sequences}


def detection_pairs(
    classes: Mapping[str, Mapping[str, tuple[Sequence[Tracks], Sequence[Detections]]]],
) -> dict[str, dict[str, tuple[list[Detections], list[Detections]]]]:
    """Ground truth and detections, by class and sequence, of `split_classes` as `evaluate_detections` takes them.

    Each class has a label of its own, from 1. Detections in ignored regions are left out.
    """
    return {
        name: {
            sequence: (
                [_labelled(pedestrians(sequence, frame), label) for frame in truth],
                [_labelled(frame, label) for frame in outside_ignored_regions(truth, detections)],
            )
            for sequence, (truth, detections) in pairs.items()
        }
        for label, (name, pairs) in enumerate(classes.items(), 1)
    }


def precision_recall(truth: Sequence[Detections], detections: Sequence[Detections]) -> tuple[Tensor, Tensor]:
    """(101,) recalls from 0 to 1 and the (101,) precisions there, at IoU 0.5, averaged over classes.

    The precision is 0 at recalls that no score reaches.
    """
    precision = _average_precision(truth, detections)["precision"]  # (IoU, recall, class, area, limit)
    at_half = precision[0, :, :, 0, -1]  # (recall, class)
    return torch.linspace(0, 1, 101), at_half.clamp(min=0).mean(1).float()


def count_tp_fp_fn(truth: Sequence[Detections], detections: Sequence[Detections]) -> Tensor:
    """(F, 3) true positives, false positives and false negatives of each frame, as in `evaluate_detections`."""
    return torch.tensor([_count(*pair) for pair in zip(truth, detections, strict=True)]).reshape(-1, 3)


def is_true_positive(truth: Detections, detections: Detections) -> Tensor:
    """(N,) bool, which of one frame's detections are true positives at `MATCH_IOU`.

    Greedy, in descending score: each detection takes the unmatched box of its class with the highest IoU.
    """
    iou = box_iou(truth.boxes, detections.boxes) * (truth.labels[:, None] == detections.labels)
    matched = torch.zeros(len(detections), dtype=torch.bool)
    for column in detections.scores.argsort(descending=True).tolist() if len(truth) else []:
        best, row = iou[:, column].max(0)
        matched[column] = best >= MATCH_IOU
        iou[row] *= not matched[column]
    return matched


def pedestrians(name: str, truth: Detections) -> Detections:
    """The ground truth that a person detector is scored on, from a frame of the MOTChallenge sequence `name`.

    Considered pedestrians have score 1; distractors, which may be detected or not, have score 0. All have label 1.
    """
    considered = is_considered_pedestrian(truth)
    relevant = considered | torch.isin(truth.labels, torch.tensor(distractor_classes(name)))
    boxes = truth.boxes[relevant]
    return Detections(boxes, considered[relevant].float(), torch.ones(len(boxes), dtype=torch.long))


def _labelled(frame: Detections, label: int) -> Detections:
    return Detections(frame.boxes, frame.scores, torch.full_like(frame.labels, label))


def _count(truth: Detections, detections: Detections) -> tuple[int, int, int]:
    confident = detections[detections.scores >= SCORE]
    iou = box_iou(truth.boxes, confident.boxes) * (truth.labels[:, None] == confident.labels)
    rows, columns = assign(iou, MATCH_IOU)
    considered = truth.scores != 0
    tp = int(considered[rows].sum())
    return tp, len(confident) - len(columns), int(considered.sum()) - tp


def _nan_if_undefined(average_precision: Tensor) -> float:
    """torchmetrics' figure, which is -1 without ground truth."""
    return float(average_precision) if average_precision >= 0 else float("nan")


def _average_precision(truth: Sequence[Detections], detections: Sequence[Detections]) -> dict[str, Tensor]:
    metric = MeanAveragePrecision(backend="pycocotools", max_detection_thresholds=[1, 100, 1000], extended_summary=True)
    metric.warn_on_many_detections = False
    metric.update(
        [{"boxes": frame.boxes, "scores": frame.scores, "labels": frame.labels} for frame in detections],
        [
            {"boxes": frame.boxes, "labels": frame.labels, "iscrowd": (frame.scores == 0).long()}  # crowd: ignored
            for frame in truth
        ],
    )
    result: dict[str, Tensor] = metric.compute()
    return result
