"""Image files: round trips, RGB from every format, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from track.media.images import read_image, save_image, to_bgr, to_jpeg, to_rgb

RED = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 6, 8)


def test_opencvs_arrays_are_bgr_and_converting_back_changes_nothing() -> None:
    assert to_bgr(RED).shape == (6, 8, 3)
    assert to_bgr(RED)[0, 0].tolist() == [0, 0, 255]
    image = torch.randint(0, 256, (3, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert to_rgb(to_bgr(image)).equal(image)


def test_grey_sixteen_bit_and_rotated_images_are_read_as_eight_bit_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((6, 8), 200, np.uint8)).save(tmp_path / "1.png")
    Image.fromarray(np.full((6, 8), 200 * 256, np.uint16)).save(tmp_path / "2.png")
    rotated = Image.new("RGB", (8, 6))
    rotated.getexif()[0x0112] = 6  # a quarter to the right
    rotated.save(tmp_path / "3.png", exif=rotated.getexif())
    images = [read_image(tmp_path / f"{number}.png") for number in (1, 2, 3)]
    assert [tuple(image.shape) for image in images] == [(3, 6, 8), (3, 6, 8), (3, 8, 6)]
    assert [image.dtype for image in images] == [torch.uint8] * 3
    assert [int(image.float().mean()) for image in images] == [200, 200, 0]


def test_a_file_that_is_no_image_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    assert read_image(tmp_path / "a.png") is None
    assert read_image(tmp_path / "absent.png") is None


def test_a_saved_image_is_read_back_and_its_folder_is_created(tmp_path: Path) -> None:
    path = save_image(tmp_path / "new" / "a.png", RED)
    assert path == tmp_path / "new" / "a.png"
    assert read_image(path).equal(RED)


@pytest.mark.parametrize("name", ["file/a.png", "a.unknown"])
def test_an_image_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{name}: expected an image file that can be written"):
        save_image(tmp_path / name, RED)


def test_a_jpeg_decodes_to_nearly_the_same_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(to_jpeg(RED))
    assert (read_image(tmp_path / "a.jpg").int() - RED.int()).abs().max() <= 3
