"""Association samples: matches by majority vote, recorded without changing the tracks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from track.structures import Detections, Tracks
from track.tracking.association import ByteAssociation
from track.tracking.graph_features import Graph
from track.tracking.recurrent import RecurrentMotion
from track.tracking.tracker import Tracker
from track.training.recording import collate_samples, record, true_matches, true_objectness, update_votes
from track.training.simulation import Episode, identify, simulate_detections

ALL_PAIRS = [(i, j) for i in range(2) for j in range(2)]


def graph_of(pairs: list[tuple[int, int]], tracks: int, detections: int) -> Graph:
    i, j = torch.tensor(pairs).T
    return Graph(torch.zeros(tracks, 1), torch.zeros(detections, 1), torch.zeros(len(pairs), 1), i, j)


def walkers(frames: int = 30) -> Episode:
    """Three people side by side who walk to the right, with simulated detections."""
    rows = [[[30 * k + 2 * t, 0, 30 * k + 2 * t + 20, 50 + k, 1, 1, k + 1] for k in range(3)] for t in range(frames)]
    truth = [Tracks.from_rows(one) for one in rows]
    detections = simulate_detections(truth, np.random.default_rng(3))
    return Episode(truth, detections, None, [t / 30 for t in range(frames)])


@pytest.mark.parametrize(
    ("votes", "identities", "pairs", "detection_of_track"),
    [
        ([{7: 3.0}, {8: 3.0}], [7, 8], ALL_PAIRS, [0, 1]),
        ([{7: 3.0, 8: 1.0}, {8: 3.0, 7: 1.0}], [7, 8], ALL_PAIRS, [0, 1]),  # a switch of one frame is undone
        ([{8: 3.0}, {8: 3.5}], [7, 8], ALL_PAIRS, [-1, 1]),  # two tracks of one person: more votes win
        ([{7: 1.0, 8: 3.0}, {8: 3.5}], [7, 8], ALL_PAIRS, [0, 1]),  # and the other takes a person without a track
        ([{-1: 3.0, 7: 1.0}, {8: 1.0}], [7, 8], ALL_PAIRS, [0, 1]),  # poor boxes for a while do not lose the identity
        ([{7: 3.0}, {-1: 3.0}], [-1, 7], ALL_PAIRS, [1, -1]),  # a track of false positives matches nothing
        ([{7: 3.0}, {8: 3.0}], [7, 8], [(0, 1), (1, 1)], [-1, 1]),  # outside the gate
    ],
)
def test_tracks_and_detections_match_by_the_most_votes(
    votes: list[dict[int, float]],
    identities: list[int],
    pairs: list[tuple[int, int]],
    detection_of_track: list[int],
) -> None:
    truth = Tracks.from_rows([[0, 0, 9, 9, 1, 1, 7], [9, 0, 20, 9, 1, 2, 8]])
    forward, backward = true_matches(graph_of(pairs, 2, 2), votes, torch.tensor(identities))
    assert forward.tolist() == detection_of_track
    assert all(backward[column] == row for row, column in enumerate(detection_of_track) if column >= 0)
    objectness = true_objectness(torch.tensor(identities), truth)
    assert objectness.tolist() == [{-1: 0, 7: 1, 8: -1}[k] for k in identities]  # a distractor is not scored


def test_recorded_matches_and_tracks_follow_the_people() -> None:
    episode = walkers()
    samples, results = record(RecurrentMotion().eval(), ByteAssociation(), episode)
    assert len(samples) == 29
    matches = [(one.detection_of_track[one.graph.i] == one.graph.j).sum() for one in samples[10:]]
    assert np.mean(matches) > 2.5  # of three people
    pairs = zip(results, episode.truth, strict=True)
    tracked = [len(set(identify(tracks.boxes, truth).tolist()) - {-1}) for tracks, truth in pairs]
    assert np.mean(tracked) > 2.5


def test_recorded_tracks_are_exactly_those_of_the_tracker_alone() -> None:
    affines = [torch.tensor([[1.0, 0, 0.1 * t], [0, 1, 0]]) for t in range(30)]
    episode = replace(walkers(), affines=affines)
    motion = RecurrentMotion().eval()
    _, results = record(motion, ByteAssociation(), episode)
    tracker = Tracker(motion, ByteAssociation())
    observations = zip(episode.detections, episode.times, affines, strict=True)
    for recorded, observation in zip(results, observations, strict=True):
        tracks = tracker.update(*observation)
        assert torch.equal(recorded.boxes, tracks.boxes)
        assert torch.equal(recorded.ids, tracks.ids)


def test_votes_add_up_for_the_tracked_identity_and_decay_without_it() -> None:
    tracker = Tracker(RecurrentMotion().eval().requires_grad_(False), ByteAssociation(), min_hits=1)
    votes = {9: {5: 4.0}}
    for frame in walkers().truth[:10]:
        tracker.update(Detections(frame.boxes, frame.scores, frame.labels))
        update_votes(votes, tracker, frame)
    total = sum(0.93**k for k in range(10))
    assert votes == {k: {k: pytest.approx(total)} for k in (1, 2, 3)} | {9: {5: pytest.approx(4 * 0.93**10)}}


def test_collated_samples_keep_their_matches() -> None:
    samples, _ = record(RecurrentMotion().eval(), ByteAssociation(), walkers())
    a, b = samples[5:7]
    both = collate_samples([a, b])
    count = len(a.graph.detections)
    shifted = [k + count if k >= 0 else -1 for k in b.detection_of_track.tolist()]
    assert both.detection_of_track.tolist() == a.detection_of_track.tolist() + shifted
    matches = both.detection_of_track[both.graph.i] == both.graph.j
    assert int(matches.sum()) == sum(int((one.detection_of_track >= 0).sum()) for one in (a, b))
