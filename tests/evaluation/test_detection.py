import pytest
import torch

from track.evaluation.detection import count_tp_fp_fn, evaluate_detections, is_right, pedestrians, precision_recall
from track.structures import Detections, Tracks

ONE, TWO, FAR = [0.0, 0, 10, 20], [50.0, 0, 60, 20], [200.0, 0, 210, 20]


def rows(*table: list[float]) -> Detections:
    return Detections.from_rows(table)


TRUTH = [rows([*ONE, 1, 1], [*TWO, 1, 1]), rows([*ONE, 1, 1])]


def test_perfect_detections_score_a_hundred() -> None:
    table = evaluate_detections({"a": (TRUTH, TRUTH)})
    assert table.loc["a"].tolist() == pytest.approx([100, 100, 100, 100])
    assert table.loc["OVERALL"].tolist() == pytest.approx([100, 100, 100, 100])


def test_a_scene_counted_by_hand() -> None:
    found = [rows([*ONE, 0.9, 1], [*FAR, 0.8, 1], [*TWO, 0.2, 1]), rows([0.0, 0, 10, 12, 0.5, 1])]
    assert count_tp_fp_fn(TRUTH, found).tolist() == [[1, 1, 1], [1, 0, 0]]  # a box of score .2 is not count_tp_fp_fn
    figures = evaluate_detections({"a": (TRUTH, found)}).loc["a"]
    assert figures["recall"] == pytest.approx(100 * 2 / 3)
    assert figures["precision"] == pytest.approx(100 * 2 / 3)
    # by score right, false, right, right: precision 1 up to recall 1/3 (34 of 101 points), then .75
    assert figures["AP50"] == pytest.approx(100 * (34 + 67 * 0.75) / 101, abs=0.01)
    recall, precision = precision_recall(TRUTH, found)
    torch.testing.assert_close(precision[[0, 33, 34, 100]], torch.tensor([1, 1, 0.75, 0.75]))
    assert recall[34] == pytest.approx(0.34)


def test_another_class_is_false_and_missed() -> None:
    assert count_tp_fp_fn([rows([*ONE, 1, 1])], [rows([*ONE, 0.9, 2])]).tolist() == [[0, 1, 1]]


def test_what_may_be_found_or_not_is_neither() -> None:
    truth = Tracks(
        torch.tensor([ONE, TWO, FAR]), torch.tensor([1.0, 0, 0]), torch.tensor([1, 7, 3]), torch.tensor([1, 2, 3])
    )
    judged = [pedestrians("MOT17-02", truth)]
    assert judged[0].scores.tolist() == [1, 0]
    found = [rows([*ONE, 0.9, 1], [*TWO, 0.8, 1])]
    assert count_tp_fp_fn(judged, found).tolist() == [[1, 0, 0]]
    assert evaluate_detections({"a": (judged, found)}).loc["a"].tolist() == pytest.approx([100, 100, 100, 100])
    assert count_tp_fp_fn(judged, [rows([*FAR, 0.9, 1])]).tolist() == [[0, 1, 1]]


def test_nothing_found_is_zero_and_no_frames_are_no_error() -> None:
    nothing = [rows(), rows()]
    assert evaluate_detections({"a": (TRUTH, nothing)}).loc["a"].tolist() == [0, 0, 0, 0]
    assert count_tp_fp_fn([], []).shape == (0, 3)


def test_the_surer_of_two_boxes_on_one_person_is_right() -> None:
    found = rows([*TWO, 0.5, 1], [0.0, 0, 10, 19, 0.6, 1], [*ONE, 0.5, 1], [*FAR, 0.9, 1], [*TWO, 0.9, 2])
    assert is_right(TRUTH[0], found).tolist() == [True, True, False, False, False]
    assert is_right(rows(), found).tolist() == [False] * 5
