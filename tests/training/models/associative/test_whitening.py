"""Whitening against the covariance that is asked for."""

import pytest
import torch

from hourglass.training.models.associative import whitening
from hourglass.training.models.associative.whitening import Whitening

DRAW = torch.Generator().manual_seed(0)
DATA = torch.randn(4000, 6, generator=DRAW) @ torch.randn(6, 6, generator=DRAW)
SEEN = torch.ones_like(DATA)


def covariance(values: torch.Tensor) -> torch.Tensor:
    return values.T @ values / len(values)


def test_wholly_whitened_rows_have_unit_covariance() -> None:
    white = Whitening(6)
    white.fit(DATA, SEEN, power=1.0, shrinkage=0.0, scale=True)
    assert torch.allclose(covariance(white(DATA)), torch.eye(6), atol=0.02)


def test_half_whitened_rows_have_the_root_of_their_covariance() -> None:
    white = Whitening(6)
    white.fit(DATA, SEEN, power=0.5, shrinkage=0.0, scale=False)
    got = covariance(white(DATA))
    assert torch.allclose(got @ got, covariance(DATA), rtol=0.01, atol=0.02)


def test_power_zero_only_scales() -> None:
    plain, scaled = Whitening(6), Whitening(6)
    plain.fit(DATA, SEEN, power=0.0, shrinkage=0.05, scale=False)
    scaled.fit(DATA, SEEN, power=0.0, shrinkage=0.05, scale=True)
    assert torch.allclose(plain(DATA), DATA, atol=1e-4)
    assert torch.allclose(covariance(scaled(DATA)).diagonal(), torch.ones(6), atol=0.01)


def test_a_covariance_is_that_of_the_cells_that_are_seen() -> None:
    gaps = (torch.rand(DATA.shape, generator=torch.Generator().manual_seed(1)) > 0.3).float()
    whole, holed = Whitening(6), Whitening(6)
    whole.fit(DATA, SEEN, power=1.0, shrinkage=0.2, scale=True)
    holed.fit(DATA * gaps, gaps, power=1.0, shrinkage=0.2, scale=True)
    assert torch.allclose(whole.root, holed.root, atol=0.15)


def test_wide_rows_are_whitened_along_their_leading_directions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(whitening, "MAX_COLUMNS", 5)
    monkeypatch.setattr(whitening, "RANK", 2)
    loud = torch.randn(4000, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor(
        [9.0, 4.0]
    )
    data = torch.cat(
        [loud, torch.randn(4000, 4, generator=torch.Generator().manual_seed(3))], dim=1
    )
    wide = Whitening(6)
    wide.fit(data, SEEN, power=1.0, shrinkage=0.0, scale=False)
    assert torch.allclose(covariance(wide(data)), torch.eye(6), atol=0.1)
    assert wide.root.shape == (6, 2)


@pytest.mark.parametrize("most", [5, 6])
def test_twice_by_half_is_wholly(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(whitening, "MAX_COLUMNS", most)
    monkeypatch.setattr(whitening, "RANK", 5)
    half = Whitening(6)
    half.fit(DATA, SEEN, power=0.5, shrinkage=0.0, scale=False)
    twice = half.twice()(DATA.double())
    assert torch.allclose(covariance(twice), torch.eye(6, dtype=torch.float64), atol=0.02)
    assert torch.allclose(twice.float(), half(half(DATA)), rtol=1e-4, atol=1e-4)
