"""Affines and boxes, checked by hand."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from track.geometry import (
    box_centers,
    compose_affines,
    foot_points,
    identity_affine,
    invert_affine,
    is_camera_motion,
    magnification,
    occluded_fraction,
    paired_iou,
    touching_boxes,
)

SHIFT = torch.tensor([[1.0, 0, 3], [0, 1, -2]])
ROTATE_AND_DOUBLE = torch.tensor([[0.0, -2, 0], [2, 0, 0]])
BOXES = torch.tensor([[0.0, 0, 10, 20], [2, 5, 12, 15]])


def test_affines_are_composed_in_order() -> None:
    assert compose_affines([]).tolist() == identity_affine().tolist()
    assert compose_affines([SHIFT, ROTATE_AND_DOUBLE]).tolist() == [[0, -2, 4], [2, 0, 6]]
    assert compose_affines([ROTATE_AND_DOUBLE, SHIFT]).tolist() == [[0, -2, 3], [2, 0, -2]]


def test_an_affine_and_its_inverse_compose_to_the_identity() -> None:
    affine = torch.tensor([[1.1, 0.2, 30], [-0.1, 0.9, -7]])
    torch.testing.assert_close(compose_affines([affine, invert_affine(affine)]), identity_affine())
    torch.testing.assert_close(compose_affines([invert_affine(affine), affine]), identity_affine())


def test_a_cameras_motion_is_finite_and_can_be_inverted() -> None:
    turned = torch.tensor([[0.0, -1, 5], [1, 0, 2]])
    affines = torch.stack([turned, 0 * turned, turned * torch.inf, 1e9 * turned, 1e-4 * turned])
    assert is_camera_motion(affines).tolist() == [True, False, False, False, False]


def test_magnification_is_the_factor_of_lengths() -> None:
    assert magnification(SHIFT) == 1
    assert magnification(ROTATE_AND_DOUBLE) == 2
    mirrored = torch.tensor([[-3.0, 0, 0], [0, 3, 0]])
    assert magnification(mirrored) == 3


def test_foot_points_and_centres_of_boxes() -> None:
    assert foot_points(BOXES).tolist() == [[5, 20], [7, 15]]
    assert box_centers(BOXES).tolist() == [[5, 10], [7, 10]]
    assert foot_points(BOXES[:0]).shape == box_centers(BOXES[:0]).shape == (0, 2)


def test_only_the_farther_of_two_overlapping_boxes_is_occluded() -> None:
    front, behind, apart = [0.0, 0, 10, 20], [2.0, 5, 12, 15], [50.0, 0, 60, 30]
    torch.testing.assert_close(occluded_fraction(torch.tensor([front, behind, apart])), torch.tensor([0, 0.8, 0]))
    assert occluded_fraction(torch.zeros(0, 4)).shape == (0,)


def test_of_several_nearer_boxes_the_one_with_the_largest_overlap_counts() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 3, 12], [6, 0, 10, 14]])
    torch.testing.assert_close(occluded_fraction(boxes), torch.tensor([0.4, 0, 0]))


def boxes_in(chance: np.random.Generator, count: int, side: float, largest: float = 60) -> np.ndarray:
    low = chance.uniform(0, side, (count, 2))
    return np.concatenate([low, low + chance.uniform(0, largest, (count, 2))], 1).astype(np.float32)


@pytest.mark.parametrize(
    ("n", "m", "side", "largest"),
    [
        (3, 4, 50, 60),
        (300, 280, 900, 60),
        (1000, 900, 1500, 900),
        (3000, 20, 1e7, 60),
        (400, 300, 1, 1),
        (500, 0, 9, 9),
    ],
)
def test_boxes_that_touch_are_those_of_the_dense_table(n: int, m: int, side: float, largest: float) -> None:
    chance = np.random.default_rng(0)
    a, b = boxes_in(chance, n, side, largest), boxes_in(chance, m, side)
    a[0, 3] = a[0, 1] - 1  # negative height
    dense = (a[:, None, :2] <= b[:, 2:]) & (b[:, :2] <= a[:, None, 2:])
    dense[0] = False
    pairs = [np.stack(block, 1) for block in touching_boxes(a, b)]
    found = np.concatenate([*pairs, np.zeros((0, 2), np.int64)])
    np.testing.assert_array_equal(found[found[:, 0] > 0], np.argwhere(dense.all(2)))


def test_pairs_come_in_blocks_where_all_boxes_overlap() -> None:
    boxes = boxes_in(np.random.default_rng(0), 1500, 5, 400)
    boxes[:, 2:] += 10
    blocks = list(touching_boxes(boxes, boxes))
    assert len(blocks) == 3
    assert sum(len(i) for i, _ in blocks) == 1500 * 1500
    assert [rows for i, _ in blocks for rows in np.unique(i).tolist()] == list(range(1500))


def test_paired_iou_is_that_of_torchvision() -> None:
    chance = np.random.default_rng(0)
    a, b = boxes_in(chance, 200, 40), boxes_in(chance, 200, 40)
    expected = box_iou(torch.from_numpy(a), torch.from_numpy(b)).diagonal().numpy()
    np.testing.assert_allclose(paired_iou(a, b), expected, rtol=1e-5, atol=1e-6)
    assert paired_iou(a[:1] * 0, a[:1] * 0).tolist() == [0]
