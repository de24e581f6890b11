import itertools

import pytest
import torch

from hourglass.training.models.contractive import ContractiveConfig
from hourglass.training.models.member import FitConfig
from tests.training.models.gaussian import WIDTH, draw, encode, fitted

FIT = FitConfig(epochs=40, learning_rate=3e-3)


def test_the_analytic_norm_is_that_of_the_jacobian() -> None:
    member = fitted(ContractiveConfig(latent=7, fit=FitConfig(epochs=3)))
    rows_ND = draw(20, seed=9)
    rows_ND[::2, 3] = torch.nan
    encoded = encode(member, rows_ND)
    analytic_N = member.jacobian_norm(member(member.encoding.inputs(encoded))[1])
    for value_NE, mask_ND, norm in zip(
        encoded.values_NE.split(1), encoded.observed_ND.split(1), analytic_N, strict=True
    ):
        jacobian_KE = torch.autograd.functional.jacobian(
            lambda value_NE, mask_ND=mask_ND: member(torch.cat([value_NE, 1 - mask_ND], dim=1))[1],
            value_NE,
        ).squeeze()
        assert jacobian_KE.shape == (7, WIDTH)
        assert torch.allclose(jacobian_KE.square().sum(), norm, rtol=1e-5)


@pytest.mark.slow
def test_the_norm_on_data_falls_as_the_weight_grows() -> None:
    norms = []
    for weight in (0.0, 0.1, 1.0, 10.0):
        member = fitted(ContractiveConfig(weight=weight, fit=FIT))
        with torch.no_grad():
            latent_NK = member.assess(encode(member, draw(2000, seed=9))).latent_NK
            norms.append(float(member.jacobian_norm(latent_NK).mean()))
    assert all(larger > 1.05 * smaller for larger, smaller in itertools.pairwise(norms))
    assert norms[0] > 5 * norms[-1]


def test_the_weight_is_that_of_the_mean_norm_for_each_encoded_column() -> None:
    member = fitted(ContractiveConfig(weight=0.0, fit=FitConfig(epochs=1)), draw(50, seed=1))
    encoded = encode(member, draw(50, seed=2))
    without = member.loss(encoded, torch.Generator())
    member.weight = 3.0
    penalty = member.loss(encoded, torch.Generator()) - without
    norm = member.jacobian_norm(member(member.encoding.inputs(encoded))[1]).mean()
    assert torch.allclose(penalty, 3.0 * norm / WIDTH, rtol=1e-3)
