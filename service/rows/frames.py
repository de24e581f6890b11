"""Rows in memory of any kind -> the table that training and adapters read.

Needs polars (the `files` extra).

Shapes: N rows, D features.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl


def is_mixed(X: Any) -> bool:
    """Whether X is a frame with text, categories or booleans, which are features of their own."""
    import polars as pl

    if not (hasattr(X, "columns") and hasattr(X, "dtypes")):
        return False
    if isinstance(X, pl.DataFrame):
        return any(not kind.is_numeric() for kind in X.dtypes)
    return any(getattr(kind, "kind", "O") not in "fiu" for kind in X.dtypes)


def frame_of(X: Any, names: Sequence[str]) -> "pl.DataFrame":
    """A table [N, D] with these names for its columns."""
    import polars as pl

    if isinstance(X, np.ndarray):
        return pl.DataFrame({name: X[:, d] for d, name in enumerate(names)}).fill_nan(None)
    columns = zip(X.columns, names, strict=True)
    return pl.DataFrame([_series(X[column], name) for column, name in columns])


def _series(column: Any, name: str) -> "pl.Series":
    import polars as pl

    if isinstance(column, pl.Series):
        return column.alias(name)
    values = [None if _is_missing(value) else value for value in column.to_list()]
    if str(column.dtype) == "category":  # also of numbers, which are no quantities then
        values = [None if value is None else str(value) for value in values]
        return pl.Series(name, values, dtype=pl.String)
    return pl.Series(name, values, strict=False)


def _is_missing(value: Any) -> bool:
    """None, NaN, and pandas' NA and NaT."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value
