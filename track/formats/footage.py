"""What a sequence without seqinfo.ini is: the numbers of its images, the length, frame rate and size of its footage."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from track.formats.table import MAX_LENGTH

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm")
DEFAULT_RATE = 30.0  # frames per second, of images and of a video that states none
LAST_NUMBER = re.compile(r"(\d+)\D*$")


class Footage(NamedTuple):
    """Length in frames, frames per second, and pixels."""

    length: int
    frame_rate: float
    width: int
    height: int


def check_names(where: object, kind: str, names: Sequence[str], chosen: Collection[str] | None = None) -> None:
    """Raise ValueError if two of `names` are equal (one's file would replace the other's), or if a chosen one is
    unknown; kind: sequence or video."""
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"{where}: two {kind}s are called {repeated}, expected each name once")
    unknown = sorted(set(chosen or ()) - set(names))
    if unknown:
        raise ValueError(f"{where}: no {kind} is called {unknown[0]}, expected some of {', '.join(names)}")


def image_files(folder: Path) -> list[Path]:
    """The images in a folder in numerical order: 2.jpg before 10.jpg."""

    def by_number(file: Path) -> list[str | int]:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name)]

    return sorted((file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES), key=by_number)


def image_numbers(files: Sequence[Path]) -> list[int]:
    """The frame number of each image, from 1.

    If the last numbers in the names ascend from 1 or more to at most `MAX_LENGTH` and have gaps (9.jpg, 20.jpg), they
    are the frame numbers. Otherwise images are numbered in order, for example 0.jpg, 1.jpg and 100.jpg, 101.jpg.
    """
    numbers = name_numbers(files)
    gaps = bool(numbers) and numbers[-1] - numbers[0] >= len(numbers)
    return numbers if gaps and numbers[0] >= 1 and numbers[-1] <= MAX_LENGTH else list(range(1, len(files) + 1))


def name_numbers(files: Sequence[Path]) -> list[int]:
    """The last number in each file's name, or an empty list unless all names have one and they ascend."""
    matches = [LAST_NUMBER.search(file.stem) for file in files]
    numbers = [int(match[1]) if match and len(match[1]) < 16 else -1 for match in matches]
    ascending = all(first < second for first, second in zip(numbers, numbers[1:], strict=False))
    return numbers if ascending and numbers and numbers[0] >= 0 else []


def probe_images(files: Sequence[Path]) -> Footage:
    """Length by the images' numbers, `DEFAULT_RATE`, and the size of the first image.

    Raises ValueError if that cannot be read.
    """
    _, _, width, height = probe_video(files[0])
    return Footage(image_numbers(files)[-1], DEFAULT_RATE, width, height)


def probe_video(path: Path) -> Footage:
    """Length, rate and size of a video; frames are counted without decoding them, for stated lengths are often wrong.

    Raises ValueError if the file is no video.
    """
    import av  # here, because most sequences have a seqinfo.ini
    from av.error import FFmpegError

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 0)
            size = stream.width, stream.height
            length = sum(1 for packet in container.demux(stream) if packet.size)
    except (FFmpegError, OSError, IndexError, ValueError) as error:
        raise ValueError(f"{path}: expected a video or image that can be read ({error})") from error
    return Footage(length, rate if 0 < rate < 1000 else DEFAULT_RATE, *size)
