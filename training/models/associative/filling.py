"""Filling: missing cells as they are expected from those that are observed of the row.

Where a first guess is off on the observed cells, it is off on the missing ones as well, by the
conditional mean of a Gaussian: the z_m with P_mm z_m = -P_mo z_o, P being the precision of what
guesses are off by, m the missing and o the observed columns. That is another system for every row,
so it is solved by conjugate gradients with a diagonal preconditioner (Hestenes and Stiefel, Journal
of Research of the National Bureau of Standards 49, 1952), which need nothing but products with P;
in float64, since what is left after a few steps is a small difference, and rounding would decide
where the next one goes.

One Gaussian has all rows off alike. Where there is a mixture of whitened columns, missing cells are
then moved to where the Gaussians that the row belongs to make it the likeliest; there P is their
precision between two whitenings.

Shapes: N rows, J columns of all views together, C Gaussians.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hourglass.training.models.associative.mixture import Mixture
from hourglass.training.models.associative.whitening import Whitening

STEPS = 4  # more change nothing that is seen in a score
SHRINKAGE = 0.05
SMALL = 1e-12


class Filling(nn.Module):
    """Corrects a first guess of missing cells by how far it is off on the observed ones."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.precision = Whitening(columns)  # to the second power: the inverse of the covariance
        self.register_buffer("diagonal_J", torch.ones(columns))

    diagonal_J: Tensor

    def forward(self, values_NJ: Tensor, guess_NJ: Tensor, observed_NJ: Tensor) -> Tensor:
        """Values, of which the missing ones do not matter, and a first guess -> [N, J] what the
        missing ones should be.
        """
        missing_NJ = 1 - observed_NJ
        left_NJ = -self.precision(((values_NJ - guess_NJ) * observed_NJ).double()) * missing_NJ
        return (guess_NJ + _solve(self.precision, self.diagonal_J, left_NJ, missing_NJ)).float()

    @torch.no_grad()
    def fit(self, residual_NJ: Tensor, observed_NJ: Tensor) -> None:
        """Learn from what guesses of the observed cells are off by."""
        self.precision.fit(residual_NJ, observed_NJ, power=2.0, shrinkage=SHRINKAGE, scale=False)
        self.diagonal_J.copy_(self.precision.diagonal())


def refill(
    values_NJ: Tensor, missing_NJ: Tensor, mixture: Mixture, half_whiten: Whitening
) -> Tensor:
    """Filled rows -> [N, J] the same with missing cells where a mixture of rows, whitened twice by
    half, finds them likelier.
    """
    wide_NJ, whiten = values_NJ.double(), half_whiten.twice()
    whitened_NJ = whiten(wide_NJ)
    guess = mixture(whitened_NJ, torch.ones(1, whitened_NJ.shape[1]))
    precision_NJ = (guess.weights_NC @ mixture.precision_CE).double()
    left_NJ = -whiten(precision_NJ * (whitened_NJ - guess.expected_NE)) * missing_NJ
    found_NJ = _solve(
        lambda z_NJ: whiten(precision_NJ * whiten(z_NJ)), precision_NJ, left_NJ, missing_NJ
    )
    return (wide_NJ + found_NJ).float()


def _solve(
    product: Callable[[Tensor], Tensor], diagonal_NJ: Tensor, left_NJ: Tensor, missing_NJ: Tensor
) -> Tensor:
    """[N, J] about the z of missing cells with P_mm z = left, by its product and (about) its
    diagonal; 0 where observed.
    """
    scaled_NJ = left_NJ / diagonal_NJ
    direction_NJ, found_NJ = scaled_NJ, torch.zeros_like(left_NJ)
    size_N1 = (left_NJ * scaled_NJ).sum(dim=1, keepdim=True)
    for _ in range(STEPS):
        ahead_NJ = product(direction_NJ) * missing_NJ
        step_N1 = size_N1 / (direction_NJ * ahead_NJ).sum(dim=1, keepdim=True).clamp_min(SMALL)
        found_NJ = found_NJ + step_N1 * direction_NJ
        left_NJ = left_NJ - step_N1 * ahead_NJ
        scaled_NJ = left_NJ / diagonal_NJ
        before_N1, size_N1 = size_N1, (left_NJ * scaled_NJ).sum(dim=1, keepdim=True)
        direction_NJ = scaled_NJ + size_N1 / before_N1.clamp_min(SMALL) * direction_NJ
    return found_NJ
