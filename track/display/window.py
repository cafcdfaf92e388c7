"""A window on the screen: pictures in, keys and clicks out."""

from __future__ import annotations

import os
import sys

import cv2
from torch import Tensor

from track.media.images import to_bgr

NO_DISPLAY = "no display to open a window on: give output=FILE.mp4"
ESCAPE = "\x1b"


def has_display() -> bool:
    """Whether there is a screen to open a window on, as far as can be told."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class Window:
    """A window that is opened by its first picture.

    clicks: (x, y) pixels of the picture where the left button was pressed, until somebody takes them out.
    """

    def __init__(self, title: str = "track") -> None:
        self.title, self.opened = title, False
        self.clicks: list[tuple[int, int]] = []

    def show(self, image: Tensor, seconds: float = 0.0) -> str:
        """Show a (3, H, W) uint8 RGB image for so long, or until a key is pressed; returns the key, "" for none, and
        Escape where the window was closed. ValueError where there is no display."""
        if not has_display():
            raise ValueError(NO_DISPLAY)  # Qt would abort the process
        try:
            if not self.opened:
                cv2.namedWindow(self.title, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
                cv2.setMouseCallback(self.title, self._mouse)
            self.opened = True
            cv2.imshow(self.title, to_bgr(image))
            key = cv2.waitKey(max(1, round(1000 * seconds)))
            closed = cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error as error:
            raise ValueError(NO_DISPLAY) from error
        return ESCAPE if closed else chr(key & 0xFF) if key >= 0 else ""

    def close(self) -> None:
        """Close it; a second call does nothing."""
        if self.opened:
            cv2.destroyAllWindows()
            cv2.waitKey(1)
        self.opened = False

    def _mouse(self, event: int, x: int, y: int, flags: int, data: object) -> None:
        if event == cv2.EVENT_LBUTTONDOWN:
            self.clicks.append((x, y))


def show(image: Tensor, title: str = "track") -> bool:
    """Show a (3, H, W) uint8 RGB image in the window of that title; False when q or Escape was pressed or it was
    closed. ValueError where there is no display."""
    return Window(title).show(image) not in ("q", ESCAPE)
