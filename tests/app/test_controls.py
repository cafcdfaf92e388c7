"""The window as a person uses it: on a virtual screen, with real keys and clicks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.streaming import BrightDetector, bright, scene
from track.analytics import SceneAnalytics
from track.app.live.controls import WindowControls
from track.display.overlay import Overlay
from track.formats.mot import write_detections
from track.media.images import read_image
from track.media.sources import VideoFile
from track.media.video_writer import VideoWriter
from track.pipeline import Pipeline
from track.structures import Frame
from track.tracking.camera_motion import Static
from track.tracking.tracker import Tracker

needed = pytest.mark.skipif(
    not (shutil.which("Xvfb") and shutil.which("xdotool")), reason="needs Debian's xvfb and xdotool"
)


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "800x600x24"]
    server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    name = ":" + os.read(reading, 16).decode().strip()
    before = os.environ.get("DISPLAY")
    os.environ["DISPLAY"] = name
    yield name
    os.environ.pop("DISPLAY")
    if before:
        os.environ["DISPLAY"] = before
    server.terminate()


class Person:
    """Somebody in front of the window, who watches until something happens."""

    def __init__(self, controls: WindowControls) -> None:
        self.controls, self.number = controls, 0

    def until(self, happened: Callable[[], object]) -> None:
        end = time.monotonic() + 20
        while not happened():
            assert time.monotonic() < end, "nothing happened"
            self.frame()

    def frame(self) -> None:
        if not self.controls.is_open:
            return
        self.number += 1
        result = self.controls.pipeline.step(Frame(scene(self.number / 50), self.number / 50, self.number))
        self.controls.analytics.write(result)
        self.controls.overlay.write(result)
        self.controls.write(result)

    def press(self, *what: str) -> subprocess.Popen[bytes]:
        window = ["search", "--onlyvisible", "--name", "^track$", "windowfocus", "--sync"]
        return subprocess.Popen(["xdotool", *window, "sleep", "0.5", *what])

    def key(self, name: str) -> None:
        done = self.press("key", name)
        self.until(lambda: done.poll() is not None)
        assert done.returncode == 0


@pytest.fixture
def person(display: str, tmp_path: Path) -> Iterator[Person]:
    pipeline, analytics = Pipeline(BrightDetector(), Static(), Tracker()), SceneAnalytics()
    overlay = Overlay(["background", "person"], analytics)
    with WindowControls(pipeline, overlay, analytics, tmp_path) as controls:
        one = Person(controls)
        one.frame()
        one.frame()
        yield one


@needed
def test_every_key_does_what_the_help_says(person: Person, tmp_path: Path) -> None:
    controls, overlay, pipeline = person.controls, person.controls.overlay, person.controls.pipeline
    person.key("t")
    person.until(lambda: not overlay.show_trails)
    person.key("v")
    person.until(lambda: overlay.show_speeds)
    person.key("h")
    person.until(lambda: controls.show_help)
    person.key("plus")
    person.until(lambda: pipeline.min_score == 0.15)
    person.key("minus")
    person.until(lambda: pipeline.min_score == 0.1)
    person.key("r")
    person.until(lambda: controls.recording)
    began = person.number
    person.until(lambda: person.number > began + 20)
    person.key("r")
    person.until(lambda: not controls.recording)
    assert len(list(VideoFile(tmp_path / "recording-1.mp4"))) >= 20
    person.key("s")
    person.until(lambda: (tmp_path / "image-2.png").exists())
    saved = read_image(tmp_path / "image-2.png")
    assert saved is not None
    assert saved.shape == (3, 120, 320)
    person.key("q")
    person.until(lambda: not controls.is_open)


@needed
def test_a_pause_holds_the_picture_until_it_is_over(person: Person) -> None:
    later = [part for key in ("period", "period", "space") for part in ("sleep", "0.6", "key", key)]
    done = person.press("key", "space", *later)
    moments: list[float] = []
    while done.poll() is None or len(moments) < 20:
        person.frame()
        moments.append(time.monotonic())
    waits = [b - a for a, b in zip(moments, moments[1:], strict=False)]
    assert len([wait for wait in waits if wait > 0.4]) == 3
    assert not person.controls.paused


@needed
def test_keys_are_heard_while_a_stream_has_no_new_frame(person: Person) -> None:
    done = person.press("key", "t", "sleep", "0.5", "key", "q")
    end = time.monotonic() + 20
    while person.controls.wait():
        assert time.monotonic() < end
    assert not person.controls.overlay.show_trails
    assert done.wait(5) == 0


@needed
def test_lines_and_zones_are_clicked_and_cleared(person: Person) -> None:
    where = subprocess.run(
        ["xdotool", "search", "--onlyvisible", "--name", "^track$", "getwindowgeometry", "--shell"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    left, top = (int(line.split("=")[1]) for line in where.splitlines() if line[:2] in ("X=", "Y="))

    def click(x: int, y: int) -> None:
        before = len(person.controls.window.clicks)
        person.press("mousemove", str(left + x), str(top + y), "click", "1")
        person.until(lambda: len(person.controls.window.clicks) != before)

    analytics = person.controls.analytics
    person.key("l")
    person.until(lambda: person.controls.drawing == "line")
    click(50, 100)
    click(50, 10)
    person.until(lambda: analytics.lines)
    assert analytics.lines["line 1"].tolist() == [[50, 100], [50, 10]]
    person.key("z")
    person.until(lambda: person.controls.drawing == "zone")
    for x, y in ((60, 10), (200, 10), (200, 110)):
        click(x, y)
    person.key("z")
    person.until(lambda: analytics.zones)
    assert analytics.zones["zone 1"].tolist() == [[60, 10], [200, 10], [200, 110]]
    person.key("c")
    person.until(lambda: not analytics.zones and not analytics.lines)


@needed
def test_the_demos_window_shows_what_it_tracks(display: str, tmp_path: Path) -> None:
    film = [Frame(scene(n / 25), n / 25, n + 1) for n in range(100)]
    with VideoWriter(tmp_path / "film.mp4", 25) as video:
        for frame in film:
            video.write(frame.image, frame.time)
    write_detections(tmp_path / "det.txt", [bright(frame) for frame in film])
    command = [sys.executable, "-m", "track", "demo", "source=film.mp4", "detections=det.txt", "output_dir=out"]
    demo = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    window = ["xdotool", "search", "--sync", "--onlyvisible", "--name", "^track$"]
    subprocess.run(window, check=True, timeout=60, stdout=subprocess.DEVNULL)
    out, error = demo.communicate(timeout=60)
    assert demo.returncode == 0, error
    assert "film.mp4: 100 frames" in out
    speed = float(out.split("100 frames, ")[1].split()[0])
    assert speed < 30  # at the film's own speed, not as fast as it goes
    assert "person: 1 so far, 1 now" in out
