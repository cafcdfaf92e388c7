"""A video as it is watched: what is detected, followed, counted and drawn, one frame after the other."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from track.analytics import Event, Scene
from track.draw import Paths, Trails, draw, draw_borders, draw_heat
from track.structures import Detections, Frame, Tracks
from track.tracker import Tracker
from track.video import save_image


class Session:
    """The tracker, trails and counts of one video: `picture, tracks = session(frame)` for each frame in order.

    detect: what sees a frame's objects. categories: names of their labels. lines, zones, scale: as `Scene` takes them.
    Whoever watches may change meanwhile `trailing` and `speeding` (whether trails and speeds are drawn),
    `tracker.min_score`, and the lines and zones of `scene`, which is there from the first frame on.
    """

    def __init__(
        self,
        detect: Callable[[Frame], Detections],
        tracker: Tracker,
        categories: Sequence[str],
        lines: Mapping[str, Sequence[float]] | None = None,
        zones: Mapping[str, Sequence[Sequence[float]]] | None = None,
        scale: float | None = None,
    ) -> None:
        self.detect, self.tracker, self.categories = detect, tracker, list(categories)
        self.scene = Scene((16, 9), lines or {}, zones or {}, scale)  # until a frame says how large it is
        self.trails, self.paths = Trails(), Paths()
        self.trailing, self.speeding = True, scale is not None
        self.events: list[Event] = []
        self.last: Frame | None = None
        self._borders = lines or {}, zones or {}, scale

    def __call__(self, frame: Frame, text: str | None = None) -> tuple[Tensor, Tracks]:
        """The frame as a (3, H, W) uint8 RGB picture with everything drawn, `text` at its top, and its tracks."""
        if self.last is None:
            self.scene = Scene((frame.image.shape[2], frame.image.shape[1]), *self._borders)
        tracks = self.tracker.update(self.detect(frame), frame.time)
        self.scene.update(tracks, frame.time)
        self.trails.add(tracks)
        self.paths.add(tracks, frame.image)
        self.events += self.scene.events
        self.last = frame
        picture = draw_borders(frame.image, borders_of(self.scene))
        return draw(picture, tracks, self.trails if self.trailing else None, text, self._captions(tracks)), tracks

    def _captions(self, tracks: Tracks) -> list[str]:
        form = "  {:.0f} px/s" if self._borders[2] is None else "  {:.1f} m/s"
        captions = []
        for identity, label in zip(tracks.ids.tolist(), tracks.labels.tolist(), strict=True):
            speed = self.scene.speeds.get(identity, float("nan")) if self.speeding else float("nan")
            captions.append(f"{self.categories[label]} {identity}" + (form.format(speed) if speed == speed else ""))
        return captions

    def summary(self) -> str:
        """Who was seen, who crossed what and how long they stayed, in lines."""
        return self.scene.summary(self.categories)

    def save(self, folder: Path, tag: str = "") -> list[Path]:
        """Write heatmap.png and trajectories.png, and events.csv where there are lines or zones, with `tag` in their
        names; returns the paths. ValueError where they cannot be written."""
        if self.last is None:
            return []
        image, files = self.last.image, []
        files.append(save_image(folder / f"heatmap{tag}.png", draw_heat(image, self.scene.heatmap)))
        files.append(save_image(folder / f"trajectories{tag}.png", self.paths.over(image)))
        if self.events or borders_of(self.scene):
            files.append(folder / f"events{tag}.csv")
            rows = [(f"{e.time:.3f}", e.id, self.categories[e.label], e.kind, e.name, e.direction) for e in self.events]
            try:
                with files[-1].open("w", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows([("time", "id", "class", "kind", "name", "direction"), *rows])
            except OSError as error:
                raise ValueError(f"{files[-1]}: expected a file that can be written ({error.strerror})") from error
        return files


def borders_of(scene: Scene) -> dict[str, Tensor]:
    """Lines and zones by what is to be written beside them."""
    lines = {
        f"{name}: {scene.entered[name].total()} in, {scene.left[name].total()} out": corners
        for name, corners in scene.lines.items()
    }
    return lines | {f"{name}: {len(scene.inside[name])} inside": corners for name, corners in scene.zones.items()}
