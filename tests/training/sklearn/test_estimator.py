"""The estimator: what scikit-learn and PyOD expect of it, and what the service makes of it."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from hourglass.service.model.detector import Detector
from hourglass.service.rows.frames import frame_of
from hourglass.sklearn import Hourglass
from hourglass.sklearn.pyod import Hourglass as PyODHourglass
from tests.serving import serving

LINEAR = {"variant": "linear"}


def rows(n: int = 120, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, 2)) @ draw.normal(size=(2, 5)) + 0.1 * draw.normal(size=(n, 5))


def frame(n: int = 150) -> pd.DataFrame:
    draw = np.random.default_rng(1)
    made = pd.DataFrame({"load": draw.normal(size=n), "site": draw.choice(["north", "south"], n)})
    made["heat"] = np.where(made.site == "north", 5.0, -5.0) + 0.1 * draw.normal(size=n)
    made["open"] = draw.random(n) < 0.5
    made.loc[3, "load"] = np.nan
    made.loc[4, "site"] = None
    return made


@pytest.fixture(scope="module")
def fitted() -> Hourglass:
    return Hourglass(**LINEAR, alpha=0.1).fit(rows())


@pytest.fixture(scope="module")
def mixed() -> Hourglass:
    return Hourglass(**LINEAR, alpha=0.1).fit(frame())


def test_signs_are_those_of_scikit_learn(fitted: Hourglass):
    new = rows(40, seed=0)
    new[0] = 100.0
    scores = fitted.score_samples(new)
    assert scores.argmin() == 0
    np.testing.assert_array_equal(fitted.decision_function(new), scores - fitted.offset_)
    predicted = fitted.predict(new)
    assert set(predicted) <= {-1, 1}
    assert predicted[0] == -1
    assert ((predicted == -1) == (fitted.decision_function(new) < 0)).all()
    assert is_outlier_detector(fitted)
    p_values = fitted.p_values(new)
    assert p_values.argmin() == 0
    assert (p_values > 0).all()


def test_scores_are_the_service_s(fitted: Hourglass, tmp_path: Path):
    new = rows(20, seed=3)
    expected = Detector.from_bytes(fitted.onnx_).score(new.astype(np.float32)).score
    np.testing.assert_array_equal(-fitted.score_samples(new), expected.astype(np.float64))
    path = fitted.to_onnx(tmp_path / "model.onnx")
    assert path.read_bytes() == fitted.onnx_
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]
    fitted.to_onnx(tmp_path / "models" / "pumps")
    with serving(tmp_path / "models") as client:
        answer = client.post("/v1/models/pumps/score", json={"rows": new.tolist()}).json()
        features = client.get("/v1/models/pumps").json()["features"]
    np.testing.assert_allclose(answer["score"], expected, rtol=1e-6)
    assert answer["is_anomaly"] == (fitted.predict(new) == -1).tolist()
    assert [each["name"] for each in features] == ["x0", "x1", "x2", "x3", "x4"]


def test_a_pickle_is_its_file_and_parameters(fitted: Hourglass):
    pickled = pickle.dumps(fitted)
    assert fitted.onnx_ in pickled
    assert b"hourglass.service" not in pickled  # no code of ours but the class itself
    again = pickle.loads(pickled)
    new = rows(10, seed=4)
    np.testing.assert_array_equal(again.score_samples(new), fitted.score_samples(new))
    fresh = clone(again)
    assert fresh.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        fresh.predict(new)
    assert pickle.loads(pickle.dumps(fresh)).get_params() == fitted.get_params()


def test_frames_have_categories_gaps_and_names(mixed: Hourglass):
    assert mixed.feature_names_in_.tolist() == ["load", "site", "heat", "open"]
    manifest = Detector.from_bytes(mixed.onnx_).manifest
    assert [each.kind for each in manifest.features] == [
        "numeric",
        "categorical",
        "numeric",
        "boolean",
    ]
    table = frame()
    expected = mixed.score_samples(table)
    assert not np.isnan(expected).any()
    kinds = {"site": "category", "open": "boolean"}
    columns = {name: [None if v != v else v for v in table[name]] for name in table}
    for other in (table.astype(kinds), table.convert_dtypes(), pl.DataFrame(columns)):
        np.testing.assert_array_equal(mixed.score_samples(other), expected)
    strange = table.iloc[[0, 1]].copy()
    strange.loc[0, "heat"] = -strange.loc[0, "heat"]
    assert mixed.predict(strange).tolist()[0] == -1
    strange.loc[1, "site"] = "nowhere"
    assert mixed.p_values(strange)[1] < 0.1  # a category that is new
    with pytest.raises(ValueError, match="feature names"):
        mixed.predict(table[["heat", "load", "site", "open"]])
    with pytest.raises(ValueError, match="heat"):
        mixed.predict(table.astype({"heat": str}).assign(heat="warm"))


def test_what_cannot_be_learnt_is_said_with_its_size():
    with pytest.raises(ValueError, match=r"at least 20.*n_samples=5, n_features=5"):
        Hourglass(**LINEAR).fit(rows(5))
    with pytest.raises(ValueError, match="contamination"):
        Hourglass(contamination=0.7).fit(rows())
    with pytest.raises(ValueError, match="there is no variant 'best'"):
        Hourglass(variant="best").fit(rows())


def test_a_row_without_values_is_refused_by_its_number(fitted: Hourglass):
    new = rows(3)
    new[2] = np.nan
    with pytest.raises(ValueError, match="row 2: expected at least 3 of 5 values, got 0"):
        fitted.predict(new)


def test_a_row_without_values_among_those_of_a_fit_has_no_score():
    data = rows()
    data[7] = np.nan
    made = PyODHourglass(0.05, **LINEAR).fit(data)
    assert np.flatnonzero(np.isnan(made.decision_scores_)).tolist() == [7]
    assert made.labels_[7] == 0
    assert made.labels_.sum() == 6
    with pytest.raises(ValueError, match="at least 60 normal rows"):
        made.fit(data[:5])
    with pytest.raises(NotFittedError):  # a fit that failed leaves no model
        made.predict(data[:1])


def test_categories_of_pandas_are_categories_also_as_numbers():
    column = pd.Series([1, 2, None], dtype="category", name="zone")
    assert frame_of(column.to_frame(), ["zone"])["zone"].to_list() == ["1", "2", None]


def test_it_works_in_a_pipeline_and_marks_the_share_asked_for():
    made = make_pipeline(FunctionTransformer(), Hourglass(**LINEAR, contamination=0.1))
    data = rows()
    predicted = made.fit_predict(data)
    assert (predicted == -1).sum() == 12
    np.testing.assert_array_equal(made.predict(data), predicted)


def test_the_shape_of_pyod():
    data = rows()
    data[:6] += 20.0 * np.eye(6, 5)
    made = PyODHourglass(0.05, **LINEAR).fit(data)
    assert made.labels_.sum() == 6
    assert made.labels_[:5].all()
    np.testing.assert_array_equal(made.decision_function(data), made.decision_scores_)
    np.testing.assert_array_equal(made.predict(data), made.labels_)
    assert ((made.decision_scores_ > made.threshold_) == made.labels_).all()
    assert made.get_params()["contamination"] == 0.05
    for method in ("linear", "unify"):
        chance = made.predict_proba(data, method)
        np.testing.assert_allclose(chance.sum(axis=1), 1)
        assert ((chance >= 0) & (chance <= 1)).all()
        in_order = chance[np.argsort(made.decision_scores_), 1]
        assert (np.diff(in_order) >= 0).all()
        assert in_order[-1] > in_order[0]
    with pytest.raises(ValueError, match="method must be"):
        made.predict_proba(data, "other")


TOO_FEW = dict.fromkeys(
    ("check_n_features_in_after_fitting", "check_classifier_data_not_an_array"),
    "fits fewer than the 20 rows that a fit takes at least",
)


@pytest.mark.heavy
def test_scikit_learn_s_own_checks_hold():
    found = check_estimator(
        Hourglass(**LINEAR), expected_failed_checks=TOO_FEW, on_skip=None, on_fail="raise"
    )
    by_status: dict[str, set[str]] = {}
    for each in found:
        by_status.setdefault(each["status"], set()).add(each["check_name"])
    assert by_status["xfail"] == TOO_FEW.keys()
    # for who sets SCIPY_ARRAY_API
    assert by_status["skipped"] == {"check_array_api_input"}
    assert len(by_status["passed"]) > 30
