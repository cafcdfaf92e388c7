"""Whether what is confidence happens: how often boxes fall into their predicted regions, and pairs are what they seem."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from torch import Tensor


def interval_level(position: Tensor, sigma: Tensor, truth: Tensor) -> Tensor:
    """(N, 4) how much of a predicted Laplace distribution lies nearer to its centre than the truth did, 0 to 1.

    Calibrated predictions make it uniform: the 80 % region holds the truth 80 % of the time where `region <= 0.8` does.
    position, sigma, truth: (N, 4) in the same units.
    """
    return 1 - torch.exp(-(2**0.5) * (truth - position).abs() / sigma.clamp(min=1e-6))


def coverage(regions: Tensor, levels: Tensor) -> pd.DataFrame:
    """Columns confidence, observed and count, a row a level: how many of the truths lie in the region of that level."""
    observed = [(regions <= level).float().mean().item() for level in levels]
    return pd.DataFrame({"confidence": levels.tolist(), "observed": observed, "count": regions.numel()})


def reliability(confidence: Tensor, observed: Tensor, bins: int = 10) -> pd.DataFrame:
    """Columns confidence, observed and count, a row a bin of probabilities (N,) of events that observed (N,) bool or not.

    The diagram of DeGroot and Fienberg, "The Comparison and Evaluation of Forecasters" (The Statistician, 1983).
    """
    which = (confidence * bins).long().clamp(max=bins - 1)
    table = pd.DataFrame(
        {"bin": which.tolist(), "confidence": confidence.tolist(), "observed": observed.float().tolist()}
    )
    means = table.groupby("bin")[["confidence", "observed"]].mean()
    return means.assign(count=table.groupby("bin").size()).reset_index(drop=True)


def calibration_error(table: pd.DataFrame) -> float:
    """Mean distance between confidence and observed, weighted by count: the expected calibration error."""
    return float(((table["confidence"] - table["observed"]).abs() * table["count"]).sum() / table["count"].sum())


def fit_platt(scores: Tensor, right: Tensor) -> tuple[float, float]:
    """Slope (above 0) and offset of a score's log-odds that make it the probability of being right.

    scores: (N,) in 0 to 1. right: (N,) bool. Nearly (1, 0), no change, where there is next to nothing to fit.
    Platt, "Probabilistic outputs for support vector machines" (1999).
    """
    odds, observed = scores.double().logit(1e-6).numpy(), right.double().numpy()

    def loss(parameters: np.ndarray) -> float:
        confidence = np.exp(parameters[0]) * odds + parameters[1]
        return float((np.logaddexp(0, confidence) - observed * confidence).sum() + 0.5 * (parameters**2).sum())

    slope, offset = minimize(loss, np.zeros(2), method="Nelder-Mead").x
    return float(np.exp(slope)), float(offset)


def calibrated(scores: Tensor, slope: float, offset: float) -> Tensor:
    """Scores as probabilities, by the figures of `fit_platt`."""
    return torch.sigmoid(slope * scores.logit(1e-6) + offset)
