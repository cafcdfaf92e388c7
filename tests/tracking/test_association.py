"""Association: optimal assignment, affinities, and the stages of ByteTrack's rule."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from tests.tracking.scenes import arrays
from track.structures import Detections
from track.tracking.association import (
    Affinity,
    ByteAssociation,
    Matches,
    TrackPredictions,
    assign,
    assign_pairs,
    height_iou,
    iou,
)

BOX = [[0.0, 0, 10, 10]]


def make_tracks(
    boxes: list[list[float]], label: int = 1, confirmed: bool = True, matched_last_frame: bool = True
) -> TrackPredictions:
    count = len(boxes)
    table = np.asarray(boxes, np.float32).reshape(-1, 4)
    logits = np.zeros((count, 4), np.float32)
    logits[:, label] = 1
    return TrackPredictions(
        boxes=table,
        sigma=np.ones_like(table),
        state=np.zeros((count, 0), np.float32),
        class_logits=logits,
        scores=np.full(count, 0.9, np.float32),
        hits=np.full(count, 5),
        time_since_update=np.full(count, 1 / 30, np.float32),
        confirmed=np.full(count, confirmed),
        matched_last_frame=np.full(count, matched_last_frame),
    )


def byte_matches(tracks: TrackPredictions, rows: list[list[float]], affinity: Affinity = height_iou) -> Matches:
    [matches] = ByteAssociation(affinity)([(tracks, arrays(Detections.from_rows(rows)))])
    return matches


@pytest.mark.parametrize(
    ("affinity", "pairs"),
    [
        ([[0.9, 0.8], [0.8, 0.1]], [(0, 1), (1, 0)]),  # .8 + .8 beats .9 + .1
        ([[0.9, 0.4], [0.4, 0.1]], [(0, 0)]),  # two doubtful pairs do not displace a good one
        ([[0.2, 0.1]], []),
        ([[-torch.inf, 0.6]], [(0, 1)]),
    ],
)
def test_assignment_leaves_doubtful_pairs_unmatched(affinity: list[list[float]], pairs: list[tuple[int, int]]) -> None:
    rows, columns = assign(torch.tensor(affinity), 0.3)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == pairs


def test_assignment_is_the_best_of_all_partial_assignments() -> None:
    affinity = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    rows, columns = assign(affinity, 0.5)
    totals = [
        sum((affinity[i, j] - 0.5).clamp(min=0) for i, j in enumerate(p)) for p in itertools.permutations(range(4), 3)
    ]
    torch.testing.assert_close((affinity[rows, columns] - 0.5).sum(), torch.stack(totals).max())


def test_assignment_without_rows_or_columns_is_empty() -> None:
    for shape in ((0, 3), (3, 0), (0, 0)):
        assert [len(index) for index in assign(torch.zeros(shape), 0.1)] == [0, 0]


def test_pairs_of_different_classes_are_impossible() -> None:
    rows = [[0, 0, 10, 10, 0.9, 1], [0, 0, 10, 5, 0.9, 1], [0, 0, 10, 10, 0.9, 2]]
    assert byte_matches(make_tracks(BOX), rows, iou).table(1, 3).tolist() == [[1, 0.5, -np.inf]]


def test_height_iou_prefers_the_same_height() -> None:
    detections = np.float32([[5, 0, 15, 10], [0, 5, 10, 15]])
    np.testing.assert_allclose(height_iou(np.float32(BOX * 2), detections), [1 / 3, 1 / 9], rtol=1e-6)


def test_groups_of_pairs_are_assigned_as_one_table_would_be() -> None:
    chance = np.random.default_rng(0)
    for rows, columns, count in ((300, 280, 900), (2000, 1800, 3000), (200, 200, 20_000)):
        cells = np.sort(chance.choice(rows * columns, count, replace=False))
        i, j = np.divmod(cells, columns)
        gain = chance.normal(0.5, 1, count)
        table = np.zeros((rows, columns))
        table[i, j] = gain.clip(0)
        best = table[linear_sum_assignment(table, maximize=True)].sum()
        chosen = assign_pairs(i, j, gain)
        assert len(set(i[chosen])) == len(set(j[chosen])) == len(chosen)
        np.testing.assert_allclose(gain[chosen].sum(), best)


@pytest.mark.parametrize(
    ("score", "flags", "matched"),
    [
        (0.9, {}, 1),
        (0.3, {}, 1),  # the second stage
        (0.3, {"matched_last_frame": False}, 0),  # a lost track does not return on a low-score detection
        (0.3, {"confirmed": False}, 0),
        (0.9, {"confirmed": False}, 1),
    ],
)
def test_byte_matches_low_score_detections_only_to_confirmed_tracks_matched_last_frame(
    score: float, flags: dict[str, bool], matched: int
) -> None:
    assert len(byte_matches(make_tracks(BOX, **flags), [[0, 1, 10, 10, score, 1]]).tracks) == matched


def test_byte_matches_a_track_to_the_confident_detection_first() -> None:
    rows = [[0, 0, 10, 10, 0.5, 1], [0, 3, 10, 13, 0.8, 1]]
    assert byte_matches(make_tracks(BOX), rows).detections.tolist() == [1]


def test_byte_starts_tracks_on_unmatched_detections_of_high_score() -> None:
    rows = [[0, 0, 10, 10, 0.9, 1], [50, 0, 60, 10, 0.9, 1], [90, 0, 99, 10, 0.6, 1]]
    assert byte_matches(make_tracks(BOX), rows).new_tracks.tolist() == [1]
