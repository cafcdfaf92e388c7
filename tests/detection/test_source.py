"""Detections that are computed in advance, looked up by frame number."""

from track.detection.source import PrecomputedDetections
from track.structures import Detections, Frame

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
    one_frame = Detections.from_rows([[*BOX, 1, 3], [*BOX, 1, 1]])
    assert PrecomputedDetections([Detections.empty(), one_frame]).label_names == [
        "background",
        "person",
        "class 2",
        "class 3",
    ]
    assert PrecomputedDetections([]).label_names == ["background", "person"]
    assert PrecomputedDetections([one_frame], ["a", "b", "c", "d"]).label_names == ["a", "b", "c", "d"]
