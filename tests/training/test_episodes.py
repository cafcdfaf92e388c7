"""Episodes: frame rates, increasing times, and detections that are not the detector's own."""

from pathlib import Path

import numpy as np
import pytest

from track.datasets.streets import make_dataset
from track.formats.mot import find_sequences
from track.training.episodes import EpisodeDataModule, LabelledSequence, sample_episode


def test_episodes_have_every_frame_rate_and_increasing_times(tmp_path: Path) -> None:
    make_dataset(tmp_path, 3, 40, seed=0)
    data = EpisodeDataModule(str(tmp_path), held_out=["street-00-02"])
    data.setup("fit")
    assert [sequence.name for sequence in data.held_out_sequences] == ["street-00-02"]
    sequences = data.groups[0]
    assert sorted(sequence.name for sequence in sequences) == ["street-00-00", "street-00-01"]
    lengths = set()
    for seed in range(40):
        episode = sample_episode(sequences[seed % 2], sequences, np.random.default_rng(seed))
        assert len(episode.truth) == len(episode.detections) == len(episode.times) > 0
        assert all(b > a for a, b in zip(episode.times, episode.times[1:], strict=False))
        lengths.add(len(episode.truth))
    assert {40, 20, 14, 10, 7} <= lengths  # the frame strides


def test_held_out_sequences_are_the_last_of_few_or_none_on_request(tmp_path: Path) -> None:
    make_dataset(tmp_path, 2, 20, seed=0)
    for names, held_out in ((None, ["street-00-01"]), ([], [])):
        data = EpisodeDataModule(str(tmp_path), held_out=names)
        data.setup("fit")
        assert [sequence.name for sequence in data.held_out_sequences] == held_out
    data = EpisodeDataModule(str(tmp_path / "street-00-00"))
    with pytest.raises(ValueError, match=r"expected sequences to validate on, or data.held_out=\[\] and monitor=null"):
        data.setup("fit")


def test_no_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data.episodes: expected 1 or more, got 0"):
        EpisodeDataModule("a", episodes=0)


def test_in_sample_detections_are_never_used_unchanged(tmp_path: Path) -> None:
    make_dataset(tmp_path, 1, 40, seed=0)
    path = find_sequences(tmp_path)[0].path
    (path / "det").mkdir()
    (path / "det/det.txt").write_text("".join(f"{f},-1,{9 + f},20,30,60,0.9\n" for f in range(1, 41)))

    def count_unchanged(in_sample: bool) -> int:
        sequence = LabelledSequence(find_sequences(tmp_path)[0], ["det/det.txt"], in_sample)
        boxes = {tuple(row) for frame in sequence.detections[0] for row in frame.boxes.tolist()}
        boxes |= {(1 - row[2], row[1], 1 - row[0], row[3]) for row in boxes} | {(-c, b, -a, d) for a, b, c, d in boxes}
        episodes = [sample_episode(sequence, [sequence], np.random.default_rng(seed)) for seed in range(30)]
        return sum({tuple(row) for f in one.detections for row in f.boxes.tolist()} <= boxes for one in episodes)

    assert 8 <= count_unchanged(in_sample=False) <= 22
    assert count_unchanged(in_sample=True) == 0
