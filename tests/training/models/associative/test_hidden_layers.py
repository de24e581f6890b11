"""The density of hidden layers, beside what it is by hand."""

import math

import torch

from hourglass.training.models.associative.hidden_layers import (
    COMPONENTS,
    MIN_VARIANCE,
    HiddenLayers,
)
from hourglass.training.models.associative.mixture import surprises

ROWS = 4000


def correlated(units: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (
        torch.randn(ROWS, units, generator=draw) @ torch.randn(units, units, generator=draw) + 3.0
    )


def fitted(hidden_NH: torch.Tensor, values_NJ: torch.Tensor, count: int) -> HiddenLayers:
    hidden = HiddenLayers(hidden_NH.shape[1])
    hidden.fit_components(hidden_NH)
    draw = torch.Generator().manual_seed(0)
    hidden.fit_mixture(hidden.project(hidden_NH), values_NJ, count, draw)
    return hidden


def test_the_leading_components_are_uncorrelated_and_of_unit_variance() -> None:
    layer = correlated(COMPONENTS + 16)
    hidden = HiddenLayers(layer.shape[1])
    hidden.fit_components(layer)
    components = hidden.project(layer)
    assert components.shape == (ROWS, COMPONENTS)
    assert torch.allclose(components.T @ components / ROWS, torch.eye(COMPONENTS), atol=1e-3)
    # they hold as much of the variance as any so many directions can
    variance = torch.linalg.eigvalsh(torch.cov(layer.T, correction=0)).flip(0)
    centred = layer - layer.mean(dim=0)
    left = centred - components @ (components.T @ centred) / ROWS
    assert torch.isclose(left.square().sum() / ROWS, variance[COMPONENTS:].sum(), rtol=1e-2)


def test_a_direction_in_which_nothing_varies_is_not_made_to() -> None:
    layer = correlated(4)
    flat = torch.cat(
        [layer, 1e-4 * torch.randn(ROWS, 1, generator=torch.Generator().manual_seed(1))], dim=1
    )
    hidden = HiddenLayers(5)
    hidden.fit_components(flat)
    largest = torch.linalg.eigvalsh(torch.cov(layer.T, correction=0)).max()
    assert hidden.project(flat).std(dim=0).min() <= 1.1e-4 / math.sqrt(MIN_VARIANCE * largest)


def test_of_one_gaussian_the_surprise_is_half_the_mahalanobis_distance_a_component() -> None:
    layer = correlated(6)
    hidden = fitted(layer, layer, count=1)
    covariance = torch.cov(layer.T, correction=0)
    centred = layer - layer.mean(dim=0)
    distance = (centred @ torch.linalg.inv(covariance) * centred).sum(dim=1)
    guess = hidden(layer, layer, torch.ones_like(layer)).guess
    surprise = surprises([guess]).squeeze(1)
    assert torch.allclose(
        surprise - surprise.mean(), (distance - distance.mean()) / 2 / 6, rtol=2e-2, atol=2e-3
    )


def test_what_a_column_has_to_do_with_it_is_how_far_it_is_from_the_rows_of_the_same_group() -> None:
    draw = torch.Generator().manual_seed(2)
    side = torch.where(torch.rand(ROWS, 1, generator=draw) < 0.5, -5.0, 5.0)
    layer = side + torch.randn(ROWS, 3, generator=draw)
    values = torch.cat([side, -side], dim=1) + 0.1 * torch.randn(ROWS, 2, generator=draw)
    hidden = fitted(layer, values, count=16)
    # as a group of rows is, but for the second column
    asked = torch.tensor([[5.0, 0.0], [5.0, -5.0], [5.0, 0.0]])
    seen = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    parts = hidden(torch.full((3, 3), 5.0), asked, seen).parts_NJ
    assert torch.allclose(parts, torch.tensor([[0.0, 25.0], [0.0, 0.0], [0.0, 0.0]]), atol=0.2)
    assert parts[2, 1] == 0  # missing
