from itertools import combinations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hourglass.service.errors import InvalidArtifact
from hourglass.service.model import artifact
from hourglass.service.model.artifact import Feature
from hourglass.service.model.conditional import Conditional
from hourglass.service.model.detector import Detector
from tests.artifacts import MIXED, NUMERIC, make_artifact, sample_rows

MEAN_D = np.array([10.0, -3.0, 0.0, 500.0])
SCALE_D = np.array([2.0, 0.1, 1.0, 70.0])
CORRELATION = np.array(
    [[1.0, 0.8, 0.3, 0.0], [0.8, 1.0, 0.2, 0.1], [0.3, 0.2, 1.0, -0.5], [0.0, 0.1, -0.5, 1.0]]
)
COVARIANCE = CORRELATION * SCALE_D * SCALE_D[:, None]
GAUSSIAN = Conditional(NUMERIC, MEAN_D, SCALE_D, np.linalg.inv(CORRELATION))


def conditional_of(row_D, feature, known):
    """Mean and standard deviation of a feature given the known ones, by the covariance."""
    beside = COVARIANCE[np.ix_([feature], known)]
    weights = np.linalg.solve(COVARIANCE[np.ix_(known, known)], beside.T).T
    mean = MEAN_D[feature] + (weights @ (row_D[known] - MEAN_D[known])).item()
    return mean, np.sqrt(COVARIANCE[feature, feature] - (weights @ beside.T).item())


@pytest.mark.parametrize("missing", [[], [2], [0, 3], [0, 1, 3]])
def test_a_value_is_expected_as_the_observed_others_have_it(missing):
    rows_ND = np.random.default_rng(0).multivariate_normal(MEAN_D, COVARIANCE, 5)
    rows_ND[:, missing] = np.nan
    expected = GAUSSIAN.expect(rows_ND.astype(np.float32))
    for n, row_D in enumerate(rows_ND.astype(np.float32).astype(np.float64)):
        for d in range(4):
            known = [i for i in range(4) if i != d and i not in missing]
            mean, sd = conditional_of(row_D, d, known)
            assert expected.value_ND[n, d] == pytest.approx(mean, rel=1e-9, abs=1e-9)
            assert expected.sd_ND[n, d] == pytest.approx(sd, rel=1e-9)
            distance = 0.0 if d in missing else ((row_D[d] - mean) / sd) ** 2
            assert expected.distance_ND[n, d] == pytest.approx(distance, rel=1e-6, abs=1e-9)


def test_rows_with_other_gaps_are_answered_as_they_are_alone():
    rows_ND = sample_rows(NUMERIC, 40, seed=1)
    rows_ND[np.random.default_rng(2).random(rows_ND.shape) < 0.3] = np.nan
    together = GAUSSIAN.expect(rows_ND)
    for n in range(len(rows_ND)):
        for one, all_rows in zip(GAUSSIAN.expect(rows_ND[n : n + 1]), together, strict=True):
            np.testing.assert_allclose(one[0], all_rows[n], rtol=1e-9, atol=1e-12)


class TestMixed:
    """Of load, open, site (three categories) and heat; the site goes with the load."""

    rng = np.random.default_rng(3)
    site_N = rng.integers(0, 3, 20_000)
    load_N = 5.0 * site_N + rng.normal(0, 1, 20_000)
    open_N = (load_N + rng.normal(0, 1, 20_000) > 5).astype(float)
    encoded_NE = np.column_stack([load_N, open_N, np.eye(3)[site_N], rng.normal(20, 4, 20_000)])
    mean_E, scale_E = encoded_NE.mean(axis=0), encoded_NE.std(axis=0)
    covariance = np.corrcoef(encoded_NE, rowvar=False) + 1e-3 * np.eye(6)
    gaussian = Conditional(MIXED, mean_E, scale_E, np.linalg.inv(covariance))

    def test_a_missing_category_is_the_likeliest_with_its_share(self):
        rows_ND = np.array([[0, 0, np.nan, 20], [10, 1, np.nan, 20]], np.float32)
        expected = self.gaussian.expect(rows_ND)
        assert expected.value_ND[:, 2].tolist() == [0.0, 2.0]
        assert (expected.probability_ND[:, 2] > 0.6).all()
        assert np.isnan(expected.sd_ND[:, 1:3]).all()
        assert np.isnan(expected.probability_ND[:, [0, 3]]).all()

    def test_of_a_boolean_the_probability_of_true_is_expected(self):
        rows_ND = np.array([[0, np.nan, 0, 20], [10, np.nan, 2, 20]], np.float32)
        low, high = self.gaussian.expect(rows_ND).value_ND[:, 1]
        assert 0 <= low < 0.2 < 0.8 < high <= 1

    def test_a_categorys_distance_is_that_of_its_columns_together(self):
        rows_ND = np.array([[0, 0, 0, 20], [0, 0, 2, 20]], np.float32)
        distance_N = self.gaussian.expect(rows_ND).distance_ND[:, 2]
        block, rest = [2, 3, 4], [0, 1, 5]
        for row_D, distance in zip(rows_ND, distance_N, strict=True):
            code_E = np.array([row_D[0], row_D[1], *(row_D[2] == np.arange(3)), row_D[3]])
            z_E = (code_E - self.mean_E) / self.scale_E
            weights = np.linalg.solve(
                self.covariance[np.ix_(rest, rest)], self.covariance[np.ix_(rest, block)]
            ).T
            off = z_E[block] - weights @ z_E[rest]
            spread = self.covariance[np.ix_(block, block)]
            spread = spread - weights @ self.covariance[np.ix_(rest, block)]
            assert distance == pytest.approx(off @ np.linalg.solve(spread, off), rel=1e-6)
        assert distance_N[1] > 10 > distance_N[0]


def test_the_strangest_set_is_the_one_without_which_the_rest_is_likeliest():
    rng = np.random.default_rng(7)
    loadings = rng.normal(size=(9, 3))
    covariance = loadings @ loadings.T + 0.3 * np.eye(9)
    covariance /= np.sqrt(np.diag(covariance) * np.diag(covariance)[:, None])
    features = tuple(Feature(name=f"x{d}", kind="numeric") for d in range(9))
    gaussian = Conditional(features, np.zeros(9), np.ones(9), np.linalg.inv(covariance))

    def distance(row_D, left_out):
        seen = [d for d in range(9) if d not in left_out and not np.isnan(row_D[d])]
        return row_D[seen] @ np.linalg.solve(covariance[np.ix_(seen, seen)], row_D[seen])

    found_best = 0
    for _ in range(30):
        row_D = rng.multivariate_normal(np.zeros(9), covariance).astype(np.float32)
        row_D[rng.choice(8, 3, replace=False)] += rng.choice([-6, 6], 3)
        row_D[8] = np.nan
        found = gaussian.strangest_set(row_D, [0, 1, 2])
        assert len(set(found)) == 3
        assert 8 not in found
        least = min(distance(row_D, each) for each in combinations(range(8), 3))
        assert distance(row_D, found) <= distance(row_D, [0, 1, 2]) * (1 + 1e-9)
        found_best += distance(row_D, found) <= least * (1 + 1e-6)
        rest_ND = row_D[None].copy()
        rest_ND[0, found] = np.nan
        expected = gaussian.expect(rest_ND)
        off_D = np.abs(row_D - expected.value_ND[0]) / expected.sd_ND[0]
        assert (np.diff(off_D[found]) <= 1e-6).all()
    assert found_best >= 27


def test_independent_columns_are_expected_at_their_means():
    gaussian = Conditional(NUMERIC, MEAN_D, SCALE_D, np.ones(4))
    row_ND = np.array([[14.0, -3.1, np.nan, 500.0]], np.float32)
    expected = gaussian.expect(row_ND)
    np.testing.assert_allclose(expected.value_ND[0], MEAN_D)
    np.testing.assert_allclose(expected.sd_ND[0], SCALE_D)
    np.testing.assert_allclose(expected.distance_ND[0], [4, 1, 0, 0], atol=1e-4)
    assert np.array_equal(gaussian.correlation(), np.eye(4))


def test_correlations_are_those_of_numbers_and_booleans():
    np.testing.assert_allclose(GAUSSIAN.correlation(), CORRELATION, atol=1e-12)
    found = TestMixed.gaussian.correlation()
    assert found[0, 1] > 0.5
    assert found[2].tolist() == [0, 0, 1, 0]


def test_a_detector_carries_the_gaussian_of_its_file():
    assert Detector.from_bytes(make_artifact(MIXED)).conditional is None
    carried = Detector.from_bytes(make_artifact(MIXED, conditional=True)).conditional
    np.testing.assert_allclose(carried.mean_E, [0, 0.5, 1 / 3, 1 / 3, 1 / 3, 0], rtol=1e-6)


def test_a_gap_is_filled_by_the_gaussian_and_what_the_graph_knows_beyond_it():
    rows_ND = sample_rows(MIXED, 3)
    rows_ND[1, [0, 2]] = rows_ND[2, 1] = np.nan
    plain = Detector.from_bytes(make_artifact(MIXED))
    carrying = Detector.from_bytes(make_artifact(MIXED, conditional=True))
    filled_ND, clean_ND = carrying.reconstruct(rows_ND), plain.reconstruct(rows_ND)
    expected_ND = carrying.conditional.expect(rows_ND).value_ND
    gap_ND = np.isnan(rows_ND)
    linear_ND = carrying.conditional.expect(np.where(gap_ND, np.nan, clean_ND)).value_ND
    for n, d in ((1, 0), (2, 1)):
        beyond = clean_ND[n, d] - linear_ND[n, d]
        assert filled_ND[n, d] == pytest.approx(expected_ND[n, d] + 0.75 * beyond, rel=1e-6)
    assert filled_ND[1, 2] == expected_ND[1, 2]
    np.testing.assert_array_equal(filled_ND[~gap_ND], clean_ND[~gap_ND])


PAIR = (Feature(name="x", kind="numeric"), Feature(name="y", kind="numeric"))


def test_what_is_not_linear_the_model_fills_three_quarters_of_the_way():
    unrelated = Conditional(PAIR, np.array([0.0, 1.0]), np.ones(2), np.eye(2))
    row_ND = np.array([[2.0, np.nan]], np.float32)
    clean_ND = np.array([[2.0, 4.0]], np.float32)  # y is the square of x, which has no correlation
    assert unrelated.fill(row_ND, clean_ND).tolist() == [[2.0, 1.0 + 0.75 * 3.0]]


def test_a_model_that_blurs_a_row_along_its_correlations_changes_no_filling():
    related = Conditional(PAIR, np.zeros(2), np.ones(2), np.linalg.inv([[1.0, 0.9], [0.9, 1.0]]))
    row_ND = np.array([[3.0, np.nan], [np.nan, -1.0]], np.float32)
    blurred_ND = np.array([[1.0, 0.9], [-0.27, -0.3]], np.float32)
    filled_ND = related.fill(row_ND, blurred_ND)
    np.testing.assert_allclose(filled_ND, [[1.0, 2.7], [-0.9, -0.3]], rtol=1e-6)


def test_a_filled_boolean_stays_a_probability():
    features = (PAIR[0], Feature(name="open", kind="boolean"))
    unrelated = Conditional(features, np.array([0.0, 0.1]), np.ones(2), np.eye(2))
    row_ND = np.array([[0.0, np.nan]], np.float32)
    for clean, filled in ((1.0, 0.1 + 0.75 * 0.9), (2.0, 1.0), (-1.0, 0.0)):
        found_ND = unrelated.fill(row_ND, np.array([[0.0, clean]], np.float32))
        assert found_ND[0, 1] == pytest.approx(filled, rel=1e-6)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda mean, scale, precision: (mean[:3], scale, precision), r"is not of the 4 columns"),
        (lambda mean, scale, precision: (mean, -scale, precision), "scales that are not positive"),
        (lambda mean, scale, precision: (mean * np.nan, scale, precision), "not finite"),
        (
            lambda mean, scale, precision: (mean, scale, precision * [1, 1, 1, -1]),
            "not symmetric and positive",
        ),
        (lambda mean, scale, precision: (mean, scale, precision[:3]), r"is not of the 4 columns"),
        (lambda mean, scale, _: (mean, scale, -np.ones(4, np.float32)), "not symmetric and pos"),
        (lambda mean, scale, _: (mean, scale, None), r"lacks the tensor 'conditional.precision'"),
    ],
)
def test_a_file_whose_gaussian_is_none_is_refused(spoil, reason):
    model = onnx.load_model_from_string(make_artifact(conditional=True))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    values = [numpy_helper.to_array(tensors[name]) for name in artifact.CONDITIONAL]
    for name, value in zip(artifact.CONDITIONAL, spoil(*values), strict=True):
        if value is None:
            model.graph.initializer.remove(tensors[name])
        else:
            changed = numpy_helper.from_array(np.asarray(value, dtype=np.float32), name)
            tensors[name].CopyFrom(changed)
    with pytest.raises(InvalidArtifact, match=reason):
        Detector.from_bytes(model.SerializeToString())


def test_a_category_that_was_never_met_has_no_columns():
    features = (NUMERIC[0], Feature(name="site", kind="categorical"))
    gaussian = Conditional(features, np.zeros(1), np.ones(1), np.ones((1, 1)))
    expected = gaussian.expect(np.array([[2.0, -1.0]], np.float32))
    assert expected.distance_ND.tolist() == [[4.0, 0.0]]
