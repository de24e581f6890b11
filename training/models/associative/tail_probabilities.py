"""Tail probabilities: how rare the level of a piece of evidence is among held-out rows, as minus
the log of the share that exceed it.

-log(share) puts evidence of any unit on one scale (Fisher's way of combining p-values, 1932) and,
unlike the share itself, does not saturate: beyond the 90 % quantile the tail falls as it does on
average between there and the largest values (Hill's estimate of a power law, Annals of Statistics
3, 1975, since the levels of errors are logarithms).

With cells missing a level varies more and sits elsewhere: before it is read, it is moved and
stretched to where held-out rows with as many cells missing have it (`Gaps`), and it counts for as
much as it still tells what it told of the same rows when whole.

Shapes: N rows, H pieces of evidence, Q knots, R rates of missing cells.
"""

import math

import torch
from torch import Tensor, nn

# of held-out rows above each knot
SHARES = (0.99, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1)
# shares of cells that are hidden from held-out rows to see what that does to the evidence
MISSING_RATES = (0.0, 0.1, 0.25, 0.5)
# of levels, which are logarithms: of a piece that tells no more than this between rows, rounding
# would decide how rare it is
MIN_SPREAD = 1e-2
# of knots, in spreads: rows that are all alike would make a cliff, and rounding decide where on it
# a row is
MIN_SPACING = 0.05
MAX_SLOPE = 20.0  # beyond the last knot, in spreads: a tail without any spread would make one, too
MAX_STRETCH = 4.0
MIN_CORRELATION = 0.1  # so that a row on which no evidence tells anything has a score all the same


class Gaps(nn.Module):
    """Moves and stretches the levels of rows with cells missing to where those of gapless rows are,
    and tells what they are still worth.
    """

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.register_buffer("rates_R", torch.linspace(0.0, 1.0, len(MISSING_RATES)))
        self.register_buffer("center_RH", torch.zeros(len(MISSING_RATES), pieces))
        self.register_buffer("stretch_RH", torch.zeros(len(MISSING_RATES), pieces))
        self.register_buffer(
            "worth_RH",
            torch.cat([torch.ones(1, pieces), torch.zeros(len(MISSING_RATES) - 1, pieces)]),
        )

    rates_R: Tensor  # ascending
    center_RH: Tensor  # the median, then its changes of slope at each rate
    stretch_RH: Tensor  # log of the spread over that of the first rate, likewise
    worth_RH: Tensor  # squared correlation with the levels at the first rate, likewise

    def worth(self, missing_N1: Tensor) -> Tensor:
        """[N, H] what share of its weight on gapless rows a piece of evidence still has."""
        worth_NH: Tensor = self.worth_RH[:1] + self._beyond(missing_N1) @ self.worth_RH[1:]
        return worth_NH

    def forward(self, levels_NH: Tensor, missing_N1: Tensor) -> Tensor:
        """Levels [N, H] of rows that miss such a share of their cells -> what they would be with as
        few missing as the first rate.
        """
        narrowing_NH, shift_NH = self.moves(missing_N1)
        return levels_NH * narrowing_NH + shift_NH

    def moves(self, missing_N1: Tensor) -> tuple[Tensor, Tensor]:
        """What a level is multiplied by, and what is then added to it [N, H]; at the first rate
        exactly 1 and 0.
        """
        beyond_NR = self._beyond(missing_N1)
        narrowing_NH = torch.exp(-(beyond_NR @ self.stretch_RH[1:]))
        center_NH = self.center_RH[:1] + beyond_NR @ self.center_RH[1:]
        return narrowing_NH, self.center_RH[:1] - center_NH * narrowing_NH

    def _beyond(self, missing_N1: Tensor) -> Tensor:
        """[N, R - 1] how far beyond each rate but the last; not beyond that, where nothing is
        known.
        """
        return torch.relu(torch.minimum(missing_N1, self.rates_R[-1:]) - self.rates_R[:-1])

    @torch.no_grad()
    def fit(self, levels_RNH: Tensor, rates_R: Tensor) -> None:
        """Read the levels of the same rows at ascending rates of missing cells."""
        deviation_RNH = levels_RNH - levels_RNH.mean(dim=1, keepdim=True)
        scale_RH = deviation_RNH.square().mean(dim=1).sqrt().clamp_min(1e-6)
        correlation_RH = (deviation_RNH * deviation_RNH[0]).mean(dim=1) / (scale_RH * scale_RH[0])
        worth_RH = correlation_RH.clamp(MIN_CORRELATION, 1.0).square()
        worth_RH[0] = 1.0
        median_RH = torch.quantile(levels_RNH, 0.5, dim=1)
        spread_RH = (torch.quantile(levels_RNH, 0.9, dim=1) - median_RH).clamp_min(MIN_SPREAD)
        stretch_RH = torch.log(spread_RH / spread_RH[0]).clamp(
            -math.log(MAX_STRETCH), math.log(MAX_STRETCH)
        )
        self.rates_R.copy_(rates_R)
        read = (
            (self.center_RH, median_RH),
            (self.stretch_RH, stretch_RH),
            (self.worth_RH, worth_RH),
        )
        for bends_RH, values_RH in read:
            slopes_RH = values_RH.diff(dim=0) / rates_R.diff().clamp_min(1e-3).unsqueeze(1)
            bends_RH[0] = values_RH[0]
            bends_RH[1:] = slopes_RH.diff(dim=0, prepend=torch.zeros_like(slopes_RH[:1]))


class TailProbabilities(nn.Module):
    """The tail probabilities of H pieces of evidence: their logs are piecewise linear in a level
    that rises with strangeness, and in the graph a sum of ramps.
    """

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.gaps = Gaps(pieces)
        self.register_buffer("knots_HQ", torch.zeros(pieces, len(SHARES)))
        self.register_buffer("bends_HQ", torch.zeros(pieces, len(SHARES)))

    knots_HQ: Tensor
    bends_HQ: Tensor  # change of slope at each knot

    def forward(self, levels_NH: Tensor, missing_N1: Tensor) -> Tensor:
        """Levels [N, H] -> minus the log of the share of held-out rows above [N, H]; positive, and
        never falls as the level rises.
        """
        levels_NH1 = self.gaps(levels_NH, missing_N1).unsqueeze(2)
        ramps_NH = (torch.relu(levels_NH1 - self.knots_HQ) * self.bends_HQ).sum(dim=2)
        return ramps_NH.clamp_min(0.0) - math.log(SHARES[0])

    @torch.no_grad()
    def fit(self, levels_RNH: Tensor, rates_R: Tensor) -> None:
        """Read the levels of held-out rows, as they are and with more and more cells hidden."""
        self.gaps.fit(levels_RNH, rates_R)
        levels_NH, shares_Q = levels_RNH[0].double(), torch.tensor(SHARES, dtype=torch.float64)
        quantiles_QH = torch.quantile(levels_NH, 1 - shares_Q, dim=0)
        spread_H = (quantiles_QH[-1] - quantiles_QH[SHARES.index(0.5)]).clamp_min(MIN_SPREAD)
        least_QH = MIN_SPACING * spread_H * torch.arange(len(SHARES)).unsqueeze(1)
        spaced_QH = (quantiles_QH - least_QH).cummax(dim=0).values + least_QH
        slopes_QH = -torch.log(shares_Q).diff().unsqueeze(1) / spaced_QH.diff(dim=0)
        excess_NH = (levels_NH - spaced_QH[-1]).clamp_min(0.0)
        last_H = (excess_NH > 0).sum(dim=0).clamp_min(1) / excess_NH.sum(dim=0).clamp_min(1e-12)
        slopes_QH = torch.cat([slopes_QH, torch.minimum(last_H, MAX_SLOPE / spread_H).unsqueeze(0)])
        self.knots_HQ.copy_(spaced_QH.T)
        self.bends_HQ.copy_(slopes_QH.diff(dim=0, prepend=torch.zeros_like(slopes_QH[:1])).T)
