"""Times: of JSON and of files, the same seconds."""

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from hourglass.service.errors import InvalidRow, InvalidTable
from hourglass.service.rows.times import parse_time, shown_time, to_seconds

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


@pytest.mark.parametrize("value", [None, True, "noon", [1], 2e15, float("nan")])
def test_a_value_that_is_no_time_is_named_with_its_row(value: object) -> None:
    with pytest.raises(InvalidRow, match="as the time of row 3") as error:
        parse_time(value, 3)
    assert error.value.row == 3


def test_a_time_is_shown_as_iso_8601_has_it() -> None:
    assert shown_time(DAY) == "2026-03-04T00:00:00Z"
    assert parse_time(shown_time(DAY + 0.5), 0) == DAY + 0.5
