"""The overlay: what is drawn on each frame, and the images, events and video that are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.streaming import BrightDetector, scene
from track.analytics import Event, EventFile, SceneAnalytics
from track.display.draw import colour_of
from track.display.overlay import Overlay, OverlayWriter, region_captions
from track.media.images import read_image
from track.media.sources import VideoFile
from track.pipeline import Pipeline, Sink
from track.structures import Frame, Tracks
from track.tracking.camera_motion import Static
from track.tracking.tracker import Tracker

NAMES = ["background", "person"]
LINE = {"door": [100, 120, 100, 0]}  # upwards: walking to the right is an entry
ZONE = {"hall": [[100, 0], [320, 0], [320, 130], [100, 130]]}


class Player:
    """The pipeline, the analytics and the overlay of the square that walks to the right, 20 frames per second."""

    def __init__(self, **options: Any) -> None:
        self.pipeline = Pipeline(BrightDetector(), Static(), Tracker())
        self.analytics = SceneAnalytics(**options)
        self.overlay = Overlay(NAMES, self.analytics, lambda: "text")
        self.sinks: list[Sink] = [self.analytics, self.overlay]
        self.events: list[Event] = []
        self.images: list[torch.Tensor] = []

    def play(self, seconds: float = 3.0) -> Player:
        for number in range(round(20 * seconds)):
            self.show(number)
        return self

    def show(self, number: int) -> Tracks:
        result = self.pipeline.step(Frame(scene(number / 20), number / 20, 1 + number))
        for sink in self.sinks:
            sink.write(result)
        self.events += self.analytics.events
        self.images.append(self.overlay.image)
        return result.tracks


def test_a_walker_is_tracked_counted_and_drawn() -> None:
    player = Player(lines=LINE, zones=ZONE).play()
    assert player.analytics.summary(NAMES).splitlines()[0] == "person: 1 so far, 1 now"
    assert [(e.name, e.direction) for e in player.events] == [("door", "entered"), ("hall", "entered")]
    assert player.analytics.speeds[1] == pytest.approx(60, abs=3)
    assert list(region_captions(player.analytics)) == ["door: 1 in, 0 out", "hall: 1 inside"]
    image = player.images[40]
    assert image.shape == (3, 120, 320)
    left = round(20 + 60 * 2.0)
    assert tuple(image[:, 60, left + 10].tolist()) == (255, 255, 255)
    edges = [tuple(image[:, y, left].tolist()) for y in range(55, 75)]
    assert edges.count(colour_of(1)) > 10


def test_trails_and_speeds_are_drawn_on_request() -> None:
    plain, trailed, measured = Player(), Player(), Player(metres_per_pixel=0.01)
    plain.overlay.show_trails = measured.overlay.show_trails = False
    without, trails, speeds = (player.play(2.0).images[-1] for player in (plain, trailed, measured))
    assert (trails[:, 78:83, 20:60] != without[:, 78:83, 20:60]).any()
    assert (speeds[:, 20:40] != without[:, 20:40]).any()
    assert measured.analytics.speeds[1] == pytest.approx(0.6, abs=0.03)
    measured.overlay.show_speeds = False
    plain.show(40)
    measured.show(40)
    assert measured.images[-1].equal(plain.images[-1])


def test_a_threshold_changed_between_frames_applies_from_then_on() -> None:
    player = Player().play(1.0)
    player.pipeline.min_score = 0.99
    assert len(player.show(20)) == 0


def test_the_status_line_is_drawn_at_the_top_left() -> None:
    player = Player()
    silent = Overlay(NAMES, player.analytics)
    player.sinks.append(silent)
    player.show(0)
    assert (player.images[0][:, :15, :30] != silent.image[:, :15, :30]).any()
    assert player.images[0][:, 90:].equal(silent.image[:, 90:])


def test_images_and_events_are_written(tmp_path: Path) -> None:
    player = Player(lines=LINE)
    player.sinks.append(EventFile(tmp_path / "events.csv", player.analytics, NAMES))
    heatmap, trajectories = player.play().overlay.save(tmp_path)
    paths = read_image(trajectories)
    assert tuple(paths[:, 80, 100].tolist()) == colour_of(1)
    assert tuple(paths[:, 20, 100].tolist()) == (20, 20, 20)
    heat = read_image(heatmap).float()
    assert (heat[:, 78:82, 60:180] - 28).abs().mean() > 40
    assert (heat[:, :20] - 28).abs().mean() < 2
    header, row = (tmp_path / "events.csv").read_text().splitlines()
    assert header == "time,id,class,kind,name,direction"
    assert row.split(",")[1:] == ["1", "person", "line", "door", "entered"]
    assert float(row.split(",")[0]) == pytest.approx((100 - 30) / 60, abs=0.15)


def test_images_are_named_with_the_suffix(tmp_path: Path) -> None:
    player = Player().play(0.1)
    names = [path.name for path in player.overlay.save(tmp_path / "new", "-2")]
    assert names == ["heatmap-2.png", "trajectories-2.png"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names


def test_without_a_frame_nothing_is_written(tmp_path: Path) -> None:
    player = Player(lines=LINE)
    EventFile(tmp_path / "events.csv", player.analytics, NAMES)
    assert player.overlay.save(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_label_without_a_name_is_drawn_by_its_number() -> None:
    named, unnamed = Player(), Player()
    named.overlay.label_names = ["background", "class 1"]
    unnamed.overlay.label_names = ["background"]
    named.show(0)
    unnamed.show(0)
    assert unnamed.images[0].equal(named.images[0])


def test_a_malformed_line_is_refused_before_the_first_frame() -> None:
    with pytest.raises(ValueError, match="line door: expected four finite numbers"):
        Player(lines={"door": [1, 2, 3]})


def test_the_overlays_images_are_written_as_a_video_with_the_frames_times(tmp_path: Path) -> None:
    player = Player()
    with OverlayWriter(tmp_path / "a.mp4", 20, player.overlay) as video:
        player.sinks.append(video)
        player.play(1.0)
    frames = list(VideoFile(tmp_path / "a.mp4"))
    assert [frame.time for frame in frames] == pytest.approx([number / 20 for number in range(20)], abs=1e-3)
    for frame, image in zip(frames, player.images, strict=True):
        assert (frame.image.float() - image.float()).abs().mean() < 4
