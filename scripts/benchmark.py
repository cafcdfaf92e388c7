"""What a frame costs: python scripts/benchmark.py source=MOT17/train split=val-half detections=det/yolox.txt.

Ratios to a public tracker in the same run are worth comparing, milliseconds on another machine are not.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import hydra
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from refuse import refusing
from rich.console import Console
from rich.table import Table

from track.mot import Sequence, find_sequences
from track.structures import Detections
from track.tracker import Tracker

Follow = Callable[[Sequence, list[Detections]], None]
PEER = "ByteTrack (trackers)"


@hydra.main(version_base=None, config_path="../conf", config_name="benchmark")
@refusing
def main(cfg: DictConfig) -> None:
    """Print each tracker's milliseconds a frame, and how many times those of the public one."""
    torch.set_num_threads(cfg.threads)
    videos = [(s, s.detections(cfg.detections)) for s in find_sequences(str(cfg.source), cfg.split)]
    followers: dict[str, Follow] = {name: ours(instantiate(node)) for name, node in cfg.trackers.items()}
    peer = bytetrack()
    if peer:
        followers[PEER] = peer
    costs: dict[str, list[float]] = {name: [] for name in followers}
    for _ in range(cfg.repeats):  # in turns, because the machine's other work comes and goes
        for name, follow in followers.items():
            costs[name].append(cost(follow, videos))
    show({name: median(values) for name, values in costs.items()})


def cost(follow: Follow, videos: list[tuple[Sequence, list[Detections]]]) -> float:
    """Milliseconds a frame over all videos."""
    start = time.perf_counter()
    for sequence, detections in videos:
        follow(sequence, detections)
    return 1e3 * (time.perf_counter() - start) / sum(len(detections) for _, detections in videos)


def ours(tracker: Tracker) -> Follow:
    """One of this project's trackers."""

    def follow(sequence: Sequence, detections: list[Detections]) -> None:
        tracker.reset()
        for time_, frame in zip(sequence.times, detections, strict=True):
            tracker.update(frame, time_)

    return follow


def bytetrack() -> Follow | None:
    """Roboflow's ByteTrack, where the extra `bench` is installed; its input is made before the clock counts."""
    try:
        import supervision
        import trackers
    except ImportError:
        return None
    made: dict[str, list[Any]] = {}

    def follow(sequence: Sequence, detections: list[Detections]) -> None:
        if sequence.name not in made:
            made[sequence.name] = [
                supervision.Detections(
                    xyxy=frame.boxes.numpy(), confidence=frame.scores.numpy(), class_id=np.zeros(len(frame), int)
                )
                for frame in detections
            ]
        tracker = trackers.ByteTrackTracker()
        for frame in made[sequence.name]:
            tracker.update(frame)

    return follow


def show(costs: dict[str, float]) -> None:
    """A table, the public tracker's cost being 1."""
    table = Table("tracker", box=None, pad_edge=False)
    for column in ("ms a frame", "ratio"):
        table.add_column(column, justify="right")
    for name, value in costs.items():
        table.add_row(name, f"{value:.3f}", f"{value / costs[PEER]:.2f}" if PEER in costs else "")
    Console().print(table)
    if PEER not in costs:
        print(f"no ratio to {PEER}: pip install -e '.[bench]'")


if __name__ == "__main__":
    main()
