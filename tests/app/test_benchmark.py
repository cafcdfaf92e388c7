"""grutrack benchmark: costs beside the public tracker, and whether the boxes are the same."""

from __future__ import annotations

import re
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from tests.conftest import Call
from track.detection.detector import Detector
from track.media.sources import ImageFolder


def test_pixels_are_compared_with_the_plain_loop(streets: Path, detector: str, tmp_path: Path, call: Call) -> None:
    pytest.importorskip("trackers")
    options = ["detections=null", "frames=6", "repeats=1", "output_dir=out", detector]
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
    ratios = re.findall(r"(?:ByteTrack \(trackers\)|grutrack) +[\d.]+ +([\d.]+)", done.out)
    assert ratios[0] == "1.00"
    assert 0 < float(ratios[1]) < 20
    costs = re.search(r"^tracking ([\d.]+) ms, drawing ([\d.]+) ms, writing ([\d.]+) ms$", done.out, re.MULTILINE)
    assert costs
    assert all(float(one) > 0 for one in costs.groups())


def test_trackers_are_compared_on_the_same_detections(streets: Path, call: Call) -> None:
    pytest.importorskip("trackers")
    done = call("benchmark", f"source={streets}", "detections=det/det.txt", "repeats=1", "output_dir=out")
    assert done.code == 0, done.err
    rows = [line.rsplit(maxsplit=2) for line in done.out.splitlines()[1:]]
    assert [name.strip() for name, *_ in rows] == ["gru", "gru_byte", "bytetrack", "ByteTrack (trackers)"]
    cost, ratio = (float(one) for one in rows[0][1:])
    assert ratio == pytest.approx(cost / float(rows[-1][1]), rel=0.05)


@pytest.mark.parametrize("option", ["threads", "repeats", "frames"])
def test_counts_below_one_are_refused(option: str, call: Call) -> None:
    done = call("benchmark", "source=.", f"{option}=0")
    assert (done.code, done.err) == (1, f"error: {option}: expected at least 1, got 0\n")
