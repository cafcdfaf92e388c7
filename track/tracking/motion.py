"""Motion models: the protocol, and the Kalman filter that is the baseline.

A motion model is stateless and handles all tracks at once. Its state is one float32 tensor with one row per track, so
that birth is concatenation and death is a mask. Training calls the same functions as tracking.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torchvision.ops import box_convert

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
        """States in the pixels of the current frame; affine (2, 3) maps the previous frame's pixels to them."""
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
        return cls(*state.unflatten(1, KALMAN_SHAPE).unbind(2))

    @property
    def sigma(self) -> Tensor:
        """(N, 4) the standard deviation of the position."""
        return self.var_p.clamp(min=0).sqrt()

    def pack(self) -> Tensor:
        """(N, KALMAN_SIZE) the state that has these columns."""
        return torch.stack(self, 2).flatten(1)


KALMAN_SHAPE = 4, len(KalmanState._fields)  # coordinates, fields
KALMAN_SIZE = 4 * len(KalmanState._fields)


class Kalman:
    """Constant velocity of centre, width and height, each filtered on its own: the baseline motion model.

    The noise is proportional to the box's size as in Wojke et al., "Simple Online and Realtime Tracking with a Deep
    Association Metric" (ICIP 2017), on width and height as in Aharon et al., "BoT-SORT" (2022). Because neither noise
    nor dynamics mix the four coordinates, the 8x8 filter separates into four 2x2 filters, computed in closed form.
    The velocity is a Brownian motion, so that two short steps equal one long step.

    State (N, KALMAN_SIZE): the columns of `KalmanState`.
    """

    def __init__(self, position_noise: float = 1 / 20, velocity_noise: float = 1 / 160) -> None:
        """Standard deviations as fractions of the box's size, per step of 1/30 s."""
        self.position_noise = position_noise
        self.velocity_noise = velocity_noise

    def initiate(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """A track at rest whose velocity is uncertain; see `Motion`."""
        position = box_convert(boxes, "xyxy", "cxcywh")
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
        q = (self.velocity_noise * size) ** 2
        var_p = (
            var_p + 2 * steps * cov + steps**2 * var_v + steps * (self.position_noise * size) ** 2 + steps**3 / 3 * q
        )
        cov = cov + steps * var_v + steps**2 / 2 * q
        return KalmanState(p + steps * v, v, var_p, cov, var_v + steps * q).pack()

    def update(self, state: Tensor, boxes: Tensor, scores: Tensor) -> Tensor:
        """See `Motion`."""
        p, v, var_p, cov, var_v = KalmanState.unpack(state)
        noise = (self.position_noise * box_scale(p)) ** 2
        innovation = box_convert(boxes, "xyxy", "cxcywh") - p
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
        table = state.unflatten(1, KALMAN_SHAPE).clone()
        mean, covariance = table.tensor_split([2], 2)  # (N, 4, position and velocity), (N, 4, var_p, cov and var_v)
        zoom = magnification(affine)
        mean[:, :2] = torch.einsum("ij,njk->nik", affine[:, :2], mean[:, :2])
        mean[:, :2, 0] += affine[:, 2]
        mean[:, 2:] *= zoom
        covariance *= zoom**2
        return table.flatten(1)

    def project(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Motion`; the boxes are a view of the state."""
        columns = KalmanState.unpack(state)
        return columns.position, columns.sigma


def box_scale(position: Tensor) -> Tensor:
    """(N, 4) the lengths, pixels, that centre x, centre y, width and height (N, 4) are measured in: width or height."""
    return position[:, [2, 3, 2, 3]].clamp(min=1.0)
