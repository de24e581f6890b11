import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hourglass.service.model.artifact import Feature
from hourglass.training.features import Encoding
from hourglass.training.fit import fit
from hourglass.training.models.linear import LinearAutoencoder, LinearConfig
from tests.training import tables

Float64 = NDArray[np.float64]

CASES = {
    "four numbers around a plane": (tables.correlated(400), 2),
    # eigenvalues from far above one another to nearly equal
    "sixteen numbers, stretched": (tables.correlated(1500, width=16, latent=6, noise=0.5, of=1), 4),
    "as many rows as it takes": (tables.correlated(60, width=8, latent=3, of=2), 3),
}


@pytest.fixture(
    scope="module", params=[(case, tied) for case in CASES for tied in (False, True)], ids=str
)
def fitted(request: pytest.FixtureRequest) -> tuple[LinearAutoencoder, torch.Tensor, int]:
    case, tied = request.param
    rows_ND, latent = CASES[case]
    features = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(rows_ND.shape[1]))
    config = LinearConfig(latent=latent, tied=tied)
    torch.manual_seed(0)
    member = config.build(Encoding(features, rows_ND))
    rows = torch.from_numpy(rows_ND)
    fit(member, rows, rows[:10], config.fit, seed=0)
    return member, rows, latent


def principal_axes(
    member: LinearAutoencoder, rows: torch.Tensor, latent: int
) -> tuple[Float64, Float64]:
    """P [D, K] of the standardised rows, and those rows [N, D]."""
    values_ND = member.encoding.encode(rows).values_NE.double().numpy()
    return np.linalg.svd(values_ND, full_matrices=False)[2][:latent].T, values_ND


@pytest.mark.slow
def test_it_spans_the_principal_subspace(
    fitted: tuple[LinearAutoencoder, torch.Tensor, int],
) -> None:
    member, rows, latent = fitted
    axes_DK, _ = principal_axes(member, rows, latent)
    weight_DK = member.encoder.weight.T if member.decoder is None else member.decoder.weight
    spanned_DK = np.linalg.qr(weight_DK.detach().double().numpy())[0]
    outside_DK = spanned_DK - axes_DK @ (axes_DK.T @ spanned_DK)
    assert np.linalg.norm(outside_DK, 2) < 1e-3  # the sine of the largest principal angle


@torch.no_grad()
def test_its_residuals_are_those_of_principal_components(
    fitted: tuple[LinearAutoencoder, torch.Tensor, int],
) -> None:
    member, rows, latent = fitted
    axes_DK, values_ND = principal_axes(member, rows, latent)
    residuals_ND = values_ND - values_ND @ axes_DK @ axes_DK.T
    errors_ND = member.assess(member.encoding.encode(rows)).errors_ND.numpy()
    assert np.abs(np.sqrt(errors_ND) - np.abs(residuals_ND)).max() < 5e-3
    assert errors_ND.mean() == pytest.approx((residuals_ND**2).mean(), rel=1e-4)


def test_tied_weights_are_a_rotation_of_the_axes() -> None:
    rows = torch.from_numpy(tables.correlated(1500, width=16, latent=6, noise=0.5, of=1))
    features = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(16))
    config = LinearConfig(latent=4, tied=True)
    torch.manual_seed(0)
    member = config.build(Encoding(features, rows.numpy()))
    fit(member, rows, rows[:10], config.fit, seed=0)
    weight_KD = member.encoder.weight.detach()
    assert float((weight_KD @ weight_KD.T - torch.eye(4)).abs().max()) < 1e-4


def test_the_number_of_components_follows_the_width_unless_it_is_given() -> None:
    features = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(12))
    encoding = Encoding(features, tables.correlated(30, width=12))
    assert LinearConfig().resolve(encoding).latent == 4
    assert LinearConfig(latent=7).resolve(encoding).latent == 7
