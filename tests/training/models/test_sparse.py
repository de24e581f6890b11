import itertools

import pytest
import torch

from hourglass.training.models.member import FitConfig
from hourglass.training.models.sparse import SparseConfig
from tests.training.models.gaussian import WIDTH, draw, encode, fitted

FIT = FitConfig(epochs=40, learning_rate=3e-3)


@torch.no_grad()
def codes(config: SparseConfig) -> torch.Tensor:
    """[N, K] of fresh rows."""
    member = fitted(config)
    latent_NK: torch.Tensor = member.assess(encode(member, draw(2000, seed=9))).latent_NK
    return latent_NK


@pytest.mark.slow
def test_the_l1_penalty_silences_ever_more_units_as_its_weight_grows() -> None:
    inactive = [
        float((codes(SparseConfig(hidden=(), weight=weight, fit=FIT)) == 0).float().mean())
        for weight in (0.0, 0.003, 0.01, 0.03, 0.1)
    ]
    assert all(fewer + 0.05 < more for fewer, more in itertools.pairwise(inactive))
    assert inactive[0] < 0.3
    assert inactive[-1] > 0.8


@pytest.mark.slow
def test_the_kl_penalty_draws_the_mean_activation_to_rho() -> None:
    away = [
        float(
            (
                codes(SparseConfig(hidden=(), penalty="kl", rho=0.05, weight=weight, fit=FIT)).mean(
                    0
                )
                - 0.05
            )
            .abs()
            .max()
        )
        for weight in (0.0, 0.1, 1.0, 10.0)
    ]
    assert all(further > nearer for further, nearer in itertools.pairwise(away))
    assert away[0] > 0.3
    assert away[-1] < 0.01


@pytest.mark.parametrize("rho", [0.05, 0.2])
@pytest.mark.slow
def test_every_unit_goes_to_its_target_whatever_that_is(rho: float) -> None:
    mean_K = codes(SparseConfig(hidden=(), penalty="kl", rho=rho, weight=10.0, fit=FIT)).mean(dim=0)
    assert mean_K.tolist() == pytest.approx([rho] * (2 * WIDTH), rel=0.2)


def test_the_penalties_are_what_the_papers_say() -> None:
    member = fitted(SparseConfig(hidden=(), latent=2, fit=FitConfig(epochs=1)), draw(50, seed=1))
    latent_NK = torch.tensor([[0.1, 0.5], [0.3, 0.0]])
    assert float(member.sparsity(latent_NK)) == pytest.approx((0.6 + 0.3) / 2)
    member.penalty, member.rho = "kl", 0.2
    # mean activations .2, at the target, and .25: .2 ln(.2/.25) + .8 ln(.8/.75)
    assert float(member.sparsity(latent_NK)) == pytest.approx(0.0070025, rel=1e-3)
