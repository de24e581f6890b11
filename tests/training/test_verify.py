from copy import deepcopy

import numpy as np
import pytest
import torch

from hourglass.service.model.detector import Detector
from hourglass.training.config import load_config
from hourglass.training.errors import RunError
from hourglass.training.models.linear import LinearConfig
from hourglass.training.models.member import FitConfig
from hourglass.training.models.variational import VariationalConfig
from hourglass.training.split import Prepared
from hourglass.training.trial import Trial, fit_trial
from hourglass.training.verify import TOLERANCE, differences, verify
from tests.training import tables
from tests.training.stages import finish, prepare_rows

Exported = tuple[Trial, Detector, Prepared]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A member and its file, exported once."""
    data = tables.write(tables.mixed(), tmp_path_factory.mktemp("verify") / "rows.parquet")
    config = load_config(None, {"data": str(data), "name": "pump", "label": "fault"})
    prepared = prepare_rows(config)
    trial = fit_trial(prepared, config, LinearConfig())
    return trial, Detector.from_bytes(finish(prepared, trial, config)), prepared


@pytest.fixture
def exported(made: Exported) -> Exported:
    """A member that may be changed, and the file that was made of it before."""
    trial, detector, prepared = made
    return trial._replace(core=deepcopy(trial.core)), detector, prepared


@pytest.mark.slow
def test_a_file_that_answers_as_the_network_does_is_let_through(exported: Exported) -> None:
    trial, detector, prepared = exported
    rows_ND = prepared.split.validation_ND
    assert np.isnan(rows_ND).any()  # rows with gaps among them
    verify(detector, trial.core, rows_ND)


def test_the_output_that_is_another_is_named(exported: Exported) -> None:
    trial, detector, prepared = exported
    with torch.no_grad():
        trial.core.weight_D.mul_(1.001)  # of scores and contributions, and of nothing else
    with pytest.raises(RunError, match="computes another score than the fitted network"):
        verify(detector, trial.core, prepared.split.validation_ND)


@pytest.mark.slow
def test_a_code_that_is_another_is_named_though_it_decodes_to_the_same_row(
    exported: Exported,
) -> None:
    trial, detector, prepared = exported
    member = trial.core.member
    with torch.no_grad():
        member.encoder.weight.mul_(2.0)
        member.encoder.bias.mul_(2.0)
        member.decoder.weight.mul_(0.5)
    with pytest.raises(RunError, match="computes another latent than the fitted network"):
        verify(detector, trial.core, prepared.split.validation_ND)


@pytest.mark.slow
def test_a_variational_file_answers_with_the_deviation_of_the_network(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    data = tables.write(tables.mixed(), tmp_path_factory.mktemp("verify") / "rows.parquet")
    config = load_config(None, {"data": str(data), "name": "pump", "label": "fault"})
    prepared = prepare_rows(config)
    model = VariationalConfig(hidden=(8,), latent=3, fit=FitConfig(epochs=3))
    trial = fit_trial(prepared, config, model)
    detector = Detector.from_bytes(finish(prepared, trial, config))
    rows_ND = prepared.split.validation_ND
    member = trial.core.member
    with torch.no_grad():
        encoded = member.encoding.encode(torch.from_numpy(rows_ND))
        mean_NK, log_variance_NK = member.posterior(member.encoding.inputs(encoded))
    codes = detector.encode_with_deviation(rows_ND)
    np.testing.assert_allclose(codes.code, mean_NK, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(codes.deviation, torch.exp(log_variance_NK / 2), rtol=1e-4)
    with torch.no_grad():
        member.encoder[-1].bias[3:] += 0.1  # of the log-variances alone
    with pytest.raises(RunError, match="computes another latent_deviation than the fitted"):
        verify(detector, trial.core, rows_ND)


@pytest.mark.slow
def test_a_score_is_measured_by_the_spread_of_the_calibration_scores(exported: Exported) -> None:
    trial, detector, prepared = exported
    rows_ND = prepared.split.validation_ND
    score_N = detector.score(rows_ND).score
    median, high = np.quantile(detector.score(prepared.split.calibration_ND).score, [0.5, 0.9])
    unit_N = np.maximum(high - median, np.abs(score_N - median))
    with torch.no_grad():
        trial.core.weight_D.mul_(1 + 1e-3)
    (score, *_) = differences(detector, trial.core, rows_ND)
    assert score.output == "score"
    assert score.size == pytest.approx((score_N / unit_N).max() * 1e-3 / TOLERANCE, rel=0.1)
    assert score.fitted == pytest.approx(score.served * (1 + 1e-3), rel=1e-5)
