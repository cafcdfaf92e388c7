"""Camera motion: an affine from each frame's pixels to the next one's, estimated from the background, read, or none.

Corners outside the boxes are followed by sparse optical flow (Lucas and Kanade, IJCAI 1981, in Bouguet's pyramids) and
a similarity is fitted to them by RANSAC, as in Aharon et al., "BoT-SORT" (2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from track.geometry import identity_affine
from track.structures import Frame

WIDTH = 480  # pixels that an image is shrunk to
MIN_CORNERS = 10


class CameraMotion(Protocol):
    """How the camera moved since the previous frame."""

    @property
    def needs_pixels(self) -> bool:
        """Whether the frames' images are read."""
        ...

    def reset(self) -> None:
        """Forget the previous frame: the next one is the first of another video."""
        ...

    def __call__(self, frame: Frame, boxes: Tensor) -> Tensor:
        """(2, 3) the affine from the previous frame's pixels to this frame's, the identity where it is not known.

        boxes: (N, 4) xyxy pixels of what moves by itself.
        """
        ...


class OpticalFlow:
    """Camera motion estimated from frame to frame; identity on the first one, on blank ones and when in doubt."""

    needs_pixels = True

    def __init__(self) -> None:
        self._previous: tuple[np.ndarray, np.ndarray] | None = None

    def reset(self) -> None:
        """See `CameraMotion`."""
        self._previous = None

    def __call__(self, frame: Frame, boxes: Tensor) -> Tensor:
        """See `CameraMotion`."""
        if frame.is_blank:
            return identity_affine()
        green = frame.image[1].numpy()  # close to brightness, and no conversion
        scale = min(1.0, WIDTH / green.shape[1])
        image = cv2.resize(green, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        affine = np.eye(2, 3)
        if self._previous is not None:
            before, corners = self._previous
            if before.shape == image.shape and len(corners) >= MIN_CORNERS:
                affine = _fit(before, corners, image)
        self._previous = image, _corners(image, (boxes * scale).round().int().tolist())
        affine[:, 2] /= scale
        return torch.from_numpy(affine).float()


class AffineFile:
    """Camera motion that is known in advance, such as a sequence's gmc.txt.

    affines: (2, 3) for frame 1, 2, ...
    """

    needs_pixels = False

    def __init__(self, affines: Sequence[Tensor] | Tensor) -> None:
        self.affines = affines

    def reset(self) -> None:
        """See `CameraMotion`."""

    def __call__(self, frame: Frame, boxes: Tensor) -> Tensor:
        """See `CameraMotion`."""
        return self.affines[frame.number - 1]


class Static:
    """A camera that stands still, or whose motion is to be ignored."""

    needs_pixels = False

    def reset(self) -> None:
        """See `CameraMotion`."""

    def __call__(self, frame: Frame, boxes: Tensor) -> Tensor:
        """See `CameraMotion`."""
        return identity_affine()


def _corners(image: np.ndarray, boxes: list[list[int]]) -> np.ndarray:
    """(P, 1, 2) points of the background that can be followed."""
    mask = np.full_like(image, 255)
    for x1, y1, x2, y2 in boxes:
        mask[max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)] = 0
    points = cv2.goodFeaturesToTrack(image, maxCorners=120, qualityLevel=0.01, minDistance=8, mask=mask)
    return np.empty((0, 1, 2), np.float32) if points is None else points


def _fit(image: np.ndarray, corners: np.ndarray, later: np.ndarray) -> np.ndarray:
    """(2, 3) the similarity that most of the corners moved by."""
    moved, found, _ = cv2.calcOpticalFlowPyrLK(image, later, corners, corners.copy(), winSize=(15, 15), maxLevel=3)
    followed = found[:, 0] > 0
    if followed.sum() < MIN_CORNERS:
        return np.eye(2, 3)
    affine, inliers = cv2.estimateAffinePartial2D(
        corners[followed], moved[followed], method=cv2.RANSAC, ransacReprojThreshold=1.0
    )
    return affine if affine is not None and inliers.sum() >= MIN_CORNERS else np.eye(2, 3)
