"""Times of rows: seconds since 1970, or in whatever unit a column of numbers counts.

A time without a zone is UTC.
"""

import math
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
# what files write that is nearly ISO 8601
_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M",
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
    """[N] times of a file's column; InvalidTable names the first row that has none."""
    import polars as pl

    seconds = column
    if column.dtype in (pl.String, pl.Categorical, pl.Enum):
        text = column.cast(pl.String).str.strip_chars()
        seconds = _of_text(text)
    elif column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        seconds = column.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
    elif not column.dtype.is_numeric():
        seconds = pl.Series(column.name, [None] * len(column), pl.Float64)
    found = seconds.cast(pl.Float64).fill_nan(None)
    wrong = found.is_null() | (found.abs() > LATEST).fill_null(value=False)
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        got = "nothing" if column[row] is None else repr(shorten(column[row]))
        raise InvalidTable(
            f"column {column.name!r}, row {row + 1}: expected a time, as a date, an ISO 8601 time"
            f" or a number, got {got}"
        )
    return found.to_numpy()


def _of_text(text: "pl.Series") -> "pl.Series":
    """By the first form that fits every cell; where none does, by the one that fits most."""
    import polars as pl

    best = pl.Series(text.name, [None] * len(text), pl.Float64)
    for form in (*_FORMATS, "%Y-%m-%d"):
        if form == "%Y-%m-%d":
            times = text.str.to_date(form, strict=False).cast(pl.Datetime("us"))
        else:
            times = text.str.to_datetime(form, strict=False, time_unit="us")
        seconds = times.dt.epoch("us") / 1e6
        if seconds.null_count() < best.null_count():
            best = seconds
        if best.null_count() == text.null_count():
            break
    return best


def shown_time(seconds: float) -> str:
    """A time of seconds since 1970, as ISO 8601 has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _no_time(value: object, row: int) -> InvalidRow:
    got = shown(value)
    return InvalidRow(
        f"expected {A_TIME}, got {got} as the time of row {row}", row=row, expected=A_TIME, got=got
    )
