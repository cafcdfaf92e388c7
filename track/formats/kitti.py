"""KITTI's tracking labels: text files of one row per box, separated by spaces, frames and pixels from 0.

    0 2 Car 0 0 -1.79 296.74 161.75 455.23 292.37 2.00 1.82 4.43 -4.55 1.86 13.41 -2.11

frame, id, type, truncated, occluded, alpha, x1, y1, x2, y2, the 3D box (seven numbers) and, in results, a score.
Geiger et al., "Are we ready for autonomous driving? The KITTI vision benchmark suite", CVPR 2012.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from track.formats.annotated import (
    IGNORED_REGION,
    AnnotatedVideo,
    Format,
    Row,
    build_video,
    check_row,
    files_at,
    is_ignored_region,
    write_text,
)
from track.formats.footage import image_files, probe_images
from track.formats.table import read_text

TYPES = ("Pedestrian", "Cyclist", "Car", "Van", "Truck", "Person", "Tram", "Misc")  # labels 1 to 8
DONT_CARE = "DontCare"
FRAME_RATE = 10.0
ABSENT_3D = "-1 -1 -1 -1000 -1000 -1000 -10"


def matches(path: Path) -> bool:
    """Whether `path` is a label file, a folder of them, or a folder with label_02/."""
    files = _files(path)
    if not files:
        return False
    with files[0].open(encoding="utf-8", errors="replace") as file:
        columns = file.readline(1000).split()
    return len(columns) >= 10 and columns[0].isdecimal() and not columns[2][0].isdecimal() and columns[2][0] != "-"


def read(path: Path) -> list[AnnotatedVideo]:
    """Each file as a video; DontCare boxes are regions to be ignored, types beyond `TYPES` are numbered by name.

    Frames without labels at the end are known only if image_02/<sequence>/ lies beside the labels' folder.
    """
    return [_read_file(file) for file in _files(path)]


def write(folder: Path, videos: Sequence[AnnotatedVideo]) -> list[Path]:
    """One <sequence>.txt each, with what KITTI's format itself calls unknown for the 3D box."""
    return [write_text(folder / f"{video.name}.txt", _rows(video)) for video in videos]


def _files(path: Path) -> list[Path]:
    return files_at(path / "label_02" if (path / "label_02").is_dir() else path, ".txt")


def _read_file(file: Path) -> AnnotatedVideo:
    lines = [(k, line.split()) for k, line in enumerate(read_text(file).splitlines(), 1) if line.strip()]
    for number, columns in lines:
        if len(columns) < 10:
            raise ValueError(f"{file}, line {number}: expected at least 10 columns, got {len(columns)}")
    types = {columns[2] for _, columns in lines} - {DONT_CARE}
    names = dict(enumerate((*TYPES, *sorted(types - set(TYPES))), 1))
    labels = {name: label for label, name in names.items()} | {DONT_CARE: IGNORED_REGION}
    rows = [_row(f"{file}, line {number}", columns, labels) for number, columns in lines]
    images_folder = file.parent.parent / "image_02" / file.stem
    images = image_files(images_folder) if images_folder.is_dir() else []
    length, _, *size = probe_images(images) if images else (0, 0, 0, 0)
    return build_video(file.stem, file, rows, names, FRAME_RATE, (size[0], size[1]) if images else None, length)


def _row(where: str, columns: list[str], labels: dict[str, int]) -> Row:
    label = labels[columns[2]]
    try:
        frame, identity = int(columns[0]) + 1, int(columns[1])
        score = float(columns[17]) if len(columns) > 17 else 1.0
        box = [float(value) for value in columns[6:10]]
    except ValueError:
        raise ValueError(f"{where}: expected `frame id type truncated occluded alpha x1 y1 x2 y2 ...`") from None
    return check_row(where, (frame, identity, label, 0.0 if label == IGNORED_REGION else score, box))


def _rows(video: AnnotatedVideo) -> Iterator[str]:
    results = any(((frame.scores != 0) & (frame.scores != 1)).any() for frame in video.frames)
    for number, frame in enumerate(video.frames):
        regions = is_ignored_region(frame).tolist()
        columns = frame.ids.tolist(), frame.labels.tolist(), frame.boxes.tolist(), frame.scores.tolist()
        for region, identity, label, box, score in zip(regions, *columns, strict=True):
            name = DONT_CARE if region or not score else video.name_of(label).replace(" ", "_")
            shown = f"-1 {name} -1 -1 -10" if name == DONT_CARE else f"{identity} {name} 0 0 -10"
            sides = " ".join(f"{side:.2f}" for side in box)
            yield f"{number} {shown} {sides} {ABSENT_3D}{f' {score:.4f}' if results else ''}\n"


KITTI = Format("kitti", "KITTI tracking", matches, read, write)
