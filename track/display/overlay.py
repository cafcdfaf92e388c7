"""The annotated image of each tracked frame: boxes, captions, trails, lines and zones, and a status line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isnan
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from track.analytics import SceneAnalytics
from track.display.draw import Trails, TrajectoryImage, draw, draw_heat, draw_regions
from track.media.images import save_image
from track.media.video_writer import VideoWriter
from track.structures import TrackedFrame, Tracks, class_name


class Overlay:
    """A sink that draws each frame with its tracks; `image` is the last one, (3, H, W) uint8 RGB.

    label_names: the class name of each label. analytics: written to before this sink; its lines, zones and speeds are
    drawn. status: called at each frame for the line of text at the top. `show_trails` and `show_speeds` may be changed
    between frames; speeds are shown from the start if the analytics measure metres.
    """

    def __init__(
        self, label_names: Sequence[str], analytics: SceneAnalytics, status: Callable[[], str] | None = None
    ) -> None:
        self.label_names, self.analytics, self.status = list(label_names), analytics, status
        self.show_trails, self.show_speeds = True, analytics.metres_per_pixel is not None
        self.image = torch.zeros(3, 240, 320, dtype=torch.uint8)
        self._background: Tensor | None = None  # the last frame's image, without drawings
        self._trails, self._trajectories = Trails(), TrajectoryImage()

    def write(self, result: TrackedFrame) -> None:
        """Draw a frame."""
        image, tracks = result.frame.image, result.tracks
        self._trails.add(tracks)
        self._trajectories.add(tracks, image)
        self._background = image
        annotated = draw_regions(image, region_captions(self.analytics))
        trails = self._trails if self.show_trails else None
        status = None if self.status is None else self.status()
        self.image = draw(annotated, tracks, trails, status, self._captions(tracks))

    def save(self, folder: Path, suffix: str = "") -> list[Path]:
        """Write heatmap.png and trajectories.png over the last frame; before the first frame, write nothing.

        suffix: appended to the names. Returns the paths. Raises ValueError if a file cannot be written.
        """
        if self._background is None:
            return []
        heatmap = draw_heat(self._background, self.analytics.heatmap)
        trajectories = self._trajectories.over(self._background)
        return [
            save_image(folder / f"heatmap{suffix}.png", heatmap),
            save_image(folder / f"trajectories{suffix}.png", trajectories),
        ]

    def _captions(self, tracks: Tracks) -> list[str]:
        speed_format = "  {:.0f} px/s" if self.analytics.metres_per_pixel is None else "  {:.1f} m/s"
        captions = []
        for identity, label in zip(tracks.ids.tolist(), tracks.labels.tolist(), strict=True):
            caption = f"{class_name(label, self.label_names)} {identity}"
            speed = self.analytics.speeds.get(identity, float("nan"))
            if self.show_speeds and not isnan(speed):
                caption += speed_format.format(speed)
            captions.append(caption)
        return captions


class OverlayWriter:
    """A sink that writes an overlay's images to an mp4; the overlay comes earlier among the sinks.

    Raises ValueError as `VideoWriter` does.
    """

    def __init__(self, path: str | Path, frame_rate: float, overlay: Overlay) -> None:
        self.video, self.overlay = VideoWriter(path, frame_rate), overlay

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, result: TrackedFrame) -> None:
        """Append the overlay's image of the frame."""
        self.video.write(self.overlay.image, result.frame.time)

    def close(self) -> None:
        """Finish the file."""
        self.video.close()


def region_captions(analytics: SceneAnalytics) -> dict[str, Tensor]:
    """The corners of each line (2, 2) and zone (P, 2), pixels, by its caption with the counts so far."""
    lines = {
        f"{name}: {analytics.entries[name].total()} in, {analytics.exits[name].total()} out": corners
        for name, corners in analytics.lines.items()
    }
    zones = {f"{name}: {len(analytics.inside[name])} inside": corners for name, corners in analytics.zones.items()}
    return lines | zones
