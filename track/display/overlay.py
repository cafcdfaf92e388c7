"""A tracked video as people see it: boxes, captions, trails, lines and zones, and a status line on every frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from track.analytics import SceneAnalytics
from track.display.draw import Trails, TrajectoryImage, draw, draw_heat, draw_regions
from track.media.images import save_image
from track.media.video_writer import VideoWriter
from track.structures import TrackedFrame, Tracks


class Overlay:
    """Draws each frame with its tracks; a sink, whose `image` is the last frame drawn.

    label_names: the class name of each label. analytics: written to before the overlay; its lines, zones and speeds
    are drawn. status: the line of text at the top, asked for at every frame.
    """

    def __init__(
        self, label_names: Sequence[str], analytics: SceneAnalytics, status: Callable[[], str] | None = None
    ) -> None:
        self.label_names, self.analytics, self.status = list(label_names), analytics, status
        self.show_trails, self.show_speeds = True, analytics.metres_per_pixel is not None
        self.image = torch.zeros(3, 240, 320, dtype=torch.uint8)
        self._background: Tensor | None = None  # the last frame as it was filmed
        self._trails, self._trajectories = Trails(), TrajectoryImage()

    def write(self, result: TrackedFrame) -> None:
        """Draw a frame."""
        frame, tracks = result.frame.image, result.tracks
        self._trails.add(tracks)
        self._trajectories.add(tracks, frame)
        self._background = frame
        regions = draw_regions(frame, region_captions(self.analytics))
        trails = self._trails if self.show_trails else None
        status = None if self.status is None else self.status()
        self.image = draw(regions, tracks, trails, status, self._captions(tracks))

    def save(self, folder: Path, suffix: str = "") -> list[Path]:
        """Write heatmap.png and trajectories.png, with `suffix` in their names; returns the paths, none without a frame.

        Raises ValueError where they cannot be written.
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
        form = "  {:.0f} px/s" if self.analytics.metres_per_pixel is None else "  {:.1f} m/s"
        captions = []
        for identity, label in zip(tracks.ids.tolist(), tracks.labels.tolist(), strict=True):
            caption = f"{self.label_names[label]} {identity}"
            speed = self.analytics.speeds.get(identity, float("nan"))
            if self.show_speeds and speed == speed:
                caption += form.format(speed)
            captions.append(caption)
        return captions


class AnnotatedVideo:
    """A sink that writes what an overlay drew as an mp4."""

    def __init__(self, path: str | Path, frame_rate: float, overlay: Overlay) -> None:
        self.video, self.overlay = VideoWriter(path, frame_rate), overlay

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, result: TrackedFrame) -> None:
        """Append the overlay's image of this frame."""
        self.video.write(self.overlay.image, result.frame.time)

    def close(self) -> None:
        """Finish the file."""
        self.video.close()


def region_captions(analytics: SceneAnalytics) -> dict[str, Tensor]:
    """The corners of lines and zones by the caption that is drawn beside them."""
    lines = {
        f"{name}: {analytics.entries[name].total()} in, {analytics.exits[name].total()} out": corners
        for name, corners in analytics.lines.items()
    }
    zones = {f"{name}: {len(analytics.inside[name])} inside": corners for name, corners in analytics.zones.items()}
    return lines | zones
