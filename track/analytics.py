"""What is going on in a video, from its tracks: who crosses a line, who is in a zone and how long, how fast, where.

Everything is decided at the feet, the middle of a box's lower edge, in pixels; times are seconds. Whoever is within 5 %
of the box's height of a border counts as being where he definitely was before, so a box that jitters on it counts once
at most. `SceneAnalytics` takes frame after frame, live or from a result file, and its memory grows with the ids alone.
"""

from __future__ import annotations

import csv
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from track.geometry import foot_points
from track.structures import TrackedFrame, Tracks

MARGIN = 0.05  # of the box's height: nearer to a border than that is in doubt
FORGOTTEN = 60.0  # seconds after which it is forgotten where an id was
RECENT = 0.5  # seconds that a speed is measured over
CELLS = 96  # of the heatmap, in the picture's width
EVENT_COLUMNS = ("time", "id", "class", "kind", "name", "direction")
UNKNOWN = (0.0, 0.0, 0.0, 0.0)  # when last seen; last definite side: 1 in, -1 out, 0 none yet; feet there: x, y


@dataclass(frozen=True)
class Event:
    """Somebody crossed a line or the border of a zone. time: seconds."""

    time: float
    id: int
    label: int
    kind: Literal["line", "zone"]
    name: str
    direction: Literal["entered", "left"]


class EventFile:
    """A sink that appends the events of `analytics`, which is written to before, to a CSV file.

    label_names: the class name of each label. The file is made with the first frame, where there are lines or zones by
    then, or with the first event. Raises ValueError where it cannot be written.
    """

    def __init__(self, path: Path, analytics: SceneAnalytics, label_names: Sequence[str]) -> None:
        self.path, self.analytics, self.label_names = path, analytics, list(label_names)
        self.started = False

    def write(self, result: TrackedFrame) -> None:
        """Append a frame's events."""
        events = [
            (f"{e.time:.3f}", e.id, self.label_names[e.label], e.kind, e.name, e.direction)
            for e in self.analytics.events
        ]
        if self.started and not events:
            return
        if not (events or self.analytics.lines or self.analytics.zones):
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a" if self.started else "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(events if self.started else [EVENT_COLUMNS, *events])
        except OSError as error:
            raise ValueError(f"{self.path}: expected a file that can be written ({error.strerror})") from error
        self.started = True


class SceneAnalytics:
    """Counts, dwell times, speeds and a heatmap of a video: `update` it with each frame in order, read it at any time.

    size: width and height of the picture, pixels. lines: name to (x1, y1, x2, y2). zones: name to corners (x, y).
    scale: metres in a pixel. ValueError for a scale that is not positive, and as in `add_line` and `add_zone`.

    speeds: of each id in the last frame over its last half second, two positions at least, nan of one; metres a second
    if there is a scale, else pixels a second; see `speed` for what they are not.
    counts: distinct ids so far of each label, an id under its latest; visible: those in the last frame.
    heatmap: (h, w) float64 seconds that feet were in each cell, 96 cells in the width; a frame stands for the time
    since the one before it, and feet outside the picture count at its edge. events: of the last frame.
    Where an id was is forgotten when it was not seen for 60 s; back after that, it is new to lines, zones and speeds.
    """

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        lines: Mapping[str, Sequence[float]] = {},
        zones: Mapping[str, Sequence[Sequence[float]]] = {},
        metres_per_pixel: float | None = None,
    ) -> None:
        if metres_per_pixel is not None and not _is_positive(metres_per_pixel):
            raise ValueError(f"metres_per_pixel: expected a positive number, got {metres_per_pixel}")
        self.metres_per_pixel = None if metres_per_pixel is None else float(metres_per_pixel)
        self.heatmap = torch.zeros(0, 0, dtype=torch.float64)
        self._cell = 1.0  # pixels
        if size is not None:
            self._make_heatmap(*size)
        self.counts: Counter[int] = Counter()
        self.visible: Counter[int] = Counter()
        self.speeds: dict[int, float] = {}
        self.events: list[Event] = []
        self._time: float | None = None
        self._labels: dict[int, int] = {}
        self._paths: dict[int, deque[tuple[float, float, float]]] = {}
        self._borders: dict[str, Region] = {}
        for name, ends in lines.items():
            self.add_line(name, ends)
        for name, points in zones.items():
            self.add_zone(name, points)

    def add_line(self, name: str, ends: Sequence[float]) -> None:
        """Count from now on who walks across the segment from a = (x1, y1) to b = (x2, y2).

        `entered` is walking across it from the left to the right of somebody who looks from a to b; `left` is back.
        ValueError for ends that are not four finite numbers, a line without length, a name that is taken.
        """
        corners = _numbers(ends)
        if corners.shape != (4,) or not corners.isfinite().all():
            raise ValueError(f"line {name}: expected four finite numbers x1, y1, x2, y2, got {ends!r}")
        if corners[:2].equal(corners[2:]):
            raise ValueError(f"line {name}: expected two different ends, got {ends!r}")
        self._add(Region("line", name, corners.reshape(2, 2)))

    def add_zone(self, name: str, points: Sequence[Sequence[float]]) -> None:
        """Count from now on who walks into and out of a polygon, and how long everybody is inside.

        points: three corners (x, y) or more, the last joined to the first. Whoever is first seen inside has not
        entered, whoever is last seen inside has not left. Somebody whom the picture's edge cuts off has his feet on it:
        let the zone reach beyond the edge there. ValueError for less than three points, points that are not two finite
        numbers, a polygon without area, a name that is taken.
        """
        corners = _numbers(points)
        if corners.ndim != 2 or len(corners) < 3 or corners.shape[1] != 2 or not corners.isfinite().all():
            raise ValueError(f"zone {name}: expected three or more points of two finite numbers, got {points!r}")
        if abs(_cross(corners, corners.roll(-1, 0)).sum()) < 1e-6:
            raise ValueError(f"zone {name}: expected a polygon with an area, got {points!r}")
        self._add(Region("zone", name, corners))

    def clear(self) -> None:
        """Drop all lines and zones with what they counted; the rest goes on."""
        self._borders = {}

    def write(self, result: TrackedFrame) -> None:
        """Take in one frame of the pipeline; the first one says how large the image is."""
        if not len(self.heatmap):
            _, height, width = result.frame.image.shape
            self._make_heatmap(width, height)
        self.update(result.tracks, result.observation.time)

    def update(self, tracks: Tracks, time: float) -> None:
        """Take in one frame. time: seconds, more than the last frame's; ValueError where it is not."""
        elapsed = 0.0 if self._time is None else time - self._time
        if self._time is not None and not elapsed > 0:
            raise ValueError(f"time: expected more than the last frame's {self._time} s, got {time} s")
        self._time = time
        tracks = tracks[tracks.ids.argsort()]  # so that the order of rows changes nothing
        self._count(tracks)
        if len(self.heatmap):
            self._warm(foot_points(tracks.boxes), elapsed)
        self._move(tracks, time)
        self.events = [event for border in self._borders.values() for event in border.update(tracks, time)]

    @property
    def lines(self) -> dict[str, Tensor]:
        """Ends a and b of each line, (2, 2) float64 pixels."""
        return {border.name: border.corners for border in self._borders.values() if border.kind == "line"}

    @property
    def zones(self) -> dict[str, Tensor]:
        """Corners of each zone, (P, 2) float64 pixels."""
        return {border.name: border.corners for border in self._borders.values() if border.kind == "zone"}

    @property
    def entries(self) -> dict[str, Counter[int]]:
        """How often each line and zone was entered, by label: `scene.entries["door"].total()` is all of them."""
        return {name: border.entries for name, border in self._borders.items()}

    @property
    def exits(self) -> dict[str, Counter[int]]:
        """How often each line and zone was left, by label."""
        return {name: border.exits for name, border in self._borders.items()}

    @property
    def inside(self) -> dict[str, set[int]]:
        """Ids of the last frame that are inside each zone."""
        return {name: self._borders[name].inside for name in self.zones}

    @property
    def dwell(self) -> dict[str, dict[int, float]]:
        """Seconds that each id was inside each zone; being lost counts where it was inside before and after."""
        return {name: self._borders[name].dwell for name in self.zones}

    def summary(self, categories: Sequence[str]) -> str:
        """A line of text for each class, line and zone. categories: names of the labels, which are indices of them."""
        classes = (
            f"{_name(label, categories)}: {count} so far, {self.visible[label]} now"
            for label, count in sorted(self.counts.items())
        )
        return "\n".join([*classes, *(border.summary(categories) for border in self._borders.values())])

    def _make_heatmap(self, width: int, height: int) -> None:
        self._cell = width / CELLS
        self.heatmap = torch.zeros(-(-height * CELLS // width), CELLS, dtype=torch.float64)

    def _add(self, border: Region) -> None:
        if border.name in self._borders:
            raise ValueError(f"{border.kind} {border.name}: expected another name, this one is taken")
        self._borders[border.name] = border

    def _count(self, tracks: Tracks) -> None:
        ids, labels = tracks.ids.tolist(), tracks.labels.tolist()
        self.visible = Counter(labels)
        self.counts.subtract([self._labels[identity] for identity in ids if identity in self._labels])
        self.counts = self.counts + self.visible  # without those that fell to 0
        self._labels.update(zip(ids, labels, strict=True))

    def _warm(self, points: Tensor, elapsed: float) -> None:
        height, width = self.heatmap.shape
        column, row = (points / self._cell).long().T
        where = row.clamp(0, height - 1), column.clamp(0, width - 1)
        seconds = torch.full(row.shape, elapsed, dtype=torch.float64)
        self.heatmap = self.heatmap.index_put(where, seconds, accumulate=True)

    def _move(self, tracks: Tracks, time: float) -> None:
        self._paths = {k: path for k, path in self._paths.items() if time - path[-1][0] <= FORGOTTEN}
        for identity, (x, y) in zip(tracks.ids.tolist(), foot_points(tracks.boxes).tolist(), strict=True):
            path = self._paths.setdefault(identity, deque())
            path.append((time, x, y))
            while len(path) > 2 and path[0][0] < time - RECENT:
                path.popleft()
        self.speeds = {
            identity: (self.metres_per_pixel or 1.0) * speed(self._paths[identity]) for identity in tracks.ids.tolist()
        }


def speed(path: Sequence[tuple[float, float, float]]) -> float:
    """Pixels a second along rows of time, x and y, by least squares, so that jitter averages out; nan of less than two.

    It is the speed in the picture: without perspective, far things are slow, and a camera that moves adds its own.
    """
    if len(path) < 2:
        return float("nan")
    table = np.array(path, np.float64)
    spread, x, y = (table[:, 0] - table[:, 0].mean()) @ (table - table[0])
    return float(np.hypot(x, y) / spread)


def distance_to_line(points: Tensor, line: Tensor) -> Tensor:
    """(N,) signed distance of points (N, 2) to the infinite line through a and b, line (2, 2), pixels.

    Positive on the right of somebody who looks from a to b, in the picture as it is seen (y points down): below a line
    that is drawn from left to right.
    """
    a, b = line
    return _cross(b - a, points - a) / (b - a).norm()


def crosses(start: Tensor, end: Tensor, line: Tensor) -> Tensor:
    """(N,) bool: which of the ways from start (N, 2) straight to end (N, 2) cross the segment from a to b, line (2, 2).

    A point on a line belongs to its left, so that a way in two pieces, or across a line of two pieces, crosses once.
    """
    a, b = line
    from_side_to_side = (_cross(b - a, start - a) > 0) != (_cross(b - a, end - a) > 0)
    between_the_ends = (_cross(end - start, a - start) > 0) != (_cross(end - start, b - start) > 0)
    return from_side_to_side & between_the_ends


def distance_to_polygon(points: Tensor, corners: Tensor) -> Tensor:
    """(N,) distance of points (N, 2) to the nearest edge of a polygon of corners (P, 2), pixels, positive inside.

    Inside by the even-odd rule: what edges that cross each other enclose twice is outside.
    """
    edge = corners.roll(-1, 0) - corners  # (P, 2)
    reach = points[:, None] - corners  # (N, P, 2)
    along = ((reach * edge).sum(-1) / (edge * edge).sum(-1).clamp(min=1e-12)).clamp(0, 1)  # a corner given twice: 0
    distance = (reach - along[..., None] * edge).norm(dim=-1).amin(1)
    first_below, second_below = reach[..., 1] < 0, (reach - edge)[..., 1] < 0  # which ends of the edge, than the point
    met = (first_below != second_below) & ((_cross(edge, reach) > 0) == second_below)  # by a ray to the point's right
    return torch.where(met.sum(1) % 2 == 1, distance, -distance)


@dataclass
class Region:
    """A line or a zone with what it counted, and of each id its last definite side: in is right of a line."""

    kind: Literal["line", "zone"]
    name: str
    corners: Tensor  # (2, 2) or (P, 2) float64
    entries: Counter[int] = field(default_factory=Counter)
    exits: Counter[int] = field(default_factory=Counter)
    inside: set[int] = field(default_factory=set)
    dwell: dict[int, float] = field(default_factory=dict)
    known: dict[int, Sequence[float]] = field(default_factory=dict)  # rows as UNKNOWN

    def update(self, tracks: Tracks, time: float) -> list[Event]:
        """What happened here in a frame."""
        self.known = {k: row for k, row in self.known.items() if time - row[0] <= FORGOTTEN}
        ids = tracks.ids.tolist()
        before = torch.tensor([self.known.get(k, UNKNOWN) for k in ids], dtype=torch.float64).reshape(-1, 4)
        after = self._look(tracks, before, time)
        self.known.update(zip(ids, after.tolist(), strict=True))
        turned = before[:, 1] * after[:, 1] < 0
        if self.kind == "line":
            turned &= crosses(before[:, 2:], after[:, 2:], self.corners)
        else:
            self._stay(ids, before, after)
        return list(self._cross_over(tracks[turned], after[turned, 1], time))

    def summary(self, categories: Sequence[str]) -> str:
        """A line of text."""
        text = f"{self.kind} {self.name}: {_split(self.entries, 'entered', categories)}, "
        text += _split(self.exits, "left", categories)
        if self.kind == "zone":
            text += f", {len(self.inside)} inside now"
        if self.dwell:
            mean, longest = sum(self.dwell.values()) / len(self.dwell), max(self.dwell.values())
            text += f", dwell {mean:.1f} s on average, {longest:.1f} s at most"
        return text

    def _look(self, tracks: Tracks, before: Tensor, time: float) -> Tensor:
        """(N, 4) rows as `known`: side and feet as they are now where the side is definite, else as they were."""
        points = foot_points(tracks.boxes).double()
        distance = (distance_to_line if self.kind == "line" else distance_to_polygon)(points, self.corners)
        margin = MARGIN * (tracks.boxes[:, 3] - tracks.boxes[:, 1])
        definite = torch.cat([distance.sign()[:, None], points], 1)
        place = torch.where((distance.abs() > margin)[:, None], definite, before[:, 1:])
        return torch.cat([torch.full_like(place[:, :1], time), place], 1)

    def _stay(self, ids: list[int], before: Tensor, after: Tensor) -> None:
        here = after[:, 1] > 0
        self.inside = {identity for identity, is_in in zip(ids, here.tolist(), strict=True) if is_in}
        seconds = torch.where(here & (before[:, 1] > 0), after[:, 0] - before[:, 0], 0.0).tolist()
        for identity, more in zip(ids, seconds, strict=True):
            if identity in self.inside:
                self.dwell[identity] = self.dwell.get(identity, 0.0) + more

    def _cross_over(self, tracks: Tracks, sides: Tensor, time: float) -> Iterator[Event]:
        for identity, label, side in zip(tracks.ids.tolist(), tracks.labels.tolist(), sides.tolist(), strict=True):
            (self.entries if side > 0 else self.exits)[label] += 1
            yield Event(time, identity, label, self.kind, self.name, "entered" if side > 0 else "left")


def _cross(u: Tensor, v: Tensor) -> Tensor:
    """(...) of vectors (..., 2): positive where v points to the right of u, in the picture as it is seen."""
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _numbers(values: object) -> Tensor:
    """Float64 tensor of nested sequences, (0,) of what is not numbers."""
    try:
        return torch.from_numpy(np.array(values, np.float64))
    except (TypeError, ValueError, OverflowError):
        return torch.empty(0)


def _name(label: int, categories: Sequence[str]) -> str:
    return categories[label] if 0 <= label < len(categories) else f"class {label}"


def _split(counter: Counter[int], word: str, categories: Sequence[str]) -> str:
    parts = ", ".join(f"{count} {_name(label, categories)}" for label, count in sorted(counter.items()))
    return f"{counter.total()} {word}" + (f" ({parts})" if parts else "")
