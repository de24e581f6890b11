"""The table as a person reads it: on the terminal and as Markdown, from the same grids."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from tests.benchmarks.adbench.table import METRICS, Duel, Failure, Metric, Row, Table

TITLES: dict[Metric, str] = {"auroc": "AUROC", "average_precision": "average precision"}


class Grid(NamedTuple):
    title: str
    header: list[str]
    lines: list[list[str]]


def print_grids(grids: Sequence[Grid], notes: Sequence[str], console: Console) -> None:
    for grid in grids:
        console.print(grid.title, style="bold", soft_wrap=True)
        shown = RichTable(box=box.SIMPLE)
        for number, name in enumerate(grid.header):
            shown.add_column(name, justify="right" if number else "left", no_wrap=True)
        for line in grid.lines:
            shown.add_row(*line)
        console.print(shown)
    for line in notes:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def as_markdown(grids: Sequence[Grid], notes: Sequence[str]) -> str:
    parts = []
    for title, header, lines in grids:
        ruler = [":--", *["--:"] * (len(header) - 1)]
        parts.append(
            "\n".join(
                [
                    f"### {title}",
                    "",
                    *(f"| {' | '.join(line)} |" for line in (header, ruler, *lines)),
                ]
            )
        )
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in notes)]) + "\n"


def table_grids(table: Table) -> list[Grid]:
    names = [row.detector for row in table.rows]
    grids = [
        Grid(
            "Detectors: means over sets, median costs",
            ["detector", *SUMMARY],
            [_summary(row) for row in table.rows],
        )
    ]
    for metric in METRICS:
        lines = [
            [name, *(_figure(scores.get(each)) for each in names)]
            for name, scores in table.per_set[metric].items()
        ]
        mean = ["mean", *(_figure(getattr(row, metric)) for row in table.rows)]
        grids.append(
            Grid(f"{TITLES[metric]} per set, mean over seeds", ["set", *names], [*lines, mean])
        )
    grids += [grid for metric in METRICS if (grid := _duels(table, metric)).lines]
    return grids


SUMMARY: dict[str, Callable[[Row], str]] = {
    "sets": lambda row: str(row.sets),
    "AUROC": lambda row: _figure(row.auroc),
    "AP": lambda row: _figure(row.average_precision),
    "rank": lambda row: _number(row.auroc_rank, ".1f"),
    "rank AP": lambda row: _number(row.average_precision_rank, ".1f"),
    "found": lambda row: _number(row.detection_rate, ".1%"),
    "false alarms": lambda row: _number(row.false_alarm_rate, ".1%"),
    "of alpha": lambda row: _number(row.alpha, ".1%"),
    "budget kept": lambda row: _number(row.within_budget, ".0%"),
    "fit s": lambda row: _number(row.fit_seconds, ".1f"),
    "fit CPU s": lambda row: _number(row.cpu_seconds, ".1f"),
    "publish s": lambda row: _number(row.publish_seconds, ".1f"),
    "kB": lambda row: _number(row.size_bytes and row.size_bytes / 1000, ",.0f"),
    "µs, 1 row": lambda row: _number(row.one_row_microseconds, ",.0f"),
    "µs a row of 1,024": lambda row: _number(row.bulk_row_microseconds, ",.2f"),
}


def _summary(row: Row) -> list[str]:
    return [row.detector, *(column(row) for column in SUMMARY.values())]


def _duels(table: Table, metric: Metric) -> Grid:
    found: dict[str, dict[str, Duel]] = {}
    for each in table.duels:
        if each.metric == metric:
            found.setdefault(each.detector, {})[each.against] = each
    opponents = list(dict.fromkeys(each.against for each in table.duels))
    lines = [
        [name, *(_duel(duels.get(other)) for other in opponents)] for name, duels in found.items()
    ]
    title = f"Wins/ties/losses in {TITLES[metric]} over sets, and Wilcoxon p, against"
    return Grid(title, ["detector", *opponents], lines)


def table_notes(table: Table) -> list[str]:
    most = max((row.sets for row in table.rows), default=0)
    short = [f"{row.detector} ({row.sets})" for row in table.rows if row.sets < most]
    return [
        origin_note(table),
        *([f"Means over fewer sets than others have: {', '.join(short)}."] if short else []),
        *failure_notes(table.failures),
    ]


def origin_note(table: Table) -> str:
    return (
        f"Sets: {len(table.sets)}; seeds {', '.join(map(str, table.seeds))}; revision"
        f" {', '.join(table.revisions) or 'unknown'};"
        f" {', '.join(table.machines) or 'unknown machine'}, one thread."
    )


def failure_notes(failures: Sequence[Failure]) -> list[str]:
    return [
        f"Failed: {each.detector} on {each.set}, seed {each.seed}: {each.reason}"
        for each in failures
    ]


def _duel(duel: Duel | None) -> str:
    return f"{duel.wins}/{duel.ties}/{duel.losses} p={duel.p:.2g}" if duel else "–"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".removeprefix("0") if value < 1 else "1.00"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
