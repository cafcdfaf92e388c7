"""Pictures for reports: who was followed by whom, training curves, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from track.display.draw import colour_of
from track.evaluation.tracking import MATCH_IOU, ScoredFrame
from track.structures import Detections
from track.tracking.association import assign


def plot_identities(path: str | Path, frames: Sequence[ScoredFrame]) -> None:
    """Write a PNG with a bar for each true identity over time, in the colour of the track that follows it.

    One colour is a perfect track, a change of colour a switch, black a frame without a track; white, nobody there.
    """
    identities = sorted({int(k) for frame in frames for k in frame.truth})
    bars = np.ones((max(1, len(identities)), len(frames), 3), np.float32)
    for f, frame in enumerate(frames):
        rows = np.searchsorted(identities, frame.truth)
        bars[rows, f] = 0
        i, j = (index.numpy() for index in assign(torch.from_numpy(frame.iou), MATCH_IOU))
        for row, track in zip(rows[i], frame.predictions[j].tolist(), strict=True):
            bars[row, f] = np.array(colour_of(track)) / 255
    figure = Figure(figsize=(10, 1 + 0.22 * len(bars)), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.imshow(bars, aspect="auto", interpolation="nearest", extent=(0.5, len(frames) + 0.5, len(bars), 0))
    axes.hlines(range(1, len(bars)), 0.5, len(frames) + 0.5, color="white", linewidth=3)
    axes.set_yticks(np.arange(len(identities)) + 0.5, labels=[str(k) for k in identities], fontsize=7)
    axes.set(xlabel="frame", ylabel="true identity")
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


def plot_precision_recall(curves: Mapping[str, tuple[Tensor, Tensor]], path: str | Path) -> None:
    """Write a PNG of precision over recall, a line a pair of them as `track.evaluation.detection` gives it."""
    figure = Figure(figsize=(4.8, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, (recall, precision) in curves.items():
        axes.plot(recall, precision, label=name)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=110)


def plot_frames(frames: Mapping[str, tuple[Tensor, Detections, Detections]], path: str | Path) -> None:
    """Write a PNG of pictures (3, H, W) uint8 RGB under their titles, three in a row: truth in green, what was detected
    in red with its score."""
    rows = max(1, -(-len(frames) // 3))
    figure = Figure(figsize=(13, 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, 3, squeeze=False).flatten()
    for axes in panels:
        axes.axis("off")
    for axes, (title, (image, truth, found)) in zip(panels, frames.items(), strict=False):
        axes.imshow(image.permute(1, 2, 0).numpy())
        axes.set_title(title, fontsize=8)
        for boxes, colour in ((truth, "lime"), (found, "red")):
            for x1, y1, x2, y2 in boxes.boxes.tolist():
                axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour))
        for (x1, y1, *_), score in zip(found.boxes.tolist(), found.scores.tolist(), strict=True):
            axes.text(x1, y1, f"{score:.2f}", color="red", fontsize=6, verticalalignment="bottom")
    figure.savefig(path, dpi=110)


def plot_reliability(tables: Mapping[str, pd.DataFrame], path: str | Path) -> None:
    """Write a PNG of observed over confidence, a line a table of `track.evaluation.calibration`; the diagonal is perfect."""
    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
    for name, table in tables.items():
        axes.plot(table["confidence"], table["observed"], marker=".", label=name)
    axes.set(xlabel="confidence", ylabel="observed", xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
