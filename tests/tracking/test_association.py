"""Association: optimal assignment, affinities, and the stages of ByteTrack's rule."""

import itertools

import pytest
import torch

from track.structures import Detections
from track.tracking.association import ByteAssociation, TrackPredictions, assign, height_iou, iou

BOX = [[0.0, 0, 10, 10]]


def make_tracks(
    boxes: list[list[float]], label: int = 1, confirmed: bool = True, matched_last_frame: bool = True
) -> TrackPredictions:
    count = len(boxes)
    table = torch.tensor(boxes).reshape(-1, 4)
    return TrackPredictions(
        boxes=table,
        sigma=torch.ones_like(table),
        state=torch.zeros(count, 0),
        labels=torch.full((count,), label),
        class_logits=torch.zeros(count, 4),
        scores=torch.full((count,), 0.9),
        hits=torch.full((count,), 5),
        time_since_update=torch.full((count,), 1 / 30),
        confirmed=torch.full((count,), confirmed),
        matched_last_frame=torch.full((count,), matched_last_frame),
    )


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


def test_iou_is_impossible_across_classes() -> None:
    detections = Detections.from_rows([[0, 0, 10, 10, 0.9, 1], [0, 0, 10, 5, 0.9, 1], [0, 0, 10, 10, 0.9, 2]])
    assert iou(make_tracks(BOX), detections).tolist() == [[1, 0.5, -torch.inf]]


def test_height_iou_prefers_the_same_height() -> None:
    detections = Detections.from_rows([[5, 0, 15, 10, 0.9, 1], [0, 5, 10, 15, 0.9, 1], [0, 0, 10, 10, 0.9, 2]])
    affinity = height_iou(make_tracks(BOX), detections)[0]
    torch.testing.assert_close(affinity, torch.tensor([1 / 3, 1 / 9, -torch.inf]))


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
    detections = Detections.from_rows([[0, 1, 10, 10, score, 1]])
    assert len(ByteAssociation()(make_tracks(BOX, **flags), detections).tracks) == matched


def test_byte_matches_a_track_to_the_confident_detection_first() -> None:
    detections = Detections.from_rows([[0, 0, 10, 10, 0.5, 1], [0, 3, 10, 13, 0.8, 1]])
    assert ByteAssociation()(make_tracks(BOX), detections).detections.tolist() == [1]


def test_byte_starts_tracks_on_unmatched_detections_of_high_score() -> None:
    detections = Detections.from_rows([[0, 0, 10, 10, 0.9, 1], [50, 0, 60, 10, 0.9, 1], [90, 0, 99, 10, 0.6, 1]])
    assert ByteAssociation()(make_tracks(BOX), detections).new_tracks.tolist() == [1]
