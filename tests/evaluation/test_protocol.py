"""Which boxes are scored: MOTChallenge's distractors, classes of a data set's own, ignored regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from track.evaluation.protocol import covered_fraction, outside_ignored_regions, protocol_of
from track.evaluation.tracking import evaluate_motmetrics, evaluate_tracking
from track.structures import Tracks

Row = Sequence[float]  # x1, y1, x2, y2, flag or score, label, id
FRAMES = 6
PERSON = [500, 300, 540, 380]
REGION = [0, 0, 200, 100, 0, 0, 0]  # VisDrone's `f,0,0,0,200,100,0,0,0,0`
INSIDE = [20, 10, 60, 90, 0.9, 1, 7]


def video(*rows: Row) -> list[Tracks]:
    """The same rows in every frame."""
    return [Tracks.from_rows(rows)] * FRAMES


def flags(*classes: tuple[int, int]) -> list[Tracks]:
    """Ground truth with one box for each class and flag."""
    return video(*([50 * k, 0, 50 * k + 20, 40, flag, label, k] for k, (label, flag) in enumerate(classes)))


@pytest.mark.parametrize(
    ("name", "classes", "protocol"),
    [
        ("MOT17-02", [(1, 1), (7, 0)], "motchallenge"),
        ("MOT17-02-FRCNN", [(1, 1), (7, 1), (3, 1)], "motchallenge"),
        ("MOT17-02", [(1, 1)], "plain"),  # no distractor, no rule
        ("MOT17-02", [(8, 1)], "plain"),  # labelled anew
        ("MOT20-01", [(1, 1), (6, 0)], "motchallenge"),
        ("street", [(1, 1), (6, 0)], "plain"),
        ("street", [(1, 1), (8, 0)], "motchallenge"),  # a renamed copy
        ("street", [(1, 1), (8, 1)], "plain"),
        ("street", [(2, 1)], "plain"),
        ("0002", [(1, 1), (3, 1), (8, 0)], "plain"),  # KITTI: cars are flagged
        ("uav0000013", [(1, 1), (7, 0), (0, 0)], "plain"),  # VisDrone: MOTChallenge has no class 0
        ("dancetrack0004", [(1, 1)], "plain"),
        ("MOT170", [(1, 1), (8, 1)], "plain"),
        ("empty", [], "plain"),
    ],
)
def test_protocol_is_judged_by_name_classes_and_flags(name: str, classes: list[tuple[int, int]], protocol: str) -> None:
    assert protocol_of(name, flags(*classes)) == protocol


def test_names_of_classes_decide_before_the_sequence_name() -> None:
    truth = flags((1, 1), (8, 0))
    assert protocol_of("MOT17-02", truth, {1: "car", 8: "bus"}) == "plain"
    assert protocol_of("street", truth, {1: "pedestrian", 8: "Distractor"}) == "motchallenge"


@pytest.mark.parametrize("label", [2, 7, 8, 12])
def test_ground_truth_of_one_class_alone_is_scored_whatever_its_number(label: int) -> None:
    pair = video([*PERSON, 1, label, 1]), video([*PERSON, 0.9, 1, 7])
    assert evaluate_tracking({"street": pair}).loc["street", ["HOTA", "MOTA"]].tolist() == [100, 100]
    assert evaluate_motmetrics({"street": pair}).loc["street", "mota"] == 1


def test_protocol_can_be_forced_and_unknown_ones_are_refused() -> None:
    pair = {"street": (flags((1, 1), (3, 1)), flags((1, 1), (3, 1)))}
    assert evaluate_tracking(pair, "plain").loc["street", ["FP", "FN", "MT"]].tolist() == [0, 0, 2]
    assert evaluate_tracking(pair, "motchallenge").loc["street", ["FP", "FN", "MT"]].tolist() == [FRAMES, 0, 1]
    with pytest.raises(ValueError, match="protocol: expected one of auto, motchallenge, plain, got mot"):
        evaluate_tracking(pair, "mot")


def test_predictions_in_ignored_regions_do_not_count() -> None:
    pair = {"one": (video(REGION, [*PERSON, 1, 1, 1]), video([*PERSON, 0.9, 1, 5], INSIDE))}
    assert evaluate_tracking(pair).loc["one", ["HOTA", "MOTA", "FP", "Short"]].tolist() == [100, 100, 0, 0]
    assert evaluate_motmetrics(pair).loc["one", "mota"] == 1
    without = {"one": (video([*PERSON, 1, 1, 1]), pair["one"][1])}
    figures = evaluate_tracking(without).loc["one"]
    assert figures.FP == FRAMES
    assert abs(figures.HOTA - 100 * 0.5**0.5) < 1e-9


@pytest.mark.parametrize(
    ("box", "false_positives"),
    [
        ([180, 10, 219, 90], 0),  # 20 of 39 pixels inside
        ([180, 10, 220, 90], FRAMES),  # exactly half
        ([181, 10, 221, 90], FRAMES),
        ([0, 0, 1000, 1000], FRAMES),  # covers the region, is not in it
        ([50, 50, 50, 50], FRAMES),  # no area
    ],
)
def test_a_prediction_is_ignored_if_more_than_half_of_it_is_inside(box: Row, false_positives: int) -> None:
    pair = video(REGION, [*PERSON, 1, 1, 1]), video([*PERSON, 0.9, 1, 5], [*box, 0.9, 1, 7])
    assert evaluate_tracking({"one": pair}).loc["one", "FP"] == false_positives


def test_neighbouring_regions_count_together_and_may_share_an_id() -> None:
    right = [200, 0, 400, 100, 0, 0, 0]
    across = [190, 20, 210, 130, 0.9, 1, 7]  # 36 % in each, 73 % in both
    pair = video(REGION, right, [*PERSON, 1, 1, 1]), video([*PERSON, 0.9, 1, 5], across)
    assert evaluate_tracking({"one": pair}).loc["one", ["HOTA", "FP"]].tolist() == [100, 0]


def test_an_object_in_an_ignored_region_is_matched_all_the_same() -> None:
    pair = video(REGION, [20, 10, 60, 90, 1, 1, 1]), video(INSIDE)
    assert evaluate_tracking({"one": pair}).loc["one", ["HOTA", "FN"]].tolist() == [100, 0]


def test_class_0_is_an_ordinary_class_where_it_is_flagged() -> None:
    truth = video([*PERSON, 1, 0, 1], REGION)
    pair = truth, video([*PERSON, 0.9, 1, 5], INSIDE)
    assert evaluate_tracking({"one": pair}).loc["one", ["FP", "FN"]].tolist() == [FRAMES, 0]


def test_detections_in_ignored_regions_are_left_out() -> None:
    truth = video(REGION, [*PERSON, 1, 1, 1], [10, 5, 50, 85, 1, 1, 2])
    detections = video([*PERSON, 0.9, 1, 5], INSIDE, [100, 10, 140, 90, 0.9, 1, 8])
    assert outside_ignored_regions(truth, detections)[0].ids.tolist() == [5, 7]  # 7 is matched to an object


def test_the_covered_fraction_is_that_of_counted_pixels() -> None:
    generator = np.random.default_rng(0)
    corners = generator.integers(0, 40, (2, 30, 2))
    boxes = np.hstack([corners.min(0), corners.max(0) + 1]).astype(float)
    regions = boxes[20:] * [0.5, 0.5, 1, 1] // 1
    pixels = np.zeros((50, 50), bool)
    for x1, y1, x2, y2 in regions.astype(int):
        pixels[y1:y2, x1:x2] = True
    counted = [pixels[int(y1) : int(y2), int(x1) : int(x2)].mean() for x1, y1, x2, y2 in boxes]
    torch.testing.assert_close(covered_fraction(boxes, regions), np.array(counted))
    assert covered_fraction(boxes, np.empty((0, 4))).tolist() == [0] * 30
