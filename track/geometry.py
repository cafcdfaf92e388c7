"""Geometry: affine camera motion, foot points, centres, occlusion."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torchvision.ops import box_area

from track.structures import MAX_COORDINATE


def identity_affine() -> Tensor:
    """(2, 3) the affine of a camera that stands still."""
    return torch.eye(2, 3)


def compose_affines(affines: Iterable[Tensor]) -> Tensor:
    """(2, 3) the affine that applies `affines`, (2, 3) each, one after another."""
    total = torch.eye(3, dtype=torch.float64)
    for affine in affines:
        total = torch.cat([affine.double(), total[2:]]) @ total
    return total[:2].float()


def invert_affine(affine: Tensor) -> Tensor:
    """(2, 3) the inverse of an affine (2, 3)."""
    linear = torch.linalg.inv(affine[:, :2].double())
    return torch.cat([linear, -linear @ affine[:, 2:].double()], 1).float()


def is_camera_motion(affine: Tensor) -> Tensor:
    """Whether an affine could be a camera's motion: () bool for (2, 3), (N,) for (N, 2, 3).

    It may scale areas by a factor from 1e-6 to 1e6 and move the image by `MAX_COORDINATE`.
    """
    area = (affine[..., 0, 0] * affine[..., 1, 1] - affine[..., 0, 1] * affine[..., 1, 0]).abs()
    near = (affine.abs() <= MAX_COORDINATE).all(-1).all(-1)
    return near & (area >= 1e-6) & (area <= 1e6)


def magnification(affine: Tensor) -> Tensor:
    """() the factor by which an affine (2, 3) scales lengths: the square root of its factor for areas."""
    return torch.linalg.det(affine[:, :2]).abs().sqrt()


def foot_points(boxes: Tensor) -> Tensor:
    """(N, 2) the midpoints of the lower edges of boxes (N, 4), xyxy pixels."""
    return torch.stack([(boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]], 1)


def box_centers(boxes: Tensor) -> Tensor:
    """(N, 2) the centres of boxes (N, 4), xyxy pixels."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def occluded_fraction(boxes: Tensor) -> Tensor:
    """(N,) the fraction, 0 to 1, of each box (N, 4) that the nearer box with the largest overlap hides.

    Of two overlapping boxes, the one whose lower edge is lower in the image is nearer to the camera.
    """
    top_left = torch.maximum(boxes[:, None, :2], boxes[:, :2])
    bottom_right = torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = (bottom_right - top_left).clamp(min=0).prod(2) / box_area(boxes).clamp(min=1)[:, None]
    nearer = boxes[:, 3] > boxes[:, None, 3]
    return torch.cat([shared * nearer, boxes.new_zeros(len(boxes), 1)], 1).amax(1)
