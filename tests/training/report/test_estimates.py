"""Figures and their intervals, held against closed forms, scikit-learn and simulation."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from hourglass.training.report.budgets import false_alarm_rate, precision
from hourglass.training.report.estimates import (
    Placements,
    auroc,
    auroc_difference,
    share,
)


def test_a_share_has_the_interval_of_clopper_and_pearson() -> None:
    assert share(0, 59).interval == pytest.approx((0.0, 1 - 0.025 ** (1 / 59)))
    assert share(59, 59).interval == pytest.approx((0.025 ** (1 / 59), 1.0))
    assert share(3, 10).interval == pytest.approx((0.06674, 0.65245), abs=1e-5)
    assert (share(0, 0).value, share(0, 0).interval, share(0, 0).n) == (None, None, 0)


def test_the_area_is_that_of_scikit_learn_also_with_ties() -> None:
    rng = np.random.default_rng(0)
    normal, anomalies = rng.integers(0, 5, 60).astype(float), rng.integers(2, 9, 40).astype(float)
    labels = np.repeat([0, 1], [60, 40])
    expected = roc_auc_score(labels, np.concatenate([normal, anomalies]))
    found = auroc(Placements.of(normal, anomalies))
    assert found.value == pytest.approx(expected)
    assert found.n == 100


def test_the_interval_of_the_area_holds_it_in_95_of_100_draws() -> None:
    rng, true, held = np.random.default_rng(1), norm.cdf(1 / np.sqrt(2)), 0
    for _ in range(400):
        found = auroc(Placements.of(rng.normal(size=80), rng.normal(1, 1, size=50)))
        assert found.interval
        held += found.interval[0] <= true <= found.interval[1]
    assert 0.92 <= held / 400 <= 0.98


def test_a_perfect_order_of_few_rows_is_not_called_certain() -> None:
    found = auroc(Placements.of(np.arange(100.0), np.arange(200.0, 205.0)))
    assert found.value == 1
    assert found.interval == pytest.approx((0.025 ** (1 / 5), 1.0))
    alone = auroc(Placements.of(np.arange(100.0), np.array([200.0])))
    assert (alone.value, alone.interval) == (None, None)


def test_of_two_scores_on_the_same_rows_the_better_one_is_told_apart() -> None:
    rng = np.random.default_rng(2)
    normal, anomalies = rng.normal(size=400), rng.normal(1.5, 1, size=200)
    better = Placements.of(normal, anomalies)
    worse = Placements.of(normal + rng.normal(size=400), anomalies + rng.normal(size=200))
    apart = auroc_difference(better, worse)
    assert apart.interval[0] > 0
    assert apart.value == pytest.approx(better.anomaly_A.mean() - worse.anomaly_A.mean(), abs=1e-12)
    none = auroc_difference(better, better)
    assert (none.value, none.interval) == (0.0, (0.0, 0.0))


def test_the_ceiling_on_precision_is_bayes_rule() -> None:
    assert precision(0.01, 1.0, 0.05) == pytest.approx(0.01 / (0.01 + 0.99 * 0.05))
    assert precision(0.001, 0.8, 0.01) == pytest.approx(0.0008 / (0.0008 + 0.999 * 0.01))
    assert precision(0.5, 0.0, 0.0) == 0.0


def test_the_rate_of_a_threshold_lies_in_its_interval_in_95_of_100_draws() -> None:
    n, rank = 200, 10
    found = false_alarm_rate(rank, n)
    assert found.value == 10 / 201
    assert found.interval
    rng = np.random.default_rng(3)
    # of uniform scores the rate above the rank-th largest is one minus that score
    rates = 1 - np.sort(rng.random((4000, n)), axis=1)[:, -rank]
    held = ((rates >= found.interval[0]) & (rates <= found.interval[1])).mean()
    assert held == pytest.approx(0.95, abs=0.012)
    assert rates.mean() == pytest.approx(10 / 201, rel=0.02)
