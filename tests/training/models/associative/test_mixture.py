"""The mixture against Gaussians that are known."""

import math

import torch

from hourglass.training.models.associative.mixture import (
    MIN_CLUSTER_ROWS,
    MIN_VARIANCE,
    Guess,
    Mixture,
    assign_clusters,
    cluster_means,
    fit_mixture,
    surprises,
)

MEAN = torch.tensor([[0.0, 0.0, 1.0], [3.0, -2.0, 0.0]])
VARIANCE = torch.tensor([[1.0, 4.0, 0.25], [0.5, 1.0, 2.0]])
MIXTURE = Mixture(MEAN, VARIANCE, torch.tensor([30.0, 10.0]))


def log_density(row: torch.Tensor, columns: list[int]) -> torch.Tensor:
    """[C] of each Gaussian with its weight, without the constant of the Gaussian."""
    part = torch.distributions.Normal(MEAN[:, columns], VARIANCE[:, columns].sqrt()).log_prob(
        row[columns]
    )
    return (
        part.sum(dim=1)
        + len(columns) * 0.5 * math.log(2 * math.pi)
        + torch.log(torch.tensor([0.75, 0.25]))
    )


def surprise(guess: Guess) -> torch.Tensor:
    return surprises([guess]).squeeze(1)


def test_the_surprise_is_minus_the_log_density_of_a_column() -> None:
    row = torch.tensor([1.5, -1.0, 0.5])
    guess = MIXTURE(row.unsqueeze(0), torch.ones(1, 3))
    assert torch.allclose(
        surprise(guess), -torch.logsumexp(log_density(row, [0, 1, 2]), dim=0) / 3, rtol=1e-5
    )
    assert torch.allclose(
        guess.weights_NC[0], torch.softmax(log_density(row, [0, 1, 2]), dim=0), rtol=1e-5
    )
    assert torch.allclose(guess.expected_NE[0], guess.weights_NC[0] @ MEAN, rtol=1e-5)


def test_a_missing_column_does_not_tell_where_a_row_belongs() -> None:
    row = torch.tensor([1.5, 0.0, 0.5])
    guess = MIXTURE(row.unsqueeze(0), torch.tensor([[1.0, 0.0, 1.0]]))
    assert torch.allclose(
        guess.weights_NC[0], torch.softmax(log_density(row, [0, 2]), dim=0), rtol=1e-5
    )
    assert guess.parts_NE[0, 1] == 0


def test_a_missing_column_is_as_unlikely_as_it_is_expected_to_be() -> None:
    row, observed = torch.tensor([[1.5, 0.0, 0.5]]), torch.tensor([[1.0, 0.0, 1.0]])
    mean, variance = torch.tensor([[1.0, -2.0, 0.2]]), torch.tensor([[0.5, 4.0, 0.01]])
    gaussian = Mixture(mean, variance, torch.ones(1))
    # a squared distance is, on average, that of one standard deviation
    drawn = row + torch.tensor([[0.0, -4.0, 0.0], [0.0, 0.0, 0.0]])
    assert torch.allclose(
        surprise(gaussian(row, observed)),
        surprise(gaussian(drawn, torch.ones(2, 3))).mean(),
        rtol=1e-5,
    )

    entropy = torch.distributions.Normal(
        MEAN[:, 1], VARIANCE[:, 1].sqrt()
    ).entropy() - 0.5 * math.log(2 * math.pi)
    expected = log_density(row[0], [0, 2]) - entropy
    assert torch.allclose(
        surprise(MIXTURE(row, observed)), -torch.logsumexp(expected, dim=0) / 3, rtol=1e-5
    )


def test_mixtures_that_are_read_together_say_what_each_says_alone() -> None:
    rows, seen = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), torch.ones(50, 3)
    one = Mixture(torch.randn(5, 3), torch.rand(5, 3) + 0.1, torch.arange(1.0, 6.0))
    alone = [surprise(mixture(rows, seen)) for mixture in (MIXTURE, one)]
    together = surprises([mixture(rows, seen, 7) for mixture in (MIXTURE, one)])
    assert torch.allclose(together, torch.stack(alone, dim=1), rtol=1e-6)
    assert torch.equal(MIXTURE(rows, seen, 7).weights_NC, MIXTURE(rows, seen).weights_NC)


def test_every_gaussian_stands_for_at_least_four_rows_and_has_their_mean() -> None:
    draw = torch.Generator().manual_seed(0)
    data = torch.cat(
        [
            torch.randn(200, 3, generator=draw),
            12 + torch.arange(3.0).unsqueeze(1) * torch.ones(1, 3),
        ]
    )
    seen = torch.ones_like(data)
    cluster = assign_clusters(data, seen, 64, draw)
    sizes = torch.bincount(cluster)
    assert (sizes >= MIN_CLUSTER_ROWS).all()
    assert sizes.sum() == len(data)
    mixture = fit_mixture(data, seen, cluster)
    assert torch.allclose(mixture.mean_CE[0], data[cluster == 0].mean(dim=0), atol=1e-5)


def test_cells_that_are_missing_do_not_count_in_a_mean() -> None:
    values, seen = torch.tensor([[2.0, 0.0], [4.0, 8.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    means = cluster_means(values, seen, torch.zeros(2, dtype=torch.int64), 1)
    assert means.tolist() == [[3.0, 8.0]]


def test_the_fitted_mixture_has_nearly_the_entropy_of_the_rows_own_density() -> None:
    draw = torch.Generator().manual_seed(1)
    side = torch.where(torch.rand(8000, 1, generator=draw) < 0.5, -3.0, 3.0)
    data = side + torch.randn(8000, 2, generator=draw)
    cluster = assign_clusters(data[:4000], torch.ones(4000, 2), 2, draw)
    mixture = fit_mixture(data[:4000], torch.ones(4000, 2), cluster)
    mean = surprise(mixture(data[4000:], torch.ones(4000, 2))).mean()
    # two Gaussians that hardly overlap: the entropy of one and of the choice, by column, without
    # the constant
    assert torch.isclose(mean, torch.tensor((1.0 + math.log(2)) / 2), atol=0.03)
    assert torch.allclose(
        mixture.precision_CE, torch.full((2, 2), 1 / (1 + MIN_VARIANCE)), rtol=0.1
    )


def test_a_gaussian_that_is_too_far_to_matter_has_no_denormal_weight() -> None:
    centres = torch.tensor([[-12.0, -12.0], [12.0, 12.0]]).repeat_interleave(10, dim=0)
    rows = centres + 0.1 * torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    mixture = fit_mixture(rows, torch.ones_like(rows), torch.arange(20) // 10)
    weights = mixture(rows, torch.ones_like(rows)).weights_NC
    assert (weights > torch.finfo(torch.float32).tiny).all()
    assert weights.amin(dim=1).max() < 1e-20
