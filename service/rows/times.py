"""Times of rows: seconds since 1970, or in whatever unit a column of numbers counts.

A time without a zone is UTC.
"""

import math
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import InvalidRow, InvalidTable
from hourglass.service.rows.cells import shown
from hourglass.service.rows.numerals import shorten

if TYPE_CHECKING:
    import polars as pl

Float64 = NDArray[np.float64]

A_TIME = "a number of seconds, or a time as ISO 8601 has it"
LATEST = 1e15  # and the earliest, the other way: any unit down to microseconds
DATE_FORMS = (  # in a file of text, beside those that polars finds by itself
    *("%m/%d/%Y", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%y", "%m/%d/%Y %I:%M:%S %p"),
    *("%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y"),
    *("%d-%b-%Y %H:%M:%S", "%d/%b/%Y:%H:%M:%S", "%d %b %Y %H:%M:%S", "%Y%m%d", "%Y-%m"),
)


def parse_time(value: object, row: int) -> float:
    """A time as it came in JSON; InvalidRow where it is none."""
    if isinstance(value, str):
        try:
            time = datetime.fromisoformat(value)
        except ValueError as error:
            raise _no_time(value, row) from error
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _no_time(value, row)
    if not abs(value) <= LATEST or not math.isfinite(value):
        raise _no_time(value, row)
    return float(value)


def to_seconds(column: "pl.Series") -> Float64:
    """[N] of dates and times of a file, in any form polars reads, the seconds since 1970; numbers
    as they are: Unix time, or anything that grows. InvalidTable names the first row that has none.
    """
    import polars as pl

    numbers = column
    if column.dtype in (pl.String, pl.Categorical, pl.Enum):
        text = column.cast(pl.String).str.strip_chars()
        numbers = text.cast(pl.Float64, strict=False)
        if numbers.null_count() == len(numbers):
            numbers = _instants(text)
    if numbers.dtype.is_temporal():
        if isinstance(numbers.dtype, pl.Duration | pl.Time):
            numbers = numbers.cast(pl.Int64)
        else:
            numbers = numbers.cast(pl.Datetime("us")).cast(pl.Int64) / 1e6
    if not numbers.dtype.is_numeric():
        raise _no_time_in(column, column.is_not_null().arg_max() or 0)
    values: Float64 = np.asarray(numbers.cast(pl.Float64).to_numpy(), dtype=np.float64)
    if not (finite_N := np.isfinite(values)).all():
        raise _no_time_in(column, int(np.argmin(finite_N)))
    return values


def _instants(text: "pl.Series") -> "pl.Series":
    """The instants that the text holds, by the form that reads most of it; the text itself where
    none reads any.
    """
    import polars as pl

    found = []
    with suppress(pl.exceptions.ComputeError):  # no form of a date is found in it
        found.append(text.str.to_datetime(strict=False, time_unit="us"))
    if not found or found[0].null_count() > text.null_count():
        found += [text.str.to_datetime(form, strict=False, time_unit="us") for form in DATE_FORMS]
    best = min(found, key=pl.Series.null_count)
    return best if best.null_count() < len(text) else text


def _no_time_in(column: "pl.Series", row: int) -> InvalidTable:
    return InvalidTable(
        f"time column {column.name!r}, row {row + 1}: expected a date, a time or a number, got"
        f" {shorten(column[row])!r}"
    )


def shown_time(seconds: float) -> str:
    """A time of seconds since 1970, as ISO 8601 has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _no_time(value: object, row: int) -> InvalidRow:
    got = shown(value)
    return InvalidRow(
        f"expected {A_TIME}, got {got} as the time of row {row}", row=row, expected=A_TIME, got=got
    )
