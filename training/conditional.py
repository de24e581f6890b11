"""Conditional: what the other values of a row let expect of each, by one Gaussian of the training
rows; and how far each value is from that.

Of a row z with precision P, P z / diag(P) is what each value is off from its conditional mean, and
1 / diag(P) the variance of that (Lauritzen, Graphical Models, 1996, section 5.1). One value that is
grotesquely wrong is the furthest of all from what the others let expect: a neighbour is dragged
along by their partial correlation, at most.

The covariance is of standardised encoded columns, each pair over the rows where both are observed,
and shrunk towards independence (Ledoit and Wolf, Journal of Multivariate Analysis 88, 2004), by a
floor at least. Over WIDEST columns are taken as independent: the matrix would be most of the file.

Shapes: N rows, D features, E encoded columns.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hourglass.training.features import WIDEST, Encoded, Encoding
from hourglass.training.sums import Terms

FLOOR = 1e-3  # of a column's variance that no other explains
LIMIT = 1e6  # standard deviations; keeps squares within float32
FIT_LIMIT = 10.0  # standard deviations that one row may pull the covariance by
STEPS = 8  # of conjugate gradients; more change nothing that is seen in a contribution
SMALL = 1e-12
SHARE_WEIGHT = 1.0  # of the member's own contributions, in squared standard deviations a feature
FLOAT32_MAX = float(np.finfo(np.float32).max)

Float64 = NDArray[np.float64]


class Conditional(nn.Module):
    """The Gaussian, as the graph reads it; its buffers are named in the contract."""

    def __init__(self, encoding: Encoding, mean_E: Float64, scale_E: Float64, precision: Float64):
        super().__init__()
        self.one_hot = encoding.one_hot
        self._buffer("mean", mean_E)
        self._buffer("scale", scale_E)
        self._buffer("precision", precision)
        if precision.ndim == 2:
            self._buffer("diagonal", np.diag(precision))
        if self.one_hot and precision.ndim == 2:
            self._buffer("root", _block_roots(precision, encoding.slices))

    mean: Tensor  # [E] of the encoded columns in raw units
    scale: Tensor  # [E] their standard deviations
    precision: Tensor  # [E, E], or [E] of independent columns
    diagonal: Tensor  # [E]
    root: Tensor  # [E, E] of the categories' blocks

    def forward(self, encoding: Encoding, rows_ND: Tensor, observed_ND: Tensor) -> Tensor:
        """[N, D] squared standard deviations between each value and what the others let expect; 0
        where it is missing.
        """
        raw_NE, observed_NE = encoding.spread(rows_ND), encoding.spread(observed_ND)
        if encoding.one_hot:
            raw_NE = torch.where(
                encoding.one_hot_E, (raw_NE == encoding.code_E).to(raw_NE.dtype), raw_NE
            )
        z_NE = ((raw_NE - self.mean) / self.scale).clamp(-LIMIT, LIMIT)
        z_NE = torch.where(observed_NE > 0, z_NE, 0.0)
        if self.precision.ndim == 1:
            return encoding.gather(z_NE.square() * self.precision)
        pull_NE = self._fill(z_NE, 1 - observed_NE) @ self.precision
        if self.one_hot:
            distance_NE = (pull_NE @ self.root).square()
        else:
            distance_NE = pull_NE.square() / self.diagonal
        return encoding.gather(distance_NE * observed_NE)

    def _fill(self, z_NE: Tensor, missing_NE: Tensor) -> Tensor:
        """Missing values as the others let expect them, by conjugate gradients, as in filling.py;
        so that they pull at nothing.
        """
        left_NE = -(z_NE @ self.precision) * missing_NE
        scaled_NE = left_NE / self.diagonal
        direction_NE, size_N1 = scaled_NE, (left_NE * scaled_NE).sum(dim=1, keepdim=True)
        for _ in range(STEPS):
            ahead_NE = (direction_NE @ self.precision) * missing_NE
            step_N1 = size_N1 / (direction_NE * ahead_NE).sum(dim=1, keepdim=True).clamp_min(SMALL)
            z_NE = z_NE + step_N1 * direction_NE
            left_NE = left_NE - step_N1 * ahead_NE
            scaled_NE = left_NE / self.diagonal
            before_N1, size_N1 = size_N1, (left_NE * scaled_NE).sum(dim=1, keepdim=True)
            direction_NE = scaled_NE + size_N1 / before_N1.clamp_min(SMALL) * direction_NE
        return z_NE

    def _buffer(self, name: str, value: Float64) -> None:
        # at the end of float32 a deviation may be beyond it
        value = np.clip(value, -FLOAT32_MAX, FLOAT32_MAX)
        self.register_buffer(name, torch.from_numpy(value.astype(np.float32)))


def fit_conditional(encoding: Encoding, rows: Encoded) -> Conditional:
    """The Gaussian of all fit rows, these being the ones in memory."""
    observed_NE = encoding.spread(rows.observed_ND)
    # sums of what differs from about the mean lose no digits
    middle_E = rows.values_NE.sum(dim=0, dtype=torch.float64)
    middle_E = middle_E / observed_NE.sum(dim=0).clamp_min(1)
    del observed_NE

    def first(rows: Encoded) -> Terms:
        observed_NE = encoding.spread(rows.observed_ND)
        left_NE = (rows.values_NE.double() - middle_E) * observed_NE
        return Terms(
            (observed_NE.sum(dim=0).double(), left_NE.sum(dim=0), left_NE.square().sum(dim=0))
        )

    seen_E, left_E, squares_E = (each.numpy() for each in encoding.total(rows, first).sums)
    count_E = np.maximum(seen_E, 1)
    mean_E = middle_E.numpy() + left_E / count_E
    variance_E = squares_E / count_E - np.square(left_E / count_E)
    scale_E: Float64 = np.sqrt(np.maximum(variance_E, 0.0))
    # a column that was never seen to vary: a number keeps its unit, and of the rest one row more
    # could have been another
    least_E = np.where(encoding.numeric_E.numpy() > 0, 1.0, 1 / np.sqrt(count_E + 1))
    scale_E = np.where(scale_E > SMALL, scale_E, least_E)
    if len(scale_E) > WIDEST:
        precision: Float64 = np.ones(len(scale_E))
    else:
        found = encoding.total(rows, lambda rows: _products(encoding, rows, mean_E, scale_E))
        precision = np.asarray(np.linalg.inv(shrunk_covariance(found)), dtype=np.float64)
    raw_scale_E = encoding.scale_E.double().numpy()
    return Conditional(
        encoding,
        encoding.center_E.double().numpy() + raw_scale_E * mean_E,
        raw_scale_E * scale_E,
        precision,
    )


def _products(encoding: Encoding, rows: Encoded, mean_E: Float64, scale_E: Float64) -> Terms:
    """What rows add to the covariance: their number, and of each pair of columns the number that
    have both, the products and those of the squares.
    """
    observed_NE = encoding.spread(rows.observed_ND).double()
    z_NE = (rows.values_NE.double() - torch.from_numpy(mean_E)) / torch.from_numpy(scale_E)
    z_NE = z_NE.clamp(-FIT_LIMIT, FIT_LIMIT) * observed_NE
    squares_NE = z_NE.square()
    count = torch.tensor(float(len(z_NE)), dtype=torch.float64)
    return Terms((count, observed_NE.T @ observed_NE, z_NE.T @ z_NE, squares_NE.T @ squares_NE))


def shrunk_covariance(products: Terms) -> Float64:
    """[E, E] of standardised columns, 0 where missing: pairwise, shrunk, with a positive diagonal
    of FLOOR at least.
    """
    rows, pairs_EE, products_EE, squares_EE = (each.numpy() for each in products.sums)
    pairs_EE = np.maximum(pairs_EE, 1.0)
    covariance_EE = products_EE / pairs_EE
    never_E = np.diag(products_EE) == 0
    covariance_EE[never_E, never_E] = 1.0  # varied as far as anyone knows
    identity_EE = np.eye(len(covariance_EE))
    # Ledoit and Wolf, lemma 3.3: how much of what differs from independence is chance
    chance = float((squares_EE / pairs_EE - np.square(covariance_EE)).sum() / rows)
    away = float(np.square(covariance_EE - identity_EE).sum())
    shrinkage = min(1.0, max(FLOOR, chance / max(away, SMALL)))
    shrunk_EE = (1 - shrinkage) * covariance_EE + shrinkage * identity_EE
    values_E, vectors_EE = np.linalg.eigh(shrunk_EE)  # pairs of gaps can make it indefinite
    positive_EE: Float64 = (vectors_EE * np.maximum(values_E, FLOOR)) @ vectors_EE.T
    return positive_EE


def _block_roots(precision_EE: Float64, slices: list[slice]) -> Float64:
    """[E, E] of each feature's block of the precision the inverse's square root."""
    root_EE = np.zeros_like(precision_EE)
    for part in slices:
        values, vectors = np.linalg.eigh(precision_EE[part, part])
        root_EE[part, part] = (vectors / np.sqrt(values)) @ vectors.T
    return root_EE
