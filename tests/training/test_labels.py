"""Which rows a label column calls normal."""

import polars as pl
import pytest

from hourglass.training.errors import RunError
from hourglass.training.labels import is_anomalous


def labels(*values, name="label"):
    return pl.DataFrame({name: values}, strict=False)


@pytest.mark.parametrize(
    "values",
    [
        (0, 1, 1),
        (0, 1, -2.5),
        (False, True, True),
        ("no", "yes", "yes"),
        ("No ", "Yes", "YES"),
        ("normal", "anomaly", "anomaly"),
        ("Normal", "dos", "probe"),
        ("normal.", "smurf.", "neptune."),
        ("benign", "malignant", "malignant"),
        ("false", "true", "true"),
        ("n", "y", "y"),
        ("good", "no", "bad"),
    ],
    ids=str,
)
def test_one_value_that_plainly_means_normal_is_taken(values):
    assert is_anomalous(labels(*values), "label").tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (labels(1, 1, -1), r"'1' \(2 rows\), '-1' \(1 rows\)"),
        (labels(1, 2, 1), r"'1' \(2 rows\), '2' \(1 rows\)"),
        (labels("a", "b", "a"), r"'a' \(2 rows\), 'b' \(1 rows\)"),
        (labels("normal", "ok", "normal"), r"'normal' \(2 rows\), 'ok' \(1 rows\)"),
        (labels("f", "m", "f", name="sex"), r"'f' \(2 rows\), 'm' \(1 rows\)"),
        (labels(0, 1, 1, name="is_normal"), r"'1' \(2 rows\), '0' \(1 rows\)"),
        (labels(True, False, True, name="ok"), r"'true' \(2 rows\), 'false' \(1 rows\)"),
        (labels("yes", "no", "yes", name="Normal"), r"'yes' \(2 rows\), 'no' \(1 rows\)"),
        (labels(*"abcdefgg"), r"'g' \(2 rows\), .* and 2 more values"),
    ],
    ids=range(9),
)
def test_what_the_column_holds_is_said_where_normal_is_in_doubt(frame, found):
    with pytest.raises(
        RunError, match=rf"expected 0 for normal rows, got {found}; --normal VALUE names"
    ):
        is_anomalous(frame, frame.columns[0])


@pytest.mark.parametrize(
    ("values", "normal"),
    [
        ((1, -1, 2), "1"),
        ((1.0, 0.0, -1.0), "1"),
        ((-1, 1, 0), "-1.0"),
        ((True, False, False), "true"),
        (("a", "b", "c"), "A"),
        ((0, 1, 2), "0"),
    ],
)
def test_the_normal_value_may_be_named(values, normal):
    assert is_anomalous(labels(*values), "label", normal).tolist() == [False, True, True]


def test_a_normal_value_that_is_not_there_is_refused():
    with pytest.raises(
        RunError, match=r"expected the normal value 'good', got '1' \(1 rows\), '0' \(1 rows\);"
    ):
        is_anomalous(labels(1, 0), "label", "good")


def test_rows_of_one_label_are_all_normal_or_all_anomalous():
    assert is_anomalous(labels(1, 1), "label").tolist() == [True, True]
    assert is_anomalous(labels(0, 0), "label").tolist() == [False, False]
    assert is_anomalous(labels("ok", "ok"), "label").tolist() == [False, False]
