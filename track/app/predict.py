"""grutrack predict: track every sequence or video that a source names."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

from omegaconf import DictConfig
from rich.markup import escape
from rich.progress import Progress
from torch import Tensor

from track.app.console.cli import command, instantiate
from track.app.console.inputs import detections_of, detector_of, selection
from track.app.console.outputs import (
    OutputFiles,
    check_label_names,
    check_outputs,
    check_selection,
    output_folder,
    write_label_names,
)
from track.app.console.progress import print_line, progress_bar, unreadable_frames
from track.formats.mot import write_tracks
from track.media.sources import FileSource, find_sources
from track.pipeline import Pipeline, camera_motion_for, detection_file
from track.smoothing import interpolate
from track.structures import TrackedFrame, Tracks
from track.tracking.motion import Motion


@command("predict")
def main(cfg: DictConfig) -> None:
    """Write OUTPUT_DIR/<name>.txt for each sequence or video."""
    print(f"results: {predict(cfg)}")


def predict(cfg: DictConfig) -> Path:
    """Track everything that `source` names; returns the folder of result files.

    All files of detections are read, and so checked, before the first frame; those of a video are freed after it.
    """
    if cfg.postprocess != "none":
        print(f"postprocess={cfg.postprocess}: these results use future frames, do not compare them with online ones")
    output = output_folder(cfg)
    chosen = selection(cfg)
    progress = progress_bar()
    with unreadable_frames(cfg.on_error) as report, ExitStack() as stack:
        sources = list(find_sources(str(cfg.source), chosen, report))
        for source in sources:
            stack.enter_context(closing(source))
        check_results(cfg, output, sources)
        camera_motions = [camera_motion_for(cfg.camera, source) for source in sources]
        tracker = instantiate(cfg.tracker)
        detector = detector_of(cfg)
        names = None if detector is None else detector.label_names[1:]
        check_label_names(output, names)
        pipelines = [
            Pipeline(detections_of(cfg, source, detector, progress), motion, tracker)
            for source, motion in zip(sources, camera_motions, strict=True)
        ]
        stack.enter_context(progress)  # everything is checked
        for source in sources:
            track_video(pipelines.pop(0), source, output / f"{source.name}.txt", cfg.postprocess, progress)
    write_label_names(output, names)
    return output


def check_results(cfg: DictConfig, output: Path, sources: list[FileSource]) -> None:
    """Raise ValueError if the results would replace an input or a file of other origin, or mix with other frames'."""
    check_selection(output, cfg, cfg.overwrite)
    inputs = [source.footage for source in sources]
    if cfg.detections is not None:
        inputs += [detection_file(str(cfg.detections), source) for source in sources]
    check_outputs([output / f"{source.name}.txt" for source in sources], inputs, cfg.overwrite)


def track_video(pipeline: Pipeline, source: FileSource, file: Path, postprocess: str, progress: Progress) -> None:
    """Track one video and write its results; what was tracked before an error is written too, under a partial name."""
    highest = 0.0
    with (
        OutputFiles([file]) as outputs,
        closing(TrackFile(outputs.written[0], pipeline.tracker.motion, postprocess)) as results,
    ):
        if results.file.exists():
            print_line(progress, f"{source.name}: tracked again, the last run was cut")
        frames = pipeline(source, pixels=False)
        for result in progress.track(frames, source.frame_count, description=escape(source.name)):
            results.write(result)
            highest = max(highest, _highest_score(result))
        if results.numbers:
            outputs.finish()
    if highest and not results.row_count:
        print(f"{source.name}: no track, the highest of the detections' scores is {highest:.2f}; see tracker=, scores=")


class TrackFile:
    """A sink that collects a video's tracks; `close` writes the result file in one piece, if there was a frame.

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

    def close(self) -> None:
        """Write the file."""
        if not self.tracks:
            return
        tracks = self.tracks
        if self.postprocess != "none":
            smooth = self.postprocess == "smooth"
            tracks = interpolate(tracks, self.times, self.motion, self.affines, smooth)
        by_number = dict(zip(self.numbers, tracks, strict=True))
        write_tracks(self.file, (by_number.get(n, Tracks.empty()) for n in range(1, self.numbers[-1] + 1)))


def _highest_score(result: TrackedFrame) -> float:
    scores = result.observation.detections.scores
    return scores.max().item() if len(scores) else 0.0
