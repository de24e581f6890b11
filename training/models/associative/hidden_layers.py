"""Hidden layers: how dense the rows are in what a network makes of them on the way to its answer.

Rows that a network treats alike lie near each other in its last hidden layer, where a Gaussian per
group tells what belongs to none (Lee et al., A Simple Unified Framework for Detecting
Out-of-Distribution Samples, NeurIPS 2018). Here the layer is brought to its leading principal
components, each of unit variance, and its density is that of a mixture.

Shapes: N rows, H units of the hidden layers of all networks, P principal components, C Gaussians, J
columns of all views together.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hourglass.training.models.associative.mixture import (
    Guess,
    Mixture,
    assign_clusters,
    cluster_means,
    fit_mixture,
)

COMPONENTS = 64  # principal ones
MIN_VARIANCE = 1e-3  # of the first component's: what varies less is not brought to unit variance
ROWS = 20_000  # that the principal components are found from


class Standing(NamedTuple):
    """How a mixture of the hidden layer takes rows."""

    guess: Guess
    parts_NJ: Tensor  # squared difference to the mean rows of their Gaussians; 0 where missing


class HiddenLayers(nn.Module):
    """The principal components of the hidden layers of all networks, and a mixture of them."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.register_buffer("center_H", torch.zeros(units))
        self.register_buffer("basis_HP", torch.zeros(units, min(COMPONENTS, units)))
        self.mixture: Mixture | None = None
        self.register_buffer("rows_CJ", torch.zeros(0, 0))

    center_H: Tensor
    basis_HP: Tensor
    rows_CJ: Tensor  # the mean row of each Gaussian, its gaps filled

    def project(self, hidden_NH: Tensor) -> Tensor:
        """[N, P] the principal components."""
        return (hidden_NH - self.center_H) @ self.basis_HP

    def forward(
        self, hidden_NH: Tensor, values_NJ: Tensor, observed_NJ: Tensor, gaussians: int = 0
    ) -> Standing:
        if self.mixture is None:
            raise ValueError("the mixture is not fitted")
        guess = self.mixture(
            self.project(hidden_NH), torch.ones(1, self.basis_HP.shape[1]), gaussians
        )
        return Standing(guess, (values_NJ - guess.weights_NC @ self.rows_CJ).square() * observed_NJ)

    @torch.no_grad()
    def fit_components(self, hidden_NH: Tensor) -> None:
        """The principal components of these rows."""
        center_H = hidden_NH.mean(dim=0)
        wide_NH = (hidden_NH - center_H).double()
        variance_H, vectors_HH = torch.linalg.eigh(wide_NH.T @ wide_NH / len(wide_NH))
        leading_P = variance_H.flip(0)[: self.basis_HP.shape[1]].clamp_min(
            MIN_VARIANCE * variance_H[-1] + 1e-12
        )
        self.center_H.copy_(center_H)
        self.basis_HP.copy_(vectors_HH.flip(1)[:, : len(leading_P)] / leading_P.sqrt())

    @torch.no_grad()
    def fit_mixture(
        self, components_NP: Tensor, values_NJ: Tensor, count: int, generator: torch.Generator
    ) -> None:
        """At most so many Gaussians of the principal components of these rows, which come with
        their gaps filled.
        """
        seen_NP = torch.ones_like(components_NP)
        cluster_N = assign_clusters(components_NP, seen_NP, count, generator)
        self.mixture = fit_mixture(components_NP, seen_NP, cluster_N)
        self.rows_CJ = cluster_means(
            values_NJ, torch.ones_like(values_NJ), cluster_N, int(cluster_N.max()) + 1
        )
