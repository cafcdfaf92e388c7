"""What an output may not destroy or mix with: inputs, other outputs, files of other origin, results of other frames."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from omegaconf import DictConfig

from track.app.console.cli import saved_config
from track.checkpoint import atomic_write
from track.formats.mot import RESULT_ROW
from track.formats.table import read_text
from track.formats.tabular import RESULT_COLUMNS
from track.media.video_writer import is_own_video

SELECTION = ("split", "stride", "drop_rate")  # options that say which frames of a sequence are used


def output_folder(cfg: DictConfig) -> Path:
    """Make the folder that results go to. Raises ValueError, before any work, if that fails."""
    folder = Path(str(cfg.output_dir))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output_dir: expected a folder that can be written ({error})") from error
    return folder


def partial_file(path: Path) -> Path:
    """The name of a result that may be cut, beside the one that it gets when it is complete."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


class OutputFiles:
    """Output files, called NAME.partial.SUFFIX until they are complete: inside, they are written; outside, renamed.

    are_partial: False for those of a source without an end, which have their own names from the start.
    written: the paths to write to and, after the context, those that there are.
    """

    def __init__(self, files: Sequence[Path], are_partial: bool = True) -> None:
        self.files = files
        self.written = [partial_file(file) if are_partial else file for file in files]
        self._finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None and self._finished:
            for partial, file in zip(self.written, self.files, strict=True):
                partial.replace(file)
            self.written = list(self.files)

    def finish(self) -> None:
        """Every frame was written: once they are closed, the files get their names."""
        self._finished = True


def check_outputs(files: Iterable[Path], inputs: Iterable[object], overwrite: bool) -> None:
    """Raise ValueError for an output that is an input or another output, by whatever path or link.

    The same goes for its partial file. Unless `overwrite`, also for a file that exists and is no result of this
    program.
    """
    taken = {identity for path in inputs if path is not None for identity in _identities(Path(str(path)))}
    for file in (one for path in files for one in (path, partial_file(path))):
        identities = _identities(file)
        if not taken.isdisjoint(identities):
            raise ValueError(f"output: {file}: expected a file that is neither an input nor another output")
        if not overwrite and file.exists() and not is_own_result(file):
            raise ValueError(f"output: {file}: exists and is no result of this program; overwrite=true replaces it")
        taken |= identities


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
            with file.open("rb") as recording:
                return recording.read(3) == b"RRF"  # Rerun's
        with file.open(encoding="utf-8") as stream:
            line = stream.readline(1000).strip()
        if file.suffix == ".csv":
            return line.split(",") == RESULT_COLUMNS
        if file.suffix == ".jsonl":
            return list(json.loads(line)) == RESULT_COLUMNS
    except (OSError, ValueError, TypeError):
        return False
    return bool(RESULT_ROW.fullmatch(line))


def check_selection(folder: Path, options: Mapping[str, Any], overwrite: bool = False) -> None:
    """Raise ValueError if the results in a folder are of other frames than `options` select, unless `overwrite`."""
    made = saved_config(folder)
    for key in SELECTION:
        if key in made and made[key] != options[key] and not overwrite:
            raise ValueError(f"{folder}: holds results of {key}={made[key]}, expected those of {key}={options[key]}")


def check_label_names(folder: Path, names: Sequence[str] | None) -> None:
    """Raise ValueError if the labels.txt in a folder is neither of these classes nor an earlier run's."""
    file = folder / "labels.txt"
    if names is None or not file.exists() or _is_of_a_detector(folder):
        return
    if read_text(file).splitlines() != list(names):
        raise ValueError(f"{file}: names other classes than the detector's, expected another output_dir")


def write_label_names(folder: Path, names: Sequence[str] | None) -> None:
    """Write labels.txt, by which evaluate knows a detector's classes; that of an earlier detector does not remain.

    names: of the labels from 1; None for detections of a file.
    """
    file = folder / "labels.txt"
    if names is not None:
        with atomic_write(file) as temporary:
            temporary.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    elif _is_of_a_detector(folder):
        file.unlink(missing_ok=True)


def _is_of_a_detector(folder: Path) -> bool:
    """Whether the last results in a folder were made from a detector's boxes."""
    return saved_config(folder).get("detections", "") is None


def _identities(file: Path) -> set[object]:
    """What is equal for paths of one file: the path without links and, if the file exists, where it is on the disk."""
    try:
        path = file.resolve()
    except (OSError, RuntimeError):  # links in a circle
        return {file}
    try:
        status = path.stat()
    except OSError:  # it does not exist
        return {path}
    return {path, (status.st_dev, status.st_ino)}
