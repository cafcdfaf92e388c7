"""Whether what is claimed happens: how often boxes fall into their predicted regions, and pairs are what they seem."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor


def region(position: Tensor, sigma: Tensor, truth: Tensor) -> Tensor:
    """(N, 4) how much of a predicted Laplace distribution lies nearer to its centre than the truth did, 0 to 1.

    Calibrated predictions make it uniform: the 80 % region holds the truth 80 % of the time where `region <= 0.8` does.
    position, sigma, truth: (N, 4) in the same units.
    """
    return 1 - torch.exp(-(2**0.5) * (truth - position).abs() / sigma.clamp(min=1e-6))


def coverage(regions: Tensor, levels: Tensor) -> pd.DataFrame:
    """Columns claimed, happened and count, a row a level: how many of the truths lie in the region of that level."""
    happened = [(regions <= level).float().mean().item() for level in levels]
    return pd.DataFrame({"claimed": levels.tolist(), "happened": happened, "count": regions.numel()})


def reliability(claimed: Tensor, happened: Tensor, bins: int = 10) -> pd.DataFrame:
    """Columns claimed, happened and count, a row a bin of probabilities (N,) of events that happened (N,) bool or not.

    The diagram of DeGroot and Fienberg, "The Comparison and Evaluation of Forecasters" (The Statistician, 1983).
    """
    which = (claimed * bins).long().clamp(max=bins - 1)
    table = pd.DataFrame({"bin": which.tolist(), "claimed": claimed.tolist(), "happened": happened.float().tolist()})
    means = table.groupby("bin")[["claimed", "happened"]].mean()
    return means.assign(count=table.groupby("bin").size()).reset_index(drop=True)


def calibration_error(table: pd.DataFrame) -> float:
    """Mean distance between claimed and happened, weighted by count: the expected calibration error."""
    return float(((table["claimed"] - table["happened"]).abs() * table["count"]).sum() / table["count"].sum())
