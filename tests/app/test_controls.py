"""The window as a person uses it: on a virtual screen, with real keys and clicks."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.streaming import bright, scene
from track.display.session import Session
from track.media.sources import frames
from track.structures import Frame
from track.tracking.tracker import Tracker

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from track.app.controls import WindowControls

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
    """Somebody in front of the window, who looks until something is so."""

    def __init__(self, screen: WindowControls) -> None:
        self.screen, self.number, self.open = screen, 0, True
        self.picture = torch.zeros(3, 120, 320, dtype=torch.uint8)

    def until(self, so: Callable[[], object]) -> None:
        end = time.monotonic() + 20
        while not so():
            assert time.monotonic() < end, "nothing happened"
            self.frame()

    def frame(self) -> None:
        if not self.open:
            return
        self.number += 1
        frame = Frame(scene(self.number / 50), self.number / 50, self.number)
        self.picture, _ = self.screen.session(frame)
        self.open = self.screen.show(self.picture, frame, 0.01)

    def press(self, *what: str) -> subprocess.Popen[bytes]:
        window = ["search", "--onlyvisible", "--name", "^track$", "windowfocus", "--sync"]
        return subprocess.Popen(["xdotool", *window, "sleep", "0.2", *what])

    def key(self, name: str) -> None:
        done = self.press("key", name)
        self.until(lambda: done.poll() is not None)
        assert done.returncode == 0


@pytest.fixture
def person(display: str, tmp_path: Path) -> Iterator[Person]:
    with WindowControls(Session(bright, Tracker(), ["background", "person"]), tmp_path) as screen:
        one = Person(screen)
        one.frame()
        one.frame()
        yield one


@needed
def test_every_key_does_what_the_help_says(person: Person, tmp_path: Path) -> None:
    screen, session = person.screen, person.screen.session
    person.key("t")
    person.until(lambda: not session.show_trails)
    person.key("v")
    person.until(lambda: session.show_speeds)
    person.key("h")
    person.until(lambda: screen.helping)
    person.key("plus")
    person.until(lambda: session.tracker.min_score == 0.15)
    person.key("minus")
    person.until(lambda: session.tracker.min_score == 0.1)
    person.key("r")
    person.until(lambda: screen.recording)
    began = person.number
    person.until(lambda: person.number > began + 20)
    person.key("r")
    person.until(lambda: not screen.recording)
    assert len(list(frames(tmp_path / "recording-1.mp4"))) >= 20
    person.key("s")
    person.until(lambda: (tmp_path / "picture-2.png").exists())
    assert next(frames([tmp_path / "picture-2.png"])).image.shape == (3, 120, 320)
    person.key("q")
    person.until(lambda: not person.open)


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
    assert not person.screen.paused


@needed
def test_keys_are_heard_while_a_stream_has_no_new_frame(person: Person) -> None:
    done = person.press("key", "t", "sleep", "0.5", "key", "q")
    end = time.monotonic() + 20
    while person.screen.wait():
        assert time.monotonic() < end
    assert not person.screen.session.show_trails
    assert done.wait(5) == 0


@needed
def test_lines_and_zones_are_clicked_and_cleared(person: Person) -> None:
    where = subprocess.run(
        ["xdotool", "search", "--onlyvisible", "--name", "^track$", "getwindowgeometry", "--shell"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    left, top = (int(line.split("=")[1]) for line in where.splitlines() if line[:2] in ("X=", "Y="))

    def click(x: int, y: int) -> None:
        before = len(person.screen.window.clicks)
        person.press("mousemove", str(left + x), str(top + y), "click", "1")
        person.until(lambda: len(person.screen.window.clicks) != before)

    session = person.screen.session
    person.key("l")
    person.until(lambda: person.screen.drawing == "line")
    click(50, 100)
    click(50, 10)
    person.until(lambda: session.scene.lines)
    assert session.scene.lines["line 1"].tolist() == [[50, 100], [50, 10]]
    person.key("z")
    person.until(lambda: person.screen.drawing == "zone")
    for x, y in ((60, 10), (200, 10), (200, 110)):
        click(x, y)
    person.key("z")
    person.until(lambda: session.scene.zones)
    assert session.scene.zones["zone 2"].tolist() == [[60, 10], [200, 10], [200, 110]]
    person.key("c")
    person.until(lambda: not session.scene.zones and not session.scene.lines)


@needed
def test_the_demos_window_shows_what_it_tracks(display: str, tmp_path: Path) -> None:
    from track.formats.mot import write_detections
    from track.media.video_writer import VideoWriter

    film = [Frame(scene(n / 25), n / 25, n + 1) for n in range(100)]
    with VideoWriter(tmp_path / "film.mp4", 25) as video:
        for frame in film:
            video.write(frame.image, frame.time)
    write_detections(tmp_path / "det.txt", [bright(frame) for frame in film])
    script = Path(__file__).parent.parent / "scripts/demo.py"
    command = [sys.executable, str(script), "source=film.mp4", "detections=det.txt", "output_dir=out"]
    demo = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    window = ["xdotool", "search", "--sync", "--onlyvisible", "--name", "^track$"]
    subprocess.run(window, check=True, timeout=60, stdout=subprocess.DEVNULL)
    out, error = demo.communicate(timeout=60)
    assert demo.returncode == 0, error
    assert "film.mp4: 100 frames" in out
    speed = float(out.split("100 frames, ")[1].split()[0])
    assert speed < 30  # at the film's own speed, not as fast as it goes
    assert "person: 1 so far, 1 now" in out
