import pytest
import torch

from track.structures import Detections
from track.tracking.association import ByteAssociation
from track.tracking.recurrent import RecurrentMotion
from track.tracking.tracker import Tracker


def seen(*left: float, score: float = 0.9, label: int = 1) -> Detections:
    return Detections.from_rows([[x, 0, x + 20, 40, score, label] for x in left])


def ids_of(tracker: Tracker, frames: list[Detections]) -> list[list[int]]:
    return [tracker.update(frame).ids.tolist() for frame in frames]


def test_objects_keep_their_ids_while_they_move() -> None:
    frames = [seen(2.0 * t, 200 - 2.0 * t) for t in range(30)]
    assert ids_of(Tracker(), frames) == [[1, 2]] * 30


def test_a_newcomer_is_reported_with_its_second_detection() -> None:
    assert ids_of(Tracker(), [seen(0), seen(0, 100), seen(0, 100)]) == [[1], [1], [1, 2]]


@pytest.mark.parametrize(("missed", "identity"), [(29, 1), (31, 2)])
def test_a_track_survives_max_age_and_no_more(time_since_update: int, identity: int) -> None:
    frames = [seen(50)] * 5 + [Detections.empty()] * time_since_update + [seen(50)] * 2
    assert ids_of(Tracker(max_age=1.0), frames)[-1] == [identity]


def test_elapsed_time_moves_a_track_and_not_the_count_of_frames() -> None:
    tracker = Tracker()
    for t in range(20):
        tracker.update(seen(4.0 * t), time=t / 30)
    assert tracker.update(seen(4.0 * 32), time=32 / 30).ids.tolist() == [1]


def test_by_rule_doubtful_detections_carry_a_track_but_start_none() -> None:
    assert ids_of(Tracker(association=ByteAssociation()), [seen(0)] + [seen(0, score=0.3)] * 3) == [[1]] * 4
    assert ids_of(Tracker(association=ByteAssociation()), [seen(0, score=0.3)] * 3) == [[], [], []]


def test_doubtful_detections_carry_a_track_but_start_none() -> None:
    assert ids_of(Tracker(), [seen(0)] * 10 + [seen(0, score=0.2)] * 3) == [[1]] * 13
    assert ids_of(Tracker(), [seen(0, score=0.2)] * 3) == [[], [], []]


def test_the_camera_moves_the_memory() -> None:
    tracker = Tracker()
    pan = torch.tensor([[1.0, 0, 90], [0, 1, 0]])
    tracker.update(seen(0))
    assert tracker.update(seen(90), camera=pan).ids.tolist() == [1]
    assert ids_of(Tracker(), [seen(0), seen(90)]) == [[1], []]


def test_classes_do_not_mix_by_rule() -> None:
    frames = [seen(0), Detections.cat([seen(0, label=3), seen(1)]), Detections.cat([seen(0, label=3), seen(1)])]
    assert [sorted(ids) for ids in ids_of(Tracker(association=ByteAssociation()), frames)] == [[1], [1], [1, 2]]


def test_a_flickering_label_neither_ends_a_track_nor_changes_its_class() -> None:
    tracker = Tracker()
    tracks = [tracker.update(seen(2.0 * t, label=1 if t % 3 == 1 else 5)) for t in range(30)]
    assert [frame.ids.tolist() for frame in tracks] == [[1]] * 30
    assert {int(frame.labels) for frame in tracks[3:]} == {5}


def test_an_object_of_another_class_beside_is_another_track() -> None:
    tracker = Tracker()
    frames = [Detections.cat([seen(0), seen(15, label=3)]) for _ in range(10)]
    assert [tracker.update(frame).labels.tolist() for frame in frames] == [[1, 3]] * 10


def test_permuting_detections_permutes_nothing_but_order() -> None:
    frames = [seen(*(60.0 * i + 2 * t for i in range(5))) for t in range(8)]
    order = torch.tensor([3, 1, 4, 0, 2])
    plain, permuted = Tracker(), Tracker()
    plain.update(frames[0]), permuted.update(frames[0])
    for frame in frames[1:]:
        a, b = plain.update(frame), permuted.update(frame[order])
    torch.testing.assert_close(a.boxes[a.ids.argsort()], b.boxes[b.ids.argsort()])


def test_no_future_frame_touches_a_result() -> None:
    frames = [seen(3.0 * t, 90.0) for t in range(12)]
    short, long = Tracker(RecurrentMotion()), Tracker(RecurrentMotion())
    first = [short.update(frame) for frame in frames[:6]]
    every = [long.update(frame) for frame in frames]
    for a, b in zip(first, every[:6], strict=True):
        torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=0)


def test_a_reset_forgets_everything() -> None:
    tracker = Tracker()
    before = ids_of(tracker, [seen(0, 50)] * 3)
    tracker.reset()
    assert ids_of(tracker, [seen(0, 50)] * 3) == before


def test_time_that_does_not_increase_is_refused() -> None:
    tracker = Tracker()
    tracker.update(seen(0), time=1.0)
    with pytest.raises(ValueError, match=r"time: expected more than the last frame's 1.0 s, got 1.0 s"):
        tracker.update(seen(0), time=1.0)
