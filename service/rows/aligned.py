"""Aligned: series of several variables, each with times of its own, become rows of one table.

Rows are the times that all variables have (Inner), or that any has (Outer); cells that are missing
then, or that came without a value, are filled from the variable's other cells.

Shapes: N rows, D variables, M cells of one series.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import InvalidTable

AlignMode = Literal["Inner", "Outer"]
FillMethod = Literal["Previous", "Subsequent", "Linear", "Zero", "Fixed"]
ALIGN_MODES: tuple[AlignMode, ...] = get_args(AlignMode)
FILL_METHODS: tuple[FillMethod, ...] = get_args(FillMethod)

MOST_MISSING = 0.2  # share of a variable's rows
MOST_TIMES = 1_000_000  # of rows

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class Series(NamedTuple):
    """One variable; NaN is missing."""

    variable: str
    time_M: Float64  # seconds since 1970
    value_M: Float64


class VariableState(NamedTuple):
    """How much of a variable there was before its gaps were filled."""

    variable: str
    filled_ratio: float  # share of the rows
    effective_count: int
    first: float | None  # seconds since 1970 of an observed value; None without any
    last: float | None


class TooMuchMissing(InvalidTable):
    """A variable has fewer values than a model may be trained on, or asked with."""


class TooFewRows(InvalidTable):
    """There is no window of rows to look at."""


class Joined(NamedTuple):
    """Rows in order of time, NaN where missing."""

    variables: tuple[str, ...]
    time_N: Float64
    value_ND: Float64

    def between(self, start: float, end: float, *, before: int = 0) -> "Joined":
        """The rows from start to end, both included, and so many before them."""
        first, last = np.searchsorted(self.time_N, [start, np.nextafter(end, np.inf)])
        rows = slice(max(0, int(first) - before), int(last))
        return self._replace(time_N=self.time_N[rows], value_ND=self.value_ND[rows])

    def states(self) -> tuple[VariableState, ...]:
        """Of each variable."""
        found = []
        for variable, value_N in zip(self.variables, self.value_ND.T, strict=True):
            seen = np.flatnonzero(~np.isnan(value_N))
            rows = len(value_N)
            found.append(
                VariableState(
                    variable,
                    (rows - len(seen)) / rows if rows else 0.0,
                    len(seen),
                    float(self.time_N[seen[0]]) if len(seen) else None,
                    float(self.time_N[seen[-1]]) if len(seen) else None,
                )
            )
        return tuple(found)

    def filled(self, method: FillMethod, padding: float) -> Float32:
        """[N, D] with gaps filled: by the value before, or after, by a line between both, which is
        level beyond the first and the last, by 0, or by the padding. What no value is beside stays
        missing.
        """
        filled_ND = self.value_ND.astype(np.float32)
        for column_N, value_N in zip(filled_ND.T, self.value_ND.T, strict=True):
            gap_N = np.isnan(value_N)
            if not gap_N.any():
                continue
            if method in ("Zero", "Fixed"):
                column_N[gap_N] = padding if method == "Fixed" else 0.0
            elif not gap_N.all():
                column_N[gap_N] = _filled(self.time_N, value_N, gap_N, method)
        return filled_ND


def join(
    series: Sequence[Series],
    mode: AlignMode,
    *,
    start: float = -np.inf,
    end: float = np.inf,
    before: int = 0,
    most: int = MOST_TIMES,
) -> Joined:
    """The series side by side, at times from start to end, both included, and so many before them;
    InvalidTable where a variable has two values at one time, two series one name, or where there
    are more than `most` such times, whose rows are not made then.
    """
    names = tuple(each.variable for each in series)
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise InvalidTable(f"expected one series of each variable, got two of {repeated[:80]!r}")
    ordered = []
    for each in series:
        order_M = np.argsort(each.time_M, kind="stable")
        time_M = each.time_M[order_M]
        if (twice := np.flatnonzero(np.diff(time_M) == 0)).size:
            row = int(order_M[twice[0] + 1]) + 1
            raise InvalidTable(
                f"variable {each.variable[:80]!r}, row {row}: expected a time of its own, got one"
                " that an earlier row has"
            )
        ordered.append((time_M, each.value_M[order_M]))
    times = [time_M for time_M, _ in ordered]
    if not times:
        time_N = np.empty(0)
    elif all(each is times[0] or np.array_equal(each, times[0]) for each in times):
        time_N = times[0]
    elif mode == "Inner":
        time_N = reduce(lambda a, b: np.intersect1d(a, b, assume_unique=True), times)
    else:
        time_N = np.unique(np.concatenate(times))
    first, last = np.searchsorted(time_N, [start, np.nextafter(end, np.inf)]).tolist()
    if last - first > most:
        span = " from startTime to endTime" if np.isfinite([start, end]).any() else ""
        raise InvalidTable(
            f"expected at most {most} timestamps{span}, got {last - first} that"
            f" {'all variables have' if mode == 'Inner' else 'a variable has'}"
        )
    time_N = time_N[max(0, first - before) : last]
    value_ND = np.full((len(time_N), len(names)), np.nan)
    for column_N, (time_M, value_M) in zip(value_ND.T, ordered, strict=True):
        place_M = np.searchsorted(time_N, time_M)
        place_M = np.minimum(place_M, max(len(time_N) - 1, 0))
        kept_M = time_N[place_M] == time_M if len(time_N) else np.zeros(len(time_M), bool)
        column_N[place_M[kept_M]] = value_M[kept_M]
    return Joined(names, time_N, value_ND)


def require_observed(states: Sequence[VariableState]) -> None:
    """TooMuchMissing names the variable with the most gaps where they are too many."""
    worst = max(states, key=lambda state: state.filled_ratio)
    if worst.filled_ratio > MOST_MISSING:
        raise TooMuchMissing(
            f"variable {worst.variable[:80]!r}: expected at most {MOST_MISSING:.0%} of the rows"
            f" without a value, got {worst.filled_ratio:.1%}"
        )


def _filled(
    time_N: Float64, value_N: Float64, gap_N: NDArray[np.bool_], method: FillMethod
) -> Float64:
    """What the gaps of a column with some values become."""
    seen, gaps = np.flatnonzero(~gap_N), np.flatnonzero(gap_N)
    if method == "Linear":
        return np.interp(time_N[gaps], time_N[seen], value_N[seen])
    after = np.searchsorted(seen, gaps)  # the place among `seen` of the next value
    if method == "Previous":
        return np.where(after > 0, value_N[seen[np.maximum(after - 1, 0)]], np.nan)
    return np.where(after < len(seen), value_N[seen[np.minimum(after, len(seen) - 1)]], np.nan)
