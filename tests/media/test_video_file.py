"""Video files of each container: times, lengths that are wrong, ends that are missing, and pixels as OpenCV's."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from track.media.images import to_rgb
from track.media.sources import open_source
from track.media.video_file import FrameClock, VideoFile, is_cut_short
from track.media.video_writer import VideoWriter

CODECS = {".webm": "libvpx", ".avi": "mpeg4"}
EVEN = [number / 10 for number in range(60)]
UNEVEN = [number**1.5 / 30 for number in range(60)]


def write(path: Path, times: Sequence[float] = EVEN, audio: float = 0, b_frames: int = 0, rotation: int = 0) -> Path:
    """A video of the container that the suffix names; audio: seconds of silence."""
    clock = Fraction(1, 10 if path.suffix == ".avi" else 1000)
    with av.open(str(path), "w") as file:
        stream = file.add_stream(CODECS.get(path.suffix, "libx264"), rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = clock
        stream.codec_context.max_b_frames = b_frames
        if rotation:
            stream.set_display_rotation(rotation)
        sound = file.add_stream("libopus" if path.suffix == ".webm" else "aac", rate=48000) if audio else None
        for time in times:
            image = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(round(1000 * time)))
            frame = av.VideoFrame.from_ndarray((image.permute(1, 2, 0) * 255).byte().numpy(), "rgb24")
            frame.pts = round(time / clock)
            frame.time_base = clock
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        for index in range(int(audio * 50)):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), "s16", "mono")
            silence.rate = 48000
            silence.pts = 960 * index
            file.mux(sound.encode(silence))
        if sound is not None:
            file.mux(sound.encode())
    return path


def cut(path: Path, part: float) -> Path:
    """Remove the end of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    return path


def erase(path: Path, packets: range) -> Path:
    """Overwrite packets with zeros, as in a download that was never completed."""
    with av.open(str(path)) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for place, size in places[packets.start : packets.stop]:
        content[place : place + size] = bytes(size)
    path.write_bytes(content)
    return path


def opencv_images(path: Path) -> list[torch.Tensor]:
    video = cv2.VideoCapture(str(path))
    images = []
    while (read := video.read())[0]:
        images.append(to_rgb(read[1]))
    return images


@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".flv", ".ts"])
def test_frames_have_the_files_own_times_from_zero(tmp_path: Path, suffix: str, b_frames: int, pixels: bool) -> None:
    source = VideoFile(write(tmp_path / f"a{suffix}", [2 + time for time in UNEVEN], b_frames=b_frames))
    frames = list(source if pixels else source.without_pixels())
    assert [frame.number for frame in frames] == list(range(1, 61))
    assert [frame.time for frame in frames] == pytest.approx(UNEVEN, abs=2e-3)
    assert frames[0].time == 0
    assert {frame.is_blank for frame in frames} == {not pixels}
    assert {frame.image.shape for frame in frames} == {(3, 64, 96)}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".ts", ".flv"])
def test_pixels_are_those_of_opencv(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", EVEN[:10])
    images = [frame.image for frame in VideoFile(path)]
    torch.testing.assert_close(torch.stack(images), torch.stack(opencv_images(path)), rtol=0, atol=0)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_images_are_rotated_as_the_file_says(tmp_path: Path, rotation: int) -> None:
    path = write(tmp_path / "a.mp4", EVEN[:4], rotation=rotation)
    source = VideoFile(path)
    images = [frame.image for frame in source]
    assert {image.shape for image in images} == {(3, 64, 96) if rotation == 180 else (3, 96, 64)}
    torch.testing.assert_close(torch.stack(images), torch.stack(opencv_images(path)), rtol=0, atol=0)
    assert [frame.image.shape for frame in source.without_pixels()] == [image.shape for image in images]


@pytest.mark.parametrize(
    ("timestamps", "times"),
    [
        ([0.5, 0.5, 0.5, 0.5], [0, 0.1, 0.2, 0.3]),  # a clock that stands still
        ([None, None, None, None], [0, 0.1, 0.2, 0.3]),
        ([3, 3.2, 3.1, 3.5], [0, 0.2, 0.3, 0.5]),
        ([None, 7, 7.5, 8.5], [0, 0.1, 0.6, 1.6]),
        ([50, 50.4, 0, 0.7, 0.9], [0, 0.4, 0.5, 1.2, 1.4]),  # a clock that starts again
        ([-0.2, 0, 3600], [0, 0.2, 3600.2]),
    ],
)
def test_times_start_at_zero_and_strictly_increase(timestamps: list[float | None], times: list[float]) -> None:
    clock = FrameClock(interval=0.1)
    assert [clock.time(timestamp) for timestamp in timestamps] == pytest.approx(times)


def test_a_stream_without_times_has_those_of_the_frame_rate(tmp_path: Path) -> None:
    with av.open(str(write(tmp_path / "a.mp4"))) as file:
        packets = av.BitStreamFilterContext("h264_mp4toannexb", file.streams.video[0])
        content = b"".join(bytes(one) for packet in file.demux(video=0) for one in packets.filter(packet))
    (tmp_path / "a.h264").write_bytes(content)
    source = VideoFile(tmp_path / "a.h264")
    assert source.frame_count is None
    assert [frame.time for frame in source] == pytest.approx([k / source.frame_rate for k in range(60)])


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".ts"])
def test_a_container_that_states_no_count_is_read_to_its_end(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", UNEVEN, audio=0 if suffix == ".ts" else 21)  # OpenCV: 210 frames
    source = VideoFile(path)
    assert source.frame_count is None
    assert len(list(source)) == 60


def test_an_mkv_without_a_duration_is_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv")
    content = path.read_bytes()
    place = content.index(b"\x44\x89\x88")  # the element Duration becomes Void
    path.write_bytes(content[:place] + b"\xec\x89" + content[place + 2 :])
    with av.open(str(path)) as file:
        assert file.duration is None
    assert len(list(VideoFile(path))) == 60


@pytest.mark.parametrize("stated", [20, 58, 61, 300])
def test_a_wrong_count_is_no_error_once_all_frames_were_decoded(tmp_path: Path, stated: int) -> None:
    path = write(tmp_path / "a.avi")
    content = bytearray(path.read_bytes())
    for name, offset in ((b"avih", 24), (b"strh", 40)):  # total frames; length of the stream
        place = content.index(name) + offset
        assert struct.unpack("<I", content[place : place + 4]) == (60,)
        content[place : place + 4] = struct.pack("<I", stated)
    path.write_bytes(content)
    source = VideoFile(path)
    assert source.frame_count == stated
    assert len(list(source)) == 60


def test_an_mp4_of_which_an_edit_list_shows_a_part_is_no_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    content = bytearray(path.read_bytes())
    place = content.index(b"elst") + 12  # duration in units of the movie's clock, 1/1000 s
    content[place : place + 4] = struct.pack(">I", 3000)
    path.write_bytes(content)
    source = VideoFile(path)
    assert source.frame_count == 60
    assert 29 <= len(list(source)) <= 32


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
    frames = list(open_source(tmp_path / "a.ts"))
    assert 22 <= len(frames) <= 24
    assert {tuple(frame.image.shape) for frame in frames} == {(3, 48, 64)}


@pytest.mark.parametrize("pixels", [True, False])
def test_a_video_that_stops_in_the_middle_is_refused_after_its_frames(tmp_path: Path, pixels: bool) -> None:
    with VideoWriter(tmp_path / "a.mp4", 10) as video:
        for number in range(100):
            video.write(torch.full((3, 48, 64), 20 * number % 256, dtype=torch.uint8))
    cut(tmp_path / "a.mp4", 2 / 3)
    source, numbers = open_source(tmp_path / "a.mp4"), []
    with pytest.raises(ValueError, match=r"a.mp4: stopped after frame \d+, expected 100") as refusal:
        numbers.extend(frame.number for frame in (source if pixels else source.without_pixels()))
    assert f"after frame {numbers[-1]}," in str(refusal.value)
    lines: list[str] = []
    assert [frame.number for frame in open_source(tmp_path / "a.mp4", lines.append)] == numbers
    assert lines == [str(refusal.value)]


@pytest.mark.parametrize("part", [0.5, 0.7, 0.97])
@pytest.mark.parametrize(
    ("suffix", "reason"),
    [
        (".avi", "expected 60"),
        (".mkv", "the end of the file is missing"),
        (".webm", "the end of the file is missing"),
        (".flv", "the end of the file is missing"),
    ],
)
def test_a_file_of_which_the_end_is_missing_is_refused(tmp_path: Path, suffix: str, reason: str, part: float) -> None:
    path = cut(write(tmp_path / f"a{suffix}"), part)
    numbers: list[int] = []
    with pytest.raises(ValueError, match=rf"a{suffix}: stopped after frame \d+, {reason}") as refusal:
        numbers.extend(frame.number for frame in VideoFile(path))
    assert 20 <= numbers[-1] < 60
    assert f"after frame {numbers[-1]}," in str(refusal.value)


@pytest.mark.parametrize(("damaged", "missing"), [(range(30, 60), range(28, 31)), (range(30, 31), range(9, 11))])
def test_a_video_of_which_many_frames_cannot_be_decoded_is_refused_after_the_others(
    tmp_path: Path, damaged: range, missing: range
) -> None:
    path = erase(write(tmp_path / "a.mp4"), damaged)  # frame 30 is a key frame, on which nine others depend
    count = 0
    with pytest.raises(ValueError, match=r"a.mp4: \d+ of 60 frames could not be decoded") as refusal:
        for _ in VideoFile(path):
            count += 1
    assert 60 - count in missing
    assert f"a.mp4: {60 - count} of 60" in str(refusal.value)


def test_a_packet_that_cannot_be_decoded_is_passed_over(tmp_path: Path) -> None:
    frames = list(VideoFile(erase(write(tmp_path / "a.mp4"), range(29, 30))))
    assert len(frames) == 59
    assert frames[28].time == pytest.approx(2.8)
    assert frames[29].time == pytest.approx(3.0)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts"])
def test_only_a_file_without_its_end_is_cut_short(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}")
    assert not is_cut_short(path)
    path.write_bytes(path.read_bytes() + b"other bytes that follow")
    assert not is_cut_short(path)
    assert is_cut_short(cut(path, 0.8)) == (suffix != ".ts")


@pytest.mark.parametrize("damage", [lambda content: content[:3], lambda content: b"", lambda content: content[:11]])
def test_the_first_bytes_of_a_file_do_not_say_that_it_is_cut_short(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = write(tmp_path / "a.avi")
    path.write_bytes(damage(path.read_bytes())[:7])
    assert not is_cut_short(path)


def test_a_sound_file_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.m4a"), "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=48000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), "s16", "mono")
        silence.rate = 48000
        file.mux(stream.encode(silence))
        file.mux(stream.encode())
    with pytest.raises(ValueError, match=r"a.m4a: expected a video$"):
        open_source(tmp_path / "a.m4a")


@pytest.mark.data
def test_pixels_of_the_pets_video_are_those_of_opencv(track_data: Path) -> None:
    path = track_data / "MOT15/train/PETS09-S2L1/video.avi"
    capture = cv2.VideoCapture(str(path))
    frames = list(VideoFile(path))
    assert len(frames) == 795
    for frame in frames:
        success, array = capture.read()
        assert success
        assert to_rgb(array).equal(frame.image)
    assert [frame.time for frame in frames] == pytest.approx([k / 10 for k in range(795)])
