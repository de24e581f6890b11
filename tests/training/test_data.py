import math
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hourglass.service.errors import InvalidTable
from hourglass.service.rows.dialect import Dialect
from hourglass.service.rows.tables import read_table
from hourglass.training.config import load_config
from hourglass.training.data import describe, prepare, times
from hourglass.training.errors import RunError
from hourglass.training.labels import is_anomalous
from hourglass.training.split import data_of, table_of
from tests.training import tables


def frame(**columns: list[object]) -> pl.DataFrame:
    return pl.DataFrame(columns, strict=False)


@pytest.mark.parametrize("file", ["mixed.csv", "mixed.parquet"])
def test_kinds_come_from_the_columns(tmp_path: Path, file: str) -> None:
    data = prepare(
        read_table(tables.write(tables.mixed(), tmp_path / file)),
        label="fault",
        units={"heat": "°C"},
    )
    assert [
        (feature.name, feature.kind, feature.categories, feature.unit) for feature in data.features
    ] == [
        ("load", "numeric", (), None),
        ("flow", "numeric", (), None),
        ("heat", "numeric", (), "°C"),
        ("open", "boolean", (), None),
        ("site", "categorical", ("north", "south", "west"), None),
        ("fixed", "numeric", (), None),
        ("broken", "numeric", (), None),
    ]
    assert data.normal_ND.shape == (300, 7)
    assert data.anomalies_AD.shape == (20, 7)


def test_a_csv_and_a_parquet_file_of_the_same_table_give_the_same_rows(tmp_path: Path) -> None:
    csv, parquet = (
        prepare(read_table(tables.write(tables.mixed(), tmp_path / file)), label="fault")
        for file in ("mixed.csv", "mixed.parquet")
    )
    assert csv.features == parquet.features
    assert np.array_equal(csv.normal_ND, parquet.normal_ND, equal_nan=True)
    assert np.array_equal(csv.anomalies_AD, parquet.anomalies_AD, equal_nan=True)


def test_cells_become_numbers_codes_and_nan() -> None:
    data = prepare(
        frame(
            load=[1.5, None, 3.0],
            open=[True, False, None],
            site=["b", None, "a"],
            broken=[None] * 3,
        )
    )
    assert data.features[2].categories == ("a", "b")
    expected = [
        [1.5, 1, 1, math.nan],
        [math.nan, 0, math.nan, math.nan],
        [3, math.nan, 0, math.nan],
    ]
    assert np.array_equal(data.normal_ND, np.array(expected, dtype=np.float32), equal_nan=True)
    assert data.anomalies_AD.shape == (0, 4)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        (pl.Int8, "numeric"),
        (pl.UInt64, "numeric"),
        (pl.Float32, "numeric"),
        (pl.Decimal(10, 2), "numeric"),
        (pl.Boolean, "boolean"),
    ],
)
def test_every_width_of_number_is_a_number(dtype: pl.DataType, kind: str) -> None:
    data = prepare(pl.DataFrame({"a": pl.Series([0, 1, 1]).cast(dtype)}))
    assert data.features[0].kind == kind
    assert data.normal_ND.tolist() == [[0.0], [1.0], [1.0]]


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["x", "y", "z"])])
def test_every_kind_of_text_is_a_category(dtype: pl.DataType) -> None:
    data = prepare(pl.DataFrame({"a": pl.Series(["y", "x", None]).cast(dtype)}))
    assert data.features[0].categories == ("x", "y")
    assert np.array_equal(
        data.normal_ND, np.array([[1], [0], [np.nan]], dtype=np.float32), equal_nan=True
    )


def test_a_category_known_only_from_anomalies_is_unseen() -> None:
    data = prepare(frame(site=["a", "b", "a", "c"], fault=[0, 0, 0, 1]), label="fault")
    assert data.features[0].categories == ("a", "b")
    assert data.anomalies_AD.tolist() == [[-1.0]]


def test_text_that_only_anomalies_have_is_refused_by_name() -> None:
    with pytest.raises(RunError, match="column 'note', row 3: only anomalous rows have text here"):
        prepare(frame(a=[1, 2, 3], note=[None, None, "x"], fault=[0, 0, 1]), label="fault")


def test_how_many_values_text_has_is_judged_by_normal_rows_alone() -> None:
    table = frame(site=["a", "b"] * 20 + [f"odd {i}" for i in range(40)], fault=[0] * 40 + [1] * 40)
    assert prepare(table, label="fault").features[0].categories == ("a", "b")


def test_ignored_columns_and_the_label_are_no_features() -> None:
    data = prepare(
        frame(a=[1, 2], when=[date(2026, 1, 1)] * 2, fault=[0, 1]), label="fault", ignore=("when",)
    )
    assert [feature.name for feature in data.features] == ["a"]


@pytest.mark.parametrize("values", [[0, 1, 2], [0.0, 0.5, -1.0], [False, True, True]])
def test_what_is_not_zero_in_the_label_is_an_anomaly(values: list[object]) -> None:
    assert is_anomalous(frame(fault=values), "fault").tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            frame(a=[1], label=["bad"]),
            (
                r"label column 'label': expected 0 for normal rows, got 'bad' \(1 rows\);"
                " --normal VALUE names the normal one"
            ),
        ),
        (
            frame(a=[1, 2], label=[0, None]),
            "label column 'label', row 2: expected a label, got nothing",
        ),
        (
            frame(a=[1, 2], label=[0.0, math.nan]),
            "label column 'label', row 2: expected a label, got nothing",
        ),
        (frame(a=[1]), "there is no column 'label'"),
    ],
)
def test_a_label_that_cannot_be_read_is_refused_by_row(table: pl.DataFrame, sentence: str) -> None:
    with pytest.raises(RunError, match=sentence):
        prepare(table, label="label")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([None, date(2026, 1, 2)], r"column 'a', row 2: expected numbers, true/false or text, got the date or time 2026-01-02"),
        ([datetime(2026, 1, 2, 3, 4)], r"row 1: .* got the date or time 2026-01-02 03:04:00"),  # noqa: DTZ001
        (["31/12/2025", "1/2/2026"] * 9, r"row 1: .* got the date or time 31/12/2025"),
        (["2026-01-02T03:04:05Z"], r"got the date or time 2026-01-02T03:04:05Z"),
        (["2026-01-02 03:04:05"], r"got the date or time 2026-01-02 03:04:05"),
        (["03:04:05"], r"got the date or time 03:04:05"),
        (["03:45", "17:30"], r"got the date or time 03:45"),
        ([timedelta(minutes=3)], r"got the duration 0:03:00; write it as a number of seconds"),
        (["1", "ERR", "2", "No Data", "3", "ERR", "---", "4", "5"], r"row 2: .* got 'ERR'; .*--null 'ERR' 'No Data' --null=--- reads all of its words as missing"),
        (["31.12.2025"], r"got the date or time 31\.12\.2025"),
        ([[1.0, 2.0]], r"row 1: .* got List\(Float64\)"),
        ([{"x": 1}], r"row 1: .* got Struct"),
        ([b"x"], r"row 1: .* got Binary"),
        ([None, *(f"user {i}" for i in range(101))], r"row 2: expected categories that repeat, got text with 101 values in 101 rows, as an id or free text has .*'user 0'"),
        ([None, *(f"user {i % 101}" for i in range(303))], r"row 2: expected at most 100 categories, got text with 101 values in 303 rows .*max_categories in the run's file takes more"),
        ([f"user {i}" for i in range(30)], r"got text with 30 values"),
        (["1", "2.5", "x", "4"], r"row 3: expected a number like the rows around it, got 'x'"),
    ],
)  # fmt: skip
def test_a_column_that_is_no_feature_is_refused_with_its_first_row(
    values: list[object], sentence: str
) -> None:
    with pytest.raises(RunError, match=sentence):
        prepare(pl.DataFrame({"a": values}))


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e39, -1e300])
def test_what_float32_cannot_hold_is_refused_by_column_and_row(value: float) -> None:
    with pytest.raises(
        InvalidTable, match="column 'a', row 3: expected a finite number within float32"
    ):
        prepare(frame(a=[1.0, None, value]))


@pytest.mark.parametrize("text", ["1.2.3", "10.0.0.1", "16:9", "a-1-2", "1-2"])
def test_what_only_looks_a_little_like_a_date_is_a_category(text: str) -> None:
    assert prepare(frame(a=[text, "other", text])).features[0].kind == "categorical"


def test_an_unknown_column_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(RunError, match=r"there is no column 'c'; the columns are 'a', 'b'"):
        prepare(frame(a=[1], b=[2]), label=None, ignore=("c",))
    with pytest.raises(RunError, match=r"'x0', .*'x19' and 30 more$"):
        prepare(pl.DataFrame(np.zeros((1, 50)), schema=[f"x{i}" for i in range(50)]), label="y")


@pytest.mark.parametrize("file", ["table.csv", "table.parquet"])
def test_a_column_without_a_name_is_left_out_as_the_index_that_pandas_writes(
    tmp_path: Path, file: str
) -> None:
    days = [f"2026-01-{day:02d}" for day in range(1, 29)]
    table = pl.DataFrame({"": days, "a": np.arange(28.0) % 5, "Unnamed: 0": range(28)})
    read = read_table(tables.write(table, tmp_path / file))
    data = prepare(read)
    assert [feature.name for feature in data.features] == ["a"]
    assert data.warnings == (
        "column 'Unnamed: 0.1' is left out: it is an index that pandas wrote along of dates (--time"
        " orders the rows by it), or has no name; --keep 'Unnamed: 0.1' makes it a feature",
        "column 'Unnamed: 0' is left out: it is an index that pandas wrote along, or has no name;"
        " --keep 'Unnamed: 0' makes it a feature",
    )
    timed = prepare(read, time="Unnamed: 0.1")
    assert timed.time_N is not None
    assert np.diff(timed.time_N).tolist() == [86400.0] * 27


def test_columns_of_excel_without_name_and_value_are_none(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,,b,,\n1,,2,,\n3,4,5,,\n")
    frame = read_table(path)
    assert frame.columns == ["a", "Unnamed: 1", "b"]
    assert frame.rows() == [(1, None, 2), (3, 4, 5)]


def test_whole_numbers_that_begin_with_0_are_refused_as_the_codes_they_are(tmp_path: Path) -> None:
    rows = [
        f"{plz},{hour:02d},{hour},{1.5 * hour}" for plz in ("01067", "80331") for hour in range(24)
    ]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["plz,hour,n,x", *rows]))
    asked = {"data": str(path), "name": "pump"}

    def features(**fields: object) -> list[tuple[str, str]]:
        config = load_config(None, {**asked, **fields})
        data = data_of(table_of(config), config)
        return [(feature.name, feature.kind) for feature in data.features]

    with pytest.raises(RunError) as refused:
        features()
    assert str(refused.value).splitlines()[1] == (
        "  column 'plz', row 1: '01067' begins with 0, as a code or a postcode does and a number"
        " does not; --categorical 'plz' takes the column as text, --keep 'plz' as numbers"
    )
    numbers = [("n", "numeric"), ("x", "numeric")]
    told = features(categorical=["plz"], keep=["hour"])
    assert told == [("plz", "categorical"), ("hour", "numeric"), *numbers]
    assert features(ignore=["plz"], group="hour") == numbers
    # what scores knows the kinds already
    assert read_table(path)["plz"].to_list()[0] == 1067
    assert read_table(path, text=["plz"])["plz"].to_list()[0] == "01067"


def test_range_and_missing_rate_are_those_of_the_rows_given() -> None:
    data = prepare(frame(a=[1.0, None, 5.0, 3.0], b=[None] * 4))
    first, second = describe(data.features, data.normal_ND)
    assert (first.minimum, first.maximum, first.missing_rate) == (1.0, 5.0, 0.25)
    assert (second.minimum, second.maximum, second.missing_rate) == (None, None, 1.0)


class TestFilesAsPeopleWriteThem:
    """What a CSV file may look like, and what it must not."""

    PLAIN = "a,b,c\n1.5,x,2\n,y,3\n-4,x,5\n"

    def test_an_empty_line_is_no_row_and_a_line_of_empty_cells_is_one(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, "a,b\n1,2\n\n,\n\n3,\n\n").rows() == [
            (1, 2),
            (None, None),
            (3, None),
        ]
        assert self.read(tmp_path, "a\r\n1\r\n\r\n3\r\n").rows() == [(1,), (3,)]

    def read(self, tmp_path: Path, text: str | bytes) -> pl.DataFrame:
        path = tmp_path / "table.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_table(path)

    @pytest.mark.parametrize(
        "text",
        [
            PLAIN,
            "\ufeff" + PLAIN,
            PLAIN.replace("\n", "\r\n"),
            PLAIN.rstrip("\n"),
            PLAIN + "\n\n",
            PLAIN.replace("\n,y", "\n\n,y"),
            PLAIN.replace(",", " , ").replace("\n", " \n"),
            '"a","b","c"\n"1.5","x","2"\n"","y","3"\n"-4","x","5"\n',
        ],
        ids=[
            "plain",
            "byte order mark",
            "CRLF",
            "no last newline",
            "empty lines after",
            "empty line amid",
            "spaces",
            "quotes",
        ],
    )
    def test_it_reads_the_same_whatever_the_dialect(self, tmp_path: Path, text: str) -> None:
        table = self.read(tmp_path, text)
        assert table.columns == ["a", "b", "c"]
        assert table.rows() == [(1.5, "x", 2), (None, "y", 3), (-4.0, "x", 5)]

    def test_infinity_among_numbers_is_a_number(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, "a\n1\n-Infinity\n").rows() == [(1.0,), (-math.inf,)]

    def test_whole_numbers_beyond_64_bits_are_read(self, tmp_path: Path) -> None:
        table = self.read(tmp_path, "a\n9007199254740993\n99999999999999999999\n")
        assert prepare(table).normal_ND.ravel().tolist() == pytest.approx(
            [9007199254740993, 1e20], rel=1e-7
        )

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("a,b\n1,2\n1,2,3\n", "row 2: expected 2 cells, got 3"),
            ("a,b\n1,2\n\n1\n", "row 2: expected 2 cells, got 1"),
            ("# made by hand\na,b\n1,2\n", "first line that begins with '#': --comment '#'"),
            ("a;b\n1;2\n", "got a header with ';' between names: --separator ';' reads it"),
            ("a\tb\n1\t2\n", "between names: --separator tab reads it"),
            ("a,b,a\n1,2,3\n", "column 'a' more than once .as columns 1 and 3.: give each a name"),
            ("a,a \n1,2\n", "has the column 'a' more than once"),
            ("Report,,\nday,x,y\n1,2,3\n", "got 2 columns with values and without a name: delete"),
            ("a,b\n", "holds no rows"),
            ("a,b", "holds no rows"),
            ("", "holds no rows"),
            (b"caf\xe9,b\n1,2\n", "is not UTF-8 text: byte 0xe9 after 3 others"),
            (b"a,b\ncaf\xe9,2\n", "is not UTF-8 text: byte 0xe9 after 7 others"),
            ("x" * 200_000 + ",b\n1,2\n", "cannot be read: field larger than field limit"),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_what_is_no_table_is_refused_in_one_sentence(
        self, tmp_path: Path, text: str | bytes, sentence: str
    ) -> None:
        with pytest.raises(InvalidTable, match=sentence) as refused:
            self.read(tmp_path, text)
        assert "\n" not in str(refused.value)

    def test_a_file_that_is_not_what_its_name_says_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "table.parquet").write_text(self.PLAIN)
        with pytest.raises(InvalidTable, match=r"table\.parquet cannot be read: ") as refused:
            read_table(tmp_path / "table.parquet")
        assert "\n" not in str(refused.value)

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("absent.csv", "is not a file"),
            (".", "is not a file"),
            ("table.feather", r"is neither \.csv nor \.parquet$"),
            ("table.xlsx", r"is neither \.csv nor \.parquet: save the sheet as 'CSV UTF-8'"),
            ("table.csv.gz", r"is neither \.csv nor \.parquet: unpack it first"),
            ("table.jsonl", r"nor \.parquet: pandas\.read_json\(FILE\)\.to_parquet"),
        ],
    )
    def test_a_file_that_is_absent_or_of_another_kind_is_refused_with_what_makes_it_a_table(
        self, tmp_path: Path, name: str, sentence: str
    ) -> None:
        if name not in ("absent.csv", "."):
            (tmp_path / name).touch()
        with pytest.raises(InvalidTable, match=sentence):
            read_table(tmp_path / name)


@pytest.mark.parametrize(("spread", "refused"), [(5.0, True), (5000.0, False), (0.0, False)])
def test_values_that_float32_cannot_tell_apart_are_refused(spread: float, refused: bool) -> None:
    values = 1e9 + spread * np.random.default_rng(0).normal(size=100)
    frame = pl.DataFrame({"meter": values, "vib": np.arange(100.0) % 7})
    if refused:
        with pytest.raises(RunError, match=r"'meter', row 1: values around .* knows steps of 64"):
            prepare(frame)
    else:
        assert len(prepare(frame).features) == 2


@pytest.mark.parametrize("value", [0.1, -48.82145536, 1e9 / 3])
def test_a_constant_is_taken_whatever_its_standard_deviation_is_rounded_to(value: float) -> None:
    frame = pl.DataFrame({"fixed": np.full(58, value), "vib": np.arange(58.0) % 7})
    assert frame["fixed"].to_numpy().std() > 0
    assert [feature.name for feature in prepare(frame).features] == ["fixed", "vib"]


ROWS = 60
NOISE = np.random.default_rng(0).normal(size=ROWS)


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        (["1,510", "9,000", "950"] * 20, "got '1,510', digits in groups: --thousands , reads"),
        (["1,5", "2,25", "3"] * 20, "got '1,5', a decimal comma: --decimal , reads it"),
        ([f"{i} C" for i in range(ROWS)], "got '0 C', which has a unit: write the number alone"),
        ([f"{i}%" for i in range(ROWS)], "got '0%', which has a unit"),
        (["NA", "NA", "1.5"] * 20, "got 'NA'; --null 'NA' reads it as missing"),
        (["7", "9"] * 30, "got '7', a number written as text: make it a column of numbers"),
        (["1_510", "9_000"] * 30, "digits in groups: --thousands _ reads them"),
        (
            ["kPa", *map(str, range(59))],
            "got 'kPa'; .*; delete the row if it holds units",
        ),
    ],
)
def test_text_that_means_numbers_is_refused_with_the_flag_that_reads_it(
    cells: list[str], sentence: str
) -> None:
    table = pl.DataFrame({"a": cells, "b": NOISE})
    with pytest.raises(RunError, match=rf"column 'a', row \d+: expected a number .*{sentence}"):
        prepare(table)
    with pytest.raises(RunError, match=r"; --categorical 'a' takes the column as text"):
        prepare(table)


def test_decimal_points_beside_decimal_commas_are_no_categories() -> None:
    table = pl.DataFrame({"a": [f"{value:.3f}" for value in NOISE]})
    with pytest.raises(RunError, match="a decimal point where --decimal , was given"):
        prepare(table, dialect=Dialect(separator=";", decimal=","))


def test_what_looks_like_numbers_is_text_where_it_is_asked_for() -> None:
    table = pl.DataFrame({"plan": ["1,510", "9,000"] * 30, "zone": [1, 2] * 30, "b": NOISE})
    data = prepare(table, categorical=("plan", "zone"))
    assert [(it.name, it.kind, it.categories) for it in data.features] == [
        ("plan", "categorical", ("1,510", "9,000")),
        ("zone", "categorical", ("1", "2")),
        ("b", "numeric", ()),
    ]
    with pytest.raises(RunError, match="'b', row 1: expected text or whole numbers"):
        prepare(table, categorical=("b",))


def test_a_few_names_that_look_like_numbers_are_categories_and_said_aloud() -> None:
    data = prepare(pl.DataFrame({"drive": ["2WD", "4WD"] * 30, "b": NOISE}))
    assert data.features[0].categories == ("2WD", "4WD")
    assert len(data.warnings) == 1
    assert data.warnings[0].startswith("column 'drive' is taken as categories, such as '2WD'")
    asked = prepare(pl.DataFrame({"drive": ["2WD", "4WD"] * 30}), categorical=("drive",))
    assert asked.warnings == ()


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("Unnamed: 0", range(ROWS), "it is an index that pandas wrote along"),
        ("__index_level_0__", range(ROWS), "it is an index that pandas wrote along"),
        ("seconds", range(ROWS), "it rises with the row number"),
        (
            "ts",
            [1_704_067_200 + 10_000 * (i * 37 % ROWS) for i in range(ROWS)],
            "it is a Unix time",
        ),
        ("id", [i * 37 % ROWS for i in range(ROWS)], "it numbers the rows"),
    ],
)
def test_what_is_no_feature_is_left_out_with_a_sentence_and_can_be_kept(
    name: str, values: Sequence[int], why: str
) -> None:
    table = pl.DataFrame({name: list(values), "b": NOISE})
    data = prepare(table)
    assert [feature.name for feature in data.features] == ["b"]
    assert len(data.warnings) == 1
    assert data.warnings[0].startswith(f"column {name!r} is left out: {why}")
    assert data.warnings[0].endswith(f"--keep {name!r} makes it a feature")
    kept = prepare(table, keep=(name,))
    assert [feature.name for feature in kept.features] == [name, "b"]
    assert kept.warnings == ()
    with pytest.raises(RunError, match=r"no feature columns are left; column .* is left out"):
        prepare(table.drop("b"))


def test_a_column_that_the_file_is_sorted_by_stays_a_feature_and_is_named() -> None:
    table = pl.DataFrame({"price": np.sort(np.exp(NOISE)), "b": NOISE})
    data = prepare(table)
    assert [feature.name for feature in data.features] == ["price", "b"]
    assert data.warnings == (
        "column 'price' rises with the row number throughout, as a counter does, or what the file is"
        " sorted by: it stays a feature, to which later rows of a counter are strange; --ignore"
        " 'price' leaves it out",
    )
    assert prepare(table, keep=("price",)).warnings == ()


def test_a_column_that_equals_the_label_is_named_and_left_out() -> None:
    table = pl.DataFrame({"a": NOISE, "leak": [0] * 40 + [1] * 20, "fault": [0] * 40 + [1] * 20})
    data = prepare(table, label="fault")
    assert [feature.name for feature in data.features] == ["a"]
    assert data.warnings[0].startswith(
        "column 'leak' is left out: it tells the anomalies of 'fault' from all normal rows"
    )
    assert len(prepare(table, label="fault", keep=("leak",)).features) == 2


def test_a_sentinel_is_suspected_and_missing_once_it_is_said_to_be(tmp_path: Path) -> None:
    values = [-999.0 if i % 20 == 0 else value for i, value in enumerate(NOISE)]
    path = tables.write(pl.DataFrame({"a": values, "b": NOISE}), tmp_path / "rows.csv")
    data = prepare(read_table(path))
    assert data.warnings[0].startswith("column 'a': 3 of 60 cells are -999, far from the others")
    told = prepare(read_table(path, Dialect(null=("-999",))))
    assert told.warnings == ()
    assert np.isnan(told.normal_ND[:, 0]).sum() == 3


def test_the_normal_label_may_be_named() -> None:
    table = pl.DataFrame({"a": NOISE, "label": [1] * 40 + [-1] * 20})
    assert len(prepare(table, label="label", normal="1").anomalies_AD) == 20


@pytest.mark.parametrize(
    "dates",
    [
        ["01/13/2024", "01/02/2024"],
        ["13/01/2024", "02/01/2024"],
        ["Jan 13, 2024", "Jan 02, 2024"],
        ["13-Jan-2024", "02-Jan-2024"],
        ["13 January 2024", "02 January 2024"],
        ["2024-01-13T00:00:00Z", "2024-01-02T00:00:00Z"],
    ],
    ids=lambda dates: dates[0],
)
def test_time_is_read_in_the_forms_people_write_dates(dates: list[str]) -> None:
    assert (times(pl.Series("t", dates)) / 86400).tolist() == [19735, 19724]


@pytest.mark.parametrize("cell", ["Jan 5, 2024", "5-Jan-24", "Mon, 5 January 2024", "May 2024"])
def test_dates_with_the_names_of_months_are_no_categories(cell: str) -> None:
    with pytest.raises(RunError, match=f"got the date or time {cell}; --time 'a' orders"):
        prepare(pl.DataFrame({"a": [cell, None] * 30, "b": NOISE}))


def test_dates_are_categories_where_they_are_asked_to_be() -> None:
    data = prepare(pl.DataFrame({"shift": ["06:00", "14:00"] * 10}), categorical=("shift",))
    assert data.features[0].categories == ("06:00", "14:00")


@pytest.mark.parametrize("names", [["may", "jun", "mar"], ["Mon", "Tue"], ["March", "May"]])
def test_names_of_months_and_days_alone_are_categories(names: list[str]) -> None:
    assert prepare(pl.DataFrame({"a": names})).features[0].categories == tuple(sorted(names))


def test_of_more_rows_than_are_asked_for_a_sample_is_drawn_and_said() -> None:
    table = pl.DataFrame(
        {"a": np.arange(1000) % 7 + NOISE[0], "fault": np.arange(1000) % 10 == 0, "t": range(1000)}
    )
    data = prepare(table, label="fault", time="t", max_rows=50, seed=1)
    assert (len(data.normal_ND), len(data.anomalies_AD)) == (50, 50)
    assert data.warnings == (
        "50 of the 900 normal rows, drawn at random, are used; max_rows in the run's file sets how"
        " many",
        "50 of the 100 anomalous rows, drawn at random, are used; max_rows in the run's file sets"
        " how many",
    )
    assert data.time_N is not None
    assert data.number_N.tolist() == (data.time_N + 1).tolist()
    assert data.number_N.tolist() != list(range(1, 51))
    same = prepare(table, label="fault", time="t", max_rows=50, seed=1)
    assert same.number_N.tolist() == data.number_N.tolist()
    assert prepare(table, label="fault", time="t", max_rows=900).warnings == ()


def test_an_empty_column_is_said_aloud() -> None:
    data = prepare(pl.DataFrame({"a": NOISE, "gone": [None] * ROWS}))
    assert [feature.name for feature in data.features] == ["a", "gone"]
    assert data.warnings == (
        "column 'gone' is empty in all rows: any value in it later is an anomaly; --ignore 'gone'"
        " leaves it out",
    )


def test_a_category_of_many_characters_is_not_echoed() -> None:
    with pytest.raises(RunError, match="of at most 1000 characters, got one of 1000000;"):
        prepare(pl.DataFrame({"a": NOISE, "text": ["x" * 1_000_000, "y"] * 30}))
