"""By simulation: rows that are exchangeable, and rows in time, drifting, and in groups."""

import numpy as np
import pytest
from numpy.typing import NDArray

from hourglass.service.model.artifact import Feature
from hourglass.training.exchangeability import (
    LEVEL,
    MOST_ROWS,
    Exchangeability,
    _stretches,
    autocorrelation_p_value,
    effective_rows,
    examine,
    groups_p_value,
)

Float32 = NDArray[np.float32]
WIDTH = 4
FEATURES = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(WIDTH))


def exchangeable(random: np.random.Generator, rows: int) -> Float32:
    return random.normal(size=(rows, WIDTH)).astype(np.float32)


def autoregressive(random: np.random.Generator, rows: int, memory: float = 0.9) -> Float32:
    noise_ND = random.normal(size=(rows, WIDTH))
    for row in range(1, rows):
        noise_ND[row] = memory * noise_ND[row - 1] + np.sqrt(1 - memory**2) * noise_ND[row]
    return noise_ND.astype(np.float32)


def drifting(random: np.random.Generator, rows: int) -> Float32:
    """By 3 sd over all rows, in every column."""
    return exchangeable(random, rows) + np.linspace(0, 3, rows, dtype=np.float32)[:, None]


def late(random: np.random.Generator, rows: int) -> Float32:
    """Another state begins with the last fifth."""
    rows_ND = exchangeable(random, rows)
    rows_ND[-rows // 5 :, 0] += 3
    return rows_ND


def of(
    rows_ND: Float32, seed: int = 0, group_N: NDArray[np.int64] | None = None
) -> Exchangeability:
    return examine(rows_ND, FEATURES, alpha=0.05, seed=seed, group_N=group_N)


def rejected(make, *, draws: int, rows: int) -> float:
    """The share of draws that any test rejects."""
    return float(
        np.mean(
            [
                not of(make(np.random.default_rng((draw, rows)), rows), draw).passed
                for draw in range(draws)
            ]
        )
    )


@pytest.mark.parametrize("rows", [60, 300])
def test_exchangeable_rows_are_called_something_else_in_one_run_of_a_hundred(rows: int) -> None:
    draws = 200
    # binomial: LEVEL and three of its standard errors
    assert rejected(exchangeable, draws=draws, rows=rows) <= LEVEL + 3 * np.sqrt(LEVEL / draws)


def test_the_autocorrelation_test_keeps_its_level_from_few_rows_on() -> None:
    random = np.random.default_rng(0)
    for rows in (20, 60, 500):
        p = np.array(
            [autocorrelation_p_value(random.permutation(rows) / rows) for _ in range(4000)]
        )
        for level in (0.05, 0.005):
            assert (p <= level).mean() <= level + 3 * np.sqrt(level / len(p))


@pytest.mark.parametrize("make", [autoregressive, drifting, late])
def test_rows_in_time_are_found_out(make) -> None:
    assert rejected(make, draws=20, rows=500) >= 0.95


def test_the_same_rows_shuffled_pass() -> None:
    def shuffled(random: np.random.Generator, rows: int) -> Float32:
        return random.permutation(autoregressive(random, rows))

    assert rejected(shuffled, draws=40, rows=500) <= 0.05


def test_what_is_found_is_said_with_the_rate_of_the_last_fifth() -> None:
    found = of(late(np.random.default_rng(1), 1000))
    assert not found.passed
    last = found.findings[0]
    assert (last.test, last.rejected) == ("last fifth", True)
    assert "the last fifth of the rows alarms at" in last.text
    rate = int(last.text.partition("alarms at ")[2].partition("%")[0])
    assert 25 <= rate <= 75  # a shift by 3 sd in one of four columns
    assert found.text.startswith("not exchangeable: the last fifth of the rows alarms at")
    passed = of(exchangeable(np.random.default_rng(1), 1000))
    assert passed.text == "1,000 rows passed the tests of exchangeability at a level of 1%"
    assert passed.effective_rows == 1000


def test_groups_that_differ_are_found_out_and_groups_in_name_only_are_not() -> None:
    random = np.random.default_rng(0)
    for draw in range(10):
        group_N = random.integers(0, 20, 600)
        own_ND = 4 * random.normal(size=(20, WIDTH)).astype(np.float32)
        rows_ND = exchangeable(random, 600)
        grouped = of(rows_ND + own_ND[group_N], draw, group_N)
        assert {f.test for f in grouped.findings if f.rejected} >= {"unseen groups"}
        assert of(rows_ND, draw, group_N).passed


def test_groups_of_another_spread_have_other_scores() -> None:
    random = np.random.default_rng(0)
    group_N = random.integers(0, 4, 400)
    score_N = random.normal(size=400) + (group_N == 2)
    assert groups_p_value(score_N, group_N, random) <= 1e-3
    assert groups_p_value(random.normal(size=400), group_N, random) > 1e-3


def test_effective_rows_are_those_of_an_autoregressive_process() -> None:
    """N (1 - phi) / (1 + phi) of an AR(1) process."""
    sizes = []
    for draw in range(20):
        noise_N = np.random.default_rng(draw).normal(size=4000)
        for row in range(1, 4000):
            noise_N[row] += 0.8 * noise_N[row - 1]
        sizes.append(effective_rows(noise_N))
    assert np.mean(sizes) == pytest.approx(4000 * 0.2 / 1.8, rel=0.15)
    assert effective_rows(np.random.default_rng(0).normal(size=4000)) > 3000


def test_rows_that_are_all_one_or_have_gaps_or_categories_are_tested_too() -> None:
    assert of(np.ones((50, WIDTH), dtype=np.float32)).passed
    random = np.random.default_rng(0)
    rows_ND = exchangeable(random, 300)
    rows_ND[random.random(rows_ND.shape) < 0.2] = np.nan
    assert of(rows_ND).passed
    kinds = (*FEATURES[:3], Feature(name="site", kind="categorical", categories=("a", "b")))
    rows_ND[:, 3] = random.integers(0, 2, 300)
    assert examine(rows_ND, kinds, alpha=0.05, seed=0).passed
    rows_ND[:, 3] = np.arange(300) >= 270
    assert not examine(rows_ND, kinds, alpha=0.05, seed=0).passed


def test_of_many_rows_stretches_of_neighbours_are_looked_at_the_last_rows_among_them() -> None:
    looked_at = _stretches(1_000_000)
    assert len(looked_at) == MOST_ROWS
    assert (looked_at[0], looked_at[-1]) == (0, 999_999)
    assert (np.diff(looked_at) == 1).mean() > 0.99
    assert np.array_equal(_stretches(7), np.arange(7))


def test_rows_nearly_all_of_which_are_alike_are_examined_without_a_warning() -> None:
    """Of such scores scipy finds no exact p-value, takes the asymptotic one, and warns."""
    rows_ND = np.zeros((28, WIDTH), np.float32)
    rows_ND[-3] = 5
    assert of(rows_ND).passed
