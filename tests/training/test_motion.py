"""Training of motion: the loss by hand, and learning itself."""

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate
from torchvision.ops import box_iou

from track.motion import Kalman, Recurrent
from track.training.motion import laplace_loss, pair_iou, unroll
from track.training.trajectories import HORIZONS, Trajectories, Trajectory


def wave(seed: int) -> Trajectory:
    """Someone who swings from side to side, which constant velocity does not foresee."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi) + np.arange(120) / 4
    truth = np.stack([200 + 15 * np.sin(phase), np.full(120, 100.0), np.full(120, 20.0), np.full(120, 40.0)], 1)
    return Trajectory(truth, truth.copy(), np.full(120, 0.9), np.tile(np.eye(3), (120, 1, 1)), 30.0)


def test_the_loss_is_the_laplace_likelihood() -> None:
    target = torch.tensor([[50.0, 50.0, 10.0, 20.0]])
    sigma = 2**0.5 * torch.tensor([[1.0, 2.0, 1.0, 2.0]])  # a scale of a tenth of width or height
    off = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    assert laplace_loss(target, sigma, target).item() == pytest.approx(np.log(0.1))
    assert laplace_loss(target + off, sigma, target).item() == pytest.approx(np.log(0.1) + 1 / 4)


def test_overlap_of_partners_is_that_of_torchvision() -> None:
    boxes = torch.rand(2, 20, 4).cumsum(2)
    torch.testing.assert_close(pair_iou(*boxes), box_iou(*boxes).diagonal())


def testunrolling_predicts_every_known_horizon_and_no_other() -> None:
    batch = default_collate([Trajectories([wave(0)], 24, augment=False)[4]])  # observations 96 to 119, the last ones
    _, target, horizon = unroll(Kalman(), batch)
    counted = torch.bincount(horizon, minlength=len(HORIZONS)).tolist()
    assert counted == [24 - min(24, ahead) for ahead in HORIZONS]
    assert len(target) == sum(counted)


def test_a_trained_network_foresees_what_the_filter_cannot() -> None:
    torch.manual_seed(0)
    train = Trajectories([wave(seed) for seed in range(8)], 24, augment=False)
    batch = default_collate([train[index] for index in range(len(train))])
    unseen = default_collate([Trajectories([wave(99)], 24, augment=False)[index] for index in range(3)])
    network = Recurrent(hidden=16)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        state, target, _ = unroll(network, batch)
        loss = laplace_loss(*network.locate(state), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    error = {}
    for name, motion in (("kalman", Kalman()), ("gru", network)):
        state, target, horizon = unroll(motion, unseen)
        error[name] = (motion.locate(state)[0] - target)[horizon == HORIZONS.index(8)].abs().mean().item()
    assert error["gru"] < 0.6 * error["kalman"]
