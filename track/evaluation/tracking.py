"""Scores of tracking results by MOTChallenge's definitions, computed by trackeval and by motmetrics.

Both evaluators read the same ids and IoUs, after distractors were removed once; docs/metrics.md says why they differ.
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

from track.formats.mot import distractor_classes, is_considered_pedestrian
from track.structures import Tracks

PERCENTAGES = ("HOTA", "DetA", "AssA", "MOTA", "IDF1")
COUNTS = ("IDSW", "FP", "FN", "Frag", "MT", "ML")
METRICS = (*PERCENTAGES, *COUNTS)
OVERALL = "OVERALL"
MATCH_IOU = 0.5

# Ground truth and predictions of each sequence by name, one `Tracks` per frame.
Pairs = Mapping[str, tuple[Sequence[Tracks], Sequence[Tracks]]]


@dataclass(frozen=True)
class ScoredFrame:
    """What is scored of one frame. truth: (G,) ids. predictions: (P,) ids. iou: (G, P) float64."""

    truth: np.ndarray
    predictions: np.ndarray
    iou: np.ndarray


def evaluate_tracking(pairs: Pairs) -> pd.DataFrame:
    """The official figures, by trackeval's metric classes: one row per sequence, then `OVERALL`; columns `METRICS`.

    HOTA, DetA, AssA (averaged over 19 IoU thresholds, Luiten et al., "HOTA", IJCV 2021), MOTA and IDF1 are in percent;
    the others are counts at IoU 0.5. Raises ValueError as `scored_frames` does.
    """
    inputs = {name: _trackeval_input(scored_frames(name, *pair)) for name, pair in pairs.items()}
    figures: dict[str, dict[str, Any]] = {name: {} for name in (*pairs, OVERALL)}
    options = {"PRINT_CONFIG": False, "THRESHOLD": MATCH_IOU}
    for metric in HOTA(), CLEAR(options), Identity(options):
        results = {name: metric.eval_sequence(data) for name, data in inputs.items()}
        for name, result in [*results.items(), (OVERALL, metric.combine_sequences(results))]:
            figures[name] |= result
    return pd.DataFrame.from_dict({name: _row(result) for name, result in figures.items()}, orient="index")


def evaluate_motmetrics(pairs: Pairs) -> pd.DataFrame:
    """motmetrics' MOTChallenge summary: one row per sequence, then `OVERALL`, with motmetrics' own column names.

    `mota`, `idf1` and other ratios are fractions, `motp` is a mean distance 1 - IoU; there is no HOTA.
    Raises ValueError as `scored_frames` does.
    """
    return motmetrics.metrics.create().compute_many(
        dfs=[_accumulate(scored_frames(name, *pair)) for name, pair in pairs.items()],
        names=list(pairs),
        metrics=motmetrics.metrics.motchallenge_metrics,
        generate_overall=True,
    )


def scored_frames(name: str, truth: Sequence[Tracks], predictions: Sequence[Tracks]) -> list[ScoredFrame]:
    """What both evaluators score of the sequence `name`, one `ScoredFrame` per frame of ground truth.

    Trailing frames without predictions may be left out. The name decides on MOT20's additional distractor class. Raises
    ValueError, with sequence and frame, for an id that repeats within a frame, and for more frames of predictions than
    of ground truth.
    """
    if len(predictions) > len(truth):
        raise ValueError(f"{name}: expected at most {len(truth)} frames of predictions, got {len(predictions)}")
    distractors = distractor_classes(name)
    if not any(np.isin(frame.labels.numpy(force=True), distractors).any() for frame in truth):
        distractors = ()
    predictions = [*predictions, *[Tracks.empty()] * (len(truth) - len(predictions))]
    columns = zip(truth, predictions, _boxes_in_file(truth), _boxes_in_file(predictions), strict=True)
    frames = [_scored_frame(true, predicted, box_iou(*boxes), distractors) for true, predicted, *boxes in columns]
    for number, frame in enumerate(frames, 1):
        if len(set(frame.truth)) < len(frame.truth) or len(set(frame.predictions)) < len(frame.predictions):
            raise ValueError(f"{name}, frame {number}: expected each id once in a frame")
    return frames


def remove_distractors(truth: Tracks, iou: np.ndarray, distractors: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Masks of one frame's ground truth (G,) and predictions (P,) that are scored. iou: (G, P).

    Predictions are assigned to all ground truth for the largest summed IoU, each at least 0.5; those assigned to a
    class in `distractors` are not scored. Of the ground truth, considered pedestrians are scored; without `distractors`
    it has no such classes, and the `consider` flag alone decides.
    """
    predictions_scored = np.ones(iou.shape[1], bool)
    if not distractors:
        return truth.scores.numpy(force=True) != 0, predictions_scored
    enough = iou >= MATCH_IOU - np.finfo(float).eps
    rows, columns = linear_sum_assignment(np.where(enough, iou, 0), maximize=True)
    on_distractor = enough[rows, columns] & np.isin(truth.labels.numpy(force=True)[rows], distractors)
    predictions_scored[columns[on_distractor]] = False
    return is_considered_pedestrian(truth).numpy(force=True), predictions_scored


def _scored_frame(truth: Tracks, predictions: Tracks, iou: Tensor, distractors: Sequence[int]) -> ScoredFrame:
    overlap = iou.nan_to_num(0).numpy()  # NaN is the IoU of two boxes without area
    rows, columns = remove_distractors(truth, overlap, distractors)
    truth_ids, prediction_ids = truth.ids.numpy(force=True), predictions.ids.numpy(force=True)
    return ScoredFrame(truth_ids[rows], prediction_ids[columns], overlap[rows][:, columns])


def _boxes_in_file(frames: Sequence[Tracks]) -> tuple[Tensor, ...]:
    """Each frame's boxes in float64, as trackeval reads them from a file: decimal left, top, width, height, from 1.

    IoU then agrees to the last bit, which decides ties with a threshold (0.8 of two boxes with decimals may come out
    slightly less). Values farther than float32 rounding from a multiple of 0.001 are unchanged.
    """
    exact = torch.cat([frame.boxes.detach().cpu() for frame in [Tracks.empty(), *frames]]).double()
    given = torch.hstack([exact[:, :2] + 1, exact[:, 2:] - exact[:, :2]])
    noise = torch.finfo(torch.float32).eps * exact.abs().amax(1, keepdim=True)
    decimal = (1000 * given).round() / 1000
    left_top, size = torch.where((decimal - given).abs() <= noise, decimal, given).split(2, dim=1)
    return torch.hstack([left_top, left_top + size]).split([len(frame) for frame in frames])


def _trackeval_input(frames: list[ScoredFrame]) -> dict[str, Any]:
    """The dict that trackeval's metric classes read."""
    truth_ids, truth_count = _renumber([frame.truth for frame in frames])
    prediction_ids, prediction_count = _renumber([frame.predictions for frame in frames])
    return {
        "num_timesteps": len(frames),
        "gt_ids": truth_ids,
        "num_gt_ids": truth_count,
        "num_gt_dets": sum(map(len, truth_ids)),
        "tracker_ids": prediction_ids,
        "num_tracker_ids": prediction_count,
        "num_tracker_dets": sum(map(len, prediction_ids)),
        "similarity_scores": [frame.iou for frame in frames],
    }


def _renumber(ids: list[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """The ids of each frame, renumbered from 0 without gaps, and the number of distinct ids."""
    unique, numbers = np.unique(np.concatenate([np.empty(0, np.int64), *ids]), return_inverse=True)
    return np.split(numbers, np.cumsum([len(frame) for frame in ids])[:-1]), len(unique)


def _row(figures: Mapping[str, Any]) -> dict[str, float]:
    """One table row of trackeval's figures; HOTA, DetA and AssA are arrays over the 19 IoU thresholds."""
    percentages = {name: 100 * float(np.mean(figures[name])) for name in PERCENTAGES}
    return percentages | {name: int(figures.get(f"CLR_{name}", figures.get(name))) for name in COUNTS}


def _accumulate(frames: list[ScoredFrame]) -> Any:
    """The frames as a motmetrics accumulator, NaN where a pair may not be matched."""
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for frame in frames:
        distances = np.where(frame.iou >= MATCH_IOU, 1 - frame.iou, np.nan)
        accumulator.update(frame.truth, frame.predictions, distances)
    return accumulator
