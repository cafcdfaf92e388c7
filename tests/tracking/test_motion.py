from pathlib import Path

import numpy as np
import pytest
import torch

from track.tracking.motion import Kalman, Motion
from track.tracking.recurrent import RecurrentMotion, load_motion, save_motion

BOXES = torch.tensor([[10.0, 20, 30, 80], [100, 100, 150, 220], [5, 5, 9, 17]])
SCORES = torch.tensor([0.9, 0.5, 0.7])


def follow(motion: Motion, steps: int = 6, elapsed: float = 1 / 30) -> torch.Tensor:
    state = motion.initiate(BOXES, SCORES)
    for step in range(1, steps):
        moved = BOXES + step * torch.tensor([3.0, 1, 3, 1])
        state = motion.update(motion.predict(state, torch.full((3,), elapsed)), moved, SCORES)
    return state


def textbook(steps: int, elapsed: float) -> tuple[np.ndarray, np.ndarray]:
    """The same filter as 8x8 matrices, for the first box."""
    n = elapsed * 30
    corner = BOXES[0].double().numpy()
    move = np.eye(8) + n * np.eye(8, k=4)
    centre = lambda b: np.array([(b[0] + b[2]) / 2, (b[1] + b[3]) / 2, b[2] - b[0], b[3] - b[1]])  # noqa: E731
    x = np.concatenate([centre(corner), np.zeros(4)])
    p = np.diag(np.concatenate([(2 / 20 * x[[2, 3, 2, 3]]) ** 2, (10 / 160 * x[[2, 3, 2, 3]]) ** 2]))
    for step in range(1, steps):
        size = x[[2, 3, 2, 3]]
        q, r = np.diag((size / 160) ** 2), np.diag((size / 20) ** 2)
        noise = np.block([[n * r + n**3 / 3 * q, n**2 / 2 * q], [n**2 / 2 * q, n * q]])
        x, p = move @ x, move @ p @ move.T + noise
        r = np.diag((x[[2, 3, 2, 3]] / 20) ** 2)
        gain = p[:, :4] @ np.linalg.inv(p[:4, :4] + r)
        x = x + gain @ (centre(corner + step * np.array([3, 1, 3, 1])) - x[:4])
        p = p - gain @ p[:4]
    return x, p


@pytest.mark.parametrize("elapsed", [1 / 30, 0.2])
def test_the_kalman_filter_is_the_textbooks(elapsed: float) -> None:
    mean, covariance = textbook(6, elapsed)
    state = follow(Kalman(), 6, elapsed)[0].reshape(4, 5).double()
    torch.testing.assert_close(state[:, 0], torch.from_numpy(mean[:4]), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(state[:, 1], torch.from_numpy(mean[4:]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(state[:, 2], torch.from_numpy(np.diag(covariance)[:4].copy()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", [Kalman, RecurrentMotion])
def test_two_short_steps_are_one_long_one(make: type) -> None:
    motion = make()
    state = follow(motion)
    halves = motion.predict(motion.predict(state, torch.full((3,), 0.1)), torch.full((3,), 0.4))
    torch.testing.assert_close(halves, motion.predict(state, torch.full((3,), 0.5)), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_an_untrained_network_is_the_kalman_filter(cell: str) -> None:
    network, kalman = RecurrentMotion(cell), Kalman()
    ahead = torch.tensor([0.0, 0.1, 1.0])
    state, expected = network.predict(follow(network), ahead), kalman.predict(follow(kalman), ahead)
    torch.testing.assert_close(network.project(state), kalman.project(expected))


def trained_like(cell: str = "gru") -> RecurrentMotion:
    torch.manual_seed(0)
    network = RecurrentMotion(cell)
    for weight in network.head.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return network


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_what_the_network_predicts_scales_and_moves_with_the_picture(cell: str) -> None:
    network = trained_like(cell)
    zoomed = torch.tensor([[2.0, 0, 50], [0, 2, -30]])
    state = network.predict(follow(network), torch.full((3,), 0.2))
    (position, sigma), (moved, spread) = (
        network.project(state),
        network.project(network.apply_camera_motion(state, zoomed)),
    )
    torch.testing.assert_close(moved, position * 2 + torch.tensor([50.0, -30, 0, 0]), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(spread, 2 * sigma, rtol=1e-3, atol=1e-3)


def test_tracks_do_not_see_each_other() -> None:
    network = trained_like()
    state = follow(network)
    torch.testing.assert_close(network.project(state[[2, 0]])[0], network.project(state)[0][[2, 0]])


@pytest.mark.parametrize("motion", [Kalman(), RecurrentMotion(), RecurrentMotion("lstm")])
def test_no_tracks_flow_through(motion: Motion) -> None:
    none = torch.zeros(0, 4)
    state = motion.update(motion.predict(motion.initiate(none, none[:, 0]), none[:, 0]), none, none[:, 0])
    assert [part.shape for part in motion.project(state)] == [(0, 4), (0, 4)]


def test_weights_survive_a_round_trip(tmp_path: Path) -> None:
    network = trained_like("lstm")
    save_motion(network, tmp_path / "m.safetensors")
    back = load_motion(tmp_path / "m.safetensors")
    torch.testing.assert_close(back.project(follow(back)), network.project(follow(network)))


def test_a_file_that_is_no_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"not weights")
    for file in ("m.safetensors", "absent.safetensors"):
        with pytest.raises(ValueError, match=f"{file}: expected the weights of a motion"):
            load_motion(tmp_path / file)


def test_the_past_is_kept_newest_first_with_its_ages_and_moves_with_the_camera() -> None:
    network = RecurrentMotion().eval()
    state = network.predict(follow(network, steps=5), torch.full((3,), 0.5))
    boxes, ages = network.history(state)
    torch.testing.assert_close(boxes[0, :6, 0], torch.tensor([32.0, 29, 26, 23, 20, 20]))
    torch.testing.assert_close(ages[0, :6], torch.tensor([15.0, 16, 17, 18, 19, 19]) / 30)
    pan = torch.tensor([[1.1, 0, 50], [0, 1.1, 0]])
    warped = network.history(network.apply_camera_motion(state, pan))[0]
    torch.testing.assert_close(warped[0, 0], 1.1 * boxes[0, 0] + torch.tensor([50.0, 0, 0, 0]))


def test_a_network_predicts_the_same_from_less_of_the_past() -> None:
    network = trained_like()
    expected = network.project(network.predict(follow(network), torch.full((3,), 0.3)))
    network.history_length = 1
    state = network.predict(follow(network), torch.full((3,), 0.3))
    assert state.shape == (3, 20 + 1 + 5 + 6 + 64)
    torch.testing.assert_close(network.project(state), expected)


def test_an_unknown_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="cell: expected one of gru, lstm, rnn, got transformer"):
        RecurrentMotion("transformer")
