"""Mixture: Gaussians around averages of rows. Its log-density is a head, and its exact denoiser fills what is missing.

Each Gaussian has the mean and, by column, the variance of one k-means cluster (Lloyd, 1982) of at least MEMBERS rows, the variances
drawn towards the pooled one. Missing cells are integrated out, which with independent columns means left out (Little and Rubin,
Statistical Analysis with Missing Data). The posterior mean is the best guess of what a row should be (Robbins, 1956; Efron, JASA 106,
2011).

Shapes: N rows, E columns of one view, C Gaussians.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

MEMBERS = 4  # rows behind each Gaussian, at least
ROUNDS = 12
PRIOR = 8.0  # rows that the pooled variance counts for
MIN_VARIANCE = 1e-2  # of a column's own: below it float32 cannot subtract the squares any more
FARTHEST = -60.0  # log-density beside the likeliest Gaussian's, from where on it is all the same
LIMIT = 15.0  # standard deviations; what is farther is as unlikely as can be


class Guess(NamedTuple):
    """What a mixture makes of rows."""

    surprise_N: Tensor  # minus the log-density of what is observed, by column
    weights_NC: Tensor  # which Gaussian a row belongs to; sum to one
    expected_NE: Tensor  # the posterior mean
    parts_NE: Tensor  # squared distance to it in its own units; non-negative, 0 where missing


class Mixture(nn.Module):
    """The Gaussians of one view."""

    def __init__(self, mean_CE: Tensor, variance_CE: Tensor, size_C: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean_CE", mean_CE)
        self.register_buffer("precision_CE", 1 / variance_CE)
        self.register_buffer("log_weight_C", torch.log(size_C / size_C.sum()))

    mean_CE: Tensor
    precision_CE: Tensor
    log_weight_C: Tensor

    def forward(self, values_NE: Tensor, observed_NE: Tensor) -> Guess:
        values_NE = values_NE.clamp(-LIMIT, LIMIT)
        # squared distances and log-determinants of the observed columns, as products with the values, their squares and the mask: in
        # float64, since the squares cancel
        mean_CE, precision_CE, wide_NE = self.mean_CE.double(), self.precision_CE.double(), values_NE.double()
        constant_CE = mean_CE.square() * precision_CE - torch.log(precision_CE)
        weights_IC = -0.5 * torch.cat([precision_CE, -2 * mean_CE * precision_CE, constant_CE], dim=1).T
        inputs_NI = torch.cat([wide_NE.square(), wide_NE, observed_NE.double()], dim=1)
        logits_NC = (inputs_NI @ weights_IC + self.log_weight_C.double()).float()
        most_N1 = logits_NC.amax(dim=1, keepdim=True)
        weights_NC = torch.softmax(
            (logits_NC - most_N1).clamp_min(FARTHEST), dim=1
        )  # no denormal numbers, which are slow
        density_N = most_N1.squeeze(1) - torch.log(weights_NC.amax(dim=1))  # its log, the logsumexp of the logits
        expected_NE = weights_NC @ self.mean_CE
        parts_NE = (values_NE - expected_NE).square() * (weights_NC @ self.precision_CE) * observed_NE
        columns_N = observed_NE.sum(dim=1).clamp_min(1.0)
        return Guess(-density_N / columns_N, weights_NC, expected_NE, parts_NE)


@torch.no_grad()
def fit_mixture(values_NE: Tensor, observed_NE: Tensor, cluster_N: Tensor) -> Mixture:
    """The mixture of given clusters."""
    count = int(cluster_N.max()) + 1
    values_NE = values_NE.clamp(-LIMIT, LIMIT)
    mean_CE = cluster_means(values_NE, observed_NE, cluster_N, count, least=MEMBERS)
    squares_NE = (values_NE - mean_CE[cluster_N]).square() * observed_NE
    seen_CE = _sums(observed_NE, cluster_N, count)
    pooled_E = squares_NE.sum(dim=0) / observed_NE.sum(dim=0).clamp_min(1.0)
    variance_CE = (_sums(squares_NE, cluster_N, count) + PRIOR * pooled_E) / (seen_CE + PRIOR)
    return Mixture(mean_CE, variance_CE + MIN_VARIANCE, torch.bincount(cluster_N, minlength=count).float())


@torch.no_grad()
def assign_clusters(values_NE: Tensor, observed_NE: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[N] which of at most `count` k-means clusters each row belongs to; those of fewer than MEMBERS rows are dissolved."""
    values_NE = values_NE.clamp(-LIMIT, LIMIT)
    count = max(1, min(count, len(values_NE) // (MEMBERS + 2)))
    centers_CE = values_NE[torch.randperm(len(values_NE), generator=generator)[:count]]
    for _ in range(ROUNDS):
        nearest_N = _nearest(values_NE, observed_NE, centers_CE)
        size_C = torch.bincount(nearest_N, minlength=len(centers_CE))
        means_CE = cluster_means(values_NE, observed_NE, nearest_N, len(centers_CE))
        strays_CE = values_NE[torch.randint(len(values_NE), (len(centers_CE),), generator=generator)]
        centers_CE = torch.where((size_C > 0).unsqueeze(1), means_CE, strays_CE)
    while True:
        nearest_N = _nearest(values_NE, observed_NE, centers_CE)
        kept_C = torch.bincount(nearest_N, minlength=len(centers_CE)) >= MEMBERS
        if kept_C.all():
            return nearest_N
        if not kept_C.any():
            return torch.zeros_like(nearest_N)
        centers_CE = centers_CE[kept_C]


def cluster_means(values_NE: Tensor, observed_NE: Tensor, cluster_N: Tensor, count: int, *, least: int = 1) -> Tensor:
    """[C, E] mean of what is observed of each cluster's rows; where fewer than `least` are, zeros take their place."""
    return _sums(values_NE * observed_NE, cluster_N, count) / _sums(observed_NE, cluster_N, count).clamp_min(least)


def _sums(values_NE: Tensor, cluster_N: Tensor, count: int) -> Tensor:
    return torch.zeros(count, values_NE.shape[1]).index_add_(0, cluster_N, values_NE)


def _nearest(values_NE: Tensor, observed_NE: Tensor, centers_CE: Tensor) -> Tensor:
    """By the squared distance over observed columns, in parts that fit the memory."""
    parts = [
        torch.argmin(observed_BE @ centers_CE.square().T - 2 * values_BE @ centers_CE.T, dim=1)
        for values_BE, observed_BE in zip(torch.split(values_NE, 4096), torch.split(observed_NE, 4096), strict=True)
    ]
    return torch.cat(parts)
