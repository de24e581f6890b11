import numpy as np
import pytest

from hourglass.service.model.artifact import Feature
from hourglass.service.model.conditional import Conditional
from hourglass.service.model.detector import Detector, Explanation
from hourglass.service.model.reasons import (
    EXTRA_ROWS,
    SEARCHED_CELLS,
    find_reasons,
    reasons_of,
    reasons_of_windows,
    windows_of,
)
from hourglass.service.rows.sentences import say_why
from tests.artifacts import MIXED, NUMERIC, make_artifact, make_windowed_served, sample_rows

D = 12
FEATURES = tuple(Feature(name=f"x{d}", kind="numeric") for d in range(D))
LOADINGS = np.random.default_rng(0).normal(size=(D, 4))
COVARIANCE = LOADINGS @ LOADINGS.T + 0.2 * np.eye(D)
SCALE_D = np.sqrt(np.diag(COVARIANCE))
GAUSSIAN = Conditional(
    FEATURES, np.zeros(D), SCALE_D, np.linalg.inv(COVARIANCE / SCALE_D / SCALE_D[:, None])
)


def mahalanobis(rows_ND):
    """A model of these rows: the mean squared distance of the observed values."""
    scores = []
    for row_D in rows_ND:
        seen = np.flatnonzero(~np.isnan(row_D))
        if not len(seen):
            scores.append(np.nan)
            continue
        off = np.linalg.solve(COVARIANCE[np.ix_(seen, seen)], row_D[seen])
        scores.append(row_D[seen] @ off / len(seen))
    return np.array(scores, np.float32)


def normal_rows(count, seed=1):
    draw = np.random.default_rng(seed)
    return draw.multivariate_normal(np.zeros(D), COVARIANCE, count).astype(np.float32)


THRESHOLD = float(np.quantile(mahalanobis(normal_rows(2000, seed=9)), 0.99))


def find(rows_ND, score=mahalanobis):
    score_N = score(rows_ND)
    # all features alike: what a member says when one gross value has drawn all along
    contributions_ND = np.where(np.isnan(rows_ND), 0, score_N[:, None] / D).astype(np.float32)
    return find_reasons(
        GAUSSIAN, rows_ND, score_N, contributions_ND, threshold=THRESHOLD, score=score
    )


@pytest.mark.parametrize("fault", [-999.0, 65535.0, 1e12])
def test_a_gross_fault_is_named_first_and_alone(fault):
    rows_ND = normal_rows(60)
    rows_ND = rows_ND[mahalanobis(rows_ND) < 0.5 * THRESHOLD]
    broken_N = np.arange(len(rows_ND)) % D
    rows_ND[np.arange(len(rows_ND)), broken_N] = fault
    reasons = find(rows_ND)
    assert (reasons.order_ND[:, 0] == broken_N).all()
    assert (reasons.blamed_N == 1).mean() > 0.9
    assert not reasons.as_a_whole_N.any()


def test_three_changed_values_are_the_first_three_and_expected_where_they_were():
    true_ND = normal_rows(60, seed=2)
    true_ND = true_ND[mahalanobis(true_ND) < 0.5 * THRESHOLD]
    rng = np.random.default_rng(3)
    cells_NC = np.stack([rng.choice(D, 3, replace=False) for _ in true_ND])
    at = np.arange(len(true_ND))[:, None], cells_NC
    rows_ND = true_ND.copy()
    rows_ND[at] += (8 * SCALE_D[cells_NC] * rng.choice([-1, 1], cells_NC.shape)).astype(np.float32)
    reasons = find(rows_ND)
    found_NC = reasons.order_ND[:, :3]
    found_NC = (found_NC[:, :, None] == cells_NC[:, None]).any(axis=1)
    assert found_NC.mean() > 0.9
    off_NC = (reasons.expected.value_ND[at] - true_ND[at]) / reasons.expected.sd_ND[at]
    # as far as the standard deviation that is said
    assert np.sqrt(np.square(off_NC[found_NC.all(axis=1)]).mean()) < 1.3


def test_at_most_21_and_as_many_rows_as_features_are_scored_for_one_row():
    counted = []

    def counting(rows_ND):
        counted.append(len(rows_ND))
        return mahalanobis(rows_ND)

    rows_ND = normal_rows(40, seed=4) * 12  # nothing of them is normal
    find(rows_ND, score=counting)
    assert counted[0] == len(rows_ND)
    assert sum(counted) <= (21 + D) * len(rows_ND)
    assert EXTRA_ROWS == 20


def test_a_row_that_does_not_alarm_is_not_searched_and_nothing_of_it_is_blamed():
    rows_ND = normal_rows(30, seed=5)
    rows_ND = rows_ND[mahalanobis(rows_ND) < THRESHOLD]
    score_N = mahalanobis(rows_ND)
    contributions_ND = np.zeros_like(rows_ND)

    def refuse(_):
        raise AssertionError("scored")

    reasons = find_reasons(
        GAUSSIAN, rows_ND, score_N, contributions_ND, threshold=THRESHOLD, score=refuse
    )
    assert not reasons.blamed_N.any()
    assert not reasons.as_a_whole_N.any()
    furthest_N = GAUSSIAN.expect(rows_ND).distance_ND.argmax(axis=1)
    assert (reasons.order_ND[:, 0] == furthest_N).all()


def test_a_row_that_no_few_values_explain_differs_as_a_whole_with_what_moved_together():
    loading_D = np.full(D, 0.95)
    loading_D[[3, 7]] = 0
    covariance = np.outer(loading_D, loading_D) + np.diag(1 - loading_D**2)
    gaussian = Conditional(FEATURES, np.zeros(D), np.ones(D), np.linalg.inv(covariance))
    row_ND = np.where(loading_D > 0, 6.0, 0.1)[None].astype(np.float32)

    def loudness(rows_ND):
        return np.nanmean(np.abs(rows_ND), axis=1).astype(np.float32)

    reasons = find_reasons(
        gaussian, row_ND, loudness(row_ND), np.abs(row_ND), threshold=1.0, score=loudness
    )
    assert reasons.as_a_whole_N.tolist() == [True]
    assert set(reasons.groups[0]) < set(range(D)) - {3, 7}
    assert len(reasons.groups[0]) == 8


def test_of_columns_that_are_taken_as_independent_none_moves_with_another():
    independent = Conditional(FEATURES, np.zeros(D), np.ones(D), np.ones(D))
    row_ND = np.full((1, D), 6.0, np.float32)
    row_ND[0, 5] = 9.0

    def loudness(rows_ND):
        return np.nanmean(np.abs(rows_ND), axis=1).astype(np.float32)

    reasons = find_reasons(
        independent, row_ND, loudness(row_ND), np.abs(row_ND), threshold=1.0, score=loudness
    )
    assert (reasons.as_a_whole_N.tolist(), reasons.groups) == ([True], [(5,)])


def test_rows_are_explained_alike_alone_and_together():
    rows_ND = normal_rows(25, seed=6) * 4
    rows_ND[3, :9] = np.nan
    together = find(rows_ND)
    for n in range(len(rows_ND)):
        alone = find(rows_ND[n : n + 1])
        assert alone.order_ND[0].tolist() == together.order_ND[n].tolist()
        assert alone.blamed_N[0] == together.blamed_N[n]


def test_of_maskings_that_make_a_row_ordinary_alike_the_likelier_values_is_blamed():
    row_ND = np.zeros((1, D), np.float32)
    row_ND[0, [2, 9]] = 6 * SCALE_D[2], 3 * SCALE_D[9]  # the other values let expect neither

    def either(rows_ND):
        missing_ND = np.isnan(rows_ND)
        score_N = np.where(missing_ND[:, [2, 9]].any(axis=1), 0.5 * THRESHOLD, 2 * THRESHOLD)
        # to mask the ninth lowers it by a little more
        return (score_N - 0.01 * THRESHOLD * missing_ND[:, 9]).astype(np.float32)

    assert GAUSSIAN.expect(row_ND).distance_ND[0, 2] > GAUSSIAN.expect(row_ND).distance_ND[0, 9]
    reasons = find(row_ND, score=either)
    assert (reasons.order_ND[0, 0], reasons.blamed_N[0]) == (2, 1)


def test_a_missing_value_is_never_blamed_and_the_last_one_stays():
    rows_ND = np.full((1, D), np.nan, np.float32)
    rows_ND[0, 4] = 1000
    reasons = find(rows_ND)
    assert reasons.order_ND[0, 0] == 4
    assert (reasons.blamed_N.tolist(), reasons.as_a_whole_N.tolist()) == ([0], [True])


def test_a_model_explains_its_rows_where_its_file_carries_the_gaussian():
    rows_ND = sample_rows(NUMERIC, 5000, seed=1)
    rows_ND[::7, 2] = 500
    assert rows_ND.size > SEARCHED_CELLS
    detector = Detector.from_bytes(make_artifact(NUMERIC, conditional=True))
    explanation = detector.explain(rows_ND)
    reasons = reasons_of(detector, rows_ND, explanation, detector.threshold.score)
    assert (reasons.order_ND[::7, 0] == 2).all()
    assert reasons.order_ND.shape == rows_ND.shape
    assert len(reasons.groups) == 5000
    assert reasons.expected.value_ND.shape == rows_ND.shape
    old = Detector.from_bytes(make_artifact(NUMERIC))
    assert reasons_of(old, rows_ND, old.explain(rows_ND), old.threshold.score) is None


def test_a_windowed_model_blames_the_feature_without_whose_window_the_row_is_ordinary() -> None:
    served = make_windowed_served(NUMERIC, rows=4)
    rows_TD = np.zeros((9, 4), np.float32)
    rows_TD[6, 1], rows_TD[8] = 9.0, [8.0, 0.0, 7.0, 0.0]
    explanation = served.detector.explain(rows_TD)
    reasons = reasons_of(served.detector, rows_TD, explanation, served.threshold.score)
    assert reasons is not None
    blamed = [
        order_D[:count].tolist()
        for order_D, count in zip(reasons.order_ND, reasons.blamed_N, strict=True)
    ]
    assert blamed[:3] == [[], [], []]
    assert blamed[3] == [1]  # row 6
    assert blamed[5][0] in (0, 2)  # row 8
    assert {*blamed[5]} <= {0, 2}
    np.testing.assert_allclose(reasons.expected.value_ND[3], 0.0)
    np.testing.assert_allclose(reasons.expected.sd_ND, 1.0)
    alone = reasons_of_windows(
        served.detector,
        windows_of(rows_TD, 4)[3:4],
        Explanation(*(array[3:4] for array in explanation)),
        served.threshold.score,
    )
    assert alone.order_ND.tolist() == reasons.order_ND[3:4].tolist()
    assert say_why(NUMERIC, rows_TD[6:7], alone) == [
        "b is 9 where 0 ± 1 was expected (9 sd too high)"
    ]


def test_a_windowed_row_that_is_strange_in_most_features_differs_as_a_whole() -> None:
    features = tuple(Feature(name=f"f{i}", kind="numeric") for i in range(12))
    served = make_windowed_served(features, rows=3)
    rows_TD = np.zeros((3, 12), np.float32)
    rows_TD[2] = 50.0
    explanation = served.detector.explain(rows_TD)
    reasons = reasons_of(served.detector, rows_TD, explanation, served.threshold.score)
    assert reasons is not None
    assert reasons.as_a_whole_N.tolist() == [True]
    assert len(reasons.groups[0]) == 8
    (sentence,) = say_why(features, rows_TD[2:], reasons)
    assert sentence is not None
    assert sentence.startswith("differs as a whole: f")
    assert sentence.endswith("and 4 more moved with it")


def test_what_is_no_number_has_no_deviation_in_a_windowed_model() -> None:
    served = make_windowed_served(MIXED, rows=3)
    rows_TD = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [50, 1, 2, 0]], np.float32)
    explanation = served.detector.explain(rows_TD)
    reasons = reasons_of(served.detector, rows_TD, explanation, served.threshold.score)
    assert reasons is not None
    assert np.isnan(reasons.expected.sd_ND[0]).tolist() == [False, True, True, False]
    assert np.isnan(reasons.expected.probability_ND[0]).tolist() == [True, False, True, True]
