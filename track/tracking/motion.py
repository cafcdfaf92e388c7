"""Where a track will be: motion models, stateless, for all tracks at once.

A state is one float32 tensor with a row a track, so that birth is concatenation and death is a mask. Models take and
return it, and training calls the same functions as tracking.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import box_convert

from track.geometry import magnification

STEPS_PER_SECOND = 30.0  # noise is stated per step of 1/30 s, the frame rate that trackers are tuned at


class Motion(Protocol):
    """What a tracker asks of a motion model. N tracks, states (N, S)."""

    def initiate(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """States of new tracks from their first boxes (N, 4) xyxy and scores (N,)."""
        ...

    def predict(self, state: Tensor, elapsed: Tensor) -> Tensor:
        """States moved on by `elapsed` (N,) seconds, without an observation."""
        ...

    def update(self, state: Tensor, boxes: Tensor, scores: Tensor) -> Tensor:
        """States after an observation: boxes (N, 4) xyxy and scores (N,)."""
        ...

    def apply_camera_motion(self, state: Tensor, affine: Tensor) -> Tensor:
        """States in the pixels of the next frame; affine is (2, 3), from the previous one's."""
        ...

    def project(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Where the state has the boxes now: (N, 4) centre x, centre y, width, height and their deviations, pixels."""
        ...


class Kalman:
    """Constant velocity of centre, width and height, each filtered on its own: the baseline of every tracker here.

    The noise is proportional to the box's size as in Wojke et al., "Simple Online and Realtime Tracking with a Deep
    Association Metric" (ICIP 2017), on width and height as in Aharon et al., "BoT-SORT" (2022). Because noise and
    dynamics do not mix the four coordinates, the 8x8 filter falls apart into four of 2x2, which are computed in closed
    form. Process noise is that of a velocity in Brownian motion, so that two short steps equal one long one.

    State (N, 4 * 5): per coordinate (x, y, w, h) position, velocity a step, and var(p), cov(p, v), var(v).
    """

    size = 20

    def __init__(self, position_noise: float = 1 / 20, velocity_noise: float = 1 / 160) -> None:
        """Standard deviations as fractions of the box's size, a step of 1/30 s."""
        self.position_noise, self.velocity_noise = position_noise, velocity_noise

    def initiate(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """A standing track, uncertain of its velocity; see `Motion`."""
        position = box_convert(boxes, "xyxy", "cxcywh")
        size = box_scale(position)
        zero = torch.zeros_like(position)
        variances = (2 * self.position_noise * size) ** 2, zero, (10 * self.velocity_noise * size) ** 2
        return torch.stack([position, zero, *variances], 2).flatten(1)

    def predict(self, state: Tensor, elapsed: Tensor) -> Tensor:
        """See `Motion`."""
        p, v, pp, pv, vv = state[:, : self.size].unflatten(1, (4, 5)).unbind(2)
        steps = elapsed[:, None] * STEPS_PER_SECOND
        size = box_scale(p)
        q = (self.velocity_noise * size) ** 2
        pp = pp + 2 * steps * pv + steps**2 * vv + steps * (self.position_noise * size) ** 2 + steps**3 / 3 * q
        pv = pv + steps * vv + steps**2 / 2 * q
        return torch.stack([p + steps * v, v, pp, pv, vv + steps * q], 2).flatten(1)

    def update(self, state: Tensor, boxes: Tensor, scores: Tensor) -> Tensor:
        """See `Motion`."""
        p, v, pp, pv, vv = state[:, : self.size].unflatten(1, (4, 5)).unbind(2)
        noise = (self.position_noise * box_scale(p)) ** 2
        innovation = box_convert(boxes, "xyxy", "cxcywh") - p
        gain_p, gain_v = pp / (pp + noise), pv / (pp + noise)
        columns = (
            p + gain_p * innovation,
            v + gain_v * innovation,
            pp * (1 - gain_p),
            pv * (1 - gain_p),
            vv - gain_v * pv,
        )
        return torch.stack(columns, 2).flatten(1)

    def apply_camera_motion(self, state: Tensor, affine: Tensor) -> Tensor:
        """See `Motion`; sizes and uncertainty follow the affine's mean magnification, its small rotation is ignored."""
        table = state[:, : self.size].unflatten(1, (4, 5)).clone()
        zoom = magnification(affine)
        table[:, :2, :2] = torch.einsum("ij,njk->nik", affine[:, :2], table[:, :2, :2])
        table[:, :2, 0] += affine[:, 2]
        table[:, 2:, :2] *= zoom
        table[:, :, 2:] *= zoom**2
        return table.flatten(1)

    def project(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `Motion`."""
        return state[:, 0 : self.size : 5], state[:, 2 : self.size : 5].clamp(min=0).sqrt()


def box_scale(position: Tensor) -> Tensor:
    """(N, 4) the width and height that each of centre x, centre y, width and height is measured in, pixels."""
    return position[:, [2, 3, 2, 3]].clamp(min=1.0)
