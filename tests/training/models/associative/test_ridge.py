"""The ridge regression against solving it anew."""

import torch

from hourglass.training.models.associative.ridge import RIDGE, Ridge

DRAW = torch.Generator().manual_seed(0)
ROWS = torch.randn(120, 2, generator=DRAW) @ torch.randn(2, 5, generator=DRAW) + 0.1 * torch.randn(
    120, 5, generator=DRAW
)


def fitted(rows: torch.Tensor) -> Ridge:
    torch.manual_seed(1)
    ridge = Ridge(5, 20)
    ridge.center(rows)
    ridge.fit(ridge.terms(rows), rows, torch.ones_like(rows))
    return ridge


def solved(ridge: Ridge, rows: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
    """[P, E] the same regression as an augmented least-squares problem, on the same features."""
    features = (torch.tanh(rows @ ridge.enter_EP + ridge.offset_P) - ridge.center_P).double()
    wide = torch.cat([features, (len(ROWS) * penalty).sqrt() * torch.eye(20, dtype=torch.float64)])
    target = torch.cat([rows.double(), torch.zeros(20, 5, dtype=torch.float64)])
    return torch.linalg.lstsq(wide, target).solution


def penalty(ridge: Ridge) -> torch.Tensor:
    features = (torch.tanh(ROWS @ ridge.enter_EP + ridge.offset_P) - ridge.center_P).double()
    return RIDGE * (features.T @ features / len(ROWS)).trace() / 20


def test_the_answer_is_that_of_ridge_regression() -> None:
    ridge = fitted(ROWS)
    assert torch.allclose(ridge.answer_PE.double(), solved(ridge, ROWS, penalty(ridge)), atol=1e-4)


def test_what_is_whitened_is_the_residual_each_row_has_when_left_out() -> None:
    ridge = fitted(ROWS)
    left_out = torch.stack(
        [
            ROWS[i].double()
            - (torch.tanh(ROWS[i] @ ridge.enter_EP + ridge.offset_P) - ridge.center_P).double()
            @ solved(ridge, torch.cat([ROWS[:i], ROWS[i + 1 :]]), penalty(ridge))
            for i in range(len(ROWS))
        ]
    )
    spread = left_out.square().mean(dim=0)
    assert torch.allclose(ridge.whitening.scale_E.double(), 1 / spread.sqrt(), rtol=5e-3)


def test_rows_off_the_surface_leave_larger_residuals() -> None:
    ridge = fitted(ROWS)
    off = ROWS[:, torch.tensor([1, 0, 3, 2, 4])]
    residual = [ridge.whitening(rows - ridge(rows)).square().mean() for rows in (ROWS, off)]
    assert residual[1] > 5 * residual[0]
