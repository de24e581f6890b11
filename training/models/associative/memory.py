"""Memory: averages of neighbouring rows, and what a row's nearest ones tell of it.

With equal Gaussian kernels the best guess of the clean row is the softmax-weighted mean of what is
remembered (Ramsauer et al., Hopfield Networks is All You Need, ICLR 2021; De Bortoli, TMLR 2022);
the distance to it is the first piece of evidence. The second is how many times farther the row is
from its neighbours than they are from theirs, the idea of LOF (Breunig et al., SIGMOD 2000).

Distances are taken between whitened columns. The nearest are found by a product, but their
differences are subtracted one by one: between rows that are nearly the same the squares would
cancel.

Rounding decides which of equally near prototypes are looked at, and runtimes round otherwise. So
those that are nearly the same are one, which counts as many times; the farthest that is looked at
has no weight; and where all are about equally far, the mean of all rows, which is 0, and the usual
scale take their place.

Shapes: N rows, E columns of all views together, C prototypes, K the nearest of them.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

ROWS_PER_PROTOTYPE = 4  # rows a prototype is the mean of
CLOSEST = 5  # whose mean distance is a row's, or a prototype's, local scale
NEAREST = 12  # distinct ones, that are looked at
LOWEST, HIGHEST = 0.02, 0.75  # quantiles within which the prototypes' scales are kept
RESOLUTION = 1e-4  # squared distance a column, below which rows count as the same
# what the mean of all rows weighs beside the nearest, and the usual scale beside theirs: thousands
# of times what float32 rounds the differences of equal distances by
TIE = 1e-2


class Recall(NamedTuple):
    """What a memory makes of rows."""

    parts_NE: Tensor  # squared difference to what is remembered; 0 where missing
    error_N1: Tensor  # their mean
    # squared: how many times farther a row is from its neighbours than they are from theirs
    ratio_N1: Tensor
    weights_NK: Tensor  # of the nearest; what they lack of one is that of the mean of all rows
    index_NK: Tensor  # of the nearest among the prototypes


class Memory(nn.Module):
    """Prototypes, whitened, of mean 0.

    Rows come whitened too, with their gaps filled; a missing cell counts in no distance and no
    error.
    """

    def __init__(self, prototypes_CE: Tensor) -> None:
        super().__init__()
        resolution = RESOLUTION * prototypes_CE.shape[1]
        prototypes_CE, copies_C = _distinct(prototypes_CE, resolution)
        copies_C = copies_C.clamp_max(NEAREST)
        count = min(CLOSEST + 1, len(prototypes_CE))
        squared_CK, index_CK = _squared_distances(prototypes_CE, prototypes_CE, count)
        left_CK = copies_C[index_CK]
        left_CK[:, 0] -= 1  # not to itself, which is the closest
        distance_C1 = _mean_of_closest((squared_CK + resolution).sqrt(), left_CK)
        scale_C = torch.log(distance_C1.squeeze(1))
        scale_C = torch.where(left_CK.sum(dim=1) > 0, scale_C, 0.0)
        low, high = torch.quantile(scale_C, LOWEST), torch.quantile(scale_C, HIGHEST)
        scale_C = scale_C.clamp(low, high)
        bandwidth = squared_CK[:, 1].median() + resolution if count > 1 else torch.tensor(1.0)
        self.copied = bool((copies_C > 1).any())
        self.register_buffer("prototypes_CE", prototypes_CE)
        usual_scale = scale_C.median()
        self.register_buffer("usual_scale", usual_scale)
        self.register_buffer("told_C2", torch.stack([usual_scale - scale_C, copies_C], dim=1))
        self.register_buffer("bandwidth", bandwidth)

    prototypes_CE: Tensor
    usual_scale: Tensor  # log of the mean distance to the closest other prototypes
    told_C2: Tensor  # how far its own is below, and how many times each prototype counts
    bandwidth: Tensor  # twice the kernels' variance

    def forward(self, values_NE: Tensor, observed_NE: Tensor) -> Recall:
        width = values_NE.shape[1]
        # exactly 1 where all are observed
        rescale_N1 = 1 / (observed_NE.sum(dim=1, keepdim=True).clamp_min(1.0) / width)
        closeness_NC = torch.addmm(
            -0.5 * self.prototypes_CE.square().sum(dim=1), values_NE, self.prototypes_CE.T
        )
        count = min(NEAREST, len(self.prototypes_CE))
        index_NK = torch.topk(closeness_NC, count, dim=1).indices
        near_NKE = nn.functional.embedding(index_NK, self.prototypes_CE)
        difference_NKE = (values_NE.unsqueeze(1) - near_NKE) * observed_NE.unsqueeze(1)
        squared_NK = difference_NKE.square().sum(dim=2) * rescale_N1
        below_NK, copies_NK = nn.functional.embedding(index_NK, self.told_C2).unbind(dim=2)

        # of a row with gaps the nearest are those of the row as it is filled, and another may be
        # the farthest
        farthest_N1 = squared_NK.amax(dim=1, keepdim=True)
        share_NK = farthest_N1 - squared_NK
        kernel_NK = torch.softmax(squared_NK / -self.bandwidth, dim=1)
        tie = 0.0
        if len(self.prototypes_CE) > NEAREST:
            kernel_NK, tie = kernel_NK - kernel_NK.amin(dim=1, keepdim=True), TIE
        if self.copied:
            share_NK, kernel_NK = share_NK * copies_NK, kernel_NK * copies_NK
        weights_NK = kernel_NK / (kernel_NK.sum(dim=1, keepdim=True) + tie)
        recalled_NE = (weights_NK.unsqueeze(1) @ near_NKE).squeeze(1)
        parts_NE = ((values_NE - recalled_NE) * observed_NE).square() * rescale_N1

        usual_N1 = TIE * (farthest_N1 + RESOLUTION * width)
        below_N1 = (share_NK * below_NK).sum(dim=1, keepdim=True) / (
            share_NK.sum(dim=1, keepdim=True) + usual_N1
        )
        closest_NK, place_NK = torch.topk(
            squared_NK, min(CLOSEST, count), dim=1, largest=False, sorted=True
        )
        distance_NK = torch.sqrt(closest_NK + RESOLUTION * width)
        distance_N1 = (
            _mean_of_closest(distance_NK, copies_NK.gather(1, place_NK))
            if self.copied
            else distance_NK.mean(dim=1, keepdim=True)
        )
        ratio_N1 = (distance_N1 * torch.exp(below_N1 - self.usual_scale)).square()
        return Recall(parts_NE, parts_NE.mean(dim=1, keepdim=True), ratio_N1, weights_NK, index_NK)


def _distinct(prototypes_CE: Tensor, resolution: float) -> tuple[Tensor, Tensor]:
    """The prototypes no two of which are as near as the resolution, and how many of all each stands
    for: those that are as near to it, and to none before it.
    """
    prototypes_CE, copies_C = torch.unique(prototypes_CE, dim=0, return_counts=True)
    half_C = 0.5 * prototypes_CE.square().sum(dim=1)
    is_near_CC = torch.cat(
        [
            part_CE @ prototypes_CE.T - half_C - 0.5 * part_CE.square().sum(dim=1, keepdim=True)
            >= -0.5 * resolution
            for part_CE in torch.split(prototypes_CE, 1024)
        ]
    )
    kept, is_left_C = [], torch.ones(len(prototypes_CE), dtype=torch.bool)
    for c, is_near_C in enumerate(is_near_CC):
        if is_left_C[c]:
            kept.append(c)
            is_near_C &= is_left_C
            is_near_C[c] = True
            is_left_C &= ~is_near_C
    return prototypes_CE[kept], is_near_CC[kept].float() @ copies_C.float()


def _mean_of_closest(distance_NK: Tensor, copies_NK: Tensor) -> Tensor:
    """[N, 1] mean of the CLOSEST of ascending distances, each of which is there so many times."""
    before_NK = copies_NK @ torch.ones(distance_NK.shape[1], distance_NK.shape[1]).triu(1)
    taken_NK = (CLOSEST - before_NK).clamp_min(0.0).minimum(copies_NK)
    total_N1 = (distance_NK * taken_NK).sum(dim=1, keepdim=True)
    return total_N1 / taken_NK.sum(dim=1, keepdim=True)


@torch.no_grad()
def neighbourhoods(values_NE: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[C, ROWS_PER_PROTOTYPE] at most `count` rows, drawn at random, each with its nearest."""
    drawn_C = torch.randperm(len(values_NE), generator=generator)[:count]
    members = min(ROWS_PER_PROTOTYPE, len(values_NE))
    near = [_nearest(part, values_NE, members) for part in torch.split(values_NE[drawn_C], 1024)]
    return torch.cat(near)


def _squared_distances(rows_NE: Tensor, others_CE: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """[N, K] to the nearest others, ascending, subtracted one by one, and which these are."""
    squared, indices = [], []
    for part_NE in torch.split(rows_NE, 256):
        index_NK = _nearest(part_NE, others_CE, count)
        squared_NK = (part_NE.unsqueeze(1) - others_CE[index_NK]).square().sum(dim=2)
        squared_NK, order_NK = squared_NK.sort(dim=1)
        squared.append(squared_NK)
        indices.append(index_NK.gather(1, order_NK))
    return torch.cat(squared), torch.cat(indices)


def _nearest(rows_NE: Tensor, others_CE: Tensor, count: int) -> Tensor:
    return torch.topk(
        rows_NE @ others_CE.T - 0.5 * others_CE.square().sum(dim=1), count, dim=1
    ).indices


def averages(values_NE: Tensor, members_CM: Tensor) -> Tensor:
    """[C, E] means of rows, to the last bit the same for the same rows in another order."""
    return values_NE[members_CM].double().mean(dim=1).to(values_NE.dtype)
