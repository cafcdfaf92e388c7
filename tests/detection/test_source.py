"""Detections that are computed in advance, looked up by frame number."""

from pathlib import Path

import pytest

from track.detection.source import PrecomputedDetections, with_probabilities
from track.structures import Detections, Frame, class_name

BOX = [1.0, 2, 3, 4]


def blank_frames(*numbers: int) -> list[Frame]:
    return [Frame.blank(6, 8, number / 30, number) for number in numbers]


def test_each_frame_gets_the_detections_of_its_number_and_later_frames_get_none() -> None:
    detections = [Detections.from_rows([[*BOX, number / 4, 1]]) for number in (1, 2, 3)]
    frames = blank_frames(3, 1, 4)
    pairs = list(PrecomputedDetections(detections).detect(frames))
    assert [frame for frame, _ in pairs] == frames
    assert [one.scores.tolist() for _, one in pairs] == [[0.75], [0.25], []]
    assert not PrecomputedDetections(detections).needs_pixels


def test_frames_are_read_one_at_a_time() -> None:
    frames = iter(blank_frames(1, 2, 3))
    pairs = PrecomputedDetections([Detections.empty()] * 3).detect(frames)
    assert next(pairs)[0].number == 1
    assert next(frames).number == 2


def test_labels_without_names_are_a_person_and_numbered_classes() -> None:
    large = Detections.from_rows([[*BOX, 1, 10_000_000], [*BOX, 1, 1]])  # sizes no list
    names = PrecomputedDetections([Detections.empty(), large]).label_names
    assert [class_name(label, names) for label in (1, 3, 10_000_000)] == ["person", "class 3", "class 10000000"]
    assert PrecomputedDetections([large], ["a", "b"]).label_names == ["a", "b"]


def scored(*scores: float) -> list[Detections]:
    return [Detections.from_rows([[*BOX, score, 1]]) for score in scores]


@pytest.mark.parametrize(
    ("scores", "mode", "expected", "told"),
    [
        ((0.3, 0.9), "auto", (0.3, 0.9), ""),
        ((30.0, 90.0), "auto", (0.3, 0.9), "read as percent"),
        ((-2.0, 2.0), "auto", (0.1192, 0.8808), "read as logit"),
        ((0.5, 3.0), "auto", (0.6225, 0.9526), "read as logit"),
        ((-1.0, -1.0), "auto", (1.0, 1.0), "read as unknown"),
        ((0.0, 0.0), "auto", (1.0, 1.0), "read as unknown"),
        ((1.0, 1.0), "auto", (1.0, 1.0), ""),
        ((0.54, 0.54), "calibrate", (0.9, 0.9), "0.54 calibrated"),
        ((0.2, 0.4), "unknown", (1.0, 1.0), "read as unknown"),
        ((5.0, 9.0), "percent", (0.05, 0.09), "read as percent"),
    ],
)
def test_scores_of_a_file_become_probabilities_and_a_line_says_how(
    scores: tuple[float, float], mode: str, expected: tuple[float, float], told: str
) -> None:
    lines: list[str] = []
    converted = with_probabilities(scored(*scores), mode, Path("det.txt"), lines.append)
    assert [frame.scores.item() for frame in converted] == pytest.approx(expected, abs=1e-4)
    assert told in "".join(lines)
    assert len(lines) == bool(told)


@pytest.mark.parametrize(
    ("scores", "mode", "message"),
    [
        ((10.0, 250.0), "auto", "det.txt: expected scores from 0 to 1, got 10 to 250; say scores=percent"),
        ((0.5, 1.5), "probability", "det.txt: expected scores from 0 to 1, got 0.5 to 1.5; see scores="),
        ((50.0, 150.0), "percent", "det.txt: expected scores from 0 to 1, got 50 to 150; see scores="),
        ((0.5, 0.6), "odds", "scores: expected one of auto, probability, percent"),
    ],
)
def test_other_scores_are_refused(scores: tuple[float, float], mode: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_probabilities(scored(*scores), mode, Path("det.txt"), print)
