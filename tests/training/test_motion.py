"""Training of motion models: items, the loss, and a network that beats the Kalman filter."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_convert, box_iou

from track.datasets.streets import make_dataset
from track.tracking.motion import Kalman
from track.tracking.recurrent import RecurrentMotion, save_motion
from track.training.motion import MotionModule, laplace_loss, paired_iou, unroll
from track.training.trajectories import HORIZONS, Trajectory, TrajectoryDataModule, TrajectoryDataset


def line(speed: float, frames: int = 80) -> Trajectory:
    """A box that moves to the right at `speed` pixels per frame."""
    boxes = torch.tensor([[100.0, 100, 40, 80]]).repeat(frames, 1)
    boxes[:, 0] += speed * torch.arange(frames)
    columns = boxes.double().numpy(), boxes.double().numpy(), torch.ones(frames).double().numpy()
    return Trajectory(*columns, torch.eye(3).double().repeat(frames, 1, 1).numpy(), 30.0)


def batch_of(trajectories: list[Trajectory]) -> dict[str, torch.Tensor]:
    data = TrajectoryDataset(trajectories, observations=12, augment=False)
    return torch.utils.data.default_collate([data[i] for i in range(len(data))])


def test_an_item_holds_the_true_box_at_every_horizon() -> None:
    item = TrajectoryDataset([line(2.0)], observations=12, augment=False)[0]
    offset = item["targets"][3, :, 0] - item["boxes"][3, 0]
    assert offset.tolist() == [2.0 * frames for frames in HORIZONS]
    torch.testing.assert_close(item["horizon"][0], torch.tensor(HORIZONS) / 30)


def test_missed_frames_are_absent_and_their_time_elapses() -> None:
    trajectory = line(2.0)
    trajectory.detected[3:6] = float("nan")
    item = TrajectoryDataset([trajectory], observations=12, augment=False)[0]
    assert item["valid"].sum() == 9
    torch.testing.assert_close(item["elapsed"][:5], torch.tensor([0, 1, 1, 4, 1]) / 30)


@pytest.mark.parametrize(("sigma", "loss"), [(2**0.5, 1.0), (2 * 2**0.5, 0.5 + 0.6931472)])
def test_the_loss_is_the_negative_log_likelihood_of_laplace(sigma: float, loss: float) -> None:
    target = torch.tensor([[0.0, 0, 1, 1]])
    value = laplace_loss(target + 1.0, torch.full((1, 4), sigma), target)
    assert value.item() == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_a_trained_network_beats_the_kalman_filter_on_straight_lines(cell: str) -> None:
    torch.manual_seed(0)
    batch = batch_of([line(speed) for speed in (-6.0, -3, -1, 1, 3, 6)])
    network = MotionModule(cell).network
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        state, target, _ = unroll(network, batch)
        optimizer.zero_grad()
        laplace_loss(*network.project(state), target).backward()
        optimizer.step()
    ious = []
    for motion in (network.eval(), Kalman()):
        state, target, _ = unroll(motion, batch)
        boxes, truth = (box_convert(rows, "cxcywh", "xyxy") for rows in (motion.project(state)[0], target))
        ious.append(paired_iou(boxes, truth).mean().item())
    assert ious[0] > ious[1] + 0.02


def test_held_out_sequences_are_never_trained_on(tmp_path: Path) -> None:
    make_dataset(tmp_path, 3, 20, seed=0)
    data = TrajectoryDataModule(str(tmp_path), held_out=["street-00-01"])
    data.setup("fit")
    assert [sequence.name for sequence in data.held_out_sequences] == ["street-00-01"]
    complement = TrajectoryDataModule(str(tmp_path), held_out=["street-00-00", "street-00-02"])
    complement.setup("fit")
    trained, others = ([one.truth for one in part.trajectories] for part in (data.train, complement.val))
    assert len(trained) == len(others) > 0
    for one, other in zip(trained, others, strict=True):
        np.testing.assert_array_equal(one, other)
    held_out = [one.truth for one in data.val.trajectories]
    assert held_out
    assert not any(np.array_equal(one, other, equal_nan=True) for one in held_out for other in trained)


def test_paired_iou_is_the_diagonal_of_all_pairs() -> None:
    boxes = torch.rand(2, 20, 4).cumsum(2)
    torch.testing.assert_close(paired_iou(*boxes), box_iou(*boxes).diagonal())


def test_a_checkpoint_is_trained_as_a_whole(tmp_path: Path) -> None:
    save_motion(RecurrentMotion(hidden=8, dropout=0.5), tmp_path / "m.safetensors")
    network = MotionModule(checkpoint=str(tmp_path / "m.safetensors")).network
    assert network.training
    assert all(weight.requires_grad for weight in network.parameters())
