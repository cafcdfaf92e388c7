"""CSV, JSON Lines and Parquet: what `grutrack demo output=` writes, frame rates from times, and a missing pyarrow."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.formats.test_annotated import make_video
from track.formats.tabular import CSV, PARQUET, RESULT_COLUMNS
from track.media import results


def test_the_columns_are_those_of_result_files() -> None:
    assert results.RESULT_COLUMNS == RESULT_COLUMNS


def test_a_real_row_is_read_with_the_rate_of_its_times(tmp_path: Path) -> None:
    rows = "1,0.0,1,car,398.0,181.0,519.0,410.0,0.98\n3,0.08,1,car,398.0,181.0,519.0,410.0,0.97\n"
    (tmp_path / "a.csv").write_text(",".join(RESULT_COLUMNS) + "\n" + rows)
    (video,) = CSV.read(tmp_path / "a.csv")
    assert (video.frame_rate, len(video.frames), video.label_names) == (25.0, 3, {1: "car"})
    assert video.frames[0].boxes.tolist() == [[398, 181, 519, 410]]


def test_another_csv_is_not_taken_for_tracks(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sequence,HOTA\na,50\n")
    assert not CSV.matches(tmp_path)
    with pytest.raises(
        ValueError, match=r"a\.csv, line 2: expected the columns frame, id, .* no frame in sequence, HOTA"
    ):
        CSV.read(tmp_path / "a.csv")


def test_parquet_without_pyarrow_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match="Parquet needs pyarrow"):
        PARQUET.write(tmp_path, [make_video()])
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    assert PARQUET.matches(tmp_path)
    with pytest.raises(ValueError, match="Parquet needs pyarrow"):
        PARQUET.read(tmp_path)


def test_a_damaged_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"a.parquet: expected a Parquet file"):
        PARQUET.read(tmp_path / "a.parquet")
