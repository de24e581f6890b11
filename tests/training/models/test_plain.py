import pytest
import torch

from hourglass.training.models.member import FitConfig
from hourglass.training.models.plain import PlainConfig
from tests.training.models.gaussian import FACTORS, WIDTH, encode, fitted, pure_noise

EXACT = FitConfig(
    epochs=20, batch_size=0, patience=0, optimizer="lbfgs", precision="float64", weight_decay=0.0
)


@torch.no_grad()
def unexplained(latent: int) -> float:
    """Share of the variance of pure noise that a linear member with that code does not give
    back.
    """
    member = fitted(PlainConfig(hidden=(), latent=latent, activation="linear", fit=EXACT))
    encoded = encode(member, pure_noise(4000, seed=5))
    return float(member.assess(encoded).errors_ND.sum() / encoded.values_NE.square().sum())


def test_a_code_as_wide_as_the_row_copies_what_it_never_saw() -> None:
    assert unexplained(latent=WIDTH) < 1e-6


def test_a_narrow_code_cannot_give_back_noise() -> None:
    # Eckart and Young: no map of rank 4 keeps more than 4 of 16 equal variances
    limit = 1 - FACTORS / WIDTH
    assert limit - 0.02 < unexplained(latent=FACTORS) < limit + 0.1


@torch.no_grad()
def test_a_rectified_network_is_exact_on_data_that_a_line_holds() -> None:
    line_N1 = pure_noise(1000, seed=3, width=1).abs()
    rows_ND = torch.cat([line_N1, 2 * line_N1 + 1, -line_N1], dim=1)
    config = PlainConfig(
        hidden=(16,), latent=1, activation="relu", fit=FitConfig(epochs=60, learning_rate=1e-2)
    )
    member = fitted(config, rows_ND)
    assert float(member.assess(encode(member, rows_ND)).errors_ND.mean()) == pytest.approx(
        0.0, abs=0.01
    )
