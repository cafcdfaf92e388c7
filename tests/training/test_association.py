from pathlib import Path

import torch

from tests.training.test_episodes import walkers
from track.tracking.graph_network import load_graph
from track.tracking.recurrent import RecurrentMotion, save_motion
from track.tracking.tracker import Tracker
from track.training.association import AssociationModule, choice_loss
from track.training.episodes import collate_samples, record


def module(folder: Path) -> AssociationModule:
    torch.manual_seed(0)
    path = save_motion(RecurrentMotion(hidden=8), folder / "motion.safetensors")
    return AssociationModule(str(path), hidden=16, dropout=0.0)


def test_training_learns_the_choices(tmp_path: Path) -> None:
    one = module(tmp_path)
    batch = collate_samples(record(Tracker(one.motion), walkers(40))[0])
    optimizer = torch.optim.AdamW(one.network.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = choice_loss(one.network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_what_is_exported_is_the_average_that_was_tracked_with(tmp_path: Path) -> None:
    one = module(tmp_path)
    for weight in one.network.parameters():
        weight.data += 1
    one.on_train_batch_end()
    again = load_graph(one.export(tmp_path / "out"))
    for a, b in zip(again.parameters(), one.average.module.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_start_from_weights_goes_on_with_both_networks(tmp_path: Path) -> None:
    path = module(tmp_path).export(tmp_path)
    again = AssociationModule(checkpoint=str(path))
    assert again.network.options["hidden"] == 16
    assert all(weight.requires_grad for weight in again.network.parameters())
    assert not any(weight.requires_grad for weight in again.motion.parameters())
