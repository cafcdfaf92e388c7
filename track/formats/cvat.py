"""MOTChallenge folders, and CVAT's MOT 1.1 export, which is such a folder with gt/labels.txt and usually in a zip.

    1,1,399,182,121,229,1,2,1.0

frame, id, left, top, width, height, flag (0: not scored), class, visibility; line n of gt/labels.txt names class n.
"""

from __future__ import annotations

import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import torch

from track.checkpoint import atomic_write, first_line
from track.formats.annotated import REGION_NAME, AnnotatedVideo, Format, files_at, is_ignored_region, write_text
from track.formats.footage import DEFAULT_RATE
from track.formats.mot import (
    MotSequence,
    find_sequences,
    footage_of_rows,
    read_sequence,
    read_tracks,
    sequence_folders,
    write_info,
)
from track.formats.table import MAX_LENGTH, read_table, read_text

ZIP_ERRORS = (  # what reading a damaged, encrypted or hostile zip raises
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError),
    *(OSError, ValueError, KeyError, IndexError, OverflowError, struct.error),
)
MAX_EXPANSION = 20  # times a zip's size that a file in it may have,
EXPANSION_ALLOWANCE = 2**28  # and these bytes more
IMAGE_NAME = re.compile(r"img1/.*?(\d{1,15})\.(?:jpe?g|png|bmp)", re.IGNORECASE)


def matches_zip(path: Path) -> bool:
    """Whether `path` is a zip that holds a gt/gt.txt, or a folder of such zips."""
    files = files_at(path, ".zip")
    try:
        with zipfile.ZipFile(files[0]) as archive:
            return bool(_truth_members(archive))
    except (IndexError, *ZIP_ERRORS):
        return False


def read_zip(path: Path) -> list[AnnotatedVideo]:
    """Each gt/gt.txt in a zip, or in a folder of zips, as a video, named as the folder above gt/, or as the zip.

    Nothing is unpacked but gt.txt, labels.txt and seqinfo.ini, into a temporary folder. Raises ValueError if a zip is
    damaged, or a file in it is far larger than the zip.
    """
    return [video for file in files_at(path, ".zip") for video in _read_zip(file)]


def write_zips(folder: Path, videos: Sequence[AnnotatedVideo]) -> list[Path]:
    """One <sequence>.zip each, to be imported in CVAT as `MOT 1.1` into a task of the same frames."""
    files = []
    for video in videos:
        file = folder / f"{video.name}.zip"
        with atomic_write(file) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            numbered = numbered_from_1(video)
            for name, rows in (("gt/gt.txt", truth_rows(numbered)), ("gt/labels.txt", label_lines(numbered))):
                archive.writestr(zipfile.ZipInfo(name), "".join(rows), zipfile.ZIP_DEFLATED)  # of no time of writing
        files.append(file)
    return files


def matches_folder(path: Path) -> bool:
    """Whether `path` is a folder of sequences with ground truth, or a result file, or a folder of them."""
    if path.is_dir() and any((folder / "gt/gt.txt").is_file() for folder in sequence_folders(path)):
        return True
    files = _result_files(path)
    try:
        return bool(files) and len(read_table(files[0], columns=7)[1]) > 0
    except ValueError:
        return False


def read_folder(path: Path) -> list[AnnotatedVideo]:
    """The ground truth of every sequence below a folder; or each result file as a video."""
    if path.is_dir() and sequence_folders(path):
        sequences = [one for one in find_sequences(path) if one.has("gt/gt.txt")]
        return [sequence_video(sequence, sequence.name) for sequence in sequences]
    return [_read_results(file) for file in _result_files(path)]


def _result_files(path: Path) -> list[Path]:
    """The result files at a path, without those of runs that were cut."""
    return [file for file in files_at(path, ".txt") if file.name != "labels.txt" and ".partial" not in file.suffixes]


def write_folders(folder: Path, videos: Sequence[AnnotatedVideo]) -> list[Path]:
    """<sequence>/{seqinfo.ini, gt/gt.txt, gt/labels.txt} each; labels.txt is left out if no name is known."""
    files = []
    for video in videos:
        numbered = numbered_from_1(video) if video.label_names else video
        target = folder / video.name
        write_info(target, video.frame_rate, max(len(video.frames), 1), video.width, video.height)
        files.append(write_text(target / "gt" / "gt.txt", truth_rows(numbered)))
        if video.label_names:
            write_text(target / "gt" / "labels.txt", label_lines(numbered))
    return files


def sequence_video(sequence: MotSequence, name: str) -> AnnotatedVideo:
    """A sequence's ground truth; boxes of flag 0 whose class is called `ignored region` are such regions."""
    names = sequence.label_names() or {}
    region = torch.tensor([label for label, text in names.items() if text == REGION_NAME])
    frames = [
        replace(frame, labels=frame.labels.masked_fill(torch.isin(frame.labels, region) & (frame.scores == 0), 0))
        for frame in sequence.truth()
    ]
    known = {label: text for label, text in names.items() if text != REGION_NAME}
    return AnnotatedVideo(name, frames, sequence.frame_rate, sequence.width, sequence.height, known)


def numbered_from_1(video: AnnotatedVideo) -> AnnotatedVideo:
    """The video with classes numbered from 1 without gaps, as labels.txt needs them; ignored regions are the last."""
    known = sorted({*video.label_names, *video.labels()})
    names = {label: video.name_of(old) for label, old in enumerate(known, 1)}
    has_regions = any(is_ignored_region(frame).any() for frame in video.frames)
    if has_regions:
        names[len(names) + 1] = REGION_NAME
    next_id = 1 + max((int(frame.ids.max()) for frame in video.frames if len(frame)), default=0)
    frames = []
    for frame in video.frames:
        labels = torch.searchsorted(torch.tensor(known, dtype=torch.int64), frame.labels) + 1
        region = is_ignored_region(frame)
        ids = frame.ids.clone()
        ids[region] = next_id + torch.arange(int(region.sum()))  # those of one frame may share an id, classes may not
        frames.append(replace(frame, ids=ids, labels=labels.masked_fill(region, len(names))))
    return replace(video, frames=frames, label_names=names)


def truth_rows(video: AnnotatedVideo) -> Iterator[str]:
    """The lines of gt.txt; the flag is 0 or, for results too, 1."""
    for number, frame in enumerate(video.frames, 1):
        columns = frame.ids.tolist(), frame.boxes.tolist(), frame.scores.tolist(), frame.labels.tolist()
        for identity, (x1, y1, x2, y2), score, label in zip(*columns, strict=True):
            sides = f"{x1 + 1:.2f},{y1 + 1:.2f},{x2 - x1:.2f},{y2 - y1:.2f}"
            yield f"{number},{identity},{sides},{int(score != 0)},{label},1\n"


def label_lines(video: AnnotatedVideo) -> Iterator[str]:
    """The lines of labels.txt: the name of each class, from 1 without gaps."""
    return (f"{video.name_of(label)}\n" for label in sorted(video.label_names))


def _read_zip(file: Path) -> list[AnnotatedVideo]:
    try:
        with zipfile.ZipFile(file) as archive, TemporaryDirectory() as temporary:
            return [
                _read_member(file, archive, member, Path(temporary) / str(number))
                for number, member in enumerate(_truth_members(archive))
            ]
    except ValueError as error:
        reason = str(error)
        raise ValueError(reason if reason.startswith(f"{file}") else f"{file}: {first_line(error)}") from error
    except ZIP_ERRORS as error:
        raise ValueError(f"{file}: expected a whole zip ({first_line(error)})") from error


def _truth_members(archive: zipfile.ZipFile) -> list[PurePosixPath]:
    paths = [PurePosixPath(name) for name in archive.namelist()]
    return sorted(path for path in paths if path.parts[-2:] == ("gt", "gt.txt"))


def _read_member(file: Path, archive: zipfile.ZipFile, truth: PurePosixPath, folder: Path) -> AnnotatedVideo:
    """The video of one gt.txt in a zip, through a temporary folder whose names the zip does not choose."""
    root = truth.parent.parent
    names = set(archive.namelist())
    for name in ("gt/gt.txt", "gt/labels.txt", "seqinfo.ini"):
        member = str(root / name)
        if member in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(_bounded(file, archive, member))
    try:
        sequence = _with_images(read_sequence(folder), names, root)
        return sequence_video(sequence, root.name or file.stem)
    except ValueError as error:
        raise ValueError(str(error).replace(str(folder), str(file / root))) from error


def _with_images(sequence: MotSequence, names: set[str], root: PurePosixPath) -> MotSequence:
    """The sequence, as long as the names of its images in a zip say unless it has a seqinfo.ini."""
    if sequence.has_seqinfo:
        return sequence
    images = [IMAGE_NAME.fullmatch(name[len(f"{root}/") :] if root.parts else name) for name in names]
    length = max([sequence.length, *(int(image[1]) for image in images if image)])
    if length > MAX_LENGTH:
        raise ValueError(f"{sequence.path}: expected at most {MAX_LENGTH} frames, found an image numbered {length}")
    return replace(sequence, length=length, frame_numbers=range(1, length + 1))


def _bounded(file: Path, archive: zipfile.ZipFile, member: str) -> bytes:
    """A member's content. Raises ValueError if it is longer than a zip of this size plausibly holds."""
    limit = MAX_EXPANSION * file.stat().st_size + EXPANSION_ALLOWANCE
    with archive.open(member) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{file}: {member} unpacks to more than {MAX_EXPANSION} times the zip's size")
    return content


def _read_results(file: Path) -> AnnotatedVideo:
    """A result file as a video, with the class names of the labels.txt beside it."""
    length, _, width, height = footage_of_rows([file])
    labels = file.with_name("labels.txt")
    names = dict(enumerate(read_text(labels).splitlines(), 1)) if labels.is_file() else {}
    return AnnotatedVideo(file.stem, read_tracks(file, length), DEFAULT_RATE, width, height, names)


CVAT = Format("cvat", "CVAT MOT 1.1", matches_zip, read_zip, write_zips)
MOT = Format("mot", "MOTChallenge", matches_folder, read_folder, write_folders)
