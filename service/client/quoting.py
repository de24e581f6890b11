"""How answers to agents are written: text that others wrote is escaped and cut, numbers are short.

Of what passes here none is hidden, moves what is beside it, or could end a block of markup.
"""

from datetime import datetime
from typing import Any

import numpy as np
from msgspec import UNSET

LONGEST_NAME = 120  # characters, before what is escaped
LONGEST_SENTENCE = 600

Cell = float | str | bool | None


def name(text: str) -> str:
    """A name that others gave."""
    return plain(text, LONGEST_NAME)


def sentence(text: str) -> str:
    """A sentence that may quote what others wrote."""
    return plain(text, LONGEST_SENTENCE)


def cell(value: Cell) -> Cell:
    """A value of a row, or one that was expected."""
    if isinstance(value, str):
        return name(value)
    return value if value is None or isinstance(value, bool) else short(value)


def plain(text: str, longest: int) -> str:
    """One line of at most so many characters, those that could do harm as \\uXXXX."""
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(each if _is_plain(each) else f"\\u{ord(each):04x}" for each in cut)


def _is_plain(each: str) -> bool:
    # variation selectors are printable for Python, and carry hidden text all the same
    is_selector = "\ufe00" <= each <= "\ufe0f" or "\U000e0100" <= each <= "\U000e01ef"
    return each.isprintable() and each not in "<>`" and not is_selector


def short(value: Any) -> Any:
    """A number to six digits, which is what a reader needs; None of NaN. UNSET stays."""
    if value is None or value is UNSET:
        return value
    return None if np.isnan(value) else float(f"{value:.6g}")


def when(time: datetime) -> str:
    """ISO 8601, to the second."""
    return time.isoformat(timespec="seconds")


def without_unset(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not UNSET}
