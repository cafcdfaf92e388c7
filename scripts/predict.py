"""Track every sequence below a root, or one video: python scripts/predict.py source=ROOT detections=det/yolox.txt."""

from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from refuse import refusing
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from track.camera import Camera
from track.detector import Detector
from track.mot import Sequence, find_sequences, read_detections, write_tracks
from track.offline import fill
from track.structures import Detections
from track.tracker import Tracker
from track.video import frame_count, frame_rate, frames

Step = tuple[Detections, float, Tensor | None]  # a frame's detections, time in seconds, camera


@hydra.main(version_base=None, config_path="../conf", config_name="predict")
@refusing
def main(cfg: DictConfig) -> None:
    """Write OUTPUT_DIR/<sequence>.txt for each sequence, or for the one video."""
    print(f"results: {predict(cfg)}")


def predict(cfg: DictConfig) -> Path:
    """Track everything that `source` names; returns the folder of result files."""
    if cfg.camera not in ("auto", "none", "file", "estimate"):
        raise ValueError(f"camera: expected auto, none, file or estimate, got {cfg.camera}")
    if cfg.offline not in ("none", "fill", "smooth"):
        raise ValueError(f"offline: expected none, fill or smooth, got {cfg.offline}")
    if cfg.offline != "none":
        print(f"offline={cfg.offline}: these results look ahead, do not compare them with online ones")
    tracker: Tracker = instantiate(cfg.tracker)
    detector: Detector | None = instantiate(cfg.detector, _convert_="all") if cfg.detections is None else None
    output, source = Path(str(cfg.output_dir)), Path(str(cfg.source))
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        if source.is_file():
            if cfg.camera == "file" or (cfg.split, cfg.every, cfg.dropped, cfg.sequences) != ("all", 1, 0, None):
                options = "camera=file, split=, sequences=, every= and dropped="
                raise ValueError(f"{source}: {options} are for folders of sequences, this is one video")
            steps = progress.track(video_steps(source, cfg, detector), frame_count(source), description=source.name)
            follow(tracker, steps, output / f"{source.stem}.txt", cfg.offline)
            return output
        for sequence in find_sequences(source, cfg.split, cfg.every, cfg.dropped, cfg.sequences):
            tracker.frame_rate = sequence.frame_rate
            steps = sequence_steps(sequence, cfg, detector)
            steps = progress.track(steps, len(sequence), description=sequence.name)
            follow(tracker, steps, output / f"{sequence.name}.txt", cfg.offline)
    return output


def follow(tracker: Tracker, steps: Iterable[Step], file: Path, offline: str = "none") -> None:
    """Track one video from its first frame and write its results; what was tracked before an error stays."""
    tracker.reset()
    results, times, cameras = [], [], []
    try:
        for detections, time, camera in steps:
            results.append(tracker.update(detections, time, camera))
            times.append(time)
            cameras.append(camera)
        if offline != "none":
            results = fill(results, times, tracker.motion, cameras, smooth=offline == "smooth")
    finally:
        if results:
            write_tracks(file, results)


def sequence_steps(sequence: Sequence, cfg: DictConfig, detector: Detector | None) -> Iterator[Step]:
    """What the tracker is fed from a sequence, frame by frame."""
    has_frames = sequence.images() is not None or sequence.video() is not None
    from_file = cfg.camera == "file" or (cfg.camera == "auto" and sequence.has("gmc.txt"))
    estimating = cfg.camera == "estimate" or (cfg.camera == "auto" and not from_file and has_frames)
    images = sequence_images(sequence) if estimating or detector else repeat(None, len(sequence))
    timed = zip(images, sequence.times, strict=False)
    found = repeat(None) if detector else sequence.detections(cfg.detections)
    return steps(timed, found, sequence.camera() if from_file else repeat(None), detector, estimating)


def sequence_images(sequence: Sequence) -> Iterator[Tensor]:
    """The frames of a sequence's split, from its images or its video."""
    images, video = sequence.images(), sequence.video()
    if images is None and video is None:
        raise ValueError(f"{sequence.path}: expected {sequence.image_dir}/ or a video file, or detections=FILE")
    if images is not None:
        yield from (frame.image for frame in frames(images))
        return
    number, wanted = 0, set(sequence.kept)
    for frame in frames(video):
        number = frame.number
        if number in wanted:
            yield frame.image
    if number < sequence.kept[-1]:
        raise ValueError(f"{video}: expected {sequence.length} frames as seqinfo.ini says, found {number}")


def video_steps(video: Path, cfg: DictConfig, detector: Detector | None) -> Iterator[Step]:
    """What the tracker is fed from a video file; a detections file is looked for beside it, then as given."""
    estimating = cfg.camera != "none"
    count, rate = frame_count(video), frame_rate(video)
    filmed = ((frame.image, frame.time) for frame in frames(video))
    if detector:
        return steps(filmed, repeat(None), repeat(None), detector, estimating)
    if count is None:
        raise ValueError(f"{video}: expected a video that says how many frames it has, to read detections for them")
    beside = video.parent / cfg.detections
    found = read_detections(beside if beside.is_file() else Path(cfg.detections), count)
    timed = filmed if estimating else ((None, index / rate) for index in range(count))
    return steps(timed, found, repeat(None), None, estimating)


def steps(
    timed: Iterable[tuple[Tensor | None, float]],
    found: Iterable[Detections | None],
    cameras: Iterable[Tensor | None],
    detector: Detector | None,
    estimating: bool,
) -> Iterator[Step]:
    """Join pictures with times, detections and camera; what is not given is made from the picture."""
    estimate = Camera()
    for (image, time), given, known in zip(timed, found, cameras, strict=False):
        detections = detector(image) if detector else given
        yield detections, time, estimate(image, detections.boxes) if estimating else known


if __name__ == "__main__":
    main()
