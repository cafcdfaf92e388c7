"""Scene analytics from tracks: line crossings, zone occupancy and dwell times, speeds, and a heatmap.

An object's position is its foot point, the middle of its box's lower edge, in pixels; times are seconds. While a foot
point is within 5 % of the box's height of a line or a zone's border, the object stays on the side where it was last
clearly located, so a box that jitters on the border counts at most once. `SceneAnalytics` works live or from a result
file. Its memory grows with the number of distinct ids, never with the number of frames.
"""

from __future__ import annotations

import csv
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from track.checkpoint import atomic_write
from track.geometry import foot_points
from track.structures import TrackedFrame, Tracks, class_name

BORDER_MARGIN = 0.05  # fraction of the box's height: closer to a border than that, the side is uncertain
FORGET_AFTER = 60.0  # seconds without a detection after which an id's last position is forgotten
SPEED_WINDOW = 0.5  # seconds that a speed is measured over
HEATMAP_COLUMNS = 96
EVENT_COLUMNS = ("time", "id", "class", "kind", "name", "direction")
NO_POSITION = (0.0, 0.0, 0.0, 0.0)  # the row of an id without a known position, see `Region.positions`


@dataclass(frozen=True)
class Event:
    """An object crossed a line or the border of a zone.

    time: seconds. id, label: the track's. kind, name: the line's or zone's. direction: of a line, `entered` is from its
    left to its right, see `SceneAnalytics.add_line`.
    """

    time: float
    id: int
    label: int
    kind: Literal["line", "zone"]
    name: str
    direction: Literal["entered", "left"]


class EventFile:
    """A sink that appends each frame's events to a CSV file with `EVENT_COLUMNS`.

    analytics: written to before this sink. label_names: the class name of each label. The file is created at the first
    frame with lines, zones or events. `write` raises ValueError if the file cannot be written.
    """

    def __init__(self, path: Path, analytics: SceneAnalytics, label_names: Sequence[str]) -> None:
        self.path, self.analytics, self.label_names = path, analytics, list(label_names)
        self.started = False

    def write(self, result: TrackedFrame) -> None:
        """Append the events of the analytics' last frame."""
        rows = [
            (f"{e.time:.3f}", e.id, class_name(e.label, self.label_names), e.kind, e.name, e.direction)
            for e in self.analytics.events
        ]
        try:
            if not self.started and (rows or self.analytics.lines or self.analytics.zones):
                with atomic_write(self.path) as temporary:
                    _append(temporary, [EVENT_COLUMNS, *rows])
                self.started = True
            elif rows:
                _append(self.path, rows)
        except OSError as error:
            raise ValueError(f"{self.path}: expected a file that can be written ({error.strerror})") from error


def _append(file: Path, rows: Sequence[tuple[object, ...]]) -> None:
    """Append rows, or none of them."""
    size = file.stat().st_size if file.exists() else 0
    try:
        with file.open("a", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(rows)
    except OSError:
        os.truncate(file, size)
        raise


class SceneAnalytics:
    """Counts, dwell times, speeds and a heatmap of a video, updated frame by frame and readable at any time.

    size: width and height of the image in pixels; by default those of the first frame passed to `write`. lines: ends
    (x1, y1, x2, y2) by name. zones: corners (x, y) by name. metres_per_pixel: the scale of the scene, if known. Raises
    ValueError if it is not positive, and for lines and zones as `add_line` and `add_zone` do.

    counts: number of distinct ids so far for each label; an id counts under its latest label.
    visible: number of ids in the last frame for each label.
    speeds: for each id in the last frame, its speed over its last half second, at least two positions, nan if there is
        only one; metres per second if `metres_per_pixel` is given, else pixels per second; see `speed`
        for its limitations.
    heatmap: (h, w) float64 seconds that foot points spent in each cell, 96 columns; a frame counts for the time since
        the previous one, foot points outside the image count at its edge.
    events: those of the last frame only.

    An id's position is forgotten after 60 s without a detection: if the id returns later, lines, zones and speeds treat
    it as new.
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
        self._cell_size = 1.0  # pixels
        if size is not None:
            self._create_heatmap(*size)
        self.counts: Counter[int] = Counter()
        self.visible: Counter[int] = Counter()
        self.speeds: dict[int, float] = {}
        self.events: list[Event] = []
        self._time: float | None = None
        self._labels: dict[int, int] = {}
        self._paths: dict[int, deque[tuple[float, float, float]]] = {}
        self._regions: dict[str, Region] = {}
        for name, ends in lines.items():
            self.add_line(name, ends)
        for name, points in zones.items():
            self.add_zone(name, points)

    def add_line(self, name: str, ends: Sequence[float]) -> None:
        """Count crossings of the segment from a = (x1, y1) to b = (x2, y2) from now on.

        Seen from a to b, left-to-right crossings count as `entered` and right-to-left crossings as `left`. Raises
        ValueError for ends that are not four finite numbers, a line of zero length, or a name already in use.
        """
        corners = _numbers(ends)
        if corners.shape != (4,) or not corners.isfinite().all():
            raise ValueError(f"line {name}: expected four finite numbers x1, y1, x2, y2, got {ends!r}")
        if corners[:2].equal(corners[2:]):
            raise ValueError(f"line {name}: expected two different ends, got {ends!r}")
        self._add(Region("line", name, corners.reshape(2, 2)))

    def add_zone(self, name: str, points: Sequence[Sequence[float]]) -> None:
        """Count entries into and exits from a polygon, and the time each id spends inside, from now on.

        points: three or more corners (x, y); the last one is joined to the first. An id that appears inside has not
        entered, and one that disappears inside has not left. The foot point of a box cut off by the image's edge lies
        on that edge, so let the zone extend beyond it there. Raises ValueError for fewer than three points, points that
        are not two finite numbers, a polygon without area, or a name already in use.
        """
        corners = _numbers(points)
        if corners.ndim != 2 or len(corners) < 3 or corners.shape[1] != 2 or not corners.isfinite().all():
            raise ValueError(f"zone {name}: expected three or more points of two finite numbers, got {points!r}")
        if abs(_cross(corners, corners.roll(-1, 0)).sum()) < 1e-6:
            raise ValueError(f"zone {name}: expected a polygon with an area, got {points!r}")
        self._add(Region("zone", name, corners))

    def clear(self) -> None:
        """Remove all lines and zones with their counts; everything else is kept."""
        self._regions = {}

    def write(self, result: TrackedFrame) -> None:
        """Process a frame of the pipeline; the first one sets the size of the heatmap if none was given."""
        if not len(self.heatmap):
            _, height, width = result.frame.image.shape
            self._create_heatmap(width, height)
        self.update(result.tracks, result.observation.time)

    def update(self, tracks: Tracks, time: float) -> None:
        """Process the tracks of a frame. time: seconds. Raises ValueError unless it is later than the last frame's."""
        elapsed = 0.0 if self._time is None else time - self._time
        if self._time is not None and not elapsed > 0:
            raise ValueError(f"time: expected more than the last frame's {self._time} s, got {time} s")
        self._time = time
        tracks = tracks[tracks.ids.argsort()]  # so that results do not depend on the order of rows
        self._update_counts(tracks)
        if len(self.heatmap):
            self._update_heatmap(foot_points(tracks.boxes), elapsed)
        self._update_speeds(tracks, time)
        self.events = [event for region in self._regions.values() for event in region.update(tracks, time)]

    @property
    def lines(self) -> dict[str, Tensor]:
        """The ends a and b of each line by name, (2, 2) float64 pixels."""
        return {region.name: region.corners for region in self._regions.values() if region.kind == "line"}

    @property
    def zones(self) -> dict[str, Tensor]:
        """The corners of each zone by name, (P, 2) float64 pixels."""
        return {region.name: region.corners for region in self._regions.values() if region.kind == "zone"}

    @property
    def entries(self) -> dict[str, Counter[int]]:
        """Number of entries per line and zone, by label; `entries["door"].total()` sums over labels."""
        return {name: region.entries for name, region in self._regions.items()}

    @property
    def exits(self) -> dict[str, Counter[int]]:
        """Number of exits per line and zone, by label."""
        return {name: region.exits for name, region in self._regions.items()}

    @property
    def inside(self) -> dict[str, set[int]]:
        """Ids inside each zone in the last frame."""
        return {name: self._regions[name].inside for name in self.zones}

    @property
    def dwell(self) -> dict[str, dict[int, float]]:
        """Seconds that each id has spent inside each zone; a gap in a track counts if both its ends are inside."""
        return {name: self._regions[name].dwell for name in self.zones}

    def summary(self, label_names: Sequence[str]) -> str:
        """One line of text for each class, line and zone. label_names: the class name of each label."""
        classes = (
            f"{class_name(label, label_names)}: {count} so far, {self.visible[label]} now"
            for label, count in sorted(self.counts.items())
        )
        return "\n".join([*classes, *(region.summary(label_names) for region in self._regions.values())])

    def _create_heatmap(self, width: int, height: int) -> None:
        self._cell_size = width / HEATMAP_COLUMNS
        rows = -(-height * HEATMAP_COLUMNS // width)  # rounded up
        self.heatmap = torch.zeros(rows, HEATMAP_COLUMNS, dtype=torch.float64)

    def _add(self, region: Region) -> None:
        if region.name in self._regions:
            raise ValueError(f"{region.kind} {region.name}: expected another name, this one is taken")
        self._regions[region.name] = region

    def _update_counts(self, tracks: Tracks) -> None:
        ids, labels = tracks.ids.tolist(), tracks.labels.tolist()
        self.visible = Counter(labels)
        self.counts.subtract([self._labels[identity] for identity in ids if identity in self._labels])
        self.counts = self.counts + self.visible  # adding drops labels whose count is 0
        self._labels.update(zip(ids, labels, strict=True))

    def _update_heatmap(self, points: Tensor, elapsed: float) -> None:
        height, width = self.heatmap.shape
        column, row = (points / self._cell_size).long().T
        cells = row.clamp(0, height - 1), column.clamp(0, width - 1)
        seconds = torch.full(row.shape, elapsed, dtype=torch.float64)
        self.heatmap = self.heatmap.index_put(cells, seconds, accumulate=True)

    def _update_speeds(self, tracks: Tracks, time: float) -> None:
        self._paths = {k: path for k, path in self._paths.items() if time - path[-1][0] <= FORGET_AFTER}
        for identity, (x, y) in zip(tracks.ids.tolist(), foot_points(tracks.boxes).tolist(), strict=True):
            path = self._paths.setdefault(identity, deque())
            path.append((time, x, y))
            while len(path) > 2 and path[0][0] < time - SPEED_WINDOW:
                path.popleft()
        scale = self.metres_per_pixel or 1.0
        self.speeds = {identity: scale * speed(self._paths[identity]) for identity in tracks.ids.tolist()}


def speed(path: Sequence[tuple[float, float, float]]) -> float:
    """Pixels per second along rows (time, x, y), by least squares, which averages jitter out; nan for fewer than two.

    This is the speed in the image: without perspective, so that distant objects are slow, and including camera motion.
    """
    if len(path) < 2:
        return float("nan")
    table = np.array(path, np.float64)
    spread, x, y = (table[:, 0] - table[:, 0].mean()) @ (table - table[0])
    return float(np.hypot(x, y) / spread)


def distance_to_line(points: Tensor, line: Tensor) -> Tensor:
    """(N,) signed distance of points (N, 2) to the infinite line through a and b, line (2, 2), pixels.

    Positive on the right when looking from a to b in the image, where y points down: a line drawn from left to right
    has its positive side below it.
    """
    a, b = line
    return _cross(b - a, points - a) / (b - a).norm()


def crosses(start: Tensor, end: Tensor, line: Tensor) -> Tensor:
    """(N,) bool: which straight paths from start (N, 2) to end (N, 2) cross the segment from a to b, line (2, 2).

    A point on the line belongs to its left side, so that a path in two pieces, or one across the joint of two segments,
    crosses once.
    """
    a, b = line
    changes_side = (_cross(b - a, start - a) > 0) != (_cross(b - a, end - a) > 0)
    passes_between_ends = (_cross(end - start, a - start) > 0) != (_cross(end - start, b - start) > 0)
    return changes_side & passes_between_ends


def distance_to_polygon(points: Tensor, corners: Tensor) -> Tensor:
    """(N,) distance of points (N, 2) to the nearest edge of a polygon with corners (P, 2), pixels, positive inside.

    Inside is decided by the even-odd rule: a self-intersecting polygon's doubly enclosed parts are outside.
    """
    edge = corners.roll(-1, 0) - corners  # (P, 2)
    offset = points[:, None] - corners  # (N, P, 2)
    squared_length = (edge * edge).sum(-1).clamp(min=1e-12)  # 0 for a repeated corner
    along = ((offset * edge).sum(-1) / squared_length).clamp(0, 1)  # (N, P) fraction of the edge at its nearest point
    distance = (offset - along[..., None] * edge).norm(dim=-1).amin(1)
    start_below = offset[..., 1] < 0  # (N, P) whether an edge's start lies lower in the image than the point
    end_below = (offset - edge)[..., 1] < 0
    hit = (start_below != end_below) & ((_cross(edge, offset) > 0) == end_below)  # by a ray from the point to the right
    return torch.where(hit.sum(1) % 2 == 1, distance, -distance)


@dataclass
class Region:
    """A line or zone with its counts and the last certain side of each id; the right side of a line is its inside.

    corners: (2, 2) or (P, 2) float64 pixels. entries, exits: counts for each label. inside: ids of the last frame.
    dwell: seconds for each id; total_dwell and longest_dwell: of all ids. positions: for each id (time of its last
    frame, side, x, y), where the side is 1 inside, -1 outside and 0 until first certain, and x, y is the foot point at
    which it was last certain.
    """

    kind: Literal["line", "zone"]
    name: str
    corners: Tensor
    entries: Counter[int] = field(default_factory=Counter)
    exits: Counter[int] = field(default_factory=Counter)
    inside: set[int] = field(default_factory=set)
    dwell: dict[int, float] = field(default_factory=dict)
    total_dwell: float = 0.0
    longest_dwell: float = 0.0
    positions: dict[int, Sequence[float]] = field(default_factory=dict)

    def update(self, tracks: Tracks, time: float) -> list[Event]:
        """Process a frame and return its events."""
        self.positions = {i: row for i, row in self.positions.items() if time - row[0] <= FORGET_AFTER}
        ids = tracks.ids.tolist()
        rows = [self.positions.get(identity, NO_POSITION) for identity in ids]
        before = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)
        after = self._locate(tracks, before, time)
        self.positions.update(zip(ids, after.tolist(), strict=True))
        crossed = before[:, 1] * after[:, 1] < 0
        if self.kind == "line":
            crossed &= crosses(before[:, 2:], after[:, 2:], self.corners)
        else:
            self._update_dwell(ids, before, after)
        return list(self._count_crossings(tracks[crossed], after[crossed, 1], time))

    def summary(self, label_names: Sequence[str]) -> str:
        """The counts as one line of text."""
        text = f"{self.kind} {self.name}: {_count_text(self.entries, 'entered', label_names)}, "
        text += _count_text(self.exits, "left", label_names)
        if self.kind == "zone":
            text += f", {len(self.inside)} inside now"
        if self.dwell:
            mean = self.total_dwell / len(self.dwell)
            text += f", dwell {mean:.1f} s on average, {self.longest_dwell:.1f} s at most"
        return text

    def _locate(self, tracks: Tracks, before: Tensor, time: float) -> Tensor:
        """(N, 4) new rows of `positions`; an uncertain side leaves the side and foot point of `before` (N, 4)."""
        points = foot_points(tracks.boxes).double()
        distance = (distance_to_line if self.kind == "line" else distance_to_polygon)(points, self.corners)
        margin = BORDER_MARGIN * (tracks.boxes[:, 3] - tracks.boxes[:, 1])
        certain = torch.cat([distance.sign()[:, None], points], 1)
        place = torch.where((distance.abs() > margin)[:, None], certain, before[:, 1:])
        return torch.cat([torch.full_like(place[:, :1], time), place], 1)

    def _update_dwell(self, ids: list[int], before: Tensor, after: Tensor) -> None:
        is_inside = after[:, 1] > 0
        self.inside = {identity for identity, inside in zip(ids, is_inside.tolist(), strict=True) if inside}
        seconds = torch.where(is_inside & (before[:, 1] > 0), after[:, 0] - before[:, 0], 0.0).tolist()
        for identity, elapsed in zip(ids, seconds, strict=True):
            if identity in self.inside:
                self.dwell[identity] = self.dwell.get(identity, 0.0) + elapsed
                self.total_dwell += elapsed
                self.longest_dwell = max(self.longest_dwell, self.dwell[identity])

    def _count_crossings(self, tracks: Tracks, sides: Tensor, time: float) -> Iterator[Event]:
        for identity, label, side in zip(tracks.ids.tolist(), tracks.labels.tolist(), sides.tolist(), strict=True):
            (self.entries if side > 0 else self.exits)[label] += 1
            yield Event(time, identity, label, self.kind, self.name, "entered" if side > 0 else "left")


def _cross(u: Tensor, v: Tensor) -> Tensor:
    """(...) cross product of vectors (..., 2): positive where v points to the right of u (y points down in images)."""
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _numbers(values: object) -> Tensor:
    """Nested sequences as a float64 tensor; an empty one, (0,), if they do not hold numbers of equal length."""
    try:
        return torch.from_numpy(np.array(values, np.float64))
    except (TypeError, ValueError, OverflowError):
        return torch.empty(0)


def _count_text(counter: Counter[int], verb: str, label_names: Sequence[str]) -> str:
    parts = ", ".join(f"{count} {class_name(label, label_names)}" for label, count in sorted(counter.items()))
    return f"{counter.total()} {verb}" + (f" ({parts})" if parts else "")
