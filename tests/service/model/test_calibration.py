"""P-values and the (alpha, delta) rule: the numbers that the product promises."""

import math
import time

import numpy as np
import pytest

from hourglass.service.errors import UncertifiableAlpha
from hourglass.service.model.calibration import (
    Table,
    build_table,
    certified_rank,
    marginal_rank,
    nearest_alpha,
    rows_to_certify,
)


def binomial_tail(n: int, alpha: float, most: int) -> float:
    """P(Bin(n, alpha) <= most), term by term."""
    ways = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(most + 1)
    )
    return sum(
        math.exp(way + k * math.log(alpha) + (n - k) * math.log1p(-alpha))
        for k, way in enumerate(ways)
    )


@pytest.mark.parametrize("alpha", [1e-9, 1e-4, 0.05, 0.5])
@pytest.mark.parametrize("delta", [1e-9, 0.05, 0.5])
def test_the_certified_rank_of_a_thousand_million_rows_takes_no_time(alpha, delta):
    started = time.process_time()
    rank = certified_rank(10**9, alpha, delta)
    assert time.process_time() - started < 1
    mean, sd = 1e9 * alpha, math.sqrt(1e9 * alpha)
    assert mean - 7 * sd - 7 <= rank <= mean + 7 * sd + 1


@pytest.mark.parametrize("n", [59, 400, 3000, 20_000])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("delta", [1e-6, 0.05])
def test_the_certified_rank_is_the_sum_over_all_ranks(n, alpha, delta):
    """As it was computed before the lower ranks, which add nothing, were left out."""
    ranks = np.arange(n + 1)
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in ranks]
    terms = np.exp(np.array(logs) + ranks * math.log(alpha) + (n - ranks) * math.log1p(-alpha))
    assert certified_rank(n, alpha, delta) == int((np.cumsum(terms) <= delta).sum())


@pytest.mark.parametrize(("alpha", "rows"), [(0.05, 59), (0.01, 299), (0.001, 2995)])
def test_the_fewest_rows_that_certify_an_alpha_are_those_of_the_binomial(alpha, rows):
    assert rows_to_certify(alpha, 0.05) == rows
    assert certified_rank(rows, alpha, 0.05) == 1
    assert certified_rank(rows - 1, alpha, 0.05) == 0
    assert nearest_alpha(rows, 0.05) <= alpha < nearest_alpha(rows - 1, 0.05)


@pytest.mark.parametrize("n", [59, 150, 400, 1000, 5000])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_the_certified_rank_is_the_largest_that_the_binomial_allows(n, alpha):
    rank = certified_rank(n, alpha, 0.05)
    if rank:
        assert binomial_tail(n, alpha, rank - 1) <= 0.05
    assert binomial_tail(n, alpha, rank) > 0.05
    assert rank <= marginal_rank(n, alpha)


@pytest.mark.parametrize("n", [300, 1000, 4000])  # 4000: the table is compressed
@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_in_simulation_the_false_alarm_rate_exceeds_alpha_in_at_most_delta_of_the_draws(n, alpha):
    draws, delta = 200, 0.05
    random = np.random.default_rng([n, int(alpha * 100)])
    thresholds = [
        build_table(random.exponential(size=n).astype(np.float32)).threshold(alpha, delta).score
        for _ in range(draws)
    ]
    # of an exponential score the rate above a threshold is known exactly
    rates = np.exp(-np.array(thresholds))
    sampling_error = 3 * np.sqrt(delta * (1 - delta) / draws)
    assert np.mean(rates > alpha) <= delta + sampling_error
    assert rates.mean() > 0.1 * alpha  # not by never alarming


def test_in_simulation_the_marginal_rule_holds_on_average():
    random = np.random.default_rng(0)
    thresholds = [
        build_table(random.exponential(size=1000).astype(np.float32))
        .threshold(0.01, 0.05, certified=False)
        .score
        for _ in range(400)
    ]
    rates = np.exp(-np.array(thresholds))
    assert rates.mean() == pytest.approx(0.01, rel=0.05)
    assert 0.3 < np.mean(rates > 0.01) < 0.6  # which is why it is not the default


@pytest.mark.parametrize("n", [200, 1024, 20_000])
def test_p_values_of_held_out_rows_are_uniform(n):
    random = np.random.default_rng(n)
    distances = []
    for _ in range(20):
        table = build_table(random.gamma(2, size=n).astype(np.float32))
        p_values = np.sort(table.p_value(random.gamma(2, size=2000).astype(np.float32)))
        distances.append(np.abs(p_values - np.arange(1, 2001) / 2000).max())
    # Kolmogorov-Smirnov: both samples are finite, so the distance of n and 2000 draws
    assert np.median(distances) < 1.36 * np.sqrt(1 / n + 1 / 2000)


def exact_p_values(calibration, scores):
    return np.array(
        [(1 + (calibration >= score).sum()) / (len(calibration) + 1) for score in scores]
    )


@pytest.mark.parametrize("n", [1, 2, 100, 1024])
def test_a_table_of_few_rows_is_exact_also_at_ties(n):
    random = np.random.default_rng(n)
    calibration = random.integers(0, 50, n).astype(np.float32)
    scores = np.concatenate([calibration, calibration + 0.5, [-1, 1e9]]).astype(np.float32)
    np.testing.assert_allclose(
        build_table(calibration).p_value(scores), exact_p_values(calibration, scores), rtol=1e-6
    )


@pytest.mark.parametrize("n", [1025, 5000, 100_000])
def test_a_compressed_table_never_lowers_a_p_value_is_exact_in_the_tail_and_raises_the_body_by_at_most_1_5_percent(
    n,
):
    random = np.random.default_rng(n)
    calibration = random.exponential(size=n).astype(np.float32)
    scores = np.concatenate([random.exponential(size=2000), np.linspace(0, 20, 500)]).astype(
        np.float32
    )
    table, exact = build_table(calibration), exact_p_values(calibration, scores)
    assert len(table.scores) <= 1024
    ratio = table.p_value(scores) / exact
    assert ratio.min() >= 1 - 1e-6
    assert ratio.max() <= 1.015 + 1 / 512
    assert np.quantile(ratio, 0.99) <= 1.015
    tail = exact <= 512 / (n + 1)
    np.testing.assert_allclose(ratio[tail], 1, rtol=1e-5)


def test_an_alarm_is_exactly_a_p_value_of_at_most_the_rank():
    random = np.random.default_rng(3)
    table = build_table(random.exponential(size=3000).astype(np.float32))
    scores = random.exponential(2, size=5000).astype(np.float32)
    for alpha in (0.001, 0.01, 0.1, 0.5):
        threshold = table.threshold(alpha, 0.05)
        assert threshold.expected_false_alarm_rate == threshold.rank / 3001
        alarms = table.p_value(scores) <= np.float32(
            threshold.expected_false_alarm_rate * (1 + 1e-6)
        )
        np.testing.assert_array_equal(scores > threshold.score, alarms)


def test_no_score_has_no_p_value():
    assert np.isnan(
        build_table(np.ones(3, np.float32)).p_value(np.array([np.nan], np.float32))
    ).all()


@pytest.mark.parametrize("scores", [[], [1.0, np.nan], [np.inf]])
def test_a_table_needs_finite_scores(scores):
    with pytest.raises(ValueError, match="at least one row, and finite scores"):
        build_table(np.array(scores, np.float32))


def test_what_cannot_be_had_says_what_it_would_take_and_what_works():
    table = build_table(np.arange(100, dtype=np.float32))
    with pytest.raises(UncertifiableAlpha) as certified:
        table.threshold(0.01, 0.05)
    assert (
        str(certified.value)
        == "alpha = 0.01 cannot be certified at delta = 0.05 with 100 calibration rows: it needs at"
        " least 299; the nearest alpha that can be certified is 0.0296"
    )
    table.threshold(0.0296, 0.05)
    with pytest.raises(
        UncertifiableAlpha,
        match=r"without a guarantee it needs at least 999; the smallest alpha .* is 0.01",
    ):
        table.threshold(0.001, 0.05, certified=False)


def test_the_table_is_looked_up_as_its_definition_says_and_only_nan_has_no_p_value():
    table = build_table(np.random.default_rng(0).exponential(size=300).astype(np.float32))
    scores = np.concatenate(
        [table.scores, np.nextafter(table.scores, np.float32(9)), np.float32([-1, 0, 99, np.inf])]
    )
    interval = (table.scores[None, :] < scores[:, None]).sum(axis=1)
    np.testing.assert_array_equal(table.p_value(scores), table.p_values[interval])
    assert table.p_value(np.float32([np.inf]))[0] == table.p_values[-1]
    assert np.isnan(table.p_value(np.float32([np.nan]))).all()
    assert table.p_value(scores).dtype == np.float32


def tables() -> list[Table]:
    draw = np.random.default_rng(3)
    close = np.float32(2) + np.arange(700, dtype=np.float32) * np.spacing(np.float32(2))
    far = np.geomspace(1e-44, 3e38, 900).astype(np.float32)  # from the smallest to the largest
    return [
        build_table(scores_N.astype(np.float32))
        for scores_N in (
            draw.chisquare(20, 5000),
            close,
            far,
            np.unique(np.append(close, far)),
            np.ones(1),
            np.arange(9),
            far[:2],
        )
    ]


@pytest.mark.parametrize("number", range(len(tables())))
def test_p_values_of_many_are_those_of_each(number):
    table = tables()[number]
    far = np.float32(np.inf)
    beside = [table.scores, np.nextafter(table.scores, far), np.nextafter(table.scores, -far)]
    limits = np.array([0, -0.0, -1, 1e-45, 3.4e38], np.float32)
    drawn = np.random.default_rng(4).permutation(
        np.tile(np.concatenate([*beside, limits]), 600)[: 4 * len(table.scores) + 3000]
    )
    with np.errstate(over="ignore"):
        for scores_N in (
            drawn,
            np.minimum(np.abs(drawn), 1e15),
            np.clip(drawn, -1e15, 1e15),
            np.append(drawn, [np.nan, np.inf, -np.inf]).astype(np.float32),
        ):
            one_by_one = np.concatenate(
                [table.p_value(scores_N[n : n + 1]) for n in range(len(scores_N))]
            )
            np.testing.assert_array_equal(table.p_value(scores_N), one_by_one)


def test_of_blocks_a_p_value_is_that_of_the_block_where_the_score_is_least_rare():
    rng = np.random.default_rng(0)
    score_N = rng.gamma(2.0, size=600).astype(np.float32)
    block_N = np.repeat([0, 1, 2], 200)
    score_N[block_N == 1] *= 2
    table = build_table(score_N, block_N=block_N)
    probe_N = rng.gamma(3.0, size=100).astype(np.float32)
    own = [
        (1 + (score_N[block_N == block][None] >= probe_N[:, None]).sum(axis=1)) / 201
        for block in range(3)
    ]
    assert table.p_value(probe_N) == pytest.approx(np.max(own, axis=0), rel=1e-6)


@pytest.mark.parametrize("alpha", [0.02, 0.05, 0.1, 0.2])
def test_a_threshold_of_blocks_holds_in_every_one_of_them(alpha):
    rng = np.random.default_rng(0)
    score_N = rng.gamma(2.0, size=1000).astype(np.float32)
    block_N = np.repeat(np.arange(5), 200)
    score_N *= (1 + block_N / 4).astype(np.float32)
    threshold = build_table(score_N, block_N=block_N).threshold(alpha, 0.05, certified=False)
    rates = [(score_N[block_N == block] > threshold.score).mean() for block in range(5)]
    assert max(rates) <= alpha
    assert max(rates) >= alpha - 2 / 200  # and nothing is given away in the worst


def test_a_budget_that_the_smallest_block_cannot_tell_of_is_refused_with_its_rows():
    score_N = np.random.default_rng(0).gamma(2.0, size=500).astype(np.float32)
    table = build_table(score_N, block_N=np.repeat([0, 1], [460, 40]))
    with pytest.raises(UncertifiableAlpha, match="the smallest held-out block has 40 rows"):
        table.threshold(0.02, 0.05, certified=False)
    assert table.threshold(0.05, 0.05, certified=False).alpha == 0.05


def test_severity_of_blocks_rises_with_the_score_and_is_that_of_the_p_value():
    rng = np.random.default_rng(0)
    block_N = np.repeat(np.arange(4), 110)
    score_N = (rng.gamma(2.0, size=440) * (1 + block_N / 4)).astype(np.float32)
    table = build_table(score_N, block_N=block_N)
    p_N, severity_N = table.look_up(np.sort(score_N))
    assert (np.diff(severity_N) >= 0).all()
    body = p_N > 0.3  # the tail beyond is fitted
    assert severity_N[body] == pytest.approx(-np.log10(p_N[body]), abs=0.02)
    assert table.severities(np.array([2, 4], np.float32) * table.largest)[0] > -np.log10(1 / 111)
