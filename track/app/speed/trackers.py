"""Milliseconds and memory of trackers on the same detections, and how both grow with the number of objects."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch

from track.app.speed.crowd import crowd_detections
from track.app.speed.peers import REFERENCE, Video
from track.app.speed.report import print_table
from track.checkpoint import install_command
from track.geometry import identity_affine
from track.media.sources import FileSource
from track.pipeline import camera_motion_for, detections_from_file
from track.tracking.tracker import Tracker

Run = Callable[[Video], Iterator[None]]  # yields before the first frame, and after each
BOXES_PER_RUN = 40_000  # of a crowd
WARM_UP = 5  # frames
LONG_RUN = 20.0  # seconds; a longer run is not repeated
GROWTH_FROM = 100  # objects: with fewer, what does not depend on them dominates
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(10_000))"


@dataclass(frozen=True)
class OwnTracker:
    """One of this project's trackers as a `Run`."""

    tracker: Tracker

    def __call__(self, video: Video) -> Iterator[None]:
        """Track a video, yielding before the first frame and after each."""
        self.tracker.reset()
        yield
        for frame in zip(video.detections, video.times, video.affines, strict=True):
            self.tracker.update(*frame)
            yield


@dataclass(frozen=True)
class Cost:
    """What tracking costs: milliseconds per frame, the median of the runs, and the memory of a process that tracks.

    peak: of the whole process, bytes. tracking: how much of it came after all was loaded.
    """

    milliseconds: float
    peak: float
    tracking: float


@dataclass(frozen=True)
class Case:
    """What trackers are measured on. objects: their number if it is a crowd's, otherwise 0."""

    name: str
    videos: Sequence[Video]
    objects: int = 0


def crowd_case(count: int) -> Case:
    """A crowd of `count` boxes; the more of them, the fewer frames."""
    frames = WARM_UP + max(10, min(400, BOXES_PER_RUN // count))
    times = [number / 30 for number in range(frames)]
    video = Video(crowd_detections(count, frames), times, [identity_affine()] * frames, WARM_UP)
    return Case(f"{count:,} objects", [video], count)


def source_video(source: FileSource, file: str, camera: str) -> Video:
    """A source's detections in a file, and the motion of its camera.

    Raises ValueError if the motion would have to be estimated, besides what `detections_from_file` raises.
    """
    motion = camera_motion_for(camera, source)
    if motion.needs_pixels:
        raise ValueError(f"camera={camera}: {source.name} has no gmc.txt, expected camera=none")
    detections = list(detections_from_file(file, source).detections)
    frames = list(islice(source.without_pixels(), len(detections)))
    affines = [motion(frame, found.boxes) for frame, found in zip(frames, detections, strict=False)]
    return Video(detections[: len(frames)], [frame.time for frame in frames], affines)


def measure(runs: Mapping[str, Run], videos: Sequence[Video], repeats: int, busy: int) -> dict[str, Cost]:
    """The cost of each tracker, by name. busy: processes that keep a core busy meanwhile.

    The runs are interleaved, so that other load affects all alike. Memory is that of a process for each tracker.
    """
    frames = sum(len(video.detections) - video.warm_up for video in videos)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with busy_processes(busy):
        for _ in range(repeats):
            for name, run in runs.items():
                if max(seconds[name], default=0) < LONG_RUN:
                    seconds[name].append(sum(seconds_of(run, video) for video in videos))
    memory = {name: peak_memory(run, videos) for name, run in runs.items()}
    return {name: Cost(1e3 * median(seconds[name]) / max(1, frames), *memory[name]) for name in runs}


def seconds_of(run: Run, video: Video) -> float:
    """How long a tracker takes for a video after its warm-up."""
    steps = run(video)
    for _ in islice(steps, 1 + video.warm_up):
        pass
    start = time.perf_counter()
    for _ in steps:
        pass
    return time.perf_counter() - start


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """That many processes that compute without end, for as long as this one lives."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def peak_memory(run: Run, videos: Sequence[Video]) -> tuple[float, float]:
    """The memory of a process that tracks the videos, bytes: at its peak, and how much of it came with tracking.

    Both are nan where the system is not Linux, which alone tells the peak of a program instead of its parent's.
    """
    if not Path("/proc/self/status").exists():
        return math.nan, math.nan
    context = get_context("forkserver")  # a server that has imported this module, and tracked nothing
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (torch.get_num_threads(),)) as pool:
        return pool.submit(_peak_memory, pickle.dumps((run, videos))).result()


def _peak_memory(pickled: bytes) -> tuple[float, float]:
    """pickled: a `Run` and its videos; the pool itself would open a file for each of their tensors."""
    run, videos = pickle.loads(pickled)
    begun = []
    for video in videos:
        steps = run(video)
        next(steps)
        begun.append(_memory("VmRSS"))
        for _ in steps:
            pass
    peak = _memory("VmHWM")
    return peak, max(0.0, peak - begun[0])


def _memory(kind: str) -> float:
    """Bytes: VmRSS, what this process has in memory, or VmHWM, the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * float(line.split()[1]) for line in lines if line.startswith(kind))


def print_costs(cases: Sequence[Case], costs: Sequence[Mapping[str, Cost]]) -> None:
    """Print milliseconds with ratios to the public tracker, exponents of growth, and memory.

    costs: of each tracker by name, for each case.
    """
    names, growth = list(costs[0]), exponents(cases, costs)
    title = f"ms per frame (ratio to {REFERENCE})" if REFERENCE in names else "ms per frame"
    rows = {name: [_milliseconds(case, name) for case in costs] for name in names}
    headings = [case.name for case in cases]
    print_table([title, *headings, *(["exponent"] if growth else [])], _rows(rows, growth))
    print()
    rows = {name: [_megabytes(case[name]) for case in costs] for name in names}
    print_table(["peak memory in MB (of it by tracking)", *headings], _rows(rows, {}))
    if REFERENCE not in names:
        print(f"no ratio to {REFERENCE}: {install_command('bench')}")


def exponents(cases: Sequence[Case], costs: Sequence[Mapping[str, Cost]]) -> dict[str, float]:
    """For each tracker the e of milliseconds ~ objects^e, from `GROWTH_FROM` objects to the most; empty if unknown."""
    counted = [(case.objects, cost) for case, cost in zip(cases, costs, strict=True) if case.objects >= GROWTH_FROM]
    if len(counted) < 2:
        return {}
    (few, low), (many, high) = counted[0], counted[-1]
    return {
        name: math.log(high[name].milliseconds / low[name].milliseconds) / math.log(many / few) for name in costs[0]
    }


def _rows(cells: Mapping[str, list[str]], growth: Mapping[str, float]) -> Iterator[list[str]]:
    for name, row in cells.items():
        yield [name, *row, *([f"{growth[name]:.2f}"] if growth else [])]


def _milliseconds(costs: Mapping[str, Cost], name: str) -> str:
    cost = costs[name].milliseconds
    text = f"{cost:.3f}" if cost < 10 else f"{cost:.1f}"
    return f"{text} ({cost / costs[REFERENCE].milliseconds:.2f})" if REFERENCE in costs else text


def _megabytes(cost: Cost) -> str:
    return f"{cost.peak / 1e6:.0f} ({cost.tracking / 1e6:.0f})"
