"""Memory: the exact denoiser of a kernel density on a few prototypes, and the density around a row against that around its neighbours.

With equal Gaussian kernels the best guess of the clean row is the softmax-weighted mean of the prototypes (Ramsauer et al., Hopfield
Networks is All You Need, ICLR 2021; De Bortoli, TMLR 2022). The ratio of distances is the idea of LOF (Breunig et al., SIGMOD 2000).

Shapes: N rows, E columns of one view, C prototypes.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

NEAREST = 5  # whose mean distance is a row's, or a prototype's, local scale
NEIGHBOURS = 10  # whose own scales a row's is held against
MEMBERS = 4  # rows a prototype is the mean of, at least
ROUNDS = 15
LOWEST, HIGHEST = 0.02, 0.75  # quantiles within which the prototypes' scales are kept
RESOLUTION = 1e-4  # squared distance a column, below which float32 cannot tell rows apart


class Recall(NamedTuple):
    """What a memory makes of rows."""

    weights_NC: Tensor  # sum to one
    parts_NE: Tensor  # squared difference to what is remembered; their mean is the error
    error_N: Tensor
    density_ratio_N: Tensor  # squared: how many times farther a row is from its neighbours than they are from theirs


class Memory(nn.Module):
    """Prototypes of one view. A missing cell counts in no distance and no error."""

    def __init__(self, prototypes_CE: Tensor) -> None:
        super().__init__()
        between_CC = torch.cdist(prototypes_CE, prototypes_CE, compute_mode="donot_use_mm_for_euclid_dist")
        between_CC.fill_diagonal_(torch.inf)
        nearest = min(NEAREST, len(prototypes_CE) - 1)
        resolution = RESOLUTION * prototypes_CE.shape[1]
        if nearest:
            closest_CJ = between_CC.topk(nearest, largest=False).values.square() + resolution
            scale_C = torch.log(closest_CJ.sqrt().mean(dim=1))
            bandwidth = closest_CJ[:, 0].median()
        else:
            scale_C, bandwidth = torch.zeros(1), torch.tensor(float(prototypes_CE.shape[1]))
        low, high = torch.quantile(scale_C, LOWEST), torch.quantile(scale_C, HIGHEST)
        self.register_buffer("prototypes_CE", prototypes_CE)
        self.register_buffer("scale_C", scale_C.clamp(low, high))
        self.register_buffer("bandwidth", bandwidth)

    prototypes_CE: Tensor
    scale_C: Tensor  # log of the mean distance to the nearest other prototypes
    bandwidth: Tensor  # twice the kernels' variance

    def forward(self, values_NE: Tensor, observed_NE: Tensor) -> Recall:
        width = values_NE.shape[1]
        rescale_N1 = width / observed_NE.sum(dim=1, keepdim=True).clamp_min(1.0)
        cross_NC = values_NE @ self.prototypes_CE.T
        own_N1 = values_NE.square().sum(dim=1, keepdim=True)
        squared_NC = (own_N1 - 2 * cross_NC + observed_NE @ self.prototypes_CE.square().T).clamp_min(0.0) * rescale_N1
        weights_NC = torch.softmax(-squared_NC / self.bandwidth, dim=1)
        parts_NE = (values_NE - weights_NC @ self.prototypes_CE).square() * observed_NE * rescale_N1

        near_NJ, index_NJ = torch.topk(squared_NC, min(NEIGHBOURS, len(self.prototypes_CE)), dim=1, largest=False)
        distance_N = torch.sqrt(near_NJ[:, :NEAREST] + RESOLUTION * width).mean(dim=1)
        ratio_N = distance_N.square() * torch.exp(-2 * self.scale_C[index_NJ].mean(dim=1))
        return Recall(weights_NC, parts_NE, parts_NE.mean(dim=1), ratio_N)


@torch.no_grad()
def assign_prototypes(rows_NE: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[N] which prototype each row belongs to, by k-means (Lloyd, 1982); clusters of fewer than MEMBERS rows are dissolved."""
    count = max(1, min(count, len(rows_NE) // (MEMBERS + 2)))
    centres_CE = rows_NE[torch.randperm(len(rows_NE), generator=generator)[:count]]
    for _ in range(ROUNDS):
        nearest_N = _nearest(rows_NE, centres_CE)
        size_C = torch.bincount(nearest_N, minlength=len(centres_CE))
        means_CE = cluster_means(rows_NE, nearest_N, len(centres_CE))
        strays_CE = rows_NE[torch.randint(len(rows_NE), (len(centres_CE),), generator=generator)]
        centres_CE = torch.where((size_C > 0).unsqueeze(1), means_CE, strays_CE)
    while True:
        nearest_N = _nearest(rows_NE, centres_CE)
        size_C = torch.bincount(nearest_N, minlength=len(centres_CE))
        kept_C = size_C >= MEMBERS
        if kept_C.all():
            return nearest_N
        if not kept_C.any():
            return torch.zeros_like(nearest_N)
        centres_CE = centres_CE[kept_C]


def cluster_means(rows_NE: Tensor, cluster_N: Tensor, count: int) -> Tensor:
    """[C, E] mean of each cluster's rows; 0 of an empty one."""
    sums_CE = torch.zeros(count, rows_NE.shape[1]).index_add_(0, cluster_N, rows_NE)
    return sums_CE / torch.bincount(cluster_N, minlength=count).clamp_min(1).unsqueeze(1)


def _nearest(rows_NE: Tensor, centres_CE: Tensor) -> Tensor:
    return torch.argmin(centres_CE.square().sum(dim=1) - 2 * rows_NE @ centres_CE.T, dim=1)
