"""What a pipeline from pixels costs, beside the plain loop that needs no package but torchvision and trackers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from omegaconf import DictConfig
from torchvision.models import get_model_weights
from torchvision.ops import box_iou

from track.analytics import SceneAnalytics
from track.app.console.cli import instantiate
from track.app.speed.peers import REFERENCE, installed_peers, to_supervision
from track.app.speed.report import machine, print_table
from track.checkpoint import install_command
from track.detection.detector import OWN, Detector, available_detectors, build_detector, load_detector
from track.display.overlay import Overlay, OverlayWriter
from track.evaluation.calibration import calibrated
from track.media.results import ResultWriter
from track.media.sources import open_source
from track.pipeline import Pipeline, Sink, camera_motion_for
from track.structures import Detections, TrackedFrame
from track.tracking.tracker import Tracker

PLAIN_LOOP, OURS = "torchvision's detector, ByteTrack (trackers)", "grutrack"


def compare_pipelines(cfg: DictConfig) -> None:
    """Print the cost of both pipelines from pixels, how their boxes agree, and what comes after the detector."""
    comparison = run_both(cfg)
    plain = comparison.costs[PLAIN_LOOP]
    rows = ([name, f"{cost:.1f}", f"{cost / plain:.2f}"] for name, cost in comparison.costs.items())
    print(machine())
    print_table(["pipeline", "ms per frame", "ratio"], rows)
    found, boxes = comparison.found_again, comparison.boxes
    print(f"torchvision's boxes found again, with IoU 0.99 and scores within 0.01: {found} of {boxes}")
    costs = costs_after_detection(cfg, comparison.detector)
    print(", ".join(f"{name} {value:.1f} ms" for name, value in costs.items()))


def compare_detectors(cfg: DictConfig) -> None:
    """Print a row of Markdown for each of torchvision's detectors."""
    print("| `detector.name=` | parameters | COCO mAP | plain loop, ms per frame | grutrack, ms | times as fast |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in available_detectors():
        if name in OWN:
            continue
        cfg = cfg.copy()
        cfg.detector.name = name
        published = get_model_weights(name).DEFAULT.meta["_metrics"]["COCO-val2017"]["box_map"]
        comparison = run_both(cfg)
        plain, ours = comparison.costs[PLAIN_LOOP], comparison.costs[OURS]
        millions = f"{comparison.parameters / 1e6:.1f} M"
        print(f"| {name} | {millions} | {published} | {plain:.0f} | {ours:.0f} | {plain / ours:.2f} |", flush=True)


@dataclass(frozen=True)
class PipelineComparison:
    """Both pipelines on the same frames.

    costs: milliseconds per frame of each. boxes: how many the plain loop found; found_again: how many of them ours
    found too. detector: ours. parameters: of torchvision's detector.
    """

    costs: dict[str, float]
    boxes: int
    found_again: int
    detector: Detector
    parameters: int


def run_both(cfg: DictConfig) -> PipelineComparison:
    """Run both pipelines in turns."""
    if REFERENCE not in installed_peers():
        raise ValueError(f"detections=null: the public tracker is missing, {install_command('bench')}")
    torch.manual_seed(0)  # of random weights
    detector: Detector = instantiate(cfg.detector)
    plain: Any
    if cfg.detector.checkpoint is None:
        torch.manual_seed(0)
        plain = build_detector(cfg.detector.name, cfg.detector.weights)[0].eval()
    else:
        plain = load_detector(cfg.detector.checkpoint).network
    plain, tracker = plain.to(detector.device), instantiate(cfg.trackers.gru)
    runs: dict[str, Callable[[], list[Detections]]] = {
        PLAIN_LOOP: lambda: plain_loop(cfg, plain, detector),
        OURS: lambda: [result.observation.detections for result in our_pipeline(cfg, detector, tracker)],
    }
    costs: dict[str, list[float]] = {}
    found: dict[str, list[Detections]] = {}
    for _ in range(cfg.repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            found[name] = run()
            costs.setdefault(name, []).append(1e3 * (time.perf_counter() - start) / len(found[name]))
    medians = {name: median(values) for name, values in costs.items()}
    parameters = sum(one.numel() for one in plain.parameters())
    boxes = sum(map(len, found[PLAIN_LOOP]))
    return PipelineComparison(medians, boxes, count_found_again(*found.values()), detector, parameters)


def plain_loop(cfg: DictConfig, network: Any, detector: Detector) -> list[Detections]:
    """Read, detect, track, one after another, with torchvision's network as it is; scores calibrated as ours."""
    import trackers

    tracker, found = trackers.ByteTrackTracker(), []
    with closing(open_source(str(cfg.source))) as source:
        for frame in islice(source, cfg.frames):
            with torch.inference_mode():
                (output,) = network([frame.image.to(detector.device).float() / 255])
            boxes, scores, labels = (output[key].cpu() for key in ("boxes", "scores", "labels"))
            scores = calibrated(scores, *detector.calibration)
            chosen = torch.isin(labels, detector.labels) & (scores >= detector.min_score)
            found.append(Detections(boxes, scores, labels)[chosen])
            tracker.update(to_supervision(found[-1]))
    return found


def our_pipeline(cfg: DictConfig, detector: Any, tracker: Tracker) -> Iterator[TrackedFrame]:
    """The pipeline on the source's first frames."""
    with closing(open_source(str(cfg.source))) as source:
        pipeline = Pipeline(detector, camera_motion_for(cfg.camera, source), tracker)
        yield from islice(pipeline(source), cfg.frames)


def costs_after_detection(cfg: DictConfig, detector: Detector) -> dict[str, float]:
    """Milliseconds per frame of tracking, of drawing, of writing H.264 and CSV, and of all with detection.

    Detection goes on while a thread encodes the video; tracking is measured by itself.
    """
    folder, costs = Path(str(cfg.output_dir)), dict.fromkeys(("tracking", "drawing", "writing", "all"), 0.0)
    analytics = SceneAnalytics()
    overlay = Overlay(detector.label_names, analytics)
    video = OverlayWriter(folder / "benchmark.mp4", 30, overlay)
    table = ResultWriter(folder / "benchmark.csv", detector.label_names)
    groups: dict[str, list[Sink]] = {"drawing": [analytics, overlay], "writing": [video, table]}
    found = []
    with timed(costs, "all"), video, table:
        for result in our_pipeline(cfg, detector, instantiate(cfg.trackers.gru)):
            found.append(result.observation.detections)
            for name, sinks in groups.items():
                with timed(costs, name):
                    for sink in sinks:
                        sink.write(result)
    tracker = instantiate(cfg.trackers.gru)
    tracker.reset()
    for detections in found:
        with timed(costs, "tracking"):
            tracker.update(detections)
    return {name: 1e3 * seconds / max(1, len(found)) for name, seconds in costs.items()}


@contextmanager
def timed(costs: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds that a block takes to `costs[name]`."""
    start = time.perf_counter()
    yield
    costs[name] += time.perf_counter() - start


def count_found_again(theirs: list[Detections], ours: list[Detections]) -> int:
    """How many of their boxes are among ours, with IoU of at least 0.99 and scores within 0.01."""
    found = 0
    for a, b in zip(theirs, ours, strict=True):
        close = (box_iou(a.boxes, b.boxes) >= 0.99) & ((a.scores[:, None] - b.scores).abs() <= 0.01)
        found += int(close.any(1).sum())
    return found
