"""Which rows a label column calls normal."""

import re

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hourglass.service.rows.numerals import shorten
from hourglass.training.errors import RunError
from hourglass.training.parquet import Parquet

# what people write of rows that are in order, whatever the column is called
NORMAL = frozenset(
    "normal normal. ok good benign inlier healthy regular nominal pass passed".split()
)
# of a column that names the anomaly
NO, YES = frozenset("no n false f 0 0.0".split()), frozenset("yes y true t 1 1.0".split())
# a column of that name is true of normal rows
NAMES_NORMAL = re.compile(r"(^|.*[_ .-])(is[_ .-]?)?(normal|inlier|ok|good|benign|healthy|valid)$")
MOST_NAMED = 5  # values


def is_anomalous(
    frame: pl.DataFrame | Parquet, label: str, normal: str | None = None
) -> NDArray[np.bool_]:
    """[N] true where the label is another than the normal value: the one that is asked for, or 0,
    false, or the one word among them that plainly means normal. RunError says what was found where
    none does.
    """
    if label not in frame.columns:
        names = ", ".join(map(repr, frame.columns[:20]))
        more = f" and {frame.width - 20} more" if frame.width > 20 else ""
        raise RunError(
            f"there is no column {label!r} to be the label; the columns are {names}{more}"
        )
    column = frame[label]
    if column.dtype.is_float():
        column = column.fill_nan(None)
    if column.null_count():
        row = int(column.is_null().arg_max() or 0) + 1
        raise RunError(f"label column {label!r}, row {row}: expected a label, got nothing")
    if column.dtype.is_numeric():
        said = (column.cast(pl.Float64) + 0.0).cast(pl.String).str.replace(r"\.0$", "")
    else:
        said = column.cast(pl.String, strict=False).str.strip_chars().str.to_lowercase()
    values = said.unique().sort().to_list()
    meant = _plainly_normal(column, values) if normal is None else _as_said(normal, column.dtype)
    if meant is None or (normal is not None and meant not in values):
        counts = said.value_counts(sort=True).rows()
        found = ", ".join(
            f"{shorten(value)!r} ({count} rows)" for value, count in counts[:MOST_NAMED]
        )
        more = f" and {len(counts) - MOST_NAMED} more values" if len(counts) > MOST_NAMED else ""
        expected = "0 for normal rows" if normal is None else f"the normal value {normal!r}"
        raise RunError(
            f"label column {label!r}: expected {expected}, got {found}{more}; --normal VALUE names"
            " the normal one"
        )
    return np.asarray((said != meant).to_numpy())


def _plainly_normal(column: pl.Series, values: list[str]) -> str | None:
    """The value of normal rows where there is no doubt."""
    names_normal = NAMES_NORMAL.match(column.name.lower())
    if column.dtype == pl.Boolean or column.dtype.is_numeric():
        if names_normal and len(values) == 2:
            return None
        zero = "0" if column.dtype.is_numeric() else "false"
        # of only one value that is not 0 all rows are anomalies
        return zero if zero in values or len(values) == 1 else None
    plain = [value for value in values if value in NORMAL]
    if not plain and not names_normal and set(values) <= NO | YES:
        plain = [value for value in values if value in NO]
    return plain[0] if len(plain) == 1 else None


def _as_said(normal: str, dtype: pl.DataType) -> str:
    text = normal.strip().lower()
    if not dtype.is_numeric():
        return text
    try:
        return str(float(text) + 0.0).removesuffix(".0")
    except ValueError:
        return text
