"""Video sources: files, folders of images, MOTChallenge sequences, cameras and streams, each iterated as frames."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from queue import Queue
from threading import Semaphore, Thread
from typing import Protocol, TypeVar, cast

import cv2
from torch import Tensor

from track.formats.mot import VIDEO_SUFFIXES, MotSequence, find_sequences, image_files, read_sequence
from track.media.capture import LiveCapture, Report, is_camera, is_url, open_capture, source_name
from track.media.images import read_image, to_rgb
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
        """The number of frames as stated by the source; None if it states none."""
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
        if (path / "seqinfo.ini").is_file():
            return SequenceSource(read_sequence(path), report)
        return ImageFolder(path, frame_rate, report)
    if is_camera(source):
        return LiveCapture(source if isinstance(source, int) else str(source), report, idle)
    video = open_capture(source)
    has_end = not is_url(source) or (str(source).startswith("http") and video.get(cv2.CAP_PROP_FRAME_COUNT) > 0)
    return VideoFile(str(source), report, video) if has_end else LiveCapture(str(source), report, idle, video)


class VideoFile:
    """A video file, local or on a web server.

    video: the file's capture if it is already open; the first iteration uses it, later ones open the file again.
    is_one_of_several: whether a folder of videos was named, so that a file beside it may be another video's. Raises
    ValueError if the file cannot be opened and, unless `report` is given, after the last frame if that is not its end.
    """

    is_live = False

    def __init__(
        self,
        path: str | Path,
        report: Report | None = None,
        video: cv2.VideoCapture | None = None,
        pixels: bool = True,
        is_one_of_several: bool = False,
    ) -> None:
        self.path, self.report, self.pixels = path, report or _refuse, pixels
        self.is_one_of_several = is_one_of_several
        self._video: cv2.VideoCapture | None = video or open_capture(path)
        self.footage, self.selection = Path(source_name(path)), "all"
        self.name = self.footage.stem
        count = int(self._video.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count = count if count > 0 else None
        self.frame_rate = _plausible(self._video.get(cv2.CAP_PROP_FPS))

    def __iter__(self) -> Iterator[Frame]:
        video = self._video or open_capture(self.path)
        self._video = None
        number = 0
        time = -1.0
        try:
            for number, image in enumerate(self._images(video), 1):
                stamp = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
                time = stamp if stamp > time else time + 1 / self.frame_rate
                yield Frame(image, time, number)
        finally:
            video.release()
        if number == 0:
            raise ValueError(f"{source_name(self.path)}: expected a video, no frame could be read")
        count = self.frame_count or 0
        if count - number > max(2, 0.02 * count):  # stated counts are often off by one or two
            self.report(f"{source_name(self.path)}: stopped after frame {number}, expected {count}")

    def without_pixels(self) -> VideoFile:
        """See `VideoSource`."""
        video, self._video = self._video, None
        return VideoFile(self.path, self.report, video, False, self.is_one_of_several)

    def close(self) -> None:
        """See `VideoSource`."""
        if self._video is not None:
            self._video.release()
            self._video = None

    def _images(self, video: cv2.VideoCapture) -> Iterator[Tensor]:
        if self.pixels:
            while (read := video.read())[0]:
                yield to_rgb(read[1])
        else:
            size = int(video.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(video.get(cv2.CAP_PROP_FRAME_WIDTH))
            blank = Frame.blank(*size, time=0.0, number=1).image
            while video.grab():
                yield blank


class ImageFolder:
    """A folder of images as a video of `frame_rate`; a skipped image keeps its number.

    Raises ValueError if there is no image and, unless `report` is given, at the first one that cannot be read.
    """

    is_live = False

    def __init__(
        self, folder: str | Path, frame_rate: float = 30.0, report: Report | None = None, pixels: bool = True
    ) -> None:
        self.folder, self.frame_rate, self.report, self.pixels = Path(folder), frame_rate, report or _refuse, pixels
        self.footage, self.selection = self.folder, "all"
        self.name = self.folder.resolve().name
        self.files = image_files(self.folder)
        if not self.files:
            raise ValueError(f"{folder}: expected at least one image (jpg, png, bmp), found none")
        self.frame_count = len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        if self.pixels:
            return _read_images(self.files, self.frame_rate, self.report)
        sizes = (image.shape[1:] for image in map(read_image, self.files) if image is not None)
        height, width = next(sizes, (0, 0))
        return (Frame.blank(height, width, k / self.frame_rate, k + 1) for k in range(len(self.files)))

    def without_pixels(self) -> ImageFolder:
        """See `VideoSource`."""
        return ImageFolder(self.folder, self.frame_rate, self.report, pixels=False)

    def close(self) -> None:
        """See `VideoSource`."""


class SequenceSource:
    """The frames of a MOTChallenge sequence's split, numbered from 1, from its images or its video.

    A frame that cannot be read raises ValueError, or is blank if `report` is given. Iterating with pixels raises
    ValueError if the sequence has neither images nor a video, or fewer frames than seqinfo.ini states.
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
        images = self._images() if self.pixels else repeat(None)
        for number, (time, image) in enumerate(zip(self.sequence.times, images, strict=False), 1):
            if image is None:
                yield Frame.blank(self.sequence.height, self.sequence.width, time, number)
            else:
                yield Frame(image, time, number)

    def without_pixels(self) -> SequenceSource:
        """See `VideoSource`."""
        return SequenceSource(self.sequence, self.report, pixels=False)

    def close(self) -> None:
        """See `VideoSource`."""

    def _images(self) -> Iterator[Tensor | None]:
        """The image of each frame of the split; None for one that could not be read."""
        images, video = self.sequence.images(), self.sequence.video()
        if images is not None:
            frames = _read_images(images, self.frame_rate, self.report or _refuse)
            numbers: Sequence[int] = range(1, len(images) + 1)
        elif video is not None:
            frames = iter(VideoFile(video, self.report))
            numbers = self.sequence.frame_numbers
        else:
            folder = self.sequence.image_dir
            raise ValueError(f"{self.sequence.path}: expected {folder}/ or a video file, or detections=FILE")
        index = 0  # of the next frame of the split
        last = 0
        for frame in frames:
            last = frame.number
            while index < len(numbers) and numbers[index] <= last:
                yield frame.image if numbers[index] == last else None
                index += 1
        if index < len(numbers) and images is None:  # unreadable images were reported one by one
            report = self.report or _refuse
            report(f"{video}: expected {self.sequence.length} frames as seqinfo.ini says, got {last}")
        yield from repeat(None, len(numbers) - index)


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
    if path.is_dir() and next(path.rglob("seqinfo.ini"), None) is not None:
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


def _read_images(files: Sequence[Path], frame_rate: float, report: Report) -> Iterator[Frame]:
    """Image files as frames; one that cannot be read is reported and skipped."""
    for number, file in enumerate(files, 1):
        image = read_image(file)
        if image is None:
            report(f"{file}: expected an image that can be read")
        else:
            yield Frame(image, (number - 1) / frame_rate, number)


def _video_files(folder: Path, names: Collection[str] | None) -> list[Path]:
    """The video files in a folder, by name, restricted to `names`. Raises ValueError as `find_sequences` does."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES)
    known = [file.stem for file in files]
    duplicate = next((name for name in known if known.count(name) > 1), None)
    if duplicate:
        raise ValueError(f"{folder}: two videos are called {duplicate}, expected each name once")
    unknown = sorted(set(names or ()) - set(known))
    if files and unknown:
        raise ValueError(f"{folder}: no video is called {unknown[0]}, expected some of {', '.join(known)}")
    return [file for file in files if names is None or file.stem in names]


def _refuse(line: str) -> None:
    raise ValueError(line)


def _plausible(rate: float) -> float:
    """The frame rate that a file states, or 30 if it states none."""
    return rate if 0 < rate < 1000 else 30.0
