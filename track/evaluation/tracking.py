"""Scores of tracking results by MOTChallenge's definitions, computed by trackeval and by motmetrics.

Both evaluators read the same ids and IoUs, of the boxes that `protocol` scores; docs/metrics.md says why they differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import motmetrics
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchvision.ops import box_iou
from trackeval.metrics import CLEAR, HOTA, Identity

from track.evaluation.flicker import Flicker
from track.evaluation.protocol import (
    MATCH_IOU,
    distractors_of,
    ignored_regions,
    in_ignored_region,
    remove_distractors,
)
from track.structures import Tracks

PERCENTAGES = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "AssPr", "AssRe")
COUNTS = ("IDSW", "FP", "FN", "Frag", "MT", "ML", "Short")
METRICS = (*PERCENTAGES[:5], *COUNTS[:6], "AssPr", "AssRe", "Short", "IDs")
OVERALL = "OVERALL"
MEAN = "MEAN"

# Ground truth and predictions of each sequence by name, one `Tracks` per frame.
Pairs = Mapping[str, tuple[Sequence[Tracks], Sequence[Tracks]]]


@dataclass(frozen=True)
class ScoredFrame:
    """What is scored of one frame. truth: (G,) ids. predictions: (P,) ids. iou: (G, P) float64."""

    truth: np.ndarray
    predictions: np.ndarray
    iou: np.ndarray


def evaluate_tracking(pairs: Pairs, protocol: str = "auto") -> pd.DataFrame:
    """The official figures, by trackeval's metric classes: one row per sequence, then `OVERALL`; columns `METRICS`.

    HOTA, DetA, AssA, AssPr, AssRe (averaged over 19 IoU thresholds, Luiten et al., "HOTA", IJCV 2021), MOTA and IDF1
    are in percent. The others are counts at IoU 0.5, but for IDs, the tracks per object of `Flicker`. protocol: one of
    `PROTOCOLS`, which boxes are scored. Raises ValueError as `scored_frames` does.
    """
    inputs = {name: _trackeval_input(scored_frames(name, *pair, protocol)) for name, pair in pairs.items()}
    return _table(inputs, {OVERALL: list(inputs)})


def evaluate_classes(classes: Mapping[str, Pairs], protocol: str = "auto") -> pd.DataFrame:
    """The figures of `evaluate_tracking` for several classes, each of which is scored on its own.

    Rows: one per sequence (all its classes), one per class (`class NAME`, all sequences), `MEAN` and `OVERALL`. Rows
    of several classes or sequences are of summed counts, but for `MEAN`: its ratios are the means of the classes', and
    its IDs that of the classes with a match.
    """
    inputs = {
        (sequence, name): _trackeval_input(scored_frames(sequence, *pair, protocol))
        for name, pairs in classes.items()
        for sequence, pair in pairs.items()
    }
    sequences = dict.fromkeys(sequence for sequence, _ in inputs)
    per_sequence = {sequence: [key for key in inputs if key[0] == sequence] for sequence in sequences}
    per_class = {class_row(name): [key for key in inputs if key[1] == name] for name in classes}
    table = _table(inputs, per_sequence | per_class | {OVERALL: list(inputs)}).iloc[len(inputs) :]
    rows = table.loc[list(per_class)]
    matched = rows["IDs"][rows["IDs"] > 0]
    mean = rows.mean().to_dict() | rows[list(COUNTS)].sum().to_dict() | {"IDs": matched.mean() if len(matched) else 0.0}
    return pd.concat([table[:-1], pd.DataFrame([mean], index=[MEAN]), table[-1:]]).astype(table.dtypes)


def class_row(name: str) -> str:
    """What the table's row of a class is called."""
    return name if name.startswith("class ") else f"class {name}"


def evaluate_motmetrics(pairs: Pairs, protocol: str = "auto") -> pd.DataFrame:
    """motmetrics' MOTChallenge summary: one row per sequence, then `OVERALL`, with motmetrics' own column names.

    `mota`, `idf1` and other ratios are fractions, `motp` is a mean distance 1 - IoU; there is no HOTA.
    protocol: one of `PROTOCOLS`. Raises ValueError as `scored_frames` does.
    """
    return motmetrics.metrics.create().compute_many(
        dfs=[_accumulate(scored_frames(name, *pair, protocol)) for name, pair in pairs.items()],
        names=list(pairs),
        metrics=motmetrics.metrics.motchallenge_metrics,
        generate_overall=True,
    )


def scored_frames(
    name: str, truth: Sequence[Tracks], predictions: Sequence[Tracks], protocol: str = "auto"
) -> list[ScoredFrame]:
    """What both evaluators score of the sequence `name`, one `ScoredFrame` per frame of ground truth.

    Trailing frames without predictions may be left out. protocol: one of `PROTOCOLS`. Raises ValueError, with sequence
    and frame, for an id that repeats within a frame, and for more frames of predictions than of ground truth.
    """
    if len(predictions) > len(truth):
        raise ValueError(f"{name}: expected at most {len(truth)} frames of predictions, got {len(predictions)}")
    distractors = distractors_of(name, truth, protocol)
    predictions = [*predictions, *[Tracks.empty()] * (len(truth) - len(predictions))]
    boxes = _boxes_in_file(truth), _boxes_in_file(predictions)
    rows = zip(truth, predictions, *boxes, ignored_regions(truth), strict=True)
    frames = [_scored_frame(*row, distractors) for row in rows]
    for number, frame in enumerate(frames, 1):
        if len(set(frame.truth)) < len(frame.truth) or len(set(frame.predictions)) < len(frame.predictions):
            raise ValueError(f"{name}, frame {number}: expected each id once in a frame")
    return frames


def _scored_frame(
    truth: Tracks,
    predictions: Tracks,
    truth_boxes: Tensor,
    prediction_boxes: Tensor,
    is_region: Tensor,
    distractors: Sequence[int],
) -> ScoredFrame:
    overlap = box_iou(truth_boxes, prediction_boxes).nan_to_num(0).numpy()  # NaN is the IoU of two boxes without area
    rows, columns = remove_distractors(truth, overlap, distractors)
    columns &= ~in_ignored_region(prediction_boxes, truth_boxes[is_region], overlap[rows])
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


def _table(inputs: Mapping[Any, dict[str, Any]], groups: Mapping[str, list[Any]]) -> pd.DataFrame:
    """One row per input, then one per group of inputs, with their counts summed. inputs: of `_trackeval_input`."""
    figures: dict[Any, dict[str, Any]] = {name: {} for name in (*inputs, *groups)}
    options = {"PRINT_CONFIG": False, "THRESHOLD": MATCH_IOU}
    for metric in HOTA(), CLEAR(options), Identity(options), Flicker():
        results = {key: metric.eval_sequence(data) for key, data in inputs.items()}
        combined = {row: metric.combine_sequences({key: results[key] for key in keys}) for row, keys in groups.items()}
        for row, result in (results | combined).items():
            figures[row] |= result
    index = pd.Index(list(figures), tupleize_cols=False)
    return pd.DataFrame([_row(result) for result in figures.values()], index=index, columns=METRICS)


def _row(figures: Mapping[str, Any]) -> dict[str, float]:
    """One table row of `METRICS`; HOTA, DetA, AssA, AssPr and AssRe are arrays over the 19 IoU thresholds."""
    percentages = {name: 100 * float(np.mean(figures[name])) for name in PERCENTAGES}
    counts = {name: int(figures.get(f"CLR_{name}", figures.get(name))) for name in COUNTS}
    return percentages | counts | {"IDs": float(figures["IDs"])}


def _accumulate(frames: list[ScoredFrame]) -> Any:
    """The frames as a motmetrics accumulator, NaN where a pair may not be matched."""
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for frame in frames:
        distances = np.where(frame.iou >= MATCH_IOU, 1 - frame.iou, np.nan)
        accumulator.update(frame.truth, frame.predictions, distances)
    return accumulator
