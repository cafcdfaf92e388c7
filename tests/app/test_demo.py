"""scripts/demo.py on a server without a screen: what it writes, refuses, and leaves behind when it is stopped."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.streaming import Camera, scene
from track.datasets.streets import make_dataset
from track.detection.detector import build, save_detector
from track.formats.mot import find_sequences, write_detections
from track.media.sources import frames
from track.media.video_writer import VideoWriter

SCRIPT = Path(__file__).parent.parent / "scripts" / "demo.py"


def demo(*overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    bare = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    command = [sys.executable, str(SCRIPT), *overrides]
    return subprocess.run(command, cwd=cwd, env=bare, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A drawn sequence as a source, with its ground truth as detections."""
    sequence = find_sequences(make_dataset(tmp_path_factory.mktemp("streets"), 1, 25, seed=4))[0]
    write_detections(sequence.path / "det.txt", sequence.truth())
    return [f"source={sequence.path / 'img1'}", f"detections={sequence.path / 'det.txt'}", "tracker=kalman"]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A detector of random weights that sees something everywhere."""
    torch.manual_seed(0)
    network, categories = build("small_fcos", None)
    torch.nn.init.constant_(network.head.classification_head.cls_logits.bias, 0.0)
    file = tmp_path_factory.mktemp("weights") / "d.safetensors"
    return f"detector.checkpoint={save_detector(network, 'small_fcos', categories, file)}"


def test_every_frame_is_in_the_video_and_every_box_in_the_tables(street: list[str], tmp_path: Path) -> None:
    line = "lines={door: [160,240,160,0]}"
    done = demo(*street, line, "output=[out.mp4,t.txt,t.csv,t.jsonl]", "output_dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "25 frames" in done.stdout
    assert len(list(frames(tmp_path / "out.mp4"))) == 25
    with (tmp_path / "t.csv").open() as file:
        table = [(int(r["frame"]), int(r["id"]), float(r["x1"])) for r in csv.DictReader(file)]
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    rows = [line.split(",") for line in (tmp_path / "t.txt").read_text().splitlines()]
    assert len(table) > 50
    assert [(r["frame"], r["id"]) for r in lines] == [row[:2] for row in table]
    assert sorted((int(r[0]), int(r[1])) for r in rows) == sorted(row[:2] for row in table)
    assert {file.name for file in (tmp_path / "out").iterdir()} >= {"heatmap.png", "trajectories.png", "events.csv"}


def test_ctrl_c_leaves_files_that_are_whole(detector: str, tmp_path: Path) -> None:
    began = time.monotonic()
    camera = Camera(lambda: scene((time.monotonic() - began) % 4))
    every = "detector.min_score=0", "tracker.min_score=0", "tracker.association.new_track_score=0", "tracker.min_hits=1"
    files = ["tracker=kalman", "output=[out.mp4,t.csv]", "output_dir=out"]
    command = [sys.executable, str(SCRIPT), f"source={camera.url}", detector, *every, *files]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    table = tmp_path / "t.csv"
    while not (table.exists() and table.stat().st_size > 2000):
        assert running.poll() is None, running.stderr.read()  # type: ignore[union-attr]
        assert time.monotonic() - began < 120
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    told, complaint = running.communicate(timeout=60)
    camera.kill()
    assert running.returncode == 130
    assert complaint.decode() == "interrupted\n"
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert all(None not in row.values() for row in rows)
    taken = [frame.time for frame in frames(tmp_path / "out.mp4")]
    count = int(told.decode().split(" frames, ")[0].rsplit(" ", 1)[1].split(":")[-1])
    assert len(taken) in (count, count + 1)  # stopped between a frame's writing and its being counted
    assert max(float(row["time"]) for row in rows) == pytest.approx(taken[-1] - taken[0], abs=0.5)
    assert (tmp_path / "out/trajectories.png").stat().st_size > 500


def test_rerun_gets_a_file(street: list[str], tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    done = demo(*street, "viewer=street.rrd", "output_dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "street.rrd").stat().st_size > 100_000


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["source=null", "output=o.csv"],
            "source: expected a webcam's index, a video file, a folder of images or a URL",
        ),
        (["source=absent.mp4", "detections=x.txt", "output=o.csv"], "absent.mp4: no such file"),
        (["web=true", "port=99999"], "port=99999: expected one that is free on 127.0.0.1, or port=0"),
        (["source=99", "output=o.csv"], "camera 99: not there"),
        (["source=text.mp4", "output=o.csv"], "text.mp4: expected a video"),
        (["source=video.mp4", "output=out.gif"], "output: out.gif: expected a name that ends with .mp4, .txt, "),
        (["source=video.mp4", "output=text.mp4/out.csv"], "text.mp4"),
        (["source=video.mp4", "lines={door: [1,2]}", "output=o.csv"], "line door"),
        (["source=video.mp4", "lines=[320,480,320,0]", "output=o.csv"], "lines: expected names, as in lines={door: ["),
        (["web=true", "zones={queue: [[0,0],[1,1]]}"], "zone queue: expected three or more points"),
        (
            ["source=video.mp4", "metres_per_pixel=far", "output=o.csv"],
            "metres_per_pixel: expected a positive number, got far",
        ),
        (["source=video.mp4", "output=1"], "output: 1: expected a name that ends with .mp4, .txt, "),
        (["source=video.mp4", "viewer=screen"], "viewer: expected window, rerun or a file.rrd, got screen"),
        (["source=video.mp4"], "no display"),
    ],
)
def test_a_mistake_is_one_line_and_exit_1(tmp_path: Path, detector: str, overrides: list[str], message: str) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    with VideoWriter(tmp_path / "video.mp4") as video:
        for _ in range(3):
            video.write(torch.full((3, 64, 96), 80, dtype=torch.uint8))
    done = demo(*overrides, detector, cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert message in done.stderr
