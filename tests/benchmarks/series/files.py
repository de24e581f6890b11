"""Which series a folder of CSV files holds, by their names.

- NAME_train.csv beside NAME_test.csv: fit the first, judge the second.
- NAME_train.csv without it: judge every other NAME_*.csv.
- any other file with a label column: fit its first 400 rows, as the authors of SKAB do, and judge
  the rest.
- a file without a label that is none of these is left out.

A file's family is its name up to the first underscore. The label is the column `anomaly`; `time`,
`datetime` and `changepoint` are no features either; the separator is the comma, or the semicolon
where the first line has one.

A window needs the rows before. The first LEAD rows of a test are judged by nobody, so that all
methods are measured on the same rows; where test rows follow the fit rows in one file, the last of
those are the LEAD.

Shapes: N rows, D features.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

FIT_ROWS = 400
LEAD = 59  # rows before the first that is judged: windows have at most 60
LABEL = "anomaly"
NO_FEATURES = (LABEL, "time", "datetime", "changepoint")

Floats = NDArray[np.float64]


class Test(NamedTuple):
    """Rows to be judged, the first LEAD of which are only looked at."""

    name: str
    rows_ND: Floats
    anomalous_N: NDArray[np.bool_]


class Series(NamedTuple):
    name: str
    family: str
    columns: tuple[str, ...]
    train_ND: Floats
    tests: tuple[Test, ...]


class Source(NamedTuple):
    """A series that is not read yet."""

    name: str
    family: str
    train: Path
    tests: tuple[Path, ...]  # the file of the fit rows itself where they are its first

    def read(self) -> Series:
        frame = _read(self.train)
        columns = tuple(each for each in frame.columns if each not in NO_FEATURES)
        if self.tests == (self.train,):
            test = _test(self.train, frame[FIT_ROWS - LEAD :], columns)
            return Series(
                self.name, self.family, columns, _rows(frame[:FIT_ROWS], columns), (test,)
            )
        tests = tuple(_test(path, _read(path), columns) for path in self.tests)
        return Series(self.name, self.family, columns, _rows(frame, columns), tests)


def find(folder: Path) -> list[Source]:
    return list(_find(sorted(folder.glob("*.csv"))))


def _find(paths: list[Path]) -> Iterator[Source]:
    taken = set()
    for train in (path for path in paths if path.stem.endswith("_train")):
        name = train.stem.removesuffix("_train")
        pair = train.with_name(f"{name}_test.csv")
        others = [path for path in paths if path.stem.startswith(f"{name}_") and path != train]
        tests = (pair,) if pair in paths else tuple(others)
        if tests:
            taken |= {train, *tests}
            yield Source(name, _family(name), train, tests)
    for path in paths:
        if path not in taken and LABEL in _read(path, rows=1).columns:
            yield Source(path.stem, _family(path.stem), path, (path,))


def _family(name: str) -> str:
    return name.partition("_")[0]


def _read(path: Path, rows: int | None = None) -> pl.DataFrame:
    with path.open() as file:
        separator = ";" if ";" in file.readline() else ","
    return pl.read_csv(path, separator=separator, n_rows=rows, infer_schema_length=None)


def _rows(frame: pl.DataFrame, columns: tuple[str, ...]) -> Floats:
    return frame.select(columns).cast(pl.Float64).to_numpy()


def _test(path: Path, frame: pl.DataFrame, columns: tuple[str, ...]) -> Test:
    anomalous = frame[LABEL].to_numpy() != 0 if LABEL in frame.columns else np.zeros(len(frame))
    return Test(path.stem, _rows(frame, columns), anomalous.astype(bool))
