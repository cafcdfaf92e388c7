"""Playback: the speed and latency at which a source is shown, and a progress bar where it has an end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator

from rich.markup import escape

from track.app.console.progress import print_line, progress_bar
from track.media.capture import LiveCapture
from track.media.sources import VideoSource
from track.structures import Frame, TrackedFrame

RECENT = 30  # frames that the speed is measured over


class Playback:
    """Counts and times the frames of a source on their way to the screen.

    for result in playback.results(pipeline(source)):
        ...                                 # sinks
        playback.finish(result.frame)
    """

    def __init__(self) -> None:
        self._progress = progress_bar()
        self.frame_count = 0
        self._source: VideoSource | None = None
        self._text = ""
        self._began = self._arrived = time.monotonic()
        self._finished: deque[float] = deque(maxlen=RECENT)  # when the last frames were
        self._first: tuple[float, float] | None = None  # time of the first frame, and when it arrived

    def results(self, source: VideoSource, results: Iterable[TrackedFrame]) -> Iterator[TrackedFrame]:
        """The results of a source as they arrive."""
        self._source = source
        self._began = time.monotonic()
        self._finished.append(self._began)
        if source.is_live:
            yield from map(self._arrive, results)
            return
        with self._progress:
            tracked = self._progress.track(results, source.frame_count, description=escape(source.name))
            yield from map(self._arrive, tracked)

    def print_line(self, line: str) -> None:
        """Print a line, above the progress bar."""
        print_line(self._progress, line)

    def finish(self, frame: Frame) -> None:
        """Record that a frame was processed."""
        now = time.monotonic()
        self.frame_count += 1
        speed = len(self._finished) / max(1e-9, now - self._finished[0])
        live = self._source if isinstance(self._source, LiveCapture) else None
        latency = now - self._finished[-1] if live is None else live.age(frame)
        self._finished.append(now)
        self._text = f"{speed:.0f} fps  {1000 * latency:.0f} ms" + (f"  {live.skipped} skipped" if live else "")

    def status(self) -> str:
        """Frames per second, latency and skipped frames, as a line of text."""
        return self._text

    def seconds_early(self, frame: Frame) -> float:
        """Seconds until a file's frame is due at the file's own speed; a late one delays those after it."""
        if self._source is None or self._source.is_live:
            return 0.0
        if self._first is None or frame.time - self._first[0] < self._arrived - self._first[1] - 0.5:
            self._first = frame.time, self._arrived
        return max(0.0, frame.time - self._first[0] - (time.monotonic() - self._first[1]))

    def summary(self) -> str:
        """Frame count and average speed."""
        skipped = f", {self._source.skipped} skipped" if isinstance(self._source, LiveCapture) else ""
        speed = self.frame_count / max(1e-9, time.monotonic() - self._began)
        return f"{self.frame_count} frames{skipped}, {speed:.1f} frames per second"

    def _arrive(self, result: TrackedFrame) -> TrackedFrame:
        self._arrived = time.monotonic()
        return result
