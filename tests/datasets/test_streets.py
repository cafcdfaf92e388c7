"""Drawn streets are reproducible, and their ground truth agrees with their pixels."""

from pathlib import Path

import numpy as np
from PIL import Image

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
    flags = [flag for frame in sequence.truth() for flag in frame.scores.tolist()]
    assert set(flags) <= {0.0, 1.0}
