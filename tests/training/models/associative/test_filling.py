"""What missing cells are filled with against the conditional mean of a Gaussian, solved for
outright.
"""

import pytest
import torch

from hourglass.training.models.associative.filling import Filling, refill
from hourglass.training.models.associative.mixture import Mixture
from hourglass.training.models.associative.whitening import Whitening

DRAW = torch.Generator().manual_seed(0)
ROWS = torch.randn(4000, 3, generator=DRAW) @ torch.randn(3, 6, generator=DRAW) + 0.5 * torch.randn(
    4000, 6, generator=DRAW
)


@pytest.fixture(scope="module")
def filling() -> Filling:
    filling = Filling(6)
    filling.fit(ROWS, torch.ones_like(ROWS))
    return filling


def conditional_mean(
    filling: Filling, row: torch.Tensor, guess: torch.Tensor, missing: torch.Tensor
) -> torch.Tensor:
    precision = filling.precision(torch.eye(6)).double()
    off = (row - guess)[~missing].double()
    return guess[missing] - torch.linalg.solve(
        precision[missing][:, missing], precision[missing][:, ~missing] @ off
    )


@pytest.mark.parametrize("missing", [[1], [0, 5], [0, 2, 3], [0, 1, 2, 4]])
def test_missing_cells_are_the_conditional_mean_whatever_they_are_said_to_be(
    filling: Filling, missing: list[int]
) -> None:
    gone = torch.zeros(6, dtype=torch.bool)
    gone[missing] = True
    rows, observed = ROWS[:20].clone(), (~gone).float().expand(20, 6)
    rows[:, gone] = 99.0
    guess = 0.1 * torch.arange(6.0).expand(20, 6)
    filled = filling(rows, guess, observed)
    expected = torch.stack([conditional_mean(filling, row, guess[0], gone) for row in rows]).float()
    assert torch.allclose(filled[:, gone], expected, atol=1e-3)


def test_the_precision_is_that_of_the_shrunk_covariance(filling: Filling) -> None:
    covariance = ROWS.double().T @ ROWS.double() / len(ROWS)
    shrunk = 0.95 * covariance + 0.05 * torch.diag(covariance.diagonal())
    assert torch.allclose(
        filling.precision(torch.eye(6)).double(), torch.linalg.inv(shrunk), rtol=1e-3, atol=1e-4
    )
    assert torch.allclose(filling.diagonal_J, filling.precision(torch.eye(6)).diagonal())


def test_nothing_observed_and_nothing_missing_both_leave_the_guess(filling: Filling) -> None:
    guess = torch.randn(10, 6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(filling(ROWS[:10], guess, torch.zeros(10, 6)), guess)
    assert torch.equal(filling(ROWS[:10], guess, torch.ones(10, 6)), guess)


@pytest.fixture(scope="module")
def half_whiten() -> Whitening:
    whitening = Whitening(6)
    whitening.fit(ROWS, torch.ones_like(ROWS), power=0.5, shrinkage=0.05, scale=False)
    return whitening


@pytest.mark.parametrize("missing", [[1], [0, 5], [0, 2, 3], [0, 1, 2, 4]])
def test_refilled_cells_are_the_conditional_mean_under_the_gaussian_that_the_row_belongs_to(
    half_whiten: Whitening, missing: list[int]
) -> None:
    gone = torch.zeros(6, dtype=torch.bool)
    gone[missing] = True
    # the other one is out of reach
    mean = torch.tensor([[0.5, 0.0, -0.5, 1.0, 0.0, 0.0], [300.0] * 6])
    variance = torch.tensor([[0.5, 1.0, 0.8, 1.2, 0.6, 1.0], [1.0] * 6])
    rows = ROWS[:20].clone()
    rows[:, gone] = 0.3
    refilled = refill(
        rows, gone.float().expand(20, 6), Mixture(mean, variance, torch.ones(2)), half_whiten
    )
    whiten = half_whiten(half_whiten(torch.eye(6))).double()
    precision = whiten @ torch.diag(1 / variance[0].double()) @ whiten
    center = torch.linalg.solve(whiten, mean[0].double())
    off = (rows[:, ~gone].double() - center[~gone]).T
    expected = (
        center[gone]
        - torch.linalg.solve(precision[gone][:, gone], precision[gone][:, ~gone] @ off).T
    )
    assert torch.allclose(refilled[:, gone].double(), expected, atol=2e-3)
    assert torch.equal(refilled[:, ~gone], rows[:, ~gone])


def test_refilling_leaves_what_lacks_nothing(half_whiten: Whitening) -> None:
    mixture = Mixture(torch.zeros(1, 6), torch.ones(1, 6), torch.ones(1))
    assert torch.equal(refill(ROWS[:10], torch.zeros(10, 6), mixture, half_whiten), ROWS[:10])


def test_rounding_does_not_decide_what_is_refilled() -> None:
    """Two views say nearly the same; after as many steps as there are missing cells only rounding
    is left to solve for.
    """
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(4000, 3, generator=draw) @ torch.randn(3, 20, generator=draw)
    rows += 0.1 * torch.randn(rows.shape, generator=draw)
    rows = torch.cat([rows, rows + 0.05 * torch.randn(rows.shape, generator=draw)], dim=1)
    half_whiten = Whitening(40)
    half_whiten.fit(rows, torch.ones_like(rows), power=0.5, shrinkage=0.05, scale=False)
    mixture = Mixture(
        torch.randn(32, 40, generator=draw),
        torch.rand(32, 40, generator=draw).square() + 0.01,
        torch.ones(32),
    )
    missing = torch.zeros(200, 40)
    missing[:, [1, 21]] = 1.0
    rows = rows[:200] * (1 - missing)
    together = refill(rows, missing, mixture, half_whiten)
    alone = torch.cat([refill(row, missing[:1], mixture, half_whiten) for row in rows.split(1)])
    assert torch.allclose(together, alone, rtol=1e-6, atol=1e-6)
