"""Plots for reports: identity timelines, training curves, precision-recall and reliability, detections, speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from track.checkpoint import atomic_write
from track.display.draw import colour_of
from track.evaluation.protocol import MATCH_IOU
from track.evaluation.tracking import ScoredFrame
from track.structures import Detections
from track.tracking.association import assign


def plot_identities(path: str | Path, frames: Sequence[ScoredFrame]) -> None:
    """Write a PNG timeline with one bar per ground-truth identity, in the colours of the tracks matched to it.

    A single colour is a perfect track, a change of colour an identity switch, black a frame without a track, and white
    a frame without the identity.
    """
    identities = sorted({int(identity) for frame in frames for identity in frame.truth})
    bars = np.ones((max(1, len(identities)), len(frames), 3), np.float32)
    for column, frame in enumerate(frames):
        rows = np.searchsorted(identities, frame.truth)
        bars[rows, column] = 0
        matched, predictions = (index.numpy() for index in assign(torch.from_numpy(frame.iou), MATCH_IOU))
        for row, track in zip(rows[matched], frame.predictions[predictions].tolist(), strict=True):
            bars[row, column] = np.array(colour_of(track)) / 255
    figure = Figure(figsize=(10, 1 + 0.22 * len(bars)), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.imshow(bars, aspect="auto", interpolation="nearest", extent=(0.5, len(frames) + 0.5, len(bars), 0))
    axes.hlines(range(1, len(bars)), 0.5, len(frames) + 0.5, color="white", linewidth=3)
    axes.set_yticks(np.arange(len(identities)) + 0.5, labels=[str(k) for k in identities], fontsize=7)
    axes.set(xlabel="frame", ylabel="true identity")
    _save(figure, path)


def plot_curves(metrics: str | Path, path: str | Path) -> None:
    """Write a PNG with one panel per group of columns of a Lightning metrics.csv (loss, iou, map, ...)."""
    table = pd.read_csv(metrics)
    groups: dict[str, list[str]] = {}
    for name in table.columns:
        if name not in ("epoch", "step"):
            groups.setdefault(_metric_group(name), []).append(name)
    figure = Figure(figsize=(4.5 * max(1, len(groups)), 3.6), layout="constrained")
    panels = figure.subplots(1, max(1, len(groups)), squeeze=False)[0]
    for axes, (group, names) in zip(panels, sorted(groups.items()), strict=False):
        for name in names:
            rows = table[["step", name]].dropna()
            axes.plot(rows["step"], rows[name], label=name, marker="." if len(rows) < 30 else None)
        axes.set(title=group, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    _save(figure, path, dpi=110)


def plot_precision_recall(curves: Mapping[str, tuple[Tensor, Tensor]], path: str | Path) -> None:
    """Write a PNG of precision over recall, one line per (recalls, precisions) of `precision_recall`, by name."""
    figure = Figure(figsize=(4.8, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, (recall, precision) in curves.items():
        axes.plot(recall, precision, label=name)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")
    _save(figure, path, dpi=110)


def plot_frames(frames: Mapping[str, tuple[Tensor, Detections, Detections]], path: str | Path) -> None:
    """Write a PNG of images by title, three per row: ground truth in green, detections in red with their scores.

    frames: for each title an image (3, H, W) uint8 RGB, its ground truth and its detections.
    """
    rows = max(1, -(-len(frames) // 3))
    figure = Figure(figsize=(13, 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, 3, squeeze=False).flatten()
    for axes in panels:
        axes.axis("off")
    for axes, (title, (image, truth, detections)) in zip(panels, frames.items(), strict=False):
        axes.imshow(image.permute(1, 2, 0).numpy())
        axes.set_title(title, fontsize=8)
        _draw_boxes(axes, truth, "lime")
        _draw_boxes(axes, detections, "red")
        for (x1, y1, *_), score in zip(detections.boxes.tolist(), detections.scores.tolist(), strict=True):
            axes.text(x1, y1, f"{score:.2f}", color="red", fontsize=6, verticalalignment="bottom")
    _save(figure, path, dpi=110)


def plot_reliability(tables: Mapping[str, pd.DataFrame], path: str | Path) -> None:
    """Write a PNG of observed frequency over confidence; the diagonal is perfect calibration.

    tables: what `reliability` or `coverage` returned, by name, drawn as one line each.
    """
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    for name, table in tables.items():
        axes.plot(table["confidence"], table["observed"], marker=".", label=name)
    axes.set(xlabel="confidence", ylabel="observed", xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, path, dpi=110)


def plot_growth(counts: Sequence[int], curves: Mapping[str, Sequence[float]], path: str | Path) -> None:
    """Write a PNG of milliseconds per frame over the number of objects, both logarithmic, one line by name."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, milliseconds in curves.items():
        axes.plot(counts, milliseconds, label=name, marker=".", linewidth=1 if "(" in name else 2)  # public or ours
    axes.set(xlabel="objects", ylabel="ms per frame", xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path, dpi=110)


def _save(figure: Figure, path: str | Path, dpi: float | None = None) -> None:
    """Write a PNG, or leave the old one."""
    with atomic_write(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi or "figure")


def _metric_group(column: str) -> str:
    """What a column measures: `iou` of `val/kalman_iou_1s`."""
    return column.split("/")[-1].replace("kalman_", "").split("_")[0]


def _draw_boxes(axes: Axes, detections: Detections, colour: str) -> None:
    for x1, y1, x2, y2 in detections.boxes.tolist():
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour))
