"""Simulated detections and augmented episodes: errors as measured, geometry that stays consistent."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from track.structures import Detections, Tracks
from track.training.simulation import (
    Episode,
    identify,
    mirror,
    mix_crowds,
    relabel,
    reverse,
    simulate_detections,
    squeeze,
    subsample,
)


def walkers(count: int = 3, frames: int = 12, spacing: float = 60.0) -> list[Tracks]:
    """People side by side who walk to the right; the first is the shortest."""
    rows = [
        [[spacing * k + 2 * t, 0, spacing * k + 2 * t + 20, 50 + k, 1, 1, k + 1] for k in range(count)]
        for t in range(frames)
    ]
    return [Tracks.from_rows(one) for one in rows]


def panned(frames: int = 12) -> Episode:
    """One standing person while the camera pans by 5, 6, 7, ... pixels per frame."""
    affines = [torch.tensor([[1.0, 0.02, 4 + t], [-0.02, 1, 0]]) for t in range(frames)]
    corners = torch.tensor([[100.0, 50], [120, 90]])
    truth = []
    for t in range(frames):
        corners = corners @ affines[t][:, :2].T + affines[t][:, 2] if t else corners
        truth.append(Tracks.from_rows([[*corners.flatten().tolist(), 1, 1, 7]]))
    detections = [Detections(frame.boxes, frame.scores, frame.labels) for frame in truth]
    return Episode(truth, detections, affines, [t / 10 for t in range(frames)])


def assert_affines_fit_the_truth(episode: Episode) -> None:
    assert episode.affines is not None
    for before, after, affine in zip(episode.truth, episode.truth[1:], episode.affines[1:], strict=False):
        corners = before.boxes.reshape(-1, 2)
        moved = corners @ affine[:, :2].T + affine[:, 2]
        torch.testing.assert_close(moved, after.boxes.reshape(-1, 2), rtol=1e-4, atol=1e-2)


def test_camera_motion_fits_subsampled_and_reversed_episodes() -> None:
    episode = panned()
    assert_affines_fit_the_truth(episode)
    assert_affines_fit_the_truth(subsample(episode, [1, 4, 5, 9]))
    assert_affines_fit_the_truth(reverse(episode))
    assert reverse(episode).times == pytest.approx([t / 10 for t in range(12)])
    assert subsample(episode, [1, 4]).times == [0.1, 0.4]


def test_a_mirrored_episode_moves_the_other_way() -> None:
    episode = mirror(panned())
    assert episode.affines is not None
    for mirrored, original in zip(episode.truth, panned().truth, strict=True):
        x1, y1, x2, y2 = original.boxes[0].tolist()
        assert mirrored.boxes[0].tolist() == [-x2, y1, -x1, y2]
    for detections, truth in zip(episode.detections, episode.truth, strict=True):
        assert detections.boxes.equal(truth.boxes)
    centres = [(frame.boxes[0, :2] + frame.boxes[0, 2:]) / 2 for frame in episode.truth]
    for before, after, affine in zip(centres, centres[1:], episode.affines[1:], strict=False):
        torch.testing.assert_close(affine[:, :2] @ before + affine[:, 2], after, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(mirror(episode).truth[3].boxes, panned().truth[3].boxes)


def test_some_false_positives_are_static() -> None:
    static = 0
    for seed in range(8):
        truth = walkers(3, 40)
        detections = simulate_detections(truth, np.random.default_rng(seed))
        false = [
            frame.boxes[identify(frame.boxes, people) < 0] for frame, people in zip(detections, truth, strict=True)
        ]
        pairs = zip(false, false[1:], strict=False)
        static += sum(int((box_iou(a, b) > 0.7).any(1).sum()) for a, b in pairs if len(a) and len(b))
    assert 8 * 20 < static < 8 * 40 * 8


def test_occluded_people_score_lower() -> None:
    rng = np.random.default_rng(0)
    visible: list[float] = []
    occluded: list[float] = []
    for _ in range(10):
        for spacing, scores in ((60.0, visible), (3.0, occluded)):
            truth = walkers(2, 40, spacing)
            for frame, detections in zip(truth, simulate_detections(truth, rng), strict=True):
                rows = identify(detections.boxes, frame) == 1  # the shorter one is behind
                scores.append(float(detections.scores[rows].max()) if rows.any() else 0.0)
    assert np.mean(visible) > np.mean(occluded) + 0.2


def test_simulated_boxes_overlap_the_people() -> None:
    truth = walkers(4, 50)
    pairs = list(zip(truth, simulate_detections(truth, np.random.default_rng(1)), strict=True))
    detected = [len(set(identify(detections.boxes, frame).tolist()) - {-1}) for frame, detections in pairs]
    assert np.mean(detected) > 3.5
    best = torch.cat([box_iou(frame.boxes, detections.boxes).amax(1) for frame, detections in pairs])
    assert 0.75 < float(best.mean()) < 0.97


def test_a_mixed_in_crowd_has_the_same_size_and_place_and_other_ids() -> None:
    truth = walkers(3, 12)
    other = [Tracks(5 * f.boxes + 4000, f.scores, f.labels, f.ids) for f in walkers(2, 9)]
    mixed = mix_crowds(truth, other, np.random.default_rng(0))
    assert [len(frame) for frame in mixed] == [5] * 9 + [3] * 3
    assert sorted(set(mixed[0].ids.tolist())) == [1, 2, 3, 5, 6]
    heights = mixed[0].boxes[3:, 3] - mixed[0].boxes[3:, 1]
    assert bool(((heights > 35) & (heights < 70)).all())


def test_squeezed_people_keep_their_size() -> None:
    truth = walkers(4)
    closer = squeeze(truth, np.random.default_rng(0))
    spread = [float(f.boxes[:, 0].max() - f.boxes[:, 0].min()) for f in (truth[0], closer[0])]
    assert 0.34 < spread[1] / spread[0] < 1
    sizes = [frame.boxes[:, 2:] - frame.boxes[:, :2] for frame in (closer[5], truth[5])]
    torch.testing.assert_close(*sizes)


def test_label_errors_have_one_of_three_rates() -> None:
    truth = walkers(3, 400)
    detections = [Detections(frame.boxes, frame.scores, frame.labels) for frame in truth]
    episode = Episode(truth, detections, None, [t / 30 for t in range(400)])
    rates = []
    for seed in range(12):
        relabelled = relabel(episode, np.random.default_rng(seed))
        labels = torch.stack([frame.labels for frame in relabelled.detections])
        rates.append(float((labels != labels.mode(0).values).float().mean()))
    levels = [
        min((0, 0.075, 0.225), key=lambda level: abs(rate - level)) for rate in rates
    ]  # a quarter of the errors is the right label by chance
    assert len(set(levels)) == 3
    assert rates == pytest.approx(levels, abs=0.03)
