import pytest
import torch
from torchvision.ops import box_iou

from track.structures import Tracks
from track.tracking.motion import Kalman
from track.tracking.recurrent import RecurrentMotion
from track.tracking.smoothing import fill

TIMES = [t / 30 for t in range(40)]


def path(t: int, shift: float = 0.0) -> list[float]:
    x = 4.0 * t + shift
    return [x, 0.05 * t * t, x + 20, 0.05 * t * t + 50]


def video(missing: range, noise: float = 0.0) -> list[Tracks]:
    """Track 9 throughout and track 4 from frame 3 to 35, which is not seen for a while."""
    torch.manual_seed(0)
    frames = []
    for t in range(40):
        rows = [[*path(t, 100), 0.9, 1, 9]]
        rows += [[*path(t), 0.8, 1, 4]] if 3 <= t <= 35 and t not in missing else []
        frame = Tracks.from_rows(rows)
        frames.append(Tracks(frame.boxes + noise * torch.randn(len(rows), 4), frame.scores, frame.labels, frame.ids))
    return frames


def overlap(frames: list[Tracks], identity: int = 4) -> list[float]:
    found = []
    for t, frame in enumerate(frames):
        for box in frame.boxes[frame.ids == identity]:
            found.append(float(box_iou(box[None], torch.tensor([path(t, 0 if identity == 4 else 100)]))))
    return found


@pytest.mark.parametrize("motion", [Kalman(), RecurrentMotion().eval()])
def test_gaps_are_filled_where_the_object_was_and_nothing_else_changes(motion: Kalman) -> None:
    seen = video(range(15, 24))
    filled = fill(seen, TIMES, motion)
    assert [len(frame) for frame in filled] == [1] * 3 + [2] * 33 + [1] * 4
    assert min(overlap(filled)) > 0.85
    for before, after in zip(seen, filled, strict=True):
        order = before.ids.argsort()
        rows = torch.isin(after.ids, before.ids)
        assert torch.equal(after.boxes[rows], before.boxes[order])


def test_smoothing_brings_noisy_boxes_nearer_to_the_truth() -> None:
    noisy = video(range(0), noise=2.0)
    smooth = fill(noisy, TIMES, Kalman(), smooth=True)
    before, after = (sum(overlap(frames, 9)) / 40 for frames in (noisy, smooth))
    assert after > before + 0.03


def test_the_camera_is_followed_across_a_gap() -> None:
    pan = [torch.tensor([[1.0, 0, 7.0], [0, 1, 0]])] * 40
    moved = [
        Tracks(f.boxes + torch.tensor([7.0 * t, 0, 7 * t, 0]), f.scores, f.labels, f.ids)
        for t, f in enumerate(video(range(15, 24)))
    ]
    filled = fill(moved, TIMES, Kalman(), pan)
    back = [
        Tracks(f.boxes - torch.tensor([7.0 * t, 0, 7 * t, 0]), f.scores, f.labels, f.ids) for t, f in enumerate(filled)
    ]
    assert min(overlap(back)) > 0.85


def test_nothing_stays_nothing() -> None:
    assert [len(f) for f in fill([Tracks.empty()] * 3, TIMES[:3], Kalman())] == [0, 0, 0]
