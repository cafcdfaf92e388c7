"""VisDrone-MOT's annotations: ignored regions, flags and classes."""

from __future__ import annotations

from pathlib import Path

from track.formats.annotated import is_ignored_region
from track.formats.visdrone import VISDRONE

ROWS = """\
1,0,593,43,174,190,0,0,0,0
1,1,684,8,273,116,0,0,0,0
1,4,1020,208,20,30,1,4,0,1
3,5,20,20,30,60,1,11,1,2
"""


def test_real_rows_are_read(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "uav0000013.txt").write_text(ROWS)
    assert VISDRONE.matches(tmp_path)
    (video,) = VISDRONE.read(tmp_path)
    assert [len(frame) for frame in video.frames] == [3, 0, 1]
    assert is_ignored_region(video.frames[0]).tolist() == [True, True, False]
    assert video.frames[0].boxes[2].tolist() == [1020, 208, 1040, 238]
    assert [video.name_of(label) for label in video.labels()] == ["car", "others"]


def test_motchallenge_results_of_ten_columns_are_not_visdrone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1,4,1020,208,20,30,1,-1,-1,-1\n")
    assert not VISDRONE.matches(tmp_path / "a.txt")
