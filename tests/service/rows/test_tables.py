"""CSV and Parquet files, and how their rows become a model's."""

import numpy as np
import polars as pl
import pytest

from hourglass.service.errors import InvalidTable
from hourglass.service.rows.tables import encode_table, read_table
from tests.artifacts import MIXED, NUMERIC


def write(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def frame():
    return pl.DataFrame(
        {
            "note": ["x", "y", "z"],
            "heat": [1, 2, None],
            "site": ["west", "mars", None],
            "open": [True, None, False],
            "load": [0.5, None, -1e30],
        }
    )


EXPECTED = [[0.5, 1, 2, 1], [np.nan, np.nan, -1, 2], [-1e30, 0, np.nan, np.nan]]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_columns_are_taken_by_name_in_the_models_order_and_others_are_left_out(
    frame, tmp_path, suffix
):
    path = tmp_path / f"rows{suffix}"
    frame.write_parquet(path) if suffix == ".parquet" else frame.write_csv(path)
    rows_ND = encode_table(read_table(path), MIXED)
    assert rows_ND.dtype == np.float32
    np.testing.assert_array_equal(rows_ND, np.array(EXPECTED, np.float32))


def test_booleans_may_be_0_and_1(frame):
    rows_ND = encode_table(frame.with_columns(pl.Series("open", [1, None, 0])), MIXED)
    np.testing.assert_array_equal(rows_ND, np.array(EXPECTED, np.float32))


def test_names_are_as_csv_means_them(tmp_path):
    """Quoted, with quotes doubled; spaces around them mean nothing."""
    path = write(tmp_path / "rows.csv", '"5"" pipe","a,b", c ,"line\nbreak"\n1,2,3,4\n5,6,7,8\n')
    assert read_table(path).columns == ['5" pipe', "a,b", "c", "line\nbreak"]


def test_a_column_without_any_value_is_missing_throughout(frame):
    rows_ND = encode_table(frame.with_columns(site=None, load=None), MIXED)
    assert np.isnan(rows_ND[:, [0, 2]]).all()


@pytest.mark.parametrize(
    ("column", "values", "sentence"),
    [
        (
            "load",
            [None, "much", "x"],
            "column 'load', row 2: expected a number, got 'much'; leave a cell empty where the value is"
            " missing, or --null 'much'",
        ),
        (
            "load",
            [True, False, True],
            "column 'load', row 1: expected a number, got True (Boolean column)",
        ),
        ("site", [1, 2, 3], "column 'site', row 1: expected text, got 1 (Int64 column)"),
        ("open", [0, 2, 1], "column 'open', row 2: expected true or false, got 2 (Int64 column)"),
        (
            "load",
            [0.0, 1e39, 0.0],
            "column 'load', row 2: expected a finite number within float32, got 1e+39",
        ),
        (
            "load",
            [0.0, 0.0, -np.inf],
            "column 'load', row 3: expected a finite number within float32, got -inf",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_named_by_column_and_row(frame, column, values, sentence):
    with pytest.raises(InvalidTable) as caught:
        encode_table(frame.with_columns(pl.Series(column, values)), MIXED)
    assert str(caught.value) == sentence


def test_an_absent_column_is_named(frame):
    with pytest.raises(
        InvalidTable, match=r"^the table has no column 'load', .* \(2 absent in all\)$"
    ):
        encode_table(frame.drop("load", "heat"), MIXED)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("rows.csv", "", "holds no rows"),
        ("rows.csv", "a,b,c,d\n", "holds no rows"),
        ("rows.csv", "a,b,a,d\n1,2,3,4\n", "has the column 'a' more than once"),
        ("rows.csv", "a,b,c,d\n1,2,3,4,5\n", "expected 4 cells, got 5"),
        ("rows.parquet", "not parquet", "cannot be read"),
        ("rows.json", "{}", "is neither .csv nor .parquet"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path, name, text, sentence):
    with pytest.raises(InvalidTable) as caught:
        read_table(write(tmp_path / name, text))
    assert str(tmp_path / name) in str(caught.value)
    assert sentence in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidTable, match="is not a file"):
        read_table(tmp_path / "nothing.csv")


def test_a_csv_of_plain_numbers_is_read(tmp_path):
    path = write(tmp_path / "rows.csv", "d,a,b,c\n4,1,2.5,\n8,5,6,7\n")
    np.testing.assert_array_equal(
        encode_table(read_table(path), NUMERIC), [[1, 2.5, np.nan, 4], [5, 6, 7, 8]]
    )
