"""Images between OpenCV's arrays, tensors and files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor


def to_rgb(array: np.ndarray) -> Tensor:
    """An OpenCV (H, W, 3) BGR array as a (3, H, W) uint8 RGB tensor."""
    return torch.from_numpy(cv2.cvtColor(array, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)


def to_bgr(image: Tensor) -> np.ndarray:
    """A (3, H, W) uint8 RGB tensor as an OpenCV (H, W, 3) BGR array."""
    return cv2.cvtColor(image.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2BGR)


def read_image(path: str | Path) -> Tensor | None:
    """The image in a file as a (3, H, W) uint8 RGB tensor; None where it cannot be decoded."""
    array = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return None if array is None else to_rgb(array)


def save_image(path: str | Path, image: Tensor) -> Path:
    """Write a (3, H, W) uint8 RGB image in the format of its suffix (png, jpg), making its folder; returns the path.

    Raises ValueError where it cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if cv2.imwrite(str(path), to_bgr(image)):
            return Path(path)
    except (OSError, cv2.error) as error:
        raise ValueError(f"{path}: expected an image file that can be written ({error})") from error
    raise ValueError(f"{path}: expected an image file that can be written")


def to_jpeg(image: Tensor) -> bytes:
    """A (3, H, W) uint8 RGB image as the bytes of a JPEG file."""
    return bytes(cv2.imencode(".jpg", to_bgr(image), [cv2.IMWRITE_JPEG_QUALITY, 85])[1])
