from pathlib import Path

import numpy as np
import pytest
import torch

from track.datasets.streets import make_dataset
from track.formats.mot import find_sequences
from track.structures import Detections, Tracks
from track.tracking.association import ByteAssociation
from track.tracking.graph_features import Graph
from track.tracking.recurrent import RecurrentMotion
from track.tracking.tracker import Tracker
from track.training.episodes import EpisodeDataModule, LabelledSequence, answer, collate_samples, record, sample, vote
from track.training.simulation import Episode, match, simulate


def graph_of(pairs: list[tuple[int, int]], tracks: int, detections: int) -> Graph:
    i, j = torch.tensor(pairs).T
    return Graph(torch.zeros(tracks, 1), torch.zeros(detections, 1), torch.zeros(len(pairs), 1), i, j)


EVERY = [(i, j) for i in range(2) for j in range(2)]


@pytest.mark.parametrize(
    ("votes", "whose", "pairs", "of_track"),
    [
        ([{7: 3.0}, {8: 3.0}], [7, 8], EVERY, [0, 1]),
        ([{7: 3.0, 8: 1.0}, {8: 3.0, 7: 1.0}], [7, 8], EVERY, [0, 1]),  # after a swap of one frame it is undone
        ([{8: 3.0}, {8: 3.5}], [7, 8], EVERY, [-1, 1]),  # two tracks of one person: the surer has it
        ([{7: 1.0, 8: 3.0}, {8: 3.5}], [7, 8], EVERY, [0, 1]),  # and the other goes to whom nobody follows
        ([{-1: 3.0, 7: 1.0}, {8: 1.0}], [7, 8], EVERY, [0, 1]),  # who was seen badly for a while is still himself
        ([{7: 3.0}, {-1: 3.0}], [-1, 7], EVERY, [1, -1]),  # a track of nobody has nothing
        ([{7: 3.0}, {8: 3.0}], [7, 8], [(0, 1), (1, 1)], [-1, 1]),  # out of reach
    ],
)
def test_tracks_and_people_are_matched_by_most_votes(
    votes: list[dict[int, float]], whose: list[int], pairs: list[tuple[int, int]], of_track: list[int]
) -> None:
    truth = Tracks.from_rows([[0, 0, 9, 9, 1, 1, 7], [9, 0, 20, 9, 1, 2, 8]])
    found, back, real = answer(graph_of(pairs, 2, 2), votes, torch.tensor(whose), truth)
    assert found.tolist() == of_track
    assert all(back[column] == row for row, column in enumerate(of_track) if column >= 0)
    assert real.tolist() == [{-1: 0, 7: 1, 8: -1}[k] for k in whose]  # a distractor is neither


def walkers(frames: int = 30) -> Episode:
    rows = [[[30 * k + 2 * t, 0, 30 * k + 2 * t + 20, 50 + k, 1, 1, k + 1] for k in range(3)] for t in range(frames)]
    truth = [Tracks.from_rows(one) for one in rows]
    return Episode(truth, simulate(truth, np.random.default_rng(3)), None, [t / 30 for t in range(frames)])


def test_what_is_recorded_is_what_a_good_tracker_does() -> None:
    episode = walkers()
    questions, results = record(Tracker(RecurrentMotion().eval(), ByteAssociation()), episode)
    assert len(questions) == 29
    right = [(q.of_track[q.graph.i] == q.graph.j).sum() for q in questions[10:]]
    assert np.mean(right) > 2.5  # three walkers
    assert (
        np.mean([len(set(match(r.boxes, t).tolist()) - {-1}) for r, t in zip(results, episode.truth, strict=True)])
        > 2.5
    )


def test_votes_are_for_whom_a_track_follows_and_fade_without_him() -> None:
    tracker, votes = (
        Tracker(RecurrentMotion().eval().requires_grad_(False), ByteAssociation(), min_hits=1),
        {9: {5: 4.0}},
    )
    truth = walkers().truth
    for frame in truth[:10]:
        tracker.update(Detections(frame.boxes, frame.scores, frame.labels))
        vote(tracker, frame, votes)
    every_frame = sum(0.93**k for k in range(10))
    assert votes == {k: {k: pytest.approx(every_frame)} for k in (1, 2, 3)} | {9: {5: pytest.approx(4 * 0.93**10)}}


def test_joined_frames_keep_their_answers() -> None:
    questions, _ = record(Tracker(RecurrentMotion().eval(), ByteAssociation()), walkers())
    both = collate_samples(questions[5:7])
    a, b = questions[5:7]
    count = len(a.graph.detections)
    assert both.of_track.tolist() == a.of_track.tolist() + [k + count if k >= 0 else -1 for k in b.of_track.tolist()]
    pairs = both.of_track[both.graph.i] == both.graph.j
    assert int(pairs.sum()) == sum(int((q.of_track >= 0).sum()) for q in (a, b))


def test_every_kind_of_episode_can_be_drawn(tmp_path: Path) -> None:
    make_dataset(tmp_path, 3, 40, seed=0)
    data = EpisodeDataModule(str(tmp_path), held_out=["street-00-02"])
    data.setup("fit")
    assert [video.sequence.name for video in data.held_out_videos] == ["street-00-02"]
    videos = data.groups[0]
    assert sorted(video.sequence.name for video in videos) == ["street-00-00", "street-00-01"]
    lengths = set()
    for seed in range(40):
        episode = sample(videos[seed % 2], videos, np.random.default_rng(seed))
        assert len(episode.truth) == len(episode.seen) == len(episode.times) > 0
        assert all(b > a for a, b in zip(episode.times, episode.times[1:], strict=False))
        lengths.add(len(episode.truth))
    assert {40, 20, 14, 10, 7} <= lengths  # the frame rates


def test_clean_detections_are_never_taken_as_they_are(tmp_path: Path) -> None:
    make_dataset(tmp_path, 1, 40, seed=0)
    path = find_sequences(tmp_path)[0].path
    (path / "det").mkdir()
    (path / "det/det.txt").write_text("".join(f"{f},-1,{9 + f},20,30,60,0.9\n" for f in range(1, 41)))

    def as_they_are(clean: bool) -> int:
        video = LabelledSequence(find_sequences(tmp_path)[0], ["det/det.txt"], clean)
        boxes = {tuple(row) for frame in video.files[0] for row in frame.boxes.tolist()}
        boxes |= {(1 - row[2], row[1], 1 - row[0], row[3]) for row in boxes} | {(-c, b, -a, d) for a, b, c, d in boxes}
        episodes = [sample(video, [video], np.random.default_rng(seed)) for seed in range(30)]
        return sum({tuple(r) for f in e.seen for r in f.boxes.tolist()} <= boxes for e in episodes)

    assert 8 <= as_they_are(False) <= 22
    assert as_they_are(True) == 0
