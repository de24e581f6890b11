import numpy as np
import pytest
import torch
from torch import Tensor

from hourglass.training.core import Core
from hourglass.training.models.member import FitConfig
from hourglass.training.models.quantized import Quantized, QuantizedConfig, straight_through
from tests.training.models.gaussian import encode, fitted

CLUSTERS, WIDTH = 16, 8
FIT = FitConfig(epochs=30, learning_rate=3e-3)


def clustered(count: int, seed: int, spread: float = 0.1) -> Tensor:
    """[N, D] rows around sixteen fixed points, equally often."""
    centers_CD = np.random.default_rng(0).normal(size=(CLUSTERS, WIDTH))
    rng = np.random.default_rng(seed)
    rows_ND = centers_CD[rng.integers(CLUSTERS, size=count)] + spread * rng.normal(
        size=(count, WIDTH)
    )
    return torch.from_numpy(rows_ND.astype(np.float32))


def perplexity(count_C: Tensor) -> float:
    """exp of the entropy of the codes' shares: how many codes, used equally often, would be as
    varied.
    """
    share_C = count_C[count_C > 0] / count_C.sum()
    return float(torch.exp(-(share_C * share_C.log()).sum()))


@pytest.fixture(scope="module")
def member() -> Quantized:
    member: Quantized = fitted(
        QuantizedConfig(hidden=(32,), codes=CLUSTERS, fit=FIT), clustered(3000, seed=1)
    )
    return member


def test_the_gradient_passes_the_codebook_unchanged() -> None:
    draw = torch.Generator().manual_seed(0)
    code_NK = torch.randn(5, 3, generator=draw, requires_grad=True)
    quantized_NK = torch.randn(5, 3, generator=draw, requires_grad=True)
    gradient_NK = torch.randn(5, 3, generator=draw)
    out_NK = straight_through(code_NK, quantized_NK)
    assert torch.allclose(out_NK, quantized_NK, atol=1e-6)  # code + (quantized - code)
    out_NK.backward(gradient_NK)
    assert code_NK.grad is not None
    assert torch.equal(code_NK.grad, gradient_NK)
    assert quantized_NK.grad is None  # the codebook follows by its moving average


@pytest.mark.slow
def test_the_encoder_learns_from_the_reconstruction_through_the_codebook(member: Quantized) -> None:
    encoded = encode(member, clustered(50, seed=3))
    code_NK = member.encoder(member.encoding.inputs(encoded))
    quantized_NK = member.codebook_CK[member.nearest(code_NK)].clone().requires_grad_()
    member.reconstruction_loss(member.decoder(quantized_NK), encoded).backward()
    through = straight_through(code_NK, quantized_NK.detach())
    (received,) = torch.autograd.grad(
        member.reconstruction_loss(member.decoder(through), encoded), code_NK
    )
    assert quantized_NK.grad is not None
    assert float(received.abs().max()) > 0
    assert torch.allclose(received, quantized_NK.grad, rtol=1e-4, atol=1e-7)


@torch.no_grad()
def test_every_code_is_the_entry_of_the_codebook_nearest_to_the_row(member: Quantized) -> None:
    encoded = encode(member, torch.cat([clustered(500, seed=3), 5 * torch.randn(100, WIDTH)]))
    code_NK = member.encoder(member.encoding.inputs(encoded))
    distance_NC = (code_NK.double().unsqueeze(1) - member.codebook_CK.double()).square().sum(dim=2)
    latent_NK = member.assess(encoded).latent_NK
    assert torch.equal(latent_NK, member.codebook_CK[member.nearest(code_NK)])
    chosen_N = distance_NC.gather(1, member.nearest(code_NK).unsqueeze(1)).squeeze(1)
    assert torch.allclose(chosen_N, distance_NC.min(dim=1).values, rtol=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.slow
def test_as_many_clusters_as_codes_use_most_of_the_codebook(seed: int) -> None:
    member = fitted(
        QuantizedConfig(hidden=(32,), codes=CLUSTERS, fit=FIT), clustered(3000, seed=1), seed=seed
    )
    count_C = member.usage(encode(member, clustered(3000, seed=2)))
    assert int(count_C.sum()) == 3000
    assert perplexity(count_C) >= 0.8 * CLUSTERS


def test_dead_codes_are_restarted_at_rows() -> None:
    rows_ND = clustered(400, seed=1)
    member = fitted(QuantizedConfig(hidden=(), codes=CLUSTERS, fit=FitConfig(epochs=1)), rows_ND)
    member.codebook_CK[1:] = 1e3  # where no row ever is
    member.sum_CK.copy_(member.codebook_CK * member.count_C.unsqueeze(1))
    encoded = encode(member, rows_ND)
    assert int((member.usage(encoded) > 0).sum()) == 1
    with torch.no_grad():
        code_NK = member.encoder(member.encoding.inputs(encoded))
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        member._update(code_NK, generator)
    assert perplexity(member.usage(encoded)) >= 0.7 * CLUSTERS
    assert float(member.codebook_CK.abs().max()) <= float(code_NK.abs().max()) + 1e-4


@torch.no_grad()
def test_an_entry_moves_to_the_mean_of_the_rows_it_stands_for() -> None:
    member = fitted(
        QuantizedConfig(hidden=(), latent=2, codes=2, fit=FitConfig(epochs=1)),
        clustered(50, seed=1),
    )
    member.codebook_CK.copy_(torch.tensor([[0.0, 0.0], [10.0, 10.0]]))
    member.count_C.fill_(2.0)
    member.sum_CK.copy_(2 * member.codebook_CK)
    code_NK = torch.tensor([[1.0, 0.0], [0.0, 3.0], [10.0, 12.0], [8.0, 10.0]])
    for _ in range(500):
        member._update(code_NK, torch.Generator())
    assert member.codebook_CK.tolist() == [pytest.approx([0.5, 1.5]), pytest.approx([9.0, 11.0])]


@torch.no_grad()
@pytest.mark.slow
def test_the_distance_score_is_the_distance_to_the_code_in_units_of_a_normal_row() -> None:
    config = QuantizedConfig(hidden=(32,), codes=CLUSTERS, score="distance", fit=FIT)
    member = fitted(config, clustered(3000, seed=1))
    core, held_out_ND, rows_ND = Core(member).eval(), clustered(500, seed=2), clustered(200, seed=3)
    core.weigh(held_out_ND)

    def distance(rows_ND: Tensor) -> Tensor:
        code_NK = member.encoder(member.encoding.inputs(encode(member, rows_ND)))
        distance_NC = (code_NK.unsqueeze(1) - member.codebook_CK).square().mean(dim=2)
        return distance_NC.min(dim=1).values

    holed_ND = rows_ND.clone()
    holed_ND[::3, 1] = torch.nan
    unit = distance(held_out_ND).mean()
    for some_ND in (rows_ND, holed_ND):
        score_N, contributions_ND, *_ = core(some_ND)
        assert torch.allclose(score_N, distance(some_ND) / unit, rtol=1e-3, atol=1e-4)
        assert (contributions_ND >= 0).all()
        assert torch.allclose(contributions_ND.sum(dim=1), score_N, rtol=1e-5)
    between_ND = (rows_ND + rows_ND.flip(0))[(rows_ND - rows_ND.flip(0)).norm(dim=1) > 1] / 2
    # rows halfway between two clusters stand above rows of a cluster
    assert (
        float((core(between_ND).score_N.unsqueeze(1) > core(rows_ND).score_N).float().mean()) > 0.95
    )


@torch.no_grad()
def test_the_distance_score_is_shared_equally_where_nothing_is_reconstructed_wrongly() -> None:
    config = QuantizedConfig(
        hidden=(), latent=2, codes=2, score="distance", fit=FitConfig(epochs=1)
    )
    member = fitted(config, clustered(50, seed=1))
    rows_ND = clustered(1, seed=3)
    encoded = encode(member, rows_ND)
    member.decoder[0].weight.zero_()
    member.decoder[0].bias.copy_(encoded.values_NE[0])
    errors_ND = member.assess(encoded).errors_ND
    assert float(errors_ND.sum()) > 0
    assert errors_ND[0].tolist() == pytest.approx([float(errors_ND.mean())] * WIDTH)


@torch.no_grad()
def test_new_rows_come_from_the_codes_that_rows_used_by_how_often_they_did(
    member: Quantized,
) -> None:
    encoded = encode(member, clustered(3000, seed=1))
    sampling, count_C = member.sampling(encoded), member.usage(encoded)
    assert sampling.kind == "codebook"
    assert sum(sampling.shares) == pytest.approx(1.0)
    assert list(sampling.shares) == pytest.approx((count_C[count_C > 0] / 3000).tolist())
    assert torch.equal(torch.tensor(sampling.codes), member.codebook_CK[count_C > 0])
    # the noise is what the decoded codes leave of the rows, in raw units
    residual_ND = clustered(3000, seed=1) - member.encoding.decode(
        member.assess(encoded).outputs_NE
    )
    assert list(sampling.noise) == pytest.approx(
        residual_ND.square().mean(dim=0).sqrt().tolist(), rel=1e-3
    )
