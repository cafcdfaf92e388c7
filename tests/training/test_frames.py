"""Pictures to train a detector on: their boxes, and what is refused."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from track.training.frames import FramesData, Pictures, penn_fudan

LINE = 'Bounding box for object 1 "PASpersonWalking" (Xmin, Ymin) - (Xmax, Ymax) : (11, 21) - (31, 61)\n'


def photographs(root: Path, count: int = 3, text: str = LINE) -> Path:
    for folder in ("Annotation", "PNGImages"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        (root / "Annotation" / f"p{number}.txt").write_text(text)
        Image.new("RGB", (80, 64), (number, 0, 0)).save(root / "PNGImages" / f"p{number}.png")
    return root


def test_penn_fudan_boxes_become_zero_based(tmp_path: Path) -> None:
    (example,), *_ = penn_fudan(photographs(tmp_path))
    assert example.boxes.tolist() == [[10, 20, 30, 60]]


def test_the_last_pictures_validate_and_are_not_trained_on(tmp_path: Path) -> None:
    data = FramesData(str(photographs(tmp_path, 5)), val_fraction=0.4)
    data.setup("fit")
    assert [e.file.stem for e in data.train.examples] == ["p0", "p1", "p2"]
    assert [e.file.stem for e in data.val.examples] == ["p3", "p4"]


def test_mirroring_takes_the_boxes_along(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = Pictures([e for (e,) in penn_fudan(photographs(tmp_path, 1))], augment=True)
    found = {tuple(data[0][1]["boxes"][0].tolist()) for _ in range(20)}
    assert found == {(10, 20, 30, 60), (50, 20, 70, 60)}


def test_an_annotation_without_boxes_or_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"p0.txt: expected at least one line 'Bounding box"):
        penn_fudan(photographs(tmp_path / "a", text="nothing\n"))
    (photographs(tmp_path / "b") / "PNGImages" / "p1.png").unlink()
    with pytest.raises(ValueError, match=r"p1.txt: expected its image"):
        penn_fudan(tmp_path / "b")


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    root = photographs(tmp_path, 1)
    (root / "PNGImages" / "p0.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"p0.png: expected an image that can be read"):
        Pictures([e for (e,) in penn_fudan(root)], augment=False)[0]
