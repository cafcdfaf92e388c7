"""Plots, read back from their pixels."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from track.display.draw import colour_of
from track.evaluation.plots import (
    plot_curves,
    plot_frames,
    plot_identities,
    plot_precision_recall,
    plot_reliability,
)
from track.evaluation.tracking import ScoredFrame
from track.media.images import read_image
from track.structures import Detections

LINE_COLOURS = ((31, 119, 180), (255, 127, 14), (44, 160, 44))  # of matplotlib's first lines


def pixels_of(path: Path, colour: tuple[int, int, int], tolerance: int = 0) -> np.ndarray:
    """(N, 2) rows and columns of the pixels of a PNG that have an RGB colour, to within a tolerance per channel."""
    image = read_image(path)
    assert image is not None
    difference = image.permute(1, 2, 0).numpy().astype(int) - colour
    return np.argwhere((abs(difference) <= tolerance).all(2))


def horizontal_line(path: Path, colour: tuple[int, int, int]) -> tuple[float, int, int]:
    """Row, first and last column of a horizontal line; the shorter one in the legend does not count."""
    pixels = pixels_of(path, colour)
    row = np.bincount(pixels[:, 0]).argmax()
    columns = pixels[pixels[:, 0] == row, 1]
    return row, columns.min(), columns.max()


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
    pixels = pixels_of(tmp_path / "curves.png", LINE_COLOURS[0])
    loss, metric = (pixels[(pixels[:, 1] >= 495) == panel] for panel in (False, True))
    (top, left), (bottom, right) = loss[loss[:, 1].argmin()], loss[loss[:, 1].argmax()]
    assert bottom - top > 200  # the loss falls
    assert right - left > 200
    assert len(metric) > 50


def table(confidence: list[float], observed: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"confidence": confidence, "observed": observed})


def test_a_reliability_diagram_shows_observed_frequency_over_confidence(tmp_path: Path) -> None:
    tables = {"a": table([0, 1], [0.2, 0.2]), "b": table([0, 0.5], [0.8, 0.8]), "c": table([0, 1], [0.5, 0.5])}
    plot_reliability(tables, tmp_path / "a.png")
    a, b, c = (horizontal_line(tmp_path / "a.png", colour) for colour in LINE_COLOURS)
    assert b[0] < c[0] < a[0]
    assert (a[0] + b[0]) / 2 == pytest.approx(c[0], abs=2)
    assert a[1:] == pytest.approx(c[1:], abs=3)
    assert b[2] - b[1] == pytest.approx((a[2] - a[1]) / 2, abs=6)
    diagonal = pixels_of(tmp_path / "a.png", (128, 128, 128))
    assert np.corrcoef(diagonal.T)[0, 1] < -0.8


def test_precision_is_drawn_over_recall(tmp_path: Path) -> None:
    recall = torch.linspace(0, 1, 101)
    plot_precision_recall({"a": (recall, torch.ones(101)), "b": (recall / 2, torch.ones(101) / 2)}, tmp_path / "a.png")
    a, b = (horizontal_line(tmp_path / "a.png", colour) for colour in LINE_COLOURS[:2])
    assert b[0] - a[0] > 150
    assert b[1] == pytest.approx(a[1], abs=3)
    assert b[2] - b[1] == pytest.approx((a[2] - a[1]) / 2, abs=6)


def test_ground_truth_is_drawn_in_green_and_detections_in_red_with_their_scores(tmp_path: Path) -> None:
    blue = (0, 0, 120)
    image = torch.tensor(blue, dtype=torch.uint8)[:, None, None].expand(3, 100, 200)
    truth = Detections.from_rows([[20, 40, 60, 90, 1, 1]])
    detections = Detections.from_rows([[120, 50, 180, 80, 0.75, 1]])
    plot_frames({"a": (image, truth, detections)}, tmp_path / "a.png")
    corner = pixels_of(tmp_path / "a.png", blue).min(0)
    scale = (pixels_of(tmp_path / "a.png", blue).max(0) - corner + 1) / (100, 200)
    green, red = (pixels_of(tmp_path / "a.png", colour, tolerance=100) for colour in ((0, 255, 0), (255, 0, 0)))
    assert (green.min(0) - corner) / scale == pytest.approx((40, 20), abs=1.5)
    assert (green.max(0) - corner) / scale == pytest.approx((90, 60), abs=1.5)
    score = (red[:, 0] - corner[0]) / scale[0] < 48
    assert (red[~score].max(0) - corner) / scale == pytest.approx((80, 180), abs=1.5)
    assert (red[:, 1].min() - corner[1]) / scale[1] == pytest.approx(120, abs=1.5)
    assert score.sum() > 20
