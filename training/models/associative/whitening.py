"""Whitening: columns that move together are counted once.

The symmetric root keeps each whitened column as close as can be to its own (ZCA-cor; Kessy, Lewin
and Strimmer, American Statistician 72, 2018), so that a squared one still belongs to a feature.

Shapes: N rows, E columns, R leading directions.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hourglass.training.sums import Terms

# wider covariances are kept as RANK leading directions, and the rest as one variance
MAX_COLUMNS = 1024
RANK = 256
MIN_EIGENVALUE = 1e-3
ITERATIONS = 6


class Whitening(nn.Module):
    """x -> scale x C^(-power / 2), where C is the columns' shrunk correlation: 0 only scales, 1
    whitens wholly, 2 is the precision.
    """

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.wide = columns > MAX_COLUMNS
        self.register_buffer("scale_E", torch.ones(columns))
        self.register_buffer("root", torch.zeros(columns, RANK if self.wide else columns))
        self.register_buffer("gain_R", torch.zeros(RANK if self.wide else 0))

    scale_E: Tensor
    root: Tensor  # [E, E], scaling included; of wide rows the leading directions [E, R]
    gain_R: Tensor  # what is added along them

    def forward(self, values_NE: Tensor) -> Tensor:
        root = self.root.to(values_NE.dtype)
        if not self.wide:
            return values_NE @ root
        values_NE = values_NE * self.scale_E
        whitened_NE: Tensor = values_NE + ((values_NE @ root) * self.gain_R) @ root.T
        return whitened_NE

    def twice(self) -> Callable[[Tensor], Tensor]:
        """What whitens as the whitening of its answers would, in float64."""
        if self.wide:
            return lambda values_NE: self(self(values_NE))
        whole_EE = self.root.double() @ self.root.double()
        return lambda values_NE: values_NE @ whole_EE

    def diagonal(self) -> Tensor:
        """[E] of the matrix that rows are multiplied by."""
        if not self.wide:
            return self.root.diagonal()
        diagonal_E: Tensor = self.scale_E * (1 + (self.root.square() * self.gain_R).sum(dim=1))
        return diagonal_E

    @torch.no_grad()
    def fit(
        self,
        values_NE: Tensor,
        observed_NE: Tensor | None,
        *,
        power: float,
        shrinkage: float,
        scale: bool,
        sphere: bool = False,
    ) -> None:
        """From values with mean zero, of which all count or those observed; `scale` brings every
        column to unit variance first. What the covariance is shrunk towards has the columns' own
        variances, or as a `sphere` the mean of them.
        """
        if not self.wide:
            self.fit_products(
                products_of(values_NE, observed_NE),
                power=power,
                shrinkage=shrinkage,
                scale=scale,
                sphere=sphere,
            )
            return
        seen_E = torch.tensor(float(len(values_NE)))
        if observed_NE is not None:
            values_NE, seen_E = values_NE * observed_NE, observed_NE.double().sum(dim=0)
        values_NE = values_NE.double()
        variance_E = values_NE.square().sum(dim=0) / seen_E.clamp_min(1.0)
        scale_E = _scales(variance_E) if scale else torch.ones_like(variance_E)
        self._fit_leading(values_NE * scale_E, scale_E, power, shrinkage, sphere=sphere)

    @torch.no_grad()
    def fit_products(
        self,
        products: Terms,
        *,
        power: float,
        shrinkage: float,
        scale: bool,
        sphere: bool = False,
    ) -> None:
        """The same from what `products_of` makes of rows, added up."""
        products_EE, pairs_EE = products.sums
        covariance_EE = products_EE / pairs_EE.clamp_min(1.0)
        variance_E = covariance_EE.diagonal()
        scale_E = _scales(variance_E) if scale else torch.ones_like(variance_E)
        covariance_EE = scale_E.unsqueeze(1) * covariance_EE * scale_E
        target_E = _target(covariance_EE.diagonal(), sphere=sphere)
        shrunk_EE = (1 - shrinkage) * covariance_EE + shrinkage * torch.diag(target_E)
        values_E, vectors_EE = torch.linalg.eigh(shrunk_EE)
        self.scale_E.copy_(scale_E)
        self.root.copy_(
            scale_E.unsqueeze(1) * (vectors_EE * _floored(values_E) ** (-power / 2)) @ vectors_EE.T
        )

    def _fit_leading(
        self, scaled_NE: Tensor, scale_E: Tensor, power: float, shrinkage: float, *, sphere: bool
    ) -> None:
        """By subspace iteration (Halko, Martinsson and Tropp, SIAM Review 53, 2011), never holding
        the covariance.
        """
        variance_E = scaled_NE.square().mean(dim=0)
        target_E1 = _target(variance_E, sphere=sphere).unsqueeze(1)

        def spread(directions_ER: Tensor) -> Tensor:
            along_ER = scaled_NE.T @ (scaled_NE @ directions_ER) / len(scaled_NE)
            return (1 - shrinkage) * along_ER + shrinkage * target_E1 * directions_ER

        start = torch.randn(
            self.root.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        directions_ER = torch.linalg.qr(start).Q
        for _ in range(ITERATIONS):
            directions_ER = torch.linalg.qr(spread(directions_ER)).Q
        values_R, turn_RR = torch.linalg.eigh(directions_ER.T @ spread(directions_ER))
        rest = _floored((variance_E.sum() - values_R.sum()) / (len(variance_E) - RANK)) ** (
            -power / 2
        )
        self.scale_E.copy_(scale_E * rest)
        self.root.copy_(directions_ER @ turn_RR)
        self.gain_R.copy_(_floored(values_R) ** (-power / 2) / rest - 1)


def products_of(values_NE: Tensor, observed_NE: Tensor | None = None) -> Terms:
    """Of each pair of columns the sum of their products, and how many rows have both."""
    if observed_NE is None:
        values_NE = values_NE.double()
        return Terms((values_NE.T @ values_NE, torch.tensor(float(len(values_NE))).double()))
    values_NE, observed_NE = (values_NE * observed_NE).double(), observed_NE.double()
    return Terms((values_NE.T @ values_NE, observed_NE.T @ observed_NE))


def _scales(variance_E: Tensor) -> Tensor:
    return 1 / (variance_E + 1e-4 * variance_E.mean() + 1e-12).sqrt()


def _target(variance_E: Tensor, *, sphere: bool) -> Tensor:
    """[E] variances that a covariance is shrunk towards."""
    return _floored(variance_E.mean().expand_as(variance_E) if sphere else variance_E)


def _floored(variances: Tensor) -> Tensor:
    return variances.clamp_min(MIN_EIGENVALUE)
