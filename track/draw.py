"""What a person looks at: boxes, ids and trails on the picture, in colours that stay with the id."""

from __future__ import annotations

import colorsys
from collections import deque

import cv2
import numpy as np
import torch
from torch import Tensor

from track.structures import Tracks

Colour = tuple[int, int, int]


class Trails:
    """The last `length` foot points of every track that was seen lately."""

    def __init__(self, length: int = 40) -> None:
        self.length = length
        self.points: dict[int, deque[tuple[float, float]]] = {}
        self.absent: dict[int, int] = {}

    def add(self, tracks: Tracks) -> None:
        """Remember a frame's tracks; one that was away for `length` frames is forgotten."""
        for identity, (x1, _, x2, y2) in zip(tracks.ids.tolist(), tracks.boxes.tolist(), strict=True):
            self.points.setdefault(identity, deque(maxlen=self.length)).append(((x1 + x2) / 2, y2))
            self.absent[identity] = -1
        self.absent = {identity: frames + 1 for identity, frames in self.absent.items() if frames < self.length}
        self.points = {identity: points for identity, points in self.points.items() if identity in self.absent}


def colour_of(identity: int) -> Colour:
    """RGB of an id, the same always; neighbours differ by the golden ratio on the wheel of hues."""
    hue = identity * 0.61803398875 % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75 if identity % 2 else 0.95, 1.0 if identity % 3 else 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(image: Tensor, tracks: Tracks, trails: Trails | None = None, text: str | None = None) -> Tensor:
    """A new (3, H, W) uint8 RGB image: the given one with boxes, ids, trails and a line of text at the top left."""
    canvas = np.ascontiguousarray(image.permute(1, 2, 0).numpy().copy())
    unit = max(1, round(min(canvas.shape[:2]) / 360))  # line width, pixels
    for identity, points in (trails.points if trails else {}).items():
        _trail(canvas, list(points), colour_of(identity), unit)
    for identity, box in zip(tracks.ids.tolist(), tracks.boxes.round().int().tolist(), strict=True):
        cv2.rectangle(canvas, tuple(box[:2]), tuple(box[2:]), colour_of(identity), unit)
        _label(canvas, str(identity), box[0], box[1], colour_of(identity), unit)
    if text:
        _label(canvas, text, 0, 0, (30, 30, 30), unit)
    return torch.from_numpy(canvas).permute(2, 0, 1)


def _trail(canvas: np.ndarray, points: list[tuple[float, float]], colour: Colour, unit: int) -> None:
    for age, (a, b) in enumerate(zip(points[-2::-1], points[:0:-1], strict=True)):
        fade = 1 - age / len(points)
        (x1, y1), (x2, y2) = a, b
        ink = [round(fade * part) for part in colour]
        cv2.line(canvas, (round(x1), round(y1)), (round(x2), round(y2)), ink, unit, cv2.LINE_AA)


def _label(canvas: np.ndarray, text: str, left: int, bottom: int, colour: Colour, unit: int) -> None:
    """Text on a filled box that stands on (left, bottom), pushed inside the picture at its top."""
    scale = 0.4 * unit
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, unit)
    bottom = max(bottom, height + 4 * unit)
    cv2.rectangle(canvas, (left, bottom - height - 4 * unit), (left + width + 4 * unit, bottom), colour, cv2.FILLED)
    ink = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
    where = left + 2 * unit, bottom - 2 * unit
    cv2.putText(canvas, text, where, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, unit, cv2.LINE_AA)
