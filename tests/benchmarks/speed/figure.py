"""One line of the table: a ratio by round, the two costs it is made of, and what was aimed at."""

from statistics import median
from typing import Literal

import msgspec

Verdict = Literal["missed", "must", "reached", "in doubt"]


class Target(msgspec.Struct, frozen=True):
    """What a figure must be, and what is reached for."""

    must: float
    reach: float
    at_most: bool = False  # else at least

    def verdict(self, value: float) -> Verdict:
        def holds(bound: float) -> bool:
            return value <= bound if self.at_most else value >= bound

        return "reached" if holds(self.reach) else "must" if holds(self.must) else "missed"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """Values are by round; a figure without any says why."""

    part: str
    name: str
    unit: str  # of the value: "× echo"
    values: tuple[float, ...] = ()
    target: Target | None = None
    cost_unit: str = "µs"  # of ours and theirs
    ours: tuple[float, ...] = ()
    against: str = ""
    theirs: tuple[float, ...] = ()
    per_second: tuple[float, ...] = ()  # ours by the wall clock: the noisier figure
    checked: int = 0  # answers compared with the scores expected
    wrong: int = 0
    failure: str | None = None
    ours_failed: bool = False  # rather than a peer or a route that this revision has not
    note: str = ""
    in_doubt: bool = False  # the machine had a larger part in it than the server

    def with_note(self, note: str) -> "Figure":
        return msgspec.structs.replace(self, note=note)

    @property
    def value(self) -> float | None:
        return median(self.values) if self.values else None

    @property
    def verdict(self) -> Verdict | None:
        if self.target is None or self.value is None:
            return None
        return "in doubt" if self.in_doubt else self.target.verdict(self.value)
