import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from track.video import VideoWriter, ahead, frame_count, frame_rate, frames, show


def write(path: Path, count: int = 12, rate: float = 10, size: tuple[int, int] = (48, 64)) -> Path:
    with VideoWriter(path, rate) as video:
        for number in range(count):
            video.write(torch.full((3, *size), 20 * number % 256, dtype=torch.uint8))
    return path


def test_what_is_written_is_read_with_its_times_and_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    back = list(frames(path))
    assert [frame.number for frame in back] == list(range(1, 13))
    assert [round(frame.time, 3) for frame in back] == [round(n / 10, 3) for n in range(12)]
    assert back[5].image.float().mean().item() == pytest.approx(100, abs=3)
    assert (frame_count(path), frame_rate(path)) == (12, 10)


def test_the_file_plays_in_browsers(tmp_path: Path) -> None:
    with av.open(str(write(tmp_path / "a.mp4", size=(49, 65)))) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (64, 48)


def test_a_file_left_by_an_error_still_plays(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "a.mp4", 10) as video:
        for _ in range(7):
            video.write(torch.zeros(3, 32, 32, dtype=torch.uint8))
        raise RuntimeError
    assert len(list(frames(tmp_path / "a.mp4"))) == 7


def test_a_video_that_stops_in_the_middle_is_refused_after_its_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", count=100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    read = []
    with pytest.raises(ValueError, match=r"a.mp4: stopped after frame \d+, expected 100"):
        read.extend(frame.number for frame in frames(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.mp4", None, "absent.mp4: no such file"),
        ("text.mp4", b"not a video", "text.mp4: expected a video"),
        ("empty.mp4", b"", "empty.mp4: expected a video"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(frames(tmp_path / name))


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "000001.jpg").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"000001.jpg: expected an image"):
        list(frames(tmp_path))


@pytest.mark.data
def test_the_pets_video_is_read_whole(track_data: Path) -> None:
    times = [frame.time for frame in frames(track_data / "MOT15/train/PETS09-S2L1/video.avi")]
    assert len(times) == 795
    assert all(a < b for a, b in zip(times, times[1:], strict=False))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a window needs no display variable")
def test_without_a_display_a_window_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ValueError, match="no display to open a window on: give output="):
        show(torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_what_is_read_ahead_comes_in_order_and_no_further_than_it_may() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    taken = ahead(numbers(), depth=3)
    assert [next(taken) for _ in range(10)] == list(range(10))
    taken.close()
    assert len(made) <= 14
    assert list(ahead(iter(range(100)))) == list(range(100))


def test_an_error_ahead_comes_in_its_turn() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("frame 2")

    taken = ahead(broken())
    assert next(taken) == 1
    with pytest.raises(ValueError, match="frame 2"):
        next(taken)


def test_pictures_that_cannot_be_read_are_told_and_passed_over(tmp_path: Path) -> None:
    for number in (1, 3):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"")
    told: list[str] = []
    assert [(f.number, f.time) for f in frames(tmp_path, 10, told.append)] == [(1, 0.0), (3, 0.2)]
    assert told == [f"{tmp_path / '2.png'}: expected an image that can be read"]


def test_odd_pictures_are_read_as_colours_of_eight_bits(tmp_path: Path) -> None:
    Image.fromarray(np.full((6, 8), 200, np.uint8)).save(tmp_path / "1.png")
    Image.fromarray(np.full((6, 8), 200 * 256, np.uint16)).save(tmp_path / "2.png")
    turned = Image.new("RGB", (8, 6))
    turned.getexif()[0x0112] = 6  # a quarter to the right
    turned.save(tmp_path / "3.png", exif=turned.getexif())
    pictures = [frame.image for frame in frames(tmp_path)]
    assert [tuple(p.shape) for p in pictures] == [(3, 6, 8), (3, 6, 8), (3, 8, 6)]
    assert [int(p.float().mean()) for p in pictures] == [200, 200, 0]
