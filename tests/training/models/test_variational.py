import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from hourglass.training.core import Core
from hourglass.training.models.member import FitConfig
from hourglass.training.models.variational import Variational, VariationalConfig, divergence
from tests.training.models.gaussian import (
    FACTORS,
    NOISE_VARIANCE,
    WIDTH,
    covariance,
    draw,
    encode,
    fitted,
    mean,
    pure_noise,
)

ACTIVE = 0.01  # variance over rows of a dimension's posterior mean, the criterion of Burda et al.
SHORT = FitConfig(epochs=1)


def one_cycle(epochs: int) -> FitConfig:
    return FitConfig(epochs=epochs, learning_rate=1e-2, schedule="one_cycle", patience=0)


@pytest.fixture(scope="module")
def member() -> Variational:
    """Twice as many dimensions as the world has factors."""
    config = VariationalConfig(
        hidden=(32,), latent=2 * FACTORS, anneal_steps=300, fit=one_cycle(40)
    )
    member: Variational = fitted(config, draw(5000, seed=1))
    return member


@torch.no_grad()
def kl(member: Variational) -> Tensor:
    """[K] mean divergence of fresh rows' posteriors from the prior, in nats."""
    return divergence(
        *member.posterior(member.encoding.inputs(encode(member, draw(2000, seed=9))))
    ).mean(dim=0)


@torch.no_grad()
@pytest.mark.slow
def test_as_many_dimensions_are_active_as_there_are_factors(member: Variational) -> None:
    mean_NK, _ = member.posterior(member.encoding.inputs(encode(member, draw(2000, seed=9))))
    active_K = mean_NK.var(dim=0) > ACTIVE
    assert int(active_K.sum()) == FACTORS
    assert kl(member)[active_K].min() > 1.0
    assert kl(member)[~active_K].max() < 0.01


@torch.no_grad()
@pytest.mark.slow
def test_made_up_rows_have_the_covariance_of_the_real_ones(member: Variational) -> None:
    generator = torch.Generator().manual_seed(0)
    rows_ND = member.decoder(torch.randn((50_000, 2 * FACTORS), generator=generator))
    noise_D = torch.exp(member.log_variance_D / 2)
    rows_ND += noise_D * torch.randn(rows_ND.shape, generator=generator)
    truth_DD = covariance(member.encoding)
    assert float((torch.cov(rows_ND.T) - truth_DD).norm() / truth_DD.norm()) < 0.1
    assert float((rows_ND.mean(dim=0) - mean(member.encoding)).abs().max()) < 0.1


def test_the_noise_variance_is_learned_and_told_in_raw_units(member: Variational) -> None:
    sampling = member.sampling(encode(member, draw(10, seed=9)))
    assert sampling.kind == "normal"
    assert np.square(sampling.noise).tolist() == pytest.approx([NOISE_VARIANCE] * WIDTH, rel=0.2)
    assert np.square(sampling.noise).mean() == pytest.approx(NOISE_VARIANCE, rel=0.1)


@torch.no_grad()
def test_the_bounds_stand_in_their_order_below_the_likelihood_of_the_truth(
    member: Variational,
) -> None:
    encoded = encode(member, draw(2000, seed=9))
    one_LN = torch.stack(
        [member.bound(encoded, 1, torch.Generator().manual_seed(seed)) for seed in range(32)]
    )
    weighted_N = member.bound(encoded, 32, torch.Generator().manual_seed(100))
    truth = MultivariateNormal(mean(member.encoding), covariance(member.encoding))
    elbo, weighted, likelihood = (
        float(bound.mean())
        for bound in (one_LN, weighted_N, truth.log_prob(encoded.values_NE.double()))
    )
    assert elbo <= weighted <= likelihood
    assert likelihood - elbo < 0.15  # nats, of eleven


@torch.no_grad()
def test_more_draws_never_loosen_the_bound_of_any_row(member: Variational) -> None:
    encoded = encode(member, draw(500, seed=9))
    generator = torch.Generator().manual_seed(3)
    elbo_N = torch.stack([member.bound(encoded, 1, generator) for _ in range(16)]).mean(dim=0)
    # Jensen: on the same sixteen draws
    assert (member.bound(encoded, 16, torch.Generator().manual_seed(3)) >= elbo_N - 1e-4).all()


@torch.no_grad()
def test_without_annealing_the_loss_is_minus_the_elbo_for_each_column() -> None:
    member = fitted(
        VariationalConfig(hidden=(16,), latent=4, anneal_steps=0, fit=SHORT), draw(100, seed=1)
    )
    encoded = encode(member, draw(300, seed=9))
    losses = [
        float(member.loss(encoded, torch.Generator().manual_seed(seed))) for seed in range(200)
    ]
    elbo = [
        float(member.bound(encoded, 1, torch.Generator().manual_seed(seed)).mean())
        for seed in range(200)
    ]
    assert np.mean(losses) == pytest.approx(-np.mean(elbo) / WIDTH, rel=2e-3)


def test_the_divergence_and_the_likelihood_are_those_of_the_normal_distribution() -> None:
    mean_NK, log_variance_NK = torch.randn(5, 3), torch.randn(5, 3)
    posterior = Normal(mean_NK, torch.exp(log_variance_NK / 2))
    expected_NK = kl_divergence(posterior, Normal(torch.zeros(5, 3), torch.ones(5, 3)))
    assert torch.allclose(divergence(mean_NK, log_variance_NK), expected_NK, atol=1e-5)
    member = fitted(VariationalConfig(hidden=(), latent=2, fit=SHORT), draw(50, seed=1))
    encoded = encode(member, draw(5, seed=9))
    outputs_NE = torch.randn(5, WIDTH)
    with torch.no_grad():
        member.log_variance_D.copy_(torch.linspace(-2, 1, WIDTH))
        surprise_N = member.surprise(outputs_NE, encoded)
    truth = Independent(Normal(outputs_NE, torch.exp(torch.linspace(-1, 0.5, WIDTH))), 1)
    assert torch.allclose(surprise_N, -truth.log_prob(encoded.values_NE), rtol=1e-4)


@pytest.mark.slow
def test_free_bits_keep_every_dimension_at_or_above_their_floor(member: Variational) -> None:
    config = VariationalConfig(
        hidden=(), latent=2 * FACTORS, free_bits=0.2, anneal_steps=300, fit=one_cycle(30)
    )
    floored_K = kl(fitted(config, draw(5000, seed=1)))
    # the floor holds for the batches of the last steps; on fresh rows the mean over 2,000 rows is
    # off by some per cent
    assert float(floored_K.min()) > 0.95 * 0.2
    assert float(kl(member).min()) < 0.01


@pytest.mark.slow
def test_a_larger_beta_lets_less_through_the_code() -> None:
    nats = [
        float(
            kl(
                fitted(
                    VariationalConfig(
                        hidden=(), latent=FACTORS, beta=beta, anneal_steps=0, fit=one_cycle(15)
                    )
                )
            ).sum()
        )
        for beta in (0.25, 1.0, 4.0, 64.0)
    ]
    assert all(more > 1.1 * fewer for more, fewer in itertools.pairwise(nats))
    assert nats[-1] < 0.1


def test_the_weight_of_the_divergence_rises_over_the_annealing_and_is_whole_for_held_out_rows() -> (
    None
):
    member = fitted(
        VariationalConfig(hidden=(), latent=2, beta=3.0, anneal_steps=4, fit=SHORT),
        draw(50, seed=1),
    )
    member.steps.zero_()
    weights = [float(member.train()._beta()) for _ in range(6)]
    assert weights == pytest.approx([0.75, 1.5, 2.25, 3.0, 3.0, 3.0])
    member.steps.zero_()
    assert float(member.eval()._beta()) == 3.0
    assert float(member.steps) == 0.0


@pytest.fixture(scope="module")
def by_probability(member: Variational) -> Core:
    """The same network, scoring by reconstruction probability."""
    scoring = Variational(
        VariationalConfig(hidden=(32,), latent=2 * FACTORS, score="probability", score_draws=16),
        member.encoding,
    )
    scoring.load_state_dict(member.state_dict())
    core = Core(scoring).eval()
    core.weigh(draw(2000, seed=4))
    return core


@torch.no_grad()
def test_the_reconstruction_probability_is_the_mean_log_likelihood_over_fixed_draws(
    by_probability: Core, member: Variational
) -> None:
    rows_ND = draw(1000, seed=9)
    encoded = encode(member, rows_ND)
    mean_NK, log_variance_NK = member.posterior(member.encoding.inputs(encoded))
    draws_L1K = torch.randn((16, 1, 2 * FACTORS), generator=torch.Generator().manual_seed(0))
    surprise_LN = torch.stack(
        [
            member.surprise(
                member.decoder(mean_NK + torch.exp(log_variance_NK / 2) * noise_1K), encoded
            )
            for noise_1K in draws_L1K
        ]
    )
    constant = float(0.5 * (member.log_variance_D + np.log(2 * np.pi)).sum())
    score_N, contributions_ND, *_ = by_probability(rows_ND)
    # 2 (surprise - constant) / D is the mean squared error in units of the learned variance, the
    # score that in held-out ones
    by_hand_N = 2 * (surprise_LN.mean(dim=0) - constant) / WIDTH
    assert float(torch.corrcoef(torch.stack([score_N, by_hand_N]))[0, 1]) > 0.995
    assert float(score_N.mean() / by_hand_N.mean()) == pytest.approx(1.0, abs=0.1)
    assert (contributions_ND >= 0).all()
    assert torch.allclose(contributions_ND.sum(dim=1), score_N, rtol=1e-5)
    assert torch.equal(score_N, by_probability(rows_ND).score_N)


@torch.no_grad()
def test_rows_off_the_plane_are_less_probable_than_rows_on_it(by_probability: Core) -> None:
    normal_N, odd_N = (
        by_probability(draw(1000, seed=9)).score_N,
        by_probability(pure_noise(1000, seed=5)).score_N,
    )
    assert float((odd_N > normal_N.quantile(0.99)).float().mean()) > 0.99
