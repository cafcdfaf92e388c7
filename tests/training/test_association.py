"""Training of the association: it learns, and exports averaged weights that can be loaded."""

from pathlib import Path

import pytest
import torch

from tests.training.test_recording import walkers
from track.tracking.association import ByteAssociation
from track.tracking.graph_network import load_graph
from track.tracking.recurrent import RecurrentMotion, save_motion
from track.training.association import AssociationModule, association_loss
from track.training.recording import collate_samples, record


def small_module(folder: Path) -> AssociationModule:
    torch.manual_seed(0)
    path = save_motion(RecurrentMotion(hidden=8), folder / "motion.safetensors")
    return AssociationModule(str(path), hidden=16, dropout=0.0)


def test_the_network_learns_the_matches(tmp_path: Path) -> None:
    module = small_module(tmp_path)
    batch = collate_samples(record(module.motion, ByteAssociation(), walkers(40))[0])
    optimizer = torch.optim.AdamW(module.network.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = association_loss(module.network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_the_exported_weights_are_the_average(tmp_path: Path) -> None:
    module = small_module(tmp_path)
    start = [weight.detach().clone() for weight in module.network.parameters()]
    for _ in range(2):  # the first update copies the weights, the second one averages
        for weight in module.network.parameters():
            weight.data += 1
        module.on_train_batch_end()
    exported = load_graph(module.export(tmp_path / "out"))
    for average, initial in zip(exported.parameters(), start, strict=True):
        torch.testing.assert_close(average, 0.998 * (initial + 1) + 0.002 * (initial + 2))


def test_a_checkpoint_restores_both_networks_and_trains_the_association(tmp_path: Path) -> None:
    path = small_module(tmp_path).export(tmp_path)
    module = AssociationModule(checkpoint=str(path))
    assert module.network.options["hidden"] == 16
    assert all(weight.requires_grad for weight in module.network.parameters())
    assert not any(weight.requires_grad for weight in module.motion.parameters())


@pytest.mark.filterwarnings("ignore:You are trying to .self.log")
def test_validation_of_a_network_that_starts_no_track_is_scored_without_calibration(tmp_path: Path) -> None:
    module = small_module(tmp_path)
    module.tracked = {"a": (walkers().truth, [])}
    module.on_validation_epoch_end()
    assert module.tables == module.tracked == {}
