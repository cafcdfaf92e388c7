"""grutrack predict: track every sequence or video that a source names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, ListConfig
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from track.app.cli import command, instantiate
from track.app.console.outputs import check_label_names, check_outputs, check_selection, write_label_names
from track.checkpoint import partial_file
from track.detection.cache import CachedDetector
from track.detection.detector import Detector
from track.detection.source import DetectionSource
from track.formats.mot import write_tracks
from track.media.capture import Report
from track.media.sources import FileSource, Selection, find_sources
from track.pipeline import CAMERA_MODES, Pipeline, camera_motion_for, detection_file, detections_from_file
from track.structures import TrackedFrame, Tracks
from track.tracking.motion import Motion
from track.tracking.smoothing import interpolate
from track.tracking.tracker import Tracker

CHOICES: dict[str, tuple[str, ...]] = {
    "camera": CAMERA_MODES,
    "postprocess": ("none", "interpolate", "smooth"),
    "on_error": ("stop", "skip"),
}


@command("predict")
def main(cfg: DictConfig) -> None:
    """Write OUTPUT_DIR/<name>.txt for each sequence or video."""
    print(f"results: {predict(cfg)}")


def predict(cfg: DictConfig) -> Path:
    """Track everything that `source` names; returns the folder of result files."""
    check_choices(cfg)
    if cfg.postprocess != "none":
        print(f"postprocess={cfg.postprocess}: these results use future frames, do not compare them with online ones")
    output = output_folder(cfg)
    check_selection(output, cfg, cfg.overwrite)
    with progress_bar() as progress, unreadable_frames(cfg.on_error) as report:
        sources = find_sources(str(cfg.source), selection(cfg), report)  # refused before a detector is downloaded
        tracker: Tracker = instantiate(cfg.tracker)
        detector = detector_of(cfg)
        names = None if detector is None else detector.label_names[1:]
        check_label_names(output, names)
        for source in sources:
            with closing(source):
                file = output / f"{source.name}.txt"
                given = None if detector is not None else detection_file(str(cfg.detections), source)
                check_outputs([file, partial_file(file)], [source.footage, given], cfg.overwrite)
                camera_motion = camera_motion_for(cfg.camera, source)
                detections = cached_detections(cfg, source, detector, progress)
                pipeline = Pipeline(detections, camera_motion, tracker)
                track_video(pipeline, source, file, cfg.postprocess, progress)
    write_label_names(output, names)
    return output


def track_video(
    pipeline: Pipeline, source: FileSource, file: Path, postprocess: str = "none", progress: Progress | None = None
) -> None:
    """Track one video and write its results; what was tracked before an error is written too, under a partial name."""
    if progress is not None and partial_file(file).exists():
        print_line(progress, f"{source.name}: tracked again, the last run was cut")
    frames: Iterable[TrackedFrame] = pipeline(source, pixels=False)
    if progress is not None:
        frames = progress.track(frames, source.frame_count, description=escape(source.name))
    highest = 0.0
    with closing(TrackFile(file, pipeline.tracker.motion, postprocess)) as results:
        for result in frames:
            results.write(result)
            highest = max(highest, _highest_score(result))
        results.finish()
    if highest and not results.row_count:
        print(f"{source.name}: no track, the highest of the detections' scores is {highest:.2f}; see tracker=, scores=")


class TrackFile:
    """A sink that collects a video's tracks and writes the result file in one piece.

    `finish` writes it after the last frame; without that, `close` writes what there is as NAME.partial.txt.
    postprocess: none, interpolate or smooth, by the `motion` model.
    """

    def __init__(self, file: Path, motion: Motion, postprocess: str = "none") -> None:
        self.file, self.motion, self.postprocess = file, motion, postprocess
        self.numbers: list[int] = []
        self.tracks: list[Tracks] = []
        self.times: list[float] = []
        self.affines: list[Tensor] = []
        self.row_count = 0  # of all tracks

    def write(self, result: TrackedFrame) -> None:
        """Take in one frame."""
        self.numbers.append(result.observation.number)
        self.tracks.append(result.tracks)
        self.row_count += len(result.tracks)
        self.times.append(result.observation.time)
        self.affines.append(result.observation.affine)

    def finish(self) -> None:
        """Write the file, which replaces the partial one of a run that was cut."""
        self._write(self.file)
        partial_file(self.file).unlink(missing_ok=True)
        self.tracks = []

    def close(self) -> None:
        """Write the partial file, if there was a frame and no `finish`."""
        self._write(partial_file(self.file))

    def _write(self, file: Path) -> None:
        if not self.tracks:
            return
        tracks = self.tracks
        if self.postprocess != "none":
            smooth = self.postprocess == "smooth"
            tracks = interpolate(tracks, self.times, self.motion, self.affines, smooth)
        by_number = dict(zip(self.numbers, tracks, strict=True))
        write_tracks(file, (by_number.get(n, Tracks.empty()) for n in range(1, self.numbers[-1] + 1)))


def _highest_score(result: TrackedFrame) -> float:
    scores = result.observation.detections.scores
    return scores.max().item() if len(scores) else 0.0


def check_choices(cfg: DictConfig, choices_of: Mapping[str, Sequence[str]] = CHOICES) -> None:
    """Raise ValueError for an option that is none of its choices."""
    for key, choices in choices_of.items():
        if cfg[key] not in choices:
            raise ValueError(f"{key}: expected one of {', '.join(choices)}, got {cfg[key]}")


def output_folder(cfg: DictConfig) -> Path:
    """Make the folder that results go to. Raises ValueError, before any work, if that fails."""
    folder = Path(str(cfg.output_dir))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output_dir: expected a folder that can be written ({error})") from error
    return folder


def selection(cfg: DictConfig) -> Selection:
    """Which frames of which sequences a config asks for."""
    names = cfg.sequences
    if names is not None:
        names = [str(one) for one in (names if isinstance(names, ListConfig) else [names])]
    return Selection(cfg.split, cfg.stride, cfg.drop_rate, names)


def detector_of(cfg: DictConfig) -> Detector | None:
    """The detector of a config; None if detections are read from a file."""
    return instantiate(cfg.detector) if cfg.detections is None else None


def cached_detections(
    cfg: DictConfig, source: FileSource, detector: Detector | None, progress: Progress
) -> DetectionSource:
    """The detections of a source: from a file, from an earlier run into the same output, or from the detector."""
    if detector is None:
        return detections_from_file(str(cfg.detections), source, cfg.scores, partial(print_line, progress))
    if not source.footage.exists():  # a URL: its content may change without notice
        return detector
    file = Path(str(cfg.output_dir)) / source.name / "det" / f"{detector.name}.txt"
    cached = CachedDetector(detector, file, source.footage, source.selection)
    if not cached.needs_pixels:
        print_line(progress, f"{source.name}: detections of an earlier run, {file}")
    return cached


def progress_bar() -> Progress:
    """A bar of frames."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def print_line(progress: Progress, line: str) -> None:
    """Print a line above the progress bar, as it is."""
    progress.console.print(line, soft_wrap=True, markup=False, highlight=False)


@contextmanager
def unreadable_frames(on_error: str) -> Iterator[Report | None]:
    """The callback for unreadable frames: None with on_error=stop; with skip, frames are counted and the total is
    printed."""
    lines: list[str] = []
    try:
        yield lines.append if on_error == "skip" else None
    finally:
        if lines:
            print(f"skipped: {len(lines)}, the first: {lines[0]}")
