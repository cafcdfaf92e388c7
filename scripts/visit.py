"""One tab of the demo's page: what its visitor may choose, what he watches, and his files."""

import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from track.detector import Detector, categories_of, load_detector, wanted
from track.results import KINDS, ResultWriter
from track.session import Session
from track.structures import Detections, Frame
from track.video import VideoWriter

CONTROLS = ["detector", "classes", "tracker", "min_score", "trails"]


class Choices:
    """What a visitor may choose from: the configs, the ones that the server was started with first."""

    def __init__(self, cfg: DictConfig) -> None:
        started, loader = HydraConfig.get().runtime.choices, GlobalHydra.instance().config_loader()
        self.nodes: dict[str, dict[str, DictConfig]] = {}
        for group in ("detector", "tracker"):
            others = [n for n in loader.get_group_options(group) if n not in ("default", "small_fcos")]
            self.nodes[group] = {started[group]: cfg[group]}
            self.nodes[group] |= {n: compose("demo", [f"{group}={n}"])[group] for n in others if n != started[group]}
        self.loading, self.looking = Lock(), Lock()
        self.categories, self._loaded = lru_cache(self._categories), lru_cache(4)(self._load)
        first = next(iter(self.nodes["detector"])), [*cfg.detector.classes], next(iter(self.nodes["tracker"]))
        score = max(cfg.detector.min_score, cfg.tracker.min_score)
        self.first: dict[str, Any] = dict(zip(CONTROLS, (*first, score, True), strict=True))

    def detector(self, name: str, classes: list[str]) -> tuple[Callable[[Frame], Detections], list[str]]:
        """What sees a frame's objects, and the names of their labels; the last four are kept, for all visitors."""
        with self.loading:
            return self._loaded(name, tuple(sorted(classes)))

    def _load(self, name: str, classes: tuple[str, ...]) -> tuple[Callable[[Frame], Detections], list[str]]:
        node = self.nodes["detector"][name]
        detector: Detector = made(node, classes=list(classes), _convert_="all")

        def detect(frame: Frame) -> Detections:
            with self.looking:  # visitors in turns, instead of all of them slowly
                return detector(frame.image)

        return detect, detector.categories

    def _categories(self, name: str) -> list[str]:
        """What a detector knows, sorted."""
        node = self.nodes["detector"][name]
        known = load_detector(node.checkpoint)[2] if node.checkpoint else categories_of(node.name)
        return sorted(set(wanted(known)))


class Visit:
    """One tab: what it chose, what it watches, and its files, which go with it.

    What it watches is its turn: `begin` the next one, and pictures of one before are refused. The webcam begins one of
    its own where nothing else is playing.
    """

    def __init__(self, choices: Choices, borders: Mapping[str, Any], folder: Path) -> None:
        self.choices, self.borders, self.folder = choices, borders, folder
        self.chosen = choices.first
        self.using: tuple[Any, ...] = ()
        self.stack, self.moments = ExitStack(), deque([0.0], maxlen=30)
        self.session: Session | None = None
        self.turn = self.parts = 0  # sources and sessions so far
        self.playing, self.closed, self.lock = False, False, Lock()
        self.rate: float | None = None  # of the video to write
        self.filming, self.began, self.taken = -1, 0.0, 0  # the webcam's turn, its first picture's time, and how many
        self.note = ""
        self.uploads: set[Path] = set()

    def begin(self, rate: float | None = None) -> int:
        """Play something, of which a video is written where a rate (frames a second) is given; returns its turn."""
        with self.lock:
            if self.closed:
                return -1
            self.turn, self.playing, self.rate, self.note = self.turn + 1, True, rate, ""
            return self.turn

    def end(self, turn: int) -> None:
        """It is over, if that turn still is what is playing; its files are finished."""
        with self.lock:
            if turn == self.turn and not self.closed:
                self.turn, self.playing = self.turn + 1, False
                self._finish()

    def step(self, frame: Frame, turn: int) -> Tensor | None:
        """The frame's picture with everything drawn on it; None where that turn is over."""
        with self.lock:
            return self._step(frame) if turn == self.turn and not self.closed else None

    def film(self, image: Tensor) -> Tensor | None:
        """The same for a (3, H, W) uint8 RGB image of the webcam, which is taken now; None where something plays."""
        with self.lock:
            if self.playing or self.closed:
                return None
            if self.filming != self.turn:
                self.turn, self.rate, self.note, self.taken = self.turn + 1, None, "", 0
                self.filming, self.began = self.turn, time.monotonic()
            self.taken += 1
            return self._step(Frame(image, time.monotonic() - self.began, self.taken))

    def counts(self) -> str:
        """What is going on, in Markdown."""
        if self.session is None:
            return self.note
        speed = (len(self.moments) - 1) / max(1e-9, self.moments[-1] - self.moments[0])
        return "\n\n".join([f"{speed:.0f} frames a second", *self.session.summary().splitlines(), self.note])

    def results(self) -> list[str]:
        """The files so far: tracks, pictures and videos."""
        with self.lock:
            if self.closed:
                return []
            self._save()
            kinds = (*KINDS, ".png", ".mp4")
            return sorted(str(f) for f in self.folder.iterdir() if f.suffix in kinds and f.stat().st_size)

    def close(self) -> None:
        """End it and delete its files; its uploads may be others' too."""
        self.turn += 1  # whoever plays stops, and lets go of the lock
        with self.lock, suppress(ValueError):
            self.turn, self.closed = self.turn + 1, True
            self.stack.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _step(self, frame: Frame) -> Tensor:
        wanted = self.turn, *(str(self.chosen[key]) for key in ("detector", "tracker", "classes"))
        if self.session is None or wanted != self.using:
            self._begin()
            self.using = wanted
        assert self.session is not None
        self.session.tracker.min_score, self.session.trailing = self.chosen["min_score"], self.chosen["trails"]
        picture, tracks = self.session(frame)
        for writer in self.writers:
            writer.write(tracks, frame)
        if self.video is not None:
            self.video.write(picture, frame.time)
        self.moments.append(time.monotonic())
        return picture

    def _begin(self) -> None:
        self._finish()
        detect, categories = self.choices.detector(self.chosen["detector"], self.chosen["classes"])
        tracker = made(self.choices.nodes["tracker"][self.chosen["tracker"]])
        self.session, self.parts = Session(detect, tracker, categories, **self.borders), self.parts + 1
        files = [self.folder / f"tracks-{self.parts}{kind}" for kind in KINDS]
        self.writers = [self.stack.enter_context(ResultWriter(file, categories)) for file in files]
        self.video: VideoWriter | None = None
        if self.rate is not None:
            video = VideoWriter(self.folder / f"tracked-{self.parts}.mp4", self.rate)
            self.video = self.stack.enter_context(video)
        self.moments = deque([time.monotonic()], maxlen=30)

    def _finish(self) -> None:
        self.using = ()
        try:
            self._save()
        finally:
            self.stack.close()

    def _save(self) -> None:
        if self.session is not None:
            self.session.save(self.folder, f"-{self.parts}")


def made(node: DictConfig, **options: Any) -> Any:
    """What a config describes. ValueError, in place of Hydra's own error, where it refuses."""
    try:
        return instantiate(node, **options)
    except InstantiationException as error:
        raise ValueError(str(error.__cause__ or error).splitlines()[0]) from error
