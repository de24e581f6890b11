"""Parquet: a table of one or many files that memory need not hold. Columns are read whole, one at a
time, and rows in stretches.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from hourglass.service.errors import InvalidTable
from hourglass.service.rows.tables import PARQUET, without_null_values
from hourglass.training.errors import RunError

STRETCH = 262_144  # rows at a time
# cells of one file over which it is read as a folder is: as float64 they are 2 GB
LARGE = 2**28
ROW = re.compile(r"\brow ([1-9]\d*)\b")  # as errors say it


class Stretch(NamedTuple):
    """Rows that lie together in one file."""

    path: Path
    offset: int  # of the first row in the file
    start: int  # of the first row in the table
    rows: int


class Parquet:
    """Named as polars names what they have in common; files are in the order of their paths, rows
    as they lie in them.
    """

    def __init__(self, paths: Sequence[Path], null: tuple[str, ...] = ()) -> None:
        """RunError or InvalidTable where they cannot be read or do not go together."""
        self._null, self._as = null, dict[str, pl.DataType]()
        self._paths, counts = list(paths), []
        first: pl.Schema | None = None
        for path in self._paths:
            with _readable(path):
                schema = pl.Schema(pl.read_parquet_schema(path))
                counts.append(int(_scan(path).select(pl.len()).collect().item()))
            first = first or schema
            _require_same(first, schema, self._paths[0], path)
        assert first is not None
        self.schema = first
        self._starts = np.cumsum([0, *counts])
        self.columns, self.height = list(first), int(self._starts[-1])
        self.width = len(self.columns)
        if not self.height:
            raise InvalidTable(f"{self._paths[0]} holds no rows")

    def __getitem__(self, column: str) -> pl.Series:
        """One column, whole."""
        lazy = pl.concat([_scan(path).select(column) for path in self._paths])
        with _readable(self._paths[0].parent):
            return self._tidy(lazy.collect())[column]

    def cast(self, dtypes: Mapping[str, pl.DataType]) -> "Parquet":
        """The same with columns of other types."""
        other = object.__new__(Parquet)
        schema = pl.Schema({**self.schema, **dtypes})
        other.__dict__ = {**self.__dict__, "_as": {**self._as, **dtypes}, "schema": schema}
        return other

    def select(self, columns: Sequence[str]) -> Iterator[pl.Series]:
        """These columns, one at a time."""
        return (self[column] for column in columns)

    def filter(self, taken: pl.Series) -> pl.DataFrame:
        """The rows where it is true."""
        return pl.concat(
            self.read(stretch, self.columns).filter(
                taken[stretch.start : stretch.start + stretch.rows]
            )
            for stretch in self.stretches()
        )

    def stretches(self) -> Iterator[Stretch]:
        """All rows, in order."""
        for path, start, end in zip(
            self._paths, self._starts[:-1].tolist(), self._starts[1:].tolist(), strict=True
        ):
            for at in range(start, end, STRETCH):
                yield Stretch(path, at - start, at, min(STRETCH, end - at))

    def read(self, stretch: Stretch, columns: Sequence[str]) -> pl.DataFrame:
        """These columns of a stretch."""
        with _readable(stretch.path):
            lazy = _scan(stretch.path).select(columns).slice(stretch.offset, stretch.rows)
            return self._tidy(lazy.collect())

    def place(self, message: str) -> str:
        """The message with rows by the file that holds them, and their number in it."""

        def name(found: re.Match[str]) -> str:
            row = int(found[1]) - 1
            if row >= self.height:
                return found[0]
            file = int(np.searchsorted(self._starts, row, side="right")) - 1
            return f"row {row - self._starts[file] + 1} of {self._paths[file]}"

        return message if len(self._paths) == 1 else ROW.sub(name, message)

    def _tidy(self, frame: pl.DataFrame) -> pl.DataFrame:
        frame = without_null_values(frame, self._null)
        dtypes = {name: each for name, each in self._as.items() if name in frame.columns}
        return frame.cast(dtypes) if dtypes else frame  # type: ignore[arg-type]


def files_below(folder: Path) -> list[Path]:
    """The Parquet files of a folder and those below it, in order; hidden ones are none."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in PARQUET)
    visible = (
        path
        for path in found
        if path.is_file()
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    )
    return sorted(visible)


def columns_of(path: Path) -> frozenset[str]:
    """The names of a file's columns."""
    with _readable(path):
        return frozenset(pl.read_parquet_schema(path))


def is_large(path: Path) -> bool:
    """Whether a file is a Parquet file with too many cells to be read whole."""
    if path.suffix.lower() not in PARQUET or not path.is_file():
        return False
    with _readable(path):
        rows = int(_scan(path).select(pl.len()).collect().item())
        return rows * len(pl.read_parquet_schema(path)) > LARGE


def _scan(path: Path) -> pl.LazyFrame:
    return pl.scan_parquet(path, hive_partitioning=False, glob=False)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """InvalidTable in the place of what polars raises."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidTable(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def _require_same(first: pl.Schema, schema: pl.Schema, of: Path, path: Path) -> None:
    """RunError naming the first column in which files differ."""
    for column in (*first, *schema):
        has, expected = schema.get(column), first.get(column)
        if has != expected:
            raise RunError(
                f"{path}: expected the columns of {of}, got {_said(column, has)} where that has"
                f" {_said(column, expected)}"
            )
    if list(first) != list(schema):
        moved = next(name for name, other in zip(schema, first, strict=True) if name != other)
        raise RunError(
            f"{path}: expected the columns of {of} in its order, got {moved!r} elsewhere"
        )


def _said(column: str, dtype: pl.DataType | None) -> str:
    return f"no column {column!r}" if dtype is None else f"column {column!r} of {dtype}"
