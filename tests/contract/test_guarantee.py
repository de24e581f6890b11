"""What the p-values and the false-alarm budget promise, measured on fresh rows of the distribution
that was fitted.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from hourglass.service.model.calibration import build_table
from hourglass.service.model.detector import Detector
from hourglass.service.rows.tables import encode_table
from hourglass.training.config import load_config
from hourglass.training.trial import fit_trial
from tests.training import tables
from tests.training.stages import finish, prepare_rows
from tests.training.tables import Float32

pytestmark = pytest.mark.slow

FRESH = 50_000
COMPRESSION = 0.016  # a compressed table overstates a p-value by at most this share
KOLMOGOROV = 2.8  # P(D sqrt(n) > 2.8) = 3e-7 for true p-values


class Fresh(NamedTuple):
    detector: Detector
    normal_ND: Float32  # as what was fitted, with the same gaps
    strange_ND: Float32  # nearly so


@pytest.fixture(scope="module", params=["numbers", "every kind"])
def fresh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    if request.param == "numbers":
        fitted, normal, noisier = (
            gaps(tables.correlated(rows, width=6, noise=noise, seed=seed), seed)
            for rows, noise, seed in ((20_000, 0.3, 0), (FRESH, 0.3, 1), (FRESH, 0.33, 2))
        )
        detector = fit(tables.write(fitted, tmp_path_factory.mktemp("numbers") / "table.parquet"))
        return Fresh(detector, normal, noisier)
    table = tables.mixed(20_000, anomalies=0).drop("fault")
    detector = fit(tables.write(table, tmp_path_factory.mktemp("kinds") / "table.parquet"))
    normal_ND = encode_table(tables.mixed(FRESH, anomalies=0, seed=1), detector.manifest.features)
    strange_ND = normal_ND.copy()
    # in every fifth row the flow of another one
    strange_ND[: FRESH // 5, 1] = np.roll(normal_ND[: FRESH // 5, 1], 1)
    return Fresh(detector, normal_ND, strange_ND)


def fit(data: Path) -> Detector:
    values = {"data": str(data), "name": "pump", "variant": "linear", "epochs": 2}
    config = load_config(None, values)
    prepared = prepare_rows(config)
    return Detector.from_bytes(
        finish(prepared, fit_trial(prepared, config, config.model), config)  # type: ignore[arg-type]
    )


def gaps(rows_ND: Float32, seed: int) -> Float32:
    rows_ND[np.random.default_rng((seed, 7)).random(rows_ND.shape) < 0.05] = np.nan
    return rows_ND


def excess(detector: Detector, rows_ND: Float32) -> tuple[float, float]:
    """How far the share of p-values up to p lies above p, and below it, at worst; all-missing rows
    aside.
    """
    p_N = detector.score(rows_ND).p_value
    p_N = np.sort(p_N[~np.isnan(p_N)]).astype(np.float64)
    share_N = np.arange(1, len(p_N) + 1) / len(p_N)
    return float((share_N - p_N).max()), float((p_N - (share_N - 1 / len(p_N))).max())


def tolerance(detector: Detector) -> float:
    """Sampling error of the calibration rows and of the fresh ones."""
    return KOLMOGOROV * (1 / detector.table.n + 1 / FRESH) ** 0.5


def test_p_values_of_fresh_normal_rows_are_uniform(fresh: Fresh) -> None:
    above, below = excess(fresh.detector, fresh.normal_ND)
    assert above < tolerance(fresh.detector)
    assert below < tolerance(fresh.detector) + COMPRESSION


def test_rows_a_little_stranger_are_told_from_normal_ones(fresh: Fresh) -> None:
    above, _ = excess(fresh.detector, fresh.strange_ND)
    assert above > 1.2 * tolerance(fresh.detector)


def test_a_certified_budget_is_held_on_fresh_normal_rows_and_not_wasted(fresh: Fresh) -> None:
    threshold = fresh.detector.threshold
    assert threshold.certified
    assert threshold.alpha == 0.01
    false_alarms = float((fresh.detector.score(fresh.normal_ND).score > threshold.score).mean())
    assert false_alarms <= threshold.alpha + 4 * (threshold.alpha / FRESH) ** 0.5
    assert false_alarms > threshold.alpha / 2


@pytest.mark.parametrize(("alpha", "n"), [(0.05, 200), (0.01, 1000)])
def test_over_calibration_draws_the_budget_is_exceeded_no_more_often_than_promised(
    fresh: Fresh, alpha: float, n: int
) -> None:
    delta, draws = 0.05, 200
    pool_N = fresh.detector.score(fresh.normal_ND).score
    pool_N = pool_N[~np.isnan(pool_N)]
    rng = np.random.default_rng(0)
    certified, naive = [], []
    for _ in range(draws):
        order = rng.permutation(len(pool_N))
        calibration_N, others_N = pool_N[order[:n]], pool_N[order[n:]]
        threshold = build_table(calibration_N).threshold(alpha, delta)
        certified.append((others_N > threshold.score).mean() > alpha)
        naive.append((others_N > np.quantile(calibration_N, 1 - alpha)).mean() > alpha)
    error = (delta * (1 - delta) / draws) ** 0.5
    assert np.mean(certified) <= delta + 3 * error
    assert np.mean(naive) > 0.3  # what a quantile of the same rows does: the test can tell


def test_the_marginal_rule_holds_the_budget_on_average(fresh: Fresh) -> None:
    alpha, n, draws = 0.05, 100, 400
    pool_N = fresh.detector.score(fresh.normal_ND).score
    pool_N = pool_N[~np.isnan(pool_N)]
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(draws):
        order = rng.permutation(len(pool_N))
        threshold = build_table(pool_N[order[:n]]).threshold(alpha, 0.05, certified=False)
        rates.append((pool_N[order[n:]] > threshold.score).mean())
    # rank / (n + 1) = 5 / 101, give or take the spread of a Beta(5, 96)
    assert np.mean(rates) == pytest.approx(5 / 101, abs=4 * 0.0215 / draws**0.5)
