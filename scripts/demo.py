"""See it track: python scripts/demo.py source=FILE output=out.mp4, or source=0 for the webcam in a window."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from refuse import refusing
from rich.progress import Progress

from track.draw import Trails, draw
from track.mot import read_detections
from track.structures import Detections
from track.tracker import Tracker
from track.video import Frame, VideoWriter, frame_count, frame_rate, frames, show

Detect = Callable[[Frame], Detections]


@hydra.main(version_base=None, config_path="../conf", config_name="demo")
@refusing
def main(cfg: DictConfig) -> None:
    """Track a source, draw every frame, write it or show it; Ctrl-C or q ends it, and the file stays playable."""
    demo(cfg)


def demo(cfg: DictConfig) -> None:
    """Run the demo of a composed config."""
    source, identities = str(cfg.source), set()
    tracker: Tracker = instantiate(cfg.tracker)
    detect, number, trails = detector_of(cfg), 0, Trails()
    began = time.perf_counter()
    with VideoWriter(cfg.output, frame_rate(source)) if cfg.output else nullcontext() as video:
        for frame in watch(source):
            number += 1
            tracks = tracker.update(detect(frame), time=frame.time)
            trails.add(tracks)
            identities |= set(tracks.ids.tolist())
            speed = number / (time.perf_counter() - began)
            picture = draw(frame.image, tracks, trails, f"{speed:.0f} fps  {len(tracks)} objects")
            if video:
                video.write(picture, frame.time)
            elif not show(picture):
                break
    print(
        f"{number} frames, {number / (time.perf_counter() - began):.1f} frames a second, {len(identities)} identities"
    )
    if cfg.output:
        print(f"video: {Path(cfg.output)}")


def detector_of(cfg: DictConfig) -> Detect:
    """A function from frames to detections: the detector, or the rows of a file."""
    if cfg.detections is None:
        detector = instantiate(cfg.detector, _convert_="all")
        return lambda frame: detector(frame.image)
    count = frame_count(str(cfg.source))
    if count is None:
        raise ValueError("detections: expected a video file or a folder as source, not a camera or stream")
    rows = read_detections(Path(cfg.detections), count)
    return lambda frame: rows[frame.number - 1] if frame.number <= count else Detections.empty()


def watch(source: str) -> Iterator[Frame]:
    """The source's frames, with a progress bar where their number is known."""
    count = frame_count(source)
    if count is None:
        yield from frames(source)
    else:
        with Progress() as progress:
            yield from progress.track(frames(source), total=count, description=Path(source).name)


if __name__ == "__main__":
    main()
