"""A camera for an hour: `grutrack demo` writes CSV and video, `grutrack serve` shows it to one viewer.

    python -m scripts.soak_live [MINUTES]   # 60 by default; Linux

A drawn street is served as an MJPEG stream on loopback, with the time in its lowest rows. Prints a row per minute;
exits with 1 if, after the first minute, the memory of either process grew by more than a tenth, or if what the viewer
sees or the table holds ever lags by more than `MAX_LAG`, or if a file is not whole after SIGTERM.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from itertools import cycle, pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tests.streaming import MjpegServer
from track.datasets.streets import make_dataset
from track.media.sources import ImageFolder, VideoFile

RATE = 10  # frames per second of the camera
BITS, BLOCK = 24, 12  # of the time in an image, in tenths of a second, and their width and height in pixels
MAX_GROWTH = 1.1  # of memory, after the first minute
MAX_LAG = 10.0  # seconds, on a machine that does other work too; a queue would grow without end
HEARTBEAT = "gradio_api/heartbeat/soak"
EVERY_BOX = (  # so that the table has rows of each frame: drawn people are detected with low scores
    *("tracker=bytetrack", "tracker.min_score=0", "tracker.min_hits=1", "tracker.association.new_track_score=0"),
)


class Camera:
    """A street that is repeated without end, as an MJPEG stream; its images hold the tenths of seconds since now."""

    def __init__(self, images: list[Tensor]) -> None:
        self.images, self.began = cycle(images), time.monotonic()
        self.url = MjpegServer(self.image, RATE).url

    def now(self) -> float:
        """Seconds since the camera was switched on."""
        return time.monotonic() - self.began

    def image(self) -> Tensor:
        """The next image, with the time in it."""
        image = next(self.images).clone()
        bits = round(10 * self.now()) >> torch.arange(BITS) & 1
        image[:, -BLOCK:, : BITS * BLOCK] = 255 * bits.repeat_interleave(BLOCK).byte()
        return image


def time_in(image: np.ndarray) -> float:
    """The seconds that an image (H, W, 3) holds."""
    blocks = image[-BLOCK // 2 - 2 : -BLOCK // 2 + 2, : BITS * BLOCK].mean((0, 2)).reshape(BITS, BLOCK)
    bits = blocks[:, 3:-3].mean(1) > 128
    return float((bits << np.arange(BITS)).sum()) / 10


class Viewer:
    """A tab that watches the server's source, without a browser."""

    def __init__(self, url: str, camera: Camera) -> None:
        self.url, self.camera = url.rstrip("/"), camera
        self.image_count, self.lag = 0, 0.0  # so far; the longest since it was last read
        Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        with suppress(httpx.HTTPError):  # the server is stopped at the end
            self._play()

    def _play(self) -> None:
        session = {"session_hash": "soak"}
        with httpx.Client(base_url=f"{self.url}/", timeout=120) as client:
            config = client.get("config").json()
            (button,) = (one["id"] for one in config["components"] if one["props"].get("value") == "Watch")
            events = {tuple(target): one["id"] for one in config["dependencies"] for target in one["targets"]}
            load = next(index for (_, kind), index in events.items() if kind == "load")
            Thread(target=self._stay, daemon=True).start()
            for index in (load, events[button, "click"]):
                client.post("gradio_api/queue/join", json={"data": [], "fn_index": index, **session})
                for message in self._messages(client, session):
                    for shown in re.findall(r"base64,([\w+/=]+)", message):
                        self._see(base64.b64decode(shown))

    def _stay(self) -> None:
        """Keep the tab open."""
        with suppress(httpx.HTTPError), httpx.stream("GET", f"{self.url}/{HEARTBEAT}", timeout=None) as beats:
            for _ in beats.iter_raw():
                pass

    def _messages(self, client: httpx.Client, session: dict[str, str]) -> Iterator[str]:
        """The server's messages until the call that was joined is complete."""
        with client.stream("GET", "gradio_api/queue/data", params=session) as lines:
            for line in lines.iter_lines():
                if line.startswith("data:"):
                    message: dict[str, Any] = json.loads(line[5:])
                    yield line
                    if message["msg"] in ("process_completed", "close_stream"):
                        return

    def _see(self, data: bytes) -> None:
        self.image_count += 1
        self.lag = max(self.lag, self.camera.now() - time_in(np.asarray(Image.open(BytesIO(data)).convert("RGB"))))


class Table:
    """The CSV of a running demo: how far its last row lags behind the clock, compared with the first minute."""

    def __init__(self, file: Path) -> None:
        self.file, self._usual, self._size = file, 0.0, 0
        self.lag = 0.0

    def read(self, now: float, is_first_minute: bool) -> None:
        """Take in the rows so far."""
        with self.file.open("rb") as stream:
            stream.seek(max(0, self.file.stat().st_size - 1000))
            rows = stream.read().decode().split("\n")
        lag = now - float(rows[-2].split(",")[1])
        if is_first_minute:
            self._usual = lag if not self._usual else min(lag, self._usual)
        self.lag = max(self.lag, lag - self._usual)


def main(minutes: float) -> int:
    """Run demo and page; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        camera = Camera([frame.image for frame in ImageFolder(make_dataset(folder, 1, 300) / "street-00-00/img1")])
        options = [f"source={camera.url}", "detector.name=fcos_mobilenet_v2_fpn", "detector.min_score=0.05"]
        processes: list[subprocess.Popen[str]] = []
        try:
            outputs = "output=[out.mp4,tracks.csv]", "output_dir=out"
            processes.append(demo := start("demo", folder, *options, *EVERY_BOX, *outputs))
            processes.append(serve := start("serve", folder, *options, "port=0", "output_dir=page"))
            faults = watch(camera, folder, demo, serve, minutes)
            for process in processes:
                process.send_signal(signal.SIGTERM)
            codes = demo.wait(60), serve.wait(60)
        finally:
            for process in processes:
                process.kill()  # nothing if it has ended
        if codes != (143, 0):
            faults.append(f"exit codes {codes}, expected (143, 0)")
        faults += check_files(folder, 60 * minutes)
    print("\n".join(faults) or "memory flat, lag bounded, files whole")
    return int(bool(faults))


def start(command: str, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start a command in a folder."""
    environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "track", command, *options]
    return subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment)


def watch(
    camera: Camera, folder: Path, demo: subprocess.Popen[str], serve: subprocess.Popen[str], minutes: float
) -> list[str]:
    """Print a row per minute from when both run; returns what was wrong."""
    assert serve.stdout is not None
    viewer = Viewer(serve.stdout.readline().split()[0], camera)
    table = Table(folder / "tracks.csv")
    while viewer.image_count < 2 or not table.file.exists() or table.file.stat().st_size < 2000:
        time.sleep(0.5)
        if demo.poll() is not None or serve.poll() is not None:
            return ["a process ended before its first frame"]
    began, faults = time.monotonic(), []
    viewer.lag = 0.0
    peaks: list[tuple[int, int]] = []  # of each minute, MiB
    for minute in range(1, max(2, round(minutes)) + 1):
        peak, before = (0, 0), viewer.image_count
        while time.monotonic() < began + 60 * minute:
            time.sleep(0.5)
            peak = max(peak[0], memory(demo.pid)), max(peak[1], memory(serve.pid))
            table.read(camera.now(), minute == 1)
        peaks.append(peak)
        seen = viewer.image_count - before
        print(
            f"minute {minute}: demo {peak[0]} MiB, lag {table.lag:.1f} s, {table.file.stat().st_size / 1e6:.1f} MB; "
            f"page {peak[1]} MiB, {seen} images, lag {viewer.lag:.1f} s",
            flush=True,
        )
        if not seen:
            faults.append(f"minute {minute}: the viewer saw nothing")
        faults += [f"minute {minute}: {one} lagged" for one, lag in lags(table, viewer) if lag > MAX_LAG]
        table.lag = viewer.lag = 0.0
    for name, first, last in zip(("demo", "page"), peaks[0], peaks[-1], strict=True):
        if last > MAX_GROWTH * first:
            faults.append(f"{name}: memory grew from {first} to {last} MiB")
    return faults


def lags(table: Table, viewer: Viewer) -> list[tuple[str, float]]:
    """The longest lag of each, seconds."""
    return [("the table", table.lag), ("the page", viewer.lag)]


def check_files(folder: Path, seconds: float) -> list[str]:
    """What is wrong with the files of a demo that was stopped."""
    with (folder / "tracks.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    faults = [f"row {number}: {row}" for number, row in enumerate(rows, 1) if len(row) != len(rows[0])]
    times = [float(row[1]) for row in rows[1:]]
    faults += [f"time {b} after {a}" for a, b in pairwise(times) if b < a]
    shown = [frame.time for frame in VideoFile(folder / "out.mp4").without_pixels()]
    print(f"tracks.csv: {len(rows) - 1} rows, {times[-1]:.0f} s; out.mp4: {len(shown)} frames, {shown[-1]:.0f} s")
    if min(times[-1], shown[-1]) < seconds - 2 * MAX_LAG or abs(times[-1] - shown[-1]) > MAX_LAG:
        faults.append(f"expected {seconds:.0f} s in both files")
    left = [file.name for file in folder.glob("track-*")]
    return [*faults, *(f"{name} was left by the page" for name in left)]


def memory(process: int) -> int:
    """The resident memory of a process, MiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) // 1024 if found else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0))
