"""Video sources: files, folders of images, MOTChallenge sequences, cameras and streams, each iterated as frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from queue import Queue
from threading import Semaphore, Thread
from typing import Protocol, TypeVar, cast

from track.formats.footage import VIDEO_SUFFIXES, check_names, image_files, image_numbers
from track.formats.mot import MotSequence, find_sequences, is_sequence, read_sequence, sequence_folders
from track.formats.table import MAX_LENGTH
from track.media.capture import LiveCapture, Report, is_camera, is_url, source_name
from track.media.images import read_image
from track.media.video_file import FrameClock, has_end, open_video, refuse
from track.media.video_file import VideoFile as VideoFile
from track.structures import Frame

Item = TypeVar("Item")


class VideoSource(Protocol):
    """A video, opened once and iterated as frames."""

    @property
    def name(self) -> str:
        """The name in messages and of result files."""
        ...

    @property
    def frame_count(self) -> int | None:
        """The number of frames, or the last frame's number where numbers have gaps; None if the source states none.

        A file's is as its container states it and may be wrong.
        """
        ...

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        ...

    @property
    def is_live(self) -> bool:
        """Whether this is a camera or stream, which yields its newest frame and skips those in between."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order, numbered from 1, with increasing times in seconds."""
        ...

    def without_pixels(self) -> VideoSource:
        """The same source with blank frames, for consumers that only need numbers and times; takes this one's place."""
        ...

    def close(self) -> None:
        """Release the device or file."""
        ...


def open_source(
    source: str | int | Path,
    report: Report | None = None,
    idle: Callable[[], bool] | None = None,
    frame_rate: float = 30.0,
) -> VideoSource:
    """Open a camera (its index), a video file, a folder of images, a MOTChallenge sequence's folder, or a URL.

    report: receives a line for each frame of a file that cannot be read, which is then skipped; by default the first
    such frame raises ValueError. For live sources, report and idle are those of `LiveCapture`. frame_rate: of a folder
    of images, which states none. Raises ValueError if the source cannot be opened.
    """
    path = Path(str(source))
    if path.is_dir():
        if is_sequence(path):
            return SequenceSource(read_sequence(path), report)
        return ImageFolder(path, frame_rate, report)
    if is_camera(source):
        return LiveCapture(source if isinstance(source, int) else str(source), report, idle)
    if not is_url(source) or str(source).lower().startswith(("http:", "https:", "file:")):
        container = open_video(str(source))
        if not is_url(source) or has_end(container):
            return VideoFile(str(source), report, container)
        container.close()
    return LiveCapture(str(source), report, idle)


class ImageFolder:
    """A folder of images as a video of `frame_rate`; a skipped image keeps its number.

    Images that are numbered with gaps have the frame number in their name, and no frame is yielded for a gap.

    Raises ValueError if there is no image and, unless `report` is given, at the first one that cannot be read.
    """

    is_live = False

    def __init__(
        self, folder: str | Path, frame_rate: float = 30.0, report: Report | None = None, pixels: bool = True
    ) -> None:
        self.folder, self.frame_rate, self.report, self.pixels = Path(folder), frame_rate, report or refuse, pixels
        self.footage, self.selection = self.folder, "all"
        self.name = self.folder.resolve().name
        self.files = image_files(self.folder)
        if not self.files:
            raise ValueError(f"{folder}: expected at least one image (jpg, png, bmp), found none")
        numbers = image_numbers(self.files)
        if numbers[-1] > MAX_LENGTH:  # a date, for example
            numbers = list(range(1, len(self.files) + 1))
        self.numbers, self.frame_count = numbers, numbers[-1]

    def __iter__(self) -> Iterator[Frame]:
        if self.pixels:
            return _read_images(zip(self.numbers, self.files, strict=True), self.frame_rate, self.report)
        sizes = (image.shape[1:] for image in map(read_image, self.files) if image is not None)
        height, width = next(sizes, (0, 0))
        first = self.numbers[0]
        return (Frame.blank(height, width, (n - first) / self.frame_rate, n) for n in self.numbers)

    def without_pixels(self) -> ImageFolder:
        """See `VideoSource`."""
        return ImageFolder(self.folder, self.frame_rate, self.report, pixels=False)

    def close(self) -> None:
        """See `VideoSource`."""


class SequenceSource:
    """The frames of a MOTChallenge sequence's split, numbered from 1, from its images or its video.

    Times are those of seqinfo.ini's frame rate; without a seqinfo.ini, those of the video. A frame that cannot be read
    raises ValueError, or is blank if `report` is given; a frame in a gap of numbered images is blank. Iterating with
    pixels raises ValueError if the sequence has neither images nor a video, or fewer frames than seqinfo.ini states.
    """

    is_live = False

    def __init__(self, sequence: MotSequence, report: Report | None = None, pixels: bool = True) -> None:
        self.sequence, self.report, self.pixels = sequence, report, pixels
        self.name, self.frame_count, self.frame_rate = sequence.name, len(sequence), sequence.frame_rate
        self.selection = f"{sequence.frame_numbers}"

    @property
    def footage(self) -> Path:
        """The folder of images or the video file; the sequence's folder if it has neither."""
        images = self.sequence.path / self.sequence.image_dir
        return images if self.sequence.images() is not None else self.sequence.video() or self.sequence.path

    def __iter__(self) -> Iterator[Frame]:
        sequence = self.sequence
        video = sequence.video() if not sequence.has_seqinfo and sequence.images() is None else None
        frames = self._frames() if self.pixels or video is not None else repeat(None)
        clock = FrameClock(1 / self.frame_rate)
        for number, (time, frame) in enumerate(zip(sequence.times, frames, strict=False), 1):
            if video is not None:
                time = clock.time(frame.time if frame is not None else None)
            if frame is None:
                yield Frame.blank(sequence.height, sequence.width, time, number)
            else:
                yield Frame(frame.image, time, number)

    def without_pixels(self) -> SequenceSource:
        """See `VideoSource`."""
        return SequenceSource(self.sequence, self.report, pixels=False)

    def close(self) -> None:
        """See `VideoSource`."""

    def _frames(self) -> Iterator[Frame | None]:
        """Each frame of the split, as its images or its video have it; None for one that could not be read."""
        images, video = self.sequence.images(), self.sequence.video()
        if images is not None:
            files = [(number, file) for number, file in enumerate(images, 1) if os.path.lexists(file)]
            frames = _read_images(files, self.frame_rate, self.report or refuse)
            return _align(frames, range(1, len(images) + 1))
        if video is not None:
            return self._video_frames(video)
        folder = self.sequence.image_dir
        hint = "without them predict and evaluate need detections=FILE"
        raise ValueError(f"{self.sequence.path}: expected {folder}/ or a video file; {hint}")

    def _video_frames(self, video: Path) -> Iterator[Frame | None]:
        last = 0  # number of the video's frame that was read last
        is_reported = False
        for frame in _align(VideoFile(video, self.report, pixels=self.pixels), self.sequence.frame_numbers):
            if frame is not None:
                last = frame.number
            elif self.sequence.has_seqinfo and not is_reported:
                is_reported = True
                report = self.report or refuse
                report(f"{video}: expected {self.sequence.length} frames as seqinfo.ini says, got {last}")
            yield frame


FileSource = VideoFile | ImageFolder | SequenceSource  # `footage` is its path, `selection` says which of its frames


@dataclass(frozen=True)
class Selection:
    """Which frames of which sequences: the arguments of `find_sequences`. names also select videos of a folder."""

    split: str = "all"
    stride: int = 1
    drop_rate: float = 0.0
    names: Collection[str] | None = None


def find_sources(
    source: str | Path, selection: Selection = Selection(), report: Report | None = None
) -> Iterator[FileSource]:
    """Find every video that a path names; each is opened when the iterator reaches it.

    source: a folder of MOTChallenge sequences at any depth, of video files, or of images; a video file; or the URL of
    one. report: see `open_source`. Raises ValueError if there is no video, or if `selection` does not apply to it.
    """
    path, name = Path(source), source_name(source)
    if path.is_dir() and sequence_folders(path):
        sequences = find_sequences(path, selection.split, selection.stride, selection.drop_rate, selection.names)
        return (SequenceSource(sequence, report) for sequence in sequences)
    if selection != Selection(names=selection.names):
        raise ValueError(f"{name}: split, stride and drop_rate apply to MOTChallenge sequences only, found none")
    videos = _video_files(path, selection.names) if path.is_dir() else []
    if videos:
        return (VideoFile(video, report, is_one_of_several=len(videos) > 1) for video in videos)
    if selection.names is not None:
        raise ValueError(f"{name}: sequences= applies to a folder of sequences or videos only")
    if path.is_dir() and not image_files(path):
        raise ValueError(f"{name}: no sequences below it, expected folders with a seqinfo.ini, videos or images")
    opened = open_source(source, report)
    if isinstance(opened, LiveCapture):
        opened.close()
        raise ValueError(f"{opened.name}: expected a file or folder, not a camera or stream")
    return iter([cast(FileSource, opened)])


def prefetch(items: Iterable[Item], depth: int = 4) -> Iterator[Item]:
    """Yield the items, of which up to `depth` are produced ahead on another thread; an error is raised in its turn."""
    produced: Queue[tuple[Item | None, BaseException | None]] = Queue()
    free_slots, source = Semaphore(depth), iter(items)
    stopped = False

    def produce() -> None:
        try:
            while free_slots.acquire() and not stopped:
                produced.put((next(source), None))
        except BaseException as error:
            produced.put((None, error))

    thread = Thread(target=produce, daemon=True)
    thread.start()
    try:
        while True:
            item, error = produced.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            free_slots.release()
            yield cast(Item, item)
    finally:
        stopped = True
        free_slots.release()
        thread.join()
        if isinstance(source, Generator):
            source.close()


def _read_images(files: Iterable[tuple[int, Path]], frame_rate: float, report: Report) -> Iterator[Frame]:
    """Numbered image files as frames, the first at time 0; one that cannot be read is reported and skipped."""
    first: int | None = None
    for number, file in files:
        first = number if first is None else first
        image = read_image(file)
        if image is None:
            report(f"{file}: expected an image that can be read")
        else:
            yield Frame(image, (number - first) / frame_rate, number)


def _align(frames: Iterable[Frame], numbers: Sequence[int]) -> Iterator[Frame | None]:
    """The frame with each of the ascending `numbers`; None for one that is missing."""
    index = 0  # of the next number
    for frame in frames:
        while index < len(numbers) and numbers[index] <= frame.number:
            yield frame if numbers[index] == frame.number else None
            index += 1
    yield from repeat(None, len(numbers) - index)


def _video_files(folder: Path, names: Collection[str] | None) -> list[Path]:
    """The video files in a folder, by name, restricted to `names`. Raises ValueError as `find_sequences` does."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES)
    if files:
        check_names(folder, "video", [file.stem for file in files], names)
    return [file for file in files if names is None or file.stem in names]
