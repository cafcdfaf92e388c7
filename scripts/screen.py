"""The demo's window: what its keys and clicks do."""

from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from track.draw import draw_text
from track.session import Session
from track.structures import Frame
from track.video import VideoWriter, save_image
from track.window import ESCAPE, Window

HELP = """space  pause, go on
.      one frame
r      record, stop
s      picture to a file
t      trails
v      speeds
+ -    score threshold
l      line: click its two ends
z      zone: click its corners, z again
c      clear lines and zones
h      this
q      quit""".splitlines()
HINTS = {"line": "click the two ends of a line", "zone": "click the corners of a zone, then z"}
STEP = 0.05  # of the score threshold
BLINK = 0.03  # seconds between looks at the keys while paused


class Screen:
    """A session's window. `show` each picture; keys change the session, clicks draw lines and zones into its scene."""

    def __init__(self, session: Session, folder: Path) -> None:
        self.session, self.folder, self.window = session, folder, Window()
        self.paused, self.helping, self.drawing = False, False, ""  # drawing: line, zone or nothing
        self.recording: VideoWriter | None = None
        self.files = 0  # recorded and saved so far
        self.said = "h: help"
        self.floor = session.tracker.min_score
        self.picture = torch.zeros(3, 240, 320, dtype=torch.uint8)  # the last one

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.window.close()
        if self.recording:
            self.recording.close()

    def show(self, picture: Tensor, frame: Frame, seconds: float = 0.0) -> bool:
        """Show a frame's picture for at least so long, for as long as it takes while paused; False to quit."""
        self.picture = picture
        if self.recording:
            self.recording.write(picture, frame.time)
        while True:
            key = self.window.show(self._with_notes(picture), BLINK if self.paused else seconds)
            self._draw_on()
            if key in ("q", ESCAPE):
                return False
            if key == ".":
                self.paused = True
                return True
            self._press(key, picture)
            if not self.paused:
                return True

    def wait(self) -> bool:
        """Show the last picture a moment longer, since there is no new one; False to quit."""
        key = self.window.show(self._with_notes(self.picture), BLINK)
        self._draw_on()
        self._press(key, self.picture)
        return key not in ("q", ESCAPE)

    def _press(self, key: str, picture: Tensor) -> None:
        actions = {
            " ": self._pause, "r": self._record, "t": self._trails, "v": self._speeds, "h": self._help,
            "+": lambda: self._threshold(STEP), "=": lambda: self._threshold(STEP), "-": lambda: self._threshold(-STEP),
            "l": lambda: self._begin("line"), "z": self._zone, "c": self._clear, "s": lambda: self._save(picture),
        }  # fmt: skip
        if key in actions:
            self.said = ""
            actions[key]()

    def _begin(self, kind: str) -> None:
        self.drawing, self.said = kind, HINTS[kind]
        self.window.clicks.clear()

    def _zone(self) -> None:
        if self.drawing == "zone":
            self._add("zone")
        else:
            self._begin("zone")

    def _clear(self) -> None:
        self.session.scene.clear()
        self.drawing = ""

    def _draw_on(self) -> None:
        if self.drawing == "line" and len(self.window.clicks) >= 2:
            self._add("line")

    def _add(self, kind: str) -> None:
        """Make a line or zone of what was clicked."""
        scene, clicks = self.session.scene, self.window.clicks
        name = f"{kind} {1 + len(scene.entered)}"
        try:
            if kind == "line":
                scene.add_line(name, [*clicks[0], *clicks[1]])
            else:
                scene.add_zone(name, clicks)
            self.said = ""
        except ValueError as error:
            self.said = str(error)
        self.drawing = ""

    def _with_notes(self, picture: Tensor) -> Tensor:
        lines = [*(["recording"] if self.recording else []), *(["paused"] if self.paused else [])]
        lines += [self.said] if self.said else []
        return draw_text(picture, [*lines, *(HELP if self.helping else [])])

    def _pause(self) -> None:
        self.paused = not self.paused

    def _help(self) -> None:
        self.helping = not self.helping

    def _trails(self) -> None:
        self.session.trailing = not self.session.trailing

    def _speeds(self) -> None:
        self.session.speeding = not self.session.speeding

    def _threshold(self, step: float) -> None:
        tracker = self.session.tracker
        tracker.min_score = min(0.95, max(self.floor, round(tracker.min_score + step, 2)))
        self.said = f"score from {tracker.min_score:.2f}"

    def _record(self) -> None:
        if self.recording:
            self.recording.close()
            self.said, self.recording = f"wrote {self.recording.path}", None
        else:
            self.recording = VideoWriter(self._next("recording", ".mp4"))

    def _save(self, picture: Tensor) -> None:
        self.said = f"wrote {save_image(self._next('picture', '.png'), picture)}"

    def _next(self, name: str, suffix: str) -> Path:
        self.files += 1
        return self.folder / f"{name}-{self.files}{suffix}"
