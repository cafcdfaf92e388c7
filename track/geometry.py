"""Geometry: affine camera motion, foot points, centres, occlusion, boxes that touch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from track.structures import MAX_COORDINATE

DENSE_PAIRS = 10_000  # up to which all pairs of boxes are compared at once: faster than a grid
MAX_PAIRS = 1_000_000  # of boxes in one block of `touching_boxes`
MAX_CELLS = 256  # along each axis, of the grid in which boxes are compared


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
    zoom = magnification(affine)
    near = (affine.abs() <= MAX_COORDINATE).all(-1).all(-1)
    return near & (zoom >= 1e-3) & (zoom <= 1e3)


def magnification(affine: Tensor) -> Tensor:
    """(...) the factor by which affines (..., 2, 3) scale lengths: the square root of the factor for areas."""
    return (affine[..., 0, 0] * affine[..., 1, 1] - affine[..., 0, 1] * affine[..., 1, 0]).abs().sqrt()


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
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1)
    shared = (bottom_right - top_left).clamp(min=0).prod(2) / areas[:, None]
    nearer = boxes[:, 3] > boxes[:, None, 3]
    return torch.cat([shared * nearer, boxes.new_zeros(len(boxes), 1)], 1).amax(1)


def touching_boxes(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The pairs of boxes that overlap or touch, as rows of `a` (N, 4) and of `b` (M, 4), xyxy pixels.

    Yields rows (E,) and (E,) of one block of `a` after another, ordered by row of `a` and then of `b`. A block has
    about `MAX_PAIRS` pairs, so that memory is bounded where all boxes overlap. Many boxes are compared within the cells
    of a grid only, so that the cost grows with the number of pairs, not with N * M.
    """
    if len(a) * len(b) <= DENSE_PAIRS:
        pairs = np.flatnonzero(_touch(a.T[:, :, None], b.T))
        yield np.divmod(pairs, max(len(b), 1))
        return
    cell = 2 * float(np.concatenate([a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]]).mean()) + 1
    rows_a, keys_a = _cells(a, cell)
    rows_b, keys_b = _cells(b, cell)
    order = np.argsort(keys_b, kind="stable")
    rows_b, keys_b = rows_b[order], keys_b[order]
    first = np.searchsorted(keys_b, keys_a)
    counts = np.searchsorted(keys_b, keys_a, side="right") - first
    total = np.cumsum(np.bincount(rows_a, counts, minlength=len(a)))
    thresholds = np.arange(MAX_PAIRS, max(total[-1], 1) + MAX_PAIRS, MAX_PAIRS)
    ends = np.searchsorted(total, thresholds) + 1  # rows of `a`, of each block
    start = 0
    for end in np.unique(np.minimum(ends, len(a))).tolist():
        entries = slice(*np.searchsorted(rows_a, [start, end]))
        start = end
        repeats = counts[entries]
        i = np.repeat(rows_a[entries], repeats)
        shift = first[entries] - (repeats.cumsum() - repeats)
        j = rows_b[np.arange(len(i)) + np.repeat(shift, repeats)]
        touching = np.flatnonzero(_touch(a.take(i, 0).T, b.take(j, 0).T))
        pairs = i.take(touching) * len(b) + j.take(touching)
        pairs = np.unique(pairs)  # in order, and once each: boxes may share several cells
        yield np.divmod(pairs, len(b))


def paired_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(E,) intersection over union of each box of `a` (E, 4) with that of `b` (E, 4), 0 for boxes without area."""
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    areas = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1]) + (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    return shared / np.maximum(areas - shared, 1e-12)


def _touch(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(...) bool, whether boxes (4, ...) overlap or touch."""
    along_x = (a[0] <= b[2]) & (b[0] <= a[2])
    return np.logical_and(along_x, (a[1] <= b[3]) & (b[1] <= a[3]), out=along_x)


def _cells(boxes: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of boxes (N, 4), ascending, and the keys of the grid's cells that each covers; size: of a cell, pixels.

    A box covers at most `MAX_CELLS` along each axis: cells are taken modulo that, so that far cells may share a key.
    """
    low, high = np.floor(boxes[:, :2] / size).astype(np.int64), np.floor(boxes[:, 2:] / size).astype(np.int64)
    sides = np.clip(high - low + 1, 0, MAX_CELLS)  # a filter may predict a box of negative height, which has no cell
    counts = sides.prod(1)
    rows = np.repeat(np.arange(len(boxes)), counts)
    step = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
    x = (low[rows, 0] + step % sides[rows, 0]) % MAX_CELLS
    y = (low[rows, 1] + step // sides[rows, 0]) % MAX_CELLS
    return rows, y * MAX_CELLS + x
