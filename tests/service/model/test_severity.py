"""Severity: what it says of scores whose law is known, and that it never loses an order."""

import numpy as np
import pytest

from hourglass.service.model.calibration import Table, build_table
from hourglass.service.model.severity import CAP, GROWTH, LARGEST, fit_tail

LAWS = {
    "exponential": lambda random, n: random.exponential(size=n),
    "pareto": lambda random, n: random.pareto(3, size=n) + 1,
    "gamma": lambda random, n: random.gamma(3, size=n),
    "tied": lambda random, n: random.integers(1, 2 + n // 3, size=n),
    "one value": lambda random, n: np.full(n, 0.7),
    "one far out": lambda random, n: np.append(random.uniform(1, 1.1, size=n - 1), 1e6),
    "tiny": lambda random, n: random.exponential(size=n) * 1e-6 + 1e-6,
    "huge": lambda random, n: random.pareto(0.5, size=n) * 1e20 + 1e15,
}


def table_of(law: str, n: int, seed: int = 0) -> Table:
    return build_table(LAWS[law](np.random.default_rng(seed), n).astype(np.float32))


def neighbours(table: Table) -> np.ndarray:
    """Ascending runs of neighbouring float32 numbers at every end of a step, and a sweep over all
    orders of magnitude.
    """
    ends = np.concatenate([table.scores, table.severity.ends[:-1]]).view(np.uint32).astype(np.int64)
    runs = (ends[:, None] + np.arange(-20, 21)).ravel()
    runs = runs[(runs >= 0) & (runs < 0x7F800000)].astype(np.uint32).view(np.float32)
    sweep = np.geomspace(1e-9, 1e38, 50_000).astype(np.float32)
    within = np.linspace(0, float(table.largest), 50_000).astype(np.float32)
    limits = np.array([-np.inf, 0, LARGEST, np.inf], np.float32)
    return np.unique(np.concatenate([runs, sweep, within, limits]))


@pytest.mark.parametrize("n", [1, 2, 5, 20, 59, 100, 1000, 5000])
@pytest.mark.parametrize("law", LAWS)
def test_a_higher_score_is_never_less_severe_down_to_the_last_bit(law, n):
    table = table_of(law, n)
    severity_N = table.severities(neighbours(table))
    assert (np.diff(severity_N) >= 0).all()
    assert severity_N[0] == 0
    assert np.isfinite(severity_N).all()


@pytest.mark.parametrize("n", [20, 100, 1000, 5000])
@pytest.mark.parametrize("law", ["exponential", "pareto", "gamma", "tiny"])
def test_no_ranking_is_lost_at_any_distance(law, n):
    table = table_of(law, n)
    score_N = np.geomspace(float(table.scores[0]) / 10, 1e37, 20_000).astype(np.float32)
    assert (np.diff(table.severities(score_N)) > 0).all()


@pytest.mark.parametrize("n", [20, 59, 100, 1000, 5000])
@pytest.mark.parametrize("law", LAWS)
def test_it_is_close_to_the_p_value_over_the_calibration_scores(law, n):
    """At most as far from it as the tail may be from the largest of the scores."""
    table = table_of(law, n)
    score_N = np.linspace(0, float(table.largest), 1000).astype(np.float32)
    off_N = table.severities(score_N) + np.log10(table.p_value(score_N))
    body_N = table.p_value(score_N) > 2 * 2 / np.sqrt(n)
    assert (np.abs(off_N[body_N]) <= np.log10(2) + 0.01).all()
    if law in ("exponential", "pareto", "gamma"):
        assert np.abs(off_N).max() < 1.2


@pytest.mark.parametrize(
    ("law", "exact"),
    [
        ("exponential", lambda score_N: score_N * np.log10(np.e)),
        ("pareto", lambda score_N: 3 * np.log10(score_N)),
    ],
)
def test_of_a_law_in_closed_form_it_is_the_order_of_its_probability(law, exact):
    """On average over draws of n = 1000: at 1/100, at 1/n and half an order beyond."""
    orders = np.array([2, 3, 3.5])
    quantile = orders * np.log(10) if law == "exponential" else 10 ** (orders / 3)
    np.testing.assert_allclose(exact(quantile), orders)
    found = [
        table_of(law, 1000, seed).severities(quantile.astype(np.float32)) for seed in range(200)
    ]
    np.testing.assert_allclose(np.mean(found, axis=0), orders, atol=0.15)
    assert np.std(found, axis=0)[1] < 0.45  # of log10 Beta(1, n), the largest score's, it is .56


def test_the_fitted_laws_are_those_of_scores_that_follow_them():
    pareto = np.sort(LAWS["pareto"](np.random.default_rng(1), 100_000))
    tail = fit_tail(pareto)
    # a Pareto of index 3 has the shape 1/3 and the scale start/3; 511 scores tell them
    assert tail.shape == pytest.approx(1 / 3, abs=0.12)
    assert tail.scale == pytest.approx(tail.start / 3, rel=0.15)
    exponential = fit_tail(np.sort(LAWS["exponential"](np.random.default_rng(2), 100_000)))
    assert exponential.scale / (1 - exponential.shape) == pytest.approx(1, rel=0.15)
    assert exponential.shape < 0.15


@pytest.mark.parametrize("n", [100, 1000])
def test_fresh_normal_rows_are_as_rarely_severe_as_it_says(n):
    random = np.random.default_rng(7)
    shares = []
    for _ in range(60):
        table = build_table(random.gamma(2, size=n).astype(np.float32))
        severity_N = table.severities(random.gamma(2, size=20_000).astype(np.float32))
        shares.append([(severity_N >= order).mean() for order in (0.3, 1, np.log10(n + 1))])
    at_half, at_tenth, at_smallest = np.transpose(shares)
    assert at_half.mean() == pytest.approx(10**-0.3, rel=0.05)
    assert at_tenth.mean() == pytest.approx(0.1, rel=0.1)
    assert np.mean((at_smallest * n > 1 / 3) & (at_smallest * n < 3)) >= 0.75


def test_beyond_the_cap_it_grows_by_a_tenth_of_each_order_of_magnitude():
    table = table_of("exponential", 1000)
    cap = np.log10(1001) + CAP
    far, farther = table.severities(np.array([1e6, 1e9], np.float32))
    assert cap < far < cap + 6 * GROWTH
    assert farther - far == pytest.approx(3 * GROWTH, abs=0.02)


@pytest.mark.parametrize("n", [20, 100, 1000])
def test_of_tied_scores_none_is_severe_and_what_is_above_all_is_as_its_p_value(n):
    table = table_of("one value", n)
    score = np.float32(0.7)
    score_N = np.array([score, np.nextafter(score, np.float32(1)), 0.9], np.float32)
    at, beside, above = table.severities(score_N)
    assert at == pytest.approx(np.log10((n + 1) / n), rel=1e-5)
    assert beside == pytest.approx(np.log10(n + 1), rel=1e-5)
    assert beside < above < beside + 0.02
    assert table.is_extrapolated(score_N).tolist() == [False, True, True]


def test_what_is_extrapolated_is_what_has_the_smallest_p_value():
    table = table_of("gamma", 300)
    score_N = neighbours(table)
    smallest_N = table.p_value(score_N) < 1.5 / 301
    np.testing.assert_array_equal(table.is_extrapolated(score_N), smallest_N)


def test_a_table_without_severity_has_that_of_its_p_values():
    table = table_of("gamma", 300)
    plain = Table(table.n, table.scores, table.p_values)
    score_N = np.append(neighbours(table), np.float32(np.nan))
    severity_N = plain.severities(score_N)
    np.testing.assert_allclose(severity_N, -np.log10(table.p_value(score_N)), rtol=1e-6)
    assert np.isnan(severity_N[-1])


def test_rounded_to_float32_no_step_ends_above_where_the_next_begins():
    scores = [0.35230494, 0.59294295, 0.62097156, 0.6308994, 0.65414405, 0.94564104, 0.950606]
    _, _, base, rise = build_table(np.array(scores, np.float32)).severity.lines.T
    assert base.dtype == rise.dtype == np.float32
    assert (base[1:] >= (base + rise)[:-1]).all()
