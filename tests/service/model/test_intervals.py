"""Intervals of rates against what scipy 1.16 computes, and their coverage by simulation."""

import numpy as np
import pytest

from hourglass.service.model.intervals import interval_of, kolmogorov


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),  # of scipy.stats.beta.ppf
    [
        (0, 1, 0.0, 0.975),
        (1, 1, 0.025, 1.0),
        (0, 30, 0.0, 0.11570330822202778),
        (30, 30, 0.8842966917779722, 1.0),
        (1, 400, 6.32925169048572e-05, 0.013849769962013272),
        (50, 100, 0.39832112950330095, 0.601678870496699),
        (999, 1000, 0.9944410757201734, 0.9999746825125088),
        (7, 10**6, 2.81436753430222e-06, 1.4422621834331028e-05),
        (10**7, 10**9, 0.009993834035566898, 0.010006168801159336),
    ],
)
def test_the_interval_is_that_of_clopper_and_pearson(
    hits: int, rows: int, low: float, high: float
) -> None:
    assert interval_of(hits, rows) == pytest.approx((low, high), rel=1e-6)


def test_without_rows_nothing_is_known() -> None:
    assert interval_of(0, 0) == (0.0, 1.0)


def test_of_no_hits_in_n_rows_the_upper_end_has_a_closed_form() -> None:
    assert interval_of(0, 300)[1] == pytest.approx(1 - 0.025 ** (1 / 300), rel=1e-12)


def test_the_interval_covers_the_rate_in_at_least_95_of_100_draws() -> None:
    draw, rate = np.random.default_rng(0), 0.03
    hits, times = np.unique(draw.binomial(200, rate, 4000), return_counts=True)
    covered = [low <= rate <= high for low, high in (interval_of(int(hit), 200) for hit in hits)]
    assert 0.95 <= np.average(covered, weights=times) <= 0.99


@pytest.mark.parametrize(
    ("reach", "probability"),  # of scipy.stats.kstwobign.sf
    [(0.1, 1.0), (0.3, 0.9999906942), (0.8276, 0.4999584164), (2.0, 0.0006709252558)],
)
def test_the_distance_of_many_rows_follows_kolmogorovs_law(
    reach: float, probability: float
) -> None:
    rows = 1e10
    assert kolmogorov(reach / rows**0.5, rows) == pytest.approx(probability, abs=1e-5)


def test_on_one_side_it_is_smirnovs_exponential() -> None:
    assert kolmogorov(0.1, 100, one_sided=True) == pytest.approx(np.exp(-2))
