"""Calibration on samples whose frequencies are known."""

import pytest
import torch
from torch.distributions import Laplace

from track.evaluation.calibration import calibrated, calibration_error, coverage, fit_platt, interval_level, reliability

CONFIDENCES = torch.tensor([0.5, 0.8, 0.95])


@pytest.mark.parametrize(("relative_sigma", "observed"), [(1.0, [0.5, 0.8, 0.95]), (0.5, [0.293, 0.553, 0.776])])
def test_intervals_contain_the_truth_as_often_as_predicted_if_sigma_is_correct(
    relative_sigma: float, observed: list[float]
) -> None:
    torch.manual_seed(0)
    truth = Laplace(torch.zeros(20_000, 4), 3.0).sample()
    levels = interval_level(torch.zeros(1, 4), torch.full((1, 4), relative_sigma * 3 * 2**0.5), truth)
    table = coverage(levels, CONFIDENCES)
    assert table["confidence"].tolist() == pytest.approx([0.5, 0.8, 0.95])
    assert table["observed"].tolist() == pytest.approx(observed, abs=0.01)  # 1 - (1 - confidence) ** relative_sigma


def test_calibrated_probabilities_lie_on_the_diagonal() -> None:
    torch.manual_seed(0)
    confidence = torch.rand(50_000)
    table = reliability(confidence, torch.rand(50_000) < confidence)
    assert len(table) == 10
    assert calibration_error(table) < 0.01
    assert calibration_error(reliability(confidence, torch.rand(50_000) < confidence**2)) == pytest.approx(
        1 / 6, abs=0.01
    )


def test_bins_of_a_reliability_diagram_are_those_computed_by_hand() -> None:
    table = reliability(torch.tensor([0.11, 0.15, 0.9]), torch.tensor([True, False, True]))
    assert table["confidence"].tolist() == pytest.approx([0.13, 0.9])
    assert table["observed"].tolist() == [0.5, 1.0]
    assert table["count"].tolist() == [2, 1]


def test_platt_scaling_calibrates_overconfident_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(20_000, generator=generator).clamp(0.02, 0.98)
    correct = torch.rand(20_000, generator=generator) < truth
    confidence = torch.sigmoid(2.0 * truth.logit() + 1.0)
    slope, offset = fit_platt(confidence, correct)
    assert (slope, offset) == pytest.approx((0.5, -0.5), abs=0.03)
    torch.testing.assert_close(calibrated(confidence, slope, offset), truth, atol=0.02, rtol=0)


def test_platt_scaling_of_no_scores_changes_nothing() -> None:
    assert fit_platt(torch.empty(0), torch.empty(0, dtype=torch.bool)) == pytest.approx((1, 0), abs=1e-3)
