"""What a protocol is: cases to measure, each apart from the others, and lines of the table made of
what was measured.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from tests.benchmarks.trust.product import Fit

Figures = Mapping[str, Any]  # as JSON has them
Source = Literal["sets", "series", "demo", "made up"]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What one protocol measures at once, and again only when told to."""

    protocol: str
    set: str
    seed: int
    path: str = ""  # of the set; empty where it is no file


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A line of JSON: figures, or why there are none."""

    protocol: str
    set: str
    seed: int
    figures: dict[str, Any] = {}
    skipped: str | None = None  # the protocol is not for this set
    failure: str | None = None
    cpu_seconds: float = 0.0
    revision: str | None = None
    machine: str | None = None


class Skipped(Exception):
    """A set that a protocol is not for, with the reason."""


class Line(NamedTuple):
    """A row of the table."""

    what: str
    now: str
    reach: str = "–"
    met: bool | None = None  # None where nothing was asked for


class Protocol(NamedTuple):
    """Where cases come from, how one is measured, and what the table says of all."""

    preset: str
    source: Source
    seeds: int  # 0, 1, … unless the command names others
    measure: Callable[[Case, Fit], Figures]
    lines: Callable[[Sequence[Outcome]], list[Line]]

    def cases(self, name: str, paths: Sequence[Path], seeds: Sequence[int] | None) -> list[Case]:
        """Seed by seed, so that a run that is cut short has every set."""
        sets = {path.stem: str(path.resolve()) for path in paths} or {self.source: ""}
        return [
            Case(protocol=name, set=each, seed=seed, path=path)
            for seed in (range(self.seeds) if seeds is None else seeds)
            for each, path in sets.items()
        ]


def over_sets(outcomes: Sequence[Outcome], figure: str) -> float | None:
    """Mean over sets of the mean over seeds, of those that have the figure; None if none has."""
    per_set: dict[str, list[float]] = {}
    for outcome in outcomes:
        value = outcome.figures.get(figure)
        if value is not None:
            per_set.setdefault(outcome.set, []).append(value)
    return float(np.mean([np.mean(values) for values in per_set.values()])) if per_set else None


def over_cases(outcomes: Sequence[Outcome], figure: str) -> float | None:
    """Mean over all cases that have the figure; None if none has."""
    values = [value for outcome in outcomes if (value := outcome.figures.get(figure)) is not None]
    return float(np.mean(values)) if values else None


def at_least(
    what: str, now: Sequence[float | None], reach: Sequence[float], form: str = ".3f"
) -> Line:
    return _line(what, now, reach, form, "at least", lambda value, goal: value >= goal)


def at_most(
    what: str, now: Sequence[float | None], reach: Sequence[float], form: str = ".3f"
) -> Line:
    return _line(what, now, reach, form, "at most", lambda value, goal: value <= goal)


def say(value: float | None, form: str = ".3f") -> str:
    """`.567`; `none` where nothing could be measured."""
    if value is None:
        return "none"
    text = format(value, form)
    return text.removeprefix("0") if text.startswith("0.") else text


def _line(
    what: str,
    now: Sequence[float | None],
    reach: Sequence[float],
    form: str,
    side: str,
    meets: Callable[[float, float], bool],
) -> Line:
    met = all(
        value is not None and meets(value, goal) for value, goal in zip(now, reach, strict=True)
    )
    goals = " / ".join(say(goal, form) for goal in reach)
    return Line(what, " / ".join(say(value, form) for value in now), f"{side} {goals}", met)
