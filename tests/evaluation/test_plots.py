"""Plots, read back from their pixels."""

from pathlib import Path

import cv2
import numpy as np

from track.display.draw import colour_of
from track.evaluation.plots import plot_curves, plot_identities
from track.evaluation.tracking import ScoredFrame
from track.media.images import read_image


def test_identities_are_drawn_in_the_colours_of_their_tracks(tmp_path: Path) -> None:
    def frame(tracks: list[int], iou: list[list[float]]) -> ScoredFrame:
        return ScoredFrame(np.array([7, 9]), np.array(tracks), np.array(iou))

    swap = [frame([1, 2], [[0.9, 0], [0, 0.8]])] * 30 + [frame([2, 1], [[0.9, 0], [0, 0.8]])] * 20
    plot_identities(tmp_path / "a.png", [*swap, *[frame([3, 2], [[0.4, 0], [0, 0.8]])] * 10])
    image = cv2.cvtColor(cv2.imread(str(tmp_path / "a.png")), cv2.COLOR_BGR2RGB)
    counts = {name: (image == np.array(colour_of(name))).all(2).sum() for name in (1, 2, 3)}
    untracked = (image[:, image.shape[1] // 2 :] == 0).all(2).sum()
    assert counts[3] == 0
    assert abs(counts[2] / counts[1] - (30 + 20 + 10) / (30 + 20)) < 0.05
    assert untracked > 0.15 * counts[1]


def test_curves_are_drawn_from_lightnings_csv(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss,val/map\n0,0,3.0,\n0,1,2.0,\n0,1,,0.5\n")
    plot_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert read_image(tmp_path / "curves.png").float().std() > 5
