"""Cameras and streams: captured on a thread of their own, the newest frame taken, its real time told.

Whoever is slower than the camera skips frames instead of falling behind, and since a tracker predicts in seconds it
only has to be told when a frame was taken.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Condition, Event, Thread
from types import TracebackType
from typing import Self

import cv2
import numpy as np
import torch
from torch import Tensor

from track.structures import Frame

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a refusal is one line, ours
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # and not ffmpeg's

STALLED = 5.0  # seconds without a frame after which a stream counts as broken
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before it is tried again, doubled every time
LIMITS = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 1000 * int(STALLED), cv2.CAP_PROP_READ_TIMEOUT_MSEC, 1000 * int(STALLED)]


class Live:
    """The newest frame of a camera (its index) or stream (its URL), whenever one is asked for.

    with Live("rtsp://...", report=print) as live:
        for frame in live:                      # None ten times a second while there is no new one
            ...                                 # frame.time: seconds since the first one was captured

    A frame's number counts what was captured, `skipped` those that nobody took. A source that ends, stalls or is
    unplugged is tried again, after 0.5, 1, 2, ... 30 seconds, which `report` is told in a line; `close` ends it.
    ValueError where it is not there in the beginning.
    """

    def __init__(self, source: str | int, report: Callable[[str], None] | None = None) -> None:
        self.source, self.report = source, report or (lambda line: None)
        self.skipped = 0
        self.began: float | None = None  # of the monotonic clock
        self.newest: Frame | None = None
        self.error: BaseException | None = None
        self.fresh, self.ended = Condition(), Event()
        self.thread = Thread(target=self._capture, args=(open_video(source),), daemon=True)
        self.thread.start()

    def __iter__(self) -> Iterator[Frame | None]:
        while not self.ended.is_set():
            with self.fresh:
                self.fresh.wait_for(lambda: self.newest is not None or self.ended.is_set(), timeout=0.1)
                frame, self.newest = self.newest, None
            yield frame
        if self.error is not None:
            raise self.error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def age(self, frame: Frame) -> float:
        """Seconds since a frame was captured."""
        return time.monotonic() - (self.began or 0.0) - frame.time

    def close(self) -> None:
        """Stop capturing; whoever waits for a frame gets no more."""
        self.ended.set()
        self.thread.join(2 * STALLED)

    def _capture(self, video: cv2.VideoCapture) -> None:
        try:
            self._read(video)
        except BaseException as error:  # of a picture or of `report`: it is whoever takes the frames who learns of it
            self.error = error
            self.ended.set()

    def _read(self, video: cv2.VideoCapture) -> None:
        wait, number = FIRST_WAIT, 0
        while not self.ended.is_set():
            good, picture = video.read()
            if good:
                number, wait = number + 1, FIRST_WAIT
                self._publish(to_rgb(picture), number)
                continue
            video.release()
            self.report(f"{name_of(self.source)}: no more frames, trying again in {wait:g} s")
            self.ended.wait(wait)
            wait = min(2 * wait, LONGEST_WAIT)
            video = _capture_of(self.source)
        video.release()

    def _publish(self, image: Tensor, number: int) -> None:
        now = time.monotonic()
        self.began = now if self.began is None else self.began
        with self.fresh:
            self.skipped += self.newest is not None
            self.newest = Frame(image, now - self.began, number)
            self.fresh.notify()


def is_live(source: str | int | Path) -> bool:
    """Whether a source is a camera or a stream, which has no end; not a file, nor one that a web server hands out.

    ValueError where it cannot be opened.
    """
    if is_camera(source) or not str(source).startswith(("http://", "https://")):
        return is_camera(source) or "://" in str(source)
    video = open_video(source)
    count = video.get(cv2.CAP_PROP_FRAME_COUNT)
    video.release()
    return not count > 0


def name_of(source: str | int | Path) -> str:
    """What a source is called in messages: without the user, password and query that its URL may have."""
    if is_camera(source):
        return f"camera {source}"
    return re.sub(r"//[^/]*@", "//", str(source)).split("?")[0] if "://" in str(source) else str(source)


def is_camera(source: str | int | Path) -> bool:
    """Whether a source is a camera's index."""
    return str(source).isdigit()


def open_video(source: str | int | Path) -> cv2.VideoCapture:
    """An open camera, file or stream. ValueError where there is none."""
    if not is_camera(source) and "://" not in str(source) and not Path(str(source)).exists():
        raise ValueError(f"{source}: no such file")
    video = _capture_of(source)
    if not video.isOpened():
        raise ValueError(f"{name_of(source)}: {'not there' if is_camera(source) else 'expected a video'}")
    return video


def to_rgb(picture: np.ndarray) -> Tensor:
    """OpenCV's (H, W, 3) BGR picture as a (3, H, W) uint8 RGB image."""
    return torch.from_numpy(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)


def to_bgr(image: Tensor) -> np.ndarray:
    """A (3, H, W) uint8 RGB image as OpenCV's (H, W, 3) BGR picture."""
    return cv2.cvtColor(image.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2BGR)


def _capture_of(source: str | int | Path) -> cv2.VideoCapture:
    if "://" in str(source):
        return cv2.VideoCapture(str(source), cv2.CAP_FFMPEG, LIMITS)
    return cv2.VideoCapture(int(str(source)) if is_camera(source) else str(source))
