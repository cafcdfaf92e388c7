"""Training of existence: what is observed of tracks, the groups that it learns from, and that it learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.test_recording import walkers
from track.datasets.crowds import make_crowds
from track.structures import Tracks
from track.tracking.existence import FEATURES, Existence
from track.tracking.tracker import Tracker
from track.training.association import ExistenceDataModule, ExistenceModule, every, observe
from track.training.simulation import Episode, simulate_clutter, simulate_lone_object


def observed(episode: Episode) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = zip(*observe(ExistenceModule().tracker(), episode), strict=True)
    return torch.cat(x), torch.cat(y)


def test_tracks_of_people_are_objects_and_those_of_nothing_are_not() -> None:
    episode = walkers(20)
    x, y = observed(episode)
    assert x.shape == (len(y), FEATURES)
    assert y.mean() > 0.9
    assert len(y) > 40
    _, nothing = observed(replace(episode, truth=[Tracks.empty()] * 20))
    assert nothing.sum() == 0
    assert len(nothing) == len(y)


def test_what_is_not_scored_is_not_learned_from() -> None:
    episode = walkers(20)
    statues = [replace(frame, labels=torch.full_like(frame.labels, 8)) for frame in episode.truth]
    assert len(observed(replace(episode, truth=statues))[1]) < 0.1 * len(observed(episode)[1])


def test_observing_changes_no_track() -> None:
    episode, trackers = walkers(20), [ExistenceModule().tracker() for _ in range(2)]
    observe(trackers[0], episode)
    for detections, time in zip(episode.detections, episode.times, strict=True):
        trackers[1].update(detections, time)
    assert (trackers[0].memory.existence == trackers[1].memory.existence).all()


def test_every_sixth_frame_keeps_its_time() -> None:
    assert every(walkers(30), 6).times == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])


def test_a_lone_object_is_steady_and_clutter_is_not() -> None:
    rng = np.random.default_rng(0)
    lone, clutter = simulate_lone_object(rng, 60), simulate_clutter(rng, 60)
    assert all(len(frame) <= 1 for frame in lone.detections)
    corners = torch.cat([frame.boxes for frame in lone.detections])[:, :2]
    assert corners.diff(dim=0).abs().median() < 20
    assert sum(map(len, clutter.truth)) == 0
    first = torch.stack([frame.boxes[0, :2] for frame in clutter.detections])
    assert first.diff(dim=0).abs().median() > 100
    assert lone.detections[0].scores.max() <= 1


def test_the_fit_tells_lone_objects_from_clutter(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    groups = [observed(make(rng, 40)) for make in (simulate_lone_object, simulate_clutter) for _ in range(5)]
    x, y = (torch.cat(columns) for columns in zip(*groups, strict=True))
    assert 0 < y.mean() < 1
    module = ExistenceModule()
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    optimizer = module.configure_optimizers()

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = module.training_step((x, y, torch.full_like(y, 1 / len(y))), 0)
        value.backward()
        return value

    optimizer.step(loss)
    assert ((module.existence.linear(x)[:, 0] > 0) == (y > 0)).float().mean() > 0.97
    loaded = Tracker(weights=module.export(tmp_path)).existence
    assert isinstance(loaded, Existence)
    torch.testing.assert_close(loaded.linear.weight, module.existence.linear.weight.detach())


def test_detections_are_simulated_where_there_are_none_and_folders_without_other_sequences_are_refused(
    tmp_path: Path,
) -> None:
    make_crowds(tmp_path / "crowds", 2, 30, 0)
    data = ExistenceDataModule(str(tmp_path / "crowds"), held_out=["walkers-00-000"])
    data.setup("fit")
    assert [[len(episode.detections) for episode in group] for group in data.groups] == [[30, 10, 5]]
    assert len(data.groups[0][0].detections[0])
    names = [folder.name for folder in (tmp_path / "crowds").iterdir()]
    with pytest.raises(ValueError, match=r"expected sequences other than data.held_out"):
        ExistenceDataModule(str(tmp_path / "crowds"), held_out=names).setup("fit")
