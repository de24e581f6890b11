import numpy as np
import pytest
import torch

from hourglass.training.models.masked import Masked, MaskedConfig, fixed_masks
from hourglass.training.models.member import FitConfig
from tests.training.models.gaussian import WIDTH, covariance, draw, encode, fitted, mean

FIT = FitConfig(epochs=40, learning_rate=5e-3)


@pytest.fixture(scope="module")
def member() -> Masked:
    member: Masked = fitted(MaskedConfig(hidden=(32,), latent=16, fit=FIT), draw(5000, seed=1))
    return member


@torch.no_grad()
@pytest.mark.parametrize("rate", [0.25, 0.5])
@pytest.mark.slow
def test_hidden_cells_are_guessed_nearly_as_well_as_the_known_gaussian_allows(
    member: Masked, rate: float
) -> None:
    encoded = encode(member, draw(2000, seed=9))
    covariance_DD, mean_D = covariance(member.encoding), mean(member.encoding)
    rng = np.random.default_rng(0)
    squared = {"member": 0.0, "bayes": 0.0, "zero": 0.0}
    for _ in range(16):
        hidden = torch.from_numpy(rng.permutation(WIDTH) < rate * WIDTH)
        outputs_NE, _ = member(
            member.encoding.inputs(member.encoding.hide(encoded, hidden.float()))
        )
        truth = encoded.values_NE.double()
        # the conditional mean: m_h + S_ho S_oo^-1 (x_o - m_o)
        regression = torch.linalg.solve(
            covariance_DD[~hidden][:, ~hidden], covariance_DD[~hidden][:, hidden]
        )
        bayes = mean_D[hidden] + (truth - mean_D)[:, ~hidden] @ regression
        squared["member"] += float((outputs_NE[:, hidden] - truth[:, hidden]).square().mean())
        squared["bayes"] += float((bayes - truth[:, hidden]).square().mean())
        squared["zero"] += float(truth[:, hidden].square().mean())
    assert squared["bayes"] < squared["member"] < 3 * squared["bayes"]
    assert squared["member"] < 0.3 * squared["zero"]


@pytest.mark.parametrize(
    ("width", "rate", "rounds", "groups"), [(16, 0.25, 2, 4), (7, 0.25, 3, 4), (2, 0.1, 1, 2)]
)
def test_fixed_masks_hide_each_feature_once_a_round(
    width: int, rate: float, rounds: int, groups: int
) -> None:
    masks_MD = fixed_masks(width, rate, rounds)
    assert masks_MD.shape == (rounds * groups, width)
    for round_MD in masks_MD.split(groups):
        assert round_MD.sum(dim=0).tolist() == [1.0] * width
        sizes = round_MD.sum(dim=1)
        assert sizes.max() - sizes.min() <= 1
    assert torch.equal(masks_MD, fixed_masks(width, rate, rounds))
    if rounds > 1:
        assert not torch.equal(masks_MD[:groups], masks_MD[groups : 2 * groups])


@torch.no_grad()
@pytest.mark.slow
def test_the_score_is_the_mean_error_of_each_cell_while_it_was_hidden(member: Masked) -> None:
    rows_ND = draw(5, seed=9)
    rows_ND[2, 4] = torch.nan
    encoded = encode(member, rows_ND)
    by_hand_ND = torch.zeros(5, WIDTH)
    for mask_D in member.masks_MD:
        for row in range(5):
            seen_D = encoded.observed_ND[row] * (1 - mask_D)
            inputs_I = torch.cat([encoded.values_NE[row] * seen_D, 1 - seen_D])
            guess_E = member.decoder(member.encoder(inputs_I))
            error_D = (
                (guess_E - encoded.values_NE[row]).square() * mask_D * encoded.observed_ND[row]
            )
            by_hand_ND[row] += error_D / member.config.score_rounds
    assert torch.allclose(member.assess(encoded).errors_ND, by_hand_ND, atol=1e-5)


@torch.no_grad()
def test_a_value_the_others_do_not_support_stands_out_though_the_network_may_see_it(
    member: Masked,
) -> None:
    rows_ND = draw(500, seed=9)
    normal_N = member.assess(encode(member, rows_ND)).errors_ND[:, 5]
    rows_ND[:, 5] += 3.0
    odd_ND = member.assess(encode(member, rows_ND)).errors_ND
    assert float((odd_ND[:, 5] > normal_N.quantile(0.99)).float().mean()) > 0.95
    assert float((odd_ND.argmax(dim=1) == 5).float().mean()) > 0.9


@torch.no_grad()
def test_whole_rows_are_reconstructed_from_their_code(member: Masked) -> None:
    encoded = encode(member, draw(1000, seed=9))
    outputs_NE = member.assess(encoded).outputs_NE
    assert float((outputs_NE - encoded.values_NE).square().mean()) < 0.15
