"""Drawn streets are reproducible, and their ground truth agrees with their pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from track.datasets import streets
from track.datasets.streets import make_dataset
from track.formats.mot import find_sequences


def test_the_same_seed_draws_the_same_street_and_another_seed_another(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_dataset(tmp_path / name, 1, 3, seed)
    a, b, c = (sorted((tmp_path / name).rglob("*.jpg"))[2].read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_the_affines_align_the_background_and_the_ground_truth_is_plausible(tmp_path: Path) -> None:
    sequence = find_sequences(make_dataset(tmp_path, 1, 40, seed=3))[0]
    first, second = (np.asarray(Image.open(f), float).mean(2) for f in (sequence.images() or [])[10:12])
    dx, dy = sequence.affines()[11][:, 2].int().tolist()
    houses = slice(10, 100), slice(10, -10)
    aligned = abs(np.roll(first, (dy, dx), (0, 1)) - second)[houses]
    unaligned = abs(first - second)[houses]
    assert np.median(aligned) < 0.9 * np.median(unaligned)
    assert all(1 <= len(frame) <= 9 for frame in sequence.truth())


def test_people_are_drawn_inside_their_boxes_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    street = find_sequences(make_dataset(tmp_path / "street", 1, 40, seed=3))[0]
    monkeypatch.setattr(streets, "draw_person", lambda *_: None)
    deserted = find_sequences(make_dataset(tmp_path / "deserted", 1, 40, seed=3))[0]
    pairs = zip(street.images() or [], deserted.images() or [], strict=True)
    for (image, background), truth in zip(pairs, street.truth(), strict=True):
        drawn = abs(np.asarray(Image.open(image), int) - np.asarray(Image.open(background), int)).max(2) > 30
        outside = drawn.copy()
        for (x1, y1, x2, y2), flag in zip(truth.boxes.int().tolist(), truth.scores.tolist(), strict=True):
            assert flag == 0 or drawn[y1 : y2 + 1, x1 : x2 + 1].mean() > 0.1
            outside[max(0, y1 - 1) : y2 + 2, max(0, x1 - 1) : x2 + 2] = False
        assert outside[:, 20:-20].sum() < 5  # at the edges are parts of people without a box


def test_people_visible_to_less_than_a_tenth_have_flag_0(tmp_path: Path) -> None:
    sequence = find_sequences(make_dataset(tmp_path, 1, 40, seed=1))[0]
    rows = np.loadtxt(sequence.path / "gt/gt.txt", delimiter=",")
    flags = [flag for frame in sequence.truth() for flag in frame.scores.tolist()]
    assert flags == (rows[:, 8] >= 0.1).tolist()
    assert flags.count(0) > 10
