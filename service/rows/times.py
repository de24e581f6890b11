"""Times of rows: seconds since 1970, made here of what came in JSON, in files or in addresses, and
shown again here.

A time without a zone is UTC. A number of a size that milliseconds, microseconds or nanoseconds
since 1970 have between 1973 and 2096 is one of these; any other is a number of seconds, or a count
that orders the rows, as it is.
"""

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import InvalidRow, InvalidTable
from hourglass.service.model.artifact import LAST_SECOND
from hourglass.service.rows.cells import shown
from hourglass.service.rows.numerals import shorten

if TYPE_CHECKING:
    import polars as pl

Float64 = NDArray[np.float64]

A_TIME = "a number of seconds, or a time as ISO 8601 has it"
LATEST = 1e19  # and the earliest, the other way: any unit down to nanoseconds
CLOCK = (1e8, 4e9)  # seconds since 1970, of 1973 to 2096
UNITS = (1e3, 1e6, 1e9)  # in a second
SPAN_UNITS = {
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
    "w": 604_800.0,
    "y": 31_536_000.0,
}  # in seconds
FIRST_SECOND = -62135596800  # of the year 1, before which dates have no name
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
    if not abs(value) <= LATEST:  # NaN neither
        raise _no_time(value, row)
    return next((value / unit for unit in UNITS if _is_in(value, unit)), float(value))


def in_seconds(values_N: Float64) -> Float64:
    """[N] what parse_time makes of numbers."""
    for unit in UNITS:
        values_N = np.where(_is_in(values_N, unit), values_N / unit, values_N)
    return values_N


def to_seconds(column: "pl.Series") -> Float64:
    """[N] of dates and times of a file, in any form polars reads, the seconds since 1970; of
    numbers what parse_time makes of them. InvalidTable names the first row that has none.
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
    if not (right_N := np.abs(values) <= LATEST).all():
        raise _no_time_in(column, int(np.argmin(right_N)))
    return values if numbers.dtype.is_temporal() else in_seconds(values)


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


def is_clock(time_N: Float64) -> bool:
    """Whether all are seconds since 1970, and not other numbers that order the rows."""
    return bool(len(time_N) and time_N.min() >= CLOCK[0] and time_N.max() <= CLOCK[1])


def has_name(time_N: Float64) -> NDArray[np.bool_]:
    """[N] whether each is of the years 1 to 9999, for which alone there are dates."""
    named_N: NDArray[np.bool_] = (time_N >= FIRST_SECOND) & (time_N <= LAST_SECOND)
    return named_N


def span_seconds(text: str) -> float:
    """The seconds of a span as Prometheus writes it: 30s, 5m, 1h30m, 14d; ValueError where it is
    none, or none at all.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdwy])", text)
    seconds = sum(float(number) * SPAN_UNITS[unit] for number, unit in parts)
    if "".join(map("".join, parts)) != text or not 0 < seconds < LAST_SECOND:
        raise ValueError(f"expected a span such as 30s, 5m, 1h30m or 14d, got {text[:40]!r}")
    return seconds


def time_of(seconds: float) -> datetime:
    """The date of seconds since 1970, or the nearest one there is."""
    return datetime.fromtimestamp(min(max(seconds, FIRST_SECOND), LAST_SECOND), UTC)


def shown_time(seconds: float) -> str:
    """A time for people: as ISO 8601 has it, or a count as it is."""
    if not CLOCK[0] <= seconds <= LAST_SECOND:
        return f"{seconds:.15g}"
    return time_of(seconds).isoformat().replace("+00:00", "Z")


@overload
def _is_in(values: float, unit: float) -> bool: ...
@overload
def _is_in(values: Float64, unit: float) -> NDArray[np.bool_]: ...
def _is_in(values: float | Float64, unit: float) -> bool | NDArray[np.bool_]:
    """Whether it is a time in such a unit."""
    return (values >= CLOCK[0] * unit) & (values <= CLOCK[1] * unit)


def _no_time(value: object, row: int) -> InvalidRow:
    got = shown(value)
    return InvalidRow(
        f"expected {A_TIME}, got {got} as the time of row {row}", row=row, expected=A_TIME, got=got
    )
