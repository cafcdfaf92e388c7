"""What a frame costs: python scripts/benchmark.py source=MOT17/train split=val-half detections=det/yolox.txt.

From pixels, beside torchvision's detector as it is and the public tracker, frame by frame:
python scripts/benchmark.py source=street.mp4 detections=null detector=ssdlite320.

Ratios to a public tracker in the same run are worth comparing, milliseconds on another machine are not.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import hydra
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from predict import look
from refuse import refusing
from rich.console import Console
from rich.table import Table
from torchvision.ops import box_iou

from track.calibration import calibrated
from track.detector import Detector, build, load_detector
from track.draw import Trails, draw
from track.mot import Sequence, find_sequences
from track.results import ResultWriter
from track.structures import Detections
from track.tracker import Tracker
from track.video import VideoWriter, ahead, frames

Follow = Callable[[Sequence, list[Detections]], None]
PEER = "ByteTrack (trackers)"
EAGER, OURS = "torchvision as it is, ByteTrack (trackers)", "this project"


@hydra.main(version_base=None, config_path="../conf", config_name="benchmark")
@refusing
def main(cfg: DictConfig) -> None:
    """Print each tracker's milliseconds a frame, and how many times those of the public one."""
    torch.set_num_threads(cfg.threads)
    if cfg.detections is None:
        from_pixels(cfg)
        return
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


def from_pixels(cfg: DictConfig) -> None:
    """Print the milliseconds of both pipelines, how their boxes agree, and what comes after the detector."""
    both = beside(cfg)
    show(both.costs, EAGER)
    print(f"torchvision's boxes that are there again, IoU 0.99 and scores within 0.01: {both.again} of {both.boxes}")
    print(", ".join(f"{name} {value:.1f} ms" for name, value in afterwards(cfg, both.detector).items()))


@dataclass(frozen=True)
class Beside:
    """Both pipelines on the same frames. costs: milliseconds a frame of each. boxes: how many the plain one found;
    again: how many of them ours found too. detector: ours. parameters: of the detector as torchvision has it."""

    costs: dict[str, float]
    boxes: int
    again: int
    detector: Detector
    parameters: int


def beside(cfg: DictConfig) -> Beside:
    """Run both pipelines in turns."""
    if bytetrack() is None:
        raise ValueError("detections=null: the public tracker is missing, pip install -e '.[bench]'")
    torch.manual_seed(0)  # of random weights
    detector: Detector = instantiate(cfg.detector, _convert_="all")
    plain: Any
    if cfg.detector.checkpoint is None:
        torch.manual_seed(0)
        plain = build(cfg.detector.name, cfg.detector.weights)[0].eval()
    else:
        plain = load_detector(cfg.detector.checkpoint)[1]
    plain, tracker = plain.to(detector.device), instantiate(cfg.trackers.gru)
    runs: dict[str, Callable[[], list[Detections]]] = {
        EAGER: lambda: eager(cfg, plain, detector),
        OURS: lambda: pipeline(cfg, detector, tracker),
    }
    costs: dict[str, list[float]] = {}
    seen: dict[str, list[Detections]] = {}
    for _ in range(cfg.repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            seen[name] = run()
            costs.setdefault(name, []).append(1e3 * (time.perf_counter() - start) / len(seen[name]))
    medians = {name: median(values) for name, values in costs.items()}
    count, parameters = sum(map(len, seen[EAGER])), sum(one.numel() for one in plain.parameters())
    return Beside(medians, count, agreement(*seen.values()), detector, parameters)


def eager(cfg: DictConfig, network: Any, detector: Detector) -> list[Detections]:
    """The plain loop: read, detect, follow, one after another. Scores as our detector scales them."""
    import supervision
    import trackers

    tracker, seen = trackers.ByteTrackTracker(), []
    for frame in islice(frames(str(cfg.source)), cfg.frames):
        with torch.inference_mode():
            found = {k: v.cpu() for k, v in network([frame.image.to(detector.device).float() / 255])[0].items()}
        scores = calibrated(found["scores"], *detector.scale)
        kept = torch.isin(found["labels"], detector.labels) & (scores >= detector.min_score)
        seen.append(Detections(found["boxes"], scores, found["labels"])[kept])
        boxes, scores = seen[-1].boxes.numpy(), seen[-1].scores.numpy()
        tracker.update(supervision.Detections(xyxy=boxes, confidence=scores, class_id=np.zeros(len(boxes), int)))
    return seen


def pipeline(cfg: DictConfig, detector: Detector, tracker: Tracker) -> list[Detections]:
    """Ours, as scripts/predict.py does it."""
    seen = []
    tracker.reset()
    pictures = ((frame.image, frame.time) for frame in islice(ahead(frames(str(cfg.source))), cfg.frames))
    for _, moment, found in look(pictures, detector):
        seen.append(found)
        tracker.update(found, moment)
    return seen


def afterwards(cfg: DictConfig, detector: Detector) -> dict[str, float]:
    """Milliseconds a frame of what the demo does when the detector is done: tracking, drawing, H.264 and CSV."""
    tracker, trails = instantiate(cfg.trackers.gru), Trails()
    folder, spent = Path(str(cfg.output_dir)), dict.fromkeys(("tracking", "drawing", "writing"), 0.0)
    video, table = VideoWriter(folder / "benchmark.mp4"), ResultWriter(folder / "benchmark.csv", detector.categories)
    with video, table:
        for frame in islice(frames(str(cfg.source)), cfg.frames):
            found = detector(frame.image)
            moments = [time.perf_counter()]
            tracks = tracker.update(found, frame.time)
            moments.append(time.perf_counter())
            trails.add(tracks)
            picture = draw(frame.image, tracks, trails)
            moments.append(time.perf_counter())
            video.write(picture, frame.time)
            table.write(tracks, frame)
            moments.append(time.perf_counter())
            spent = {name: spent[name] + b - a for name, (a, b) in zip(spent, pairwise(moments), strict=True)}
    return {name: 1e3 * seconds / frame.number for name, seconds in spent.items()}


def agreement(theirs: list[Detections], ours: list[Detections]) -> int:
    """How many of their boxes are among ours, with IoU of at least 0.99 and scores within 0.01."""
    again = 0
    for a, b in zip(theirs, ours, strict=True):
        near = (box_iou(a.boxes, b.boxes) >= 0.99) & ((a.scores[:, None] - b.scores).abs() <= 0.01)
        again += int(near.any(1).sum())
    return again


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


def show(costs: dict[str, float], peer: str = PEER) -> None:
    """A table, the peer's cost being 1."""
    table = Table("tracker", box=None, pad_edge=False)
    for column in ("ms a frame", "ratio"):
        table.add_column(column, justify="right")
    for name, value in costs.items():
        table.add_row(name, f"{value:.3f}", f"{value / costs[peer]:.2f}" if peer in costs else "")
    Console().print(table)
    if peer not in costs:
        print(f"no ratio to {peer}: pip install -e '.[bench]'")


if __name__ == "__main__":
    main()
