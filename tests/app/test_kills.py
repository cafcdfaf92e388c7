"""Commands killed at random moments: no file under its final name is cut, and a rerun completes what was left.

`make soak` kills each command often; KILLS is how often. Without it, three of the commands are killed once.
"""

from __future__ import annotations

import csv
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.app.conftest import EVERY_BOX
from tests.datasets.test_download import Server, zipped
from track.app.console.outputs import partial_file
from track.media.images import to_jpeg
from track.media.video_file import VideoFile

CODE = """
import os, sys
from dataclasses import replace
from track.app.console.cli import main
from track.datasets.download import DATASETS

DATASETS["pennfudan"] = replace(DATASETS["pennfudan"], archives=(os.environ["ARCHIVE"],))
sys.exit(main(sys.argv[1:]))
"""
KILLS = int(os.environ.get("KILLS", "1"))
DETECTIONS = "detections=det/det.txt", "camera=none"
COMMANDS = {
    "train": [
        *("train", "task=motion", "data.root={streets}", "data.detections=det/det.txt", "data.batch_size=4"),
        *("trainer.max_epochs=3", "trainer.log_every_n_steps=1", "output_dir=out"),
    ],
    "predict": ["predict", "source={streets}", *DETECTIONS, "output_dir=out"],
    "cache": ["predict", "source={streets}", "{detector}", "camera=none", "output_dir=out", *EVERY_BOX],
    "record": [
        *("demo", "source={streets}/street-04-00", *DETECTIONS, "output=[out/a.mp4,out/a.csv]", "output_dir=out"),
        "tracker=bytetrack",
    ],
    "download": ["prepare-data", "dataset=pennfudan", "root=out", "output_dir=out"],
}


class Running:
    """A command in a process group of its own, with its output in the folder's log."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        folder.mkdir(exist_ok=True)
        with (folder / "log").open("a") as log:
            code = [sys.executable, "-c", CODE, *command]
            options: dict[str, Any] = {"cwd": folder, "stdout": log, "stderr": log, "start_new_session": True}
            self.process = subprocess.Popen(code, **options)

    def kill(self) -> None:
        """End it, and its workers, at once."""
        with suppress(ProcessLookupError):  # it has finished
            os.killpg(self.process.pid, signal.SIGKILL)


def completed(folder: Path, command: list[str]) -> float:
    """Run the command to its end; returns the seconds that it took."""
    began = time.monotonic()
    assert Running(folder, command).process.wait() == 0, (folder / "log").read_text()
    return time.monotonic() - began


def final_files(folder: Path) -> dict[str, bytes]:
    """The content of every file whose name does not say that it is temporary or partial."""
    files = (file for file in (folder / "out").rglob("*") if file.is_file())
    named = {str(file.relative_to(folder)): file for file in files}
    return {name: file.read_bytes() for name, file in named.items() if ".part" not in name}


def check_checkpoints(folder: Path, whole: Path, is_done: bool) -> None:
    """Checkpoints can be read; at the end they, the weights and the curves are equal."""
    for file in (folder / "out").glob("*.ckpt"):
        got = torch.load(file, weights_only=True)["state_dict"]
        expected = torch.load(whole / "out" / file.name, weights_only=True)["state_dict"]
        assert not is_done or all(torch.equal(got[key], expected[key]) for key in expected)
    left, expected = final_files(folder), final_files(whole)
    name = "out/motion.safetensors"
    assert left.get(name, None if is_done else expected[name]) == expected[name]
    if is_done:
        assert expected.keys() - left.keys() <= {"out/reliability.png"}  # drawn by the run that validates
        pd.testing.assert_frame_equal(*(pd.read_csv(run / "out/metrics.csv") for run in (folder, whole)))


def check_recording(folder: Path, whole: Path, is_done: bool) -> None:
    """A recording that was cut plays all but the last two of the frames that are in the csv beside it."""
    partial = partial_file(folder / "out/a.csv")
    if partial.exists():
        text = partial.read_text()
        assert text.endswith("\n") or not text
        frames = {int(row["frame"]) for row in csv.DictReader(text.splitlines())}
        if len(frames) > 2:
            video = next(file for file in (partial.with_suffix(".mp4"), folder / "out/a.mp4") if file.exists())
            assert len(list(VideoFile(video))) >= max(frames) - 2
    left, expected = final_files(folder), final_files(whole)
    if "out/a.mp4" in left:  # its frames show how fast the run was
        counts = {len(list(VideoFile(run / "out/a.mp4"))) for run in (folder, whole)}
        assert counts == {25}
    assert [name for name in left if name != "out/a.mp4" and left[name] != expected.get(name)] == []
    assert not is_done or left.keys() == expected.keys()


def check_equal(folder: Path, whole: Path, is_done: bool) -> None:
    """What is there is equal to the undisturbed result; at the end all of it is there."""
    left, expected = final_files(folder), final_files(whole)
    assert [name for name in left if left[name] != expected.get(name)] == []
    assert not is_done or left.keys() == expected.keys()


def check_cache(folder: Path, whole: Path, is_done: bool) -> None:
    """The same; detections of an unfinished video may be there, without their key."""
    left, expected = final_files(folder), final_files(whole)
    unfinished = {name for name in left if name.endswith("small_fcos.txt") and f"{name[:-4]}.json" not in left}
    assert not is_done or not unfinished
    assert [name for name in left if name not in unfinished and left[name] != expected.get(name)] == []
    assert not is_done or left.keys() == expected.keys()


CHECKS: dict[str, Callable[[Path, Path, bool], None]] = {
    "train": check_checkpoints, "cache": check_cache, "record": check_recording,
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS if "KILLS" in os.environ else ["train", "record", "download"])
def test_a_kill_leaves_nothing_that_only_looks_whole_and_a_rerun_completes(
    name: str, streets: Path, detector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, noise = Server(), random.Random(0)
    images = {f"PennFudanPed/PNGImages/{n}.png": noise.randbytes(20_000) for n in range(200)}
    server.files["/P.zip"] = zipped({"PennFudanPed/Annotation/a.txt": b""} | images)
    monkeypatch.setenv("ARCHIVE", f"{server.url}/P.zip")
    command = [one.replace("{streets}", str(streets)).replace("{detector}", detector) for one in COMMANDS[name]]
    check, chance = CHECKS.get(name, check_equal), random.Random(name)
    whole = tmp_path / "whole"
    duration = completed(whole, command)
    killed = 0
    for number in range(KILLS):
        folder = tmp_path / str(number)
        running = Running(folder, command)
        with suppress(subprocess.TimeoutExpired):
            running.process.wait(chance.uniform(0, duration))
        killed += running.process.poll() is None
        running.kill()
        running.process.wait()
        check(folder, whole, False)
        resumed = ["ckpt_path=last"] if (folder / "out/last.ckpt").exists() else []
        completed(folder, [*command, *resumed])
        check(folder, whole, True)
    server.http.shutdown()
    print(f"{name}: {killed} of {KILLS} were killed in {duration:.1f} s, nothing was cut, every rerun was equal")


def test_the_clock_of_the_soak_test_runs_for_more_than_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    soak = runpy.run_path(str(Path(__file__).parents[2] / "scripts/soak_live.py"))
    camera = soak["Camera"]([torch.full((3, 240, 320), 90, dtype=torch.uint8)])
    for seconds in (0.0, 6553.5, 6553.6, 90000.1):
        monkeypatch.setattr(camera, "now", lambda seconds=seconds: seconds)
        image = np.asarray(Image.open(BytesIO(to_jpeg(camera.image()))).convert("RGB"))
        assert soak["time_in"](image) == seconds
