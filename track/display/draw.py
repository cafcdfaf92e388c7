"""What a person looks at: boxes, ids and trails on the picture, in colours that stay with the id."""

from __future__ import annotations

import colorsys
from collections import deque
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from track.geometry import foot_points
from track.structures import Tracks

Colour = tuple[int, int, int]
DARK, LIGHT = (30, 30, 30), (255, 255, 255)


class Trails:
    """The last `length` foot points of every track that was seen lately."""

    def __init__(self, length: int = 40) -> None:
        self.length = length
        self.points: dict[int, deque[tuple[float, float]]] = {}
        self.absent: dict[int, int] = {}

    def add(self, tracks: Tracks) -> None:
        """Remember a frame's tracks; one that was away for `length` frames is forgotten."""
        for identity, (x, y) in zip(tracks.ids.tolist(), foot_points(tracks.boxes).tolist(), strict=True):
            self.points.setdefault(identity, deque(maxlen=self.length)).append((x, y))
            self.absent[identity] = -1
        self.absent = {identity: frames + 1 for identity, frames in self.absent.items() if frames < self.length}
        self.points = {identity: points for identity, points in self.points.items() if identity in self.absent}


def colour_of(identity: int) -> Colour:
    """RGB of an id, the same always; neighbours differ by the golden ratio on the wheel of hues."""
    hue = identity * 0.61803398875 % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75 if identity % 2 else 0.95, 1.0 if identity % 3 else 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(
    image: Tensor,
    tracks: Tracks,
    trails: Trails | None = None,
    text: str | None = None,
    captions: Sequence[str] | None = None,
) -> Tensor:
    """A new (3, H, W) uint8 RGB image: the given one with boxes, ids, trails and a line of text at the top left.

    captions: what to write on each box, in place of its id.
    """
    canvas = _canvas(image)
    unit = _unit(canvas)
    for identity, points in (trails.points if trails else {}).items():
        _trail(canvas, list(points), colour_of(identity), unit)
    ids = tracks.ids.tolist()
    columns = ids, captions or map(str, ids), tracks.boxes.round().int().tolist()
    for identity, caption, box in zip(*columns, strict=True):
        cv2.rectangle(canvas, tuple(box[:2]), tuple(box[2:]), colour_of(identity), 2 * unit)
        _label(canvas, caption, box[0], box[1], colour_of(identity), unit)
    if text:
        _label(canvas, text, 0, 0, DARK, unit)
    return torch.from_numpy(canvas).permute(2, 0, 1)


def draw_regions(image: Tensor, regions: Mapping[str, Tensor]) -> Tensor:
    """A new image with lines (2, 2) and zones (P, 2), corners in pixels, each with its text, the mapping's key; the
    same one where there are none. An arrow in the middle of a line points to the side that is entered."""
    if not regions:
        return image
    canvas = _canvas(image)
    unit = _unit(canvas)
    for text, corners in regions.items():
        points = corners.round().int().numpy()
        cv2.polylines(canvas, [points], len(points) > 2, LIGHT, unit, cv2.LINE_AA)
        if len(points) == 2:
            (x, y), (dx, dy) = points.mean(0), points[1] - points[0]
            reach = 20 * unit / max(1.0, float(np.hypot(dx, dy)))
            tip = round(x - reach * dy), round(y + reach * dx)
            cv2.arrowedLine(canvas, (round(x), round(y)), tip, LIGHT, 2 * unit, cv2.LINE_AA, tipLength=0.4)
        _label(canvas, text, int(points[0, 0]), int(points[0, 1]), DARK, unit)
    return torch.from_numpy(canvas).permute(2, 0, 1)


def draw_text(image: Tensor, lines: Sequence[str]) -> Tensor:
    """A new image with lines of text in its lower left corner; the same one where there are none."""
    if not lines:
        return image
    canvas = _canvas(image)
    unit = _unit(canvas)
    for row, line in enumerate(reversed(lines)):
        _label(canvas, line, 0, canvas.shape[0] - 18 * unit * row, DARK, unit)
    return torch.from_numpy(canvas).permute(2, 0, 1)


class TrajectoryImage:
    """Where everybody went: a picture of all foot points so far, however long the video is."""

    def __init__(self) -> None:
        self.canvas = np.zeros((0, 0, 3), np.uint8)
        self.feet: dict[int, tuple[int, int]] = {}

    def add(self, tracks: Tracks, image: Tensor) -> None:
        """Draw on from where each of a frame's tracks was in the frame before; image: the frame."""
        if self.canvas.shape[:2] != image.shape[1:]:
            self.canvas, self.feet = np.zeros((*image.shape[1:], 3), np.uint8), {}
        columns = tracks.ids.tolist(), foot_points(tracks.boxes).round().int().tolist()
        places = {identity: (x, y) for identity, (x, y) in zip(*columns, strict=True)}
        for identity, here in places.items():
            ink, unit = colour_of(identity), _unit(self.canvas)
            cv2.line(self.canvas, self.feet.get(identity, here), here, ink, 2 * unit, cv2.LINE_AA)
        self.feet = places

    def over(self, image: Tensor) -> Tensor:
        """The paths over a dimmed (3, H, W) uint8 RGB image."""
        if self.canvas.shape[:2] != image.shape[1:]:
            return image
        paths = torch.from_numpy(self.canvas).permute(2, 0, 1)
        return torch.where(paths.amax(0) > 0, paths, (0.5 * image).byte())


def draw_heat(image: Tensor, heatmap: Tensor) -> Tensor:
    """A new image under its heatmap (h, w), any unit, on a square root scale: blue is little, red is most."""
    blurred = cv2.GaussianBlur(heatmap.float().numpy(), (0, 0), 1.5)
    level = np.sqrt(blurred / max(1e-9, float(blurred.max())))
    grown = cv2.resize(level, (image.shape[2], image.shape[1]), interpolation=cv2.INTER_CUBIC).clip(0, 1)[..., None]
    heat = cv2.applyColorMap((255 * grown).round().astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    share = 0.75 * np.minimum(1, 4 * grown)
    mixed = (1 - share) * 0.7 * _canvas(image) + share * heat
    return torch.from_numpy(mixed.round().astype(np.uint8)).permute(2, 0, 1)


def _canvas(image: Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy().copy())


def _unit(canvas: np.ndarray) -> int:
    """Width of a line, pixels."""
    return max(1, round(min(canvas.shape[:2]) / 360))


def _trail(canvas: np.ndarray, points: list[tuple[float, float]], colour: Colour, unit: int) -> None:
    for age, (a, b) in enumerate(zip(points[-2::-1], points[:0:-1], strict=True)):
        fade = 1 - age / len(points)
        (x1, y1), (x2, y2) = a, b
        ink = [round(fade * part) for part in colour]
        cv2.line(canvas, (round(x1), round(y1)), (round(x2), round(y2)), ink, unit, cv2.LINE_AA)


def _label(canvas: np.ndarray, text: str, left: int, bottom: int, colour: Colour, unit: int) -> None:
    """Text on a filled box that stands on (left, bottom), pushed inside the picture."""
    scale = 0.4 * unit
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, unit)
    bottom, left = max(bottom, height + 4 * unit), max(0, min(left, canvas.shape[1] - width - 4 * unit))
    cv2.rectangle(canvas, (left, bottom - height - 4 * unit), (left + width + 4 * unit, bottom), colour, cv2.FILLED)
    ink = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
    where = left + 2 * unit, bottom - 2 * unit
    cv2.putText(canvas, text, where, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, unit, cv2.LINE_AA)
