"""Offline post-processing: interpolated boxes are where the object was, smoothed ones nearer to the ground truth."""

import pytest
import torch
from torchvision.ops import box_iou

from track.smoothing import interpolate
from track.structures import Tracks
from track.tracking.motion import Kalman, Motion
from track.tracking.recurrent import RecurrentMotion

TIMES = [t / 30 for t in range(40)]


def true_box(t: int, shift: float = 0.0) -> list[float]:
    x = 4.0 * t + shift
    return [x, 0.05 * t * t, x + 20, 0.05 * t * t + 50]


def tracked_video(missing: range, noise: float = 0.0) -> list[Tracks]:
    """Track 9 throughout, and track 4 from frame 3 to 35 except in the frames `missing`."""
    torch.manual_seed(0)
    frames = []
    for t in range(40):
        rows = [[*true_box(t, 100), 0.9, 1, 9]]
        rows += [[*true_box(t), 0.8, 1, 4]] if 3 <= t <= 35 and t not in missing else []
        frame = Tracks.from_rows(rows)
        frames.append(Tracks(frame.boxes + noise * torch.randn(len(rows), 4), frame.scores, frame.labels, frame.ids))
    return frames


def shifted(frames: list[Tracks], speed: float) -> list[Tracks]:
    """The frames of a camera that pans by `speed` pixels per frame."""
    offsets = [torch.tensor([speed * t, 0, speed * t, 0]) for t in range(len(frames))]
    return [Tracks(f.boxes + o, f.scores, f.labels, f.ids) for f, o in zip(frames, offsets, strict=True)]


def ious(frames: list[Tracks], identity: int = 4) -> list[float]:
    """IoU with the ground truth wherever the identity has a box."""
    shift = 0 if identity == 4 else 100
    boxes = [(t, box) for t, frame in enumerate(frames) for box in frame.boxes[frame.ids == identity]]
    return [float(box_iou(box[None], torch.tensor([true_box(t, shift)]))) for t, box in boxes]


@pytest.mark.parametrize("motion", [Kalman(), RecurrentMotion().eval()])
def test_gaps_are_filled_where_the_object_was_and_nothing_else_changes(motion: Motion) -> None:
    results = tracked_video(range(15, 24))
    filled = interpolate(results, TIMES, motion)
    assert [len(frame) for frame in filled] == [1] * 3 + [2] * 33 + [1] * 4
    assert min(ious(filled)) > 0.85
    for before, after in zip(results, filled, strict=True):
        order = before.ids.argsort()
        rows = torch.isin(after.ids, before.ids)
        assert torch.equal(after.boxes[rows], before.boxes[order])


def test_an_untrained_network_smooths_exactly_as_the_kalman_filter_that_it_is() -> None:
    results = tracked_video(range(15, 24), noise=2.0)
    for kalman, network in zip(
        interpolate(results, TIMES, Kalman(), smooth=True),
        interpolate(results, TIMES, RecurrentMotion().eval(), smooth=True),
        strict=True,
    ):
        torch.testing.assert_close(kalman.boxes, network.boxes, rtol=0, atol=1e-3)


def test_an_interpolated_box_has_the_score_and_label_of_the_tracks_previous_box() -> None:
    results = [Tracks.from_rows([[0, 0, 10, 20, score, label, 1]]) for score, label in ((0.5, 1), (0.75, 3))]
    filled = interpolate([results[0], Tracks.empty(), results[1]], TIMES[:3], Kalman())
    assert [frame.scores.tolist() for frame in filled] == [[0.5], [0.5], [0.75]]
    assert [frame.labels.tolist() for frame in filled] == [[1], [1], [3]]


def test_smoothing_brings_noisy_boxes_nearer_to_the_ground_truth() -> None:
    noisy = tracked_video(range(0), noise=2.0)
    smoothed = interpolate(noisy, TIMES, Kalman(), smooth=True)
    before, after = (sum(ious(frames, 9)) / 40 for frames in (noisy, smoothed))
    assert after > before + 0.03


def test_interpolation_follows_the_camera_across_a_gap() -> None:
    affines = [torch.tensor([[1.0, 0, 7.0], [0, 1, 0]])] * 40
    filled = interpolate(shifted(tracked_video(range(15, 24)), 7.0), TIMES, Kalman(), affines)
    assert min(ious(shifted(filled, -7.0))) > 0.85


def test_frames_without_tracks_stay_empty() -> None:
    assert [len(frame) for frame in interpolate([Tracks.empty()] * 3, TIMES[:3], Kalman())] == [0, 0, 0]
