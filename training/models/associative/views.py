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
from hourglass.training.sums import Terms

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

        def terms(rows: Encoded) -> Terms:
            seen_NE = self.encoding.spread(rows.observed_ND)
            bent_VNE = torch.stack([self._bend(view, rows.values_NE) for view in self.views])
            wide_VNE = bent_VNE.double()  # missing ones are 0
            sums = (seen_NE.double().sum(dim=0), wide_VNE.sum(dim=1), wide_VNE.square().sum(dim=1))
            hidden_NE = torch.where(seen_NE > 0, 0.0, -torch.inf)
            ends = (bent_VNE + hidden_NE).amax(dim=1), (hidden_NE - bent_VNE).amax(dim=1)
            return Terms(sums, (ends[0].double(), ends[1].double()))

        (seen_E, total_VE, squares_VE), (far_VE, near_VE) = self.encoding.total(fit_rows, terms)
        count_E = seen_E.clamp_min(1)
        shift_VE = total_VE / count_E
        # no digits are lost: encoded numbers have a mean of 0, and the rest is from -1 to 1
        scale_VE = (squares_VE / count_E - shift_VE.square()).clamp_min(0.0).sqrt()
        for v, view in enumerate(self.views):
            shift_E, scale_E = shift_VE[v], scale_VE[v]
            if view == "range":
                range_E = torch.where(seen_E > 0, far_VE[v] + near_VE[v], 0.0)
                varies_E = range_E > SMALL
                share_E = scale_E / range_E.clamp_min(SMALL)
                scale_E = range_E * (
                    share_E[varies_E].square().mean().sqrt() if varies_E.any() else 1.0
                )
            usual_E = scale_E[scale_E > SMALL]
            typical = float(usual_E.median()) if len(usual_E) else 1.0
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
