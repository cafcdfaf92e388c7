"""Tables of comma-separated numbers with a frame number in column 1, checked row by row before they are used."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from track.structures import MAX_COORDINATE, Detections

MAX_LENGTH = 5_000_000  # frames, two days of video: a larger number in a file is a mistake, not a length
MAX_INTEGER = 2**53  # up to here float64 holds every whole number
Rows = TypeVar("Rows", bound=Detections)


def read_table(path: Path, columns: int, boxes: bool = True) -> tuple[np.ndarray, list[int]]:
    """The float64 table in a comma-separated file and the line number of each row; blank lines are skipped.

    Raises ValueError with the file and line of a row that is not `columns` or more finite numbers, of another length
    than the first row, or (with `boxes`) of negative width or height in columns 5 and 6.
    """
    rows: list[list[float]] = []
    lines: list[int] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = [float(value) for value in line.strip().rstrip(",").split(",")]
        except ValueError:
            raise ValueError(f"{path}, line {number}: expected comma-separated numbers, got {line[:80]!r}") from None
        if len(row) < columns or (rows and len(row) != len(rows[0])):
            expected = f"{len(rows[0])} columns as before" if rows else f"at least {columns} columns"
            raise ValueError(f"{path}, line {number}: expected {expected}, got {len(row)}")
        rows.append(row)
        lines.append(number)
    table = np.array(rows, np.float64).reshape(len(rows), -1 if rows else columns)
    require(path, lines, np.isfinite(table).all(1), "expected finite numbers")
    if boxes:
        require(path, lines, (table[:, 4:6] >= 0).all(1), "expected a width and height that are not negative")
        far = np.abs(table[:, 2:6]).max(1, initial=0.0) > MAX_COORDINATE
        require(path, lines, ~far, f"expected a box within {MAX_COORDINATE:g} pixels")
    return table, lines


def read_text(path: Path) -> str:
    """The content of a text file. Raises ValueError if it cannot be read as UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a text file of comma-separated numbers ({error})") from error


def require(path: Path, lines: list[int], valid: Any, expected: str) -> None:
    """Raise ValueError with the line number of the first row that is not valid."""
    if not valid.all():
        raise ValueError(f"{path}, line {lines[int(valid.argmin())]}: {expected}")


def frame_index(path: Path, column: np.ndarray, lines: list[int], length: int) -> np.ndarray:
    """0-based frame indices. Raises ValueError for a frame number that is not a whole number from 1 to `length`."""
    valid = (column >= 1) & (column <= length) & (column == np.round(column))
    require(path, lines, valid, f"expected a frame number from 1 to {length} in column 1")
    return column.astype(np.int64) - 1


def rows_by_frame(path: Path, rows: Rows, column: np.ndarray, lines: list[int], length: int) -> list[Rows]:
    """The rows of each frame, by the frame numbers in `column`, in the order of the file."""
    frames = frame_index(path, column, lines, length)
    order = np.argsort(frames, kind="stable")
    bounds = np.searchsorted(frames[order], np.arange(length + 1))
    index = torch.from_numpy(order)
    empty = rows[:0]  # shared, so that a long video with few rows needs little memory
    return [rows[index[start:end]] if end > start else empty for start, end in pairwise(bounds.tolist())]


def last_frame(path: Path) -> int:
    """The largest frame number in column 1, 0 for a file without rows. Raises ValueError beyond `MAX_LENGTH`."""
    table, lines = read_table(path, columns=6, boxes=False)
    return int(frame_index(path, table[:, 0], lines, MAX_LENGTH).max(initial=-1)) + 1


def whole(column: np.ndarray) -> np.ndarray:
    """Which values of a column are whole numbers that int64 and float64 both hold."""
    return (column == np.round(column)) & (np.abs(column) <= MAX_INTEGER)
