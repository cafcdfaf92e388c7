"""The window is refused without a display; with one, see tests/app/test_controls.py."""

from __future__ import annotations

import sys

import pytest
import torch

from track.display.window import show


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a window needs no display variable")
def test_without_a_display_a_window_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ValueError, match="no display to open a window on: give output="):
        show(torch.zeros(3, 8, 8, dtype=torch.uint8))
