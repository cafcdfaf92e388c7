from pathlib import Path

import torch

from tests.training.test_episodes import walkers
from track.motion import Recurrent, save_motion
from track.tracker import Tracker
from track.training.association import AssociationModule, choice_loss
from track.training.episodes import join, record


def module(folder: Path) -> AssociationModule:
    torch.manual_seed(0)
    path = save_motion(Recurrent(hidden=8, identity=8), folder / "motion.safetensors")
    return AssociationModule(str(path), hidden=16, dropout=0.0)


def test_training_learns_the_choices_and_only_them(tmp_path: Path) -> None:
    one = module(tmp_path)
    batch = join(record(Tracker(one.tracker().motion), walkers(40))[0])
    before = {name: weight.clone() for name, weight in one.networks["motion"].named_parameters()}
    learned = [p for p in one.networks.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, 1e-2)
    losses = []
    for _ in range(40):
        loss = choice_loss(one.networks, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    changed = {n for n, w in one.networks["motion"].named_parameters() if not torch.equal(w, before[n])}
    assert {name.split(".")[0] for name in changed} == {"identity"}


def test_what_is_exported_is_the_average_that_was_tracked_with(tmp_path: Path) -> None:
    one = module(tmp_path)
    for weight in one.networks["association"].parameters():
        weight.data += 1
    one.on_train_batch_end()
    again = Tracker(weights=one.export(tmp_path / "out"))
    for a, b in zip(
        again.association.network.parameters(), one.average.module["association"].parameters(), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_a_start_from_weights_goes_on_with_both_networks(tmp_path: Path) -> None:
    path = module(tmp_path).export(tmp_path)
    again = AssociationModule(checkpoint=str(path))
    assert again.networks["association"].options["hidden"] == 16
    learned = {name.split(".")[1] for name, weight in again.networks.named_parameters() if weight.requires_grad}
    assert "identity" in learned
    assert not learned & {"cell", "head"}
