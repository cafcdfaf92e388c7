"""Cameras and streams: captured on a thread of their own, so that the newest frame is always the next one.

A slow consumer drops frames rather than accumulating latency, and since a tracker predicts in seconds it only has to be
told when a frame was captured.
"""

from __future__ import annotations

import os
import re
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
LIMITS = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 1000 * int(STALLED), cv2.CAP_PROP_READ_TIMEOUT_MSEC, 1000 * int(STALLED)]
POLL = 0.1  # seconds between two calls of `idle` while there is no new frame
Report = Callable[[str], None]


class LiveCapture:
    """The newest frame of a camera (its index) or stream (its URL), whenever one is asked for; a `VideoSource`.

        for frame in LiveCapture("rtsp://...", report=print):
            ...                                 # frame.time: seconds since the first frame was captured

    A frame's number counts the captured frames, `skipped` those that the consumer never took. A source that ends,
    stalls or is unplugged is opened again after 0.5, 1, 2, ... 30 seconds; `report` is told so in a line. While there
    is no new frame `idle` is called ten times a second; the iteration ends when it returns False, or with `close`.
    Raises ValueError where the source cannot be opened.
    """

    is_live = True
    frame_count = None
    frame_rate = 30.0

    def __init__(
        self,
        source: str | int,
        report: Report | None = None,
        idle: Callable[[], bool] | None = None,
        video: cv2.VideoCapture | None = None,
    ) -> None:
        self.source, self.name = source, source_name(source)
        self.report, self.idle = report or (lambda line: None), idle or (lambda: True)
        self.skipped = 0
        self._began: float | None = None  # of the monotonic clock
        self._newest: Frame | None = None
        self._error: BaseException | None = None
        self._fresh, self._ended = Condition(), Event()
        self._thread = Thread(target=self._capture, args=(video or open_capture(source),), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Frame]:
        self.skipped = 0  # while the consumer was not ready yet
        while not self._ended.is_set():
            with self._fresh:
                self._fresh.wait_for(lambda: self._newest is not None or self._ended.is_set(), timeout=POLL)
                frame, self._newest = self._newest, None
            if frame is not None:
                yield frame
            elif not self.idle():
                break
        if self._error is not None:
            raise self._error

    def age(self, frame: Frame) -> float:
        """Seconds since a frame was captured."""
        return time.monotonic() - (self._began or 0.0) - frame.time

    def without_pixels(self) -> LiveCapture:
        """The same source: a camera's frames exist only with their pixels."""
        return self

    def stop(self) -> None:
        """End the iteration without waiting for the capturing thread."""
        self._ended.set()

    def close(self) -> None:
        """Stop capturing."""
        self._ended.set()
        self._thread.join(2 * STALLED)

    def _capture(self, video: cv2.VideoCapture) -> None:
        try:
            self._read(video)
        except BaseException as error:  # raised where the frames are consumed, not on this thread
            self._error = error
            self._ended.set()

    def _read(self, video: cv2.VideoCapture) -> None:
        wait = FIRST_WAIT
        number = 0
        while not self._ended.is_set():
            good, array = video.read()
            if good:
                number += 1
                wait = FIRST_WAIT
                self._publish(to_rgb(array), number)
                continue
            video.release()
            self.report(f"{self.name}: no more frames, trying again in {wait:g} s")
            self._ended.wait(wait)
            wait = min(2 * wait, LONGEST_WAIT)
            video = _new_capture(self.source)
        video.release()

    def _publish(self, image: Tensor, number: int) -> None:
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        with self._fresh:
            self.skipped += self._newest is not None
            self._newest = Frame(image, now - self._began, number)
            self._fresh.notify()


def source_name(source: str | int | Path) -> str:
    """What a source is called in messages: without the user, password and query that its URL may have."""
    if is_camera(source):
        return f"camera {source}"
    return re.sub(r"//[^/]*@", "//", str(source)).split("?")[0] if is_url(source) else str(source)


def is_camera(source: str | int | Path) -> bool:
    """Whether a source is a camera's index."""
    return str(source).isdigit()


def is_url(source: str | int | Path) -> bool:
    """Whether a source is an address rather than a path."""
    return "://" in str(source)


def open_capture(source: str | int | Path) -> cv2.VideoCapture:
    """An open camera, file or stream. Raises ValueError where there is none."""
    if not is_camera(source) and not is_url(source) and not Path(str(source)).exists():
        raise ValueError(f"{source}: no such file")
    video = _new_capture(source)
    if not video.isOpened():
        raise ValueError(f"{source_name(source)}: {'not there' if is_camera(source) else 'expected a video'}")
    return video


def silence_opencv() -> None:
    """Keep OpenCV and its FFmpeg from writing to stderr, for applications that report errors themselves."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def _new_capture(source: str | int | Path) -> cv2.VideoCapture:
    if is_url(source):
        return cv2.VideoCapture(str(source), cv2.CAP_FFMPEG, LIMITS)
    return cv2.VideoCapture(int(str(source)) if is_camera(source) else str(source))
