"""Written videos: pixels and times are read back, and the file plays whenever writing stops."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch

from tests.streaming import scene
from track.media.sources import VideoFile
from track.media.video_writer import VideoWriter


def write(path: Path, count: int = 12, rate: float = 10, size: tuple[int, int] = (48, 64)) -> Path:
    with VideoWriter(path, rate) as video:
        for number in range(count):
            video.write(torch.full((3, *size), 20 * number % 256, dtype=torch.uint8))
    return path


def test_frames_are_read_back_with_their_times_and_pixels(tmp_path: Path) -> None:
    source = VideoFile(write(tmp_path / "a.mp4"))
    frames = list(source)
    assert [frame.number for frame in frames] == list(range(1, 13))
    assert [round(frame.time, 3) for frame in frames] == [round(n / 10, 3) for n in range(12)]
    assert frames[5].image.float().mean().item() == pytest.approx(100, abs=3)
    assert (source.frame_count, source.frame_rate) == (12, 10)


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
    assert len(list(VideoFile(tmp_path / "a.mp4"))) == 7


def test_the_frames_so_far_play_if_the_process_is_killed(tmp_path: Path) -> None:
    video = VideoWriter(tmp_path / "a.mp4", 10)
    for number in range(100):
        video.write(torch.full((3, 48, 64), number, dtype=torch.uint8))
    shutil.copy(tmp_path / "a.mp4", tmp_path / "as-it-is-now.mp4")
    video.close()
    assert 40 <= len(list(VideoFile(tmp_path / "as-it-is-now.mp4"))) <= 100


def test_a_fragment_is_two_seconds_of_the_frames_own_times(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 30) as video:
        for number in range(20):
            video.write(scene(number / 10), number / 2)  # two frames per second
    with av.open(str(tmp_path / "a.mp4")) as file:
        keys = [float(packet.pts * packet.time_base) for packet in file.demux(video=0) if packet.is_keyframe]
    assert keys == pytest.approx([0, 2, 4, 6, 8])


def test_a_full_disk_is_reported_and_the_frames_before_play(tmp_path: Path) -> None:
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
    message = r"a\.mp4: write failed after (\d+) frames \(File too large\); the earlier frames are playable"
    reported = re.search(message, last)
    assert reported, done.stderr
    assert 20 <= len(list(VideoFile(tmp_path / "a.mp4", report=print))) <= int(reported[1])


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match=r"file/a\.mp4: expected a file that can be written"):
        VideoWriter(tmp_path / "file" / "a.mp4")


def test_no_other_file_is_touched(tmp_path: Path) -> None:
    (tmp_path / "a.part").write_text("a user's")
    write(tmp_path / "a.mp4")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "a.part"]
    assert (tmp_path / "a.part").read_text() == "a user's"


@pytest.mark.parametrize("size", [(1, 64), (48, 1), (0, 64)])
def test_images_too_small_for_the_format_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    message = rf"a\.mp4: expected images of at least 2 by 2 pixels, got {size[1]} by {size[0]}"
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a.mp4", size=size)


def test_images_of_another_size_are_scaled_to_the_first(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 10) as video:
        for side in (32, 64, 48):
            image = torch.full((3, side, 2 * side), 40, dtype=torch.uint8)
            image[:, :, side:] = 200
            video.write(image)
    images = [frame.image.float() for frame in VideoFile(tmp_path / "a.mp4")]
    assert [tuple(image.shape) for image in images] == [(3, 32, 64)] * 3
    for image in images:
        assert image[:, :, 4:28].mean().item() == pytest.approx(40, abs=4)
        assert image[:, :, 36:60].mean().item() == pytest.approx(200, abs=4)


def test_a_killed_process_leaves_all_but_the_last_two_frames_playable(tmp_path: Path) -> None:
    program = (
        "import torch\nfrom track.media.video_writer import VideoWriter\nvideo = VideoWriter('out.mp4', 30)\n"
        "while True:\n    video.write(torch.full((3, 64, 96), 80, dtype=torch.uint8))\n    print(1, flush=True)\n"
        "    input()"
    )
    for frames in (3, 5, 70):
        command = [sys.executable, "-c", program]
        process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin
        assert process.stdout
        for n in range(frames):
            assert process.stdout.readline() == b"1\n"
            if n < frames - 1:
                process.stdin.write(b"\n")
                process.stdin.flush()
        process.kill()
        process.wait()
        assert len(list(VideoFile(tmp_path / "out.mp4"))) in (frames - 2, frames - 1)  # one may be being encoded


def test_an_image_may_be_changed_as_soon_as_it_is_written(tmp_path: Path) -> None:
    image = torch.zeros(3, 480, 640, dtype=torch.uint8).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    with VideoWriter(tmp_path / "a.mp4", 10) as video:
        for number in range(8):
            image.fill_(20 * number)
            video.write(image)
    means = [frame.image.float().mean().item() for frame in VideoFile(tmp_path / "a.mp4")]
    assert means == pytest.approx([20 * number for number in range(8)], abs=3)


def test_the_last_frames_failure_is_reported_when_the_file_is_closed(tmp_path: Path) -> None:
    program = f"""
import resource, sys, torch
from track.media.video_writer import VideoWriter
video = VideoWriter({str(tmp_path / "a.mp4")!r}, 10)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for number in range(2):
    video.write((torch.rand(3, 96, 96) * 255).byte())
try:
    video.close()
except ValueError as error:
    print(error)
video.close()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", 0)
    assert re.search(r"a\.mp4: write failed after \d frames \(File too large\)", done.stdout)
