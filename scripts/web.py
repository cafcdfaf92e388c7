"""The demo's page: python scripts/demo.py web=true. Your webcam, a video that you upload, or the server's source."""

import base64
import logging
import os
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from track.detector import Detector, categories_of, load_detector
from track.live import Live, is_live, name_of
from track.results import KINDS, ResultWriter
from track.session import Session
from track.structures import Detections, Frame
from track.video import VideoWriter, frame_rate, frames, to_jpeg

try:
    import gradio
except ImportError as error:
    raise ValueError("web=true: gradio is missing, pip install -e '.[web]'") from error

EVERY = 0.1  # seconds between pictures that go to the browser and come from it
KEPT = 3600  # seconds after which copies of what was downloaded are deleted
VISITS = 50  # tabs at once
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
CONTROLS = ["detector", "classes", "tracker", "min_score", "trails"]
VIDEOS = [".mp4", ".avi", ".mkv", ".mov", ".webm"]


def serve(cfg: DictConfig, borders: Mapping[str, Any]) -> None:
    """Serve the page until Ctrl-C, on the host that was asked for and nowhere else; what visitors left is deleted then.

    borders: lines, zones and scale as `Session` takes them. ValueError where the port is taken.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how a service is stopped
    private = {"share": False, "footer_links": [], "ssr_mode": False, "enable_monitoring": False, "quiet": True}
    where = {"server_name": cfg.host, "server_port": cfg.port or None, "max_file_size": f"{cfg.upload_limit}mb"}
    with tempfile.TemporaryDirectory(prefix="track-") as folder, ExitStack() as stack:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "cache")
        page = Page(cfg, Choices(cfg), borders, Path(folder))
        stack.callback(page.close)
        blocks = build(page).queue(default_concurrency_limit=None)
        stack.callback(blocks.close)
        try:
            _, url, _ = blocks.launch(**private, **where, prevent_thread_lock=True)
        except OSError as error:
            raise ValueError(f"port={cfg.port}: expected one that is free on {cfg.host}, or port=0") from error
        print(f"{url} (Ctrl-C ends it)", flush=True)
        blocks.block_thread()


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
        return sorted({one for one in known if one not in ("__background__", "N/A")})


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


class Page:
    """The visits of all tabs, and what gradio calls for them."""

    def __init__(self, cfg: DictConfig, choices: Choices, borders: Mapping[str, Any], folder: Path) -> None:
        self.cfg, self.choices, self.borders, self.folder = cfg, choices, borders, folder
        self.visits: dict[str, Visit] = {}

    def close(self) -> None:
        """Every tab is over."""
        for name in list(self.visits):
            self._close(name)

    def enter(self, request: gradio.Request) -> None:
        """A tab was opened."""
        if len(self.visits) >= VISITS:
            raise refusal("there are too many visitors: try again later")
        folder = Path(tempfile.mkdtemp(prefix="visit-", dir=self.folder))
        visit = self.visits[str(request.session_hash)] = Visit(self.choices, self.borders, folder)
        with refusals():  # loaded now: a webcam that gets no answer for long is given up
            self.choices.detector(visit.chosen["detector"], visit.chosen["classes"])

    def visit(self, request: gradio.Request) -> Visit:
        """The tab's that asks."""
        if (visit := self.visits.get(str(request.session_hash))) is None:
            raise refusal("this tab was closed: load the page again")
        return visit

    def leave(self, request: gradio.Request) -> None:
        """A tab was closed."""
        self._close(str(request.session_hash))

    def _close(self, name: str) -> None:
        if visit := self.visits.pop(name, None):
            visit.close()
            for file in visit.uploads.difference(*(other.uploads for other in list(self.visits.values()))):
                file.unlink(missing_ok=True)

    def choose(self, request: gradio.Request, detector: str, classes: list[str], *others: Any) -> Any:
        """A control was moved; the classes are those that the detector knows."""
        known = self.choices.categories(detector)
        kept = [one for one in classes if one in known] or [min(known, key=lambda one: one != "person")]
        with refusals():
            self.choices.detector(detector, kept)
        self.visit(request).chosen = dict(zip(CONTROLS, (detector, kept, *others), strict=True))
        return gradio.update(choices=known, value=kept)

    def webcam(self, picture: np.ndarray | None, request: gradio.Request) -> tuple[Any, Any]:
        """The newest picture of the visitor's webcam, tracked; its time is when it came."""
        visit = self.visit(request)
        with refusals():
            drawn = None if picture is None else visit.film(torch.from_numpy(picture).permute(2, 0, 1))
        return (gradio.skip(), gradio.skip()) if drawn is None else (shown(drawn), visit.counts())

    def keep(self, file: str, request: gradio.Request) -> None:
        """A video was uploaded; equal ones of several tabs are one file."""
        self.visit(request).uploads.add(Path(file))

    def upload(self, file: str | None, request: gradio.Request) -> Iterator[tuple[str, str]]:
        """Track a video that was uploaded, and write it."""
        if file is None:
            raise refusal("choose a video first")
        yield from self._watch(self.visit(request), file, Path(file).name)

    def source(self, request: gradio.Request) -> Iterator[tuple[str, str]]:
        """Track what the server was started with, which visitors need not know the name of."""
        yield from self._watch(self.visit(request), str(self.cfg.source), "this server's source")

    def stop(self, request: gradio.Request) -> None:
        """Watch no further."""
        visit = self.visit(request)
        with refusals():
            visit.end(visit.turn)

    def results(self, request: gradio.Request) -> Any:
        """The tab's files."""
        with refusals():
            return gradio.update(value=self.visit(request).results(), visible=True)

    def _watch(self, visit: Visit, source: str, name: str) -> Iterator[tuple[str, str]]:
        def called(line: str) -> str:
            return line.replace(name_of(source), name)

        def report(line: str) -> None:
            visit.note = called(line)

        turn, last, sent = -1, None, 0.0
        try:
            turn = visit.begin(None if is_live(source) else frame_rate(source))
            for frame in moving(source, report):
                picture = None if frame is None else visit.step(frame, turn)
                if visit.turn != turn:
                    return  # stopped, left, or something else
                last = last if picture is None else picture
                if last is not None and time.monotonic() - sent > EVERY:
                    sent = time.monotonic()
                    yield shown(last), visit.counts()
            visit.note = "the end"
            visit.end(turn)
            if last is not None:
                yield shown(last), visit.counts()
        except ValueError as error:
            with suppress(ValueError):
                visit.end(turn)
            raise refusal(called(str(error))) from error


def moving(source: str, report: Callable[[str], None]) -> Iterator[Frame | None]:
    """A source's frames; None while a stream has no new one."""
    if not is_live(source):
        yield from frames(source, report=report)
        return
    live = Live(source, report)
    try:
        yield from live
    finally:
        live.ended.set()  # `close` would wait for the thread, and this may run on the server's event loop


def build(page: Page) -> gradio.Blocks:
    """What is on the page."""
    limit = page.cfg.upload_limit
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
                    file = gradio.File(label=f"At most {limit} MB; deleted with this tab", file_types=VIDEOS)
                    file.upload(page.keep, file, None, **QUIET)
                    watching(page.upload, page, "Track it", file, [picture, counts])
                if page.cfg.source is not None:
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
    score = gradio.Slider(
        min(0.1, first["min_score"]), 0.95, first["min_score"], step=0.05, label="Score from", elem_id="score"
    )
    trails = gradio.Checkbox(first["trails"], label="Trails")
    every = [detector, classes, tracker, score, trails]
    gradio.on([one.input for one in every], page.choose, every, classes, **QUIET)


def watching(track: Callable[..., Any], page: Page, name: str, given: Any, shown_in: list[Any]) -> None:
    """Buttons that start and stop."""
    with gradio.Row():
        gradio.Button(name, variant="primary").click(track, given, shown_in, **QUIET)
        gradio.Button("Stop").click(page.stop, None, None, **QUIET)


def made(node: DictConfig, **options: Any) -> Any:
    """What a config describes. ValueError, in place of Hydra's own error, where it refuses."""
    try:
        return instantiate(node, **options)
    except InstantiationException as error:
        raise ValueError(str(error.__cause__ or error).splitlines()[0]) from error


@contextmanager
def refusals() -> Iterator[None]:
    """Let the page show what is refused inside."""
    try:
        yield
    except ValueError as error:
        raise refusal(str(error)) from error


def refusal(line: str) -> gradio.Error:
    """What the page shows of a mistake."""
    return gradio.Error(line, print_exception=False)


def shown(picture: Tensor) -> str:
    """A (3, H, W) uint8 RGB picture as HTML that needs no file."""
    data = base64.b64encode(to_jpeg(picture)).decode()
    return f'<img alt="tracks" style="width: 100%" src="data:image/jpeg;base64,{data}">'
