"""The tables that training/README.md shows.

A figure of a family is the mean over its tests, so a family with many counts as one with few.
"""

from collections.abc import Callable, Sequence

import numpy as np

from tests.benchmarks.adbench.report import Grid
from tests.benchmarks.series.figures import BUDGETS, Figures
from tests.benchmarks.series.outcomes import DETECTORS, Outcome

LONG = 4000  # rows of a test that a budget of events may be asked of


def make_grids(outcomes: Sequence[Outcome]) -> list[Grid]:
    families = list(dict.fromkeys(sorted(outcome.family for outcome in outcomes)))
    names = [each for each in DETECTORS if any(outcome.detector == each for outcome in outcomes)]
    own = {name: [each for each in outcomes if each.detector == name] for name in names}
    return [
        Grid(
            "AUROC / average precision / VUS-PR",
            ["", "mean", *map(str.upper, families), "fit, CPU s"],
            [[name, *_quality(own[name], families)] for name in names],
        ),
        Grid(
            "Alarm rate of later normal rows at 1 % / 5 %, then at the adaptive level",
            ["", *map(str.upper, families)],
            [[name, *(_rates(own[name], family) for family in families)] for name in names],
        ),
        Grid(
            f"Found of the labelled ranges, false events per 10,000 rows, median delay in rows at"
            f" budgets of {' / '.join(map(str, BUDGETS))}: tests of at least {LONG:,} rows",
            ["", *(f"{budget} per 10,000" for budget in BUDGETS)],
            [[name, *_events(own[name])] for name in names],
        ),
        Grid(
            "VUS-PR by test",
            ["", *(tests := _labelled(outcomes))],
            [[name, *(_by_test(own[name], test) for test in tests)] for name in names],
        ),
    ]


def make_notes(outcomes: Sequence[Outcome]) -> list[str]:
    """Where figures are from, and what failed."""

    def named(values: set[str | None]) -> str:
        return ", ".join(sorted(filter(None, values))) or "unknown"

    return [
        f"Revision {named({outcome.revision for outcome in outcomes})};"
        f" {named({outcome.machine for outcome in outcomes})}, one thread.",
        *(
            f"Failed: {outcome.detector} on {outcome.series}: {outcome.failure}"
            for outcome in outcomes
            if outcome.failure
        ),
    ]


def say(value: float | None, form: str = ".3f") -> str:
    """`.567`; a dash where nothing could be measured."""
    if value is None:
        return "–"
    text = format(value, form)
    return text.removeprefix("0") if text.startswith("0.") else text


def _of(outcomes: Sequence[Outcome], family: str | None = None) -> list[Figures]:
    return [
        figures
        for outcome in outcomes
        if family in (None, outcome.family)
        for figures in outcome.tests.values()
    ]


def _quality(outcomes: Sequence[Outcome], families: Sequence[str]) -> list[str]:
    columns = []
    for figure in ("auroc", "average_precision", "vus_pr"):
        values = [
            _mean(_of(outcomes, family), lambda each, name=figure: getattr(each, name))
            for family in families
        ]
        known = [value for value in values if value is not None]
        # of some families alone a mean could not be compared
        columns.append([float(np.mean(known)) if len(known) == len(values) else None, *values])
    seconds = [outcome.cpu_seconds for outcome in outcomes if outcome.tests]
    cost = f"{np.median(seconds):.1f}" if seconds else "–"
    return [*(" / ".join(map(say, each)) for each in zip(*columns, strict=True)), cost]


def _rates(outcomes: Sequence[Outcome], family: str) -> str:
    of = _of(outcomes, family)
    rates = [
        _mean(of, lambda each, i=i, name=name: getattr(each, name)[i])
        for name in ("alarm_rates", "adaptive_rates")
        for i in range(2)
    ]
    return f"{say(rates[0])} / {say(rates[1])}; {say(rates[2])} / {say(rates[3])}"


def _events(outcomes: Sequence[Outcome]) -> list[str]:
    of = [figures for figures in _of(outcomes) if figures.rows >= LONG - 100]
    if not of:
        return ["–"] * len(BUDGETS)
    ranges, normal = (sum(getattr(each, name) for each in of) for name in ("ranges", "normal_rows"))
    told = []
    for i in range(len(BUDGETS)):
        budgets = [each.budgets[i] for each in of]
        delays = [delay for budget in budgets for delay in budget.delays]
        false = sum(budget.false_events for budget in budgets) / normal * 1e4
        delay = f"{np.median(delays):g}" if delays else "–"
        told.append(
            f"{say(sum(each.found for each in budgets) / ranges, '.2f')}, {false:.1f}, {delay}"
        )
    return told


def _labelled(outcomes: Sequence[Outcome]) -> list[str]:
    """Names of the tests with rows of both kinds."""
    named = {
        name
        for outcome in outcomes
        for name, figures in outcome.tests.items()
        if figures.vus_pr is not None
    }
    return sorted(named)


def _by_test(outcomes: Sequence[Outcome], test: str) -> str:
    return say(next((each.tests[test].vus_pr for each in outcomes if test in each.tests), None))


def _mean(of: Sequence[Figures], figure: Callable[[Figures], float | None]) -> float | None:
    values = [value for each in of if (value := figure(each)) is not None]
    return float(np.mean(values)) if values else None
