"""Web sessions: settings, tracking and files of each browser tab."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor

from track.analytics import EventFile, SceneAnalytics
from track.app.console.cli import instantiate
from track.app.live.playback import RECENT
from track.detection.detector import (
    OWN,
    PACKAGED,
    Detector,
    available_detectors,
    categories_of,
    load_detector,
    selectable_classes,
)
from track.detection.source import DetectionSource
from track.display.overlay import Overlay, OverlayWriter
from track.media.results import RESULT_SUFFIXES, ResultWriter
from track.pipeline import Pipeline, Sink
from track.structures import Detections, Frame
from track.tracking.camera_motion import CameraMotion, OpticalFlow, Static

CACHED_DETECTORS = 4


class Choice(NamedTuple):
    """What a visitor chose."""

    detector: str
    classes: list[str]
    tracker: str
    min_score: float
    show_trails: bool


class WebOptions:
    """What visitors may choose from, and the detectors that they share. `first` is what the server was started with."""

    def __init__(self, cfg: DictConfig) -> None:
        self.camera = str(cfg.camera)
        started = HydraConfig.get().runtime.choices["tracker"]
        trackers = GlobalHydra.instance().config_loader().get_group_options("tracker")
        others = {one: compose("serve", [f"tracker={one}"]).tracker for one in trackers if one != started}
        self.trackers: dict[str, DictConfig] = {started: cfg.tracker, **others}
        first = cfg.detector.name if cfg.detector.checkpoint is None else Path(cfg.detector.checkpoint).name
        self.detectors: dict[str, DictConfig] = {first: cfg.detector}
        for name in available_detectors():
            if name != first and (name in PACKAGED or name not in OWN):  # those that need no training
                node = cfg.detector.copy()
                node.name, node.checkpoint, node.weights = name, None, "DEFAULT"
                self.detectors[name] = node
        self._loading, self._detecting = Lock(), Lock()
        self.categories, self._loaded = lru_cache(self._categories), lru_cache(CACHED_DETECTORS)(self._load)
        score = max(cfg.detector.min_score, cfg.tracker.min_score)
        self.first = Choice(first, [*cfg.detector.classes], started, score, True)

    def check(self, choice: Choice) -> None:
        """Raise ValueError for what the page does not offer."""
        if choice.detector not in self.detectors:
            raise ValueError("detector: expected one of the list")
        if choice.tracker not in self.trackers:
            raise ValueError("tracker: expected one of the list")
        if not isinstance(choice.classes, list) or not all(isinstance(name, str) for name in choice.classes):
            raise ValueError("classes: expected names")
        if not isinstance(choice.min_score, int | float) or not 0 <= choice.min_score <= 1:
            raise ValueError("score: expected a number from 0 to 1")

    def detector(self, name: str, classes: list[str]) -> DetectionSource:
        """A detector, shared by all visitors; the last four stay loaded."""
        with self._loading:
            return self._loaded(name, tuple(sorted(classes)))

    def tracker(self, name: str) -> Any:
        """A new tracker."""
        return instantiate(self.trackers[name])

    def _load(self, name: str, classes: tuple[str, ...]) -> DetectionSource:
        return _InTurns(instantiate(self.detectors[name], classes=list(classes)), self._detecting)

    def _categories(self, name: str) -> list[str]:
        """What a detector can detect, sorted."""
        node = self.detectors[name]
        known = load_detector(node.checkpoint).categories if node.checkpoint else categories_of(node.name)
        return sorted(set(selectable_classes(known)))


class _InTurns:
    """Serialises access to a shared detector; concurrent inference would slow every tab."""

    needs_pixels = True

    def __init__(self, detector: Detector, lock: Lock) -> None:
        self.detector, self.lock, self.label_names = detector, lock, detector.label_names

    def detect(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Detections]]:
        """See `DetectionSource`."""
        with self.lock:
            found = list(self.detector.detect(frames))
        return iter(found)


class View:
    """A pipeline, and the sinks of what it tracks; their files are closed by `stack`."""

    def __init__(
        self, pipeline: Pipeline, analytics: SceneAnalytics, stack: ExitStack, folder: Path, part: int,
        frame_rate: float | None,
    ) -> None:  # fmt: skip
        self.pipeline, self.analytics, self.folder, self.part = pipeline, analytics, folder, part
        names = pipeline.detections.label_names
        self.overlay = Overlay(names, analytics)
        self.sinks: list[Sink] = [analytics, self.overlay]
        self.sinks.append(EventFile(folder / f"events-{part}.csv", analytics, names))
        for suffix in RESULT_SUFFIXES:
            self.sinks.append(stack.enter_context(ResultWriter(folder / f"tracks-{part}{suffix}", names)))
        if frame_rate is not None:
            video = OverlayWriter(folder / f"tracked-{part}.mp4", frame_rate, self.overlay)
            self.sinks.append(stack.enter_context(video))

    def step(self, frame: Frame) -> Tensor:
        """Track one more frame; returns its image with everything drawn."""
        result = self.pipeline.step(frame)
        for sink in self.sinks:
            sink.write(result)
        return self.overlay.image

    def save(self) -> None:
        """Write the heatmap and the trajectories so far."""
        self.overlay.save(self.folder, f"-{self.part}")


class WebSession:
    """One tab: what it chose, what it tracks, and its files, which are deleted with it.

    Each source that is tracked is a turn: `begin` starts the next one, and frames of an earlier turn are refused. The
    webcam begins a turn of its own where nothing else is playing.
    """

    def __init__(self, options: WebOptions, analytics_options: Mapping[str, Any], folder: Path) -> None:
        self.options, self.analytics_options, self.folder = options, analytics_options, folder
        self.choice = options.first
        self.note = ""
        self.uploads: set[Path] = set()
        self.turn = 0
        self.playing = False
        self.last_used = time.monotonic()
        self.view: View | None = None
        self._closed, self._lock, self._stack = False, Lock(), ExitStack()
        self._parts = 0  # views so far
        self._viewed: tuple[Any, ...] = ()  # what the view was made for
        self._frame_rate: float | None = None  # of the video to write
        self._camera_motion: Callable[[], CameraMotion] = Static
        self._webcam_turn, self._webcam_began, self._webcam_frames = -1, 0.0, 0
        self._moments: deque[float] = deque([0.0], maxlen=RECENT)

    def choose(self, choice: Choice) -> None:
        """Apply new settings from the next frame on."""
        self.choice = choice

    def report(self, line: str) -> None:
        """Show a line below the counts."""
        self.note = line

    def begin(self, frame_rate: float | None = None, camera_motion: Callable[[], CameraMotion] | None = None) -> int:
        """Start a turn and return its number, -1 if the tab is closed. frame_rate: of the video to write, if any."""
        with self._lock:
            if self._closed:
                return -1
            self._start(frame_rate, camera_motion or self._estimated)
            self.playing = True
            return self.turn

    def end(self, turn: int | None = None) -> None:
        """End a turn (by default the current one) and close its files; ignored if another one is playing."""
        with self._lock:
            if turn in (None, self.turn) and not self._closed:
                self.turn, self.playing = self.turn + 1, False
                self._finish()

    def is_over(self, turn: int) -> bool:
        """Whether something else is playing by now, or nothing."""
        return turn != self.turn

    def step(self, frame: Frame, turn: int) -> Tensor | None:
        """The frame's image with everything drawn; None where that turn is over."""
        with self._lock:
            return None if self._closed or self.is_over(turn) else self._step(frame)

    def webcam_frame(self, image: Tensor) -> Tensor | None:
        """The same for a (3, H, W) uint8 RGB image that the webcam took just now; None where something plays."""
        with self._lock:
            if self.playing or self._closed:
                return None
            if self._webcam_turn != self.turn:
                self._start(None, self._estimated)
                self._webcam_turn, self._webcam_began, self._webcam_frames = self.turn, time.monotonic(), 0
            self._webcam_frames += 1
            return self._step(Frame(image, time.monotonic() - self._webcam_began, self._webcam_frames))

    def counts(self) -> str:
        """What was counted, in Markdown."""
        if self.view is None:
            return self.note
        speed = (len(self._moments) - 1) / max(1e-9, self._moments[-1] - self._moments[0])
        lines = self.view.analytics.summary(self.view.overlay.label_names).splitlines()
        return "\n\n".join([f"{speed:.0f} frames per second", *lines, self.note])

    def results(self) -> list[str]:
        """The files so far: tracks, images and videos."""
        with self._lock:
            if self._closed:
                return []
            if self.view is not None:
                self.view.save()
            suffixes = (*RESULT_SUFFIXES, ".png", ".mp4")
            return sorted(str(f) for f in self.folder.iterdir() if f.suffix in suffixes and f.stat().st_size)

    def close(self) -> None:
        """End the tab and delete its files; its uploads may be other tabs' too."""
        self.turn += 1  # whatever plays stops, and releases the lock
        with self._lock, suppress(ValueError):
            self.turn, self._closed = self.turn + 1, True
            self._stack.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, frame_rate: float | None, camera_motion: Callable[[], CameraMotion]) -> None:
        self.turn, self.note = self.turn + 1, ""
        self._frame_rate, self._camera_motion = frame_rate, camera_motion

    def _estimated(self) -> CameraMotion:
        return Static() if self.options.camera == "none" else OpticalFlow()

    def _step(self, frame: Frame) -> Tensor:
        chosen = self.turn, self.choice.detector, self.choice.tracker, str(self.choice.classes)
        if self.view is None or chosen != self._viewed:
            self._finish()
            self.view = self._new_view()
            self._viewed = chosen
            self._moments = deque([time.monotonic()], maxlen=RECENT)
        self.view.pipeline.min_score = self.choice.min_score
        self.view.overlay.show_trails = self.choice.show_trails
        image = self.view.step(frame)
        self._moments.append(time.monotonic())
        return image

    def _new_view(self) -> View:
        detections = self.options.detector(self.choice.detector, self.choice.classes)
        pipeline = Pipeline(detections, self._camera_motion(), self.options.tracker(self.choice.tracker))
        self._parts += 1
        analytics = SceneAnalytics(None, **self.analytics_options)
        return View(pipeline, analytics, self._stack, self.folder, self._parts, self._frame_rate)

    def _finish(self) -> None:
        self._viewed = ()
        try:
            if self.view is not None:
                self.view.save()
        finally:
            self._stack.close()
