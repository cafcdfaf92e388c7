"""What a command prints while it works: a bar of frames, lines above it, and the count of frames that were skipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from track.media.capture import Report


def progress_bar() -> Progress:
    """A bar of frames, to be entered when the first one is: an error before leaves no empty line."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def print_line(progress: Progress, line: str) -> None:
    """Print a line above the progress bar, as it is."""
    progress.console.print(line, soft_wrap=True, markup=False, highlight=False)


@contextmanager
def unreadable_frames(on_error: str) -> Iterator[Report | None]:
    """The callback for unreadable frames: None with on_error=stop; with skip, frames are counted and the total is
    printed."""
    lines: list[str] = []
    try:
        yield lines.append if on_error == "skip" else None
    finally:
        if lines:
            print(f"skipped: {len(lines)}, the first: {lines[0]}")
