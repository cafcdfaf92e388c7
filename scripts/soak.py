"""A day of a camera at 30 frames per second, as fast as it goes: memory, ids and speed must stay as they were.

    python scripts/soak.py [HOURS]

People walk in from the left and out on the right; detections are jittered and sometimes missed. Prints a row per
simulated hour; exits with 1 if memory grew by more than a tenth after the first minute, if an id was given twice, or if
the last hour took half as long again as the first one.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np

from track import Detections, Tracker
from track.analytics import SceneAnalytics

RATE = 30  # frames per second
PEOPLE = 8  # at once
CROSSING = 20.0  # seconds that a person needs from one side to the other
WIDTH, HEIGHT = 1280, 720
MAX_GROWTH = 1.1  # of memory, after the first minute
MAX_SLOWDOWN = 1.5  # of the last hour


def main(hours: float) -> int:
    """Simulate; returns the exit code."""
    chance = np.random.default_rng(0)
    tracker = Tracker()
    analytics = SceneAnalytics((WIDTH, HEIGHT), lines={"door": (640, 720, 640, 0)})
    last_frames: dict[int, int] = {}
    highest = 0  # of the ids so far
    memory_at_first = 0
    durations: list[float] = []
    began = time.perf_counter()
    for frame in range(round(hours * 3600 * RATE)):
        now = frame / RATE
        tracks = tracker.update(Detections.from_numpy(*boxes(now, chance)), now)
        analytics.update(tracks, now)
        for identity in tracks.ids.tolist():
            if identity > highest:
                highest = identity
            elif frame - last_frames.get(identity, 0) > RATE * 60:
                print(f"id {identity} was given twice")
                return 1
            last_frames[identity] = frame
        if frame == 60 * RATE:
            memory_at_first = memory()
        if (frame + 1) % (3600 * RATE) == 0:
            last_frames = {identity: last for identity, last in last_frames.items() if frame - last < 3600 * RATE}
            durations.append(time.perf_counter() - began)
            began = time.perf_counter()
            print(f"hour {len(durations)}: {durations[-1]:.0f} s, {memory()} MiB, {highest} ids", flush=True)
    print(analytics.summary(["background", "person"]))
    if memory() > MAX_GROWTH * memory_at_first:
        print(f"memory grew from {memory_at_first} to {memory()} MiB")
        return 1
    if len(durations) > 1 and durations[-1] > MAX_SLOWDOWN * durations[0]:
        print(f"the last hour took {durations[-1]:.0f} s, the first one {durations[0]:.0f} s")
        return 1
    return 0


def boxes(now: float, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) and scores (N,) of the people at a time, seconds."""
    phase = now / CROSSING + np.arange(PEOPLE) / PEOPLE
    x = phase % 1 * (WIDTH + 200) - 100
    y = 80 + 60 * (np.arange(PEOPLE) * 5 % PEOPLE) + 3 * np.floor(phase) % 40
    corners = np.stack([x, y, x + 40, y + 100], 1) + chance.normal(0, 1, (PEOPLE, 4))
    visible = (x > -20) & (x < WIDTH - 20) & (chance.random(PEOPLE) > 0.05)
    return corners[visible], chance.uniform(0.7, 0.95, PEOPLE)[visible]


def memory() -> int:
    """The largest resident memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 24.0))
