"""Memory: averages of neighbouring rows, and what a row's nearest ones tell of it.

With equal Gaussian kernels the best guess of the clean row is the softmax-weighted mean of what is
remembered (Ramsauer et al., Hopfield Networks is All You Need, ICLR 2021; De Bortoli, TMLR 2022);
the distance to it is the first piece of evidence. The second is how many times farther the row is
from its neighbours than they are from theirs, the idea of LOF (Breunig et al., SIGMOD 2000).

Distances are taken between whitened columns. The nearest are found by a product, but their
differences are subtracted one by one: between rows that are nearly the same the squares would
cancel.

Shapes: N rows, E columns of all views together, C prototypes, K the nearest of them.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

ROWS_PER_PROTOTYPE = 4  # rows a prototype is the mean of
CLOSEST = 5  # whose mean distance is a row's, or a prototype's, local scale
NEAREST = 12  # that are looked at
LOWEST, HIGHEST = 0.02, 0.75  # quantiles within which the prototypes' scales are kept
RESOLUTION = 1e-4  # squared distance a column, below which rows count as the same


class Recall(NamedTuple):
    """What a memory makes of rows."""

    parts_NE: Tensor  # squared difference to what is remembered; 0 where missing
    error_N1: Tensor  # their mean
    # squared: how many times farther a row is from its neighbours than they are from theirs
    ratio_N1: Tensor
    weights_NK: Tensor  # of the nearest; sum to one
    index_NK: Tensor  # of the nearest among the prototypes


class Memory(nn.Module):
    """Prototypes, whitened.

    Rows come whitened too, with their gaps filled; a missing cell counts in no distance and no
    error.
    """

    def __init__(self, prototypes_CE: Tensor) -> None:
        super().__init__()
        resolution = RESOLUTION * prototypes_CE.shape[1]
        count = min(CLOSEST, len(prototypes_CE) - 1)
        if count:
            # not to itself
            distance_CK = (
                _squared_distances(prototypes_CE, prototypes_CE, count + 1)[:, 1:] + resolution
            )
            scale_C, bandwidth = (
                torch.log(distance_CK.sqrt().mean(dim=1)),
                distance_CK[:, 0].median(),
            )
        else:
            scale_C, bandwidth = torch.zeros(1), torch.tensor(float(prototypes_CE.shape[1]))
        low, high = torch.quantile(scale_C, LOWEST), torch.quantile(scale_C, HIGHEST)
        self.register_buffer("prototypes_CE", prototypes_CE)
        self.register_buffer("scale_C", scale_C.clamp(low, high))
        self.register_buffer("bandwidth", bandwidth)

    prototypes_CE: Tensor
    scale_C: Tensor  # log of the mean distance to the closest other prototypes
    bandwidth: Tensor  # twice the kernels' variance

    def forward(self, values_NE: Tensor, observed_NE: Tensor) -> Recall:
        width = values_NE.shape[1]
        # exactly 1 where all are observed
        rescale_N1 = 1 / (observed_NE.sum(dim=1, keepdim=True).clamp_min(1.0) / width)
        closeness_NC = torch.addmm(
            -0.5 * self.prototypes_CE.square().sum(dim=1), values_NE, self.prototypes_CE.T
        )
        index_NK = torch.topk(closeness_NC, min(NEAREST, len(self.prototypes_CE)), dim=1).indices
        near_NKE = nn.functional.embedding(index_NK, self.prototypes_CE)
        difference_NKE = (values_NE.unsqueeze(1) - near_NKE) * observed_NE.unsqueeze(1)
        squared_NK = difference_NKE.square().sum(dim=2) * rescale_N1

        # the farthest of the nearest has no weight, so that it does not matter which of two equally
        # far ones it is; of a row with gaps the nearest are those of the row as it is filled, and
        # another may be the farthest
        farthest_N1 = squared_NK.amax(dim=1, keepdim=True)
        weights_NK = torch.softmax(squared_NK / -self.bandwidth, dim=1)
        if len(self.prototypes_CE) > NEAREST:
            weights_NK = weights_NK - (1 - RESOLUTION) * weights_NK.amin(dim=1, keepdim=True)
            weights_NK = weights_NK / weights_NK.sum(dim=1, keepdim=True)
        parts_N1E = (weights_NK.unsqueeze(1) @ difference_NKE).square() * rescale_N1.unsqueeze(2)

        share_NK = farthest_N1 * (1 + RESOLUTION) - squared_NK + RESOLUTION
        closer_NK = nn.functional.embedding(index_NK, -self.scale_C.unsqueeze(1)).squeeze(2)
        closer_N1 = (share_NK * closer_NK).sum(dim=1, keepdim=True) / share_NK.sum(
            dim=1, keepdim=True
        )
        closest_NK = torch.topk(
            squared_NK, min(CLOSEST, squared_NK.shape[1]), dim=1, largest=False
        ).values
        distance_N1 = torch.sqrt(closest_NK + RESOLUTION * width).mean(dim=1, keepdim=True)
        ratio_N1 = (distance_N1 * torch.exp(closer_N1)).square()
        return Recall(parts_N1E.squeeze(1), parts_N1E.mean(dim=2), ratio_N1, weights_NK, index_NK)


@torch.no_grad()
def neighbourhoods(values_NE: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[C, ROWS_PER_PROTOTYPE] at most `count` rows, drawn at random, each with its nearest."""
    drawn_C = torch.randperm(len(values_NE), generator=generator)[:count]
    members = min(ROWS_PER_PROTOTYPE, len(values_NE))
    near = [_nearest(part, values_NE, members) for part in torch.split(values_NE[drawn_C], 1024)]
    return torch.cat(near)


def _squared_distances(rows_NE: Tensor, others_CE: Tensor, count: int) -> Tensor:
    """[N, K] to the nearest others, ascending, subtracted one by one."""
    parts = []
    for part_NE in torch.split(rows_NE, 256):
        near_NKE = others_CE[_nearest(part_NE, others_CE, count)]
        squared_NK = (part_NE.unsqueeze(1) - near_NKE).square().sum(dim=2)
        parts.append(squared_NK.sort(dim=1).values)
    return torch.cat(parts)


def _nearest(rows_NE: Tensor, others_CE: Tensor, count: int) -> Tensor:
    return torch.topk(
        rows_NE @ others_CE.T - 0.5 * others_CE.square().sum(dim=1), count, dim=1
    ).indices
