"""Filling the missing: cells taken out of a row come back nearer to the truth than the column's
mean is.
"""

import pytest
import torch

from hourglass.training.core import Core
from hourglass.training.models import ModelConfig
from hourglass.training.models.denoising import DenoisingConfig
from hourglass.training.models.masked import MaskedConfig
from hourglass.training.models.member import FitConfig
from tests.training.models.gaussian import draw, fitted

FIT = FitConfig(epochs=40, learning_rate=3e-3)


@torch.no_grad()
@pytest.mark.parametrize("share", [0.1, 0.3])
@pytest.mark.parametrize(
    "config", [DenoisingConfig(fit=FIT), MaskedConfig(fit=FIT)], ids=["denoising", "masked"]
)
@pytest.mark.slow
def test_filled_cells_beat_the_column_mean_by_thirty_percent(
    config: ModelConfig, share: float
) -> None:
    fit_rows_ND, whole_ND = draw(2000, seed=1), draw(2000, seed=9)
    units_D = torch.logspace(-3, 3, whole_ND.shape[1])  # no two columns alike
    core = Core(fitted(config, fit_rows_ND * units_D + units_D)).eval()
    missing_ND = torch.rand(whole_ND.shape, generator=torch.Generator().manual_seed(2)) < share
    holed_ND = torch.where(missing_ND, torch.nan, whole_ND * units_D + units_D)
    filled_ND = core(holed_ND).reconstruction_ND / units_D - 1
    assert filled_ND.isfinite().all()
    rmse = float((filled_ND - whole_ND)[missing_ND].square().mean().sqrt())
    of_the_mean = float((fit_rows_ND.mean(dim=0) - whole_ND)[missing_ND].square().mean().sqrt())
    assert rmse < 0.7 * of_the_mean
