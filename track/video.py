"""A video is something you iterate: webcams, files, folders and streams in; H.264 out; a window."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from queue import Queue
from threading import Semaphore, Thread
from types import TracebackType
from typing import Self, TypeVar, cast

import av
import cv2
import numpy as np
import torch
from torch import Tensor

from track.mot import image_files

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a refusal is one line, ours
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # and not ffmpeg's


Item = TypeVar("Item")


@dataclass(frozen=True)
class Frame:
    """One picture. image: (3, H, W) uint8 RGB. time: seconds. number: from 1."""

    image: Tensor
    time: float
    number: int


def frames(
    source: str | int | Path | list[Path], frame_rate: float = 30.0, report: Callable[[str], None] | None = None
) -> Iterator[Frame]:
    """Every frame of a webcam index, a video file, a URL, a folder of images, or a list of them.

    frame_rate: frames a second of images, which carry no times. ValueError where the source cannot be opened, an image
    cannot be read, or a video stops before its end (after the frames that could be read); with `report` the latter two
    are told to it in a line instead and passed over, and the frames after them keep their numbers.
    """
    if isinstance(source, list):
        return _images(source, frame_rate, report)
    if Path(str(source)).is_dir():
        files = image_files(Path(str(source)))
        if not files:
            raise ValueError(f"{source}: expected at least one image (jpg, png, bmp), found none")
        return _images(files, frame_rate, report)
    return _capture(source, report)


def ahead(items: Iterable[Item], depth: int = 4) -> Iterator[Item]:
    """The items, up to `depth` of which are made on another thread while one is used. An error comes in its turn."""
    made: Queue[tuple[Item | None, BaseException | None]] = Queue()
    room, source = Semaphore(depth), iter(items)
    stopped = False

    def work() -> None:
        try:
            while room.acquire() and not stopped:
                made.put((next(source), None))
        except BaseException as error:
            made.put((None, error))

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            room.release()
            yield cast(Item, item)
    finally:
        stopped = True
        room.release()
        thread.join()
        if isinstance(source, Generator):
            source.close()


def frame_count(source: str | int | Path) -> int | None:
    """How many frames a file or folder says it has; None for a camera or stream. ValueError where there is no such."""
    _is_camera(source)
    if Path(str(source)).is_dir():
        return len(image_files(Path(str(source))))
    count = int(_property(source, cv2.CAP_PROP_FRAME_COUNT)) if Path(str(source)).is_file() else 0
    return count if count > 0 else None


def frame_rate(source: str | int | Path) -> float:
    """Frames a second of a video file; 30 where it does not say."""
    rate = _property(source, cv2.CAP_PROP_FPS) if Path(str(source)).is_file() else 0.0
    return rate if 0 < rate < 1000 else 30.0


def show(image: Tensor, title: str = "track") -> bool:
    """Show a (3, H, W) uint8 RGB image in a window; False when q or Esc was pressed.

    ValueError where there is no display.
    """
    if sys.platform == "linux" and not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        raise ValueError("no display to open a window on: give output=FILE.mp4")  # Qt would abort the process
    try:
        cv2.imshow(title, _to_bgr(image))
        return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)
    except cv2.error as error:
        raise ValueError("no display to open a window on: give output=FILE.mp4") from error


class VideoWriter:
    """Writes H.264 in an mp4 that browsers play; whatever was written when the block is left can be played.

    with VideoWriter("out.mp4", frame_rate=25) as video:
        video.write(image)                      # (3, H, W) uint8 RGB; optionally its time in seconds
    """

    def __init__(self, path: str | Path, frame_rate: float = 30.0) -> None:
        self.path, self.step = Path(path), 1 / frame_rate
        self.last = -self.step
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.file = av.open(str(self.path), "w", format="mp4", options={"movflags": "+faststart"})
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: expected a file that can be written ({error})") from error
        self.stream = self.file.add_stream("libx264", rate=Fraction(frame_rate).limit_denominator(1001))
        self.stream.pix_fmt = "yuv420p"
        self.stream.codec_context.time_base = Fraction(1, 90_000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, image: Tensor, time: float | None = None) -> None:
        """Append one frame; H.264 wants even sides, an odd one loses its last row or column."""
        height, width = image.shape[1] // 2 * 2, image.shape[2] // 2 * 2
        if self.last < 0:
            self.stream.width, self.stream.height = width, height
        elif (self.stream.width, self.stream.height) != (width, height):
            raise ValueError(f"{self.path}: expected frames of one size, got {width}x{height} later")
        picture = av.VideoFrame.from_ndarray(image[:, :height, :width].permute(1, 2, 0).contiguous().numpy(), "rgb24")
        self.last = max(self.last + 1e-3, time) if time is not None else self.last + self.step
        picture.pts, picture.time_base = round(self.last * 90_000), Fraction(1, 90_000)
        self.file.mux(self.stream.encode(picture))

    def close(self) -> None:
        """Flush and finish the file; a second call does nothing."""
        if self.last >= 0:
            self.file.mux(self.stream.encode())
            self.last = -self.step
        self.file.close()


def _images(files: list[Path], rate: float, report: Callable[[str], None] | None) -> Iterator[Frame]:
    for number, file in enumerate(files, 1):
        picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if picture is None:
            (report or _refuse)(f"{file}: expected an image that can be read")
            continue
        yield Frame(_to_rgb(picture), (number - 1) / rate, number)


def _capture(source: str | int | Path, report: Callable[[str], None] | None) -> Iterator[Frame]:
    video = _open(source)
    count, rate = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT))), frame_rate(source)
    live = count == 0 and not Path(str(source)).is_file()  # a camera or a stream: its times are the clock's
    number, began, last = 0, time.monotonic(), -1.0
    try:
        while True:
            good, picture = video.read()
            if not good:
                break
            number += 1
            stamp = time.monotonic() - began if live else video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            last = stamp if stamp > last else last + 1 / rate
            yield Frame(_to_rgb(picture), last, number)
    finally:
        video.release()
    if number == 0:
        raise ValueError(f"{source}: expected a video, no frame could be read")
    if count - number > max(2, 0.02 * count):
        (report or _refuse)(f"{source}: stopped after frame {number}, expected {count}")


def _refuse(line: str) -> None:
    raise ValueError(line)


def _open(source: str | int | Path) -> cv2.VideoCapture:
    camera = _is_camera(source)
    video = cv2.VideoCapture(int(str(source)) if camera else str(source))
    if not video.isOpened():
        raise ValueError(f"camera {source}: not there" if camera else f"{source}: expected a video")
    return video


def _is_camera(source: str | int | Path) -> bool:
    """Whether the source is a camera's index. ValueError where it is a file that does not exist."""
    camera = str(source).isdigit()
    if not camera and "://" not in str(source) and not Path(str(source)).exists():
        raise ValueError(f"{source}: no such file")
    return camera


def _property(source: str | int | Path, name: int) -> float:
    video = _open(source)
    try:
        return float(video.get(name))
    finally:
        video.release()


def _to_rgb(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)


def _to_bgr(image: Tensor) -> np.ndarray:
    return cv2.cvtColor(image.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2BGR)
