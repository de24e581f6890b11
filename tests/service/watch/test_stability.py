"""The population stability index and what chance brings it to, against closed forms."""

import math

import numpy as np
import pytest

from hourglass.service.model.intervals import chi_squared_limit, f_limit
from hourglass.service.watch.stability import BLOCKS, HALF, stability

LEVEL = 1e-4


def blocks(counts: list[int]) -> np.ndarray:
    """Counts spread over the blocks as evenly as they can be: rows that repel each other."""
    even = [[count // BLOCKS + (k < count % BLOCKS) for count in counts] for k in range(BLOCKS)]
    return np.array(even, np.int64)


@pytest.mark.parametrize("level", [0.01, 1e-4, 1e-6])
def test_limits_are_those_of_closed_forms(level: float) -> None:
    assert chi_squared_limit(level, 2) == pytest.approx(-2 * math.log(level), rel=1e-6)
    for below in (15, 135):
        closed = below / 2 * (level ** (-2 / below) - 1)
        assert f_limit(level, 2, below) == pytest.approx(closed, rel=1e-9)


def test_psi_is_the_sum_over_shares_and_equal_shares_have_none() -> None:
    found = stability(blocks([600, 300, 100]), np.array([500, 300, 200]), level=LEVEL)
    assert found is not None
    p = (np.array([600, 300, 100]) + HALF) / (1000 + 3 * HALF)
    r = (np.array([500, 300, 200]) + HALF) / (1000 + 3 * HALF)
    assert found.psi == pytest.approx(float(((p - r) * np.log(p / r)).sum()))
    same = stability(blocks([500, 300, 200]), np.array([500, 300, 200]), level=LEVEL)
    assert same is not None
    assert same.psi == pytest.approx(0)


def test_of_independent_rows_the_critical_value_is_chi_squareds() -> None:
    found = stability(blocks([600, 300, 100]), np.array([1000, 600, 400]), level=LEVEL)
    assert found is not None
    assert found.design_effect == 1
    assert found.critical == pytest.approx(-2 * math.log(LEVEL) * (1 / 1000 + 1 / 2000), rel=1e-6)


def test_rows_that_come_as_copies_tell_as_much_as_one_of_them() -> None:
    draw = np.random.default_rng(0)
    originals = [draw.multinomial(10, [0.1] * 10, size=(BLOCKS,)) for _ in range(50)]
    effects, criticals = [], []
    for copies in (5, 25):
        found = [stability(copies * each, np.full(10, 10**6), level=LEVEL) for each in originals]
        effects.append(np.mean([each.design_effect for each in found if each]))
        criticals.append([each.critical for each in found if each])
    assert effects == pytest.approx([5, 25], rel=0.05)
    # the critical value is that of the originals, but for the half rows
    assert criticals[0] == pytest.approx(criticals[1], rel=0.05)


def test_of_dependent_reference_rows_those_between_the_looked_at_ones_count_too() -> None:
    draw = np.random.default_rng(0)
    live = draw.multinomial(10, [0.1] * 10, size=(BLOCKS,)) * 6
    critical = [
        stability(live, np.full(10, 100), level=LEVEL, share=share).critical  # type: ignore[union-attr]
        for share in (None, 1.0, 0.1)
    ]
    assert critical[0] < critical[1] < critical[2] / 3


def test_without_rows_or_bins_there_is_nothing_to_say() -> None:
    assert stability(blocks([0, 0]), np.array([5, 5]), level=LEVEL) is None
    assert stability(blocks([5, 5]), np.array([0, 0]), level=LEVEL) is None
    assert stability(blocks([50]), np.array([50]), level=LEVEL) is None


def test_the_usual_limit_of_a_tenth_fires_where_nothing_changes() -> None:
    """At 50 rows in most windows; the critical value in at most as many as its level says."""
    draw, usual, ours, rounds = np.random.default_rng(3), 0, 0, 400
    for _ in range(rounds):
        live = draw.multinomial(50, [0.1] * 10)
        spread = np.zeros((BLOCKS, 10), np.int64)
        np.add.at(
            spread, (np.arange(50) * BLOCKS // 50, draw.permutation(np.repeat(range(10), live))), 1
        )
        found = stability(spread, draw.multinomial(5000, [0.1] * 10), level=0.05)
        assert found is not None
        usual, ours = usual + (found.psi > 0.1), ours + found.is_apart
    assert usual / rounds > 0.7
    assert ours / rounds <= 0.05
