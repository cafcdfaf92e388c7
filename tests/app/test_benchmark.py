"""grutrack benchmark: costs beside public trackers, how they grow, and whether the boxes are the same."""

from __future__ import annotations

import re
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Call
from track.app.speed.crowd import crowd_detections
from track.app.speed.peers import REFERENCE
from track.app.speed.trackers import Case, Cost, exponents
from track.detection.detector import Detector
from track.media.sources import ImageFolder
from track.tracking.tracker import Tracker

OURS = ["gru", "gru_byte", "bytetrack"]


def tables(text: str) -> list[dict[str, list[str]]]:
    """The cells of each Markdown table by the first of their row, its heading excepted."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        found.append({name: cells for name, *cells in rows[2:]})
    return found


def test_pixels_are_compared_with_the_plain_loop(streets: Path, detector: str, tmp_path: Path, call: Call) -> None:
    pytest.importorskip("trackers")
    options = ["detections=null", "frames=6", "repeats=1", "output_dir=out", "threads=1", detector]
    images = streets / "street-04-00/img1"
    done = call("benchmark", f"source={images}", *options)
    assert done.code == 0, done.err
    found = re.search(r"scores within 0.01: (\d+) of (\d+)", done.out)
    assert found
    found_again, boxes = map(int, found.groups())
    with closing(ImageFolder(images)) as source:
        pairs = Detector(checkpoint=detector.split("=")[1]).detect(islice(source, 6))
        own = sum(len(detections) for _, detections in pairs)
    assert boxes == pytest.approx(own, rel=0.02)
    assert 0.9 * boxes < found_again <= boxes  # of random weights, in which many scores are nearly equal
    (costs,) = tables(done.out)
    assert next(ratio for _, ratio in costs.values()) == "1.00"
    assert 0 < float(costs["grutrack"][1]) < 20
    stages = re.search(r"^tracking ([\d.]+) ms, drawing ([\d.]+) ms, writing ([\d.]+) ms", done.out, re.MULTILINE)
    assert stages
    assert all(float(one) > 0 for one in stages.groups())


def test_trackers_are_compared_on_the_same_detections(streets: Path, call: Call) -> None:
    pytest.importorskip("trackers")
    options = "detections=det/det.txt", "repeats=1", "output_dir=out", "threads=1"
    done = call("benchmark", f"source={streets}", *options)
    assert done.code == 0, done.err
    costs, memory = tables(done.out)
    assert [*costs][:3] == OURS
    assert REFERENCE in costs
    own, ratio = re.findall(r"[\d.]+", costs["gru"][0])
    assert float(ratio) == pytest.approx(float(own) / float(costs[REFERENCE][0].split()[0]), rel=0.05)
    for peak, tracking in (re.findall(r"\d+", cells[0]) for cells in memory.values()):
        assert 100 < int(peak) < 3000  # MB: torch alone takes more than 100
        assert int(tracking) < int(peak)


def test_crowds_show_the_growth(tmp_path: Path, call: Call) -> None:
    options = "peers=false", "repeats=1", "output_dir=out", "threads=1", "busy=1"
    done = call("benchmark", "crowd=[200,100]", "source=nothing", *options)
    assert done.code == 0, done.err
    assert "note: source has no effect beside crowd=" in done.out
    assert "1 busy processes" in done.out
    costs, _ = tables(done.out)
    assert [*costs] == OURS
    few, many, exponent = (float(cell) for cell in costs["gru"])
    assert exponent == pytest.approx(np.log2(many / few), abs=0.02)
    assert (tmp_path / "out/growth.png").stat().st_size > 10_000


def test_the_exponent_of_growth_leaves_small_crowds_out() -> None:
    cases = [Case("", [], count) for count in (10, 100, 1000, 10_000)]
    costs = [{"a": Cost(ms, 0, 0)} for ms in (7, 1, 50, 100)]
    assert exponents(cases, costs) == {"a": pytest.approx(1)}
    assert exponents(cases[:2], costs[:2]) == {}


def test_a_crowd_is_the_same_for_the_same_seed_and_can_be_tracked() -> None:
    frames, again, other = (crowd_detections(30, 40, seed) for seed in (3, 3, 4))
    assert frames[7].boxes.equal(again[7].boxes)
    assert not frames[7].boxes[:5].equal(other[7].boxes[:5])
    assert sum(map(len, frames)) == pytest.approx(30 * 40 * 0.92, rel=0.05)
    tracker = Tracker()
    for detections in frames:
        tracks = tracker.update(detections)
    assert len(tracks) >= 24
    assert tracks.ids.max() <= 60  # identities last


def test_crowds_of_any_size_are_equally_dense() -> None:
    for count in (100, 2500):
        boxes = crowd_detections(count, 1)[0].boxes
        area = np.prod((boxes.amax(0) - boxes.amin(0))[2:].numpy())
        assert area / count == pytest.approx(1600, rel=0.55)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        *((f"{name}=0", f"{name}: expected at least 1, got 0") for name in ("threads", "repeats", "frames")),
        ("busy=-1", "busy: expected 0 or more, got -1"),
        ("crowd=[]", "crowd: expected numbers of objects, such as [10,1000], got []"),
        ("crowd=[10,many]", "crowd: expected numbers of objects, such as [10,1000], got [10, 'many']"),
        ("crowd=0", "crowd: expected numbers of objects, such as [10,1000], got [0]"),
        ("detections=det/det.txt", "source: expected a value, see --help"),
    ],
)
def test_a_mistake_is_one_line(option: str, message: str, call: Call) -> None:
    source = [] if "source" in message else ["source=."]
    done = call("benchmark", *source, option)
    assert (done.code, done.err) == (1, f"error: {message}\n")
