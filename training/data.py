"""CSV and Parquet in: which columns are features, of what kind, and which rows are normal."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hourglass.service.model.artifact import Feature
from hourglass.service.rows.tables import FLOAT32_MAX, encode_table, first_value
from hourglass.training.errors import RunError

TEXT = (pl.String, pl.Categorical, pl.Enum)
EXPECTED = "expected numbers, true/false or text"
# in a file of text
DATE = r"^(\d{1,4}[-/]\d{1,2}[-/]\d{1,4}|\d{1,2}\.\d{1,2}\.\d{4}|\d{1,2}:\d{2}:\d{2})(\b|T)"


STEPS = 8  # of float32 that a standard deviation has to be, or rounding is what is seen


class Data(NamedTuple):
    """N rows, A anomalies, D features."""

    features: tuple[Feature, ...]
    normal_ND: NDArray[np.float32]
    anomalies_AD: NDArray[np.float32]  # [0, D] without a label column
    number_N: NDArray[np.int64]  # of the normal rows in the file, from 1 without the header
    time_N: NDArray[np.float64] | None = None  # of the normal rows; None without a time column
    group_N: NDArray[np.int64] | None = None  # a number for each group, of the normal rows

    def without(self, left_out_N: NDArray[np.bool_]) -> "Data":
        """The same but for some of the normal rows."""
        kept_N = ~left_out_N
        return self._replace(
            normal_ND=self.normal_ND[kept_N],
            number_N=self.number_N[kept_N],
            time_N=None if self.time_N is None else self.time_N[kept_N],
            group_N=None if self.group_N is None else self.group_N[kept_N],
        )


def prepare(
    frame: pl.DataFrame,
    *,
    label: str | None = None,
    ignore: tuple[str, ...] = (),
    units: dict[str, str] | None = None,
    max_categories: int = 100,
    time: str | None = None,
    group: str | None = None,
    exclude: Sequence[int] = (),
) -> Data:
    """A table -> features with their kinds, and float32 rows; the excluded ones, by their numbers
    from 1, are neither normal nor anomalous.

    RunError or InvalidTable names the column and row (from 1).
    """
    named = [column for column in (label, time, group) if column]
    for column in (*named, *ignore, *(units or {})):
        if column not in frame.columns:
            raise RunError(f"there is no column {column!r}; the columns are {_names(frame)}")
    anomalous = is_anomalous(frame, label) if label else np.zeros(frame.height, dtype=bool)
    excluded = np.zeros(frame.height, dtype=bool)
    excluded[np.asarray(exclude, dtype=np.int64) - 1] = True
    normal_N = ~anomalous & ~excluded
    columns = [column for column in frame.columns if column not in (*named, *ignore)]
    if not columns:
        raise RunError("no feature columns are left")
    if "" in columns:
        number = frame.columns.index("") + 1
        raise RunError(
            f"column {number} has no name (an index that was written along?); name it, or"
            " --ignore ''"
        )
    normal = frame.filter(pl.Series(normal_N))
    features = tuple(
        _infer(frame[column], normal[column], (units or {}).get(column), max_categories)
        for column in columns
    )
    rows_ND = encode_table(frame, features)
    return Data(
        features,
        rows_ND[normal_N],
        rows_ND[anomalous & ~excluded],
        np.flatnonzero(normal_N) + 1,
        times(frame[time])[normal_N] if time else None,
        groups(frame[group])[normal_N] if group else None,
    )


def is_anomalous(frame: pl.DataFrame, label: str) -> NDArray[np.bool_]:
    """[N] true where the label is not zero."""
    if label not in frame.columns:
        raise RunError(
            f"there is no column {label!r} to be the label; the columns are {_names(frame)}"
        )
    column = frame[label]
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        row, value = first_value(column)
        raise RunError(
            f"label column {label!r}, row {row}: expected 0 for normal or a number for an anomaly,"
            f" got {value!r}"
        )
    values = column.cast(pl.Float64).to_numpy()  # null becomes NaN
    if np.isnan(values).any():
        raise RunError(
            f"label column {label!r}, row {np.isnan(values).argmax() + 1}: expected a number, got"
            " nothing"
        )
    return np.asarray(values != 0)


def times(column: pl.Series) -> NDArray[np.float64]:
    """[N] of dates and times, in any form polars reads, the seconds since 1970; numbers as they
    are: Unix time, or anything that grows.
    """
    numbers = column
    if column.dtype in TEXT:
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
        row, value = first_value(column)
        raise RunError(
            f"time column {column.name!r}, row {row}: expected a date, a time or a number, got"
            f" {value!r}"
        )
    values = numbers.cast(pl.Float64).to_numpy()
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise RunError(
            f"time column {column.name!r}, row {row + 1}: expected a date, a time or a number, got"
            f" {column[row]!r}"
        )
    return np.asarray(values, dtype=np.float64)


def groups(column: pl.Series) -> NDArray[np.int64]:
    """[N] a number for each distinct value; a missing value is one, too."""
    return column.cast(pl.String).fill_null("").rank("dense").cast(pl.Int64).to_numpy() - 1


def describe(features: tuple[Feature, ...], rows_ND: NDArray[np.float32]) -> tuple[Feature, ...]:
    """The features with missing rate and range as seen in the fit rows."""
    described = []
    for feature, column in zip(features, rows_ND.T, strict=True):
        seen = column[~np.isnan(column)]
        described.append(
            Feature(
                name=feature.name,
                kind=feature.kind,
                unit=feature.unit,
                categories=feature.categories,
                missing_rate=float(np.isnan(column).mean()),
                minimum=float(seen.min()) if len(seen) else None,
                maximum=float(seen.max()) if len(seen) else None,
            )
        )
    return tuple(described)


def _instants(text: pl.Series) -> pl.Series:
    try:
        return text.str.to_datetime(strict=False, time_unit="us")
    except pl.exceptions.ComputeError:  # no form of a date is found in it
        return text


def _names(frame: pl.DataFrame, most: int = 20) -> str:
    left_out = f" and {frame.width - most} more" if frame.width > most else ""
    return ", ".join(map(repr, frame.columns[:most])) + left_out


def _infer(column: pl.Series, normal: pl.Series, unit: str | None, max_categories: int) -> Feature:
    """The kind by the column's type.

    A category known only from anomalies is not known: it is unseen.
    """
    name = column.name
    if column.null_count() == len(column):
        return Feature(name=name, kind="numeric", unit=unit)
    if column.dtype == pl.Boolean:
        return Feature(name=name, kind="boolean", unit=unit)
    if column.dtype.is_numeric():
        _require_resolution(normal)
        return Feature(name=name, kind="numeric", unit=unit)
    row, value = first_value(column)
    if column.dtype.is_temporal():
        raise RunError(
            f"column {name!r}, row {row}: {EXPECTED}, got the date or time {value}; --ignore it, or"
            " make it a number"
        )
    if column.dtype not in TEXT:
        raise RunError(f"column {name!r}, row {row}: {EXPECTED}, got {column.dtype}")
    return Feature(
        name=name,
        kind="categorical",
        unit=unit,
        categories=_categories(column, normal, max_categories),
    )


def _require_resolution(column: pl.Series) -> None:
    """RunError where float32, which models take, is too coarse for what the values differ by."""
    values = column.cast(pl.Float64).drop_nulls().drop_nans().to_numpy()
    if not len(values) or not np.abs(values).max() <= FLOAT32_MAX:  # encode_table names the cell
        return
    largest = float(np.abs(values).max())
    step, spread = float(np.spacing(np.float32(largest))), float(values.std())
    # of a constant the standard deviation need not come out as 0
    if values.min() < values.max() and spread < STEPS * step:
        row, value = first_value(column)
        raise RunError(
            f"column {column.name!r}, row {row}: values around {value:.10g} differ by {spread:.3g}"
            f" (standard deviation), and float32, which models take, knows steps of {step:.3g} only"
            f" there; subtract a constant such as {float(np.median(values)):.10g} from the column,"
            " or --ignore it"
        )


def _categories(column: pl.Series, normal: pl.Series, max_categories: int) -> tuple[str, ...]:
    text = column.cast(pl.String)
    numbers = text.cast(pl.Float64, strict=False)
    filled = len(text) - text.null_count()
    if (
        numbers.is_not_null().sum() > filled / 2
    ):  # a column of numbers with something else among them
        row = (text.is_not_null() & numbers.is_null()).arg_max() or 0
        raise RunError(
            f"column {column.name!r}, row {row + 1}: expected a number like the rows around it, got"
            f" {text[row]!r}; leave a cell empty where the value is missing"
        )
    row, value = first_value(text)
    if text.str.contains(DATE).sum() > filled / 2:
        raise RunError(
            f"column {column.name!r}, row {row}: {EXPECTED}, got the date or time {value}; --ignore"
            " it, or make it a number"
        )
    known = normal.cast(pl.String).drop_nulls()
    if known.is_empty():  # what anomalies hold must not shape the model
        raise RunError(
            f"column {column.name!r}, row {row}: only anomalous rows have text here; --ignore it"
        )
    distinct = known.n_unique()
    if distinct > max_categories or (distinct > 20 and distinct > len(known) / 2):
        raise RunError(
            f"column {column.name!r}, row {row}: expected at most {max_categories} categories, got"
            f" text with {distinct} values (the first is {str(value)[:40]!r}); --ignore it"
        )
    return tuple(sorted(known.unique().to_list()))
