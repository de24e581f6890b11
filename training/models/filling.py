"""Filling: missing cells as they are expected from those that are observed of the row.

Where a first guess is off on the observed cells, it is off on the missing ones as well, by the conditional mean of a Gaussian: the z_m
with P_mm z_m = -P_mo z_o, P being the precision of what guesses are off by, m the missing and o the observed columns. That is another
system for every row, so it is solved by conjugate gradients with a diagonal preconditioner (Hestenes and Stiefel, Journal of Research
of the National Bureau of Standards 49, 1952), which need nothing but products with P.

Shapes: N rows, J columns of all views together.
"""

import torch
from torch import Tensor, nn

from training.models.whitening import Whitening

STEPS = 4  # more change nothing that is seen in a score
SHRINKAGE = 0.05
SMALL = 1e-12


class Filling(nn.Module):
    def __init__(self, columns: int) -> None:
        super().__init__()
        self.precision = Whitening(columns)  # to the second power: the inverse of the covariance
        self.register_buffer("diagonal_J", torch.ones(columns))

    diagonal_J: Tensor

    def forward(self, values_NJ: Tensor, guess_NJ: Tensor, observed_NJ: Tensor) -> Tensor:
        """Values, of which the missing ones do not matter, and a first guess -> [N, J] what the missing ones should be."""
        missing_NJ = 1 - observed_NJ
        left_NJ = -self.precision((values_NJ - guess_NJ) * observed_NJ) * missing_NJ
        scaled_NJ = left_NJ / self.diagonal_J
        direction_NJ, found_NJ = scaled_NJ, torch.zeros_like(values_NJ)
        size_N1 = (left_NJ * scaled_NJ).sum(dim=1, keepdim=True)
        for _ in range(STEPS):
            ahead_NJ = self.precision(direction_NJ) * missing_NJ
            step_N1 = size_N1 / (direction_NJ * ahead_NJ).sum(dim=1, keepdim=True).clamp_min(SMALL)
            found_NJ = found_NJ + step_N1 * direction_NJ
            left_NJ = left_NJ - step_N1 * ahead_NJ
            scaled_NJ = left_NJ / self.diagonal_J
            before_N1, size_N1 = size_N1, (left_NJ * scaled_NJ).sum(dim=1, keepdim=True)
            direction_NJ = scaled_NJ + size_N1 / before_N1.clamp_min(SMALL) * direction_NJ
        return guess_NJ + found_NJ

    @torch.no_grad()
    def fit(self, residual_NJ: Tensor, observed_NJ: Tensor) -> None:
        """From what guesses of complete cells were off by."""
        self.precision.fit(residual_NJ, observed_NJ, power=2.0, shrinkage=SHRINKAGE, scale=False)
        self.diagonal_J.copy_(self.precision.diagonal())
