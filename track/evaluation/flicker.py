"""Flicker, what a viewer of tracks notices first: short tracks, and objects that change their id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from track.evaluation.protocol import EPSILON, MATCH_IOU

SHORT_TRACK = 5  # frames; tracks of fewer are short
CONTINUATION = 1000  # more than any sum of IoUs: the last frame's matches are preferred, as CLEAR does


class Flicker:
    """A metric in the form of trackeval's.

    Its figures are Short, the number of tracks in fewer than `SHORT_TRACK` frames, and IDs, how many different tracks
    each object is matched to on average, of the objects that are matched at all (1 is ideal, 0 if there are none).
    """

    def eval_sequence(self, data: Mapping[str, Any]) -> dict[str, float]:
        """The figures of one sequence, with the counts that IDs is the ratio of. data: as trackeval's metrics take."""
        matches = _matches(data)
        frame_counts = np.bincount(np.concatenate([np.empty(0, np.int64), *data["tracker_ids"]]))
        short = int(((frame_counts > 0) & (frame_counts < SHORT_TRACK)).sum())
        return _figures(short, len(matches), len({identity for identity, _ in matches}))

    def combine_sequences(self, results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """The figures of several sequences together."""
        keys = "Short", "matched_tracks", "matched_objects"
        return _figures(*(int(sum(result[key] for result in results.values())) for key in keys))


def _figures(short: int, matched_tracks: int, matched_objects: int) -> dict[str, float]:
    return {
        "Short": short,
        "matched_tracks": matched_tracks,
        "matched_objects": matched_objects,
        "IDs": matched_tracks / max(1, matched_objects),
    }


def _matches(data: Mapping[str, Any]) -> set[tuple[int, int]]:
    """Every pair of an object and a track that are matched in some frame, by the rule that switches are counted by."""
    pairs: set[tuple[int, int]] = set()
    previous = np.full(data["num_gt_ids"], -1)
    for objects, tracks, iou in zip(data["gt_ids"], data["tracker_ids"], data["similarity_scores"], strict=True):
        if not len(objects) or not len(tracks):
            continue
        score = CONTINUATION * (tracks == previous[objects][:, None]) + iou
        score[iou < MATCH_IOU - EPSILON] = 0
        rows, columns = linear_sum_assignment(score, maximize=True)
        matched = score[rows, columns] > 0
        previous[:] = -1
        previous[objects[rows[matched]]] = tracks[columns[matched]]
        pairs.update(zip(objects[rows[matched]].tolist(), tracks[columns[matched]].tolist(), strict=True))
    return pairs
