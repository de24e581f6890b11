import numpy as np
import pytest
import torch

from hourglass.service.model import artifact
from hourglass.service.model.artifact import Feature
from hourglass.service.model.conditional import Conditional as Served
from hourglass.training import conditional
from hourglass.training.conditional import fit_conditional
from hourglass.training.core import Core
from hourglass.training.features import Encoding
from hourglass.training.models import VARIANTS
from tests.artifacts import MIXED

NUMBERS = tuple(Feature(name=f"x{d}", kind="numeric") for d in range(5))
LOADINGS = np.random.default_rng(0).normal(size=(5, 2))
COVARIANCE = LOADINGS @ LOADINGS.T + 0.3 * np.eye(5)


def numbers(count, seed=1):
    draw = np.random.default_rng(seed)
    rows_ND = draw.multivariate_normal(np.arange(5) * 10.0, COVARIANCE, count)
    return rows_ND.astype(np.float32)


def mixed(count, seed=2):
    draw = np.random.default_rng(seed)
    site_N = draw.integers(0, 3, count)
    load_N = 40 + 5.0 * site_N + draw.normal(0, 1, count)
    columns = (load_N, load_N > 45, site_N, draw.normal(20, 4, count))
    return np.column_stack(columns).astype(np.float32)


def fitted(features, rows_ND):
    encoding = Encoding(features, rows_ND, "auto")
    return encoding, fit_conditional(encoding, encoding.encode(torch.from_numpy(rows_ND)))


def as_served(features, gaussian):
    return Served(
        features,
        *(getattr(gaussian, name).double().numpy() for name in ("mean", "scale", "precision")),
    )


def test_the_gaussian_is_that_of_the_rows():
    _, gaussian = fitted(NUMBERS, numbers(20_000))
    served = as_served(NUMBERS, gaussian)
    np.testing.assert_allclose(served.mean_E, np.arange(5) * 10, atol=0.05)
    sd_D = np.sqrt(np.diag(COVARIANCE))
    np.testing.assert_allclose(served.scale_E, sd_D, rtol=0.03)
    np.testing.assert_allclose(served.correlation(), COVARIANCE / sd_D / sd_D[:, None], atol=0.03)


@pytest.mark.parametrize(("features", "draw"), [(NUMBERS, numbers), (MIXED, mixed)])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_graph_and_the_service_find_the_same_distances(features, draw, missing):
    encoding, gaussian = fitted(features, draw(500))
    rows_ND = draw(64, seed=5)
    rows_ND[::9, 0] = 1e4
    rows_ND[np.random.default_rng(3).random(rows_ND.shape) < missing] = np.nan
    rows = torch.from_numpy(rows_ND)
    ours_ND = gaussian(encoding, rows, encoding.encode(rows).observed_ND).numpy()
    np.testing.assert_array_equal(ours_ND[np.isnan(rows_ND)], 0)
    theirs_ND = as_served(features, gaussian).expect(rows_ND).distance_ND
    if not missing:
        np.testing.assert_allclose(ours_ND, theirs_ND, rtol=2e-3, atol=2e-2)
        return
    # with gaps the graph takes for a value's variance what it would be without
    order_N = ours_ND.argmax(axis=1) == theirs_ND.argmax(axis=1)
    assert order_N.mean() > 0.85


def test_a_column_of_one_value_keeps_its_unit_and_a_missing_one_tells_nothing():
    rows_ND = numbers(200)
    rows_ND[:, 1], rows_ND[:, 2] = 5.0, np.nan
    _, gaussian = fitted(NUMBERS, rows_ND)
    assert gaussian.scale[1] == 1
    assert gaussian.scale[2] == 1
    served = as_served(NUMBERS, gaussian)
    row_ND = rows_ND[:1].copy()
    row_ND[0, 1] = 50
    distance_D = served.expect(row_ND).distance_ND[0]
    assert distance_D.argmax() == 1
    assert distance_D[1] == pytest.approx(45**2, rel=1e-3)
    assert distance_D[2] == 0


def test_gaps_among_the_training_rows_do_not_pull_correlations_to_zero():
    rows_ND = numbers(5000)
    rows_ND[np.random.default_rng(6).random(rows_ND.shape) < 0.4] = np.nan
    _, gaussian = fitted(NUMBERS, rows_ND)
    sd_D = np.sqrt(np.diag(COVARIANCE))
    correlation_DD = as_served(NUMBERS, gaussian).correlation()
    np.testing.assert_allclose(correlation_DD, COVARIANCE / sd_D / sd_D[:, None], atol=0.06)


def test_over_the_widest_columns_are_independent(monkeypatch):
    monkeypatch.setattr(conditional, "WIDEST", 4)
    encoding, gaussian = fitted(NUMBERS, numbers(100))
    assert gaussian.precision.shape == (5,)
    rows = torch.from_numpy(numbers(8, seed=7))
    found_ND = gaussian(encoding, rows, torch.ones(8, 5)).numpy()
    expected_ND = np.square((rows.numpy() - gaussian.mean.numpy()) / gaussian.scale.numpy())
    np.testing.assert_allclose(found_ND, expected_ND, rtol=1e-5)


def test_few_rows_are_shrunk_towards_independence():
    few, many = (fitted(NUMBERS, numbers(count))[1] for count in (8, 5000))
    beside = ~np.eye(5, dtype=bool)

    def strongest(gaussian):
        return np.abs(as_served(NUMBERS, gaussian).correlation()[beside]).max()

    true = np.abs(COVARIANCE / np.sqrt(np.outer(np.diag(COVARIANCE), np.diag(COVARIANCE))))
    assert strongest(many) == pytest.approx(true[beside].max(), abs=0.03)
    assert strongest(few) < 1


@pytest.mark.parametrize("variant", sorted(VARIANTS))
@pytest.mark.parametrize("fault", [-999.0, 65535.0])
def test_every_member_blames_a_gross_fault_and_its_contributions_sum_to_the_score(variant, fault):
    rows_ND = numbers(150)
    encoding, gaussian = fitted(NUMBERS, rows_ND)
    member = VARIANTS[variant]().resolve(encoding).build(encoding)
    rows = encoding.encode(torch.from_numpy(rows_ND))
    member.begin(rows)
    member.settle(rows, rows, 0)
    core = Core(member).eval()
    core.weigh(torch.from_numpy(rows_ND))
    core.conditional = gaussian
    broken_ND = numbers(50, seed=4)
    broken_N = np.arange(50) % 5
    broken_ND[np.arange(50), broken_N] = fault
    with torch.no_grad():
        answer = core(torch.from_numpy(broken_ND))
    contributions_ND = answer.contributions_ND.numpy()
    assert (contributions_ND.argmax(axis=1) == broken_N).all()
    assert (contributions_ND >= 0).all()
    np.testing.assert_allclose(contributions_ND.sum(axis=1), answer.score_N, rtol=1e-5)


def test_the_contract_names_its_buffers():
    _, gaussian = fitted(NUMBERS, numbers(50))
    names = [f"conditional.{name}" for name, _ in gaussian.named_buffers()]
    assert names[:3] == list(artifact.CONDITIONAL)
