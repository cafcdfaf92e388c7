"""The tracker: identities over time, birth and death of tracks, time, camera motion and classes."""

import pytest
import torch

from tests.test_pipeline import BatchedBrightDetector, moving_square, values
from track.pipeline import Pipeline
from track.structures import Detections
from track.tracking.association import ByteAssociation
from track.tracking.camera_motion import OpticalFlow
from track.tracking.motion import Kalman
from track.tracking.recurrent import RecurrentMotion, save_motion
from track.tracking.tracker import Tracker


def detections_at(*left: float, score: float = 0.9, label: int = 1) -> Detections:
    return Detections.from_rows([[x, 0, x + 20, 40, score, label] for x in left])


def ids_of(tracker: Tracker, frames: list[Detections]) -> list[list[int]]:
    return [tracker.update(frame).ids.tolist() for frame in frames]


def test_objects_keep_their_ids_while_they_move() -> None:
    frames = [detections_at(2.0 * t, 200 - 2.0 * t) for t in range(30)]
    assert ids_of(Tracker(), frames) == [[1, 2]] * 30


def test_a_new_track_is_reported_at_its_second_detection() -> None:
    frames = [detections_at(0), detections_at(0, 100), detections_at(0, 100)]
    assert ids_of(Tracker(), frames) == [[1], [1], [1, 2]]


@pytest.mark.parametrize(("missed_frames", "identity"), [(29, 1), (31, 2)])
def test_a_track_survives_max_age_and_no_more(missed_frames: int, identity: int) -> None:
    frames = [detections_at(50)] * 5 + [Detections.empty()] * missed_frames + [detections_at(50)] * 2
    assert ids_of(Tracker(max_age=1.0), frames)[-1] == [identity]


def test_a_track_moves_by_elapsed_time_and_not_by_the_number_of_frames() -> None:
    tracker = Tracker()
    for t in range(20):
        tracker.update(detections_at(4.0 * t), time=t / 30)
    assert tracker.update(detections_at(4.0 * 32), time=32 / 30).ids.tolist() == [1]


def test_with_byte_low_score_detections_continue_a_track_but_start_none() -> None:
    continued = [detections_at(0)] + [detections_at(0, score=0.3)] * 3
    assert ids_of(Tracker(association=ByteAssociation()), continued) == [[1]] * 4
    assert ids_of(Tracker(association=ByteAssociation()), [detections_at(0, score=0.3)] * 3) == [[], [], []]


def test_low_score_detections_continue_a_track_but_start_none() -> None:
    assert ids_of(Tracker(), [detections_at(0)] * 10 + [detections_at(0, score=0.2)] * 3) == [[1]] * 13
    assert ids_of(Tracker(), [detections_at(0, score=0.2)] * 3) == [[], [], []]


def test_camera_motion_moves_the_tracks() -> None:
    tracker = Tracker()
    pan = torch.tensor([[1.0, 0, 90], [0, 1, 0]])
    tracker.update(detections_at(0))
    assert tracker.update(detections_at(90), affine=pan).ids.tolist() == [1]
    assert ids_of(Tracker(), [detections_at(0), detections_at(90)]) == [[1], []]


def test_byte_does_not_match_across_classes() -> None:
    both = Detections.cat([detections_at(0, label=3), detections_at(1)])
    ids = ids_of(Tracker(association=ByteAssociation()), [detections_at(0), both, both])
    assert [sorted(frame) for frame in ids] == [[1], [1], [1, 2]]


def test_a_flickering_label_neither_ends_a_track_nor_changes_its_class() -> None:
    tracker = Tracker()
    tracks = [tracker.update(detections_at(2.0 * t, label=1 if t % 3 == 1 else 5)) for t in range(30)]
    assert [frame.ids.tolist() for frame in tracks] == [[1]] * 30
    assert {int(frame.labels) for frame in tracks[3:]} == {5}


def test_an_overlapping_object_of_another_class_is_another_track() -> None:
    tracker = Tracker()
    frames = [Detections.cat([detections_at(0), detections_at(15, label=3)]) for _ in range(10)]
    assert [tracker.update(frame).labels.tolist() for frame in frames] == [[1, 3]] * 10


def test_permuting_detections_permutes_nothing_but_order() -> None:
    frames = [detections_at(*(60.0 * i + 2 * t for i in range(5))) for t in range(8)]
    order = torch.tensor([3, 1, 4, 0, 2])
    plain, permuted = Tracker(), Tracker()
    plain.update(frames[0])
    permuted.update(frames[0])
    for frame in frames[1:]:
        a, b = plain.update(frame), permuted.update(frame[order])
    torch.testing.assert_close(a.boxes[a.ids.argsort()], b.boxes[b.ids.argsort()])


def test_no_future_frame_changes_a_result() -> None:
    pipeline = Pipeline(BatchedBrightDetector(), OpticalFlow(), Tracker(RecurrentMotion()))
    short = values(pipeline(moving_square(6)))
    long = values(pipeline(moving_square(12)))
    assert (len(short), len(long)) == (6, 12)
    assert short == long[:6]


def test_after_a_reset_ids_start_again_and_results_repeat() -> None:
    tracker = Tracker()
    before = ids_of(tracker, [detections_at(0, 50)] * 3)
    tracker.reset()
    assert ids_of(tracker, [detections_at(0, 50)] * 3) == before


def test_time_that_does_not_increase_is_refused() -> None:
    tracker = Tracker()
    tracker.update(detections_at(0), time=1.0)
    with pytest.raises(ValueError, match=r"time: expected more than the last frame's 1.0 s, got 1.0 s"):
        tracker.update(detections_at(0), time=1.0)


def test_weights_beside_a_motion_model_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tracker.weights: w.safetensors would be ignored, expected either weights"):
        Tracker(motion=Kalman(), weights="w.safetensors")


def test_weights_without_an_association_network_track_by_byte(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = save_motion(RecurrentMotion(hidden=8), tmp_path_factory.mktemp("weights") / "motion.safetensors")
    assert isinstance(Tracker(weights=file).association, ByteAssociation)
    assert not isinstance(Tracker().association, ByteAssociation)


def test_the_trace_holds_what_the_association_decided_on() -> None:
    tracker = Tracker()
    for frame in [detections_at(0, 100)] * 2:
        tracker.update(frame)
    assert tracker.trace is not None
    assert tracker.trace.ids.tolist() == [1, 2]
    assert torch.equal(tracker.trace.detections.boxes, detections_at(0, 100).boxes)
    assert tracker.trace.matches.detections[tracker.trace.matches.tracks.argsort()].tolist() == [0, 1]
