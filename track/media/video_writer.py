"""Video files: H.264 in an mp4 that browsers play."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.error import FFmpegError
from av.video.frame import PictureType
from torch import Tensor
from torchvision.transforms.v2.functional import resize

FRAGMENT = 2.0  # seconds
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
FAST_START = {"movflags": "+faststart"}  # the index comes first, so that a browser plays the file while it loads


class VideoWriter:
    """Writes H.264 in an mp4; whatever was written plays, however the writing ends.

        with VideoWriter("out.mp4", frame_rate=25) as video:
            video.write(image)                  # (3, H, W) uint8 RGB; optionally its time in seconds

    The file is written in fragments of two seconds, each playable as soon as it is on the disk, and made one piece at
    the end. Raises ValueError where the file cannot be written, at the beginning or when the disk is full.
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
        """Append one frame. H.264 needs even sides, an odd one loses its last row or column; a frame of another size
        than the first is scaled to it."""
        if not self.count:
            self.stream.height, self.stream.width = (side // 2 * 2 for side in image.shape[1:])
        height, width = self.stream.height, self.stream.width
        if any(not 0 <= have - want <= 1 for have, want in zip(image.shape[1:], (height, width), strict=True)):
            image = resize(image, [height, width], antialias=True)
        frame = av.VideoFrame.from_ndarray(image[:, :height, :width].permute(1, 2, 0).contiguous().numpy(), "rgb24")
        self.last = max(self.last + 1e-3, time) if time is not None else self.last + self.step
        frame.pts, frame.time_base = round(self.last * 90_000), Fraction(1, 90_000)
        if self.last >= self.key + FRAGMENT:
            self.key, frame.pict_type = self.last, PictureType.I
        self._mux(frame)
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

    def _mux(self, frame: av.VideoFrame | None) -> None:
        try:
            self.file.mux(self.stream.encode(frame))
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
            with av.open(str(self.path)) as old, av.open(str(whole), "w", format="mp4", options=FAST_START) as new:
                source = old.streams.video[0]
                stream = new.add_stream_from_template(source)
                for packet in old.demux(source):
                    if packet.dts is not None:
                        packet.stream = stream
                        new.mux(packet)
            whole.replace(self.path)
        except (OSError, FFmpegError):
            whole.unlink(missing_ok=True)
