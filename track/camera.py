"""How the camera moved: an affine from each frame's pixels to the next one's, estimated from the background.

Corners outside the boxes are followed by sparse optical flow (Lucas and Kanade, IJCAI 1981, in Bouguet's pyramids) and
a similarity is fitted to them by RANSAC, as in Aharon et al., "BoT-SORT" (2022).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

WIDTH = 480  # pixels that a picture is shrunk to
MIN_CORNERS = 10


class Camera:
    """Estimates the camera's motion from frame to frame: `camera(image, boxes) -> (2, 3)`."""

    def __init__(self) -> None:
        self.before: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, image: Tensor, boxes: Tensor) -> Tensor:
        """The affine from the previous frame's pixels to this frame's, the identity on the first one or when in doubt.

        image: (3, H, W) uint8 RGB. boxes: (N, 4) xyxy pixels of what moves by itself and is not looked at.
        """
        green = image[1].numpy()  # close to brightness, and no conversion
        scale = min(1.0, WIDTH / green.shape[1])
        picture = cv2.resize(green, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        affine = np.eye(2, 3)
        if self.before is not None and self.before[0].shape == picture.shape and len(self.before[1]) >= MIN_CORNERS:
            affine = _fit(*self.before, picture)
        self.before = picture, _corners(picture, (boxes * scale).round().int().tolist())
        affine[:, 2] /= scale
        return torch.from_numpy(affine).float()


def _corners(picture: np.ndarray, boxes: list[list[int]]) -> np.ndarray:
    """(P, 1, 2) points of the background that can be followed."""
    mask = np.full_like(picture, 255)
    for x1, y1, x2, y2 in boxes:
        mask[max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)] = 0
    points = cv2.goodFeaturesToTrack(picture, maxCorners=120, qualityLevel=0.01, minDistance=8, mask=mask)
    return np.empty((0, 1, 2), np.float32) if points is None else points


def _fit(picture: np.ndarray, points: np.ndarray, later: np.ndarray) -> np.ndarray:
    """(2, 3) the similarity that most of the points followed."""
    moved, found, _ = cv2.calcOpticalFlowPyrLK(picture, later, points, points.copy(), winSize=(15, 15), maxLevel=3)
    kept = found[:, 0] > 0
    if kept.sum() < MIN_CORNERS:
        return np.eye(2, 3)
    affine, inliers = cv2.estimateAffinePartial2D(
        points[kept], moved[kept], method=cv2.RANSAC, ransacReprojThreshold=1.0
    )
    return affine if affine is not None and inliers.sum() >= MIN_CORNERS else np.eye(2, 3)
