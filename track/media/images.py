"""Images: conversion between tensors, OpenCV arrays and files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

JPEG_QUALITY = 85


def to_rgb(array: np.ndarray) -> Tensor:
    """An OpenCV (H, W, 3) BGR array as a (3, H, W) uint8 RGB tensor."""
    return torch.from_numpy(cv2.cvtColor(array, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)


def to_bgr(image: Tensor) -> np.ndarray:
    """A (3, H, W) uint8 RGB tensor as an OpenCV (H, W, 3) BGR array."""
    return cv2.cvtColor(image.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2BGR)


def read_image(path: str | Path) -> Tensor | None:
    """Read an image file as a (3, H, W) uint8 RGB tensor; None if it cannot be decoded.

    Grey images get three equal channels, 16 bits become 8, and the orientation in the EXIF data is applied.
    """
    array = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return None if array is None else to_rgb(array)


def save_image(path: str | Path, image: Tensor) -> Path:
    """Write a (3, H, W) uint8 RGB image in the format of the path's suffix (png, jpg) and return the path.

    Missing folders are created. Raises ValueError if the file cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if cv2.imwrite(str(path), to_bgr(image)):
            return Path(path)
    except (OSError, cv2.error) as error:
        raise ValueError(f"{path}: expected an image file that can be written ({error})") from error
    raise ValueError(f"{path}: expected an image file that can be written")


def to_jpeg(image: Tensor) -> bytes:
    """Encode a (3, H, W) uint8 RGB image as a JPEG file's contents."""
    return bytes(cv2.imencode(".jpg", to_bgr(image), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])
