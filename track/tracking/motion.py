"""Motion models: the protocol, and the Kalman filter that is the baseline.

A motion model is stateless and handles all tracks at once. Its state is one float32 tensor with one row per track, so
that birth is concatenation and death is a mask. Training calls the same functions as tracking. `Initiate`, `Move`,
`Advance` and `Observe` are what the tracker asks of a model in each frame, as modules that can be compiled.
"""

from __future__ import annotations

from inspect import signature
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from track.geometry import magnification

STEPS_PER_SECOND = 30.0  # noise is stated per step of 1/30 s, the frame rate that trackers are usually tuned at


class Motion(Protocol):
    """A motion model as the tracker uses it, for N tracks with states (N, S)."""

    def initiate(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """States of new tracks from their first boxes (N, 4), xyxy pixels, and scores (N,)."""
        ...

    def predict(self, state: Tensor, elapsed: Tensor) -> Tensor:
        """States advanced by `elapsed` (N,) seconds without an observation."""
        ...

    def update(self, state: Tensor, boxes: Tensor, scores: Tensor) -> Tensor:
        """States after an observation: boxes (N, 4), xyxy pixels, and scores (N,)."""
        ...

    def apply_camera_motion(self, state: Tensor, affine: Tensor) -> Tensor:
        """States in the pixels of the current frame; affine (2, 3), or one for each state (N, 2, 3), maps the previous
        frame's pixels to them."""
        ...

    def project(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The estimated boxes (N, 4) as centre x, centre y, width, height, and their standard deviations, pixels."""
        ...


class KalmanState(NamedTuple):
    """The columns of the filter's state, each (N, 4): for centre x, centre y, width and height. Pixels and steps."""

    position: Tensor
    velocity: Tensor  # per step
    var_p: Tensor  # variance of the position
    cov: Tensor  # covariance of position and velocity
    var_v: Tensor  # variance of the velocity

    @classmethod
    def unpack(cls, state: Tensor) -> KalmanState:
        """The columns of a state (N, KALMAN_SIZE), as views."""
        return cls(*state.split([4] * len(cls._fields), 1))

    @property
    def sigma(self) -> Tensor:
        """(N, 4) the standard deviation of the position."""
        return self.var_p.clamp(min=0).sqrt()

    def pack(self) -> Tensor:
        """(N, KALMAN_SIZE) the state that has these columns."""
        return torch.cat(self, 1)


KALMAN_SIZE = 4 * len(KalmanState._fields)


class Kalman(nn.Module):
    """Constant velocity of centre, width and height, each filtered on its own: the baseline motion model.

    The noise is proportional to the box's size as in Wojke et al., "Simple Online and Realtime Tracking with a Deep
    Association Metric" (ICIP 2017), on width and height as in Aharon et al., "BoT-SORT" (2022). Because neither noise
    nor dynamics mix the four coordinates, the 8x8 filter separates into four 2x2 filters, computed in closed form.
    The velocity is a Brownian motion, so that two short steps equal one long step.

    State (N, KALMAN_SIZE): the columns of `KalmanState`.
    """

    def __init__(self, position_noise: float = 1 / 20, velocity_noise: float = 1 / 160) -> None:
        """Standard deviations as fractions of the box's size, per step of 1/30 s."""
        super().__init__()
        self.position_noise: Tensor
        self.velocity_noise: Tensor
        self.register_buffer("position_noise", torch.tensor(position_noise), persistent=False)
        self.register_buffer("velocity_noise", torch.tensor(velocity_noise), persistent=False)

    def initiate(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """A track at rest whose velocity is uncertain; see `Motion`."""
        position = corners_to_centre(boxes)
        size = box_scale(position)
        zero = torch.zeros_like(position)
        var_p = (2 * self.position_noise * size) ** 2
        var_v = (10 * self.velocity_noise * size) ** 2
        return KalmanState(position, zero, var_p, zero, var_v).pack()

    def predict(self, state: Tensor, elapsed: Tensor) -> Tensor:
        """See `Motion`."""
        p, v, var_p, cov, var_v = KalmanState.unpack(state)
        steps = elapsed[:, None] * STEPS_PER_SECOND
        size = box_scale(p)
        drift = steps * (self.velocity_noise * size) ** 2  # of the velocity's variance
        blur = steps * (self.position_noise * size) ** 2
        var_p = var_p + steps * (2 * cov + steps * (var_v + drift / 3)) + blur
        cov = cov + steps * (var_v + drift / 2)
        return KalmanState(p + steps * v, v, var_p, cov, var_v + drift).pack()

    def update(self, state: Tensor, boxes: Tensor, scores: Tensor) -> Tensor:
        """See `Motion`."""
        p, v, var_p, cov, var_v = KalmanState.unpack(state)
        noise = (self.position_noise * box_scale(p)) ** 2
        innovation = corners_to_centre(boxes) - p
        gain_p = var_p / (var_p + noise)
        gain_v = cov / (var_p + noise)
        return KalmanState(
            position=p + gain_p * innovation,
            velocity=v + gain_v * innovation,
            var_p=var_p * (1 - gain_p),
            cov=cov * (1 - gain_p),
            var_v=var_v - gain_v * cov,
        ).pack()

    def apply_camera_motion(self, state: Tensor, affine: Tensor) -> Tensor:
        """See `Motion`; sizes and deviations scale with the affine's mean magnification, its small rotation is ignored
        there."""
        p, v, var_p, cov, var_v = KalmanState.unpack(state)
        zoom = magnification(affine)[..., None]  # (1,) or (N, 1)
        linear = torch.cat([affine[..., :2], torch.zeros_like(affine[..., 2:])], -1)
        p, v = (
            torch.cat([move_points(matrix, x[:, None, :2])[:, 0], x[:, 2:] * zoom], 1)
            for matrix, x in ((affine, p), (linear, v))
        )
        return KalmanState(p, v, var_p * zoom**2, cov * zoom**2, var_v * zoom**2).pack()

    def project(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Motion`; the boxes are a view of the state."""
        columns = KalmanState.unpack(state)
        return columns.position, columns.sigma


class MotionStep(nn.Module):
    """One of the functions that the tracker asks of a motion model, to be compiled."""

    def __init__(self, motion: Motion) -> None:
        super().__init__()
        self.motion = motion

    def example(self) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
        """See `Compilable`."""
        boxes = torch.tensor([[0.0, 0, 20, 40], [15, 0, 35, 42], [200, 10, 220, 50]])
        scores = torch.tensor([0.9, 0.5, 0.7])
        state = self.motion.initiate(boxes, scores)
        named = {"boxes": boxes, "scores": scores, "state": state, "elapsed": scores / 10}
        named["affine"] = torch.eye(2, 3).repeat(3, 1, 1)
        inputs = tuple(named[name] for name in signature(self.forward).parameters)
        return inputs, ("track",) * len(inputs)


class Initiate(MotionStep):
    """States of new tracks, and their boxes (N, 4), xyxy pixels, from their first detections."""

    def forward(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """boxes: (N, 4) xyxy pixels. scores: (N,)."""
        state = self.motion.initiate(boxes, scores)
        return state, centre_to_corners(self.motion.project(state)[0])


class Move(MotionStep):
    """States in the pixels of the next frame, after the camera's motion."""

    def forward(self, state: Tensor, affine: Tensor) -> Tensor:
        """state: (N, S). affine: (N, 2, 3)."""
        return self.motion.apply_camera_motion(state, affine)


class Advance(MotionStep):
    """States at the time of the next frame, their boxes (N, 4), xyxy pixels, and deviations (N, 4), see `Motion`."""

    def forward(self, state: Tensor, elapsed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """state: (N, S). elapsed: (N,) seconds."""
        state = self.motion.predict(state, elapsed)
        position, sigma = self.motion.project(state)
        return state, centre_to_corners(position), sigma


class Observe(MotionStep):
    """States after a detection each, and their boxes (N, 4), xyxy pixels."""

    def forward(self, state: Tensor, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """state: (N, S). boxes: (N, 4) xyxy pixels. scores: (N,)."""
        state = self.motion.update(state, boxes, scores)
        return state, centre_to_corners(self.motion.project(state)[0])


def box_scale(position: Tensor) -> Tensor:
    """(N, 4) the lengths, pixels, that centre x, centre y, width and height (N, 4) are measured in: width or height."""
    size = position[:, 2:].clamp(min=1.0)
    return torch.cat([size, size], 1)


def corners_to_centre(boxes: Tensor) -> Tensor:
    """(N, 4) centre x, centre y, width and height of boxes (N, 4), xyxy: `box_convert` in fewer operations."""
    low, high = boxes.split(2, 1)
    return torch.cat([(low + high) / 2, high - low], 1)


def centre_to_corners(position: Tensor) -> Tensor:
    """(N, 4) boxes, xyxy, with centre x, centre y, width and height (N, 4): `box_convert` in fewer operations."""
    centre, size = position.split(2, 1)
    half = size / 2
    return torch.cat([centre - half, centre + half], 1)


def move_points(affine: Tensor, points: Tensor) -> Tensor:
    """(N, H, 2) points (N, H, 2) after an affine (2, 3), or one for each row (N, 2, 3)."""
    return points @ affine[..., :2].transpose(-1, -2) + affine[..., None, :, 2]
