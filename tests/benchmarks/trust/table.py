"""The table of all protocols, as a person reads it."""

from collections.abc import Sequence

from tests.benchmarks.adbench.report import Grid
from tests.benchmarks.trust.protocol import Line, Outcome
from tests.benchmarks.trust.protocols import PROTOCOLS

MET = {True: "met", False: "missed", None: "–"}


def make_grids(outcomes: Sequence[Outcome]) -> list[Grid]:
    """What was measured against what is to be reached, and what measuring cost."""
    table: list[list[str]] = []
    costs: list[list[str]] = []
    for name, protocol in PROTOCOLS.items():
        own = [outcome for outcome in outcomes if outcome.protocol == name]
        measured = [outcome for outcome in own if outcome.figures]
        if not own:
            continue
        table += [
            [line.what, protocol.preset, line.now, line.reach, MET[line.met]]
            for line in (protocol.lines(measured) if measured else [Line(name, "none")])
        ]
        seconds = sum(outcome.cpu_seconds for outcome in own)
        sets = len({outcome.set for outcome in measured})
        counts = [str(sets), str(len(measured)), str(sum(o.skipped is not None for o in own))]
        costs.append([name, *counts, f"{seconds / 60:.1f}"])
    return [
        Grid(
            "What can be trusted",
            ["what", "preset", "now", "reach", ""],
            table,
        ),
        Grid("Cost", ["protocol", "sets", "cases", "skipped", "CPU minutes"], costs),
    ]


def make_notes(outcomes: Sequence[Outcome]) -> list[str]:
    """Where figures are from, and what failed."""

    def named(values: set[str | None]) -> str:
        return ", ".join(sorted(filter(None, values))) or "unknown"

    return [
        f"Revision {named({outcome.revision for outcome in outcomes})};"
        f" {named({outcome.machine for outcome in outcomes})}, one thread a case.",
        *(
            f"Failed: {outcome.protocol} on {outcome.set}, seed {outcome.seed}: {outcome.failure}"
            for outcome in outcomes
            if outcome.failure
        ),
    ]
