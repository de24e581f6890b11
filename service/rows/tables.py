"""Files of rows, CSV and Parquet, and how a table becomes the float32 rows a model takes.

Needs polars (the `files` extra).
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import InvalidTable
from hourglass.service.model.artifact import UNSEEN, Feature

if TYPE_CHECKING:
    import polars as pl

FLOAT32_MAX = float(np.finfo(np.float32).max)


def read_table(path: Path) -> "pl.DataFrame":
    """A CSV or Parquet file, whole; InvalidTable in one sentence when it cannot be read."""
    try:
        import polars as pl
    except ImportError as error:
        raise InvalidTable(
            "reading CSV and Parquet needs polars: pip install 'hourglass[files]'"
        ) from error
    if not path.is_file():
        raise InvalidTable(f"{path} is not a file")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            frame = pl.read_parquet(path)
        elif path.suffix.lower() in (".csv", ".txt"):
            frame = _read_csv(path)
        else:
            raise InvalidTable(f"{path} is neither .csv nor .parquet")
    except pl.exceptions.NoDataError as error:
        raise InvalidTable(f"{path} holds no rows") from error
    except (pl.exceptions.PolarsError, csv.Error, OSError, UnicodeDecodeError) as error:
        raise InvalidTable(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if frame.height == 0:
        raise InvalidTable(f"{path} holds no rows")
    return frame


def encode_table(frame: "pl.DataFrame", features: Sequence[Feature]) -> NDArray[np.float32]:
    """A table -> rows [N, D] in the features' order; columns the model does not know are left out.

    A category not among a feature's becomes UNSEEN. InvalidTable names the column and the first row
    (from 1) that is wrong.
    """
    absent = [feature.name for feature in features if feature.name not in frame.columns]
    if absent:
        raise InvalidTable(
            f"the table has no column {absent[0]!r}, which the model expects ({len(absent)} absent"
            " in all)"
        )
    return np.stack([_encode_column(frame[feature.name], feature) for feature in features], axis=1)


def _encode_column(column: "pl.Series", feature: Feature) -> NDArray[np.float32]:
    import polars as pl

    if column.null_count() == len(column):
        return np.full(len(column), np.nan, dtype=np.float32)
    if feature.kind == "categorical":
        column = _expect(
            column, feature, column.dtype in (pl.String, pl.Categorical, pl.Enum), "text"
        )
        codes = {category: float(code) for code, category in enumerate(feature.categories)}
        values = [
            np.nan if value is None else codes.get(value, UNSEEN)
            for value in column.cast(pl.String).to_list()
        ]
        return np.array(values, dtype=np.float32)
    if feature.kind == "boolean":
        _expect(
            column, feature, column.dtype == pl.Boolean or _is_zero_or_one(column), "true or false"
        )
    else:
        _expect(column, feature, column.dtype.is_numeric(), "a number")
    wide = column.cast(pl.Float64).to_numpy(allow_copy=True)
    with np.errstate(over="ignore", invalid="ignore"):
        out_of_range = np.flatnonzero(np.abs(wide) > FLOAT32_MAX)
    if len(out_of_range):
        row = int(out_of_range[0])
        raise InvalidTable(
            f"column {feature.name!r}, row {row + 1}: expected a finite number within float32, got"
            f" {wide[row]:g}"
        )
    return wide.astype(np.float32)


def _is_zero_or_one(column: "pl.Series") -> bool:
    return column.dtype.is_numeric() and bool(column.drop_nulls().is_in([0, 1]).all())


def _expect(column: "pl.Series", feature: Feature, holds: bool, expected: str) -> "pl.Series":
    if not holds:
        row, value = first_value(column)
        raise InvalidTable(
            f"column {feature.name!r}, row {row}: expected {expected}, got {value!r}"
            f" ({column.dtype} column)"
        )
    return column


def first_value(column: "pl.Series") -> tuple[int, object]:
    """The number (from 1) of the first row that has a value, and the value."""
    index = column.is_not_null().arg_max() or 0
    return index + 1, column[index]


def _read_csv(path: Path) -> "pl.DataFrame":
    import polars as pl

    header = _read_header(path)
    try:
        frame = pl.read_csv(path, infer_schema_length=None)
    except pl.exceptions.ComputeError:
        _check_widths(path)
        raise
    if frame[:, -1].null_count():
        frame = frame.filter(~pl.int_range(frame.height, eager=True).is_in(_check_widths(path)))
    if len(header) == frame.width:
        frame.columns = header  # polars leaves spaces and doubled quotes as they are
    return frame.with_columns(_tidy(column) for column in frame if column.dtype == pl.String)


def _tidy(column: "pl.Series") -> "pl.Series":
    """Spaces around a cell mean nothing, an empty cell is missing, and what is numbers throughout
    (' 1.5', '-Infinity') is no text.
    """
    import polars as pl

    text = column.str.strip_chars()
    text = text.set(text == "", None)
    numbers = text.cast(pl.Float64, strict=False)
    return numbers if numbers.null_count() == text.null_count() < len(text) else text


def _read_header(path: Path) -> list[str]:
    """The columns' names. Polars renames a repeated one silently; we refuse it."""
    with path.open(newline="", encoding="utf-8-sig") as lines:
        header = [name.strip() for name in next(csv.reader(lines), [])]
    repeated = next((name for name in header if header.count(name) > 1), None)
    if repeated is not None:
        raise InvalidTable(f"{path} has the column {repeated!r} more than once")
    if len(header) == 1 and (other := next((sign for sign in ";\t|" if sign in header[0]), None)):
        raise InvalidTable(
            f"{path}: expected cells separated by commas, got a header with {other!r} between names"
        )
    return header


def _check_widths(path: Path) -> list[int]:
    """Polars fills up a line that is too short, and does not say which one is too long; returns the
    empty lines, which are no rows.
    """
    empty = []
    with path.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.reader(lines)
        width = len(next(reader, []))
        for index, cells in enumerate(reader):
            if not cells:
                empty.append(index)
            elif len(cells) != width:
                row = index + 1 - len(empty)
                raise InvalidTable(f"{path}, row {row}: expected {width} cells, got {len(cells)}")
    return empty
