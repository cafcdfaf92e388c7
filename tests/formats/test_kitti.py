"""KITTI's tracking labels: frames and pixels from 0, DontCare regions, and scores of results."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from track.formats.annotated import is_ignored_region
from track.formats.kitti import KITTI

ROWS = """\
0 -1 DontCare -1 -1 -10.000000 219.31 188.49 245.50 218.56 -1000 -1000 -1000 -10 -1 -1 -1
0 -1 DontCare -1 -1 -10.000000 47.56 195.28 115.48 221.48 -1000 -1000 -1000 -10 -1 -1 -1
0 0 Van 0 0 -1.793451 296.74 161.75 455.23 292.37 2.000000 1.823255 4.433886 -4.55 1.86 13.41 -2.115488
2 0 Van 0 0 -1.793451 294.90 156.02 452.20 284.62 2.000000 1.823255 4.433886 -4.55 1.86 13.41 -2.115488
2 1 Tractor 0 0 -1.8 294.90 156.02 452.20 284.62 2.000000 1.823255 4.433886 -4.55 1.86 13.41 -2.115488
"""


def test_real_rows_are_read(tmp_path: Path) -> None:
    (tmp_path / "label_02").mkdir()
    (tmp_path / "label_02" / "0000.txt").write_text(ROWS)
    assert KITTI.matches(tmp_path)
    (video,) = KITTI.read(tmp_path)
    assert (video.name, video.frame_rate, [len(frame) for frame in video.frames]) == ("0000", 10.0, [3, 0, 2])
    assert is_ignored_region(video.frames[0]).tolist() == [True, True, False]
    assert [round(side, 2) for side in video.frames[0].boxes[2].tolist()] == [296.74, 161.75, 455.23, 292.37]
    assert [video.name_of(label) for label in video.labels()] == ["Van", "Tractor"]


def test_images_beside_the_labels_give_length_and_size(tmp_path: Path) -> None:
    for folder in ("label_02", "image_02/0000"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "label_02" / "0000.txt").write_text(ROWS)
    for number in range(5):
        Image.new("RGB", (64, 48)).save(tmp_path / "image_02/0000" / f"{number:06d}.png")
    (video,) = KITTI.read(tmp_path)
    assert (len(video.frames), video.width, video.height) == (5, 64, 48)


def test_column_18_is_the_score_of_results(tmp_path: Path) -> None:
    (tmp_path / "0000.txt").write_text("0 3 Car -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10 0.75\n")
    assert KITTI.read(tmp_path / "0000.txt")[0].frames[0].scores.tolist() == [0.75]
