"""The demo's page: python scripts/demo.py web=true. Your webcam, a video that you upload, or the server's source."""

import base64
import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from visit import CONTROLS, Choices, Visit

from track.live import Live, is_live, name_of
from track.structures import Frame
from track.video import frame_rate, frames, to_jpeg

try:
    import gradio
except ImportError as error:
    raise ValueError("web=true: gradio is missing, pip install -e '.[web]'") from error

EVERY = 0.1  # seconds between pictures that go to the browser and come from it
KEPT = 3600  # seconds after which copies of what was downloaded are deleted
VISITS = 50  # tabs at once
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
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
        except (OSError, OverflowError) as error:
            raise ValueError(f"port={cfg.port}: expected one that is free on {cfg.host}, or port=0") from error
        print(f"{url} (Ctrl-C ends it)", flush=True)
        blocks.block_thread()


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
            live = is_live(source)
            turn = visit.begin(None if live else frame_rate(source))
            for frame in streamed(source, report) if live else frames(source, report=report):
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


def streamed(source: str, report: Callable[[str], None]) -> Iterator[Frame | None]:
    """A camera's or stream's frames; None while it has no new one."""
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
