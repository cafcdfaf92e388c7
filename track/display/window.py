"""A window on the screen: shows images, returns keys and clicks."""

from __future__ import annotations

import os
import sys

import cv2
from torch import Tensor

from track.media.images import to_bgr

NO_DISPLAY = "no display to open a window on: give output=FILE.mp4"
ESCAPE = "\x1b"


def has_display() -> bool:
    """Whether there is a screen to open a window on, as far as the environment tells."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class Window:
    """A window that opens with its first image.

    clicks: (x, y) image pixels of each press of the left button; the caller removes them.
    """

    def __init__(self, title: str = "track") -> None:
        self.title, self.opened = title, False
        self.clicks: list[tuple[int, int]] = []

    def show(self, image: Tensor, seconds: float = 0.0) -> str:
        """Show a (3, H, W) uint8 RGB image for `seconds` or until a key is pressed.

        Returns the key, "" if there was none, and Escape if the window was closed. Raises ValueError without a display.
        """
        if not has_display():
            raise ValueError(NO_DISPLAY)  # Qt would abort the process
        try:
            if not self.opened:
                cv2.namedWindow(self.title, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)
                cv2.setMouseCallback(self.title, self._on_mouse)
            self.opened = True
            cv2.imshow(self.title, to_bgr(image))
            key = cv2.waitKey(max(1, round(1000 * seconds)))
            closed = cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error as error:
            raise ValueError(NO_DISPLAY) from error
        if closed:
            return ESCAPE
        return chr(key & 0xFF) if key >= 0 else ""

    def close(self) -> None:
        """Close the window; a second call does nothing."""
        if self.opened:
            cv2.destroyAllWindows()
            cv2.waitKey(1)
        self.opened = False

    def _on_mouse(self, event: int, x: int, y: int, flags: int, data: object) -> None:
        if event == cv2.EVENT_LBUTTONDOWN:
            self.clicks.append((x, y))


def show(image: Tensor, title: str = "track") -> bool:
    """Show a (3, H, W) uint8 RGB image in the window with that title.

    Returns False if q or Escape was pressed or the window was closed. Raises ValueError without a display.
    """
    return Window(title).show(image) not in ("q", ESCAPE)
