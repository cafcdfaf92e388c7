"""grutrack benchmark: what tracking costs, compared with public trackers in the same run.

Ratios to a public tracker are worth comparing; milliseconds on another machine are not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig

from track.app.console.cli import command, instantiate
from track.app.speed.peers import installed_peers
from track.app.speed.pipelines import compare_detectors, compare_pipelines
from track.app.speed.report import machine
from track.app.speed.trackers import (
    Case,
    OwnTracker,
    Run,
    crowd_case,
    measure,
    print_costs,
    source_video,
)
from track.evaluation.plots import plot_growth
from track.media.sources import Selection, find_sources


@command("benchmark")
def main(cfg: DictConfig) -> None:
    """Print each tracker's milliseconds per frame and memory, and their ratios to a public one's."""
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    if cfg.crowd is not None or cfg.detections is not None:
        compare_trackers(cfg)
    elif cfg.every_detector:
        compare_detectors(cfg)
    else:
        compare_pipelines(cfg)


def compare_trackers(cfg: DictConfig) -> None:
    """Print what tracking alone costs, and draw how it grows with the number of objects."""
    if cfg.busy < 0:
        raise ValueError(f"busy: expected 0 or more, got {cfg.busy}")
    runs: dict[str, Run] = {name: OwnTracker(instantiate(node)) for name, node in cfg.trackers.items()}
    if cfg.peers:
        runs |= installed_peers()
    cases = crowds(cfg.crowd) if cfg.crowd is not None else [videos(cfg)]
    print(f"{machine()}, {cfg.busy} busy processes beside it", flush=True)
    costs = [measure(runs, case.videos, cfg.repeats, cfg.busy) for case in cases]
    print_costs(cases, costs)
    if len(cases) > 1:
        curves = {name: [cost[name].milliseconds for cost in costs] for name in runs}
        file = Path(str(cfg.output_dir)) / "growth.png"
        plot_growth([case.objects for case in cases], curves, file)
        print(f"growth: {file}")


def videos(cfg: DictConfig) -> Case:
    """All the source's videos."""
    sources = find_sources(str(cfg.source), Selection(cfg.split))
    return Case(str(cfg.split), [source_video(one, str(cfg.detections), str(cfg.camera)) for one in sources])


def crowds(counts: Any) -> list[Case]:
    """A crowd of each number of objects, ascending."""
    counts = list(counts) if isinstance(counts, ListConfig) else [counts]
    if not counts or not all(type(count) is int and count >= 1 for count in counts):
        raise ValueError(f"crowd: expected numbers of objects, such as [10,1000], got {counts}")
    return [crowd_case(count) for count in sorted(set(counts))]
