"""Views: the same rows at several scales, since what is far in one is near in another.

`log` draws far values in (signed logarithm of standardised values, standardised again); `range`
measures every column by its range, in units of the columns' typical share of theirs.

Shapes: N rows, D features, E encoded columns, V views; J = V x E columns of all views, one view
after the other.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from hourglass.training.features import Encoded, Encoding

View = Literal["log", "range"]
LIMIT = 10.0  # standard deviations; a network has no business extrapolating further
SMALL = 1e-6


class Views(nn.Module):
    """The views of one encoding, with shift and scale taken from the fit rows."""

    def __init__(self, views: tuple[View, ...], encoding: Encoding) -> None:
        super().__init__()
        self.views = views
        self.encoding = encoding
        self.register_buffer("shift_VE", torch.zeros(len(views), encoding.encoded_width))
        self.register_buffer("scale_VE", torch.ones(len(views), encoding.encoded_width))

    shift_VE: Tensor
    scale_VE: Tensor

    def forward(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Encoded rows -> values [N, J], 0 where missing, and the mask over the columns of a view
        [N, E].
        """
        observed_NE = self.encoding.spread(encoded.observed_ND)
        values_NE = encoded.values_NE
        if (
            self.encoding.one_hot
        ):  # an unseen category must lie farther from every known one than these from each other
            known_ND = self.encoding.gather(values_NE * self.encoding.one_hot_E)
            values_NE = torch.where(
                self.encoding.one_hot_E & (self.encoding.spread(known_ND) == 0), -1.0, values_NE
            )
        bent_NJ = torch.cat([self._bend(view, values_NE) for view in self.views], dim=1)
        values_NJ = (bent_NJ - self.shift_VE.flatten()) / self.scale_VE.flatten()
        return values_NJ * observed_NE.repeat(1, len(self.views)), observed_NE

    def fit(self, fit_rows: Encoded) -> None:
        """Set shift and scale; a constant column is measured by the typical one."""
        seen_NE = self.encoding.spread(fit_rows.observed_ND) > 0
        count_E = seen_NE.sum(dim=0).clamp_min(1)
        for v, view in enumerate(self.views):
            values_NE = torch.where(seen_NE, self._bend(view, fit_rows.values_NE), 0.0)
            shift_E = values_NE.sum(dim=0) / count_E
            centred_NE = torch.where(seen_NE, values_NE - shift_E, 0.0)
            scale_E = (centred_NE.square().sum(dim=0) / count_E).sqrt()
            if view == "range":
                range_E = centred_NE.amax(dim=0) - centred_NE.amin(dim=0)
                varies_E = range_E > SMALL
                share_E = scale_E / range_E.clamp_min(SMALL)
                scale_E = range_E * (
                    share_E[varies_E].square().mean().sqrt() if varies_E.any() else 1.0
                )
            typical = (
                scale_E[scale_E > SMALL].median() if (scale_E > SMALL).any() else torch.tensor(1.0)
            )
            self.shift_VE[v] = shift_E
            self.scale_VE[v] = torch.where(scale_E > SMALL, scale_E, typical)

    def encoded(self, values_NE: Tensor) -> Tensor:
        """Values of the first view [N, E] -> encoded values."""
        values_NE = values_NE * self.scale_VE[0] + self.shift_VE[0]
        if self.views[0] == "range":
            return values_NE
        far_NE = torch.sign(values_NE) * torch.expm1(values_NE.abs().clamp_max(15.0))
        return torch.where(self.encoding.numeric_E > 0, far_NE, values_NE)

    def _bend(self, view: View, values_NE: Tensor) -> Tensor:
        if view == "range":
            return values_NE
        return torch.where(
            self.encoding.numeric_E > 0,
            torch.sign(values_NE) * torch.log1p(values_NE.abs()),
            values_NE,
        )
