"""Affines and boxes, checked by hand."""

import torch

from track.geometry import (
    box_centers,
    compose_affines,
    foot_points,
    identity_affine,
    invert_affine,
    is_camera_motion,
    magnification,
    occluded_fraction,
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
