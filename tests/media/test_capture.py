from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import pytest

from tests.streaming import MjpegServer, bright, scene
from track.media import capture
from track.media.capture import LiveCapture, source_name
from track.tracking.tracker import Tracker


@pytest.fixture
def server() -> Iterator[MjpegServer]:
    began = time.monotonic()
    one = MjpegServer(lambda: scene(time.monotonic() - began))
    yield one
    one.kill()


def test_frames_have_the_times_at_which_they_were_captured(server: MjpegServer) -> None:
    with closing(LiveCapture(server.url)) as source:
        frames = list(islice(source, 20))
    lefts = [float(bright(frame).boxes[0, 0]) for frame in frames]
    speed = (lefts[-1] - lefts[5]) / (frames[-1].time - frames[5].time)
    assert frames[0].time >= 0.0
    assert speed == pytest.approx(60, rel=0.35)


def test_the_first_captured_frame_is_number_one_at_time_zero(server: MjpegServer) -> None:
    server.silent.set()
    with closing(LiveCapture(server.url)) as source:
        Timer = iter(source)
        server.silent.clear()
        frame = next(Timer)
    assert (frame.number, frame.time) == (1, 0.0)
