"""Outputs that would destroy something: an input, another output, or a file that this program did not write."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from track.formats.tabular import RESULT_COLUMNS
from track.media.video_writer import is_own_video

RESULT_ROW = re.compile(r"\d+,\d+(,-?\d+\.\d\d){4},\d\.\d{4},-?\d+,-1,-1")


def check_outputs(files: Sequence[Path], inputs: Iterable[object], overwrite: bool) -> None:
    """Raise ValueError for an output that is an input or another output, by whatever path or link.

    Unless `overwrite`, also for a file that exists and is no result of this program.
    """
    taken = [Path(str(path)) for path in inputs if path is not None]
    for file in files:
        if any(_is_same(file, path) for path in taken):
            raise ValueError(f"output: {file}: expected a file that is neither an input nor another output")
        if not overwrite and file.exists() and not is_own_result(file):
            raise ValueError(f"output: {file}: exists and is no result of this program; overwrite=true replaces it")
        taken.append(file)


def is_own_result(file: Path) -> bool:
    """Whether a file has the form of a result that this program writes, or is empty."""
    if not file.is_file():
        return False
    if not file.stat().st_size:
        return True
    if file.suffix == ".mp4":
        return is_own_video(file)
    try:
        if file.suffix == ".rrd":
            return file.open("rb").read(3) == b"RRF"  # a recording of Rerun
        with file.open(encoding="utf-8") as stream:
            line = stream.readline(1000).strip()
        if file.suffix == ".csv":
            return line.split(",") == RESULT_COLUMNS
        if file.suffix == ".jsonl":
            return list(json.loads(line)) == RESULT_COLUMNS
    except (OSError, ValueError, TypeError):
        return False
    return bool(RESULT_ROW.fullmatch(line))


def _is_same(file: Path, other: Path) -> bool:
    try:
        return file.resolve() == other.resolve() or file.samefile(other)
    except OSError:  # one of them does not exist
        return False
