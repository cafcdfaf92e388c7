"""Simulated crowds have plausible sizes and motion, and files that agree with them."""

from pathlib import Path

import numpy as np
import pytest

from track.datasets.crowds import CROWDS, crowd, make_crowds, ornstein_uhlenbeck
from track.formats.mot import find_sequences


@pytest.mark.parametrize("kind", CROWDS)
def test_people_have_the_size_of_people_and_move_smoothly(kind: str) -> None:
    boxes, shifts = crowd(CROWDS[kind], 120, 30.0, np.random.default_rng(1))
    low, high = CROWDS[kind].people
    assert low <= boxes.shape[1] < high
    size = boxes[..., 2:] - boxes[..., :2]
    assert 0.2 < np.nanmedian(size[..., 0] / size[..., 1]) < 0.6
    step = np.diff((boxes[..., :2] + boxes[..., 2:]) / 2, axis=0) / size[1:, :, 1:]
    assert 0.001 < np.nanmedian(abs(step)) < 0.1  # in box heights per frame
    assert shifts.shape == (120, 2)


def test_the_affines_that_are_written_follow_the_pan(tmp_path: Path) -> None:
    make_crowds(tmp_path, 6, 40, seed=3)
    sequences = find_sequences(tmp_path)
    assert [s.name.split("-")[0] for s in sequences] == ["dancers"] * 2 + ["players"] * 2 + ["walkers"] * 2
    steps = []
    for sequence in sequences:
        truth, affines = sequence.truth(), sequence.affines()
        for before, after, affine in zip(truth, truth[1:], affines[1:], strict=False):
            common = set(before.ids.tolist()) & set(after.ids.tolist())
            a, b = (frame.boxes[[k in common for k in frame.ids.tolist()]] for frame in (before, after))
            steps += (b[:, 3] - a[:, 3] - affine[1, 2]).abs().tolist()
    assert np.median(steps) < 2.5  # feet move little by themselves
    assert any(float(s.affines()[:, 0, 2].abs().max()) > 1 for s in sequences)


def test_the_same_seed_simulates_the_same_crowds_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_crowds(tmp_path / name, 3, 20, seed)
    a, b, c = ([file.read_bytes() for file in sorted((tmp_path / name).rglob("*.txt"))] for name in "abc")
    assert len(a) == 3 * 2  # gt.txt and gmc.txt
    assert a == b
    assert not set(a) & set(c)


def test_ornstein_uhlenbeck_noise_has_variance_one_and_the_given_correlation() -> None:
    noise = ornstein_uhlenbeck(np.array([0.0, 0.9, 0.9, 0.5]), 50_000, np.random.default_rng(0))
    assert noise.var(1) == pytest.approx(1, abs=0.03)
    assert [np.corrcoef(noise[i], noise[i + 1])[0, 1] for i in range(3)] == pytest.approx([0.9, 0.9, 0.5], abs=0.02)
