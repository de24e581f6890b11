"""Tail probabilities against distributions where they are known, and the adjustment for missing cells."""

import math

import pytest
import torch

from hourglass.training.models.associative.tail_probabilities import (
    MISSING_RATES,
    SHARES,
    Gaps,
    TailProbabilities,
)

RATES = torch.tensor(MISSING_RATES)


def still(levels_NH: torch.Tensor) -> torch.Tensor:
    """The same levels whatever is missing."""
    return levels_NH.expand(len(MISSING_RATES), *levels_NH.shape)


def exponential(count: int) -> torch.Tensor:
    return -torch.log(
        torch.rand(count, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ).float()


def test_a_tail_is_minus_the_log_of_the_share_above() -> None:
    tails = TailProbabilities(1)
    tails.fit(still(exponential(200_000)), RATES)
    # of an exponential the level itself
    levels = torch.tensor([[0.5], [1.0], [2.0], [3.0], [10.0], [100.0]])
    assert torch.allclose(tails(levels, torch.zeros(6, 1)), levels, rtol=0.03)


def test_a_tail_rises_without_end_and_is_never_negative() -> None:
    tails = TailProbabilities(1)
    tails.fit(
        still(torch.log(torch.rand(50, 1, generator=torch.Generator().manual_seed(0)))), RATES
    )
    rarity = tails(torch.linspace(-20, 20, 200).unsqueeze(1), torch.zeros(200, 1))[:, 0]
    assert rarity[0] == pytest.approx(-math.log(SHARES[0]))
    assert (rarity.diff() >= 0).all()
    assert rarity[-1] > 10


def test_held_out_levels_that_are_all_equal_make_a_finite_tail() -> None:
    tails = TailProbabilities(1)
    tails.fit(still(torch.ones(20, 1)), RATES)
    assert torch.isfinite(
        tails(torch.tensor([[-30.0], [1.0], [70.0]]), torch.tensor([[0.0], [0.3], [0.9]]))
    ).all()


def test_levels_that_move_and_spread_with_the_missing_cells_are_brought_back() -> None:
    levels = exponential(20_000)
    gaps = Gaps(1)
    gaps.fit(torch.stack([rate * 3 + levels * (1 + rate) for rate in RATES]), RATES)
    for rate in (0.0, 0.1, 0.25, 0.5):  # exact at the rates looked at
        moved = rate * 3 + levels * (1 + rate)
        assert torch.allclose(
            gaps(moved, torch.full_like(levels, rate)), levels, atol=1e-3, rtol=1e-3
        )
    between, beyond = torch.full_like(levels, 0.35), torch.full_like(levels, 0.9)
    assert torch.allclose(gaps(3 * 0.35 + levels * 1.35, between), levels, atol=0.05, rtol=0.05)
    # not extrapolated
    assert torch.equal(gaps(levels, beyond), gaps(levels, torch.full_like(levels, 0.5)))


def test_rows_that_miss_no_more_than_the_held_out_ones_are_left_as_they_are() -> None:
    rates = torch.tensor([0.2, 0.3, 0.4, 0.6])
    gaps, levels = Gaps(1), exponential(1000)
    gaps.fit(torch.stack([levels * (1 + rate) for rate in rates]), rates)
    for missing in (0.0, 0.1, 0.2):
        assert torch.allclose(gaps(levels, torch.full_like(levels, missing)), levels)


def test_evidence_is_worth_its_squared_correlation_with_what_it_said_of_gapless_rows() -> None:
    draw = torch.Generator().manual_seed(0)
    said, noise = torch.randn(20_000, 2, generator=draw), torch.randn(20_000, 2, generator=draw)
    kept = torch.tensor([1.0, 0.6])  # of the second piece, .36 of the variance is still what it was
    gaps = Gaps(2)
    gaps.fit(torch.stack([said] + [kept * said + (1 - kept.square()).sqrt() * noise] * 3), RATES)
    assert gaps.worth(torch.tensor([[0.0]])).tolist() == [[1.0, 1.0]]
    assert torch.allclose(
        gaps.worth(torch.tensor([[0.1], [0.25], [0.9]])), torch.tensor([1.0, 0.36]), atol=0.02
    )


def test_rows_that_are_all_alike_make_no_cliff() -> None:
    # a third of the rows at one place: a rounding error there must not decide how rare they are
    levels = torch.cat([torch.full((1000, 1), -2.1), exponential(2000)])
    tails = TailProbabilities(1)
    tails.fit(still(levels), RATES)
    place = torch.tensor([[-2.1], [-2.1 + 1e-5]])
    rarity = tails(place, torch.zeros(2, 1))
    assert (rarity[1] - rarity[0]).abs() < 3e-5
    # where the rest is spread as before: two thirds of the share above
    beyond = torch.tensor([[1.0], [4.0]])
    assert torch.allclose(tails(beyond, torch.zeros(2, 1)), beyond - math.log(2 / 3), rtol=0.1)
