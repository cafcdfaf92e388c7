import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.streaming import scene
from track.display.window import show
from track.media.sources import prefetch
from track.media.video_writer import VideoWriter


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


def test_what_was_written_plays_when_the_process_is_killed(tmp_path: Path) -> None:
    video = VideoWriter(tmp_path / "a.mp4", 10)
    for number in range(100):
        video.write(torch.full((3, 48, 64), number, dtype=torch.uint8))
    shutil.copy(tmp_path / "a.mp4", tmp_path / "as-it-is-now.mp4")
    video.close()
    assert 40 <= len(list(frames(tmp_path / "as-it-is-now.mp4"))) <= 100


def test_a_fragment_is_two_seconds_of_the_frames_own_times(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 30) as video:
        for number in range(20):
            video.write(scene(number / 10), number / 2)  # two frames a second
    with av.open(str(tmp_path / "a.mp4")) as file:
        keys = [float(packet.pts * packet.time_base) for packet in file.demux(video=0) if packet.is_keyframe]
    assert keys == pytest.approx([0, 2, 4, 6, 8])


def test_a_full_disk_is_told_and_what_was_written_plays(tmp_path: Path) -> None:
    program = f"""
import resource, sys, torch
from track.media.video_writer import VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
with VideoWriter({str(tmp_path / "a.mp4")!r}, 10) as video:
    for number in range(300):
        video.write((torch.rand(3, 96, 96) * 255).byte())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    told = re.search(r"a\.mp4: could not be written on after (\d+) frames \(File too large\): those before play", last)
    assert told, done.stderr
    assert 20 <= len(list(frames(tmp_path / "a.mp4", report=print))) <= int(told[1])


def test_pictures_of_another_size_are_scaled_to_the_first(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 10) as video:
        for side in (32, 64, 48):
            image = torch.full((3, side, 2 * side), 40, dtype=torch.uint8)
            image[:, :, side:] = 200
            video.write(image)
    back = [frame.image.float() for frame in frames(tmp_path / "a.mp4")]
    assert [tuple(image.shape) for image in back] == [(3, 32, 64)] * 3
    for image in back:
        assert image[:, :, 4:28].mean().item() == pytest.approx(40, abs=4)
        assert image[:, :, 36:60].mean().item() == pytest.approx(200, abs=4)


def test_a_video_whose_resolution_changes_keeps_its_first(tmp_path: Path) -> None:
    parts = b""
    for size in ((64, 48), (128, 96)):
        with av.open(str(tmp_path / "part.ts"), "w", format="mpegts") as file:
            stream = file.add_stream("mpeg2video", rate=10)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for _ in range(12):
                file.mux(stream.encode(av.VideoFrame(*size, "yuv420p")))
            file.mux(stream.encode())
        parts += (tmp_path / "part.ts").read_bytes()
    (tmp_path / "a.ts").write_bytes(parts)
    read = list(frames(tmp_path / "a.ts"))
    assert 22 <= len(read) <= 24
    assert {tuple(frame.image.shape) for frame in read} == {(3, 48, 64)}


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

    taken = prefetch(numbers(), depth=3)
    assert [next(taken) for _ in range(10)] == list(range(10))
    taken.close()
    assert len(made) <= 14
    assert list(prefetch(iter(range(100)))) == list(range(100))


def test_an_error_ahead_comes_in_its_turn() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("frame 2")

    taken = prefetch(broken())
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
