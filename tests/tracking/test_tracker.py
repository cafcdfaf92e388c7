"""The tracker: identities over time, birth and death of tracks, time, camera motion and classes."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.test_pipeline import BatchedBrightDetector, moving_square, values
from track.pipeline import Pipeline
from track.structures import Detections
from track.tracking.association import ByteAssociation, iou
from track.tracking.camera_motion import OpticalFlow
from track.tracking.motion import Kalman
from track.tracking.recurrent import RecurrentMotion, save_motion
from track.tracking.tracker import MultiTracker, Tracker

KINDS = torch.float32, torch.float64


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
    assert (tracker.trace.detections.boxes == detections_at(0, 100).boxes.numpy()).all()
    assert tracker.trace.matches.detections[tracker.trace.matches.tracks.argsort()].tolist() == [0, 1]


PARKED = torch.tensor([[100.2, 100.7, 180.2, 150.7], [300, 200, 360, 260], [500, 100, 560, 220]])
TRACKERS = {
    "gru": Tracker,
    "gru_byte": lambda: Tracker(association=ByteAssociation(), max_age=1.0),
    "bytetrack": lambda: Tracker(Kalman(), ByteAssociation(iou), max_age=1.0),
}


@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.parametrize("interval", [1 / 30, 0.5, 2.0, 10.0, 3600.0, 33.0])
def test_parked_objects_keep_their_ids_at_any_interval(name: str, interval: float) -> None:
    generator = torch.Generator().manual_seed(0)
    tracker = TRACKERS[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these times could be milliseconds
        for t in range(12):
            boxes = PARKED + 0.3 * torch.randn(3, 4, generator=generator)
            tracks = tracker.update(Detections.from_numpy(boxes, 0.9), t * interval)
            assert tracks.ids.tolist() == [1, 2, 3]


def test_a_track_survives_two_frames_without_a_detection_at_any_interval() -> None:
    tracker = Tracker(Kalman(), ByteAssociation(iou), max_age=0.1)
    for t in range(12):
        tracks = tracker.update(Detections.empty() if t in (5, 6) else Detections.from_numpy(PARKED), t * 60.5)
    assert tracks.ids.tolist() == [1, 2, 3]


def test_one_long_gap_in_a_usual_video_ends_tracks_by_max_age() -> None:
    for gap, expected in ((0.9, [1, 2, 3]), (1.5, [])):
        tracker = Tracker(Kalman(), ByteAssociation(iou), max_age=1.0)
        times = [t / 30 for t in range(10)]
        for time in [*times, times[-1] + gap]:
            tracks = tracker.update(Detections.from_numpy(PARKED) if time <= times[-1] else Detections.empty(), time)
        tracks = tracker.update(Detections.from_numpy(PARKED), times[-1] + gap + 1 / 30)
        assert tracks.ids.tolist() == expected


def test_detections_that_are_refused_leave_the_clock_where_it_was() -> None:
    tracker = Tracker()
    tracker.update(Detections.from_numpy(PARKED), 0.0)
    with pytest.raises(ValueError, match="scores: expected 0 to 1"):
        tracker.update(Detections(PARKED, torch.full((3,), 90.0), torch.ones(3, dtype=torch.long)), 0.5)
    assert tracker.update(Detections.from_numpy(PARKED), 1 / 30).ids.tolist() == [1, 2, 3]


def test_times_that_look_like_milliseconds_are_hinted_at_once() -> None:
    tracker = Tracker()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for t in range(20):
            tracker.update(Detections.from_numpy(PARKED), 33.0 * t)
    assert [str(one.message)[:60] for one in told] == ["frames are 33 s apart: if these times are milliseconds, divi"]


def test_ids_are_given_when_a_track_is_first_reported() -> None:
    tracker = Tracker(Kalman(), ByteAssociation(iou))
    for t in range(6):  # a false box in every frame, never twice in one place
        boxes = torch.cat([PARKED[:1], torch.tensor([[0.0, 0, 20, 20]]) + 100.0 * t])
        ids = tracker.update(Detections.from_numpy(boxes), t / 30).ids.tolist()
        tracker.update(Detections.from_numpy(PARKED[:1]), t / 30 + 1 / 60)
    new = torch.tensor([[700.0, 300, 760, 380]])
    for t in range(6, 8):
        ids = tracker.update(Detections.from_numpy(torch.cat([PARKED[:1], new])), t / 30).ids.tolist()
    assert ids == [1, 3]  # 2 was reported in the first frame


def test_a_track_names_the_row_of_the_detection_that_it_came_from() -> None:
    tracker = Tracker()
    order = torch.tensor([2, 0, 1])
    first = tracker.update(Detections.from_numpy(PARKED), 0.0)
    assert first.detection_rows.tolist() == [0, 1, 2]
    doubtful = torch.cat([torch.zeros(1, 4), PARKED[order]])  # row 0 is below the threshold
    second = tracker.update(Detections.from_numpy(doubtful, [0.05, 0.9, 0.9, 0.9]), 1 / 30)
    torch.testing.assert_close(second.boxes, doubtful[second.detection_rows], atol=1.0, rtol=0)
    assert sorted(second.detection_rows.tolist()) == [1, 2, 3]


def test_boxes_may_be_the_detectors_own() -> None:
    plain, own = Tracker(), Tracker(boxes="detected")
    for t in range(5):
        boxes = PARKED + 3.0 * (t % 2)
        filtered, detected = (one.update(Detections.from_numpy(boxes), t / 30) for one in (plain, own))
    torch.testing.assert_close(detected.boxes, boxes[detected.detection_rows], rtol=0, atol=0)
    assert not torch.equal(filtered.boxes, detected.boxes)


def test_hidden_tracks_are_reported_while_they_coast_and_marked() -> None:
    tracker = Tracker(coasting=0.11)
    for t in range(20):
        tracker.update(Detections.from_numpy([[4.0 * t, 0, 4.0 * t + 20, 40]], 0.9), t / 30)
    hidden = [tracker.update(Detections.empty(), t / 30) for t in range(20, 26)]
    assert [one.ids.tolist() for one in hidden] == [[1]] * 3 + [[]] * 3
    assert hidden[2].detection_rows.tolist() == [-1]
    assert hidden[2].boxes[0, 0].item() == pytest.approx(4.0 * 22, abs=4)


def test_labels_may_be_any_numbers_and_size_nothing() -> None:
    tracker = Tracker()
    for t in range(4):
        tracks = tracker.update(Detections.from_numpy(PARKED, 0.9, [10**12, 0, -1]), t / 30)
    assert tracks.labels.tolist() == [10**12, 0, -1]
    assert tracker.memory.class_logits.shape == (3, 3)


@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38, -1e9])
def test_boxes_that_are_no_numbers_are_dropped_with_a_warning_and_the_rest_is_tracked(name: str, value: float) -> None:
    tracker = TRACKERS[name]()
    broken = PARKED.clone()
    broken[1, 2] = value
    for t in range(3):
        with pytest.warns(UserWarning, match="1 detections were dropped: expected finite scores"):
            tracks = tracker.update(Detections.from_numpy(broken), t / 30)
        assert tracks.detection_rows.tolist() == [0, 2]
    assert tracker.update(Detections.from_numpy(PARKED), 0.1).ids.tolist() == [1, 2]


@pytest.mark.parametrize("name", TRACKERS)
def test_boxes_without_an_area_leave_every_number_finite(name: str) -> None:
    tracker = TRACKERS[name]()
    flat = PARKED.clone()
    flat[1, 2] = flat[1, 0]
    for t in range(4):
        tracks = tracker.update(Detections.from_numpy(flat), t / 30)
    assert tracks.boxes.isfinite().all()
    assert {1, 3} <= set(tracks.ids.tolist())


@pytest.mark.parametrize(
    "affine", [torch.zeros(2, 3), torch.full((2, 3), torch.nan), 1e9 * torch.eye(2, 3), torch.eye(3)]
)
def test_an_affine_that_is_no_cameras_motion_is_refused_and_changes_nothing(affine: torch.Tensor) -> None:
    tracker = Tracker()
    tracker.update(Detections.from_numpy(PARKED), 0.0)
    with pytest.raises(ValueError, match="affine: expected finite numbers"):
        tracker.update(Detections.from_numpy(PARKED), 1 / 30, affine)
    assert tracker.update(Detections.from_numpy(PARKED), 1 / 30).ids.tolist() == [1, 2, 3]


def test_a_frame_of_too_many_detections_or_classes_is_cut_or_refused() -> None:
    grid = torch.arange(150)
    corners = 50.0 * torch.stack(torch.meshgrid(grid, grid, indexing="ij"), 2).reshape(-1, 2)
    crowd = torch.cat([corners, corners + 40], 1)
    tracker = Tracker(Kalman(), ByteAssociation(iou))
    with pytest.warns(UserWarning, match="22500 detections in a frame: the best 20000 are tracked"):
        tracks = tracker.update(Detections.from_numpy(crowd, torch.linspace(0.8, 0.9, 22500)), 0.0)
    assert tracks.detection_rows.tolist() == list(range(2500, 22500))
    with pytest.raises(ValueError, match="labels: expected at most 2000 classes, got 2003"):
        tracker.update(Detections.from_numpy(crowd[:2001], 0.9, torch.arange(5, 2006)), 1 / 30)


@pytest.mark.parametrize(
    ("scores", "time", "message"),
    [(0.9, float("nan"), "time: expected seconds, got nan"), (90.0, 0.0, "scores: expected 0 to 1, got 90: divide")],
)
def test_times_and_scores_that_are_none_are_refused(scores: float, time: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tracker().update(Detections.from_numpy(PARKED, scores), time)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"min_score": "high"}, "tracker.min_score: expected a number from 0 to 1, got high"),
        ({"max_age": -1}, "tracker.max_age: expected a number of at least 0, got -1"),
        ({"max_age": float("nan")}, "tracker.max_age: expected a number of at least 0, got nan"),
        ({"frame_rate": 0}, "tracker.frame_rate: expected a number of at least 1e-06, got 0"),
        ({"min_hits": 0}, "tracker.min_hits: expected a number of at least 1, got 0"),
        ({"boxes": "raw"}, "tracker.boxes: expected filtered or detected, got raw"),
    ],
)
def test_options_out_of_range_are_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tracker(**option)


def test_tracks_are_ordinary_tensors() -> None:
    tracks = Tracker().update(Detections.from_numpy(PARKED), 0.0)
    doubled = 2 * tracks.boxes
    tracks.boxes.mul_(2)
    assert torch.equal(tracks.boxes, doubled)


def test_a_short_interval_after_a_long_one_is_not_scaled() -> None:
    tracker = Tracker(Kalman(), ByteAssociation(iou))
    moved = PARKED + torch.tensor([30.0, 0, 30, 0])
    for time, boxes in ((0.0, PARKED), (10.0, PARKED), (10.0 + 1 / 30, PARKED), (10.0 + 2 / 30, moved)):
        tracker.update(Detections.from_numpy(boxes), time)
    assert tracker._pass_time(10.0 + 3 / 30) == pytest.approx(1 / 30)


def test_a_time_that_is_refused_adds_no_class() -> None:
    tracker = Tracker()
    tracker.update(Detections.from_numpy(PARKED), 1.0)
    with pytest.raises(ValueError, match="time: expected more"):
        tracker.update(Detections.from_numpy(PARKED, 0.9, 7), 0.5)
    assert tracker.memory.class_logits.shape[1] == 2


def test_what_is_no_table_of_detections_or_no_time_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"expected Detections, got ndarray; Detections\.from_numpy converts"):
        Tracker().update(PARKED.numpy())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="time: expected seconds, got 1"):
        Tracker().update(Detections.from_numpy(PARKED), "1")  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match=r"1 detections were dropped: .* corners with x1 <= x2"):
        Tracker().update(Detections.from_numpy([[100, 100, 20, 30]]))


def walkers(seed: int, frames: int) -> list[Detections]:
    """Boxes that walk, each missed now and then."""
    chance = torch.Generator().manual_seed(seed)
    start, velocity = 600 * torch.rand(12, 2, generator=chance), 4 * torch.randn(12, 2, generator=chance)
    scene = []
    for t in range(frames):
        corners = start + t * velocity + torch.randn(12, 2, generator=chance)
        seen = torch.rand(12, generator=chance) > 0.15
        scene.append(Detections.from_numpy(torch.cat([corners, corners + torch.tensor([30.0, 80])], 1)[seen], 0.9))
    return scene


@pytest.mark.parametrize("make", [Tracker, lambda: Tracker(Kalman(), ByteAssociation(), boxes="detected")])
def test_videos_tracked_together_have_the_tracks_of_each_alone(make: Callable[[], Tracker]) -> None:
    scenes = [walkers(seed, 30) for seed in range(4)]
    scenes[3] = [Detections.empty()] * 3 + scenes[3][3:]  # nobody at first
    turn = torch.tensor([[1, 0.01, 3], [-0.01, 1, -2]])
    together, alone = MultiTracker(4, make()), [make() for _ in scenes]
    for t in range(30):
        frames = [None if (t + k) % 7 == 0 else scene[t] for k, scene in enumerate(scenes)]
        times, affines = [t / 30, t / 10, t / 30, None], [None, turn, None, turn]
        results = together.update(frames, times, affines)
        for tracker, frame, time, affine, tracks in zip(alone, frames, times, affines, results, strict=True):
            assert (frame is None) == (tracks is None)
            if frame is not None and tracks is not None:
                expected = tracker.update(frame, time, affine)
                assert tracks.ids.tolist() == expected.ids.tolist()
                torch.testing.assert_close(tracks.boxes, expected.boxes, rtol=1e-4, atol=1e-2)
    assert [len(tracks) > 4 for tracks in results if tracks is not None] == [True] * 4


def test_bad_input_for_one_video_changes_none() -> None:
    together = MultiTracker(2)
    frame = Detections.from_numpy(PARKED)
    together.update([frame, frame], [0.0, 0.0])
    with pytest.raises(ValueError, match="time: expected more than the last frame's"):
        together.update([frame, frame], [0.1, 0.0])
    assert [tracks.ids.tolist() for tracks in together.update([frame, frame], [0.1, 0.1]) if tracks] == [[1, 2, 3]] * 2
    with pytest.raises(ValueError, match="detections: expected one for each of 2 videos, got 1"):
        together.update([frame])
    assert together.update([None, None]) == [None, None]


def test_an_affine_of_opencv_in_float64_is_taken_and_an_array_is_refused() -> None:
    turn = torch.tensor([[0.999, -0.01, 2], [0.01, 0.999, -1]])
    trackers = Tracker(), Tracker()
    for t in range(3):
        frame = Detections.from_numpy(PARKED + 2.0 * t)
        single, double = (
            tracker.update(frame, t / 30, turn.to(kind)) for tracker, kind in zip(trackers, KINDS, strict=True)
        )
        torch.testing.assert_close(single.boxes, double.boxes)
    with pytest.raises(ValueError, match=r"affine: expected a tensor \(2, 3\), got ndarray"):
        trackers[0].update(frame, 1.0, turn.numpy())  # type: ignore[arg-type]
    assert trackers[0].update(frame, 0.1).ids.tolist() == [1, 2, 3]  # nothing was changed


def test_times_and_affines_of_several_videos_may_be_arrays() -> None:
    together = MultiTracker(2)
    for t in range(3):
        frame = Detections.from_numpy(PARKED)
        tracks = together.update([frame, frame], np.full(2, t / 30).tolist(), torch.eye(2, 3).repeat(2, 1, 1))  # type: ignore[arg-type]
    assert [one.ids.tolist() for one in tracks if one is not None] == [[1, 2, 3]] * 2
