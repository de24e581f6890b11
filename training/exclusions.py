"""Which rows a person wants left out: by their numbers in a file, or by their times."""

import csv
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from hourglass.service.errors import InvalidTable
from hourglass.service.rows.times import to_seconds
from hourglass.training.errors import RunError

COLUMN = "row"
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
CLOCK = 1e8, 1e10  # numbers that may be seconds since 1970: of 1973 to 2286
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")


def read_row_numbers(path: Path, rows: int) -> tuple[int, ...]:
    """The numbers, from 1 as messages count rows; RunError names the line that is wrong.

    One number a line, or a CSV with a column `row`; empty lines say nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    cells = [(line, next(csv.reader([text]))) for line, text in enumerate(lines, 1) if text.strip()]
    place = 0
    if cells and not _is_number(cells[0][1][0]):
        _, header = cells.pop(0)
        names = [name.strip() for name in header]
        if COLUMN not in names:
            raise RunError(
                f"{path}, line 1: expected a row number or a header with a column {COLUMN!r}, got"
                f" {','.join(names)[:80]!r}"
            )
        place = names.index(COLUMN)
    line_of: dict[int, int] = {}
    for line, values in cells:
        text = values[place].strip() if place < len(values) else ""
        if not _is_number(text):
            raise RunError(f"{path}, line {line}: expected a row number, got {text[:80]!r}")
        number = int(text)
        if not 1 <= number <= rows:
            raise RunError(
                f"{path}, line {line}: there is no row {number}; the data has rows 1 to {rows}"
            )
        if number in line_of:
            raise RunError(
                f"{path}, line {line}: row {number} stands on line {line_of[number]} already"
            )
        line_of[number] = line
    return tuple(line_of)


def rows_by_time(column: pl.Series, recent: str | None, spans: Sequence[str]) -> tuple[int, ...]:
    """The numbers, from 1, of rows that are older than `recent` before the newest, or lie in one of
    the spans FROM/TO; RunError where either is no such thing.
    """
    try:
        time_N = to_seconds(column)
    except InvalidTable as error:
        raise RunError(str(error)) from error
    out_N = np.zeros(len(time_N), dtype=bool)
    if recent is not None:
        found = _SPAN.fullmatch(recent)
        if found is None:
            raise RunError(f"recent: expected a time such as 30d or 12h, got {recent[:80]!r}")
        newest = float(time_N.max())
        if found[2] and not CLOCK[0] <= newest <= CLOCK[1]:
            raise RunError(
                f"recent: column {column.name!r} holds no dates or times, so it has no {recent};"
                " a number without a unit is in that of the column"
            )
        out_N |= time_N < newest - float(found[1]) * SECONDS.get(found[2], 1.0)
    for span in spans:
        start, end = _ends(span)
        out_N |= (time_N >= start) & (time_N < end)
    return tuple((np.flatnonzero(out_N) + 1).tolist())


def _ends(span: str) -> tuple[float, float]:
    first, slash, last = span.partition("/")
    start = _time(first, span) if first.strip() else -np.inf
    end = _time(last, span) if last.strip() else np.inf
    if not slash or not start < end:
        raise RunError(
            f"exclude: expected FROM/TO, the later one last, such as 2026-11-03/2026-11-04, got"
            f" {span[:80]!r}"
        )
    return start, end


def _time(text: str, span: str) -> float:
    """Seconds since 1970, or a number as it is; without a zone it is UTC, as in a file."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise RunError(
            f"exclude: expected a date, a time or a number on both sides of /, got {span[:80]!r}"
        ) from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _is_number(text: str) -> bool:
    text = text.strip()
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) < 19
