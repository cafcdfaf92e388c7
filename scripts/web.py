"""The demo's page: python scripts/demo.py web=true. Your webcam, a video that you upload, or the server's source."""

import base64
import logging
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from demo import borders
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from track.detector import Detector, categories_of
from track.results import KINDS, ResultWriter
from track.session import Session
from track.structures import Detections, Frame
from track.video import VideoWriter, frame_rate, frames, to_jpeg

try:
    import gradio
except ImportError as error:
    raise ValueError("web=true: gradio is missing, pip install -e '.[web]'") from error

EVERY = 0.1  # seconds between pictures that go to the browser and come from it
KEPT = 3600  # seconds after which what was uploaded or downloaded is deleted, where the tab stays open
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
CONTROLS = ["detector", "classes", "tracker", "min_score", "trails"]
VIDEOS = [".mp4", ".avi", ".mkv", ".mov", ".webm"]


def serve(cfg: DictConfig) -> None:
    """Serve the page until Ctrl-C, on the host that was asked for and nowhere else. ValueError where the port is
    taken."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
    blocks = build(cfg).queue(default_concurrency_limit=None)
    private = {"share": False, "footer_links": [], "ssr_mode": False, "enable_monitoring": False, "quiet": True}
    where = {"server_name": cfg.host, "server_port": cfg.port or None, "max_file_size": f"{cfg.upload_limit}mb"}
    try:
        _, url, _ = blocks.launch(**private, **where, prevent_thread_lock=True)
    except OSError as error:
        raise ValueError(f"port={cfg.port}: expected one that is free on {cfg.host}, or port=0") from error
    print(f"{url} (Ctrl-C ends it)", flush=True)
    try:
        blocks.block_thread()
    finally:
        blocks.close()


class Choices:
    """What a visitor may choose from: the configs, the ones that the server was started with first."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg, self.lock = cfg, Lock()
        started, loader = HydraConfig.get().runtime.choices, GlobalHydra.instance().config_loader()
        self.nodes: dict[str, dict[str, DictConfig]] = {}
        for group in ("detector", "tracker"):
            others = [n for n in loader.get_group_options(group) if n not in ("default", "small_fcos")]
            self.nodes[group] = {started[group]: cfg[group]}
            self.nodes[group] |= {n: compose("demo", [f"{group}={n}"])[group] for n in others if n != started[group]}
        self.detector = lru_cache(4)(self._detector)
        first = next(iter(self.nodes["detector"])), [*cfg.detector.classes], next(iter(self.nodes["tracker"]))
        self.first: dict[str, Any] = dict(zip(CONTROLS, (*first, cfg.detector.min_score, True), strict=True))

    def categories(self, name: str) -> list[str]:
        """What a detector knows, without loading it where that is not needed."""
        node = self.nodes["detector"][name]
        known = instantiate(node).categories if node.checkpoint else categories_of(node.name)
        return sorted({one for one in known if one not in ("__background__", "N/A")})

    def _detector(self, name: str, classes: tuple[str, ...]) -> tuple[Callable[[Frame], Detections], list[str]]:
        node = self.nodes["detector"][name]
        detector: Detector = instantiate(node, classes=list(classes), _convert_="all")

        def detect(frame: Frame) -> Detections:
            with self.lock:  # visitors in turns, instead of all of them slowly
                return detector(frame.image)

        return detect, detector.categories


class Visit:
    """One tab: what it chose, what it watches, and its files, which go with it."""

    def __init__(self, choices: Choices) -> None:
        self.choices, self.folder = choices, Path(tempfile.mkdtemp(prefix="track-"))
        self.chosen = choices.first
        self.using: tuple[Any, ...] = ()
        self.stack, self.moments = ExitStack(), deque([time.monotonic()], maxlen=30)
        self.session: Session | None = None
        self.turn = self.parts = 0  # sources and sessions so far
        self.note, self.closed, self.lock = "", False, Lock()
        self.began, self.taken = time.monotonic(), 0  # of the webcam

    def step(self, frame: Frame) -> Tensor:
        """The frame's picture with everything drawn on it. Another detector, tracker or classes start a new session."""
        with self.lock:
            if self.closed:
                raise ValueError("this tab was closed")
            return self._step(frame)

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
        self.moments.append(time.monotonic())
        return picture

    def counts(self) -> str:
        """What is going on, in Markdown."""
        if self.session is None:
            return self.note
        speed = (len(self.moments) - 1) / max(1e-9, self.moments[-1] - self.moments[0])
        return "\n\n".join([f"{speed:.0f} frames a second", *self.session.summary().splitlines(), self.note])

    def results(self) -> list[str]:
        """The files so far: tracks, pictures and videos."""
        if self.session is not None:
            self.session.save(self.folder)
        return sorted(str(file) for file in self.folder.iterdir() if file.stat().st_size)

    def close(self) -> None:
        """End it and delete its files."""
        self.turn += 1
        with self.lock:
            self.closed = True
            self.stack.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self) -> None:
        self.stack.close()
        self.parts, self.note = self.parts + 1, ""
        detect, categories = self.choices.detector(self.chosen["detector"], tuple(self.chosen["classes"]))
        tracker = instantiate(self.choices.nodes["tracker"][self.chosen["tracker"]])
        self.session = Session(detect, tracker, categories, **borders(self.choices.cfg))
        files = [self.folder / f"tracks-{self.parts}{kind}" for kind in KINDS]
        self.writers = [self.stack.enter_context(ResultWriter(file, categories)) for file in files]


class Page:
    """The visits of all tabs, and what gradio calls for them."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg, self.choices = cfg, Choices(cfg)
        self.visits: dict[str, Visit] = {}

    def enter(self, request: gradio.Request) -> None:
        """A tab was opened."""
        self.visits[str(request.session_hash)] = Visit(self.choices)

    def visit(self, request: gradio.Request) -> Visit:
        """The tab's that asks."""
        if (visit := self.visits.get(str(request.session_hash))) is None:
            raise refusal("this tab was closed")
        return visit

    def leave(self, request: gradio.Request) -> None:
        """A tab was closed."""
        if visit := self.visits.pop(str(request.session_hash), None):
            visit.close()

    def choose(self, request: gradio.Request, detector: str, classes: list[str], *others: Any) -> Any:
        """A control was moved; the classes are those that the detector knows."""
        known = self.choices.categories(detector)
        kept = [one for one in classes if one in known] or [min(known, key=lambda one: one != "person")]
        self.visit(request).chosen = dict(zip(CONTROLS, (detector, kept, *others), strict=True))
        return gradio.update(choices=known, value=kept)

    def webcam(self, picture: np.ndarray | None, request: gradio.Request) -> tuple[str, str]:
        """The newest picture of the visitor's webcam, tracked; its time is when it came."""
        visit = self.visit(request)
        if picture is None:
            return "", visit.counts()
        visit.taken += 1
        frame = Frame(torch.from_numpy(picture).permute(2, 0, 1), time.monotonic() - visit.began, visit.taken)
        try:
            return shown(visit.step(frame)), visit.counts()
        except ValueError as error:
            raise refusal(str(error)) from error

    def upload(self, file: str | None, request: gradio.Request) -> Iterator[tuple[str, str]]:
        """Track a video that was uploaded, and write it."""
        if file is None:
            raise refusal("choose a video first")
        visit = self.visit(request)
        with ExitStack() as stack:
            try:
                video = stack.enter_context(VideoWriter(visit.folder / "tracked.mp4", frame_rate(file)))
                yield from self._watch(visit, file, lambda picture, frame: video.write(picture, frame.time))
            except ValueError as error:
                raise refusal(str(error).replace(file, Path(file).name)) from error

    def source(self, request: gradio.Request) -> Iterator[tuple[str, str]]:
        """Track what the server was started with."""
        try:
            yield from self._watch(self.visit(request), str(self.cfg.source), lambda picture, frame: None)
        except ValueError as error:
            raise refusal(str(error)) from error

    def stop(self, request: gradio.Request) -> None:
        """Watch no further."""
        self.visit(request).turn += 1

    def results(self, request: gradio.Request) -> Any:
        """The tab's files."""
        return gradio.update(value=self.visit(request).results(), visible=True)

    def _watch(self, visit: Visit, source: str, write: Callable[[Tensor, Frame], None]) -> Iterator[tuple[str, str]]:
        visit.turn += 1
        turn, last = visit.turn, 0.0

        def report(line: str) -> None:
            visit.note = line

        for frame in frames(source, report=report):
            if visit.turn != turn:
                return  # stopped, left, or another source
            picture = visit.step(frame)
            write(picture, frame)
            if time.monotonic() - last > EVERY:
                last = time.monotonic()
                yield shown(picture), visit.counts()
        visit.note = "the end"
        yield shown(picture), visit.counts()


def build(cfg: DictConfig) -> gradio.Blocks:
    """The page."""
    page = Page(cfg)
    with gradio.Blocks(title="grutrack", analytics_enabled=False, delete_cache=(600, KEPT)) as blocks:
        with gradio.Row():
            with gradio.Column(scale=1):
                controls(page)
                counts = gradio.Markdown(elem_id="counts")
                prepare = gradio.Button("Results", elem_id="results")
                some: dict[str, Any] = {"file_count": "multiple", "interactive": False, "visible": False}
                files = gradio.File(label="Tracks, pictures, videos", **some)
                prepare.click(page.results, None, files, **QUIET)
            with gradio.Column(scale=3):
                picture = gradio.HTML(elem_id="picture")
                with gradio.Tab("Your webcam"):
                    straight = gradio.WebcamOptions(mirror=False)
                    camera = gradio.Image(sources=["webcam"], streaming=True, height=240, webcam_options=straight)
                    camera.stream(page.webcam, camera, [picture, counts], stream_every=EVERY, **QUIET)
                with gradio.Tab("A video"):
                    file = gradio.File(label=f"At most {cfg.upload_limit} MB; deleted with this tab", file_types=VIDEOS)
                    watching(page.upload, page, "Track it", file, [picture, counts])
                if cfg.get("source") is not None:
                    with gradio.Tab("This server's source"):
                        watching(page.source, page, "Watch", None, [picture, counts])
        blocks.load(page.enter, **QUIET)
        blocks.unload(page.leave)
    return blocks


def controls(page: Page) -> None:
    """Detector, tracker, score threshold, classes, trails, as they were when the server was started."""
    nodes, first = page.choices.nodes, page.choices.first
    detector = gradio.Dropdown([*nodes["detector"]], value=first["detector"], label="Detector")
    known = page.choices.categories(first["detector"])
    classes = gradio.Dropdown(known, value=first["classes"], label="Classes", multiselect=True)
    tracker = gradio.Dropdown([*nodes["tracker"]], value=first["tracker"], label="Tracker")
    score = gradio.Slider(0.1, 0.95, first["min_score"], step=0.05, label="Score from", elem_id="score")
    trails = gradio.Checkbox(first["trails"], label="Trails")
    every = [detector, classes, tracker, score, trails]
    gradio.on([one.input for one in every], page.choose, every, classes, **QUIET)


def watching(track: Callable[..., Any], page: Page, name: str, given: Any, shown_in: list[Any]) -> None:
    """Buttons that start and stop."""
    with gradio.Row():
        gradio.Button(name, variant="primary").click(track, given, shown_in, **QUIET)
        gradio.Button("Stop").click(page.stop, None, None, **QUIET)


def refusal(line: str) -> gradio.Error:
    """What the page shows of a mistake."""
    return gradio.Error(line, print_exception=False)


def shown(picture: Tensor) -> str:
    """A (3, H, W) uint8 RGB picture as HTML that needs no file."""
    data = base64.b64encode(to_jpeg(picture)).decode()
    return f'<img alt="tracks" style="width: 100%" src="data:image/jpeg;base64,{data}">'
