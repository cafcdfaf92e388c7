"""Pictures for reports: trajectories over a frame, the curves of a training run, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from track.draw import colour_of
from track.structures import Tracks


def plot_trajectories(path: str | Path, results: Sequence[Tracks], background: Tensor) -> None:
    """Write a PNG of every track's foot points over a dimmed (3, H, W) uint8 RGB frame."""
    _, height, width = background.shape
    figure = Figure(figsize=(9, 9 * height / width), dpi=120)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow((background.permute(1, 2, 0).float() * 0.6).byte().numpy())
    points: dict[int, list[tuple[float, float]]] = {}
    for frame in results:
        for identity, (x1, _, x2, y2) in zip(frame.ids.tolist(), frame.boxes.tolist(), strict=True):
            points.setdefault(identity, []).append(((x1 + x2) / 2, y2))
    for identity, line in points.items():
        colour = tuple(part / 255 for part in colour_of(identity))
        axes.plot(*zip(*line, strict=True), color=colour, linewidth=2)
        axes.plot(*line[-1], "o", color=colour, markersize=6)
        axes.annotate(str(identity), line[-1], color="white", fontsize=9, xytext=(4, 4), textcoords="offset points")
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    figure.savefig(path)


def plot_curves(metrics: str | Path, path: str | Path) -> None:
    """Write a PNG with one panel for each group of columns of a Lightning metrics.csv (loss, iou, map, ...)."""
    table = pd.read_csv(metrics)
    names = [name for name in table.columns if name not in ("epoch", "step")]
    groups = sorted({name.split("/")[-1].replace("kalman_", "").split("_")[0] for name in names})
    figure = Figure(figsize=(4.5 * max(1, len(groups)), 3.6), layout="constrained")
    for axes, group in zip(figure.subplots(1, max(1, len(groups)), squeeze=False)[0], groups, strict=False):
        for name in (n for n in names if n.split("/")[-1].replace("kalman_", "").split("_")[0] == group):
            rows = table[["step", name]].dropna()
            axes.plot(rows["step"], rows[name], label=name, marker="." if len(rows) < 30 else None)
        axes.set(title=group, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def plot_reliability(tables: Mapping[str, pd.DataFrame], path: str | Path) -> None:
    """Write a PNG of happened over claimed, a line a table of `track.calibration`; the diagonal is perfect."""
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    for name, table in tables.items():
        axes.plot(table["claimed"], table["happened"], marker=".", label=name)
    axes.set(xlabel="claimed", ylabel="happened", xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
