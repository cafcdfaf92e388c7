"""Existence: what is remembered of a track, faint objects that persist, and clutter that does not."""

from pathlib import Path

import numpy as np
import pytest
import torch

from track.structures import Detections
from track.tracking.association import ByteAssociation
from track.tracking.existence import (
    EVIDENCE,
    Existence,
    ScoreLevel,
    features,
    initiate,
    load_existence,
    update,
)
from track.tracking.graph_network import load_graph, save_network
from track.tracking.motion import Kalman
from track.tracking.recurrent import load_motion
from track.tracking.tracker import Tracker

FPS = 30


def observe(memory: np.ndarray, *values: float | None) -> np.ndarray:
    """The memory of one track after frames in which all its evidence has the value; None: no detection."""
    for value in values:
        matched = np.zeros(int(value is not None), np.int64)
        memory = update(memory, matched, np.full((len(matched), len(EVIDENCE)), value or 0.0, np.float32))
    return memory


def test_the_memory_counts_frames_and_detections_and_averages_the_evidence() -> None:
    frames, hits, *rest = observe(initiate(1), 1.0, None, 4.0)[0].tolist()
    assert (frames, hits) == (3, 2)
    assert rest == [2.5] * 4 + [2.5] * 4 + [4.0] * 4  # mean, moving average, last
    long = observe(initiate(1), *[1.0] * 20, 2.0)[0]
    assert long[2].item() == pytest.approx(22 / 21)
    assert long[6].item() == pytest.approx(1.1)  # a tenth of the newest


def test_doubt_fades_with_every_detection() -> None:
    memory = observe(initiate(1), *[1.0] * 4)
    assert features(memory)[0, :4].tolist() == pytest.approx([0, 0.25, 1.3863, 0], abs=1e-4)
    assert features(memory, lift=3.0)[0, 0].item() == pytest.approx((1 - 1 / 3) / 4)
    assert features(observe(memory, None), lift=3.0)[0, 3].item() == pytest.approx(0.2)


def test_existence_without_evidence_is_refused() -> None:
    with pytest.raises(ValueError, match="existence: expected the learned association"):
        Tracker(Kalman(), ByteAssociation(), fixed(0.5))


@pytest.mark.parametrize(("scores", "lift"), [([0.3], 3.0), ([0.3, 0.9], 1.0), ([0.95], 1.0), ([0.6, 0.2], 1.5)])
def test_scores_are_lifted_by_the_best_of_each_frame(scores: list[float], lift: float) -> None:
    level = ScoreLevel()
    for f in range(20):
        assert level.lift == 1.0 or f >= 8  # a third of a second
        level.update(np.zeros(0, np.float32), 1 / FPS)  # a frame without detections says nothing
        level.update(np.float32(scores), 1 / FPS)
    assert level.lift == pytest.approx(lift)
    assert level.lifted(np.float32([0.3, 0.9])).tolist() == pytest.approx([0.3 * lift, min(1, 0.9 * lift)])


def test_a_confident_detection_is_remembered_for_some_seconds() -> None:
    level = ScoreLevel()
    for score, seconds in ((0.9, 10), (0.3, 5)):
        for _ in range(seconds * FPS):
            level.update(np.float32([score]), 1 / FPS)
    assert 1.2 < level.lift < 2


@pytest.mark.parametrize("score", [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
@pytest.mark.parametrize("is_rough", [False, True])
def test_a_lone_steady_object_becomes_a_track_within_two_seconds_and_stays(score: float, is_rough: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    tracker, ids = Tracker(), []
    for f in range(10 * FPS):
        noise = torch.randn(5, generator=generator) * (torch.tensor([2, 2, 2, 2, 0.05]) if is_rough else 0.5)
        is_missed = is_rough and torch.rand(1, generator=generator) < 0.1
        boxes = torch.tensor([[400.0, 300, 460, 450]]) + noise[:4] + (2.0 * f if is_rough else 0)
        given = min(max(score + (float(noise[4]) if is_rough else 0), 0.1), 1.0)
        tracks = tracker.update(Detections.empty() if is_missed else Detections.from_numpy(boxes, given), f / FPS)
        assert tracks.scores.tolist() == pytest.approx([given] * len(tracks))  # as detected, not as lifted
        ids.append(tracks.ids.tolist() if not is_missed else [1])
    assert ids[2 * FPS :] == [[1]] * (8 * FPS)


@pytest.mark.parametrize("score", [0.2, 0.3, 0.4, 0.5, 0.6])
@pytest.mark.parametrize(("count", "width", "height"), [(1, 1920, 1080), (5, 1280, 720), (1, 640, 480)])
def test_clutter_at_random_places_makes_no_track(score: float, count: int, width: int, height: int) -> None:
    generator = torch.Generator().manual_seed(1)
    tracker = Tracker()
    for f in range(5 * FPS):
        corners = torch.rand(count, 2, generator=generator) * torch.tensor([width - 60.0, height - 150.0])
        boxes = torch.cat([corners, corners + torch.tensor([60.0, 150.0])], 1)
        assert len(tracker.update(Detections.from_numpy(boxes, score), f / FPS)) == 0


def test_a_faint_object_beside_confident_ones_is_no_track() -> None:
    tracker = Tracker()
    boxes = torch.tensor([[400.0, 300, 460, 450], [900, 300, 960, 450]])
    for f in range(3 * FPS):
        tracks = tracker.update(Detections.from_numpy(boxes, [0.3, 0.95]), f / FPS)
        assert tracks.detection_rows.tolist() == [1]


def fixed(log_odds: float) -> Existence:
    """An existence that is the same for every track."""
    existence = Existence().requires_grad_(False)
    existence.linear.weight.zero_()
    existence.linear.bias.fill_(log_odds)
    return existence


@pytest.mark.parametrize(("log_odds", "first", "later"), [(0.6, 1, 2), (0.4, 1, 1), (-0.4, 1, 1), (-0.6, 0, 0)])
def test_a_track_is_first_reported_above_the_threshold_or_in_the_first_frame(
    log_odds: float, first: int, later: int
) -> None:
    tracker = Tracker(existence=fixed(log_odds))
    boxes = torch.tensor([[0.0, 0, 20, 40], [200, 0, 220, 40]])
    assert len(tracker.update(Detections.from_numpy(boxes[:1], 0.9), 0.0)) == first
    for t in range(1, 4):
        tracks = tracker.update(Detections.from_numpy(boxes, 0.9), t / FPS)
    assert len(tracks) == later


@pytest.mark.parametrize(("log_odds", "ids"), [(-0.4, [1]), (-0.6, [])])
def test_a_reported_track_stays_down_to_a_lower_threshold(log_odds: float, ids: list[int]) -> None:
    tracker = Tracker(existence=fixed(0.6))
    tracker.update(Detections.from_numpy([[0, 0, 20, 40]], 0.9), 0.0)
    assert tracker.existence is not None
    tracker.existence.linear.bias.fill_(log_odds)
    assert tracker.update(Detections.from_numpy([[0, 0, 20, 40]], 0.9), 1 / FPS).ids.tolist() == ids
    tracker.existence.linear.bias.fill_(0.6)
    assert tracker.update(Detections.from_numpy([[0, 0, 20, 40]], 0.9), 2 / FPS).ids.tolist() == [1]  # the same again


def test_a_file_may_hold_existence_or_not(tmp_path: Path) -> None:
    motion, network = load_motion(), load_graph()
    without = save_network(motion, network, tmp_path / "without.safetensors")
    with_it = save_network(motion, network, tmp_path / "with.safetensors", fixed(0.5))
    assert load_existence(without) is None
    loaded = load_existence(with_it)
    assert loaded is not None
    assert loaded.log_odds(initiate(2)).tolist() == [0.5, 0.5]
    assert Tracker(weights=without).existence is None
    assert Tracker(weights=with_it).existence is not None
    assert Tracker().existence is not None


def test_a_hidden_faint_object_keeps_the_score_that_was_given() -> None:
    tracker = Tracker(coasting=0.5)
    boxes = [[400.0, 300, 460, 450]]
    for f in range(2 * FPS):
        tracker.update(Detections.from_numpy(boxes, 0.3), f / FPS)
    assert tracker.score_level.lift > 2
    tracks = tracker.update(Detections.empty(), 2.0)
    assert (tracks.ids.tolist(), tracks.detection_rows.tolist()) == ([1], [-1])
    assert tracks.scores.tolist() == pytest.approx([0.3])


def test_a_level_fades_while_nothing_is_detected() -> None:
    level = ScoreLevel()
    for _ in range(60):
        level.update(np.float32([0.9]), 1 / FPS)
    level.update(np.zeros(0, np.float32), 60.0)
    for _ in range(5):
        level.update(np.float32([0.3]), 1 / FPS)
    assert level.lift == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize(("interval", "reported"), [(0.5, 0), (5.0, 1)])
def test_existence_hides_no_track_where_frames_are_far_apart(interval: float, reported: int) -> None:
    tracker = Tracker(existence=fixed(-5.0))
    for f in range(3):
        tracks = tracker.update(Detections.from_numpy([[0, 0, 20, 40]], 0.9), f * interval)
    assert len(tracks) == reported
