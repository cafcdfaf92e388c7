"""See it track: python scripts/demo.py source=0 for the webcam, source=FILE output=out.mp4, web=true for a page."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from refuse import refusing
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from screen import Screen
from torch import Tensor

from track.analytics import Scene
from track.detector import Detector
from track.live import Live, is_live, name_of
from track.mot import read_detections
from track.results import KINDS, ResultWriter
from track.session import Session
from track.structures import Detections, Frame, Tracks
from track.video import VideoWriter, ahead, frame_count, frame_rate, frames
from track.window import NO_DISPLAY, has_display

Detect = Callable[[Frame], Detections]
Write = Callable[[Tensor, Tracks, Frame], None]


@hydra.main(version_base=None, config_path="../conf", config_name="demo")
@refusing
def main(cfg: DictConfig) -> None:
    """Track a source and show or write it until it ends, or q or Ctrl-C ends it; or serve a page that does so."""
    if cfg.web:
        from web import serve

        serve(cfg, borders(cfg))
    else:
        demo(cfg)


def demo(cfg: DictConfig) -> None:
    """Run the demo of a composed config; what was written and counted is kept, however it ends."""
    if cfg.source is None:
        raise ValueError("source: expected a webcam's index, a video file, a folder of images or a URL")
    drawn = borders(cfg)
    output = cfg.output if isinstance(cfg.output, ListConfig) else [cfg.output]
    files = [str(file) for file in output if file is not None]
    windowed = cfg.viewer == "window" or (cfg.viewer is None and not files)
    if windowed and not has_display():
        raise ValueError(NO_DISPLAY)
    folder = Path(str(cfg.output_dir))
    with ExitStack() as stack:
        feed = stack.enter_context(Feed(str(cfg.source)))
        detect, categories = detector_of(cfg)
        session = Session(detect, instantiate(cfg.tracker), categories, **drawn)
        writers = [writer(stack, Path(file), feed.rate, categories) for file in files]
        if cfg.viewer not in (None, "window"):
            writers.append(viewer(str(cfg.viewer), session))
        screen = stack.enter_context(Screen(session, folder)) if windowed else None
        stack.callback(conclude, session, feed, folder, files)
        for frame in feed:
            if frame is None:  # a stream that has none at the moment
                if screen is not None and not screen.wait():
                    break
                continue
            picture, tracks = session(frame, feed.text)
            for write in writers:
                write(picture, tracks, frame)
            feed.done(frame)
            if screen is not None and not screen.show(picture, frame, feed.early(frame)):
                break


class Feed:
    """A source's frames on their way to who watches: of a camera or stream the newest, of a file one by one, with a
    progress bar. It counts them, and knows how fast and how late they are."""

    def __init__(self, source: str) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self.progress = Progress(*columns)
        self.source, self.count, self.text, self.began = source, 0, "", time.monotonic()
        self.live = Live(source, self.say) if is_live(source) else None
        self.total, self.rate = (None, 30.0) if self.live else (frame_count(source), frame_rate(source))
        self.moments: deque[float] = deque(maxlen=30)  # when the last ones were done
        self.first: tuple[float, float] | None = None  # a frame's time, and when it was taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.live:
            self.live.close()

    def __iter__(self) -> Iterator[Frame | None]:
        self.began = time.monotonic()
        self.moments.append(self.began)
        if self.live:
            self.live.skipped = 0  # while the detector was loaded
            yield from map(self._taken, self.live)
            return
        with self.progress:
            items = ahead(frames(self.source, report=self.say))
            yield from map(self._taken, self.progress.track(items, self.total, description=Path(self.source).name))

    def say(self, line: str) -> None:
        """Print a line, above the progress bar."""
        self.progress.console.print(line, soft_wrap=True, markup=False, highlight=False)

    def done(self, frame: Frame) -> None:
        """The frame is ready to be looked at."""
        now = time.monotonic()
        self.count += 1
        speed = len(self.moments) / max(1e-9, now - self.moments[0])
        late = self.live.age(frame) if self.live else now - self.taken
        self.moments.append(now)
        self.text = f"{speed:.0f} fps  {1000 * late:.0f} ms" + (f"  {self.live.skipped} skipped" if self.live else "")

    def early(self, frame: Frame) -> float:
        """Seconds until a file's frame is due at the file's own speed; one that is late moves those after it."""
        if self.live:
            return 0.0
        if self.first is None or frame.time - self.first[0] < self.taken - self.first[1] - 0.5:
            self.first = frame.time, self.taken
        return max(0.0, frame.time - self.first[0] - (time.monotonic() - self.first[1]))

    def _taken(self, frame: Frame | None) -> Frame | None:
        self.taken = time.monotonic()
        return frame


def detector_of(cfg: DictConfig) -> tuple[Detect, list[str]]:
    """A function from frames to detections, the detector or the rows of a file, and the names of their labels."""
    if cfg.detections is None:
        detector: Detector = instantiate(cfg.detector, _convert_="all")
        return lambda frame: detector(frame.image), detector.categories
    count = frame_count(str(cfg.source))
    if count is None:
        raise ValueError("detections: expected a video file or a folder as source, not a camera or stream")
    rows = read_detections(Path(cfg.detections), count)
    others = range(2, 1 + max((int(label) for frame in rows for label in frame.labels), default=1))
    categories = ["background", "person", *(f"class {label}" for label in others)]
    return lambda frame: rows[frame.number - 1] if frame.number <= count else Detections.empty(), categories


def borders(cfg: DictConfig) -> dict[str, Any]:
    """Lines, zones and scale of a config, as `Session` takes them. ValueError where they are no such."""
    given: Any = OmegaConf.to_container(cfg, resolve=True)
    for key, example in {"lines": "{door: [320,480,320,0]}", "zones": "{queue: [[0,200],[200,200],[200,480]]}"}.items():
        if not isinstance(given[key] or {}, dict):
            raise ValueError(f"{key}: expected names, as in {key}={example}, got {given[key]}")
    scale = given["metres_per_pixel"]
    if scale is not None and not (isinstance(scale, int | float) and 0 < scale < float("inf")):
        raise ValueError(f"metres_per_pixel: expected a positive number, got {scale}")
    found = {"lines": given["lines"], "zones": given["zones"], "scale": scale}
    Scene((16, 9), found["lines"] or {}, found["zones"] or {}, found["scale"])  # refused now, what is wrong with them
    return found


def writer(stack: ExitStack, file: Path, rate: float, categories: Sequence[str]) -> Write:
    """What writes each frame into a file, by its suffix; the stack closes it."""
    if file.suffix == ".mp4":
        video = stack.enter_context(VideoWriter(file, rate))
        return lambda picture, tracks, frame: video.write(picture, frame.time)
    if file.suffix not in KINDS:
        raise ValueError(f"output: {file}: expected a name that ends with .mp4, {', '.join(KINDS)}")
    results = stack.enter_context(ResultWriter(file, categories))
    return lambda picture, tracks, frame: results.write(tracks, frame)


def viewer(name: str, session: Session) -> Write:
    """What shows each frame in rerun, or writes a file for it."""
    if name != "rerun" and not name.endswith(".rrd"):
        raise ValueError(f"viewer: expected window, rerun or a file.rrd, got {name}")
    try:
        from track.viewer import Viewer
    except ImportError as error:
        raise ValueError("viewer: rerun is missing, pip install -e '.[rerun]'") from error
    shown = Viewer(None if name == "rerun" else Path(name))
    return lambda picture, tracks, frame: shown.write(frame, tracks, session.tracker.reasons, session.categories)


def conclude(session: Session, feed: Feed, folder: Path, files: Sequence[str]) -> None:
    """Say what was seen, write the pictures of it, and say where everything is."""
    skipped = f", {feed.live.skipped} skipped" if feed.live else ""
    speed = feed.count / max(1e-9, time.monotonic() - feed.began)
    feed.say(f"{name_of(feed.source)}: {feed.count} frames{skipped}, {speed:.1f} frames a second")
    if feed.count:
        feed.say(session.summary())
        for file in [*files, *session.save(folder)]:
            feed.say(str(file))


if __name__ == "__main__":
    main()
