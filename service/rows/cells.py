"""One cell of a row that came: what is a float32 number, and how to say that it is none."""

import json
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import InvalidNumber, InvalidRow
from hourglass.service.model.schema import Schema

# halfway to the next power of two: from here on a number rounds to infinity
OVERFLOW = float(np.finfo(np.float32).max) + 2.0**103
A_NUMBER = "a finite number within float32"


class NoNumber(NamedTuple):
    """What stands where a number should: NaN, Infinity, or digits beyond any float."""

    text: str


def parse_float(text: str) -> float | NoNumber:
    """json.loads's parse_float."""
    return value if math.isfinite(value := float(text)) else NoNumber(text)


def bad_number(row: int, name: str, got: str) -> InvalidNumber:
    """What to raise where a JSON cell holds no float32."""
    message = f"expected {A_NUMBER} for {name!r}, got {got} in row {row}"
    return InvalidNumber(message, row=row, feature=name, expected=A_NUMBER, got=got)


def misfit(row: int, name: str, expected: str, got: str) -> InvalidRow:
    """What to raise where a cell holds anything else than the feature's kind expects."""
    message = f"expected {expected} for {name!r}, got {got} in row {row}"
    return InvalidRow(message, row=row, feature=name, expected=expected, got=got)


def require_cells(
    rows_ND: NDArray[Any], wrong_ND: NDArray[np.bool_], schema: Schema, expected: str
) -> None:
    """InvalidRow that names the first wrong cell, where there is one."""
    if wrong_ND.any():
        row, column = np.argwhere(wrong_ND)[0].tolist()
        raise misfit(row, schema.features[column].name, expected, f"{rows_ND[row, column]:g}")


def shown(value: object) -> str:
    """What came, short, as JSON; ASCII, since a lone surrogate cannot be written out again."""
    if isinstance(value, list | dict):
        return ("an array" if isinstance(value, list) else "an object") + f" of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:60] + "…"
