"""grutrack demo: track a camera, video or stream live, in a window, into files, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from track.analytics import EventFile, SceneAnalytics
from track.app.console.cli import command, instantiate
from track.app.console.inputs import detector_of
from track.app.console.outputs import OutputFiles, check_outputs
from track.app.live.controls import WindowControls
from track.app.live.playback import Playback
from track.checkpoint import install_command
from track.display.overlay import Overlay, OverlayWriter
from track.display.window import NO_DISPLAY, has_display
from track.media.capture import source_name
from track.media.results import MIN_ROTATION, RESULT_SUFFIXES, ResultWriter, RotatingWriter, Writer, rotated_file
from track.media.sources import open_source
from track.pipeline import Pipeline, Sink, camera_motion_for, detections_from_file

EXAMPLES = {"lines": "{door: [320,480,320,0]}", "zones": "{queue: [[0,200],[200,200],[200,480]]}"}


@command("demo")
def main(cfg: DictConfig) -> None:
    """Track a source and show or write it until it ends, or q or Ctrl-C ends it."""
    demo(cfg)


def demo(cfg: DictConfig) -> None:
    """Run the demo of a composed config; output files survive an error or Ctrl-C."""
    output = cfg.output if isinstance(cfg.output, ListConfig) else [cfg.output]
    files = [Path(str(file)) for file in output if file is not None]
    if not (cfg.rotate == 0 or 3600 * cfg.rotate >= MIN_ROTATION):
        raise ValueError(f"rotate: expected 0 or the hours of at least {MIN_ROTATION:g} s, got {cfg.rotate:g}")
    in_window = cfg.viewer == "window" or (cfg.viewer is None and not files)
    check_kinds(files, cfg.viewer)
    recording = [Path(str(cfg.viewer))] if str(cfg.viewer).endswith(".rrd") else []
    check_outputs([*files, *recording], [cfg.source, cfg.detections], cfg.overwrite)
    analytics = scene_analytics(cfg)
    folder = Path(str(cfg.output_dir))
    playback, controls = Playback(), None
    with ExitStack() as stack:
        source = open_source(str(cfg.source), playback.print_line, lambda: controls is None or controls.wait())
        stack.enter_context(closing(source))
        if cfg.rotate and not source.is_live:
            raise ValueError(f"rotate: {source.name} has an end, expected a camera or stream")
        if in_window and not has_display():
            raise ValueError(NO_DISPLAY)
        detections = detector_of(cfg) or detections_from_file(
            str(cfg.detections), source, cfg.scores, playback.print_line
        )
        pipeline = Pipeline(detections, camera_motion_for(cfg.camera, source), instantiate(cfg.tracker))
        overlay = Overlay(detections.label_names, analytics, playback.status)
        events = EventFile(folder / "events.csv", analytics, detections.label_names)
        outputs = OutputFiles(files, are_partial=not source.is_live)
        stack.callback(conclude, cfg, playback, overlay, events, outputs)  # after the files are closed
        stack.enter_context(outputs)
        sinks: list[Sink] = [analytics, overlay, events]
        if cfg.viewer not in (None, "window"):
            sinks.append(rerun_sink(stack, str(cfg.viewer), pipeline, overlay))
        open_writer = partial(file_writer, source.frame_rate, overlay)
        for file in outputs.written:
            writer = RotatingWriter(file, 3600 * cfg.rotate, open_writer) if cfg.rotate else open_writer(file)
            sinks.append(stack.enter_context(writer))
        if in_window:
            controls = stack.enter_context(WindowControls(pipeline, overlay, analytics, folder, playback))
        for result in playback.results(source, pipeline(source)):
            for sink in sinks:
                sink.write(result)
            playback.finish(result.frame)
            if controls is not None:
                controls.write(result)
                if not controls.is_open:
                    break
        else:
            outputs.finish()


def scene_analytics(cfg: DictConfig) -> SceneAnalytics:
    """The lines, zones and scale of a config. Raises ValueError if one is malformed."""
    return SceneAnalytics(None, **analytics_options(cfg))


def analytics_options(cfg: DictConfig) -> dict[str, Any]:
    """The arguments of `SceneAnalytics` in a config. Raises ValueError if lines or zones have no names."""
    given: Any = OmegaConf.to_container(cfg, resolve=True)
    for key, example in EXAMPLES.items():
        if not isinstance(given[key] or {}, Mapping):
            raise ValueError(f"{key}: expected names, as in {key}={example}, got {given[key]}")
    lines, zones = given["lines"] or {}, given["zones"] or {}
    return {"lines": lines, "zones": zones, "metres_per_pixel": given["metres_per_pixel"]}


def check_kinds(files: Sequence[Path], viewer: str | None) -> None:
    """Raise ValueError for a file or viewer of no known kind."""
    suffixes = (".mp4", *RESULT_SUFFIXES)
    for file in files:
        if file.suffix not in suffixes:
            raise ValueError(f"output: {file}: expected a name that ends with {', '.join(suffixes)}")
    if viewer not in (None, "window", "rerun") and not str(viewer).endswith(".rrd"):
        raise ValueError(f"viewer: expected window, rerun or a file.rrd, got {viewer}")


def file_writer(frame_rate: float, overlay: Overlay, file: Path) -> Writer:
    """The sink for an output file, chosen by its suffix, to be closed."""
    if file.suffix == ".mp4":
        return OverlayWriter(file, frame_rate, overlay)
    return ResultWriter(file, overlay.label_names)


def rerun_sink(stack: ExitStack, viewer: str, pipeline: Pipeline, overlay: Overlay) -> Sink:
    """The Rerun sink: the viewer, or a .rrd file."""
    try:
        from track.display.rerun import RerunViewer
    except ImportError as error:
        raise ValueError(f"viewer: rerun is missing, {install_command('rerun')}") from error
    path = None if viewer == "rerun" else Path(viewer)
    return stack.enter_context(closing(RerunViewer(path, pipeline.tracker, overlay.label_names)))


def conclude(cfg: DictConfig, playback: Playback, overlay: Overlay, events: EventFile, outputs: OutputFiles) -> None:
    """Print the counts, save heatmap and trajectories, list the files."""
    if not playback.frame_count:
        return
    playback.print_line(f"{source_name(str(cfg.source))}: {playback.summary()}")
    playback.print_line(overlay.analytics.summary(overlay.label_names))
    images = overlay.save(Path(str(cfg.output_dir)))
    written = [rotated_file(file, "*") if cfg.rotate else file for file in outputs.written]
    for file in [*written, *images, *([events.path] if events.started else [])]:
        playback.print_line(str(file))
