"""Image files: round trips, RGB from every format, and what is refused."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from track.media.images import as_image, read_image, save_image, to_bgr, to_jpeg, to_rgb

RED = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 6, 8)
COLOURS = torch.randint(0, 256, (3, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
COLOURS[:, 0, 0] = 0
COLOURS[:, 0, 1] = 255
ARRAY = COLOURS.permute(1, 2, 0).numpy()  # (6, 8, 3)
GREY = COLOURS[:1].expand(3, 6, 8)


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


def png(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds no pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("side", [9000, 20_000, 33_000, 2**31 - 1])
def test_an_image_that_claims_too_many_pixels_is_none(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png(side, side))
    tracemalloc.start()
    assert read_image(tmp_path / "a.png") is None
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


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


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (COLOURS, COLOURS),
        (COLOURS.permute(1, 2, 0), COLOURS),
        (ARRAY, COLOURS),
        (ARRAY[::-1], COLOURS.flip(1)),
        (ARRAY.transpose(2, 0, 1), COLOURS),
        (COLOURS.float() / 255, COLOURS),
        (COLOURS.double() / 255, COLOURS),
        (COLOURS.half() / 255, COLOURS),
        ((COLOURS.float() / 255).requires_grad_(), COLOURS),
        (ARRAY.astype(np.float32) / 255, COLOURS),
        (ARRAY.astype(np.float64) / 255 * (1 + 1e-7), COLOURS),
        (COLOURS.to(torch.uint16) * 257, COLOURS),
        (ARRAY.astype(np.uint16) * 257, COLOURS),
        (ARRAY.astype(">u2") * 257, COLOURS),
        (COLOURS.long(), COLOURS),
        (ARRAY.astype(np.int32), COLOURS),
        (ARRAY[..., 0], GREY),
        (ARRAY[..., :1], GREY),
        (COLOURS[:1], GREY),
        (COLOURS[0].float() / 255, GREY),
        (torch.cat([COLOURS, COLOURS[:1]]), COLOURS),
        (np.concatenate([ARRAY, ARRAY[..., :1]], axis=2), COLOURS),
        (Image.fromarray(ARRAY), COLOURS),
        (Image.fromarray(ARRAY[..., 0]), GREY),
        (Image.fromarray(ARRAY).convert("RGBA"), COLOURS),
        (Image.fromarray(ARRAY[..., 0].astype(np.uint16) * 257), GREY),
    ],
)
def test_images_of_every_usual_kind_become_the_same_bytes(value: object, expected: torch.Tensor) -> None:
    image = as_image(value)
    assert image.dtype == torch.uint8
    assert not image.requires_grad
    torch.testing.assert_close(image, expected, rtol=0, atol=0)


def test_a_tensor_of_bytes_is_not_copied() -> None:
    assert as_image(COLOURS).data_ptr() == COLOURS.data_ptr()


def test_sixteen_bits_are_rounded_and_white_stays_white() -> None:
    values = torch.tensor([[0, 128, 129, 257, 65406, 65407, 65535]], dtype=torch.int32).to(torch.uint16)
    assert as_image(values)[0, 0].tolist() == [0, 0, 1, 1, 254, 255, 255]
    assert as_image(torch.tensor([[0.0, 0.5 / 255 + 1e-4, 1.0]]))[0, 0].tolist() == [0, 1, 255]


def test_channels_are_first_in_a_tensor_and_last_in_an_array_that_could_be_either() -> None:
    value = torch.arange(27, dtype=torch.uint8).reshape(3, 3, 3)
    assert as_image(value).equal(value)
    assert as_image(value.numpy()).equal(value.permute(2, 0, 1))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (COLOURS.float(), r"expected floats in 0..1, or uint8, got values from 0 to 255"),
        (COLOURS.float() / 127.5 - 1, r"expected floats in 0..1, or uint8, got values from -1 to 1"),
        (torch.full((3, 4, 5), float("nan")), r"expected floats in 0..1, or uint8, got values from nan to nan"),
        (COLOURS.int() * 257, r"expected integers in 0..255, or uint8, got values from 0 to 65535"),
        (COLOURS.int() - 1, r"expected integers in 0..255, or uint8, got values from -1 to 254"),
        (COLOURS[None], r"expected one of shape \(3, H, W\), \(H, W, 3\) or \(H, W\), got \(1, 3, 6, 8\)"),
        (COLOURS[:2], r"got \(2, 6, 8\)"),
        (COLOURS[:, :0], r"got \(3, 0, 8\)"),
        (np.zeros((6, 8, 5), np.uint8), r"got \(6, 8, 5\)"),
        (np.zeros(7, np.uint8), r"got \(7,\)"),
        (COLOURS > 3, r"of numbers, got Tensor of torch.bool"),
        (np.zeros((6, 8), bool), r"of numbers, got ndarray of bool"),
        (np.array(["a"]), r"of numbers, got ndarray of <U1"),
        ("a.png", r"expected a tensor, array or Pillow image of numbers, got str$"),
        ([[1, 2]], r"got list$"),
        (None, r"got NoneType$"),
    ],
)
def test_what_is_no_image_is_refused_in_words(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^image: .*{message}"):
        as_image(value)
