"""Images: conversion between tensors, OpenCV arrays and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL.Image import DecompressionBombError, Image
from PIL.Image import open as open_image
from torch import Tensor

from track.checkpoint import atomic_write, first_line

JPEG_QUALITY = 85
MAX_PIXELS = 80_000_000  # of an image file, whose few bytes may claim any size


def as_image(value: Any) -> Tensor:
    """Convert an image of any usual kind to a (3, H, W) uint8 RGB tensor, the kind that `Frame` and `Detector` take.

    value: a tensor, a NumPy array or a Pillow image, with channels first or last, in the order red, green, blue;
    convert OpenCV's arrays, which are BGR, with `to_rgb`. Grey images, (H, W) or of one channel, get three equal
    channels; a fourth channel (alpha) is dropped. Floats in 0..1 are scaled by 255, uint16 is divided by 257, other
    integers are expected in 0..255. If both the first and the last dimension could be the channels, they are the first
    of a tensor and the last of an array.

    Raises ValueError for other types, shapes and values, NaN among them.
    """
    channels_last = not isinstance(value, Tensor)
    image = _channels_first(_as_tensor(value), channels_last)
    if image.dtype != torch.uint8:
        image = _as_bytes(image)
    return image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)


def to_rgb(array: np.ndarray) -> Tensor:
    """An OpenCV (H, W, 3) BGR array as a (3, H, W) uint8 RGB tensor."""
    return torch.from_numpy(cv2.cvtColor(array, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)


def to_bgr(image: Tensor) -> np.ndarray:
    """A (3, H, W) uint8 RGB tensor as an OpenCV (H, W, 3) BGR array."""
    return cv2.cvtColor(image.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2BGR)


def read_image(path: str | Path) -> Tensor | None:
    """Read an image file as a (3, H, W) uint8 RGB tensor; None if it cannot be decoded or exceeds `MAX_PIXELS`.

    Grey images get three equal channels, 16 bits become 8, and the orientation in the EXIF data is applied.
    """
    try:
        with open_image(path) as header:  # reads no pixels
            if header.width * header.height > MAX_PIXELS:
                return None
        array = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except (OSError, ValueError, SyntaxError, DecompressionBombError, cv2.error):
        return None
    return None if array is None else to_rgb(array)


def save_image(path: str | Path, image: Tensor) -> Path:
    """Write a (3, H, W) uint8 RGB image in the format of the path's suffix (png, jpg) and return the path.

    Missing folders are created. Raises ValueError if the file cannot be written.
    """
    try:
        content = bytes(cv2.imencode(Path(path).suffix, to_bgr(image))[1])
        with atomic_write(Path(path)) as temporary:
            temporary.write_bytes(content)
    except (OSError, cv2.error) as error:
        raise ValueError(f"{path}: expected an image file that can be written ({first_line(error)})") from error
    return Path(path)


def to_jpeg(image: Tensor) -> bytes:
    """Encode a (3, H, W) uint8 RGB image as a JPEG file's contents."""
    return bytes(cv2.imencode(".jpg", to_bgr(image), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])


def _as_tensor(value: Any) -> Tensor:
    """A tensor of numbers. Raises ValueError for what is no image."""
    if isinstance(value, Image):
        value = np.asarray(value if value.mode in ("L", "RGB", "I;16", "F") else value.convert("RGB"))
    if isinstance(value, np.ndarray) and value.dtype.kind in "uif":
        native = value.astype(value.dtype.newbyteorder("="), copy=False)
        value = torch.from_numpy(np.require(native, requirements=["C", "W"]))
    if not isinstance(value, Tensor) or value.dtype == torch.bool or value.is_complex():
        dtype = f" of {value.dtype}" if isinstance(value, Tensor | np.ndarray) else ""
        raise ValueError(
            f"image: expected a tensor, array or Pillow image of numbers, got {type(value).__name__}{dtype}"
        )
    return value.detach()


def _channels_first(image: Tensor, channels_last: bool) -> Tensor:
    """(C, H, W) with C = 1, 3 or 4. channels_last: what is assumed of a shape that could be either."""
    shape = tuple(image.shape)
    if image.ndim == 2:
        image = image[None]
    elif image.ndim == 3:
        possible = [shape[0] in (1, 3, 4), shape[2] in (1, 3, 4)]
        if possible == [False, True] or (all(possible) and channels_last):
            image = image.permute(2, 0, 1)
    if image.ndim != 3 or len(image) not in (1, 3, 4) or image.numel() == 0:
        raise ValueError(f"image: expected one of shape (3, H, W), (H, W, 3) or (H, W), got {shape}")
    return image


def _as_bytes(image: Tensor) -> Tensor:
    """Numbers of another type as uint8. Raises ValueError for values that are outside the range of their type."""
    if image.dtype == torch.uint16:
        return ((image.int() + 128) // 257).byte()
    scaled = (image.double() * 255).round() if image.is_floating_point() else image.double()
    if not bool(((scaled >= 0) & (scaled <= 255)).all()):
        low, high = (f"{limit:g}" for limit in (image.double().min().item(), image.double().max().item()))
        expected = "floats in 0..1" if image.is_floating_point() else "integers in 0..255"
        raise ValueError(f"image: expected {expected}, or uint8, got values from {low} to {high}")
    return scaled.byte()
