"""Calibration: do predicted intervals and probabilities match observed frequencies?"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from torch import Tensor


def interval_level(position: Tensor, sigma: Tensor, truth: Tensor) -> Tensor:
    """(N, 4) the level, 0 to 1, of the central interval of a predicted Laplace distribution that reaches the truth.

    position, sigma (standard deviation), truth: (N, 4) in the same units. Calibrated predictions make the level
    uniform: the 80 % interval contains the truth, that is `interval_level <= 0.8`, 80 % of the time.
    """
    return 1 - torch.exp(-(2**0.5) * (truth - position).abs() / sigma.clamp(min=1e-6))


def coverage(levels: Tensor, confidences: Tensor) -> pd.DataFrame:
    """How often intervals of the given confidences, 0 to 1, contain the truth: one row per confidence.

    levels: of `interval_level`, any shape. Columns: confidence, observed (frequency) and count (of all levels).
    """
    observed = [(levels <= confidence).float().mean().item() for confidence in confidences]
    return pd.DataFrame({"confidence": confidences.tolist(), "observed": observed, "count": levels.numel()})


def reliability(confidence: Tensor, observed: Tensor, bins: int = 10) -> pd.DataFrame:
    """The reliability diagram's table: one row per bin of probabilities that is not empty.

    confidence: (N,) predicted probabilities of events. observed: (N,) bool, whether each occurred. Columns: confidence
    and observed (means within the bin) and count.
    DeGroot and Fienberg, "The Comparison and Evaluation of Forecasters" (The Statistician, 1983).
    """
    bin_numbers = (confidence * bins).long().clamp(max=bins - 1)
    table = pd.DataFrame(
        {"bin": bin_numbers.tolist(), "confidence": confidence.tolist(), "observed": observed.float().tolist()}
    )
    means = table.groupby("bin")[["confidence", "observed"]].mean()
    return means.assign(count=table.groupby("bin").size()).reset_index(drop=True)


def calibration_error(table: pd.DataFrame) -> float:
    """The expected calibration error: the mean of |confidence - observed|, weighted by count."""
    return float(((table["confidence"] - table["observed"]).abs() * table["count"]).sum() / table["count"].sum())


def fit_platt(scores: Tensor, correct: Tensor) -> tuple[float, float]:
    """Slope (above 0) and offset of the scores' log-odds that make a score the probability of being correct.

    scores: (N,) in 0 to 1. correct: (N,) bool. With little data it stays near (1, 0), the identity.
    Platt, "Probabilistic outputs for support vector machines" (1999).
    """
    log_odds = scores.double().logit(1e-6).numpy()
    observed = correct.double().numpy()

    def loss(parameters: np.ndarray) -> float:
        logits = np.exp(parameters[0]) * log_odds + parameters[1]
        return float((np.logaddexp(0, logits) - observed * logits).sum() + 0.5 * (parameters**2).sum())

    slope, offset = minimize(loss, np.zeros(2), method="Nelder-Mead").x
    return float(np.exp(slope)), float(offset)


def calibrated(scores: Tensor, slope: float, offset: float) -> Tensor:
    """Scores as probabilities, by the slope and offset of `fit_platt`."""
    return torch.sigmoid(slope * scores.logit(1e-6) + offset)
