"""Scores of tracking results by MOTChallenge's definitions: trackeval's metrics, and motmetrics' beside them.

Both read the same ids and overlaps, from which distractors were removed once; docs/metrics.md says why they differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import motmetrics
import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_iou
from trackeval.metrics import CLEAR, HOTA, Identity

from track.structures import Tracks

COLUMNS = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDSW", "FP", "FN", "Frag", "MT", "ML")
OVERALL = "OVERALL"
MATCH_IOU = 0.5
PEDESTRIAN = 1

# Ground truth and predictions of each sequence by its name, a `Tracks` a frame.
Pairs = Mapping[str, tuple[Sequence[Tracks], Sequence[Tracks]]]


@dataclass(frozen=True)
class ScoredFrame:
    """What is scored of one frame. truth: (G,) ids. predictions: (P,) ids. iou: (G, P) float64."""

    truth: np.ndarray
    predictions: np.ndarray
    iou: np.ndarray


def evaluate_tracking(pairs: Pairs) -> pd.DataFrame:
    """Official figures through trackeval's metric classes: a row a sequence and `OVERALL`, columns `COLUMNS`.

    HOTA, DetA, AssA, MOTA and IDF1 are percentages (HOTA's three averaged over 19 overlap thresholds, Luiten et
    al., IJCV 2021), the others are counts at IoU 0.5. ValueError as in `scored_frames`.
    """
    counted = {name: _counted(scored_frames(name, *pair)) for name, pair in pairs.items()}
    figures: dict[str, dict[str, Any]] = {name: {} for name in (*pairs, OVERALL)}
    quiet = {"PRINT_CONFIG": False, "THRESHOLD": MATCH_IOU}
    for metric in HOTA(), CLEAR(quiet), Identity(quiet):
        results = {name: metric.eval_sequence(data) for name, data in counted.items()}
        for name, result in [*results.items(), (OVERALL, metric.combine_sequences(results))]:
            figures[name] |= result
    return pd.DataFrame.from_dict({name: _row(one) for name, one in figures.items()}, orient="index")


def evaluate_motmetrics(pairs: Pairs) -> pd.DataFrame:
    """motmetrics' whole MOTChallenge summary: a row a sequence and `OVERALL`, motmetrics' own column names.

    `mota`, `idf1` and other ratios are fractions, `motp` is a mean distance 1 - IoU; there is no HOTA.
    ValueError as in `scored_frames`.
    """
    return motmetrics.metrics.create().compute_many(
        dfs=[_accumulated(scored_frames(name, *pair)) for name, pair in pairs.items()],
        names=list(pairs),
        metrics=motmetrics.metrics.motchallenge_metrics,
        generate_overall=True,
    )


def scored_frames(name: str, truth: Sequence[Tracks], predictions: Sequence[Tracks]) -> list[ScoredFrame]:
    """What both evaluators score of a sequence, an `ScoredFrame` a frame; frames without predictions may be left out at
    the end.

    The name decides on MOT20's extra distractor class. ValueError, naming the sequence and frame, for an id that is
    twice in a frame, or for more frames of predictions than of ground truth.
    """
    if len(predictions) > len(truth):
        raise ValueError(f"{name}: expected at most {len(truth)} frames of predictions, got {len(predictions)}")
    distractors = distractor_classes(name)
    if not any(np.isin(frame.labels.numpy(force=True), distractors).any() for frame in truth):
        distractors = ()
    predictions = [*predictions, *[Tracks.empty()] * (len(truth) - len(predictions))]
    columns = truth, predictions, _boxes_in_file(truth), _boxes_in_file(predictions)
    frames = [
        _overlap(there, found, box_iou(*boxes), distractors) for there, found, *boxes in zip(*columns, strict=True)
    ]
    for number, frame in enumerate(frames, 1):
        if len(set(frame.truth)) < len(frame.truth) or len(set(frame.predictions)) < len(frame.predictions):
            raise ValueError(f"{name}, frame {number}: expected each id once in a frame")
    return frames


def distractor_classes(name: str) -> tuple[int, ...]:
    """Classes a tracker may follow or not, by MOTChallenge's rules: person on vehicle, static person, distractor and
    reflection, and in sequences of MOT20 other vehicles.
    """
    return (2, 6, 7, 8, 12) if name.startswith("MOT20") else (2, 7, 8, 12)


def remove_distractors(truth: Tracks, iou: np.ndarray, distractors: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Which of one frame's ground truth (G,) and predictions (P,) are scored, as masks; `iou` is (G, P).

    A prediction goes when the best assignment of predictions to all ground truth at IoU >= 0.5 gives it a distractor;
    ground truth stays when it is a pedestrian with a flag that is not 0. Without `distractors` the ground truth has
    no such classes, and only its flag counts.
    """
    flagged = truth.scores.numpy(force=True) != 0
    scored = np.ones(iou.shape[1], bool)
    if not distractors:
        return flagged, scored
    labels = truth.labels.numpy(force=True)
    enough = iou >= MATCH_IOU - np.finfo(float).eps
    rows, columns = linear_sum_assignment(np.where(enough, iou, 0), maximize=True)
    followed = enough[rows, columns] & np.isin(labels[rows], distractors)
    scored[columns[followed]] = False
    return flagged & (labels == PEDESTRIAN), scored


def _overlap(truth: Tracks, predictions: Tracks, iou: Tensor, distractors: Sequence[int]) -> ScoredFrame:
    overlap = iou.nan_to_num(0).numpy()  # two boxes without area
    rows, columns = remove_distractors(truth, overlap, distractors)
    truth_ids, prediction_ids = truth.ids.numpy(force=True), predictions.ids.numpy(force=True)
    return ScoredFrame(truth_ids[rows], prediction_ids[columns], overlap[rows][:, columns])


def _boxes_in_file(frames: Sequence[Tracks]) -> tuple[Tensor, ...]:
    """Each frame's boxes in float64 as trackeval has them from a file: decimal left, top, width, height, pixels from 1.

    IoU then agrees to the last bit, which decides ties with a threshold (0.8 of two boxes with decimals may come out
    a little less). A number that is further from a thousandth than float32 explains stays as it is.
    """
    exact = torch.cat([frame.boxes.detach().cpu() for frame in [Tracks.empty(), *frames]]).double()
    given = torch.hstack([exact[:, :2] + 1, exact[:, 2:] - exact[:, :2]])
    noise = torch.finfo(torch.float32).eps * exact.abs().amax(1, keepdim=True)
    decimal = (1000 * given).round() / 1000
    left_top, size = torch.where((decimal - given).abs() <= noise, decimal, given).split(2, dim=1)
    return torch.hstack([left_top, left_top + size]).split([len(frame) for frame in frames])


def _counted(frames: list[ScoredFrame]) -> dict[str, Any]:
    """The dict that trackeval's metric classes read."""
    truth, truths = _numbered([frame.truth for frame in frames])
    predictions, tracks = _numbered([frame.predictions for frame in frames])
    return {
        "num_timesteps": len(frames),
        "gt_ids": truth,
        "num_gt_ids": truths,
        "num_gt_dets": sum(map(len, truth)),
        "tracker_ids": predictions,
        "num_tracker_ids": tracks,
        "num_tracker_dets": sum(map(len, predictions)),
        "similarity_scores": [frame.iou for frame in frames],
    }


def _numbered(ids: list[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """Ids of each frame, renumbered from 0 without gaps, and how many there are."""
    unique, numbers = np.unique(np.concatenate([np.empty(0, np.int64), *ids]), return_inverse=True)
    return np.split(numbers, np.cumsum([len(frame) for frame in ids])[:-1]), len(unique)


def _row(figures: Mapping[str, Any]) -> dict[str, float]:
    """One table row of trackeval's figures, of which HOTA, DetA and AssA hold 19 thresholds each."""
    percentages = {column: 100 * float(np.mean(figures[column])) for column in COLUMNS[:5]}
    return percentages | {column: int(figures.get(f"CLR_{column}", figures.get(column))) for column in COLUMNS[5:]}


def _accumulated(frames: list[ScoredFrame]) -> Any:
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for frame in frames:
        distances = np.where(frame.iou >= MATCH_IOU, 1 - frame.iou, np.nan)
        accumulator.update(frame.truth, frame.predictions, distances)
    return accumulator
