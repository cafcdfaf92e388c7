"""Video files, local or on a web server: frames with the file's own times, and whether the end of the file is missing.

Containers state lengths and rates that are often wrong. Only what was decoded counts; a stated length is doubted unless
the file is damaged as well.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import av
import torch
from av.container import InputContainer
from av.error import EOFError, FFmpegError
from av.video.reformatter import VideoReformatter
from torch import Tensor

from track.media.capture import STALLED, Report, is_url, source_name
from track.structures import Frame

CLOCK_RESET = 1.0  # seconds by which a timestamp goes back if the clock was started again
MP4_BOXES = (b"ftyp", b"styp", b"sidx", b"free", b"skip", b"wide", b"uuid", b"moov", b"moof", b"mdat")
EBML_ELEMENTS = (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67")  # the header and the segment of mkv and webm
UNKNOWN_RIFF_LENGTHS = (0, 2**32 - 1)  # of an avi that was never finished


class VideoFile:
    """A video file, local or on a web server.

    Times are the file's own, in seconds since the first frame, also if the frame rate varies; a frame without a time,
    or with one that does not increase, comes one frame interval after the frame before it. Images are rotated as the
    file says. If the resolution changes, the first one is kept. Packets that cannot be decoded are passed over.

    report: receives a line if frames are missing in a damaged file; by default that raises ValueError after the last
    frame.
    container: the open file, if it is open already; the first iteration uses it, later ones open the file again.
    is_one_of_several: whether a folder of videos was named, so that a file beside it may be another video's, and this
    one is not held open until it is iterated. Raises ValueError if the file cannot be opened or is no video.
    """

    is_live = False
    selection = "all"

    def __init__(
        self,
        path: str | Path,
        report: Report | None = None,
        container: InputContainer | None = None,
        pixels: bool = True,
        is_one_of_several: bool = False,
    ) -> None:
        self.path, self.report, self.pixels = path, report or refuse, pixels
        self.is_one_of_several = is_one_of_several
        self._container: InputContainer | None = container or open_video(path)
        self.footage = Path(source_name(path))
        self.name = self.footage.stem
        stream = _video_stream(self._container)
        self.frame_count = stream.frames or None  # None for mkv and webm, which state none
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        self.frame_rate = rate if 0 < rate < 1000 else 30.0
        if is_one_of_several:
            self.close()

    def __iter__(self) -> Iterator[Frame]:
        container = self._container or open_video(self.path)
        self._container = None
        number = 0
        decoder = _Decoder(container)
        clock = FrameClock(1 / self.frame_rate)
        convert = _Converter()
        try:
            for number, frame in enumerate(decoder, 1):
                time = clock.time(decoder.timestamp(frame))
                yield Frame(convert(frame), time, number) if self.pixels else _blank(frame, time, number)
        finally:
            container.close()
        if number == 0:
            raise ValueError(f"{source_name(self.path)}: expected a video, no frame could be read")
        self._check_end(number, decoder)

    def without_pixels(self) -> VideoFile:
        """See `VideoSource`."""
        container, self._container = self._container, None
        return VideoFile(self.path, self.report, container, False, self.is_one_of_several)

    def close(self) -> None:
        """See `VideoSource`."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _check_end(self, number: int, decoder: _Decoder) -> None:
        """Report that frames are missing after the last one was decoded, or between those that were.

        Only a damaged file is reported: edited and badly written ones too hold fewer frames than they state.
        """
        name, count = source_name(self.path), self.frame_count
        missing = count - number if count is not None else 0
        is_cut = decoder.ends_in_error or (not is_url(self.path) and is_cut_short(Path(self.path)))
        if is_cut and count is None:
            self.report(f"{name}: stopped after frame {number}, the end of the file is missing")
        elif is_cut and missing > 0:
            self.report(f"{name}: stopped after frame {number}, expected {count}")
        elif decoder.error_count and missing > max(2, 0.02 * number):
            self.report(f"{name}: {missing} of {count} frames could not be decoded")


class _Decoder:
    """The decoded frames of a container's video, in the order of presentation.

    error_count: packets passed over so far. ends_in_error: whether the container ended in an error or half a packet.
    """

    def __init__(self, container: InputContainer) -> None:
        self.container, self.stream = container, _video_stream(container)
        self.stream.thread_type = "AUTO"
        self.error_count = 0
        self.ends_in_error = False

    def __iter__(self) -> Iterator[av.VideoFrame]:
        for packet in self._packets():
            try:
                yield from self.stream.decode(packet)
            except EOFError:
                return
            except FFmpegError:
                self.error_count += 1

    def timestamp(self, frame: av.VideoFrame) -> float | None:
        """The time of a frame on the file's clock, in seconds; None if the file has none."""
        base = self.stream.time_base
        return None if frame.pts is None or base is None else float(frame.pts * base)

    def _packets(self) -> Iterator[av.Packet[av.VideoStream] | None]:
        """The packets, then None, by which the decoder is flushed."""
        try:
            for packet in self.container.demux(self.stream):
                if packet.size:
                    self.ends_in_error = packet.is_corrupt
                    yield packet
        except FFmpegError:
            self.ends_in_error = True
        yield None


class _Converter:
    """Converts decoded frames to (3, H, W) uint8 RGB, to the same values as OpenCV does."""

    def __init__(self) -> None:
        self.reformatter = VideoReformatter()  # one for all frames, as its set-up costs as much as a conversion
        self.width = 0
        self.height = 0

    def __call__(self, frame: av.VideoFrame) -> Tensor:
        self.width = self.width or frame.width
        self.height = self.height or frame.height
        rgb = self.reformatter.reformat(
            frame, self.width, self.height, format="rgb24", interpolation="BICUBIC", threads=1
        )
        image = torch.from_numpy(rgb.to_ndarray()).permute(2, 0, 1)
        turns = _quarter_turns(frame)
        return image.rot90(turns, (1, 2)) if turns else image


class FrameClock:
    """Turns timestamps into times from 0 that strictly increase. interval: seconds between frames without a time."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._start: float | None = None  # the timestamp at time 0
        self._last = -interval

    def time(self, timestamp: float | None) -> float:
        """The next frame's time, in seconds. timestamp: its own in seconds, on any clock, or None."""
        following = self._last + self.interval
        if timestamp is None:
            self._last = following
            return following
        if self._start is None:
            self._start = timestamp - following
        time = timestamp - self._start
        if time <= self._last - CLOCK_RESET:
            self._start = timestamp - following
        self._last = time if time > self._last else following
        return self._last


def open_video(path: str | Path) -> InputContainer:
    """Open a video file or URL. Raises ValueError if that fails, or if it holds no video that can be decoded."""
    name = source_name(path)
    if not is_url(path) and not Path(path).exists():
        raise ValueError(f"{name}: no such file")
    try:
        container = av.open(str(path), timeout=STALLED if is_url(path) else None)
    except (FFmpegError, OSError, ValueError) as error:
        raise ValueError(f"{name}: expected a video") from error
    if container.streams.video and container.format.name != "tty":  # as which FFmpeg draws text files
        if _video_stream(container).codec_context is not None:
            return container
        name += ": its codec is unknown"
    container.close()
    raise ValueError(f"{name}: expected a video")


def has_end(container: InputContainer) -> bool:
    """Whether a container is a file, not a stream: it states how long it is, in seconds, frames or bytes."""
    return bool(container.duration or _video_stream(container).frames or container.size > 0)


def is_cut_short(path: Path) -> bool:
    """Whether a file ends before the mp4 box, avi chunk or mkv segment does that it holds: its end is missing.

    False for other formats and for unfinished files, which state no length in bytes.
    """
    size = path.stat().st_size
    start = 0
    with path.open("rb") as file:
        while start < size:
            file.seek(start)
            length = _element_length(file.read(16))
            if start + length > size:
                return True
            if length == 0:
                return False
            start += length
    return False


def refuse(line: str) -> None:
    """The default of `report`: raise ValueError with the line."""
    raise ValueError(line)


def _video_stream(container: InputContainer) -> av.VideoStream:
    """The stream that FFmpeg considers the best, so that cover art is not taken for the video."""
    best = container.streams.best("video")
    return best if isinstance(best, av.VideoStream) else container.streams.video[0]


def _element_length(head: bytes) -> int:
    """Length in bytes of the outermost element that starts with `head` (16 bytes), or 0 if it is unknown."""
    if head[:4] == b"RIFF" and len(head) >= 8:
        (length,) = struct.unpack("<I", head[4:8])
        return 0 if length in UNKNOWN_RIFF_LENGTHS else int(length + length % 2 + 8)
    if head[:4] in EBML_ELEMENTS and len(head) >= 12 and head[4]:
        width = 9 - head[4].bit_length()  # bytes of the length, as its leading zeros say
        unknown = 2 ** (7 * width) - 1
        length = int.from_bytes(head[4 : 4 + width], "big") & unknown
        return 0 if length == unknown else 4 + width + length
    if head[4:8] in MP4_BOXES:
        (length,) = struct.unpack(">I", head[:4])
        return int.from_bytes(head[8:16], "big") if length == 1 else int(length)
    return 0


def _quarter_turns(frame: av.VideoFrame) -> int:
    """By how many quarters of a turn the file rotates its frames counterclockwise."""
    return frame.rotation // 90 % 4 if frame.rotation % 90 == 0 else 0


def _blank(frame: av.VideoFrame, time: float, number: int) -> Frame:
    height, width = (frame.width, frame.height) if _quarter_turns(frame) % 2 else (frame.height, frame.width)
    return Frame.blank(height, width, time, number)
