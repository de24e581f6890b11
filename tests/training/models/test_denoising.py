import math

import pytest
import torch

from service.artifact import Feature
from tests.training import tables
from training.features import Encoded, Encoding
from training.fit import Fitted, fit
from training.models.denoising import Denoising, DenoisingConfig
from training.models.member import FitConfig

FEATURES = tuple(Feature(name=f"x{i}", kind="numeric") for i in range(6))
ROWS = tables.correlated(600, width=6)
SHORT = FitConfig(epochs=30, learning_rate=1e-2)


def fitted(seed: int, **settings: float) -> tuple[Denoising, Fitted]:
    config = DenoisingConfig(latent=2, **settings)  # type: ignore[arg-type]
    torch.manual_seed(seed)
    encoding = Encoding(FEATURES, ROWS)
    member = config.resolve(encoding).build(encoding)
    return member, fit(member, torch.from_numpy(ROWS[:500]), torch.from_numpy(ROWS[500:]), SHORT, seed=seed)


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
    rows_ND = torch.cat([torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)), torch.ones(4000, 1)], dim=1)
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
        outputs_NE, _ = member(member.encoding.inputs(member._corrupt(encoded, torch.Generator().manual_seed(3))))
        loss = member.loss(encoded, torch.Generator().manual_seed(3))
    expected = (outputs_NE - encoded.values_NE).square().mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_the_seed_determines_the_result() -> None:
    first, again, other = fitted(5), fitted(5), fitted(6)
    assert first[1] == again[1]
    for name, tensor in first[0].state_dict().items():
        assert torch.equal(tensor, again[0].state_dict()[name])
    assert first[1].held_out_loss != other[1].held_out_loss
