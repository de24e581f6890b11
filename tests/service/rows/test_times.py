"""Times: of JSON and of files, the same seconds."""

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from hourglass.service.api.alarms import seconds_of
from hourglass.service.errors import InvalidRow, InvalidTable
from hourglass.service.rows.times import (
    has_name,
    is_clock,
    parse_time,
    shown_time,
    time_of,
    to_seconds,
)

DAY = datetime(2026, 3, 4, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("cells", "seconds"),
    [
        (["2026-03-04T00:00:01Z", "2026-03-04T02:00:01.25+02:00"], [1.0, 1.25]),
        (["2026-03-04 00:00:01", "2026-03-04 00:00:02.5"], [1.0, 2.5]),
        (["2026-03-04", "2026-03-05"], [0.0, 86400.0]),
    ],
)
def test_a_file_and_json_give_the_same_seconds(cells: list[str], seconds: list[float]) -> None:
    expected = [DAY + each for each in seconds]
    assert [parse_time(cell, 0) for cell in cells] == expected
    assert to_seconds(pl.Series("at", cells)).tolist() == expected


def test_columns_of_dates_times_and_numbers_are_read() -> None:
    assert to_seconds(pl.Series("at", [date(1970, 1, 2)])).tolist() == [86400.0]
    assert to_seconds(pl.Series("at", [datetime(1970, 1, 1, 0, 1, tzinfo=UTC)])).tolist() == [60.0]
    assert to_seconds(pl.Series("at", [7, 9])).tolist() == [7.0, 9.0]
    assert to_seconds(pl.Series("at", ["12.5", "13"])).tolist() == [12.5, 13.0]


@pytest.mark.parametrize("cells", [[1.0, None], ["2026-03-04", "then"], [1.0, np.inf]])
def test_a_cell_that_is_no_time_is_named_with_its_row(cells: list[object]) -> None:
    with pytest.raises(InvalidTable, match="time column 'at', row 2: expected a date, a time or"):
        to_seconds(pl.Series("at", cells, strict=False))


@pytest.mark.parametrize("value", [None, True, "noon", [1], 2e19, float("nan"), float("inf")])
def test_a_value_that_is_no_time_is_named_with_its_row(value: object) -> None:
    with pytest.raises(InvalidRow, match="as the time of row 3") as error:
        parse_time(value, 3)
    assert error.value.row == 3


def test_a_time_is_shown_as_iso_8601_has_it() -> None:
    assert shown_time(DAY) == "2026-03-04T00:00:00Z"
    assert parse_time(shown_time(DAY + 0.5), 0) == DAY + 0.5


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_numbers_of_the_size_of_unix_time_are_read_in_their_unit(unit: int) -> None:
    sent = [int(each * unit) for each in (1e8, DAY + 7.5, 4e9)]
    expected = pytest.approx([1e8, DAY + 7.5 if unit > 1 else DAY + 7, 4e9], abs=1e-6)
    assert [parse_time(each, 0) for each in sent] == expected
    assert to_seconds(pl.Series("at", sent)).tolist() == expected
    assert to_seconds(pl.Series("at", [str(each) for each in sent])).tolist() == expected
    assert [seconds_of(str(each), "since") for each in sent] == expected


@pytest.mark.parametrize("count", [0, -3, 41.5, 99_999_999, 5e9, 1e16, -1e18])
def test_any_other_number_is_a_count_as_it_is(count: float) -> None:
    assert parse_time(count, 0) == count
    assert to_seconds(pl.Series("at", [count])).tolist() == [count]
    assert not is_clock(np.array([count]))


def test_a_count_is_shown_as_a_number_and_only_seconds_since_1970_as_a_date() -> None:
    assert [shown_time(each) for each in (41.0, 0.25, 1e18)] == ["41", "0.25", "1e+18"]
    assert is_clock(np.array([1e8, DAY]))
    assert not is_clock(np.array([7.0, DAY]))
    assert not is_clock(np.array([]))


def test_dates_beyond_the_years_that_there_are_become_the_nearest() -> None:
    assert time_of(1e18).year == 9999
    assert time_of(-1e18).year == 1
    assert (
        has_name(np.array([-6e10, 0.0, 2.5e11, 1e18, -1e18])).tolist() == [True] * 3 + [False] * 2
    )


def test_zones_may_differ_within_a_column() -> None:
    cells = ["2026-03-04T01:00:00+01:00", "2026-03-04T00:00:01Z", "2026-03-03T19:00:02-05:00"]
    expected = [DAY, DAY + 1, DAY + 2]
    assert [parse_time(cell, 0) for cell in cells] == expected
    assert to_seconds(pl.Series("at", cells)).tolist() == expected
    assert [seconds_of(cell, "since") for cell in cells] == expected
