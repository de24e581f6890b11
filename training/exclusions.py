"""Row numbers from a file: which rows a person wants left out."""

import csv
from pathlib import Path

from hourglass.training.errors import RunError

COLUMN = "row"


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


def _is_number(text: str) -> bool:
    text = text.strip()
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) < 19
