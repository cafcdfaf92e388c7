"""The demo's window: what its keys and clicks do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from track.analytics import SceneAnalytics
from track.app.live.playback import Playback
from track.display.draw import draw_text
from track.display.overlay import Overlay
from track.display.window import ESCAPE, Window
from track.media.images import save_image
from track.media.video_writer import VideoWriter
from track.pipeline import Pipeline
from track.structures import TrackedFrame

HELP = """space  pause, resume
.      one frame
r      record, stop
s      save an image
t      trails
v      speeds
+ -    score threshold
l      line: click its two ends
z      zone: click its corners, z again
c      clear lines and zones
h      this help
q      quit""".splitlines()
HINTS = {"line": "click the two ends of a line", "zone": "click the corners of a zone, then z"}
SCORE_STEP = 0.05
POLL = 0.03  # seconds between key polls while there is no new frame


class WindowControls:
    """A sink that shows what an overlay drew in a window, whose keys and clicks change what is drawn and counted.

    `is_open` is False once the user quit; `wait` keeps the window alive while there is no new frame.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        overlay: Overlay,
        analytics: SceneAnalytics,
        folder: Path,
        playback: Playback | None = None,
    ) -> None:
        self.pipeline, self.overlay, self.analytics = pipeline, overlay, analytics
        self.folder, self.playback, self.window = folder, playback, Window()
        self.is_open, self.paused, self.show_help = True, False, False
        self.drawing = ""  # line, zone, or nothing
        self.recording: VideoWriter | None = None
        self.file_count = 0  # recorded and saved so far
        self.message = "h: help"
        self.lowest_score = pipeline.min_score
        self.image = torch.zeros(3, 240, 320, dtype=torch.uint8)  # the last one shown

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.window.close()
        if self.recording:
            self.recording.close()

    def write(self, result: TrackedFrame) -> None:
        """Show a frame until the next one is due, and for as long as the window is paused."""
        self.image = self.overlay.image
        if self.recording:
            self.recording.write(self.image, result.frame.time)
        seconds = 0.0 if self.playback is None else self.playback.seconds_early(result.frame)
        while self.is_open:
            key = self._poll(POLL if self.paused else seconds)
            if key == ".":
                self.paused = True
                return
            if not self.paused:
                return

    def wait(self) -> bool:
        """Show the last image a moment longer; False once the user quit."""
        self._poll(POLL)
        return self.is_open

    def _poll(self, seconds: float) -> str:
        key = self.window.show(self._annotated(), seconds)
        if self.drawing == "line" and len(self.window.clicks) >= 2:
            self._add("line")
        if key in ("q", ESCAPE):
            self.is_open = False
        self._press(key)
        return key

    def _press(self, key: str) -> None:
        actions: dict[str, Callable[[], None]] = {
            " ": self._toggle_pause,
            "r": self._record,
            "s": self._save,
            "t": self._toggle_trails,
            "v": self._toggle_speeds,
            "h": self._toggle_help,
            "+": partial(self._change_score, SCORE_STEP),
            "=": partial(self._change_score, SCORE_STEP),  # the key of +, without shift
            "-": partial(self._change_score, -SCORE_STEP),
            "l": partial(self._begin, "line"),
            "z": self._zone,
            "c": self._clear,
        }
        if key in actions:
            self.message = ""
            actions[key]()

    def _begin(self, kind: str) -> None:
        self.drawing, self.message = kind, HINTS[kind]
        self.window.clicks.clear()

    def _zone(self) -> None:
        if self.drawing == "zone":
            self._add("zone")
        else:
            self._begin("zone")

    def _clear(self) -> None:
        self.analytics.clear()
        self.drawing = ""

    def _add(self, kind: str) -> None:
        """Add a line or zone from the clicked points."""
        clicks = self.window.clicks
        name = next(name for k in count(1) if (name := f"{kind} {k}") not in self.analytics.entries)
        try:
            if kind == "line":
                self.analytics.add_line(name, [*clicks[0], *clicks[1]])
            else:
                self.analytics.add_zone(name, clicks)
            self.message = ""
        except ValueError as error:
            self.message = str(error)
        self.drawing = ""

    def _annotated(self) -> Tensor:
        lines = [*(["recording"] if self.recording else []), *(["paused"] if self.paused else [])]
        lines += [self.message] if self.message else []
        return draw_text(self.image, [*lines, *(HELP if self.show_help else [])])

    def _toggle_pause(self) -> None:
        self.paused = not self.paused

    def _toggle_help(self) -> None:
        self.show_help = not self.show_help

    def _toggle_trails(self) -> None:
        self.overlay.show_trails = not self.overlay.show_trails

    def _toggle_speeds(self) -> None:
        self.overlay.show_speeds = not self.overlay.show_speeds

    def _change_score(self, step: float) -> None:
        score = round(self.pipeline.min_score + step, 2)
        self.pipeline.min_score = min(0.95, max(self.lowest_score, score))
        self.message = f"score from {self.pipeline.min_score:.2f}"

    def _record(self) -> None:
        if self.recording:
            self.recording.close()
            self.message, self.recording = f"wrote {self.recording.path}", None
        else:
            self.recording = VideoWriter(self._next_file("recording", ".mp4"))

    def _save(self) -> None:
        self.message = f"wrote {save_image(self._next_file('image', '.png'), self.image)}"

    def _next_file(self, name: str, suffix: str) -> Path:
        self.file_count += 1
        return self.folder / f"{name}-{self.file_count}{suffix}"
