"""Tables with one row per box and named columns, as `grutrack demo output=` writes them: CSV, JSON Lines, Parquet.

    frame,time,id,class,x1,y1,x2,y2,score
    1,0.0,1,car,398.0,181.0,519.0,410.0,0.98

frame: from 1. time: seconds. class: a name. Boxes: corners in pixels from 0. Parquet needs pyarrow.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

from track.checkpoint import first_line, install_command, printable
from track.formats.annotated import (
    IGNORED_REGION,
    REGION_NAME,
    AnnotatedVideo,
    Format,
    Row,
    build_video,
    check_row,
    files_at,
    is_ignored_region,
    write_text,
)
from track.formats.footage import DEFAULT_RATE

RESULT_COLUMNS = ["frame", "time", "id", "class", "x1", "y1", "x2", "y2", "score"]
REQUIRED = [column for column in RESULT_COLUMNS if column not in ("time", "score")]
Values = Mapping[str, Any]
Records = Iterable[tuple[str, Values]]  # where each row is, and its values by column


def matches(suffix: str, path: Path) -> bool:
    """Whether `path` is a file of that suffix, or a folder of files whose first row has the columns."""
    files = files_at(path, suffix)
    if path.is_file():
        return bool(files)
    try:
        _, first = next(iter(RECORDS[suffix](files[0])), ("", {})) if files else ("", {})
    except ValueError as error:
        return "pyarrow" in str(error)
    return all(column in first for column in REQUIRED)


def read(suffix: str, path: Path) -> list[AnnotatedVideo]:
    """Each file as a video. Classes are numbered in the order of their names; the frame rate is that of the times."""
    return [_read_file(file, list(RECORDS[suffix](file))) for file in files_at(path, suffix)]


def write(suffix: str, folder: Path, videos: Sequence[AnnotatedVideo]) -> list[Path]:
    """One <sequence>.<suffix> each."""
    return [WRITERS[suffix](folder / f"{video.name}{suffix}", _rows(video)) for video in videos]


def _read_file(file: Path, records: list[tuple[str, Values]]) -> AnnotatedVideo:
    if not records:
        raise ValueError(f"{file}: expected a row per box, found none")
    where, first = records[0]
    if missing := [column for column in REQUIRED if column not in first]:
        got = printable(", ".join(str(column) for column in first if column is not None))[:80]
        commas = ", separated by commas" if file.suffix.lower() == ".csv" else ""
        raise ValueError(f"{where}: expected the columns {', '.join(REQUIRED)}{commas}: no {missing[0]} in {got}")
    names = sorted({str(values.get("class")) for _, values in records} - {REGION_NAME})
    labels = {name: label for label, name in enumerate(names, 1)} | {REGION_NAME: IGNORED_REGION}
    rows = [_row(where, values, labels) for where, values in records]
    rate = _frame_rate([(row[0], values.get("time")) for row, (_, values) in zip(rows, records, strict=True)])
    return build_video(file.stem, file, rows, dict(enumerate(names, 1)), rate)


def _row(where: str, values: Values, labels: Mapping[str, int]) -> Row:
    try:
        frame, identity = int(values["frame"]), int(values["id"])
        box = [float(values[side]) for side in ("x1", "y1", "x2", "y2")]
        score = float(values.get("score", 1.0))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(f"{where}: expected numbers in {', '.join(RESULT_COLUMNS)}") from None
    label = labels[str(values.get("class"))]
    return check_row(where, (frame, identity, label, 0.0 if label == IGNORED_REGION else score, box))


def _frame_rate(stamps: list[tuple[int, Any]]) -> float:
    """Frames per second from frame numbers and times; `DEFAULT_RATE` if times are absent or not increasing."""
    try:
        times = sorted({(frame, float(time)) for frame, time in stamps})
    except (TypeError, ValueError):
        return DEFAULT_RATE
    if len(times) < 2 or times[-1][0] == times[0][0]:
        return DEFAULT_RATE
    step = (times[-1][1] - times[0][1]) / (times[-1][0] - times[0][0])  # over all: each time is rounded
    return float(f"{1 / step:.5g}") if 1e-3 < step < 1e6 else DEFAULT_RATE


def _rows(video: AnnotatedVideo) -> Iterator[list[Any]]:
    """The values of `RESULT_COLUMNS` for each box."""
    for number, frame in enumerate(video.frames, 1):
        columns = frame.ids.tolist(), frame.labels.tolist(), frame.boxes.tolist(), frame.scores.tolist()
        for region, identity, label, box, score in zip(is_ignored_region(frame).tolist(), *columns, strict=True):
            name = REGION_NAME if region else video.name_of(label)
            time = round((number - 1) / video.frame_rate, 4)
            yield [number, time, identity, name, *(round(side, 2) for side in box), round(score, 4)]


def _csv_records(file: Path) -> Iterator[tuple[str, Values]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            for values in reader:
                yield f"{file}, line {reader.line_num}", values
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file}: expected a CSV file ({error})") from error


def _jsonl_records(file: Path) -> Iterator[tuple[str, Values]]:
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    values = json.loads(line)
                    if not isinstance(values, dict):
                        raise ValueError("no object")
                    yield f"{file}, line {number}", values
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: expected a JSON object per line ({error})") from error


def _parquet_records(file: Path) -> Iterator[tuple[str, Values]]:
    parquet = _pyarrow("pyarrow.parquet")
    try:
        row = 0
        for batch in parquet.ParquetFile(file).iter_batches():
            for values in batch.to_pylist():
                row += 1
                yield f"{file}, row {row}", values
    except (OSError, _pyarrow("pyarrow").ArrowException) as error:
        raise ValueError(f"{file}: expected a Parquet file ({first_line(error)})") from error


def _write_csv(file: Path, rows: Iterable[list[Any]]) -> Path:
    def lines() -> Iterator[str]:
        for row in [RESULT_COLUMNS, *rows]:
            line = StringIO()
            csv.writer(line, lineterminator="\n").writerow(row)
            yield line.getvalue()

    return write_text(file, lines())


def _write_jsonl(file: Path, rows: Iterable[list[Any]]) -> Path:
    return write_text(file, (json.dumps(dict(zip(RESULT_COLUMNS, row, strict=True))) + "\n" for row in rows))


def _write_parquet(file: Path, rows: Iterable[list[Any]]) -> Path:
    parquet, table = _pyarrow("pyarrow.parquet"), list(rows)
    columns = dict(zip(RESULT_COLUMNS, zip(*table, strict=True), strict=True)) if table else {}
    arrays = {name: list(columns.get(name, [])) for name in RESULT_COLUMNS}
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(_pyarrow("pyarrow").table(arrays), file)
    return file


def _pyarrow(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(f"Parquet needs pyarrow: {install_command('parquet')}") from error


RECORDS: dict[str, Callable[[Path], Records]] = {
    ".csv": _csv_records,
    ".jsonl": _jsonl_records,
    ".parquet": _parquet_records,
}
WRITERS: dict[str, Callable[[Path, Iterable[list[Any]]], Path]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
CSV, JSONL, PARQUET = (
    Format(suffix[1:], title, partial(matches, suffix), partial(read, suffix), partial(write, suffix))
    for suffix, title in ((".csv", "CSV"), (".jsonl", "JSON Lines"), (".parquet", "Parquet"))
)
