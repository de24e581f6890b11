import math

import pytest
import torch

from hourglass.service.model.artifact import Feature
from hourglass.training.features import Encoded, Encoding
from hourglass.training.fit import Fitted, fit
from hourglass.training.models.denoising import Denoising, DenoisingConfig
from hourglass.training.models.member import FitConfig
from tests.training import tables
from tests.training.models import gaussian

FEATURES = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(6))
ROWS = tables.correlated(600, width=6)
SHORT = FitConfig(epochs=30, learning_rate=1e-2)


def fitted(seed: int, **settings: float) -> tuple[Denoising, Fitted]:
    config = DenoisingConfig(latent=2, **settings)  # type: ignore[arg-type]
    torch.manual_seed(seed)
    encoding = Encoding(FEATURES, ROWS)
    member = config.resolve(encoding).build(encoding)
    return member, fit(
        member, torch.from_numpy(ROWS[:500]), torch.from_numpy(ROWS[500:]), SHORT, seed=seed
    )


@pytest.fixture(scope="module")
def member() -> Denoising:
    return fitted(0)[0]


def encode(member: Denoising, rows: int = 2000) -> Encoded:
    return member.encoding.encode(torch.from_numpy(tables.correlated(rows, width=6, seed=7)))


@torch.no_grad()
def test_it_reconstructs_fresh_rows_better_than_their_mean_does(member: Denoising) -> None:
    encoded = encode(member)
    outputs_NE, _ = member(member.encoding.inputs(encoded))
    assert float(member.reconstruction_loss(outputs_NE, encoded)) < 0.25  # of the mean: about 1
    assert float(encoded.values_NE.square().mean()) == pytest.approx(1.0, abs=0.2)


@torch.no_grad()
def test_it_fills_a_hidden_cell_from_the_others(member: Denoising) -> None:
    whole = encode(member)
    rows_ND = torch.from_numpy(tables.correlated(2000, width=6, seed=7))
    for feature in range(6):
        holed_ND = rows_ND.clone()
        holed_ND[:, feature] = math.nan
        outputs_NE = member.assess(member.encoding.encode(holed_ND)).outputs_NE
        error = (outputs_NE[:, feature] - whole.values_NE[:, feature]).square().mean()
        assert float(error) < 0.6 * float(whole.values_NE[:, feature].square().mean())


def test_the_noise_is_gaussian_and_falls_on_observed_numbers_only() -> None:
    features = (*FEATURES[:2], Feature(name="open", kind="boolean"))
    rows_ND = torch.cat(
        [torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)), torch.ones(4000, 1)],
        dim=1,
    )
    rows_ND[:, 1] = math.nan
    rows_ND[0, 1] = 1.0
    encoding = Encoding(features, rows_ND.numpy())
    member = DenoisingConfig(noise=0.3, mask_rate=0.0).resolve(encoding).build(encoding)
    clean = encoding.encode(rows_ND)
    spoilt = member._corrupt(clean, torch.Generator().manual_seed(1))
    noise_NE = spoilt.values_NE - clean.values_NE
    assert float(noise_NE[:, 0].std()) == pytest.approx(0.3, rel=0.05)
    assert abs(float(noise_NE[:, 0].mean())) < 0.02
    assert not noise_NE[1:, 1].any()
    assert not noise_NE[:, 2].any()
    assert torch.equal(spoilt.observed_ND, clean.observed_ND)


def test_the_share_of_hidden_cells_is_drawn_for_each_row_up_to_the_mask_rate() -> None:
    features = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(200))
    rows_ND = tables.correlated(500, width=200)
    encoding = Encoding(features, rows_ND)
    member = DenoisingConfig(noise=0.0, mask_rate=0.5).resolve(encoding).build(encoding)
    clean = encoding.encode(torch.from_numpy(rows_ND))
    spoilt = member._corrupt(clean, torch.Generator().manual_seed(2))
    hidden_N = 1 - spoilt.observed_ND.mean(dim=1)
    # uniform on (0, .5): mean .25, deviation .144, and never far beyond .5
    assert float(hidden_N.mean()) == pytest.approx(0.25, abs=0.03)
    assert float(hidden_N.std()) == pytest.approx(0.144, abs=0.03)
    assert float(hidden_N.max()) < 0.65
    assert torch.equal(spoilt.values_NE, clean.values_NE * spoilt.observed_ND)


def test_the_loss_is_that_of_the_clean_row(member: Denoising) -> None:
    encoded = encode(member, 50)
    with torch.no_grad():
        outputs_NE, _ = member(
            member.encoding.inputs(member._corrupt(encoded, torch.Generator().manual_seed(3)))
        )
        loss = member.loss(encoded, torch.Generator().manual_seed(3))
    expected = (outputs_NE - encoded.values_NE).square().mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_the_seed_determines_the_result() -> None:
    first, again, other = fitted(5), fitted(5), fitted(6)
    assert first[1] == again[1]
    for name, tensor in first[0].state_dict().items():
        assert torch.equal(tensor, again[0].state_dict()[name])
    assert first[1].held_out_loss != other[1].held_out_loss


@torch.no_grad()
@pytest.mark.parametrize(
    ("noise", "hidden", "fit_config"),
    [
        (
            0.2,
            (),
            FitConfig(
                epochs=40, batch_size=128, learning_rate=1e-2, schedule="one_cycle", patience=0
            ),
        ),
        (
            0.5,
            (64,),
            FitConfig(
                epochs=40, batch_size=256, learning_rate=1e-2, schedule="one_cycle", patience=0
            ),
        ),
        (
            1.0,
            (32,),
            FitConfig(
                epochs=20, batch_size=256, learning_rate=1e-2, schedule="one_cycle", patience=0
            ),
        ),
    ],
    ids=["linear at the default noise", "at half a deviation", "at a whole one"],
)
@pytest.mark.slow
def test_what_it_takes_away_is_what_the_optimal_denoiser_of_the_known_gaussian_takes_away(
    noise: float, hidden: tuple[int, ...], fit_config: FitConfig
) -> None:
    # a code as wide as the row: a narrower one cannot hold the optimum, which shrinks every
    # direction but drops none
    config = DenoisingConfig(
        hidden=hidden, latent=gaussian.WIDTH, noise=noise, mask_rate=0.0, fit=fit_config
    )
    with torch.enable_grad():
        member = gaussian.fitted(config, gaussian.draw(8000, seed=1))
    encoding = member.encoding
    clean = gaussian.encode(member, gaussian.draw(4000, seed=9))
    noisy_NE = clean.values_NE + noise * torch.randn(
        clean.values_NE.shape, generator=torch.Generator().manual_seed(3)
    )
    outputs_NE, _ = member(encoding.inputs(Encoded(noisy_NE, clean.observed_ND)))
    # E[x | noisy] = m + S (S + s^2 I)^-1 (noisy - m)
    covariance_DD, mean_D = gaussian.covariance(encoding), gaussian.mean(encoding)
    spread_DD = covariance_DD + noise**2 * torch.eye(gaussian.WIDTH)
    optimum_NE = mean_D + (noisy_NE - mean_D) @ torch.linalg.solve(spread_DD, covariance_DD)
    cosine_N = torch.cosine_similarity(outputs_NE - noisy_NE, optimum_NE - noisy_NE, dim=1)
    risk, least = ((guess - clean.values_NE).square().mean() for guess in (outputs_NE, optimum_NE))
    assert float(cosine_N.mean()) >= 0.98
    assert float(risk) <= 1.05 * float(least)


def test_swap_noise_puts_another_rows_value_of_the_same_feature_in_place_of_observed_cells() -> (
    None
):
    features = (
        *FEATURES[:2],
        Feature(name="site", kind="categorical", categories=("north", "south", "west")),
    )
    count = 6000
    rows_ND = torch.stack(
        [torch.arange(count) * 1.0, -torch.arange(count) * 1.0, torch.arange(count) % 3.0], dim=1
    )
    rows_ND[::2, 1] = math.nan
    encoding = Encoding(features, rows_ND.numpy())
    member = (
        DenoisingConfig(noise=0.0, mask_rate=0.0, swap_rate=0.3).resolve(encoding).build(encoding)
    )
    clean = encoding.encode(rows_ND)
    spoilt = member._corrupt(clean, torch.Generator().manual_seed(4))
    assert torch.equal(spoilt.observed_ND, clean.observed_ND)
    assert not spoilt.values_NE[::2, 1].any()  # a missing cell takes nothing
    # and lends nothing
    assert set(spoilt.values_NE[1::2, 1].tolist()) <= set(clean.values_NE[1::2, 1].tolist())
    assert (spoilt.values_NE[:, 2:].sum(dim=1) == 1).all()  # a category is swapped whole
    changed_NE = spoilt.values_NE != clean.values_NE
    assert float(changed_NE[:, 0].float().mean()) == pytest.approx(0.3, abs=0.02)
    # half of the partners of an observed cell are missing, a third of the sites are the same
    assert float(changed_NE[1::2, 1].float().mean()) == pytest.approx(0.3 / 2, abs=0.02)
    assert float(changed_NE[:, 2:].any(dim=1).float().mean()) == pytest.approx(
        0.3 * 2 / 3, abs=0.02
    )
