"""Video output: H.264 in mp4 files that browsers play."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.error import FFmpegError
from av.video.frame import PictureType
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from track.checkpoint import atomic_write

COMMENT = "written by grutrack"  # in a file's metadata
CLOCK_RATE = 90_000  # ticks per second
KEY_INTERVAL = 2.0  # seconds
FRAGMENTED = {"movflags": "frag_every_frame+empty_moov+default_base_moof", "flush_packets": "1"}
FAST_START = {"movflags": "+faststart"}  # the index comes first, so that a browser plays the file while it loads


class VideoWriter:
    """Writes H.264 to an mp4 file; the frames written so far remain playable however writing ends.

        with VideoWriter("out.mp4", frame_rate=25) as video:
            video.write(image)                  # (3, H, W) uint8 RGB; optionally its time in seconds

    A thread encodes each frame while the caller makes the next one. While the file is open, each frame is a fragment of
    its own, so that a killed process leaves all but the last two frames playable; closing the file joins them. Raises
    ValueError if the file cannot be created, or if a write fails (disk full): at the next frame, or at the end.
    """

    def __init__(self, path: str | Path, frame_rate: float = 30.0) -> None:
        if not 0 < frame_rate <= CLOCK_RATE:
            raise ValueError(f"frame_rate: expected more than 0 and at most {CLOCK_RATE}, got {frame_rate}")
        self.path = Path(path)
        self.frame_interval = 1 / frame_rate  # seconds
        self.frame_count = 0  # encoded
        self.failed = False
        self._has_size = self._is_closed = False
        self._encoder = ThreadPoolExecutor(1, "encoder")
        self._encoding: Future[None] | None = None  # of the last frame
        self._time = -self.frame_interval  # of the last frame, seconds
        self._key_time = -KEY_INTERVAL  # seconds
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = av.open(str(self.path), "w", format="mp4", options=FRAGMENTED)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: expected a file that can be written ({error})") from error
        self._file.metadata["comment"] = COMMENT
        self._stream = self._file.add_stream("libx264", rate=Fraction(frame_rate).limit_denominator(1001))
        self._stream.options = {"preset": "veryfast", "tune": "zerolatency", "forced-idr": "1"}
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, CLOCK_RATE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, image: Tensor, time: float | None = None) -> None:
        """Append a frame, (3, H, W) uint8 RGB. time: seconds; by default one frame interval after the last frame's.

        H.264 needs even sides, so an odd side loses its last row or column. An image whose size differs from the first
        one's is scaled to it. The image may be changed when this returns. Raises ValueError if a side of the first one
        is below 2 pixels, or if the frame before could not be written.
        """
        self._wait()
        if not self._has_size:
            self._set_size(image)
        frame = av.VideoFrame.from_ndarray(self._fit(image).permute(1, 2, 0).contiguous().numpy(), "rgb24")
        self._time = self._time + self.frame_interval if time is None else max(self._time + 1e-3, time)
        frame.pts = round(self._time * CLOCK_RATE)
        frame.time_base = Fraction(1, CLOCK_RATE)
        if self._time >= self._key_time + KEY_INTERVAL:
            self._key_time = self._time
            frame.pict_type = PictureType.I  # where players start after a jump
        self._encoding = self._encoder.submit(self._encode, frame)

    def close(self) -> None:
        """Flush and finish the file; a second call does nothing. Raises ValueError if that or the last frame failed."""
        if self._is_closed:
            return
        self._is_closed = True
        finishing = self._encoder.submit(self._finish)
        self._encoder.shutdown()
        try:
            self._wait()
        finally:
            finishing.result()

    def _wait(self) -> None:
        """Wait until the last frame is encoded. Raises ValueError if that failed."""
        encoding, self._encoding = self._encoding, None
        if encoding is not None:
            encoding.result()

    def _finish(self) -> None:
        try:
            if self.frame_count and not self.failed:
                self._encode(None)
        finally:
            try:
                self._file.close()
            except FFmpegError as error:
                self._fail(error)
        if self.frame_count and not self.failed:
            self._replace_fragments()

    def _set_size(self, image: Tensor) -> None:
        _, height, width = image.shape
        if min(height, width) < 2:
            raise ValueError(f"{self.path}: expected images of at least 2 by 2 pixels, got {width} by {height}")
        self._stream.height = height // 2 * 2
        self._stream.width = width // 2 * 2
        self._has_size = True

    def _fit(self, image: Tensor) -> Tensor:
        height = self._stream.height
        width = self._stream.width
        _, rows, columns = image.shape
        if rows - height not in (0, 1) or columns - width not in (0, 1):
            image = resize(image, [height, width], antialias=True)
        return image[:, :height, :width]

    def _encode(self, frame: av.VideoFrame | None) -> None:
        """Encode a frame, or flush the encoder if there is none."""
        try:
            self._file.mux(self._stream.encode(frame))
            self.frame_count += frame is not None
        except FFmpegError as error:
            self._fail(error)

    def _fail(self, error: FFmpegError) -> None:
        """Raise ValueError for the first failure; those that follow from it are not reported."""
        if not self.failed:
            self.failed = True
            reason = error.strerror or error
            raise ValueError(
                f"{self.path}: write failed after {self.frame_count} frames ({reason}); the earlier frames are playable"
            )

    def _replace_fragments(self) -> None:
        """Replace the file by an unfragmented copy, which states its length; keep the fragments if that fails."""
        with suppress(OSError, FFmpegError), atomic_write(self.path) as joined:
            _join_fragments(self.path, joined)


def _join_fragments(path: Path, joined: Path) -> None:
    with av.open(str(path)) as old, av.open(str(joined), "w", format="mp4", options=FAST_START) as new:
        source = old.streams.video[0]
        new.metadata["comment"] = COMMENT
        stream = new.add_stream_from_template(source)
        for packet in old.demux(source):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)


def is_own_video(path: str | Path) -> bool:
    """Whether a file is a video that `VideoWriter` wrote."""
    try:
        with av.open(str(path)) as file:
            return file.metadata.get("comment") == COMMENT
    except (OSError, FFmpegError):
        return False
