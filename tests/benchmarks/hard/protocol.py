"""What every protocol is given, and what it says."""

from pathlib import Path
from typing import NamedTuple


class Options(NamedTuple):
    """What the command line sets."""

    output: Path  # logs and finds
    seed: int = 0
    requests: int | None = None  # mutated ones; None: as many as the seconds take
    fuzz_seconds: float = 180
    connections: int = 48
    hold_seconds: float = 15  # that a silent or slow client stays
    scale: float = 1.0  # of attacks' sizes
    attacks: tuple[str, ...] = ()  # of the exhaustion; none: all
    rounds: int = 1  # of each attack, idle seconds between
    swaps: int = 300


class Line(NamedTuple):
    """A row of the table."""

    what: str
    now: str
    reach: str = "–"
    met: bool | None = None  # None where nothing was asked for


def none_of(what: str, count: int) -> Line:
    return Line(what, f"{count:,}", "0", count == 0)


def at_most(what: str, value: float, most: float, form: str = ".2f", unit: str = "") -> Line:
    return Line(what, f"{value:{form}}{unit}", f"at most {most:g}{unit}", value <= most)
