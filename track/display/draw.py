"""Drawing on images: boxes, ids, trails, lines, zones and heatmaps, with a fixed colour per id."""

from __future__ import annotations

import colorsys
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from track.geometry import foot_points
from track.structures import MAX_COORDINATE, Tracks

Colour = tuple[int, int, int]
FADE_STEP = 5  # points of a trail that have the same colour
DARK, LIGHT = (30, 30, 30), (255, 255, 255)


class Trails:
    """The last `length` foot points of each track detected within the last `length` frames."""

    def __init__(self, length: int = 40) -> None:
        self.length = length
        self.points: dict[int, deque[tuple[float, float]]] = {}
        self._absent: dict[int, int] = {}  # frames since the last detection

    def add(self, tracks: Tracks) -> None:
        """Add a frame's tracks and forget those absent for `length` frames."""
        for identity, (x, y) in zip(tracks.ids.tolist(), foot_points(tracks.boxes).tolist(), strict=True):
            self.points.setdefault(identity, deque(maxlen=self.length)).append((x, y))
            self._absent[identity] = -1
        self._absent = {identity: frames + 1 for identity, frames in self._absent.items() if frames < self.length}
        self.points = {identity: points for identity, points in self.points.items() if identity in self._absent}


def colour_of(identity: int) -> Colour:
    """The RGB colour of an id, always the same; consecutive ids are a golden ratio apart on the colour wheel."""
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
    """Draw boxes, ids, trails, and a line of text at the top left, on a copy of a (3, H, W) uint8 RGB image.

    captions: the text on each box; by default its id. A box that lies outside the image has none.
    """
    array = _to_array(image)
    unit = _unit(array)
    if trails:
        _draw_trails(array, trails, unit)
    ids = tracks.ids.tolist()
    columns = ids, captions or map(str, ids), _pixels(tracks.boxes), _is_inside(tracks.boxes, image).tolist()
    for identity, caption, (x1, y1, x2, y2), is_inside in zip(*columns, strict=True):
        if is_inside:
            cv2.rectangle(array, (x1, y1), (x2, y2), colour_of(identity), 2 * unit)
            _draw_label(array, caption, x1, y1, colour_of(identity), unit)
    if text:
        _draw_label(array, text, 0, 0, DARK, unit)
    return _to_image(array)


def draw_regions(image: Tensor, regions: Mapping[str, Tensor]) -> Tensor:
    """Draw lines and zones on a copy of a (3, H, W) uint8 RGB image; without any, return the image itself.

    regions: the corners of each line (2, 2) or zone (P, 2), pixels, by caption. An arrow in the middle of a line points
    in the direction that counts as an entry.
    """
    if not regions:
        return image
    array = _to_array(image)
    unit = _unit(array)
    for caption, corners in regions.items():
        points = np.array(_pixels(corners), np.int32)
        cv2.polylines(array, [points], len(points) > 2, LIGHT, unit, cv2.LINE_AA)
        if len(points) == 2:
            _draw_arrow(array, points, unit)
        _draw_label(array, caption, int(points[0, 0]), int(points[0, 1]), DARK, unit)
    return _to_image(array)


def draw_text(image: Tensor, lines: Sequence[str]) -> Tensor:
    """Draw lines of text in the lower left corner of a copy of an image; without any, return the image itself."""
    if not lines:
        return image
    array = _to_array(image)
    unit = _unit(array)
    for row, line in enumerate(reversed(lines)):
        _draw_label(array, line, 0, array.shape[0] - 18 * unit * row, DARK, unit)
    return _to_image(array)


class TrajectoryImage:
    """The paths of all foot points so far, drawn as the frames come: memory does not grow with the video."""

    def __init__(self) -> None:
        self._array = np.zeros((0, 0, 3), np.uint8)
        self._feet: dict[int, tuple[int, int]] = {}  # of the last frame

    def add(self, tracks: Tracks, image: Tensor) -> None:
        """Extend the paths to a frame's tracks. image: the frame's; another size than before starts again."""
        if self._array.shape[:2] != image.shape[1:]:
            self._array, self._feet = np.zeros((*image.shape[1:], 3), np.uint8), {}
        columns = tracks.ids.tolist(), _pixels(foot_points(tracks.boxes))
        feet = {identity: (x, y) for identity, (x, y) in zip(*columns, strict=True)}
        width = 2 * _unit(self._array)
        for identity, point in feet.items():
            start = self._feet.get(identity, point)
            cv2.line(self._array, start, point, colour_of(identity), width, cv2.LINE_AA)
        self._feet = feet

    def over(self, image: Tensor) -> Tensor:
        """The paths over a dimmed (3, H, W) uint8 RGB image; the image itself if its size is another."""
        if self._array.shape[:2] != image.shape[1:]:
            return image
        paths = _to_image(self._array)
        return torch.where(paths.amax(0) > 0, paths, (0.5 * image).byte())


def draw_heat(image: Tensor, heatmap: Tensor) -> Tensor:
    """Draw a heatmap (h, w), any unit, over a copy of an image; from blue to red on a square root scale."""
    blurred = cv2.GaussianBlur(heatmap.float().numpy(), (0, 0), 1.5)
    level = np.sqrt(blurred / max(1e-9, float(blurred.max())))
    _, height, width = image.shape
    resized = cv2.resize(level, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)[..., None]
    heat = cv2.applyColorMap((255 * resized).round().astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    opacity = 0.75 * np.minimum(1, 4 * resized)
    mixed = (1 - opacity) * 0.7 * _to_array(image) + opacity * heat
    return _to_image(mixed.round().astype(np.uint8))


def _to_array(image: Tensor) -> np.ndarray:
    """A copy of an image as an (H, W, 3) RGB array that OpenCV can draw on."""
    rows = image.permute(1, 2, 0).numpy()
    return rows.copy() if rows.flags.c_contiguous else cv2.merge([channel.numpy() for channel in image.contiguous()])


def _to_image(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).permute(2, 0, 1)


def _unit(array: np.ndarray) -> int:
    """The width of thin lines, pixels."""
    return max(1, round(min(array.shape[:2]) / 360))


def _pixels(points: Tensor) -> list[list[int]]:
    """Coordinates as OpenCV takes them, rounded: it refuses those beyond 32 bits, and what is no number."""
    limit = MAX_COORDINATE
    return torch.nan_to_num(points.double(), 0.0, limit, -limit).clamp(-limit, limit).round().int().tolist()


def _is_inside(boxes: Tensor, image: Tensor) -> Tensor:
    """(N,) bool, which boxes lie inside an image at least in part."""
    _, height, width = image.shape
    x1, y1, x2, y2 = boxes.unbind(1)
    return (x1 < width) & (y1 < height) & (x2 >= 0) & (y2 >= 0)


def _draw_trails(array: np.ndarray, trails: Trails, unit: int) -> None:
    """Draw each trail from its newest point backwards, fading in steps."""
    points = [point for trail in trails.points.values() for point in reversed(trail)]
    pixels = np.array(_pixels(torch.tensor(points, dtype=torch.float64).reshape(-1, 2)), np.int32)
    end = 0
    for identity, trail in trails.points.items():
        begin, end = end, end + len(trail)
        colour = colour_of(identity)
        for start in range(begin, end - 1, FADE_STEP):
            fade = 1 - (start - begin) / len(trail)
            faded = [round(fade * part) for part in colour]
            cv2.polylines(array, [pixels[start : min(start + FADE_STEP + 1, end)]], False, faded, unit, cv2.LINE_AA)


def _draw_arrow(array: np.ndarray, points: np.ndarray, unit: int) -> None:
    """Draw an arrow from the middle of a line (2, 2) to its right."""
    x, y = points.mean(0)
    dx, dy = points[1] - points[0]
    scale = 20 * unit / max(1.0, float(np.hypot(dx, dy)))
    tip = round(x - scale * dy), round(y + scale * dx)
    cv2.arrowedLine(array, (round(x), round(y)), tip, LIGHT, 2 * unit, cv2.LINE_AA, tipLength=0.4)


def _draw_label(array: np.ndarray, text: str, left: int, bottom: int, colour: Colour, unit: int) -> None:
    """Draw text on a filled box whose lower left corner is (left, bottom), moved inside the image if need be."""
    scale = 0.4 * unit
    width, height = _text_size(text, scale, unit)
    bottom = max(bottom, height + 4 * unit)
    left = max(0, min(left, array.shape[1] - width - 4 * unit))
    cv2.rectangle(array, (left, bottom - height - 4 * unit), (left + width + 4 * unit, bottom), colour, cv2.FILLED)
    text_colour = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
    origin = left + 2 * unit, bottom - 2 * unit
    cv2.putText(array, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, text_colour, unit, cv2.LINE_AA)


@lru_cache(4096)
def _text_size(text: str, scale: float, unit: int) -> tuple[int, int]:
    """The width and height of a text, pixels: it takes OpenCV longer than drawing it."""
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, unit)
    return width, height
