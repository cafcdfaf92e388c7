from pathlib import Path

import pytest
import torch

from tests.streaming import bright, scene
from track.display.draw import colour_of
from track.display.session import Session, borders_of
from track.media.sources import frames
from track.structures import Frame
from track.tracking.tracker import Tracker

CATEGORIES = ["background", "person"]
LINE = {"door": [100, 120, 100, 0]}  # upwards: who walks to the right enters
ZONE = {"hall": [[100, 0], [320, 0], [320, 130], [100, 130]]}


def watched(session: Session, seconds: float = 3.0) -> list[torch.Tensor]:
    """The pictures of the square that walks to the right, 20 a second."""
    times = [number / 20 for number in range(round(20 * seconds))]
    return [session(Frame(scene(t), t, 1 + n), "text")[0] for n, t in enumerate(times)]


def test_who_walks_is_followed_counted_and_drawn() -> None:
    session = Session(bright, Tracker(), CATEGORIES, LINE, ZONE)
    pictures = watched(session)
    assert session.summary().splitlines()[0] == "person: 1 so far, 1 now"
    assert [(e.name, e.direction) for e in session.events] == [("door", "entered"), ("hall", "entered")]
    assert session.scene.speeds[1] == pytest.approx(60, abs=3)
    assert list(borders_of(session.scene)) == ["door: 1 in, 0 out", "hall: 1 inside"]
    assert pictures[40].shape == (3, 120, 320)
    left = round(20 + 60 * 2.0)
    assert tuple(pictures[40][:, 60, left + 10].tolist()) == (255, 255, 255)
    edges = [tuple(pictures[40][:, y, left].tolist()) for y in range(55, 75)]
    assert edges.count(colour_of(1)) > 10


def test_trails_and_speeds_are_drawn_when_asked() -> None:
    plain = Session(bright, Tracker(), CATEGORIES)
    plain.show_trails = False
    trailed, measured = Session(bright, Tracker(), CATEGORIES), Session(bright, Tracker(), CATEGORIES, scale=0.01)
    measured.show_trails = False
    without, trails, speeds = (watched(session, 2.0)[-1] for session in (plain, trailed, measured))
    assert (trails[:, 78:83, 20:60] != without[:, 78:83, 20:60]).any()
    assert (speeds[:, 20:40] != without[:, 20:40]).any()
    assert measured.scene.speeds[1] == pytest.approx(0.6, abs=0.03)


def test_a_threshold_moved_meanwhile_counts_from_then_on() -> None:
    session = Session(bright, Tracker(), CATEGORIES)
    watched(session, 1.0)
    session.tracker.min_score = 0.99
    _, tracks = session(Frame(scene(1.0), 1.0, 21))
    assert len(tracks) == 0


def test_pictures_and_events_are_written(tmp_path: Path) -> None:
    session = Session(bright, Tracker(), CATEGORIES, LINE)
    watched(session)
    heat, paths, events = session.save(tmp_path)
    where = next(frames([paths])).image
    assert tuple(where[:, 80, 100].tolist()) == colour_of(1)
    assert tuple(where[:, 20, 100].tolist()) == (20, 20, 20)
    hot = next(frames([heat])).image.float()
    assert (hot[:, 78:82, 60:180] - 28).abs().mean() > 40
    assert (hot[:, :20] - 28).abs().mean() < 2
    header, row = events.read_text().splitlines()
    assert header == "time,id,class,kind,name,direction"
    assert row.split(",")[1:] == ["1", "person", "line", "door", "entered"]
    assert float(row.split(",")[0]) == pytest.approx((100 - 30) / 60, abs=0.15)


def test_nothing_watched_writes_nothing(tmp_path: Path) -> None:
    assert Session(bright, Tracker(), CATEGORIES).save(tmp_path) == []


def test_a_bad_line_is_refused_before_the_first_frame() -> None:
    with pytest.raises(ValueError, match="line door: expected four finite numbers"):
        Session(bright, Tracker(), CATEGORIES, {"door": [1, 2, 3]})
