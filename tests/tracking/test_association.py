import itertools

import pytest
import torch

from track.structures import Detections
from track.tracking.association import ByteAssociation, TrackPredictions, assign, height_iou, iou


def make_tracks(
    boxes: list[list[float]], label: int = 1, confirmed: bool = True, seen: bool = True
) -> TrackPredictions:
    count = len(boxes)
    flags = torch.full((count,), confirmed), torch.full((count,), seen)
    table = torch.tensor(boxes).reshape(-1, 4)
    numbers = torch.full((count,), 0.9), torch.full((count,), 5), torch.full((count,), 1 / 30)
    labels, class_logits = torch.full((count,), label), torch.zeros(count, 4)
    return TrackPredictions(
        table, torch.ones_like(table), torch.zeros(count, 0), labels, class_logits, *numbers, *flags
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
def test_assignment_leaves_doubtful_pairs_apart(affinity: list[list[float]], pairs: list[tuple[int, int]]) -> None:
    rows, columns = assign(torch.tensor(affinity), 0.3)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == pairs


def test_assignment_is_the_best_of_all_partial_ones() -> None:
    affinity = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    rows, columns = assign(affinity, 0.5)
    every = [
        sum((affinity[i, j] - 0.5).clamp(min=0) for i, j in enumerate(p)) for p in itertools.permutations(range(4), 3)
    ]
    torch.testing.assert_close((affinity[rows, columns] - 0.5).sum(), torch.stack(every).max())


def test_assignment_of_nothing_is_nothing() -> None:
    for shape in ((0, 3), (3, 0), (0, 0)):
        assert [len(index) for index in assign(torch.zeros(shape), 0.1)] == [0, 0]


def test_iou_is_impossible_across_classes() -> None:
    found = Detections.from_rows([[0, 0, 10, 10, 0.9, 1], [0, 0, 10, 5, 0.9, 1], [0, 0, 10, 10, 0.9, 2]])
    assert iou(make_tracks([[0, 0, 10, 10]]), found).tolist() == [[1, 0.5, -torch.inf]]


def test_height_iou_prefers_the_same_height() -> None:
    found = Detections.from_rows([[5, 0, 15, 10, 0.9, 1], [0, 5, 10, 15, 0.9, 1], [0, 0, 10, 10, 0.9, 2]])
    values = height_iou(make_tracks([[0, 0, 10, 10]]), found)[0]
    torch.testing.assert_close(values, torch.tensor([1 / 3, 1 / 9, -torch.inf]))


@pytest.mark.parametrize(
    ("score", "flags", "matched"),
    [
        (0.9, {}, 1),
        (0.3, {}, 1),  # the second stage
        (0.3, {"seen": False}, 0),  # a lost track does not return on a doubtful detection
        (0.3, {"confirmed": False}, 0),
        (0.9, {"confirmed": False}, 1),
    ],
)
def test_byte_takes_doubtful_detections_only_for_tracks_just_seen(
    score: float, flags: dict[str, bool], matched: int
) -> None:
    decision = ByteAssociation()(
        make_tracks([[0, 0, 10, 10]], **flags), Detections.from_rows([[0, 1, 10, 10, score, 1]])
    )
    assert len(decision.tracks) == matched


def test_byte_gives_a_track_to_the_confident_detection_first() -> None:
    found = Detections.from_rows([[0, 0, 10, 10, 0.5, 1], [0, 3, 10, 13, 0.8, 1]])
    assert ByteAssociation()(make_tracks([[0, 0, 10, 10]]), found).detections.tolist() == [1]


def test_byte_starts_tracks_on_what_is_left_and_certain() -> None:
    found = Detections.from_rows([[0, 0, 10, 10, 0.9, 1], [50, 0, 60, 10, 0.9, 1], [90, 0, 99, 10, 0.6, 1]])
    assert ByteAssociation()(make_tracks([[0, 0, 10, 10]]), found).new_tracks.tolist() == [1]
