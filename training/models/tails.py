"""Tails: how rare a head's value is among held-out rows, as minus the log of the share that exceed it.

-log(share) puts heads of any unit on one scale (Fisher's way of combining p-values, 1932) and, unlike the share itself, does not
saturate: beyond the 90 % quantile the tail is taken as a power law with Hill's estimate of its index (Annals of Statistics 3, 1975).
Piecewise linear in the log of the value, so in the graph it is a sum of ramps.

Shapes: H heads, Q knots.
"""

import math

import torch
from torch import Tensor, nn

SHARES = (0.999, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1)  # of held-out rows above each knot
MIN_VALUE = 1e-12
MIN_SPACING = 1e-3  # of knots, in log units: equal values would make a cliff
MAX_INDEX = 30.0  # of the power law: a tail without any spread would make one, too


class Tails(nn.Module):
    """The tails of H heads."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.register_buffer("knots_HQ", torch.zeros(heads, len(SHARES)))
        self.register_buffer("bends_HQ", torch.zeros(heads, len(SHARES)))

    knots_HQ: Tensor
    bends_HQ: Tensor  # change of slope at each knot

    def forward(self, values_NH: Tensor) -> Tensor:
        """Positive values [N, H] -> minus the log of the share of held-out rows above [N, H]; positive, and rising with the value."""
        logs_NH1 = torch.log(values_NH.clamp_min(MIN_VALUE)).unsqueeze(2)
        return (torch.relu(logs_NH1 - self.knots_HQ) * self.bends_HQ).sum(dim=2).clamp_min(0.0) - math.log(SHARES[0])

    @torch.no_grad()
    def fit(self, values_NH: Tensor) -> None:
        """Set the tails from the values [N, H] of held-out rows."""
        logs_NH = torch.log(values_NH.double().clamp_min(MIN_VALUE))
        shares_Q = torch.tensor(SHARES, dtype=torch.float64)
        quantiles_QH = torch.quantile(logs_NH, 1 - shares_Q, dim=0)
        spaced_QH = quantiles_QH + MIN_SPACING * torch.arange(len(SHARES), dtype=torch.float64).unsqueeze(1)
        slopes_QH = -torch.log(shares_Q).diff().unsqueeze(1) / spaced_QH.diff(dim=0)
        excess_NH = (logs_NH - quantiles_QH[-1]).clamp_min(0.0)
        index_H = (excess_NH > 0).sum(dim=0).clamp_min(1) / excess_NH.sum(dim=0).clamp_min(1e-12)
        slopes_QH = torch.cat([slopes_QH, index_H.clamp_max(MAX_INDEX).unsqueeze(0)])
        self.knots_HQ.copy_(spaced_QH.T)
        self.bends_HQ.copy_(slopes_QH.diff(dim=0, prepend=torch.zeros_like(slopes_QH[:1])).T)
