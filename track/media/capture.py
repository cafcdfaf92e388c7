"""Cameras and streams: captured on a separate thread, so that the next frame is always the newest one.

A slow consumer drops frames rather than accumulating latency. The tracker predicts in seconds, so all it needs to know
is when a frame was captured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Condition, Event, Thread

import cv2
from torch import Tensor

from track.media.images import to_rgb
from track.structures import Frame

STALLED = 5.0  # seconds without a frame after which a stream counts as broken
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before the next attempt to reconnect, doubled each time
TIMEOUTS = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 1000 * int(STALLED), cv2.CAP_PROP_READ_TIMEOUT_MSEC, 1000 * int(STALLED)]
IDLE_INTERVAL = 0.1  # seconds between two calls of `idle` while there is no new frame
Report = Callable[[str], None]


class LiveCapture:
    """A `VideoSource` that yields the newest frame of a camera (its index) or stream (its URL).

        with closing(LiveCapture("rtsp://...", report=print)) as source:
            for frame in source:
                ...                             # frame.time: seconds since the first frame was captured

    Frame numbers count captured frames; `skipped` is the number of those never yielded. A source that ends, stalls for
    5 s or is unplugged is reopened after 0.5, 1, 2, ... 30 s, each time with a line to `report`. While there is no new
    frame, `idle` is called ten times a second; returning False ends the iteration, as `stop` and `close` do.

    Raises ValueError if the source cannot be opened.
    """

    is_live = True
    frame_count = None
    frame_rate = 30.0

    def __init__(
        self,
        source: str | int,
        report: Report | None = None,
        idle: Callable[[], bool] | None = None,
    ) -> None:
        self.source, self.name = source, source_name(source)
        self.report, self.idle = report or (lambda line: None), idle or (lambda: True)
        self.skipped = 0
        self._start: float | None = None  # when the first frame was captured, on the monotonic clock
        self._newest: Frame | None = None
        self._error: BaseException | None = None
        self._has_new, self._ended = Condition(), Event()
        self._thread = Thread(target=self._capture, args=(_open_capture(source),), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Frame]:
        self.skipped = 0  # frames captured before the consumer was ready do not count
        while not self._ended.is_set():
            with self._has_new:
                self._has_new.wait_for(lambda: self._newest is not None or self._ended.is_set(), timeout=IDLE_INTERVAL)
                frame, self._newest = self._newest, None
            if frame is not None:
                yield frame
            elif not self.idle():
                break
        if self._error is not None:
            raise self._error

    def age(self, frame: Frame) -> float:
        """Seconds since the frame was captured."""
        return time.monotonic() - (self._start or 0.0) - frame.time

    def without_pixels(self) -> LiveCapture:
        """See `VideoSource`: the source itself, as live frames are captured with their pixels anyway."""
        return self

    def stop(self) -> None:
        """End the iteration without waiting for the capture thread."""
        self._ended.set()

    def close(self) -> None:
        """Stop capturing and release the device or stream."""
        self._ended.set()
        self._thread.join(2 * STALLED)

    def _capture(self, video: cv2.VideoCapture) -> None:
        try:
            self._read(video)
        except BaseException as error:  # raised again where the frames are consumed
            self._error = error
            self._ended.set()

    def _read(self, video: cv2.VideoCapture) -> None:
        wait = FIRST_WAIT
        number = 0
        try:
            while not self._ended.is_set():
                success, array = video.read()
                if success:
                    number += 1
                    wait = FIRST_WAIT
                    self._publish(to_rgb(array), number)
                    continue
                video.release()
                self.report(f"{self.name}: no more frames, trying again in {wait:g} s")
                if self._ended.wait(wait):
                    return
                wait = min(2 * wait, LONGEST_WAIT)
                video = _new_capture(self.source)
        finally:
            video.release()

    def _publish(self, image: Tensor, number: int) -> None:
        now = time.monotonic()
        self._start = now if self._start is None else self._start
        with self._has_new:
            self.skipped += self._newest is not None
            self._newest = Frame(image, now - self._start, number)
            self._has_new.notify()


def source_name(source: str | int | Path) -> str:
    """The name of a source in messages: its URL without user, password and query, or "camera 0", or its path.

    Everything before the last "@" is removed, as passwords may contain any character.
    """
    if is_camera(source):
        return f"camera {source}"
    if not is_url(source):
        return str(source)
    scheme, _, rest = str(source).partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}".split("?")[0]


def is_camera(source: str | int | Path) -> bool:
    """Whether a source is the index of a camera."""
    return str(source).isdecimal()


def is_url(source: str | int | Path) -> bool:
    """Whether a source is a URL rather than a path."""
    return "://" in str(source)


def silence_opencv() -> None:
    """Stop OpenCV and FFmpeg from writing to stderr; meant for applications, which report errors themselves."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def _open_capture(source: str | int) -> cv2.VideoCapture:
    video = _new_capture(source)
    if not video.isOpened():
        raise ValueError(f"{source_name(source)}: {'cannot be opened' if is_camera(source) else 'expected a video'}")
    return video


def _new_capture(source: str | int) -> cv2.VideoCapture:
    if is_url(source):
        return cv2.VideoCapture(str(source), cv2.CAP_FFMPEG, TIMEOUTS)
    return cv2.VideoCapture(int(str(source)) if is_camera(source) else str(source))
