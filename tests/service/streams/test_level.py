"""The adaptive level: its arithmetic, its bound, and alarm rates near alpha on rows that drift."""

import math

import numpy as np
import pytest

from hourglass.service.streams.level import GAMMA, adapt


def alarms_of(p_values: np.ndarray, alpha: float) -> np.ndarray:
    level, alarms = alpha, []
    for p_value in p_values.tolist():
        alarms.append(p_value <= level)
        level = adapt(level, p_value, alpha)
    return np.array(alarms)


def p_values_of(scores: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    above = len(calibration) - np.searchsorted(np.sort(calibration), scores, side="left")
    return (1 + above) / (len(calibration) + 1)


def autoregressive(generator: np.random.Generator, rows: int, coefficient: float) -> np.ndarray:
    noise, values = generator.normal(size=rows), np.empty(rows)
    values[0] = noise[0]
    for row in range(1, rows):
        values[row] = coefficient * values[row - 1] + noise[row] * math.sqrt(1 - coefficient**2)
    return values


def test_an_alarm_lowers_the_level_and_an_ordinary_row_raises_it() -> None:
    assert adapt(0.05, 0.05, 0.05) == pytest.approx(0.05 + GAMMA * (0.05 - 1))
    assert adapt(0.05, 0.051, 0.05) == pytest.approx(0.05 + GAMMA * 0.05)
    assert adapt(-0.004, 0.001, 0.05) == pytest.approx(-0.004 + GAMMA * 0.05)


def test_a_row_that_could_not_be_judged_leaves_the_level_as_it_is() -> None:
    assert adapt(0.03, math.nan, 0.05) == 0.03


@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05, 0.6])
def test_the_level_stays_within_its_bounds_whatever_comes(alpha: float) -> None:
    level = alpha
    for p_value in [1.0] * 100_000 + [0.0] * 1000:
        level = adapt(level, p_value, alpha)
        assert -GAMMA <= level <= max(min(10 * alpha, 0.5), alpha) + 1e-12


def test_a_smallest_p_value_above_alpha_alarms_as_often_as_alpha() -> None:
    """With 199 calibration rows no p-value is below .005, five times alpha."""
    calibration = np.arange(199.0)
    scores = np.random.default_rng(0).uniform(-1, 199, size=400_000)
    rate = alarms_of(p_values_of(scores, calibration), 0.001).mean()
    assert rate == pytest.approx(0.001, rel=0.1)


@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_the_median_alarm_rate_is_near_alpha_on_rows_that_depend_on_each_other(
    alpha: float,
) -> None:
    rates, plain = [], []
    for seed in range(24):
        generator = np.random.default_rng(seed)
        coefficient = generator.uniform(0.5, 0.98)
        scores = np.abs(autoregressive(generator, 5000, coefficient))
        p_values = p_values_of(scores[1000:], scores[:1000])
        rates.append(alarms_of(p_values, alpha).mean())
        plain.append((p_values <= alpha).mean())
    assert np.median(rates) == pytest.approx(alpha, rel=0.15)
    assert max(rates) <= 2 * alpha
    assert max(plain) > max(rates)  # what adapting is for


@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_the_alarm_rate_is_near_alpha_where_scores_drift_upwards(alpha: float) -> None:
    rates = []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        scores = generator.exponential(size=6000)
        scores[1000:] *= np.linspace(1, 3, 5000)
        p_values = p_values_of(scores[1000:], scores[:1000])
        assert (p_values <= alpha).mean() > 3 * alpha  # today's rule
        rates.append(alarms_of(p_values, alpha).mean())
    assert np.median(rates) == pytest.approx(alpha, rel=0.15)
    assert max(rates) <= 2 * alpha
