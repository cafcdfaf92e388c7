"""Video sources: what a path is opened as, frame numbers and times, broken files, and prefetching."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import av
import cv2
import pytest
import torch
from PIL import Image

from tests.media.test_video_file import write as write_media
from tests.streaming import MjpegServer, scene
from track.formats.mot import find_sequences, read_sequence, write_info
from track.media import capture, video_file
from track.media.capture import LiveCapture
from track.media.images import save_image
from track.media.sources import (
    ImageFolder,
    Selection,
    SequenceSource,
    VideoFile,
    VideoSource,
    find_sources,
    open_source,
    prefetch,
)
from track.media.video_writer import VideoWriter
from track.structures import Frame


def write_video(path: Path, count: int = 12, rate: float = 10) -> Path:
    with VideoWriter(path, rate) as video:
        for number in range(count):
            video.write(scene(number / rate))
    return path


def write_images(folder: Path, count: int = 12) -> Path:
    for number in range(1, 1 + count):
        save_image(folder / f"{number}.png", torch.full((3, 6, 8), number, dtype=torch.uint8))
    return folder


def write_sequence(folder: Path, count: int = 12, length: int | None = None, rate: float = 10) -> Path:
    write_images(folder / "img1", count)
    write_info(folder, rate, length or count, 8, 6)
    return folder


def numbers_and_times(source: VideoSource) -> list[tuple[int, float]]:
    return [(frame.number, frame.time) for frame in source]


class Captures:
    """The video files that were opened with PyAV and the captures that were constructed by OpenCV."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: list[str] = []
        self.captures: list[cv2.VideoCapture] = []
        open_file, construct = av.open, cv2.VideoCapture

        def count(*args: Any, **options: Any) -> Any:
            self.files += [args[0]] if "timeout" in options else []  # the writer opens files too
            return open_file(*args, **options)

        def capture_once(*args: Any) -> cv2.VideoCapture:
            self.captures.append(construct(*args))
            return self.captures[-1]

        monkeypatch.setattr(video_file.av, "open", count)
        monkeypatch.setattr(capture.cv2, "VideoCapture", capture_once)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Captures:
    return Captures(monkeypatch)


def is_open(path: Path) -> bool:
    """Whether this process has the file open."""
    return any(link.resolve() == path.resolve() for link in Path("/proc/self/fd").iterdir() if link.is_symlink())


class FileServer:
    """Serves a folder on loopback and counts the requests."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        requests = self.requests

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.path)
                super().do_GET()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[FileServer]:
    one = FileServer(tmp_path)
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture
def stream() -> Iterator[MjpegServer]:
    began = time.monotonic()
    one = MjpegServer(lambda: scene(time.monotonic() - began))
    yield one
    one.kill()


def test_a_path_or_url_is_opened_as_what_it_is(tmp_path: Path, web: FileServer, stream: MjpegServer) -> None:
    write_video(tmp_path / "a.mp4")
    images, sequence = write_images(tmp_path / "images"), write_sequence(tmp_path / "MOT-01")
    for source, kind, name, count, rate in [
        (tmp_path / "a.mp4", VideoFile, "a", 12, 10),
        (f"{web.url}/a.mp4", VideoFile, "a", 12, 10),
        (images, ImageFolder, "images", 12, 30),
        (sequence, SequenceSource, "MOT-01", 12, 10),
        (stream.url, LiveCapture, stream.url, None, 30),
    ]:
        with closing(open_source(source)) as one:
            assert type(one) is kind
            assert (one.name, one.frame_count, one.frame_rate) == (name, count, rate)
            assert one.is_live == (kind is LiveCapture)
            first = next(iter(one)).number
            assert first >= 1 if one.is_live else first == 1  # the newest of a stream
    assert len(list(open_source(f"{web.url}/a.mp4"))) == 12
    with closing(open_source(stream.url)) as one:
        assert next(iter(one)).image.shape == (3, 120, 320)


def test_a_file_is_opened_once_for_its_properties_and_its_frames(tmp_path: Path, opened: Captures) -> None:
    source = open_source(write_video(tmp_path / "a.mp4"))
    assert (source.name, source.frame_count, source.frame_rate, source.is_live) == ("a", 12, 10, False)
    assert is_open(tmp_path / "a.mp4")
    assert len(list(source)) == 12
    assert len(opened.files) == 1
    assert not is_open(tmp_path / "a.mp4")


def test_a_file_without_pixels_is_opened_once(tmp_path: Path, opened: Captures) -> None:
    for source in find_sources(write_video(tmp_path / "a.mp4")):
        with closing(source):
            assert len(list(source.without_pixels())) == 12
    assert len(opened.files) == 1


def test_a_file_on_a_web_server_is_requested_once(tmp_path: Path, web: FileServer, opened: Captures) -> None:
    """FFmpeg itself asks again only to seek: for an mp4 whose index is at its end, of a server that takes ranges."""
    write_video(tmp_path / "a.mp4")
    source = open_source(f"{web.url}/a.mp4")
    assert (source.name, source.frame_count, source.frame_rate, source.is_live) == ("a", 12, 10, False)
    assert len(list(source)) == 12
    assert len(opened.files) == 1
    assert web.requests == ["/a.mp4"]


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_a_file_on_a_web_server_of_which_the_end_is_missing_is_refused(
    tmp_path: Path, web: FileServer, name: str
) -> None:
    """Of a webm, which states no length in frames, only that it is a file is known."""
    content = (
        write_video(tmp_path / name, 60).read_bytes() if name == "a.mp4" else write_media(tmp_path / name).read_bytes()
    )
    (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
    source = open_source(f"{web.url}/{name}")
    assert isinstance(source, VideoFile)
    if name == "a.mp4":
        with pytest.raises(ValueError, match=rf"{web.url}/a.mp4: stopped after frame \d+, expected 60"):
            list(source)
    else:
        assert 30 <= len(list(source)) < 60


def test_a_webm_without_a_duration_on_a_web_server_is_a_file(tmp_path: Path, web: FileServer) -> None:
    content = write_media(tmp_path / "a.webm").read_bytes()
    place = content.index(b"\x44\x89\x88")  # the element Duration becomes Void
    (tmp_path / "a.webm").write_bytes(content[:place] + b"\xec\x89" + content[place + 2 :])
    source = open_source(f"{web.url}/a.webm?token=1")
    assert isinstance(source, VideoFile)
    assert source.frame_count is None
    assert len(list(source)) == 60


def test_a_stream_is_captured_once(stream: MjpegServer, opened: Captures) -> None:
    with closing(open_source(stream.url)) as source:
        next(iter(source))
    assert len(opened.captures) == 1


def test_a_second_iteration_starts_the_file_again(tmp_path: Path, opened: Captures) -> None:
    source = open_source(write_video(tmp_path / "a.mp4"))
    assert numbers_and_times(source) == numbers_and_times(source)
    assert len(opened.files) == 2


def test_a_file_is_released_when_the_iteration_ends_early_or_the_source_is_closed(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    frames = iter(open_source(tmp_path / "a.mp4"))
    next(frames)
    assert is_open(tmp_path / "a.mp4")
    frames.close()
    assert not is_open(tmp_path / "a.mp4")
    open_source(tmp_path / "a.mp4").close()
    assert not is_open(tmp_path / "a.mp4")


@pytest.mark.parametrize("kind", ["video", "images", "sequence", "sequence of a video", "val-half of a sequence"])
def test_without_pixels_frames_have_the_numbers_and_times_of_decoding(tmp_path: Path, kind: str) -> None:
    source: Any
    if kind == "video":
        with VideoWriter(tmp_path / "a.mp4", 10) as video:
            for number in range(20):
                video.write(scene(number / 10), time=number**1.5 / 30)  # uneven
        source = open_source(tmp_path / "a.mp4")
    elif kind == "images":
        source = open_source(write_images(tmp_path / "images"))
    elif kind == "sequence of a video":
        write_info(tmp_path / "MOT-01", 10, 12, 320, 120)
        write_video(tmp_path / "MOT-01" / "a.mp4")
        source = open_source(tmp_path / "MOT-01")
    else:
        split = "val-half" if kind.startswith("val-half") else "all"
        source = next(iter(find_sources(write_sequence(tmp_path / "MOT-01"), Selection(split))))
    decoded = list(source)
    blank = list(source.without_pixels())
    assert [(f.number, f.time) for f in blank] == [(f.number, f.time) for f in decoded]
    assert [f.image.shape for f in blank] == [f.image.shape for f in decoded]
    assert all(f.is_blank for f in blank)
    assert not any(f.is_blank for f in decoded)


@pytest.mark.parametrize("kind", ["video", "images", "sequence"])
def test_a_blank_frame_costs_one_byte(tmp_path: Path, kind: str) -> None:
    writers: dict[str, Any] = {"video": write_video, "images": write_images, "sequence": write_sequence}
    path = writers[kind](tmp_path / ("a.mp4" if kind == "video" else "folder"))
    assert {frame.image.untyped_storage().nbytes() for frame in open_source(path).without_pixels()} == {1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.mp4", None, "absent.mp4: no such file"),
        ("text.mp4", b"not a video", "text.mp4: expected a video"),
        ("empty.mp4", b"", "empty.mp4: expected a video"),
        ("notes.txt", b"notes\n" * 100, "notes.txt: expected a video"),  # FFmpeg would draw the text
    ],
)
def test_a_file_that_is_no_video_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for open_file in (open_source, VideoFile, find_sources):
        with pytest.raises(ValueError, match=message):
            open_file(tmp_path / name)


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "000001.jpg").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"000001.jpg: expected an image"):
        list(open_source(tmp_path))


def test_images_that_cannot_be_read_are_reported_and_skipped(tmp_path: Path) -> None:
    for number in (1, 3):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"")
    lines: list[str] = []
    source = open_source(tmp_path, lines.append, frame_rate=10)
    assert numbers_and_times(source) == [(1, 0.0), (3, 0.2)]
    assert lines == [f"{tmp_path / '2.png'}: expected an image that can be read"]


def test_the_size_of_blank_frames_is_that_of_the_first_image_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"")
    Image.new("RGB", (8, 6)).save(tmp_path / "2.png")
    assert {frame.image.shape for frame in open_source(tmp_path).without_pixels()} == {(3, 6, 8)}


def test_images_are_in_numerical_order(tmp_path: Path) -> None:
    assert [int(frame.image[0, 0, 0]) for frame in open_source(write_images(tmp_path))] == list(range(1, 13))


def test_images_numbered_with_gaps_have_the_frame_numbers_of_their_names(tmp_path: Path) -> None:
    for number in (2, 3, 12):
        Image.new("RGB", (8, 6)).save(tmp_path / f"img_{number:06d}.png")
    source = open_source(tmp_path, frame_rate=10)
    assert numbers_and_times(source) == [(2, 0.0), (3, 0.1), (12, 1.0)]
    assert numbers_and_times(source.without_pixels()) == [(2, 0.0), (3, 0.1), (12, 1.0)]
    assert source.frame_count == 12


def test_names_that_are_dates_are_no_frame_numbers(tmp_path: Path) -> None:
    for date in (20240101120000, 20240101120005, 20240102080000):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{date}.png")
    source = open_source(tmp_path)
    assert [frame.number for frame in source] == [1, 2, 3]
    assert source.frame_count == 3


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least one image"):
        open_source(tmp_path)


@pytest.mark.parametrize("split", ["all", "train-half", "val-half"])
@pytest.mark.parametrize("footage", ["images", "video"])
def test_a_sequences_split_has_its_own_frames_numbered_from_one(tmp_path: Path, split: str, footage: str) -> None:
    if footage == "images":
        write_sequence(tmp_path / "MOT-01")
    else:
        write_info(tmp_path / "MOT-01", 10, 12, 320, 120)
        write_video(tmp_path / "MOT-01" / "a.mp4")
    source = SequenceSource(find_sequences(tmp_path, split)[0])
    first, last = {"all": (1, 12), "train-half": (1, 7), "val-half": (8, 12)}[split]
    frames = list(source)
    assert [frame.number for frame in frames] == list(range(1, last - first + 2))
    assert [frame.time for frame in frames] == pytest.approx([k / 10 for k in range(last - first + 1)])
    assert source.frame_count == len(frames)
    for number, frame in zip(range(first, last + 1), frames, strict=True):
        if footage == "images":
            assert frame.image.unique().tolist() == [number]
        else:
            left = int((frame.image[1, 60] > 150).nonzero()[0])
            assert left == pytest.approx(20 + 6 * (number - 1), abs=1)


@pytest.mark.parametrize("footage", ["images", "video"])
def test_frames_of_a_sequence_that_cannot_be_read_are_reported_and_blank(tmp_path: Path, footage: str) -> None:
    if footage == "images":
        write_sequence(tmp_path / "MOT-01")
        (tmp_path / "MOT-01/img1/12.png").write_bytes(b"")
    else:
        write_info(tmp_path / "MOT-01", 10, 12, 320, 120)
        write_video(tmp_path / "MOT-01" / "a.mp4", count=11)
    with pytest.raises(ValueError, match=r"12.png: expected an image|a.mp4: expected 12 frames as seqinfo.ini says"):
        list(open_source(tmp_path / "MOT-01"))
    lines: list[str] = []
    frames = list(open_source(tmp_path / "MOT-01", lines.append))
    assert [frame.is_blank for frame in frames] == [False] * 11 + [True]
    assert len(lines) == 1


@pytest.mark.parametrize("split", ["all", "train-half", "val-half"])
def test_gaps_between_a_sequences_numbered_images_are_blank_frames(tmp_path: Path, split: str) -> None:
    for number in (1, 2, 7, 8):
        save_image(tmp_path / f"MOT-01/img1/{number:06d}.png", torch.full((3, 6, 8), number, dtype=torch.uint8))
    frames = list(SequenceSource(find_sequences(tmp_path, split)[0]))
    expected = {"all": [1, 2, 0, 0, 0, 0, 7, 8], "train-half": [1, 2, 0, 0, 0], "val-half": [0, 7, 8]}[split]
    assert [int(frame.image.max()) for frame in frames] == expected
    assert [frame.is_blank for frame in frames] == [value == 0 for value in expected]
    assert [frame.time for frame in frames] == pytest.approx([k / 30 for k in range(len(expected))])


@pytest.mark.parametrize("pixels", [True, False])
def test_a_sequence_without_seqinfo_has_its_videos_own_times(tmp_path: Path, pixels: bool) -> None:
    (tmp_path / "a/det").mkdir(parents=True)
    (tmp_path / "a/det/det.txt").write_text("1,-1,1,1,9,9,1\n")
    times = [number**1.5 / 30 for number in range(12)]
    with VideoWriter(tmp_path / "a/a.mp4", 10) as video:
        for time in times:
            video.write(scene(time), time)
    source = open_source(tmp_path / "a")
    assert isinstance(source, SequenceSource)
    frames = list(source if pixels else source.without_pixels())
    assert [frame.time for frame in frames] == pytest.approx(times, abs=1e-3)
    assert {frame.is_blank for frame in frames} == {not pixels}
    half = SequenceSource(find_sequences(tmp_path, "val-half")[0])
    assert [frame.time for frame in half] == pytest.approx([time - times[7] for time in times[7:]], abs=1e-3)


def test_a_sequence_without_footage_has_blank_frames_alone(tmp_path: Path) -> None:
    write_info(tmp_path / "MOT-01", 10, 12, 320, 120)
    source = SequenceSource(read_sequence(tmp_path / "MOT-01"))
    with pytest.raises(ValueError, match=r"MOT-01: expected img1/ or a video file; without them predict"):
        list(source)
    assert [frame.image.shape for frame in source.without_pixels()] == [(3, 120, 320)] * 12
    assert source.footage == tmp_path / "MOT-01"


def test_a_sequence_with_fewer_images_than_stated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"img1: expected 13 frames as seqinfo.ini says, found 12"):
        list(open_source(write_sequence(tmp_path / "MOT-01", length=13)))


@pytest.mark.data
def test_the_pets_video_is_read_to_its_end(track_data: Path) -> None:
    times = [frame.time for frame in open_source(track_data / "MOT15/train/PETS09-S2L1/video.avi")]
    assert len(times) == 795
    assert all(a < b for a, b in zip(times, times[1:], strict=False))


def test_every_sequence_below_a_folder_is_a_source(tmp_path: Path) -> None:
    for name in ("a/MOT-02", "b/c/MOT-01"):
        write_sequence(tmp_path / name)
    sources = list(find_sources(tmp_path))
    assert [source.name for source in sources] == ["MOT-02", "MOT-01"]
    assert {type(source) for source in sources} == {SequenceSource}
    thinned = find_sources(tmp_path, Selection("val-half", stride=2, names=["MOT-01"]))
    assert [(source.name, source.frame_count, source.selection) for source in thinned] == [
        ("MOT-01", 3, "range(8, 13, 2)")
    ]


def test_every_video_of_a_folder_is_a_source_opened_in_its_turn(tmp_path: Path, opened: Captures) -> None:
    for name in ("b.mp4", "a.mp4"):
        write_video(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    sources = find_sources(tmp_path)
    assert len(opened.files) == 0
    assert next(sources).name == "a"
    assert len(opened.files) == 1
    rest = list(sources)
    assert [(source.name, source.footage, source.selection) for source in rest] == [("b", tmp_path / "b.mp4", "all")]


def test_videos_are_selected_by_name(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.avi", "c.mp4"):
        write_video(tmp_path / "a.mp4") if name == "a.mp4" else (tmp_path / name).write_bytes(
            (tmp_path / "a.mp4").read_bytes()
        )
    assert [source.name for source in find_sources(tmp_path, Selection(names=["c", "a"]))] == ["a", "c"]
    with pytest.raises(ValueError, match="no video is called d, expected some of a, b, c"):
        find_sources(tmp_path, Selection(names=["a", "d"]))


def test_two_videos_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a.avi", "a.mp4"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match="two videos are called a, expected each name once"):
        find_sources(tmp_path)


def test_one_video_or_folder_of_images_is_a_source(tmp_path: Path, web: FileServer) -> None:
    video, images = write_video(tmp_path / "a.mp4"), write_images(tmp_path / "images")
    for source, kind in [(video, VideoFile), (f"{web.url}/a.mp4", VideoFile), (images, ImageFolder)]:
        (one,) = find_sources(source)
        assert type(one) is kind
        assert len(list(one)) == 12


@pytest.mark.parametrize("selection", [Selection("val-half"), Selection(stride=2), Selection(drop_rate=0.5)])
def test_a_part_of_anything_but_sequences_is_refused(tmp_path: Path, selection: Selection) -> None:
    for source in (write_video(tmp_path / "a.mp4"), tmp_path, write_images(tmp_path / "images")):
        with pytest.raises(ValueError, match="split, stride and drop_rate apply to MOTChallenge sequences only"):
            find_sources(source, selection)


def test_names_of_one_video_are_refused(tmp_path: Path) -> None:
    for source in (write_video(tmp_path / "a.mp4"), write_images(tmp_path / "images")):
        with pytest.raises(ValueError, match="sequences= applies to a folder of sequences or videos"):
            find_sources(source, Selection(names=["a"]))


def test_a_folder_without_footage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected folders with a seqinfo.ini, videos or images"):
        find_sources(tmp_path)


def test_a_stream_is_no_source_of_a_batch_and_is_released(stream: MjpegServer, opened: Captures) -> None:
    url = stream.url.replace("//", "//me:secret@")
    with pytest.raises(ValueError, match=f"^{stream.url}: expected a file or folder, not a camera or stream$"):
        find_sources(url)
    assert [video.isOpened() for video in opened.captures] == [False]
    with pytest.raises(ValueError, match=f"^{stream.url}: split, stride"):
        find_sources(url, Selection("val-half"))


def test_prefetched_items_come_in_order_and_no_further_ahead_than_depth() -> None:
    produced: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(50):
            produced.append(number)
            yield number

    items = prefetch(numbers(), depth=3)
    assert [next(items) for _ in range(10)] == list(range(10))
    items.close()
    assert len(produced) <= 14
    assert list(prefetch(iter(range(100)))) == list(range(100))


def test_an_error_while_prefetching_is_raised_in_its_turn() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("frame 2")

    items = prefetch(broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="frame 2"):
        next(items)


def test_closing_a_prefetched_video_releases_it(tmp_path: Path) -> None:
    frames = prefetch(open_source(write_video(tmp_path / "a.mp4")))
    assert isinstance(next(frames), Frame)
    frames.close()
    assert not is_open(tmp_path / "a.mp4")
