"""The camera's motion: known motions found again, and no guess where there is nothing to see."""

import math
from pathlib import Path

import cv2
import numpy as np
import torch

from track.datasets.streets import make_dataset
from track.formats.mot import find_sequences
from track.media.sources import frames
from track.tracking.camera_motion import OpticalFlow

NOBODY = torch.empty(0, 4)


def texture(height: int = 360, width: int = 640) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def image_of(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1).contiguous()


def test_a_known_pan_zoom_and_roll_is_found() -> None:
    angle, zoom = 0.02, 1.01
    c, s = zoom * math.cos(angle), zoom * math.sin(angle)
    affine = np.array([[c, -s, 9.0], [s, c, -5.0]])
    camera, picture = OpticalFlow(), texture()
    assert camera(image_of(picture), NOBODY).tolist() == [[1, 0, 0], [0, 1, 0]]
    found = camera(image_of(cv2.warpAffine(picture, affine, (640, 360))), NOBODY).double().numpy()
    corners = np.array([[0, 0, 1], [640, 0, 1], [0, 360, 1], [640, 360, 1.0]]).T
    assert np.abs((found - affine) @ corners).max() < 0.5


def test_what_moves_inside_the_boxes_is_not_looked_at() -> None:
    still = texture()
    walked = still.copy()
    still[30:330, 20:580], walked[30:330, 50:610] = texture(300, 560), texture(300, 560)
    box = torch.tensor([[20.0, 30, 610, 330]])
    camera = OpticalFlow()
    camera(image_of(still), box)
    assert (camera(image_of(walked), box) - torch.eye(2, 3)).abs().max() < 1
    camera = OpticalFlow()
    camera(image_of(still), NOBODY)
    assert camera(image_of(walked), NOBODY)[0, 2] > 20


def test_an_empty_picture_or_another_size_is_no_motion() -> None:
    camera = OpticalFlow()
    for size in ((90, 120), (90, 120), (100, 120)):
        assert camera(torch.zeros(3, *size, dtype=torch.uint8), NOBODY).tolist() == [[1, 0, 0], [0, 1, 0]]


def test_a_drawn_streets_pan_is_what_its_file_says(tmp_path: Path) -> None:
    sequence, camera = find_sequences(make_dataset(tmp_path, 1, 25, seed=3))[0], OpticalFlow()
    together = zip(frames(sequence.path / "img1"), sequence.truth(), sequence.affines(), strict=True)
    off = [(camera(frame.image, truth.boxes) - affine)[:, 2].abs().max().item() for frame, truth, affine in together]
    assert max(off) < 0.3
