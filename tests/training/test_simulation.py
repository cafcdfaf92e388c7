import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from track.structures import Detections, Tracks
from track.training.simulation import Episode, match, mirror, mix, relabel, reverse, simulate, skip, squeeze


def walkers(count: int = 3, frames: int = 12, apart: float = 60.0) -> list[Tracks]:
    rows = [
        [[apart * k + 2 * t, 0, apart * k + 2 * t + 20, 50 + k, 1, 1, k + 1] for k in range(count)]
        for t in range(frames)
    ]
    return [Tracks.from_rows(one) for one in rows]


def panned(frames: int = 12) -> Episode:
    """Somebody who stands still while the camera turns by 5, 6, 7 ... pixels a frame."""
    cameras = [torch.tensor([[1.0, 0.02, 4 + t], [-0.02, 1, 0]]) for t in range(frames)]
    boxes, truth = torch.tensor([[100.0, 50], [120, 90]]), []
    for t in range(frames):
        boxes = boxes @ cameras[t][:, :2].T + cameras[t][:, 2] if t else boxes
        truth.append(Tracks.from_rows([[*boxes.flatten().tolist(), 1, 1, 7]]))
    seen = [Detections(frame.boxes, frame.scores, frame.labels) for frame in truth]
    return Episode(truth, seen, cameras, [t / 10 for t in range(frames)])


def follows_the_camera(episode: Episode) -> None:
    assert episode.cameras is not None
    for before, after, camera in zip(episode.truth, episode.truth[1:], episode.cameras[1:], strict=False):
        corner = before.boxes.reshape(-1, 2)
        moved = corner @ camera[:, :2].T + camera[:, 2]
        torch.testing.assert_close(moved, after.boxes.reshape(-1, 2), rtol=1e-4, atol=1e-2)


def test_cameras_go_with_whatever_is_done_to_an_episode() -> None:
    episode = panned()
    follows_the_camera(episode)
    follows_the_camera(skip(episode, [1, 4, 5, 9]))
    follows_the_camera(reverse(episode))
    assert reverse(episode).times == pytest.approx([t / 10 for t in range(12)])
    assert skip(episode, [1, 4]).times == [0.1, 0.4]


def test_a_mirrored_episode_moves_the_other_way() -> None:
    episode = mirror(panned())
    assert episode.cameras is not None
    centre = [(frame.boxes[0, :2] + frame.boxes[0, 2:]) / 2 for frame in episode.truth]
    for before, after, camera in zip(centre, centre[1:], episode.cameras[1:], strict=False):
        torch.testing.assert_close(camera[:, :2] @ before + camera[:, 2], after, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(mirror(episode).truth[3].boxes, panned().truth[3].boxes)


def test_some_false_boxes_stay_where_they_are() -> None:
    stayed = 0
    for seed in range(8):
        truth = walkers(3, 40)
        seen = simulate(truth, np.random.default_rng(seed))
        false = [frame.boxes[match(frame.boxes, people) < 0] for frame, people in zip(seen, truth, strict=True)]
        pairs = zip(false, false[1:], strict=False)
        stayed += sum(int((box_iou(a, b) > 0.7).any(1).sum()) for a, b in pairs if len(a) and len(b))
    assert 8 * 20 < stayed < 8 * 40 * 8


def test_who_is_hidden_is_seen_worse() -> None:
    rng = np.random.default_rng(0)
    beside, behind = [], []
    for _ in range(10):
        for apart, found in ((60.0, beside), (3.0, behind)):
            truth = walkers(2, 40, apart)
            for frame, seen in zip(truth, simulate(truth, rng), strict=True):
                i = match(seen.boxes, frame) == 1  # the shorter one is behind
                found.append(float(seen.scores[i].max()) if i.any() else 0.0)
    assert np.mean(beside) > np.mean(behind) + 0.2


def test_simulated_boxes_are_where_people_are() -> None:
    truth = walkers(4, 50)
    seen = simulate(truth, np.random.default_rng(1))
    found = [len(set(match(s.boxes, t).tolist()) - {-1}) for s, t in zip(seen, truth, strict=True)]
    assert np.mean(found) > 3.5
    best = torch.cat([box_iou(t.boxes, s.boxes).amax(1) for s, t in zip(seen, truth, strict=True)])
    assert 0.75 < float(best.mean()) < 0.97


def test_a_mixed_crowd_is_of_the_same_size_in_the_same_place_under_other_ids() -> None:
    truth, other = walkers(3, 12), [Tracks(5 * f.boxes + 4000, f.scores, f.labels, f.ids) for f in walkers(2, 9)]
    mixed = mix(truth, other, np.random.default_rng(0))
    assert [len(frame) for frame in mixed] == [5] * 9 + [3] * 3
    assert sorted(set(mixed[0].ids.tolist())) == [1, 2, 3, 5, 6]
    heights = mixed[0].boxes[3:, 3] - mixed[0].boxes[3:, 1]
    assert bool(((heights > 35) & (heights < 70)).all())


def test_squeezed_people_keep_their_size() -> None:
    truth = walkers(4)
    closer = squeeze(truth, np.random.default_rng(0))
    spread = [float(f.boxes[:, 0].max() - f.boxes[:, 0].min()) for f in (truth[0], closer[0])]
    assert 0.34 < spread[1] / spread[0] < 1
    torch.testing.assert_close(
        closer[5].boxes[:, 2:] - closer[5].boxes[:, :2], truth[5].boxes[:, 2:] - truth[5].boxes[:, :2]
    )


def test_labels_flicker_around_one_class_an_object() -> None:
    truth = walkers(3, 400)
    plain = Episode(truth, [Detections(f.boxes, f.scores, f.labels) for f in truth], None, [t / 30 for t in range(400)])
    rates = []
    for seed in range(12):
        labels = torch.stack([frame.labels for frame in relabel(plain, np.random.default_rng(seed)).seen])
        rates.append(float((labels != labels.mode(0).values).float().mean()))
    levels = [
        min((0, 0.075, 0.225), key=lambda level: abs(rate - level)) for rate in rates
    ]  # a quarter is right by chance
    assert len(set(levels)) == 3
    assert rates == pytest.approx(levels, abs=0.03)
