"""Camera motion: known affines are recovered, and nothing is guessed if there is nothing to see."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from track.datasets.streets import make_dataset
from track.formats.mot import find_sequences
from track.geometry import identity_affine
from track.media.sources import SequenceSource
from track.structures import Frame
from track.tracking.camera_motion import AffineFile, CameraMotion, OpticalFlow, Static

NO_BOXES = torch.empty(0, 4)
PAN = np.array([[1, 0, 12.0], [0, 1, -4]])


def texture(height: int = 360, width: int = 640) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def frame_of(image: np.ndarray, number: int = 1) -> Frame:
    return Frame(torch.from_numpy(image).permute(2, 0, 1).contiguous(), number / 30, number)


def moved(image: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(image, affine, (640, 360))


def test_optical_flow_recovers_a_known_pan_zoom_and_roll() -> None:
    angle, zoom = 0.02, 1.01
    c, s = zoom * math.cos(angle), zoom * math.sin(angle)
    affine = np.array([[c, -s, 9.0], [s, c, -5.0]])
    flow, image = OpticalFlow(), texture()
    assert torch.equal(flow(frame_of(image), NO_BOXES), identity_affine())
    estimate = flow(frame_of(moved(image, affine)), NO_BOXES).double().numpy()
    corners = np.array([[0, 0, 1], [640, 0, 1], [0, 360, 1], [640, 360, 1.0]]).T
    assert np.abs((estimate - affine) @ corners).max() < 0.5


def test_optical_flow_ignores_motion_inside_the_boxes() -> None:
    before = texture()
    after = before.copy()
    before[30:330, 20:580], after[30:330, 50:610] = texture(300, 560), texture(300, 560)
    box = torch.tensor([[20.0, 30, 610, 330]])
    flow = OpticalFlow()
    flow(frame_of(before), box)
    assert (flow(frame_of(after), box) - identity_affine()).abs().max() < 1
    flow = OpticalFlow()
    flow(frame_of(before), NO_BOXES)
    assert flow(frame_of(after), NO_BOXES)[0, 2] > 20


def test_a_featureless_image_or_a_change_of_size_is_no_motion() -> None:
    flow = OpticalFlow()
    for size in ((90, 120), (90, 120), (100, 120)):
        black = Frame(torch.zeros(3, *size, dtype=torch.uint8), 0.0, 1)
        assert torch.equal(flow(black, NO_BOXES), identity_affine())


def test_a_blank_frame_is_no_motion_and_the_next_is_compared_with_the_last_image() -> None:
    flow, image = OpticalFlow(), texture()
    flow(frame_of(image), NO_BOXES)
    assert torch.equal(flow(Frame.blank(360, 640, 0.1, 2), NO_BOXES), identity_affine())
    estimate = flow(frame_of(moved(image, PAN)), NO_BOXES)
    torch.testing.assert_close(estimate, torch.from_numpy(PAN).float(), rtol=0, atol=0.3)


def test_after_a_reset_the_next_frame_is_the_first_of_another_video() -> None:
    flow, image = OpticalFlow(), texture()
    flow(frame_of(image), NO_BOXES)
    flow.reset()
    assert torch.equal(flow(frame_of(moved(image, PAN)), NO_BOXES), identity_affine())


def test_optical_flow_agrees_with_the_affines_of_a_generated_street(tmp_path: Path) -> None:
    sequence, flow = find_sequences(make_dataset(tmp_path, 1, 25, seed=3))[0], OpticalFlow()
    columns = zip(SequenceSource(sequence), sequence.truth(), sequence.affines(), strict=True)
    errors = [(flow(frame, truth.boxes) - affine)[:, 2].abs().max().item() for frame, truth, affine in columns]
    assert len(errors) == 25
    assert max(errors) < 0.3


def test_an_affine_file_gives_each_frame_its_affine_whatever_the_order() -> None:
    affines = torch.stack([torch.eye(2, 3) + k for k in range(3)])
    motion = AffineFile(affines)
    for number in (1, 3, 2, 1):
        assert torch.equal(motion(Frame.blank(4, 4, 0.0, number), NO_BOXES), affines[number - 1])
        motion.reset()


def test_a_static_camera_never_moves() -> None:
    motion = Static()
    for image in (texture(), moved(texture(), PAN)):
        assert torch.equal(motion(frame_of(image), NO_BOXES), identity_affine())
        motion.reset()


@pytest.mark.parametrize(
    ("motion", "needs_pixels"), [(OpticalFlow(), True), (AffineFile([]), False), (Static(), False)]
)
def test_only_optical_flow_needs_pixels(motion: CameraMotion, needs_pixels: bool) -> None:
    assert motion.needs_pixels is needs_pixels
