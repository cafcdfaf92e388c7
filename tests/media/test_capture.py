import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Thread

import pytest

from tests.streaming import Camera, bright, scene
from track import live
from track.media.capture import LiveCapture, is_live, name_of
from track.media.sources import frame_count, frame_rate, frames
from track.media.video_writer import VideoWriter
from track.structures import Frame
from track.tracking.tracker import Tracker


def new(source: LiveCapture) -> Iterator[Frame]:
    return (frame for frame in source if frame is not None)


@pytest.fixture
def camera() -> Iterator[Camera]:
    began = time.monotonic()
    one = Camera(lambda: scene(time.monotonic() - began))
    yield one
    one.kill()


def test_frames_come_with_the_time_at_which_they_were_captured(camera: Camera) -> None:
    with LiveCapture(camera.url) as source:
        taken = list(islice(new(source), 20))
    lefts = [float(bright(frame).boxes[0, 0]) for frame in taken]
    speed = (lefts[-1] - lefts[5]) / (taken[-1].time - taken[5].time)
    assert taken[0].time == 0.0
    assert speed == pytest.approx(60, rel=0.35)


def test_who_is_slow_gets_the_newest_frame_and_the_skipped_are_counted(camera: Camera) -> None:
    with LiveCapture(camera.url) as source:
        numbers, ages = [], []
        for frame in new(source):
            ages.append(source.age(frame))
            numbers.append(frame.number)
            time.sleep(0.3)
            if len(numbers) == 5:
                break
        skipped = source.skipped
    assert numbers[-1] - numbers[0] >= 12  # of 30 a second in 1.2 s
    assert skipped >= numbers[-1] - numbers[0] - 4
    assert max(ages[1:]) < 0.25  # less than the work on one frame


def test_identities_survive_a_stream_that_is_killed_and_comes_back(camera: Camera) -> None:
    told: list[str] = []
    tracker, ids, times = Tracker(), [], []
    began = time.monotonic()
    again = None
    with LiveCapture(camera.url, told.append) as source:
        for frame in new(source):
            tracks = tracker.update(bright(frame), frame.time)
            ids.append(tracks.ids.tolist())
            times.append(frame.time)
            if again is None and frame.time > 1:
                camera.kill()
                gone = time.monotonic()
                while time.monotonic() - gone < 0.9:
                    time.sleep(0.05)
                again = Camera(lambda: scene(time.monotonic() - began), port=camera.port)
            if again is not None and times[-1] - times[-2] < 0.5 and frame.time > 2.2:
                break
    again.kill()
    gap = max(b - a for a, b in zip(times, times[1:], strict=False))
    assert 0.8 < gap < 2
    assert ids[0] == ids[-1] == [1]
    assert told[0] == f"{camera.url}: no more frames, trying again in 0.5 s"


def test_a_stream_that_falls_silent_is_tried_again(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LIMITS", [live.LIMITS[0], 1000, live.LIMITS[2], 1000])
    told: list[str] = []
    with LiveCapture(camera.url, told.append) as source:
        seen = new(source)
        next(seen)
        camera.silent.set()
        until = time.monotonic() + 8
        while not told and time.monotonic() < until:
            time.sleep(0.1)
        assert told == [f"{camera.url}: no more frames, trying again in 0.5 s"]
        camera.silent.clear()
        assert len(list(islice(seen, 5))) == 5


def test_who_waits_is_told_that_there_is_nothing_new(camera: Camera) -> None:
    with LiveCapture(camera.url) as source:
        next(new(source))
        camera.silent.set()
        waits = []
        for frame in source:
            waits = [*waits, time.monotonic()] if frame is None else []
            if len(waits) == 4:
                break
    assert 0.25 < waits[-1] - waits[0] < 2


def test_an_error_of_the_capture_reaches_whoever_takes_the_frames(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(picture: object) -> None:
        raise MemoryError("no room for a picture")

    monkeypatch.setattr(live, "to_rgb", broken)
    with LiveCapture(camera.url) as source, pytest.raises(MemoryError, match="no room"):
        list(source)


def test_a_stream_is_live_and_a_file_is_not(camera: Camera, tmp_path: Path) -> None:
    assert is_live(camera.url)
    assert is_live("rtsp://127.0.0.1:1/none")
    assert not is_live(tmp_path)
    with VideoWriter(tmp_path / "a.mp4", 10) as video:
        for n in range(12):
            video.write(scene(n / 10))
    folder = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), folder)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/a.mp4"
    assert not is_live(url)
    assert (frame_count(url), len(list(frames(url)))) == (12, 12)
    server.shutdown()
    assert (frame_count(camera.url), frame_rate(camera.url)) == (None, 30.0)
    assert next(iter(frames(camera.url))).image.shape == (3, 120, 320)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("99", "camera 99: not there"),
        ("rtsp://me:secret@127.0.0.1:1/none", r"^rtsp://127.0.0.1:1/none: expected a video$"),
        ("rtsp://me:s@secret@127.0.0.1:1/none?pwd=secret", r"^rtsp://127.0.0.1:1/none: expected a video$"),
        ("http://127.0.0.1:1/none.mjpg", "http://127.0.0.1:1/none.mjpg: expected a video"),
    ],
)
def test_what_is_not_there_is_refused_without_its_password(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LiveCapture(source)
    assert "secret" not in name_of(source)
