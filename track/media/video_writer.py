"""Video output: H.264 in mp4 files that browsers play."""

from __future__ import annotations

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

    While it is open, each frame is a fragment of its own, so that a killed process leaves all but the last frame
    playable; closing the file joins them. Raises ValueError if the file cannot be created, or later if a write fails
    (disk full).
    """

    def __init__(self, path: str | Path, frame_rate: float = 30.0) -> None:
        if not 0 < frame_rate <= CLOCK_RATE:
            raise ValueError(f"frame_rate: expected more than 0 and at most {CLOCK_RATE}, got {frame_rate}")
        self.path = Path(path)
        self.frame_interval = 1 / frame_rate  # seconds
        self.frame_count = 0
        self.failed = False
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
        one's is scaled to it. Raises ValueError if a side of the first one is below 2 pixels, or if the write fails.
        """
        if not self.frame_count:
            self._set_size(image)
        frame = av.VideoFrame.from_ndarray(self._fit(image).permute(1, 2, 0).contiguous().numpy(), "rgb24")
        self._time = self._time + self.frame_interval if time is None else max(self._time + 1e-3, time)
        frame.pts = round(self._time * CLOCK_RATE)
        frame.time_base = Fraction(1, CLOCK_RATE)
        if self._time >= self._key_time + KEY_INTERVAL:
            self._key_time = self._time
            frame.pict_type = PictureType.I  # where players start after a jump
        self._encode(frame)
        self.frame_count += 1

    def close(self) -> None:
        """Flush and finish the file; a second call does nothing."""
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
        self.frame_count = 0

    def _set_size(self, image: Tensor) -> None:
        _, height, width = image.shape
        if min(height, width) < 2:
            raise ValueError(f"{self.path}: expected images of at least 2 by 2 pixels, got {width} by {height}")
        self._stream.height = height // 2 * 2
        self._stream.width = width // 2 * 2

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
