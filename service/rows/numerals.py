"""Numerals: the ways in which people write numbers that are text to a reader of CSV, and the flag
that reads each.

Needs polars (the `files` extra).
"""

import shlex
from typing import TYPE_CHECKING, NamedTuple

from hourglass.service.rows.dialect import USUAL, Dialect

if TYPE_CHECKING:
    import polars as pl

MOST_SHOWN = 60  # characters of a cell
IP_ADDRESS = r"^\d{1,3}(\.\d{1,3}){3}$"
CURRENCY = r"[€$£¥]|EUR|USD|GBP|CHF"
UNIT = rf"{CURRENCY}|%|‰|[°ºµμΩA-Za-z][A-Za-z°µΩ/²³^%·*]{{0,7}}[23]?"
AMOUNT = r"[+-]?\d[\d.,' ]*"
WITH_UNIT = rf"^[+-]?(({CURRENCY}) ?{AMOUNT}|{AMOUNT} ?({UNIT}))$"
ORDINAL_OR_HEX = r"(?i)^(\d*(1st|2nd|3rd|[04-9]th|1[123]th)|[0-9a-f]{8,})$"
MISSING = frozenset(
    "na n/a n.a. #n/a #na nan null none nil - -- --- ? ?? . .. ... missing undefined"
    " #div/0! #value! #ref! #null! #num! #name?".split()
)
# from so few numbers with a unit on no one is surprised that they are categories: 2WD, 4WD
FEW_WITH_UNIT = 8

HABITS = {  # a pattern of cells: what they are, and how to have them read
    r"^[+-]?[1-9]\d{0,2}(,\d{3})+$": (
        "digits in groups: --thousands , reads 1,510 as 1510, and --decimal , as 1.51"
    ),
    r"^[+-]?\d{1,3}(,\d{3})+\.\d*$": "digits in groups: --thousands , reads them",
    r"^[+-]?\d*,\d+([eE][+-]?\d+)?$": "a decimal comma: --decimal , reads it",
    r"^[+-]?\d{1,3}(\.\d{3})+,\d+$": "digits in groups: --decimal , --thousands . reads them",
    r"^[+-]?\d{1,3}(\.\d{3}){2,}$": "digits in groups: --decimal , --thousands . reads them",
    r"^[+-]?\d{1,3}( \d{3})+([.,]\d+)?$": "digits in groups: --thousands ' ' reads them",
    r"^[+-]?\d{1,3}('\d{3})+([.,]\d+)?$": 'digits in groups: --thousands "\'" reads them',
    r"^[+-]?\d{1,3}(_\d{3})+([.,]\d+)?$": "digits in groups: --thousands _ reads them",
    r"^[+-]?\d{1,3}([\u00a0\u2009\u202f’]\d{3})+([.,]\d+)?$": (
        "digits in groups, by a sign that is no ASCII: write the number without it"
    ),
    r"^\([$€£]? ?[\d.,]+\)$": "a negative number in brackets: write it with a minus",
    r"^([−–] ?\d[\d.,]*|\d[\d.,]*-)$": "a number with another minus: write - in front",
}
BOUND = r"^[<>≤≥~≈] ?[\d.,]+$"  # among numbers; ages of <18 and >65 are categories


class Misread(NamedTuple):
    """The first cell of a column of text that is no number, or is one as text, where the column
    means numbers.
    """

    row: int  # from 1
    got: str  # quoted, and what it is
    cells: int  # that are no numbers
    few_with_unit: bool = False  # of a few values that may as well be names: 2WD, 4WD
    words: tuple[str, ...] = ()  # the cells that are numbers under no habit, the commonest first


def to_numbers(text: "pl.Series", dialect: Dialect = USUAL) -> "pl.Series":
    """Float64 of a column of text without spaces around; null where a cell is no number."""
    import polars as pl

    if dialect.thousands is not None:
        sign, decimal = _escaped(dialect.thousands), _escaped(dialect.decimal)
        grouped = text.str.contains(rf"^[+-]?\d{{1,3}}({sign}\d{{3}})+({decimal}\d*)?$")
        text = text.zip_with(
            ~grouped.fill_null(False), text.str.replace_all(dialect.thousands, "", literal=True)
        )
    if dialect.decimal != ".":
        text = text.set(text.str.contains(".", literal=True).fill_null(False), "")
        text = text.str.replace(dialect.decimal, ".", literal=True)
    return text.cast(pl.Float64, strict=False)


def misread(text: "pl.Series", dialect: Dialect = USUAL) -> Misread | None:
    """Where most cells of a column of text are numbers under some habit, missing values aside; or
    where all are missing values.
    """
    import polars as pl

    counts = text.drop_nulls().alias("cell").value_counts(name="count")
    cells, count = counts["cell"], counts["count"]
    plain = to_numbers(cells, dialect).is_not_null()
    missing = cells.str.to_lowercase().is_in(list(MISSING)) & ~plain
    address = cells.str.contains(IP_ADDRESS)
    by_habit = cells.str.contains("|".join(f"({pattern})" for pattern in HABITS)) & ~address
    by_habit |= to_numbers(cells).is_not_null() & ~plain  # with a point, where a comma was said
    with_unit = cells.str.contains(WITH_UNIT) & ~plain & ~by_habit
    with_unit &= ~cells.str.contains(ORDINAL_OR_HEX)
    unit = cells.str.replace_all(AMOUNT, "").str.strip_chars(" +-")
    commonest = (
        pl.DataFrame({"unit": unit, "count": count})
        .filter(with_unit)
        .group_by("unit")
        .agg(pl.col("count").sum())
        .sort("count", "unit", descending=[True, False])
    )
    if commonest.height:
        with_unit &= unit == commonest["unit"][0]
    filled = int(count.filter(~missing).sum())
    numbers = int(count.filter(plain | by_habit | with_unit).sum())
    if 2 * numbers <= filled and filled:  # nothing but missing values is no text
        return None
    if plain.all():
        row = text.is_not_null().arg_max() or 0
        return Misread(row + 1, explain_cell(str(text[row]), dialect), 0)
    row = text.is_in(cells.filter(~plain).to_list()).arg_max() or 0
    wrong = int(count.filter(~plain).sum())
    few = with_unit.sum() <= FEW_WITH_UNIT and not (plain | by_habit).any()
    words = counts.filter(~(plain | by_habit | with_unit)).sort("count", "cell", descending=True)
    return Misread(
        row + 1, explain_cell(str(text[row]), dialect), wrong, few, tuple(words["cell"].to_list())
    )


def explain_cell(cell: str, dialect: Dialect = USUAL) -> str:
    """A cell that is no number, quoted, and the flag that reads it where there is one."""
    import polars as pl

    text = pl.Series([cell])
    if to_numbers(text, dialect).is_not_null()[0]:
        return f"{shorten(cell)!r}, a number written as text: make it a column of numbers"
    if to_numbers(text).is_not_null()[0]:
        return f"{shorten(cell)!r}, a decimal point where --decimal {dialect.decimal} was given"
    if cell.lower() in MISSING:
        return f"{shorten(cell)!r}; {as_missing(cell)} reads it as missing"
    if not text.str.contains(IP_ADDRESS)[0]:
        for pattern, meaning in HABITS.items():
            if text.str.contains(pattern)[0]:
                return f"{shorten(cell)!r}, {meaning}"
    if text.str.contains(BOUND)[0]:
        return f"{shorten(cell)!r}, a bound: write the number, or leave the cell empty"
    if text.str.contains(WITH_UNIT)[0]:
        return f"{shorten(cell)!r}, which has a unit: write the number alone"
    return (
        f"{shorten(cell)!r}; leave a cell empty where the value is missing, or"
        f" {as_missing(str(shorten(cell)))}"
    )


def as_missing(*cells: str) -> str:
    """The flags that read these cells as missing; what would be taken for a flag is glued to it."""
    flags = [cell for cell in cells if cell.startswith("-") and cell != "-"]
    words = [cell for cell in cells if cell not in flags]
    return " ".join(
        [
            *(["--null", *(repr(word) for word in words)] if words else []),
            *(f"--null={shlex.quote(cell)}" for cell in flags),
        ]
    )


def shorten(value: object) -> object:
    """What can be said of a value in a sentence."""
    if isinstance(value, str) and len(value) > MOST_SHOWN:
        return value[:MOST_SHOWN] + "…"
    return value[:MOST_SHOWN] if isinstance(value, bytes) else value


def _escaped(sign: str) -> str:
    return f"\\{sign}" if sign in r".\+*?()|[]{}^$" else sign
