"""How a CSV file is written, where it is not as usual."""

import argparse
from typing import Any, Literal

import msgspec

from hourglass.service.errors import InvalidSettings

SPELT = {"\\t": "\t", "tab": "\t"}  # what a shell makes hard to type


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """ValueError where two signs mean the same. `null` holds for Parquet, too."""

    separator: str = ","
    decimal: Literal[".", ","] = "."
    thousands: str | None = None  # between groups of three digits
    null: tuple[str, ...] = ()  # cells that mean a missing value, as the empty one does
    comment: str | None = None  # what lines that are no rows begin with
    header: bool = True  # without one the columns are column_1, column_2, ...

    def __post_init__(self) -> None:
        signs = {"separator": self.separator, "thousands": self.thousands, "comment": self.comment}
        for name, sign in signs.items():
            if sign is not None and (len(sign) != 1 or not sign.isascii() or sign in '"\r\n'):
                raise ValueError(
                    f"{name} must be one character, no quote or line end; got {sign!r}"
                )
        if self.thousands == self.decimal:
            raise ValueError(
                f"thousands and decimal are both {self.decimal!r}; --decimal names another"
            )


USUAL = Dialect()


def add_dialect_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of a Dialect; None where one is not given."""
    parser.add_argument(
        "--separator",
        type=lambda text: SPELT.get(text, text),
        metavar="SIGN",
        help="between the cells of a CSV (,); tab is a tab",
    )
    parser.add_argument("--decimal", choices=[".", ","], help="of the numbers in a CSV (.)")
    parser.add_argument(
        "--thousands", metavar="SIGN", help="between groups of three digits in a CSV (none)"
    )
    parser.add_argument(
        "--null",
        nargs="+",
        action="extend",
        metavar="VALUE",
        help="cells that mean a missing value, such as NA or -999",
    )
    parser.add_argument(
        "--comment", metavar="SIGN", help="what lines of a CSV that are no rows begin with (none)"
    )
    parser.add_argument(
        "--no-header",
        dest="header",
        action="store_false",
        default=None,
        help="the first line of a CSV is a row; its columns are column_1, column_2, ...",
    )


def dialect_of(options: argparse.Namespace) -> Dialect:
    """How the flags say that a file is written; InvalidSettings where two mean the same."""
    try:
        return Dialect(**given_dialect(options))
    except ValueError as error:
        raise InvalidSettings(str(error)) from error


def given_dialect(options: argparse.Namespace) -> dict[str, Any]:
    """The flags that were given."""
    values = {name: getattr(options, name) for name in Dialect.__struct_fields__}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if value is not None
    }
