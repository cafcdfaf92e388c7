"""grutrack demo without a screen: what it writes, refuses, and leaves behind when it is stopped."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread

import pytest
import torch

from tests.app.conftest import EVERY_BOX
from tests.conftest import Call
from tests.streaming import MjpegServer, scene
from track.app.live.playback import Playback
from track.media.images import read_image
from track.media.sources import VideoFile
from track.media.video_writer import VideoWriter
from track.structures import Frame


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


@pytest.fixture
def street(streets: Path) -> list[str]:
    """A drawn sequence's images as a source, with its ground truth as detections."""
    folder = streets / "street-04-00"
    return [f"source={folder / 'img1'}", f"detections={folder / 'det/det.txt'}", "tracker=bytetrack"]


def test_every_frame_is_in_the_video_and_every_box_in_the_tables(street: list[str], tmp_path: Path, call: Call) -> None:
    line = "lines={door: [160,240,160,0]}"
    done = call("demo", *street, line, "output=[out.mp4,t.txt,t.csv,t.jsonl]", "output_dir=out")
    assert done.code == 0, done.err
    assert "25 frames" in done.out
    assert len(list(VideoFile(tmp_path / "out.mp4"))) == 25
    with (tmp_path / "t.csv").open() as file:
        table = [(int(r["frame"]), int(r["id"]), float(r["x1"])) for r in csv.DictReader(file)]
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    rows = [line.split(",") for line in (tmp_path / "t.txt").read_text().splitlines()]
    assert len(table) > 50
    assert [(r["frame"], r["id"]) for r in lines] == [row[:2] for row in table]
    assert sorted((int(r[0]), int(r[1])) for r in rows) == sorted(row[:2] for row in table)
    assert {file.name for file in (tmp_path / "out").iterdir()} >= {"heatmap.png", "trajectories.png", "events.csv"}


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_leaves_files_that_are_whole(
    detector: str, tmp_path: Path, number: signal.Signals, code: int, word: str
) -> None:
    began = time.monotonic()
    camera = MjpegServer(lambda: scene((time.monotonic() - began) % 4))
    options = [f"source={camera.url}", detector, *EVERY_BOX, "output=[out.mp4,t.csv]", "output_dir=out"]
    command = [sys.executable, "-m", "track", "demo", *options]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    table = tmp_path / "t.csv"
    while not (table.exists() and table.stat().st_size > 2000):
        assert running.poll() is None, running.stderr.read()  # type: ignore[union-attr]
        assert time.monotonic() - began < 120
        time.sleep(0.1)
    running.send_signal(number)
    told, complaint = running.communicate(timeout=60)
    camera.kill()
    assert running.returncode == code
    assert complaint.decode() == f"{word}\n"
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert all(None not in row.values() for row in rows)
    taken = [frame.time for frame in VideoFile(tmp_path / "out.mp4")]
    count = int(told.decode().split(" frames, ")[0].rsplit(" ", 1)[1].split(":")[-1])
    assert len(taken) in (count, count + 1)  # stopped between a frame's writing and its being counted
    assert max(float(row["time"]) for row in rows) == pytest.approx(taken[-1] - taken[0], abs=0.5)
    trajectories = read_image(tmp_path / "out/trajectories.png")
    assert trajectories is not None
    assert trajectories.shape == (3, 120, 320)


def test_outputs_of_a_camera_are_rotated_and_whole_after_sigterm(detector: str, tmp_path: Path) -> None:
    began = time.monotonic()
    camera = MjpegServer(lambda: scene((time.monotonic() - began) % 4))
    options = [f"source={camera.url}", detector, *EVERY_BOX, "output=[out.mp4,t.csv]", "output_dir=out"]
    command = [sys.executable, "-m", "track", "demo", *options, "rotate=0.0005"]  # 1.8 s
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while len(list(tmp_path.glob("t-*.csv"))) < 3:
        assert running.poll() is None, running.stderr.read()  # type: ignore[union-attr]
        assert time.monotonic() - began < 120
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    told, _ = running.communicate(timeout=60)
    camera.kill()
    assert running.returncode == 143
    assert "\nt-*.csv\n" in told.decode()
    tables = [list(csv.DictReader(file.open())) for file in sorted(tmp_path.glob("t-*.csv"))]
    times = [[float(row["time"]) for row in table] for table in tables]
    assert all(before[-1] < after[0] for before, after in pairwise(times))
    assert all(before[0] + 1.8 <= after[0] for before, after in pairwise(times))
    videos = sorted(tmp_path.glob("out-*.mp4"))
    assert len(videos) == len(tables)
    lengths = [len({row["frame"] for row in table}) for table in tables]
    assert [len(list(VideoFile(video))) for video in videos[:-1]] == lengths[:-1]
    assert len(list(VideoFile(videos[-1]))) >= 1


def test_an_output_that_is_an_input_by_any_name_or_a_foreign_file_is_refused(
    street: list[str], tmp_path: Path, call: Call
) -> None:
    with VideoWriter(tmp_path / "mine.mp4", 10) as video:
        for n in range(5):
            video.write(scene(n / 10))
    (tmp_path / "soft.mp4").symlink_to("mine.mp4")
    (tmp_path / "hard.mp4").hardlink_to(tmp_path / "mine.mp4")
    before = (tmp_path / "mine.mp4").read_bytes()
    for name in ("soft.mp4", "hard.mp4", "mine.mp4", "../" + tmp_path.name + "/mine.mp4"):
        refused = call("demo", "source=mine.mp4", *street[1:], f"output={name}", "overwrite=true")
        assert (refused.code, (tmp_path / "mine.mp4").read_bytes()) == (1, before)
        assert "neither an input nor another output" in refused.err
    for name in ("notes.txt", "table.csv", "rows.jsonl", "film.mp4"):
        (tmp_path / name).write_text("somebody's\n")
        refused = call("demo", *street, f"output={name}")
        assert refused.code == 1
        assert f"output: {name}: exists and is no result of this program; overwrite=true replaces it" in refused.err
        assert (tmp_path / name).read_text() == "somebody's\n"
        assert [call("demo", *street, f"output={name}", *more).code for more in (["overwrite=true"], [])] == [0, 0]


def test_outputs_of_a_file_that_was_cut_say_so(
    street: list[str], tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press_ctrl_c(playback: Playback, frame: Frame) -> None:
        playback.frame_count += 1
        if frame.number == 19:
            raise KeyboardInterrupt

    monkeypatch.setattr(Playback, "finish", press_ctrl_c)
    done = call("demo", *street, "output=[out.mp4,t.csv]", "output_dir=out")
    assert (done.code, done.err) == (130, "interrupted\n")
    assert not (tmp_path / "out.mp4").exists()
    assert not (tmp_path / "t.csv").exists()
    assert len(list(VideoFile(tmp_path / "out.partial.mp4"))) == 19
    assert "t.partial.csv" in done.out


def test_rerun_gets_a_file(street: list[str], tmp_path: Path, call: Call) -> None:
    pytest.importorskip("rerun")
    from rerun.chunk import RrdReader

    done = call("demo", *street, "viewer=street.rrd", "output_dir=out")
    assert done.code == 0, done.err
    chunks = [one for one in RrdReader(tmp_path / "street.rrd").stream() if one.entity_path == "/frame/tracks"]
    assert sum(chunk.to_record_batch().num_rows for chunk in chunks) == 25


def test_an_http_video_is_tracked_whole(street: list[str], tmp_path: Path, call: Call) -> None:
    (tmp_path / "served").mkdir()
    with VideoWriter(tmp_path / "served/a.mp4", 10) as video:
        for n in range(12):
            video.write(scene(n / 10))
    folder = partial(QuietHandler, directory=str(tmp_path / "served"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), folder)
    Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "det.txt").write_text("".join(f"{n},-1,{14 + 6 * n},41,20,40,0.9\n" for n in range(1, 13)))
    url = f"http://127.0.0.1:{server.server_port}/a.mp4"
    done = call("demo", f"source={url}", "detections=det.txt", "output=t.csv", "output_dir=out")
    server.shutdown()
    assert done.code == 0, done.err
    rows = (tmp_path / "t.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [str(n) for n in range(1, 13)]
    assert {row.split(",")[2] for row in rows} == {"1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["output=o.csv"], "source: expected a value, see --help"),
        (["source=absent.mp4", "detections=x.txt", "output=o.csv"], "absent.mp4: no such file"),
        (["source=absent.mp4", "detections=x.txt"], "absent.mp4: no such file"),
        (["source=99", "output=o.csv"], "camera 99: cannot be opened"),
        (["source=text.mp4", "output=o.csv"], "text.mp4: expected a video"),
        (["source=video.mp4", "output=out.gif"], "output: out.gif: expected a name that ends with .mp4, .txt, "),
        (["source=video.mp4", "output=text.mp4/out.csv"], "text.mp4"),
        (["source=video.mp4", "camera=maybe", "output=o.csv"], "camera: expected one of auto, none, file, estimate"),
        (["source=video.mp4", "lines={door: [1,2]}", "output=o.csv"], "line door"),
        (["source=video.mp4", "lines=[320,480,320,0]", "output=o.csv"], "lines: expected names, as in lines={door: ["),
        (["source=video.mp4", "zones={queue: [[0,0],[1,1]]}", "output=o.csv"], "zone queue: expected three or more p"),
        (["source=video.mp4", "metres_per_pixel=far", "output=o.csv"], "metres_per_pixel: expected a positive number"),
        (["source=video.mp4", "output=1"], "output: 1: expected a name that ends with .mp4, .txt, "),
        (["source=video.mp4", "output=video.mp4"], "output: video.mp4: expected a file that is neither an input nor"),
        (["source=video.mp4", "output=[a.csv,./a.csv]"], "output: a.csv: expected a file that is neither an input nor"),
        (["source=video.mp4", "detections=d.txt", "output=d.txt"], "output: d.txt: expected a file that is neither an"),
        (["source=video.mp4", "viewer=screen"], "viewer: expected window, rerun or a file.rrd, got screen"),
        (
            ["source=rtsp://127.0.0.1:1/?channel=1&subtype=0", "output=o.csv"],
            "error: rtsp://127.0.0.1:1/: expected a v",
        ),
        (["source=video.mp4", "output=o.csv", "rotate=1"], "rotate: video has an end, expected a camera or stream"),
        (
            ["source=video.mp4", "output=o.csv", "rotate=1", "detector.name=absent"],
            "rotate: video has an end, expected",
        ),
        (["source=video.mp4", "output=o.csv", "rotate=-1"], "rotate: expected 0 or the hours of at least 1 s, got -1"),
        (["source=video.mp4", "output=o.csv", "rotate=1e-4"], "rotate: expected 0 or the hours of at least 1 s, got 0"),
        (["source=video.mp4", "output=o.csv", "rotate=nan"], "rotate: expected 0 or the hours"),
        (["source=video.mp4", "output=o.csv", "rotate=day"], "rotate: expected a number, got day"),
        (["source=video.mp4"], "no display"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_1(
    tmp_path: Path, detector: str, call: Call, options: list[str], message: str
) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    with VideoWriter(tmp_path / "video.mp4") as video:
        for _ in range(3):
            video.write(torch.full((3, 64, 96), 80, dtype=torch.uint8))
    done = call("demo", *options, detector)
    assert done.code == 1
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert message in done.err


def test_rotation_without_an_output_is_said_to_have_no_effect(call: Call) -> None:
    assert "note: rotate has no effect without output=\n" in call("demo", "source=absent.mp4", "rotate=24").out


def test_a_source_that_has_the_name_of_a_partial_output_is_not_overwritten(
    street: list[str], tmp_path: Path, call: Call
) -> None:
    with VideoWriter(tmp_path / "clip.partial.mp4", 10) as video:
        video.write(scene(0))
    before = (tmp_path / "clip.partial.mp4").read_bytes()
    refused = call("demo", "source=clip.partial.mp4", *street[1:], "output=clip.mp4")
    assert refused.code == 1
    assert (tmp_path / "clip.partial.mp4").read_bytes() == before
