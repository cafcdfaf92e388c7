"""Track every sequence below a root, or one video: python scripts/predict.py source=ROOT detections=det/yolox.txt."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from refuse import refusing
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from track.camera import Camera
from track.detector import Detector
from track.kept import Step, as_written, keeping, origin, read_kept
from track.mot import Sequence, find_sequences, read_detections, write_tracks
from track.offline import fill
from track.structures import Detections
from track.tracker import Tracker
from track.video import ahead, frame_count, frame_rate, frames

CHOICES = {
    "camera": ("auto", "none", "file", "estimate"),
    "offline": ("none", "fill", "smooth"),
    "on_error": ("stop", "skip"),
}
Report = Callable[[str], None]


@hydra.main(version_base=None, config_path="../conf", config_name="predict")
@refusing
def main(cfg: DictConfig) -> None:
    """Write OUTPUT_DIR/<sequence>.txt for each sequence, or for the one video."""
    print(f"results: {predict(cfg)}")


def predict(cfg: DictConfig) -> Path:
    """Track everything that `source` names; returns the folder of result files."""
    for key, known in CHOICES.items():
        if cfg[key] not in known:
            raise ValueError(f"{key}: expected one of {', '.join(known)}, got {cfg[key]}")
    if cfg.offline != "none":
        print(f"offline={cfg.offline}: these results look ahead, do not compare them with online ones")
    tracker: Tracker = instantiate(cfg.tracker)
    detector: Detector | None = instantiate(cfg.detector, _convert_="all") if cfg.detections is None else None
    output, source = Path(str(cfg.output_dir)), Path(str(cfg.source))
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    unread: list[str] = []
    with Progress(*columns) as progress:
        say = partial(progress.console.print, soft_wrap=True, markup=False, highlight=False)
        report = unread.append if cfg.on_error == "skip" else None
        if source.is_file():
            if cfg.camera == "file" or (cfg.split, cfg.every, cfg.dropped, cfg.sequences) != ("all", 1, 0, None):
                options = "camera=file, split=, sequences=, every= and dropped="
                raise ValueError(f"{source}: {options} are for folders of sequences, this is one video")
            steps = video_steps(source, cfg, detector, say, report)
            steps = progress.track(steps, frame_count(source), description=source.name)
            follow(tracker, steps, output / f"{source.stem}.txt", cfg.offline)
        else:
            for sequence in find_sequences(source, cfg.split, cfg.every, cfg.dropped, cfg.sequences):
                tracker.frame_rate = sequence.frame_rate
                steps = sequence_steps(sequence, cfg, detector, say, report)
                steps = progress.track(steps, len(sequence), description=sequence.name)
                follow(tracker, steps, output / f"{sequence.name}.txt", cfg.offline)
    if unread:
        print(f"passed over: {len(unread)}, the first: {unread[0]}")
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


def sequence_steps(
    sequence: Sequence, cfg: DictConfig, detector: Detector | None, say: Report, report: Report | None
) -> Iterable[Step]:
    """What the tracker is fed from a sequence, frame by frame."""
    has_frames = sequence.images() is not None or sequence.video() is not None
    from_file = cfg.camera == "file" or (cfg.camera == "auto" and sequence.has("gmc.txt"))
    estimating = cfg.camera == "estimate" or (cfg.camera == "auto" and not from_file and has_frames)
    cameras = sequence.camera() if from_file else repeat(None)
    times = sequence.times
    if detector is None:
        images = sequence_images(sequence, report) if estimating else repeat(None)
        return steps(zip(images, times, sequence.detections(cfg.detections), strict=False), cameras, estimating)
    footage = sequence.video() if sequence.images() is None else sequence.path / sequence.image_dir
    kept, made_from, file = earlier(cfg, detector, sequence.name, footage or sequence.path, f"{sequence.kept}", say)
    images = sequence_images(sequence, report) if estimating or kept is None else repeat(None)
    if kept is not None:
        return steps(zip(images, times, kept, strict=False), cameras, estimating)
    return keeping(steps(look(zip(images, times, strict=False), detector), cameras, estimating), file, made_from)


def video_steps(
    video: Path, cfg: DictConfig, detector: Detector | None, say: Report, report: Report | None
) -> Iterable[Step]:
    """What the tracker is fed from a video file; a detections file is looked for beside it, then as given."""
    estimating = cfg.camera != "none"
    filmed = ((frame.image, frame.time) for frame in ahead(frames(video, report=report)))
    if detector is not None:
        kept, made_from, file = earlier(cfg, detector, video.stem, video, "all", say)
        if kept is None:
            return keeping(steps(look(filmed, detector), repeat(None), estimating), file, made_from)
        return steps(((*one, found) for one, found in zip(filmed, kept, strict=False)), repeat(None), estimating)
    count, rate = frame_count(video), frame_rate(video)
    if count is None:
        raise ValueError(f"{video}: expected a video that says how many frames it has, to read detections for them")
    beside = video.parent / cfg.detections
    given = read_detections(beside if beside.is_file() else Path(cfg.detections), count)
    timed = filmed if estimating else ((None, index / rate) for index in range(count))
    return steps(((*one, found) for one, found in zip(timed, given, strict=False)), repeat(None), estimating)


def earlier(
    cfg: DictConfig, detector: Detector, name: str, footage: Path, numbers: str, say: Report
) -> tuple[list[Detections] | None, dict[str, Any], Path]:
    """The detections that an earlier run into the same output left, if they are this detector's of these frames; what
    they are made from, and their file."""
    file = Path(str(cfg.output_dir)) / name / "det" / f"{detector.name}.txt"
    options: Any = OmegaConf.to_container(cfg.detector, resolve=True)
    made_from = origin(options, footage, numbers)
    kept = read_kept(file, made_from)
    if kept is not None:
        say(f"{name}: the detections of an earlier run, {file}")
    return kept, made_from, file


def sequence_images(sequence: Sequence, report: Report | None) -> Iterator[Tensor | None]:
    """The frames of a sequence's split, from its images or its video; None for one that was passed over."""
    images, video = sequence.images(), sequence.video()
    source = images or video
    if source is None:
        raise ValueError(f"{sequence.path}: expected {sequence.image_dir}/ or a video file, or detections=FILE")
    numbers = range(1, len(sequence) + 1) if images else sequence.kept
    count, last = 0, 0
    for frame in ahead(frames(source, report=report)):
        last = frame.number
        while count < len(numbers) and numbers[count] <= last:
            yield frame.image if numbers[count] == last else None
            count += 1
    if count < len(numbers) and report is None:
        raise ValueError(f"{video}: expected {sequence.length} frames as seqinfo.ini says, found {last}")
    yield from repeat(None, len(numbers) - count)


def look(
    timed: Iterable[tuple[Tensor | None, float]], detector: Detector
) -> Iterator[tuple[Tensor | None, float, Detections]]:
    """Pictures and times with what the detector sees, several pictures at once; also those before one that cannot be
    read."""
    rest, refusal = iter(timed), None
    while refusal is None:
        some: list[tuple[Tensor | None, float]] = []
        try:
            some.extend(islice(rest, detector.batch_size))
        except ValueError as error:
            refusal = error
        if not some:
            break
        found = iter(detector.batch([image for image, _ in some if image is not None]))
        for image, time in some:
            yield image, time, Detections.empty() if image is None else as_written(next(found))
    if refusal is not None:
        raise refusal


def steps(
    seen: Iterable[tuple[Tensor | None, float, Detections]], cameras: Iterable[Tensor | None], estimating: bool
) -> Iterator[Step]:
    """Detections and times with the camera, which is made from the picture where it is not given."""
    estimate = Camera()
    for (image, time, detections), known in zip(seen, cameras, strict=False):
        looking = estimating and image is not None
        yield detections, time, estimate(image, detections.boxes) if looking else known


if __name__ == "__main__":
    main()
