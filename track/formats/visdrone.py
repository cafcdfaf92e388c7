"""VisDrone-MOT's annotations: ten comma-separated columns per box, frames from 1, pixels from 0.

    1,0,593,43,174,190,0,0,0,0

frame, id, left, top, width, height, score (0: not scored), class, truncation, occlusion. Class 0 is a region in which
nothing is scored. Zhu et al., "Detection and tracking meet drones challenge", TPAMI 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from track.formats.annotated import AnnotatedVideo, Format, files_at, is_ignored_region, write_text
from track.formats.footage import DEFAULT_RATE, image_files, probe_images
from track.formats.mot import footage_of_rows, read_tracks
from track.formats.table import read_table

CLASSES = (  # 0 to 11
    *("ignored region", "pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle"),
    *("bus", "motor", "others"),
)
OTHERS = CLASSES.index("others")


def matches(path: Path) -> bool:
    """Whether `path` is an annotation file, a folder of them, or a folder with annotations/."""
    files = _files(path)
    if not files:
        return False
    try:
        table, _ = read_table(files[0], columns=10)
    except ValueError:
        return False
    labels, truncation, occlusion = table[:, 7:10].T
    return bool(
        len(table)
        and np.isin(labels, range(len(CLASSES))).all()
        and np.isin(truncation, (0, 1)).all()
        and np.isin(occlusion, (0, 1, 2)).all()
    )


def read(path: Path) -> list[AnnotatedVideo]:
    """Each file as a video; length and size are those of sequences/<name>/ if that lies beside annotations/."""
    return [_read_file(file) for file in _files(path)]


def write(folder: Path, videos: Sequence[AnnotatedVideo]) -> list[Path]:
    """annotations/<sequence>.txt each; classes that VisDrone does not have become `others`."""
    return [write_text(folder / "annotations" / f"{video.name}.txt", _rows(video)) for video in videos]


def losses(videos: Sequence[AnnotatedVideo]) -> list[str]:
    """A line with the classes that become `others`."""
    names = {video.name_of(label) for video in videos for label in video.labels()}
    unknown = sorted(name for name in names if name.lower() not in CLASSES)
    return [f"VisDrone has no class {', '.join(unknown)}: written as others"] if unknown else []


def _files(path: Path) -> list[Path]:
    return files_at(path / "annotations" if (path / "annotations").is_dir() else path, ".txt")


def _read_file(file: Path) -> AnnotatedVideo:
    images_folder = file.parent.parent / "sequences" / file.stem
    images = image_files(images_folder) if images_folder.is_dir() else []
    footage = probe_images(images) if images else footage_of_rows([file])
    frames = [
        replace(frame, boxes=frame.boxes + 1)  # pixels from 0
        for frame in read_tracks(file, footage.length, truth=True)
    ]
    return AnnotatedVideo(
        file.stem, frames, DEFAULT_RATE, footage.width, footage.height, dict(enumerate(CLASSES[1:], 1))
    )


def _rows(video: AnnotatedVideo) -> Iterator[str]:
    classes = {name: label for label, name in enumerate(CLASSES)}
    for number, frame in enumerate(video.frames, 1):
        regions = is_ignored_region(frame).tolist()
        columns = frame.ids.tolist(), frame.labels.tolist(), frame.boxes.tolist(), frame.scores.tolist()
        for region, identity, label, (x1, y1, x2, y2), score in zip(regions, *columns, strict=True):
            visdrone = 0 if region else classes.get(video.name_of(label).lower(), OTHERS)
            yield f"{number},{identity},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.6g},{visdrone},0,0\n"


VISDRONE = Format("visdrone", "VisDrone-MOT", matches, read, write, losses)
