"""Bags: memories that know some of the features each, and how far from their neighbours rows are on
average.

What is strange in a few features drowns among the others in a distance over all of them; and in
fewer dimensions neighbours are nearer, so that averages of them are finer (feature bagging;
Lazarevic and Kumar, KDD 2005). Columns come as they do to a memory, whitened by half: what a column
has of the other features by that, it keeps in every bag.

Shapes: N rows, J columns of all views together, B bags, S columns of one bag.
"""

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from hourglass.training.models.associative.memory import (
    RESOLUTION,
    Memory,
    averages,
    neighbourhoods,
)

SHARE = 2 / 3  # of the features, that a bag has
PROTOTYPES = 1024  # of a bag, at most,
CELLS = 2**18  # and this many numbers of them
ROWS = 20_000  # that they are made from, at most
SMALL = 1e-6


class Findings(NamedTuple):
    """What bags make of rows."""

    log_ratio_N1: Tensor  # mean over the bags of the log of a memory's squared ratio
    # mean over a column's bags of the squared difference to what they recall; 0 where missing
    parts_NJ: Tensor


class Bags(nn.Module):
    """So many bags of the given features, drawn when they are made; a bag of which a row has little
    says little of it.
    """

    def __init__(self, feature_J: Tensor, features_D: Tensor, count: int) -> None:
        super().__init__()
        size = math.ceil(SHARE * len(features_D))
        drawn = [features_D[torch.randperm(len(features_D))[:size]] for _ in range(count)]
        has_BJ = torch.stack([torch.isin(feature_J, kept_D) for kept_D in drawn])
        self.register_buffer("has_BJ", has_BJ.float())
        self.bags = nn.ModuleList(map(_Bag, has_BJ))

    has_BJ: Tensor

    def forward(self, values_NJ: Tensor, observed_NJ: Tensor) -> Findings:
        log_ratios, shares, parts = zip(
            *(bag(values_NJ, observed_NJ) for bag in self.bags), strict=True
        )
        share_NB = torch.cat(shares, dim=1)
        total_N1 = share_NB.sum(dim=1, keepdim=True).clamp_min(SMALL)
        mean_N1 = (torch.cat(log_ratios, dim=1) * share_NB).sum(dim=1, keepdim=True) / total_N1
        parts_NJ = (torch.stack(parts) * share_NB.T.unsqueeze(2)).sum(dim=0)
        return Findings(mean_N1, parts_NJ / (share_NB @ self.has_BJ).clamp_min(SMALL))

    @torch.no_grad()
    def fit(self, values_NJ: Tensor, generator: torch.Generator, *, members: int) -> None:
        """Averages of `members` neighbouring rows for every bag."""
        for bag in self.bags:
            cast(_Bag, bag).fit(values_NJ, generator, members)


class _Bag(nn.Module):
    def __init__(self, has_J: Tensor) -> None:
        super().__init__()
        columns_S = has_J.nonzero().squeeze(1)
        # in the bag; of columns that are not in it, after the last
        place_J = torch.full((len(has_J),), len(columns_S))
        place_J[columns_S] = torch.arange(len(columns_S))
        self.register_buffer("columns_S", columns_S)
        self.register_buffer("place_J", place_J)
        self.memory: Memory | None = None

    columns_S: Tensor
    place_J: Tensor

    def forward(self, values_NJ: Tensor, observed_NJ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The log of the ratio [N, 1], the share of the bag's cells that it rests on [N, 1], and
        the parts [N, J].
        """
        if self.memory is None:
            raise ValueError("the memory is not fitted")
        observed_NS = observed_NJ.index_select(1, self.columns_S)
        recall = self.memory(values_NJ.index_select(1, self.columns_S), observed_NS)
        padded = nn.functional.pad(recall.parts_NE, (0, 1))
        log_ratio_N1 = torch.log(recall.ratio_N1 + RESOLUTION)
        return (
            log_ratio_N1,
            observed_NS.mean(dim=1, keepdim=True),
            padded.index_select(1, self.place_J),
        )

    def fit(self, values_NJ: Tensor, generator: torch.Generator, members: int) -> None:
        if len(values_NJ) > ROWS:
            values_NJ = values_NJ[torch.randperm(len(values_NJ), generator=generator)[:ROWS]]
        values_NS = values_NJ[:, self.columns_S]
        count = min(PROTOTYPES, max(2, CELLS // len(self.columns_S)))
        near_CM = neighbourhoods(values_NS, count, generator)[:, :members]
        self.memory = Memory(averages(values_NS, near_CM))
