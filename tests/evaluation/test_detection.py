"""Scores of detections on hand-sized scenes."""

import pytest
import torch

from track.evaluation.detection import (
    count_tp_fp_fn,
    evaluate_detections,
    is_true_positive,
    pedestrians,
    precision_recall,
)
from track.structures import Detections, Tracks

ONE, TWO, FAR = [0.0, 0, 10, 20], [50.0, 0, 60, 20], [200.0, 0, 210, 20]


def rows(*table: list[float]) -> Detections:
    """One frame's detections from rows of x1, y1, x2, y2, score, label."""
    return Detections.from_rows(table)


TRUTH = [rows([*ONE, 1, 1], [*TWO, 1, 1]), rows([*ONE, 1, 1])]


def test_perfect_detections_score_a_hundred() -> None:
    table = evaluate_detections({"a": (TRUTH, TRUTH)})
    assert table.loc["a"].tolist() == pytest.approx([100, 100, 100, 100])
    assert table.loc["OVERALL"].tolist() == pytest.approx([100, 100, 100, 100])


def test_figures_are_those_counted_by_hand() -> None:
    detections = [rows([*ONE, 0.9, 1], [*FAR, 0.8, 1], [*TWO, 0.2, 1]), rows([0.0, 0, 10, 12, 0.5, 1])]
    assert count_tp_fp_fn(TRUTH, detections).tolist() == [[1, 1, 1], [1, 0, 0]]  # a score of .2 is not counted
    figures = evaluate_detections({"a": (TRUTH, detections)}).loc["a"]
    assert figures["recall"] == pytest.approx(100 * 2 / 3)
    assert figures["precision"] == pytest.approx(100 * 2 / 3)
    # by descending score true, false, true, true: precision 1 up to recall 1/3 (34 of 101 points), then .75
    assert figures["AP50"] == pytest.approx(100 * (34 + 67 * 0.75) / 101, abs=0.01)
    recall, precision = precision_recall(TRUTH, detections)
    torch.testing.assert_close(precision[[0, 33, 34, 100]], torch.tensor([1, 1, 0.75, 0.75]))
    assert recall[34] == pytest.approx(0.34)


def test_a_detection_of_another_class_is_a_false_positive_and_a_false_negative() -> None:
    assert count_tp_fp_fn([rows([*ONE, 1, 1])], [rows([*ONE, 0.9, 2])]).tolist() == [[0, 1, 1]]


def test_distractors_count_neither_when_detected_nor_when_missed() -> None:
    truth = Tracks(
        torch.tensor([ONE, TWO, FAR]), torch.tensor([1.0, 0, 0]), torch.tensor([1, 7, 3]), torch.tensor([1, 2, 3])
    )
    relevant = [pedestrians("MOT17-02", truth)]
    assert relevant[0].scores.tolist() == [1, 0]
    detections = [rows([*ONE, 0.9, 1], [*TWO, 0.8, 1])]
    assert count_tp_fp_fn(relevant, detections).tolist() == [[1, 0, 0]]
    assert evaluate_detections({"a": (relevant, detections)}).loc["a"].tolist() == pytest.approx([100, 100, 100, 100])
    assert count_tp_fp_fn(relevant, [rows([*FAR, 0.9, 1])]).tolist() == [[0, 1, 1]]


def test_no_detections_score_zero_and_no_frames_are_no_error() -> None:
    nothing = [rows(), rows()]
    assert evaluate_detections({"a": (TRUTH, nothing)}).loc["a"].tolist() == [0, 0, 0, 0]
    assert count_tp_fp_fn([], []).shape == (0, 3)


def test_without_ground_truth_average_precision_is_undefined() -> None:
    figures = evaluate_detections({"a": ([rows()], [rows([*ONE, 0.9, 1])])}).loc["a"]
    assert figures[["AP", "AP50"]].isna().all()
    assert figures[["recall", "precision"]].tolist() == [0, 0]


def test_of_two_detections_of_one_person_the_higher_score_is_the_true_positive() -> None:
    detections = rows([*TWO, 0.5, 1], [0.0, 0, 10, 19, 0.6, 1], [*ONE, 0.5, 1], [*FAR, 0.9, 1], [*TWO, 0.9, 2])
    assert is_true_positive(TRUTH[0], detections).tolist() == [True, True, False, False, False]
    assert is_true_positive(rows(), detections).tolist() == [False] * 5
