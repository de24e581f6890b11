"""CSV and Parquet files, and how their rows become a model's."""

import numpy as np
import polars as pl
import pytest

from hourglass.service.errors import InvalidTable
from hourglass.service.model.artifact import Feature
from hourglass.service.rows.dialect import Dialect
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
            "column 'load', row 3: expected a finite number within float32, got -inf; --null=-inf reads"
            " it as missing",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_named_by_column_and_row(frame, column, values, sentence):
    with pytest.raises(InvalidTable) as caught:
        encode_table(frame.with_columns(pl.Series(column, values)), MIXED)
    assert str(caught.value) == sentence


def test_all_columns_that_do_not_fit_are_named_the_first_of_them_with_their_cells():
    features = [Feature(name=f"x{i}", kind="numeric") for i in range(28)]
    table = pl.DataFrame({feature.name: ["1", "ERR", "--"] for feature in features})
    with pytest.raises(InvalidTable) as caught:
        encode_table(table, features)
    first, *lines, last = str(caught.value).splitlines()
    assert first == "28 columns are not as the model expects"
    assert lines == [
        f"  column 'x{i}', row 2: expected a number, got 'ERR'; leave a cell empty where the value is"
        " missing, or --null 'ERR'"
        for i in range(5)
    ]
    assert last == f"  and {', '.join(repr(f'x{i}') for i in range(5, 25))} and 3 more"


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


@pytest.mark.parametrize(
    "values",
    [[1.0, None, 0.0], [1.0, np.nan, 0.0], [True, None, False], [1, None, 0]],
    ids=str,
)
def test_booleans_with_gaps_may_be_numbers(frame, values):
    rows_ND = encode_table(frame.with_columns(pl.Series("open", values)), MIXED)
    np.testing.assert_array_equal(rows_ND, np.array(EXPECTED, np.float32))


@pytest.mark.parametrize(
    "cells", [(" 1", "", "0"), (" 1.0", "", "0.0"), ("True", "", "False"), (" true", "", "FALSE ")]
)
def test_booleans_of_a_csv_are_read_as_people_write_them(tmp_path, cells):
    lines = ["load,open,heat,site", *(f"1,{cell},2,west" for cell in cells)]
    rows_ND = encode_table(read_table(write(tmp_path / "rows.csv", "\n".join(lines))), MIXED)
    np.testing.assert_array_equal(rows_ND[:, 1], np.array([1, np.nan, 0], np.float32))


def test_the_row_of_the_bad_cell_is_named_and_the_flag_that_reads_it(frame):
    for cell, meaning in (
        ("-", "'-'; --null '-' reads it as missing"),
        ("1,5", "'1,5', a decimal comma: --decimal , reads it"),
        ("20 C", "'20 C', which has a unit: write the number alone"),
    ):
        with pytest.raises(InvalidTable) as caught:
            encode_table(frame.with_columns(pl.Series("load", ["0.5", None, cell])), MIXED)
        assert str(caught.value) == f"column 'load', row 3: expected a number, got {meaning}"


def test_numbers_written_as_text_and_lists_are_named_as_such(frame):
    for values, sentence in (
        ([None, "2", "3"], "column 'load', row 2: expected a number, got '2', a number written as"),
        ([None, [1.0, 2.0], [3.0]], "column 'load', row 2: expected a number, got List(Float64)"),
    ):
        with pytest.raises(InvalidTable) as caught:
            encode_table(frame.with_columns(pl.Series("load", values)), MIXED)
        assert str(caught.value).startswith(sentence)


def test_a_large_cell_is_not_echoed(frame):
    large = "x" * 200_000_000
    with pytest.raises(InvalidTable, match="column 'load', row 2: expected a number") as caught:
        encode_table(frame.with_columns(pl.Series("load", ["0.5", large, None])), MIXED)
    assert len(str(caught.value)) < 400


class TestHowACsvIsWritten:
    """Read because the user says so, or refused with the flag that reads it."""

    @pytest.mark.parametrize(
        ("text", "dialect", "rows"),
        [
            ("a;b\n1,5;x\n2;y\n", {"separator": ";", "decimal": ","}, [(1.5, "x"), (2, "y")]),
            ("a\tb\n1.5\tx\n", {"separator": "\t"}, [(1.5, "x")]),
            ("a;b\n1.510,5;x\n", {"separator": ";", "decimal": ",", "thousands": "."}, [(1510.5, "x")]),
            ('a,b\n"1,5",1\n2,"2,25"\n', {"decimal": ","}, [(1.5, 1), (2, 2.25)]),
            ('a,b\n"1.510",1\n2,x\n', {"decimal": ",", "thousands": "."}, [(1510, "1"), (2, "x")]),
            ('a,b\n"1,510",x\n9,y\n', {"thousands": ","}, [(1510, "x"), (9, "y")]),
            ("a,b\n1_510,x\n", {"thousands": "_"}, [(1510, "x")]),
            ("a,b\n1,NA\n NA ,2\n-,3\n", {"null": ("NA", "-")}, [(1, None), (None, 2), (None, 3)]),
            ("a,b\n1,-999\n-999.0,2\n", {"null": ("-999",)}, [(1, None), (None, 2)]),
            ("1.5,x\n2.5,y\n", {"header": False}, [(1.5, "x"), (2.5, "y")]),
            ("# by hand\na,b\n1,2\n# end\n", {"comment": "#"}, [(1, 2)]),
            ("a,b\r1,x\r2,y\r", {}, [(1, "x"), (2, "y")]),
            ("a,b,\n1,x,\n2,y,\n", {}, [(1, "x"), (2, "y")]),
        ],
    )  # fmt: skip
    def test_it_is_read_as_the_user_says(self, tmp_path, text, dialect, rows):
        path = tmp_path / "rows.csv"
        path.write_bytes(text.encode())
        assert read_table(path, Dialect(**dialect)).rows() == rows

    def test_without_a_header_columns_are_numbered_from_1(self, tmp_path):
        path = write(tmp_path / "rows.csv", "1.5,x\n")
        assert read_table(path, Dialect(header=False)).columns == ["column_1", "column_2"]

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("a;b\n1;2\n", "got a header with ';' between names: --separator ';' reads it"),
            ("a\tb\n1\t2\n", "--separator tab reads it"),
            ("1.5,0.2\n1,2\n", "expected names of columns in the first line, got the number 1.5: --no-header"),
            ("39, State-gov, 77516, Bachelors, 13\n50, Self, 83311, HS, 13\n", "got the number 39: --no-header"),
            ("5.1,3.5,1.4,0.2,Iris-setosa\n4.9,3,1.4,.2,Iris-setosa\n", "got the number 5.1: --no-header"),
            ("1.5\n2.5\n", "got the number 1.5: --no-header"),
            ("3,7\n1,2\n", "got the number 3: --no-header"),
            ("0,0,1\n1,2,3\n", "got the number 0: --no-header"),
            ("# by hand\na,b\n1,2\n", "--comment '#' leaves out such lines"),
            ("a,b\n1,2\n# end\n", "row 2: expected 2 cells, got 1: --comment '#' leaves out lines that begin so"),
            ("\n\na,b\n1,2\n", "expected the first line to be a header or a row, got nothing"),
            ("a,b\n1,2,\n", "row 1: expected 2 cells, got 3, the last of them empty: end the first line with a separator"),
        ],
    )  # fmt: skip
    def test_what_is_refused_names_the_flag(self, tmp_path, text, sentence):
        with pytest.raises(InvalidTable) as caught:
            read_table(write(tmp_path / "rows.csv", text))
        assert sentence in str(caught.value)

    @pytest.mark.parametrize(
        "header",
        [
            "0,1,2",
            "2019,2020,2021",
            "400.5,401,401.5",
            "city,2020,2019",
            "2020,2019,2018",
            "0,1",
            "a,5",
            "7",
        ],
    )
    def test_numbers_in_order_may_be_names(self, tmp_path, header):
        path = write(tmp_path / "rows.csv", f"{header}\n" + "1," * header.count(",") + "1\n")
        assert read_table(path).columns == header.split(",")

    def test_text_stays_text_where_it_is_asked_for(self, tmp_path):
        path = write(tmp_path / "rows.csv", "code,open, site \n01067,true,7\n99999,false,8\n")
        frame = read_table(path, text=("code", "open", "site"))
        assert frame.rows() == [("01067", "true", "7"), ("99999", "false", "8")]

    @pytest.mark.parametrize("text", [pl.String, pl.Categorical, pl.Enum(["NA", "x"])])
    def test_null_values_hold_for_parquet_too(self, tmp_path, text):
        path = tmp_path / "rows.parquet"
        frame = pl.DataFrame({"a": [1.0, -999.0], "b": ["NA", "x"], "c": [-999, 3]})
        frame.with_columns(pl.col("b").cast(text)).write_parquet(path)
        read = read_table(path, Dialect(null=("NA", "-999")))
        assert read.rows() == [(1.0, None, None), (None, "x", 3)]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_larger_than_memory_is_refused_before_it_is_read(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"rows{suffix}"
    frame = pl.DataFrame(np.ones((1000, 5)), schema=list("abcde"))
    frame.write_parquet(path) if suffix == ".parquet" else frame.write_csv(path)
    needed = 40_000 if suffix == ".parquet" else path.stat().st_size
    monkeypatch.setattr("hourglass.service.rows.tables.available_bytes", lambda: needed - 1)
    with pytest.raises(InvalidTable, match=r"takes at least .* GB of memory, and .* GB are left"):
        read_table(path)
    monkeypatch.setattr("hourglass.service.rows.tables.available_bytes", lambda: needed)
    assert read_table(path).shape == (1000, 5)


def test_a_name_of_many_characters_is_not_echoed(tmp_path):
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"a": [1], "x" * 1_000_000: [2]}).write_parquet(path)
    with pytest.raises(InvalidTable, match=r"got 1000000 in that of column 2$"):
        read_table(path)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(("decimal", "thousands"), [(".", ","), (",", "."), (",", " "), (".", "'")])
def test_every_dialect_gives_the_same_table(tmp_path, separator, decimal, thousands):
    rng = np.random.default_rng(0)
    numbers = [None, 0.0, *(10.0 ** rng.uniform(-2, 7, 40) * rng.choice([-1, 1], 40)).round(3)]
    swapped = str.maketrans({",": thousands, ".": decimal})
    cells = ["n/a" if number is None else f"{number:,}".translate(swapped) for number in numbers]
    lines = [f"a{separator}b", *('"' + cell + '"' + separator + "x" for cell in cells)]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines))
    dialect = Dialect(separator=separator, decimal=decimal, thousands=thousands, null=("n/a",))
    assert read_table(path, dialect)["a"].to_list() == numbers


@pytest.mark.parametrize(
    ("categories", "values", "codes"),
    [
        (("1", "7", "A"), [7, None, 1, 2], [1, np.nan, 0, -1]),
        (("false", "true"), [True, False, None], [1, 0, np.nan]),
    ],
)
def test_whole_numbers_are_categories_where_those_are_written_so(categories, values, codes):
    feature = Feature(name="site", kind="categorical", categories=categories)
    rows_ND = encode_table(pl.DataFrame({"site": values}), [feature])
    np.testing.assert_array_equal(rows_ND[:, 0], np.array(codes, np.float32))


def test_the_bad_cell_is_that_of_the_dialect_the_file_is_in(tmp_path):
    path = write(tmp_path / "rows.csv", "load;open;heat;site\n1,5;1;2;a\n2.5;1;2;a\n")
    dialect = Dialect(separator=";", decimal=",")
    with pytest.raises(InvalidTable) as caught:
        encode_table(read_table(path, dialect), MIXED, dialect)
    assert str(caught.value) == (
        "column 'load', row 2: expected a number, got '2.5', a decimal point where --decimal , was"
        " given"
    )


@pytest.mark.parametrize(("encoding", "byte"), [("utf-16", "0xff after 0"), ("latin-1", "0xe4")])
def test_text_that_is_not_utf8_is_named_with_the_way_out(tmp_path, encoding, byte):
    path = tmp_path / "rows.csv"
    path.write_text("näme,b\n1,2\n", encoding=encoding)
    with pytest.raises(InvalidTable, match=rf"is not UTF-8 text: byte {byte} .*save it as UTF-8"):
        read_table(path)


def test_a_column_that_is_nearly_named_is_pointed_to():
    features = (Feature(name="temp", kind="numeric"),)
    with pytest.raises(InvalidTable, match=r"no column 'temp', .* there is 'Temp'\)$"):
        encode_table(pl.DataFrame({"Temp": [1.0]}), features)
