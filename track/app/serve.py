"""grutrack serve: a page in the browser that tracks the visitor's webcam, an uploaded video, or the server's source."""

from __future__ import annotations

import base64
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from track.app.console.cli import command
from track.app.demo import analytics_options, scene_analytics
from track.app.live.guard import LOOPBACK, Guard
from track.app.live.web_session import Choice, WebOptions, WebSession
from track.checkpoint import install_command
from track.formats.mot import VIDEO_SUFFIXES
from track.media.capture import LiveCapture, source_name
from track.media.images import to_jpeg
from track.media.sources import VideoSource, open_source
from track.pipeline import camera_motion_for

try:
    import gradio
except ImportError as error:
    raise ValueError(f"serve: gradio is missing, {install_command('web')}") from error

INTERVAL = 0.1  # seconds between images that go to the browser and come from it
CACHE_SECONDS = 3600  # after which copies of downloaded files are deleted
MARKER = ".grutrack-serve"  # in a server's folder
MAX_TABS = 50
MAX_PLAYING = 10  # videos and streams that are tracked at once
MAX_PIXELS = 16_000_000  # of a visitor's image
IDLE_SECONDS = 3600.0  # without use, after which a tab is closed
FULL_SECONDS = 60.0  # the same while there are too many visitors
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


@command("serve")
def main(cfg: DictConfig) -> None:
    """Serve the page until Ctrl-C or SIGTERM, on the host that was asked for and nowhere else."""
    serve(cfg)


def serve(cfg: DictConfig) -> None:
    """Serve the page of a composed config; the visitors' files are deleted at the end.

    Raises ValueError if the port is taken, for wrong lines, zones or modes, and without a password for a host beyond
    this machine.
    """
    password = "" if cfg.password is None else str(cfg.password)
    if password:
        cfg.password = "hidden"  # in the config that is saved
    elif str(cfg.host) not in LOOPBACK:
        raise ValueError(f"password: expected one with host={cfg.host}, as anyone who reaches the page may watch")
    scene_analytics(cfg)  # raise now if a line or zone is malformed
    logging.getLogger("httpx").setLevel(logging.WARNING)
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # a visitor's image of twice as many is refused
    remove_leftovers(Path(tempfile.gettempdir()))
    private = {"share": False, "footer_links": [], "ssr_mode": False, "enable_monitoring": False, "quiet": True}
    where = {"server_name": cfg.host, "server_port": cfg.port or None, "max_file_size": f"{cfg.upload_limit}mb"}
    with tempfile.TemporaryDirectory(prefix=f"track-{os.getpid()}-") as folder, ExitStack() as stack:
        (Path(folder) / MARKER).touch()
        cache = Path(folder) / "cache"
        os.environ["GRADIO_TEMP_DIR"] = str(cache)

        @asynccontextmanager
        async def guarded(application: Any) -> AsyncIterator[None]:
            guard = Guard(application.middleware_stack, str(cfg.host), cache, cfg.upload_limit * 2**20)
            application.middleware_stack = guard
            yield

        app = WebApp(cfg, WebOptions(cfg), analytics_options(cfg), Path(folder))
        stack.callback(app.close)
        blocks = build_page(app).queue(default_concurrency_limit=None)
        stack.callback(blocks.close)
        try:
            visitors = ("visitor", password) if password else None
            extra: dict[str, Any] = {"auth": visitors, "app_kwargs": {"lifespan": guarded}}
            _, url, _ = blocks.launch(**private, **where, **extra, prevent_thread_lock=True)
        except (OSError, OverflowError) as error:
            raise ValueError(f"port={cfg.port}: expected one that is free on {cfg.host}, or port=0") from error
        print(f"{url} (Ctrl-C ends it)", flush=True)
        blocks.block_thread()


class WebApp:
    """The sessions of all tabs, and what gradio calls for them."""

    def __init__(self, cfg: DictConfig, options: WebOptions, analytics: Mapping[str, Any], folder: Path) -> None:
        self.cfg, self.options, self.analytics, self.folder = cfg, options, analytics, folder
        self.sessions: dict[str, WebSession] = {}

    def close(self) -> None:
        """End every tab."""
        for name in list(self.sessions):
            self._close(name)

    def enter(self, request: gradio.Request) -> None:
        """A tab was opened."""
        self._close_idle()
        if len(self.sessions) >= MAX_TABS:
            raise refusal("there are too many visitors: try again later")
        folder = Path(tempfile.mkdtemp(prefix="session-", dir=self.folder))
        session = WebSession(self.options, self.analytics, folder)
        self.sessions[str(request.session_hash)] = session
        with refusals():  # load now: gradio drops a webcam stream that waits too long
            self.options.detector(session.choice.detector, session.choice.classes)

    def session(self, request: gradio.Request) -> WebSession:
        """The session of the tab that asks."""
        if (session := self.sessions.get(str(request.session_hash))) is None:
            raise refusal("this tab was closed: load the page again")
        session.last_used = time.monotonic()
        return session

    def _close_idle(self) -> None:
        """End tabs that have not been used for an hour or, if there are too many, for a minute."""
        limit = IDLE_SECONDS if len(self.sessions) < MAX_TABS else FULL_SECONDS
        for name, session in list(self.sessions.items()):
            if not session.playing and time.monotonic() - session.last_used > limit:
                self._close(name)

    def leave(self, request: gradio.Request) -> None:
        """A tab was closed."""
        self._close(str(request.session_hash))

    def _close(self, name: str) -> None:
        if session := self.sessions.pop(name, None):
            session.close()
            for file in session.uploads.difference(*(other.uploads for other in list(self.sessions.values()))):
                file.unlink(missing_ok=True)

    def choose(self, request: gradio.Request, detector: str, classes: list[str], *others: Any) -> Any:
        """Apply new settings; classes that the detector lacks are dropped."""
        with refusals():
            self.options.check(Choice(detector, classes, *others))
            known = self.options.categories(detector)
            chosen = [name for name in classes if name in known] or [min(known, key=lambda name: name != "person")]
            self.options.detector(detector, chosen)
        self.session(request).choose(Choice(detector, chosen, *others))
        return gradio.update(choices=known, value=chosen)

    def webcam(self, image: np.ndarray | None, request: gradio.Request) -> tuple[Any, Any]:
        """Track the newest image of the visitor's webcam, timestamped on arrival."""
        session = self.session(request)
        with refusals():
            drawn = None if image is None else session.webcam_frame(torch.from_numpy(image).permute(2, 0, 1))
        return (gradio.skip(), gradio.skip()) if drawn is None else (to_html(drawn), session.counts())

    def keep_upload(self, file: str, request: gradio.Request) -> None:
        """A video was uploaded; equal ones of several tabs are one file."""
        if Path(file).suffix.lower() not in VIDEO_SUFFIXES:
            Path(file).unlink(missing_ok=True)
            raise refusal(f"expected a video ({', '.join(VIDEO_SUFFIXES)})")
        self.session(request).uploads.add(Path(file))

    def track_upload(self, file: str | None, request: gradio.Request) -> Iterator[tuple[str, str]]:
        """Track a video that was uploaded, and write it."""
        if file is None:
            raise refusal("choose a video first")
        yield from self._watch(self.session(request), file, Path(file).name)

    def watch_source(self, request: gradio.Request) -> Iterator[tuple[str, str]]:
        """Track the server's source without revealing its path."""
        yield from self._watch(self.session(request), str(self.cfg.source), "this server's source")

    def stop(self, request: gradio.Request) -> None:
        """Stop playback."""
        session = self.session(request)
        with refusals():
            session.end()

    def results(self, request: gradio.Request) -> Any:
        """The tab's files."""
        with refusals():
            return gradio.update(value=self.session(request).results(), visible=True)

    def _watch(self, session: WebSession, name: str, shown_name: str) -> Iterator[tuple[str, str]]:
        def rename(line: str) -> str:
            return line.replace(source_name(name), shown_name)

        def report(line: str) -> None:
            session.report(rename(line))

        turn = -1
        if sum(other.playing for other in list(self.sessions.values())) >= MAX_PLAYING:
            raise refusal(f"{MAX_PLAYING} visitors are watching already: try again later")
        try:
            source = open_source(name, report, lambda: not session.is_over(turn))
            with _released(source):
                turn = session.begin(
                    None if source.is_live else source.frame_rate, lambda: camera_motion_for(self.cfg.camera, source)
                )
                yield from self._play(session, source, turn)
        except ValueError as error:
            raise refusal(rename(str(error))) from error
        finally:  # also if the browser no longer listens
            with suppress(ValueError):
                session.end(turn)

    def _play(self, session: WebSession, source: VideoSource, turn: int) -> Iterator[tuple[str, str]]:
        """Images and counts of a source, a few per second, until it ends or the tab plays something else."""
        image: Tensor | None = None
        sent = 0.0
        for frame in source:
            drawn = session.step(frame, turn)
            if drawn is None or session.is_over(turn):
                return
            image = drawn
            if time.monotonic() - sent > INTERVAL:
                sent = time.monotonic()
                yield to_html(image), session.counts()
        if session.is_over(turn):
            return
        session.report("the end")
        session.end(turn)
        if image is not None:
            yield to_html(image), session.counts()


def remove_leftovers(folder: Path) -> None:
    """Delete the folders of servers that were killed."""
    for marker in folder.glob(f"track-*/{MARKER}"):
        owner = marker.parent.name.split("-")[1]
        if os.name == "posix" and owner.isdecimal() and not _is_running(int(owner)):
            shutil.rmtree(marker.parent, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # another user's process
    return True


@contextmanager
def _released(source: VideoSource) -> Iterator[None]:
    """Close a source at the end; without waiting for a camera, since this may run on the server's event loop."""
    try:
        yield
    finally:
        if isinstance(source, LiveCapture):
            source.stop()
        else:
            source.close()


def build_page(app: WebApp) -> gradio.Blocks:
    """What is on the page."""
    limit = app.cfg.upload_limit
    with gradio.Blocks(title="grutrack", analytics_enabled=False, delete_cache=(600, CACHE_SECONDS)) as blocks:
        with gradio.Row():
            with gradio.Column(scale=1):
                add_controls(app)
                counts = gradio.Markdown(elem_id="counts")
                prepare = gradio.Button("Results", elem_id="results")
                some: dict[str, Any] = {"file_count": "multiple", "interactive": False, "visible": False}
                files = gradio.File(label="Tracks, images, videos", **some)
                prepare.click(app.results, None, files, **QUIET)
            with gradio.Column(scale=3):
                image = gradio.HTML(elem_id="image")
                with gradio.Tab("Your webcam"):
                    straight = gradio.WebcamOptions(mirror=False)
                    camera = gradio.Image(sources=["webcam"], streaming=True, height=240, webcam_options=straight)
                    camera.stream(app.webcam, camera, [image, counts], stream_every=INTERVAL, **QUIET)
                with gradio.Tab("A video"):
                    file = gradio.File(
                        label=f"At most {limit} MB; deleted with this tab", file_types=list(VIDEO_SUFFIXES)
                    )
                    file.upload(app.keep_upload, file, None, **QUIET)
                    add_buttons(app.track_upload, app, "Track it", file, [image, counts])
                if app.cfg.source is not None:
                    with gradio.Tab("This server's source"):
                        add_buttons(app.watch_source, app, "Watch", None, [image, counts])
        blocks.load(app.enter, **QUIET)
        blocks.unload(app.leave)
    return blocks


def add_controls(app: WebApp) -> None:
    """Detector, tracker, score threshold, classes, trails, as they were when the server was started."""
    options, first = app.options, app.options.first
    detector = gradio.Dropdown([*options.detectors], value=first.detector, label="Detector")
    known = options.categories(first.detector)
    classes = gradio.Dropdown(known, value=first.classes, label="Classes", multiselect=True)
    tracker = gradio.Dropdown([*options.trackers], value=first.tracker, label="Tracker")
    score = gradio.Slider(
        min(0.1, first.min_score), 0.95, first.min_score, step=0.05, label="Score from", elem_id="score"
    )
    trails = gradio.Checkbox(first.show_trails, label="Trails")
    controls: list[Any] = [detector, classes, tracker, score, trails]  # in the order of `Choice`
    gradio.on([one.input for one in controls], app.choose, controls, classes, **QUIET)


def add_buttons(track: Callable[..., Any], app: WebApp, name: str, given: Any, shown_in: list[Any]) -> None:
    """Buttons that start and stop."""
    with gradio.Row():
        gradio.Button(name, variant="primary").click(track, given, shown_in, **QUIET)
        gradio.Button("Stop").click(app.stop, None, None, **QUIET)


@contextmanager
def refusals() -> Iterator[None]:
    """Show a ValueError raised inside as a message on the page."""
    try:
        yield
    except ValueError as error:
        raise refusal(str(error)) from error


def refusal(line: str) -> gradio.Error:
    """An error message for the page, without the folder that torchvision's weights are in."""
    return gradio.Error(line.replace(torch.hub.get_dir(), "the server's cache"), print_exception=False)


def to_html(image: Tensor) -> str:
    """A (3, H, W) uint8 RGB image as HTML that needs no file."""
    data = base64.b64encode(to_jpeg(image)).decode()
    return f'<img alt="tracks" style="width: 100%" src="data:image/jpeg;base64,{data}">'
