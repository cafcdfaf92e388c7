"""grutrack convert: annotations and results from one format into another."""

from __future__ import annotations

import tempfile
from filecmp import cmp
from pathlib import Path

from omegaconf import DictConfig

from track.app.console.cli import command
from track.formats.annotated import AnnotatedVideo, Format
from track.formats.coco import COCO
from track.formats.cvat import CVAT, MOT
from track.formats.footage import check_names
from track.formats.kitti import KITTI
from track.formats.tabular import CSV, JSONL, PARQUET
from track.formats.visdrone import VISDRONE

FORMATS = {one.name: one for one in (CVAT, COCO, PARQUET, JSONL, CSV, VISDRONE, MOT, KITTI)}  # tried in this order


@command("convert")
def main(cfg: DictConfig) -> None:
    """Print what the source is, and every file that was written."""
    if cfg.format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(sorted(FORMATS))}, got {cfg.format}")
    target, source = FORMATS[cfg.format], Path(str(cfg.source))
    found = detect_format(source)
    output = Path(str(cfg.output))
    check_output(source, output)
    print(f"source: {found.title}")
    videos = found.read(source)
    if not videos:
        raise ValueError(f"source: {source}: no videos in it")
    check_names(f"source: {source}", "video", [video.name for video in videos])
    for video in videos:
        print(describe(video))
    for line in target.losses(videos):
        print(f"note: {line}")
    for file in write_complete(target, output, videos, cfg.overwrite):
        print(f"written: {file} ({target.title})")


def detect_format(source: Path) -> Format:
    """The format of a file or folder, by its content. Raises ValueError if it is none of `FORMATS`."""
    if not source.exists():
        raise ValueError(f"source: {source}: no such file or folder")
    found = next((one for one in FORMATS.values() if one.matches(source)), None)
    if found is None:
        titles = ", ".join(one.title for one in FORMATS.values())
        raise ValueError(f"source: {source}: expected annotations or results as {titles}; see docs/data.md")
    return found


def check_output(source: Path, output: Path) -> None:
    """Raise ValueError if the output is the source, lies inside it or contains it: a written file could replace it."""
    inner, outer = source.resolve(), output.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise ValueError(f"output: {output}: expected a folder or file apart from the source {source}")


def write_complete(target: Format, output: Path, videos: list[AnnotatedVideo], overwrite: bool) -> list[Path]:
    """Write every file or, if one cannot be written, none. Returns the paths.

    Raises ValueError, unless `overwrite`, if a file of other content would be replaced.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=output) as folder:
            named = [output / file.relative_to(folder) for file in target.write(Path(folder), videos)]
            written = {file: output / file.relative_to(folder) for file in Path(folder).rglob("*") if file.is_file()}
            for file, final in written.items():
                parent = next(parent for parent in final.parents if parent.exists())
                if not parent.is_dir() or final.is_dir():
                    raise ValueError(f"output: {final}: a file or folder of another kind is in its place")
                if not overwrite and final.exists() and not (final.is_file() and cmp(file, final, shallow=False)):
                    raise ValueError(f"output: {final}: exists with other content; overwrite=true replaces it")
            for file, final in written.items():
                final.parent.mkdir(parents=True, exist_ok=True)
                file.replace(final)
    except OSError as error:
        raise ValueError(f"output: {output}: expected a folder that can be written ({error.strerror})") from error
    return named


def describe(video: AnnotatedVideo) -> str:
    """One line: name, frames, boxes and classes."""
    boxes = sum(map(len, video.frames))
    classes = ", ".join(video.name_of(label) for label in video.labels())
    return f"{video.name}: {len(video.frames)} frames, {boxes} boxes, classes: {classes or 'none'}"
