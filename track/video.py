"""A video is something you iterate: webcams, files, folders and streams in; H.264 out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from queue import Queue
from threading import Semaphore, Thread
from types import TracebackType
from typing import Self, TypeVar, cast

import av
import cv2
from av.error import FFmpegError
from av.video.frame import PictureType
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from track.live import Live, is_live, name_of, open_video, to_bgr, to_rgb
from track.mot import image_files
from track.structures import Frame

FRAGMENT = 2.0  # seconds
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
AT_ONCE = {"movflags": "+faststart"}  # its index comes first, a browser plays it while it loads

Item = TypeVar("Item")


def frames(
    source: str | int | Path | list[Path], frame_rate: float = 30.0, report: Callable[[str], None] | None = None
) -> Iterator[Frame]:
    """Every frame of a video file, a folder of images, or a list of them; of a webcam (its index) or stream (its URL)
    the newest whenever one is asked for, see `track.live`.

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
    return _newest(source, report) if is_live(source) else _file(source, report)


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
    if Path(str(source)).is_dir():
        return len(image_files(Path(str(source))))
    count = 0 if is_live(source) else int(_property(source, cv2.CAP_PROP_FRAME_COUNT))
    return count if count > 0 else None


def frame_rate(source: str | int | Path) -> float:
    """Frames a second of a video file; 30 where it does not say."""
    return _plausible(0.0 if is_live(source) or Path(str(source)).is_dir() else _property(source, cv2.CAP_PROP_FPS))


class VideoWriter:
    """Writes H.264 in an mp4 that browsers play; whatever was written plays, however the writing ends.

    with VideoWriter("out.mp4", frame_rate=25) as video:
        video.write(image)                      # (3, H, W) uint8 RGB; optionally its time in seconds

    It is written in fragments of two seconds, each playable as soon as it is on the disk, and made one piece at the
    end. ValueError where the file cannot be written, at the beginning or when the disk is full.
    """

    def __init__(self, path: str | Path, frame_rate: float = 30.0) -> None:
        self.path, self.step = Path(path), 1 / frame_rate
        self.last, self.count, self.failed = -self.step, 0, False
        self.key = -FRAGMENT  # when the last key frame was, which begins a fragment
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = av.open(str(self.path), "w", format="mp4", options=FRAGMENTS)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: expected a file that can be written ({error})") from error
        self.stream = self.file.add_stream("libx264", rate=Fraction(frame_rate).limit_denominator(1001))
        self.stream.options = {"preset": "veryfast", "forced-idr": "1", "bf": "0"}
        self.stream.pix_fmt = "yuv420p"
        self.stream.codec_context.time_base = Fraction(1, 90_000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, image: Tensor, time: float | None = None) -> None:
        """Append one frame. H.264 wants even sides, an odd one loses its last row or column; a picture of another size
        than the first is scaled to it."""
        if not self.count:
            self.stream.height, self.stream.width = (side // 2 * 2 for side in image.shape[1:])
        height, width = self.stream.height, self.stream.width
        if any(not 0 <= have - want <= 1 for have, want in zip(image.shape[1:], (height, width), strict=True)):
            image = resize(image, [height, width], antialias=True)
        picture = av.VideoFrame.from_ndarray(image[:, :height, :width].permute(1, 2, 0).contiguous().numpy(), "rgb24")
        self.last = max(self.last + 1e-3, time) if time is not None else self.last + self.step
        picture.pts, picture.time_base = round(self.last * 90_000), Fraction(1, 90_000)
        if self.last >= self.key + FRAGMENT:
            self.key, picture.pict_type = self.last, PictureType.I
        self._mux(picture)
        self.count += 1

    def close(self) -> None:
        """Flush and finish the file; a second call does nothing."""
        try:
            if self.count and not self.failed:
                self._mux(None)
        finally:
            try:
                self.file.close()
            except FFmpegError as error:
                self._fail(error)
        if self.count and not self.failed:
            self._one_piece()
        self.count = 0

    def _mux(self, picture: av.VideoFrame | None) -> None:
        try:
            self.file.mux(self.stream.encode(picture))
        except FFmpegError as error:
            self._fail(error)

    def _fail(self, error: FFmpegError) -> None:
        if not self.failed:
            self.failed = True
            reason = error.strerror or error
            raise ValueError(
                f"{self.path}: could not be written on after {self.count} frames ({reason}): those before play"
            )

    def _one_piece(self) -> None:
        """Copy the fragments into a file that says how long it is; where that fails they stay, and play."""
        whole = self.path.with_suffix(".part")
        try:
            with av.open(str(self.path)) as old, av.open(str(whole), "w", format="mp4", options=AT_ONCE) as new:
                source = old.streams.video[0]
                stream = new.add_stream_from_template(source)
                for packet in old.demux(source):
                    if packet.dts is not None:
                        packet.stream = stream
                        new.mux(packet)
            whole.replace(self.path)
        except (OSError, FFmpegError):
            whole.unlink(missing_ok=True)


def save_image(path: str | Path, image: Tensor) -> Path:
    """Write a (3, H, W) uint8 RGB image as its suffix says (png, jpg), making its folder; returns the path.

    ValueError where it cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if cv2.imwrite(str(path), to_bgr(image)):
            return Path(path)
    except (OSError, cv2.error) as error:
        raise ValueError(f"{path}: expected a picture that can be written ({error})") from error
    raise ValueError(f"{path}: expected a picture that can be written")


def to_jpeg(image: Tensor) -> bytes:
    """A (3, H, W) uint8 RGB image as a JPEG file's contents."""
    return bytes(cv2.imencode(".jpg", to_bgr(image), [cv2.IMWRITE_JPEG_QUALITY, 85])[1])


def _images(files: list[Path], rate: float, report: Callable[[str], None] | None) -> Iterator[Frame]:
    for number, file in enumerate(files, 1):
        picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if picture is None:
            (report or _refuse)(f"{file}: expected an image that can be read")
            continue
        yield Frame(to_rgb(picture), (number - 1) / rate, number)


def _newest(source: str | int | Path, report: Callable[[str], None] | None) -> Iterator[Frame]:
    with Live(str(source), report) as live:
        yield from (frame for frame in live if frame is not None)


def _file(source: str | int | Path, report: Callable[[str], None] | None) -> Iterator[Frame]:
    video = open_video(source)
    count, rate = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT))), _plausible(video.get(cv2.CAP_PROP_FPS))
    number, last = 0, -1.0
    try:
        while True:
            good, picture = video.read()
            if not good:
                break
            number += 1
            stamp = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            last = stamp if stamp > last else last + 1 / rate
            yield Frame(to_rgb(picture), last, number)
    finally:
        video.release()
    if number == 0:
        raise ValueError(f"{name_of(source)}: expected a video, no frame could be read")
    if count - number > max(2, 0.02 * count):
        (report or _refuse)(f"{name_of(source)}: stopped after frame {number}, expected {count}")


def _refuse(line: str) -> None:
    raise ValueError(line)


def _plausible(rate: float) -> float:
    return rate if 0 < rate < 1000 else 30.0


def _property(source: str | int | Path, name: int) -> float:
    video = open_video(source)
    try:
        return float(video.get(name))
    finally:
        video.release()
