"""Live capture from a stream on loopback that stalls and is killed: times, skipped frames, reconnecting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from threading import Timer

import pytest

from tests.streaming import MjpegServer, bright, scene
from track.media import capture
from track.media.capture import LiveCapture, is_camera, source_name
from track.tracking.tracker import Tracker


@pytest.fixture
def server() -> Iterator[MjpegServer]:
    began = time.monotonic()
    one = MjpegServer(lambda: scene(time.monotonic() - began))
    yield one
    one.kill()


def wait_until(happened: Callable[[], object], seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not happened() and time.monotonic() < end:
        time.sleep(0.05)


def test_frames_have_the_times_at_which_they_were_captured(server: MjpegServer) -> None:
    with closing(LiveCapture(server.url)) as source:
        frames = list(islice(source, 20))
    lefts = [float(bright(frame).boxes[0, 0]) for frame in frames]
    speed = (lefts[-1] - lefts[5]) / (frames[-1].time - frames[5].time)
    assert frames[0].time == 0.0
    assert speed == pytest.approx(60, rel=0.35)


def test_a_slow_consumer_gets_the_newest_frame_and_skipped_ones_are_counted(server: MjpegServer) -> None:
    numbers, ages = [], []
    with closing(LiveCapture(server.url)) as source:
        for frame in source:
            ages.append(source.age(frame))
            numbers.append(frame.number)
            time.sleep(0.3)
            if len(numbers) == 5:
                break
        skipped = source.skipped
    assert numbers[-1] - numbers[0] >= 12  # of 30 per second in 1.2 s
    assert skipped >= numbers[-1] - numbers[0] - 4
    assert max(ages[1:]) < 0.25  # less than the work on one frame


def test_frames_captured_before_the_iteration_do_not_count_as_skipped(server: MjpegServer) -> None:
    with closing(LiveCapture(server.url)) as source:
        wait_until(lambda: source.skipped >= 5)
        next(iter(source))
        assert source.skipped <= 1


def test_identities_survive_a_stream_that_is_killed_and_comes_back(server: MjpegServer) -> None:
    lines: list[str] = []
    tracker, ids, times = Tracker(), [], []
    began = time.monotonic()
    restarted = None
    with closing(LiveCapture(server.url, lines.append)) as source:
        for frame in source:
            tracks = tracker.update(bright(frame), frame.time)
            ids.append(tracks.ids.tolist())
            times.append(frame.time)
            if restarted is None and frame.time > 1:
                server.kill()
                time.sleep(0.9)
                restarted = MjpegServer(lambda: scene(time.monotonic() - began), port=server.port)
            if restarted is not None and times[-1] - times[-2] < 0.5 and frame.time > 2.2:
                break
    assert restarted is not None
    restarted.kill()
    gap = max(b - a for a, b in zip(times, times[1:], strict=False))
    assert 0.8 < gap < 2
    assert ids[0] == ids[-1] == [1]
    assert lines[0] == f"{server.url}: no more frames, trying again in 0.5 s"


def test_a_stream_that_stalls_is_opened_again(server: MjpegServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "TIMEOUTS", [capture.TIMEOUTS[0], 1000, capture.TIMEOUTS[2], 1000])
    lines: list[str] = []
    with closing(LiveCapture(server.url, lines.append)) as source:
        frames = iter(source)
        next(frames)
        server.silent.set()
        wait_until(lambda: lines)
        assert lines == [f"{server.url}: no more frames, trying again in 0.5 s"]
        server.silent.clear()
        assert len(list(islice(frames, 5))) == 5


def test_attempts_to_reconnect_are_reported_with_doubled_waits(
    server: MjpegServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(capture, "LONGEST_WAIT", 0.03)
    lines: list[str] = []
    with closing(LiveCapture(server.url, lines.append)) as source:
        next(iter(source))
        server.kill()
        wait_until(lambda: len(lines) >= 4)
    assert [line.split(" in ")[1] for line in lines[:4]] == ["0.01 s", "0.02 s", "0.03 s", "0.03 s"]


def test_a_source_closed_while_it_waits_to_reconnect_is_not_opened_again(
    server: MjpegServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "FIRST_WAIT", 30.0)
    lines: list[str] = []
    source = LiveCapture(server.url, lines.append)
    next(iter(source))
    server.kill()
    wait_until(lambda: lines)
    monkeypatch.setattr(capture, "_new_capture", lambda source: pytest.fail("opened again"))
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 2
    assert not source._thread.is_alive()
    assert source._error is None


def test_idle_is_called_ten_times_a_second_without_a_new_frame_and_ends_the_iteration(server: MjpegServer) -> None:
    calls: list[float] = []

    def idle() -> bool:
        calls.append(time.monotonic())
        return len(calls) < 4

    with closing(LiveCapture(server.url, idle=idle)) as source:
        for _ in source:
            server.silent.set()
            calls.clear()
        server.silent.clear()  # so that closing does not wait for the read to time out
    assert len(calls) == 4
    assert 0.25 < calls[-1] - calls[0] < 2


@pytest.mark.parametrize("end", [LiveCapture.stop, LiveCapture.close])
def test_stop_and_close_end_the_iteration(server: MjpegServer, end: Callable[[LiveCapture], None]) -> None:
    source = LiveCapture(server.url)
    Timer(0.5, end, [source]).start()
    assert len(list(source)) >= 3
    source.close()


def test_an_error_while_capturing_is_raised_where_the_frames_are_consumed(
    server: MjpegServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(array: object) -> None:
        raise MemoryError("no room for an image")

    monkeypatch.setattr(capture, "to_rgb", broken)
    with closing(LiveCapture(server.url)) as source, pytest.raises(MemoryError, match="no room"):
        list(source)


def test_a_live_source_without_pixels_is_the_source_itself(server: MjpegServer) -> None:
    with closing(LiveCapture(server.url)) as source:
        assert source.without_pixels() is source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("99", "camera 99: cannot be opened"),
        ("rtsp://me:secret@127.0.0.1:1/none", r"^rtsp://127.0.0.1:1/none: expected a video$"),
        ("rtsp://me:s@secret@127.0.0.1:1/none?pwd=secret", r"^rtsp://127.0.0.1:1/none: expected a video$"),
        ("rtsp://me:s/secret@127.0.0.1:1/none", r"^rtsp://127.0.0.1:1/none: expected a video$"),
        ("rtsp://me:s?secret@127.0.0.1:1/none", r"^rtsp://127.0.0.1:1/none: expected a video$"),
        ("http://me:s/secret@127.0.0.1:1/none", r"^http://127.0.0.1:1/none: expected a video$"),
        ("http://127.0.0.1:1/none.mjpg", "http://127.0.0.1:1/none.mjpg: expected a video"),
    ],
)
def test_an_unavailable_source_is_refused_without_its_password(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LiveCapture(source)
    assert "secret" not in source_name(source)


def test_an_interruption_is_reported_without_the_password(server: MjpegServer) -> None:
    lines: list[str] = []
    url = server.url.replace("//", "//me:secret@") + "?pwd=secret"
    with closing(LiveCapture(url, lines.append)) as source:
        assert source.name == server.url
        next(iter(source))
        server.kill()
        wait_until(lambda: lines)
    assert lines == [f"{server.url}: no more frames, trying again in 0.5 s"]


@pytest.mark.parametrize(("source", "expected"), [(0, True), ("12", True), ("²", False), ("-1", False), ("a0", False)])
def test_a_camera_is_named_by_its_index(source: str | int, expected: bool) -> None:
    assert is_camera(source) == expected
