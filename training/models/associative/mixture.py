"""Mixture: Gaussians around averages of rows. Its log-density is evidence, and its exact denoiser
fills what is missing.

Each Gaussian has the mean and, by column, the variance of one k-means cluster (Lloyd, 1982) of
MIN_CLUSTER_ROWS rows or more, the variances drawn towards the pooled one. Missing cells do not tell
which Gaussian a row belongs to: they are integrated out, which with independent columns means left
out (Little and Rubin, Statistical Analysis with Missing Data). In the log-density each is what is
expected of it, so that rows that lack different columns compare. The posterior mean is the best
guess of what a row should be (Robbins, 1956; Efron, JASA 106, 2011).

Shapes: N rows, E columns, C Gaussians, M mixtures.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

MIN_CLUSTER_ROWS = 4  # rows behind each Gaussian, at least
ROUNDS = 12
PRIOR = 8.0  # rows that the pooled variance counts for
NEVER = -1e9  # log-density of a Gaussian that is not there
MIN_VARIANCE = 1e-2  # of a column's own: below it float32 cannot subtract the squares any more
FARTHEST = -60.0  # log-density beside the likeliest Gaussian's, from where on it is all the same
LIMIT = 15.0  # standard deviations; what is farther is as unlikely as can be


class Guess(NamedTuple):
    """What a mixture makes of rows."""

    # log of how likely a row and a Gaussian are together, missing cells being as expected; as many
    # as were asked for
    logits_NC: Tensor
    weights_NC: Tensor  # which Gaussian a row belongs to; sum to one
    expected_NE: Tensor  # the posterior mean
    parts_NE: Tensor  # squared distance to it in its own units; non-negative, 0 where missing


class Mixture(nn.Module):
    """Gaussians of independent columns."""

    def __init__(self, mean_CE: Tensor, variance_CE: Tensor, size_C: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean_CE", mean_CE)
        self.register_buffer("precision_CE", 1 / variance_CE)
        self.register_buffer("log_weight_C", torch.log(size_C / size_C.sum()))

    mean_CE: Tensor
    precision_CE: Tensor
    log_weight_C: Tensor

    def __len__(self) -> int:
        """C."""
        return len(self.log_weight_C)

    def forward(self, values_NE: Tensor, observed_NE: Tensor, gaussians: int = 0) -> Guess:
        """Values, 0 where missing; with logits of that many Gaussians, of which those beyond the
        mixture's own are never likely.
        """
        values_NE = values_NE.clamp(-LIMIT, LIMIT)
        # squared distances and log-determinants of the observed columns, as products with the
        # values and their squares, less what the missing ones have in it: in float64, since the
        # squares cancel
        mean_CE, precision_CE, wide_NE = (
            self.mean_CE.double(),
            self.precision_CE.double(),
            values_NE.double(),
        )
        constant_CE = mean_CE.square() * precision_CE - torch.log(precision_CE)
        weights_CI = -0.5 * torch.cat([precision_CE, -2 * mean_CE * precision_CE], dim=1)
        always_C = self.log_weight_C.double() - 0.5 * constant_CE.sum(dim=1)
        weights_IC, missing_EC = (
            _widened(weights_CI, gaussians).T,
            _widened(-0.5 * constant_CE, gaussians).T,
        )
        missing_NE = (1 - observed_NE).double()
        logits_NC = torch.addmm(
            _widened(always_C, gaussians, NEVER),
            torch.cat([wide_NE.square(), wide_NE], dim=1),
            weights_IC,
        ) - (missing_NE @ missing_EC)
        weights_NC = torch.softmax(_beside_likeliest(logits_NC[:, : len(self)])[0], dim=1)
        entropy_CE = 0.5 - 0.5 * torch.log(precision_CE)
        logits_NC = logits_NC - missing_NE @ _widened(entropy_CE, gaussians).T
        expected_NE = weights_NC @ self.mean_CE
        parts_NE = (
            (values_NE - expected_NE).square() * (weights_NC @ self.precision_CE) * observed_NE
        )
        return Guess(logits_NC, weights_NC, expected_NE, parts_NE)


def surprises(guesses: Sequence[Guess]) -> Tensor:
    """[N, M] minus the log-density that each of the guesses, all with as many logits, found: by
    column.
    """
    columns_M = torch.tensor([guess.expected_NE.shape[1] for guess in guesses])
    logits = torch.cat([guess.logits_NC for guess in guesses], dim=1)
    logits_NMC = logits.reshape(-1, len(guesses), logits.shape[1] // len(guesses))
    beside_NMC, most_NM1 = _beside_likeliest(logits_NMC)
    density_NM1 = most_NM1 - torch.log_softmax(beside_NMC, dim=2).amax(dim=2, keepdim=True)
    return density_NM1.squeeze(2) / -columns_M


def _beside_likeliest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """[..., C] -> what each is below the largest, which makes no denormal numbers, since those are
    slow, and the largest [..., 1]; both float32.
    """
    logits = logits.float()
    most = logits.amax(dim=-1, keepdim=True)
    return (logits - most).clamp_min(FARTHEST), most


def _widened(values: Tensor, count: int, filler: float = 0.0) -> Tensor:
    """As many rows as asked for."""
    missing = values.new_full((max(0, count - len(values)), *values.shape[1:]), filler)
    return torch.cat([values, missing])


@torch.no_grad()
def fit_mixture(values_NE: Tensor, observed_NE: Tensor, cluster_N: Tensor) -> Mixture:
    """The mixture of given clusters."""
    count = int(cluster_N.max()) + 1
    values_NE = values_NE.clamp(-LIMIT, LIMIT)
    mean_CE = cluster_means(values_NE, observed_NE, cluster_N, count, least=MIN_CLUSTER_ROWS)
    squares_NE = (values_NE - mean_CE[cluster_N]).square() * observed_NE
    seen_CE = _sums(observed_NE, cluster_N, count)
    pooled_E = squares_NE.sum(dim=0) / observed_NE.sum(dim=0).clamp_min(1.0)
    variance_CE = (_sums(squares_NE, cluster_N, count) + PRIOR * pooled_E) / (seen_CE + PRIOR)
    return Mixture(
        mean_CE, variance_CE + MIN_VARIANCE, torch.bincount(cluster_N, minlength=count).float()
    )


@torch.no_grad()
def assign_clusters(
    values_NE: Tensor, observed_NE: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """[N] which of at most `count` k-means clusters each row belongs to; those of fewer than
    MIN_CLUSTER_ROWS rows are dissolved.
    """
    values_NE = values_NE.clamp(-LIMIT, LIMIT)
    count = max(1, min(count, len(values_NE) // (MIN_CLUSTER_ROWS + 2)))
    centers_CE = values_NE[torch.randperm(len(values_NE), generator=generator)[:count]]
    for _ in range(ROUNDS):
        nearest_N = _nearest(values_NE, observed_NE, centers_CE)
        size_C = torch.bincount(nearest_N, minlength=len(centers_CE))
        means_CE = cluster_means(values_NE, observed_NE, nearest_N, len(centers_CE))
        strays_CE = values_NE[
            torch.randint(len(values_NE), (len(centers_CE),), generator=generator)
        ]
        centers_CE = torch.where((size_C > 0).unsqueeze(1), means_CE, strays_CE)
    while True:
        nearest_N = _nearest(values_NE, observed_NE, centers_CE)
        kept_C = torch.bincount(nearest_N, minlength=len(centers_CE)) >= MIN_CLUSTER_ROWS
        if kept_C.all():
            return nearest_N
        if not kept_C.any():
            return torch.zeros_like(nearest_N)
        centers_CE = centers_CE[kept_C]


def cluster_means(
    values_NE: Tensor, observed_NE: Tensor, cluster_N: Tensor, count: int, *, least: int = 1
) -> Tensor:
    """[C, E] mean of what is observed of each cluster's rows; where fewer than `least` are, zeros
    take their place.
    """
    return _sums(values_NE * observed_NE, cluster_N, count) / _sums(
        observed_NE, cluster_N, count
    ).clamp_min(least)


def _sums(values_NE: Tensor, cluster_N: Tensor, count: int) -> Tensor:
    return torch.zeros(count, values_NE.shape[1]).index_add_(0, cluster_N, values_NE)


def _nearest(values_NE: Tensor, observed_NE: Tensor, centers_CE: Tensor) -> Tensor:
    """By the squared distance over observed columns, in parts that fit the memory."""
    parts = [
        torch.argmin(observed_BE @ centers_CE.square().T - 2 * values_BE @ centers_CE.T, dim=1)
        for values_BE, observed_BE in zip(
            torch.split(values_NE, 4096), torch.split(observed_NE, 4096), strict=True
        )
    ]
    return torch.cat(parts)
