"""Rows of any kind -> bodies of requests.

Shapes: N rows, D features of the model.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.api.models import FeatureSummary
from hourglass.service.rows.decoding import JSON, RAW

from .answers import ClientError

MOST_ROWS = 8192  # of one request; the service takes 65,536 unless it is told otherwise
MOST_BYTES = 4 * 2**20  # of a body of float32
# Lists and dicts, a numpy array, or a frame of polars or pandas.
Rows: TypeAlias = Any


class Part(NamedTuple):
    """What one request holds."""

    first: int  # its first row's number among all
    rows: int
    body: bytes
    content_type: str


def is_frame(rows: Rows) -> bool:
    """Whether the rows are of polars or pandas, of which the columns have names."""
    return hasattr(rows, "columns") and hasattr(rows, "shape")


def parts_of(
    rows: Rows,
    features: Sequence[FeatureSummary] | None,
    *,
    whole: bool = False,
    most: int = MOST_ROWS,
    beside: Mapping[str, Any] | None = None,
) -> Iterator[Part]:
    """The rows in as many requests as they take, of `most` rows, or in one where they belong
    together.

    `features` are needed of a frame alone. `beside` is what else a body says, which no float32 can.
    """
    if is_frame(rows):
        assert features is not None
        taken = _numbers(rows, features)
        rows = _records(rows, features) if taken is None else taken
    if isinstance(rows, np.ndarray):
        if rows.ndim != 2:
            raise ClientError(
                f"rows: expected an array [rows, features], got one of shape {list(rows.shape)};"
                " one row is row[None]"
            )
        if rows.dtype.kind in "fiub":
            rows = _as_float32(rows, features)
            if not beside:
                yield from _raw_parts(rows, whole=whole, most=most)
                return
        rows = [[_plain_cell(value) for value in row] for row in rows.tolist()]
    if isinstance(rows, str | bytes | Mapping) or not hasattr(rows, "__iter__"):
        raise ClientError(
            "rows: expected a list of rows, an array or a frame, got"
            f" {type(rows).__name__}; one row is [row]"
        )
    yield from _json_parts(list(rows), whole=whole, most=most, beside=beside or {})


def _json_parts(
    rows: list[Any], *, whole: bool, most: int, beside: Mapping[str, Any]
) -> Iterator[Part]:
    for n, row in enumerate(rows):
        _require_finite(row, n)
    size = len(rows) or 1
    if rows and not whole:
        longest = max(len(_encode(row)) for row in (rows[0], rows[-1]))
        size = max(1, min(most, MOST_BYTES // longest))
    for first in range(0, len(rows) or 1, size):
        some = rows[first : first + size]
        yield Part(first, len(some), _encode({"rows": some, **beside}), JSON)


def _require_finite(row: Any, n: int) -> None:
    """ClientError where a number is infinite, of which JSON would make a missing one."""
    values: Any = row.values() if isinstance(row, Mapping) else row
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        return  # the service says what is wrong with it
    for d, value in enumerate(values):
        if isinstance(value, float | np.floating) and math.isinf(value):
            name = repr(list(row)[d]) if isinstance(row, Mapping) else str(d)
            raise ClientError(f"row {n}, feature {name}: expected a finite number, got {value}")


def _encode(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=_plain)


def _raw_parts(rows_ND: NDArray[np.float32], *, whole: bool, most: int) -> Iterator[Part]:
    size = max(1, min(most, MOST_BYTES // max(1, 4 * rows_ND.shape[1])))
    for first in range(0, max(1, len(rows_ND)), len(rows_ND) or 1 if whole else size):
        part_ND = rows_ND[first:] if whole else rows_ND[first : first + size]
        yield Part(first, len(part_ND), part_ND.astype("<f4", order="C").tobytes(), RAW)


def _as_float32(
    rows: NDArray[Any], features: Sequence[FeatureSummary] | None
) -> NDArray[np.float32]:
    """ClientError where a number is none of float32."""
    with np.errstate(over="ignore"):
        rows_ND = rows.astype(np.float32)
    if rows.dtype.kind == "f" and len(places := np.argwhere(np.isinf(rows_ND))):
        n, d = places[0]
        name = repr(features[d].name) if features else str(d)
        raise ClientError(f"row {n}, feature {name}: expected a float32 number, got {rows[n, d]}")
    return rows_ND


def _numbers(frame: Rows, features: Sequence[FeatureSummary]) -> NDArray[np.float64] | None:
    """The features of a frame that holds nothing but numbers; None where there are categories."""
    _require_columns(frame, features)
    if any(feature.kind == "categorical" for feature in features):
        return None
    columns = [_column(frame, feature.name) for feature in features]
    return np.stack(columns, axis=1) if columns else np.empty((len(frame), 0))


def _column(frame: Rows, name: str) -> NDArray[np.float64]:
    """Of numbers, NaN where one is missing; ClientError where a cell is none."""
    values = [_plain_cell(value) for value in frame[name].to_list()]
    for n, value in enumerate(values):
        if value is not None and not isinstance(value, int | float):
            raise ClientError(f"row {n}, feature {name!r}: expected a number, got {value!r}")
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _records(frame: Rows, features: Sequence[FeatureSummary]) -> list[dict[str, Any]]:
    """Rows by their features' names."""
    columns = {}
    for feature in features:
        values = [_plain_cell(value) for value in frame[feature.name].to_list()]
        if feature.kind == "categorical":
            values = [_category(value) for value in values]
        columns[feature.name] = values
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _category(value: Any) -> str | None:
    """As training reads it from a file: pandas makes 1.0 of 1 where a cell is missing."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None if value is None else str(value)


def _require_columns(frame: Rows, features: Sequence[FeatureSummary]) -> None:
    there = set(frame.columns)
    if missing := [feature.name for feature in features if feature.name not in there]:
        raise ClientError(
            f"the frame has no column {missing[0]!r}, a feature of the model"
            + (f", and {len(missing) - 1} more are missing" if missing[1:] else "")
        )


def _plain_cell(value: Any) -> Any:
    """A cell as Python has it; None of what is missing: None, NaN, pandas' NA and NaT."""
    if hasattr(value, "item"):  # a scalar of numpy
        value = value.item()
    missing = value is None or type(value).__name__ in ("NAType", "NaTType") or value != value
    return None if missing else value


def _plain(value: Any) -> Any:
    """What JSON says of what it does not know."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise ClientError(f"rows: expected numbers, strings, booleans or None, got {value!r}")
