"""The Kalman filter: equal to the textbook's matrices, consistent in time, and moved by the camera."""

import numpy as np
import pytest
import torch

from tests.tracking.scenes import BOXES, SCORES, observe_moving_boxes
from track.tracking.motion import KALMAN_SIZE, Kalman, KalmanState, Motion
from track.tracking.recurrent import RecurrentMotion


def textbook(frames: int, elapsed: float) -> tuple[np.ndarray, np.ndarray]:
    """The same filter as 8x8 matrices, for the first box: its mean (8,) and covariance (8, 8)."""
    n = elapsed * 30
    corners = BOXES[0].double().numpy()
    transition = np.eye(8) + n * np.eye(8, k=4)
    centre = lambda b: np.array([(b[0] + b[2]) / 2, (b[1] + b[3]) / 2, b[2] - b[0], b[3] - b[1]])  # noqa: E731
    x = np.concatenate([centre(corners), np.zeros(4)])
    p = np.diag(np.concatenate([(2 / 20 * x[[2, 3, 2, 3]]) ** 2, (10 / 160 * x[[2, 3, 2, 3]]) ** 2]))
    for frame in range(1, frames):
        size = x[[2, 3, 2, 3]]
        q, r = np.diag((size / 160) ** 2), np.diag((size / 20) ** 2)
        noise = np.block([[n * r + n**3 / 3 * q, n**2 / 2 * q], [n**2 / 2 * q, n * q]])
        x, p = transition @ x, transition @ p @ transition.T + noise
        r = np.diag((x[[2, 3, 2, 3]] / 20) ** 2)
        gain = p[:, :4] @ np.linalg.inv(p[:4, :4] + r)
        x = x + gain @ (centre(corners + frame * np.array([3, 1, 3, 1])) - x[:4])
        p = p - gain @ p[:4]
    return x, p


@pytest.mark.parametrize("elapsed", [1 / 30, 0.2])
def test_the_kalman_filter_equals_the_textbook(elapsed: float) -> None:
    mean, covariance = textbook(6, elapsed)
    state = KalmanState.unpack(observe_moving_boxes(Kalman(), 6, elapsed)[:1].double())
    torch.testing.assert_close(state.position[0], torch.from_numpy(mean[:4]), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(state.velocity[0], torch.from_numpy(mean[4:]), rtol=1e-3, atol=1e-3)
    for column, block in ((state.var_p, (0, 0)), (state.cov, (0, 4)), (state.var_v, (4, 4))):
        expected = torch.from_numpy(np.diag(covariance[block[0] :, block[1] :])[:4].copy())
        torch.testing.assert_close(column[0], expected, rtol=1e-3, atol=1e-3)


def test_a_packed_kalman_state_unpacks_to_the_same_columns() -> None:
    columns = KalmanState(*torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(0)))
    state = columns.pack()
    assert state.shape == (3, KALMAN_SIZE)
    for name, column in KalmanState.unpack(state)._asdict().items():
        assert torch.equal(column, getattr(columns, name))


def test_a_kalman_state_of_another_width_is_refused() -> None:
    with pytest.raises(RuntimeError):
        KalmanState.unpack(torch.zeros(3, KALMAN_SIZE + 1))


@pytest.mark.parametrize("make", [Kalman, RecurrentMotion])
def test_two_short_steps_equal_one_long_step(make: type) -> None:
    motion = make()
    state = observe_moving_boxes(motion)
    halves = motion.predict(motion.predict(state, torch.full((3,), 0.1)), torch.full((3,), 0.4))
    torch.testing.assert_close(halves, motion.predict(state, torch.full((3,), 0.5)), rtol=1e-3, atol=1e-2)


def test_camera_motion_moves_and_scales_the_kalman_state() -> None:
    kalman = Kalman()
    state = observe_moving_boxes(kalman)
    before = KalmanState.unpack(state)
    after = KalmanState.unpack(kalman.apply_camera_motion(state, torch.tensor([[2.0, 0, 50], [0, 2, -30]])))
    torch.testing.assert_close(after.position, 2 * before.position + torch.tensor([50.0, -30, 0, 0]))
    torch.testing.assert_close(after.velocity, 2 * before.velocity)
    for name in ("var_p", "cov", "var_v"):
        torch.testing.assert_close(getattr(after, name), 4 * getattr(before, name))


@pytest.mark.parametrize("motion", [Kalman(), RecurrentMotion(), RecurrentMotion("lstm")])
def test_zero_tracks_pass_through_with_the_right_shapes(motion: Motion) -> None:
    boxes, scores = BOXES[:0], SCORES[:0]
    state = motion.update(motion.predict(motion.initiate(boxes, scores), scores), boxes, scores)
    assert [part.shape for part in motion.project(state)] == [(0, 4), (0, 4)]
