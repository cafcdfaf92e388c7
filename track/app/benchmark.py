"""grutrack benchmark: milliseconds per frame, compared with a public tracker in the same run.

Ratios to the public tracker are worth comparing; milliseconds on another machine are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torchvision.models import get_model_weights
from torchvision.ops import box_iou

from track.analytics import SceneAnalytics
from track.app.console.cli import command, instantiate
from track.checkpoint import install_command
from track.detection.detector import OWN, Detector, available_detectors, build_detector, load_detector
from track.detection.source import PrecomputedDetections
from track.display.overlay import Overlay, OverlayWriter
from track.evaluation.calibration import calibrated
from track.media.results import ResultWriter
from track.media.sources import FileSource, Selection, find_sources, open_source
from track.pipeline import Pipeline, Sink, camera_motion_for, detections_from_file
from track.structures import Detections, TrackedFrame
from track.tracking.tracker import Tracker

PEER = "ByteTrack (trackers)"
PLAIN_LOOP, OURS = "torchvision's detector, ByteTrack (trackers)", "grutrack"


@dataclass(frozen=True)
class DetectedVideo:
    """A source without pixels, and its detections."""

    source: FileSource
    detections: PrecomputedDetections


Run = Callable[[DetectedVideo], None]


@command("benchmark")
def main(cfg: DictConfig) -> None:
    """Print each tracker's milliseconds per frame, and the ratio to the public one's."""
    torch.set_num_threads(cfg.threads)
    if cfg.detections is not None:
        compare_trackers(cfg)
    elif cfg.every_detector:
        compare_detectors(cfg)
    else:
        compare_pipelines(cfg)


def compare_trackers(cfg: DictConfig) -> None:
    """Print what tracking alone costs, from detection files."""
    videos = [
        DetectedVideo(source.without_pixels(), detections_from_file(cfg.detections, source))
        for source in find_sources(str(cfg.source), Selection(cfg.split))
    ]
    runs: dict[str, Run] = {
        name: our_tracker(instantiate(node), str(cfg.camera)) for name, node in cfg.trackers.items()
    }
    peer = public_tracker()
    if peer is not None:
        runs[PEER] = peer
    costs: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(cfg.repeats):  # interleaved, so that background load affects all alike
        for name, run in runs.items():
            costs[name].append(milliseconds_per_frame(run, videos))
    print_costs({name: median(values) for name, values in costs.items()}, PEER)


def milliseconds_per_frame(run: Run, videos: list[DetectedVideo]) -> float:
    """The cost of a frame over all videos."""
    start = time.perf_counter()
    for video in videos:
        run(video)
    frames = sum(len(video.detections.detections) for video in videos)
    return 1e3 * (time.perf_counter() - start) / frames


def our_tracker(tracker: Tracker, camera: str) -> Run:
    """The pipeline with one of this project's trackers."""

    def run(video: DetectedVideo) -> None:
        for _ in Pipeline(video.detections, camera_motion_for(camera, video.source), tracker)(video.source):
            pass

    return run


def public_tracker() -> Run | None:
    """Roboflow's ByteTrack, where the extra `bench` is installed; its input is converted before the clock starts."""
    try:
        import trackers
    except ImportError:
        return None
    converted: dict[str, list[Any]] = {}

    def run(video: DetectedVideo) -> None:
        name = video.source.name
        if name not in converted:
            converted[name] = [to_supervision(one) for one in video.detections.detections]
        tracker = trackers.ByteTrackTracker()
        for detections in converted[name]:
            tracker.update(detections)

    return run


def compare_pipelines(cfg: DictConfig) -> None:
    """Print the cost of both pipelines from pixels, how their boxes agree, and what comes after the detector."""
    comparison = run_both(cfg)
    print_costs(comparison.costs, PLAIN_LOOP)
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
    if public_tracker() is None:
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
    """Milliseconds per frame of tracking, of drawing, and of writing H.264 and CSV."""
    folder, costs = Path(str(cfg.output_dir)), dict.fromkeys(("tracking", "drawing", "writing"), 0.0)
    found = [result.observation.detections for result in our_pipeline(cfg, detector, instantiate(cfg.trackers.gru))]
    results = our_pipeline(cfg, PrecomputedDetections(found, detector.label_names), instantiate(cfg.trackers.gru))
    analytics = SceneAnalytics()
    overlay = Overlay(detector.label_names, analytics)
    video = OverlayWriter(folder / "benchmark.mp4", 30, overlay)
    table = ResultWriter(folder / "benchmark.csv", detector.label_names)
    groups: dict[str, list[Sink]] = {"drawing": [analytics, overlay], "writing": [video, table]}
    with video, table:
        for result in timed(results, costs, "tracking"):
            for name, sinks in groups.items():
                start = time.perf_counter()
                for sink in sinks:
                    sink.write(result)
                costs[name] += time.perf_counter() - start
    return {name: 1e3 * seconds / max(1, len(found)) for name, seconds in costs.items()}


def timed(results: Iterator[TrackedFrame], costs: dict[str, float], name: str) -> Iterator[TrackedFrame]:
    """The results, with the seconds that each takes added to `costs[name]`."""
    while True:
        start = time.perf_counter()
        result = next(results, None)
        costs[name] += time.perf_counter() - start
        if result is None:
            return
        yield result


def count_found_again(theirs: list[Detections], ours: list[Detections]) -> int:
    """How many of their boxes are among ours, with IoU of at least 0.99 and scores within 0.01."""
    found = 0
    for a, b in zip(theirs, ours, strict=True):
        close = (box_iou(a.boxes, b.boxes) >= 0.99) & ((a.scores[:, None] - b.scores).abs() <= 0.01)
        found += int(close.any(1).sum())
    return found


def to_supervision(detections: Detections) -> Any:
    """The detections as the public tracker takes them, all of one class."""
    import supervision

    boxes, scores = detections.boxes.numpy(), detections.scores.numpy()
    return supervision.Detections(xyxy=boxes, confidence=scores, class_id=np.zeros(len(boxes), int))


def print_costs(costs: dict[str, float], peer: str) -> None:
    """A table, the peer's cost being 1."""
    table = Table("tracker", box=None, pad_edge=False)
    for column in ("ms per frame", "ratio"):
        table.add_column(column, justify="right")
    for name, value in costs.items():
        table.add_row(name, f"{value:.3f}", f"{value / costs[peer]:.2f}" if peer in costs else "")
    Console().print(table)
    if peer not in costs:
        print(f"no ratio to {peer}: {install_command('bench')}")
