"""What columns give away of themselves before a model sees them: an index, a time or an id that is
no feature, a copy of the label, a number that stands for a missing value.
"""

import re

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hourglass.service.rows.numerals import shorten

INDEX_NAME = re.compile(r"Unnamed: \d+(\.\d+)*(_level_\d+)?|__index_level_\d+__|level_0")  # pandas'
ID_NAME = re.compile(
    r"(?i:(.*[_ .-])?(id|uuid|guid|uid|index|idx|row|row_?(no|num|number|id)))|.*[a-z]I[dD]"
)
TIME_NAME = re.compile(
    r"(?i)(.*[_ .-])?(time|timestamp|ts|date|datetime|epoch|unix|when)([_ .-].*)?"
)
MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
DATE = (
    r"(?i)^((\d{1,4}[-/]\d{1,2}[-/]\d{1,4}|\d{1,2}\.\d{1,2}\.\d{4}"
    r"|[012]?\d:[0-5]\d(:\d{2})?)([ T,.Z+]|$)"
    rf"|((mon|tue|wed|thu|fri|sat|sun)[a-z]*,? )?(\d{{1,4}}[-/ .]{{0,2}}{MONTH}([^a-z]|$)"
    rf"|{MONTH}[-/ .]{{0,2}}\d))"
)
FIRST_ROWS = 1000  # which mostly tell of a long column that it is in no order
FEWEST = 20  # rows, that an order or a repetition says something
# Unix time from 2000 to 2035, in seconds and in its thousandths, millionths and billionths
FIRST, LAST = 946_684_800, 2_051_222_400
BY_CHANCE = 1e-6  # that as many numbers drawn from so short a range were all distinct
FEWEST_ANOMALIES = 5  # that a column tells from normal rows
SENTINELS = frozenset(
    float(value)
    for value in (
        *(sign * (10**digits - 1) for digits in (2, 3, 4, 5, 6) for sign in (-1, 1)),
        *(-32768, 32767, 65535, 2**31 - 1, -(2**31), 2**32 - 1),
    )
)
SENTINEL_SHARE = 0.2  # of the cells, at most: what is more frequent is a value of its own
APART = 1.0  # spans of the other values, between the sentinel and the nearest of them


def no_feature(column: pl.Series) -> str | None:
    """Why a column is an index, a time or an id; None where it is nothing of these."""
    if INDEX_NAME.fullmatch(column.name):
        of_dates = " of dates (--time orders the rows by it)" if holds_dates(column) else ""
        nameless = ", or has no name" if column.name.startswith("Unnamed") else ""
        return f"it is an index that pandas wrote along{of_dates}{nameless}"
    is_time = TIME_NAME.fullmatch(column.name) is not None
    values = _complete_numbers(column[:FIRST_ROWS]) if len(column) > FIRST_ROWS else None
    if values is not None and not (is_time or _in_order(values) or _are_whole(values)):
        return None  # and so are all of them
    values = _complete_numbers(column)
    if values is None:
        return None
    is_monotone, is_whole = _in_order(values), _are_whole(values)
    if not (is_monotone or is_whole or is_time):
        return None
    rows, distinct = len(values), int(np.unique(values).size)
    if distinct <= rows / 2:
        return None
    low, high = float(values.min()), float(values.max())
    if any(FIRST * unit <= low and high <= LAST * unit for unit in (1, 1e3, 1e6, 1e9)) and (
        is_time or (is_whole and (is_monotone or distinct == rows))
    ):
        return "it is a Unix time (--time orders the rows by it)"
    if is_monotone and (is_time or _is_even(values)):
        return f"it {_ways(values)} with the row number (if it is a time, --time orders the rows)"
    if not is_whole or distinct < rows:
        return None
    # a birthday problem: n of R numbers are distinct with probability exp(-n^2 / 2R)
    if np.exp(-(rows**2) / (2 * (high - low + 1))) < BY_CHANCE:
        return "it numbers the rows, each with a value of its own"
    if ID_NAME.fullmatch(column.name):
        return "it is an id, of each row another"
    return None


def suspect_order(column: pl.Series) -> str | None:
    """A sentence where a column rises or falls throughout, as what a file is sorted by does, and a
    counter.
    """
    values = _complete_numbers(column[:FIRST_ROWS]) if len(column) > FIRST_ROWS else None
    if values is not None and not _in_order(values):
        return None
    values = _complete_numbers(column)
    if values is None or not _in_order(values) or np.unique(values).size <= len(values) / 2:
        return None
    name = repr(shorten(column.name))
    return (
        f"column {name} {_ways(values)} with the row number throughout, as a counter does, or what"
        f" the file is sorted by: it stays a feature, to which later rows of a counter are strange;"
        f" --ignore {name} leaves it out"
    )


def holds_dates(column: pl.Series) -> bool:
    """Whether most of its cells are dates or times."""
    if column.dtype != pl.String:
        return column.dtype.is_temporal()
    return int(column.str.contains(DATE).sum()) > column.count() / 2


def equals_label(column: pl.Series, anomalous_N: NDArray[np.bool_]) -> bool:
    """Whether the column has one value on all normal rows, and others on all anomalies."""
    if not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.String, pl.Categorical)):
        return False
    anomalies = int(anomalous_N.sum())
    if anomalies < FEWEST_ANOMALIES or len(column) - anomalies < FEWEST or column.null_count():
        return False
    mask = pl.Series(anomalous_N)
    usual = column.filter(~mask)
    if usual.n_unique() != 1:
        return False
    return bool((column.filter(mask) != usual[0]).all())


def suspect_sentinel(column: pl.Series) -> str | None:
    """A sentence where a number such as -999 stands apart in a few of the cells."""
    if not column.dtype.is_numeric():
        return None
    ends = (column.min(), column.max())
    if None in ends or not set(map(float, ends)) & SENTINELS:  # type: ignore[arg-type]  # numbers
        return None
    values = column.cast(pl.Float64).drop_nulls().drop_nans().to_numpy()
    if len(values) < FEWEST:
        return None
    for sentinel in {float(values.min()), float(values.max())} & SENTINELS:
        is_sentinel = values == sentinel
        count, rest = int(is_sentinel.sum()), values[~is_sentinel]
        if count < 2 or count > SENTINEL_SHARE * len(values) or len(rest) < FEWEST:
            continue
        low, high = float(rest.min()), float(rest.max())
        if max(low - sentinel, sentinel - high) > APART * (high - low):
            return (
                f"column {shorten(column.name)!r}: {count} of {len(values)} cells are"
                f" {sentinel:.0f}, far from the others ({low:.4g} to {high:.4g}); if it stands for"
                f" a missing value, --null {sentinel:.0f} reads it so"
            )
    return None


def _complete_numbers(column: pl.Series) -> NDArray[np.float64] | None:
    """[N] of enough numbers that an order says something; None of anything else."""
    if len(column) < FEWEST or column.null_count() or not column.dtype.is_numeric():
        return None
    if column.dtype.is_decimal():
        return None
    values = column.cast(pl.Float64).to_numpy()
    return values if np.isfinite(values).all() else None


def _in_order(values: NDArray[np.float64]) -> bool:
    steps = np.diff(values)
    return bool((steps >= 0).all() or (steps <= 0).all())


def _are_whole(values: NDArray[np.float64]) -> bool:
    return bool((values == np.round(values)).all())


def _is_even(values: NDArray[np.float64]) -> bool:
    """Whether steps are alike but for the digits that a file leaves out."""
    step = (values[-1] - values[0]) / (len(values) - 1)
    even = values[0] + step * np.arange(len(values))
    return bool(np.abs(values - even).max() <= abs(step))


def _ways(values: NDArray[np.float64]) -> str:
    return "rises" if values[-1] > values[0] else "falls"
