"""The table: on the terminal, as Markdown and as JSON, from the same figures."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from statistics import median

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from tests.benchmarks.machine import machine, revision
from tests.benchmarks.speed.figure import Figure

LIBRARIES = (
    "litestar",
    "msgspec",
    "numpy",
    "onnxruntime",
    "orjson",
    "uvicorn",
    "httptools",
    "uvloop",
)
HEADER = (
    "what",
    "ratio",
    "from – to",
    "must",
    "reach",
    "",
    "ours",
    "theirs",
    "ours by the clock",
    "answers",
    "wrong",
)
QUIET = 0.5  # load average
BUSY = " (it was busy: ratios of CPU time may be relied on, the rest not)"
VERDICTS = {
    "missed": "missed",
    "must": "met",
    "reached": "reached",
    "in doubt": "in doubt",
    None: "",
}
STYLES = {"missed": "red", "must": "yellow", "reached": "green", "in doubt": "dim", None: ""}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A run: where, of what, how long, and what came out."""

    machine: str
    cores: int
    system: str
    python: str
    versions: dict[str, str]
    revision: str | None
    model: str  # its run configuration
    rounds: int
    leg_seconds: int
    began: str
    took_seconds: float
    load_average: float  # of the minute before
    figures: tuple[Figure, ...]


def make_report(
    figures: Sequence[Figure],
    *,
    model: str,
    rounds: int,
    leg_seconds: int,
    began: datetime,
    load_average: float,
    wrk: str,
) -> Report:
    return Report(
        machine=machine(),
        cores=os.cpu_count() or 0,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions={**{name: version(name) for name in LIBRARIES}, "wrk": wrk},
        revision=revision(),
        model=model,
        rounds=rounds,
        leg_seconds=leg_seconds,
        began=began.isoformat(timespec="seconds"),
        took_seconds=(datetime.now(UTC) - began).total_seconds(),
        load_average=load_average,
        figures=tuple(figures),
    )


def print_report(report: Report, console: Console) -> None:
    for part, figures in groupby(report.figures, key=lambda figure: figure.part):
        console.print(part, style="bold")
        table = Table(box=box.SIMPLE)
        for number, name in enumerate(HEADER):
            table.add_column(name, justify="right" if number else "left", no_wrap=bool(number))
        for figure in figures:
            table.add_row(*_line(figure), style=STYLES[figure.verdict])
        console.print(table)
    for line in _notes(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def as_markdown(report: Report) -> str:
    parts = []
    for part, figures in groupby(report.figures, key=lambda figure: figure.part):
        lines = [
            HEADER,
            (":--", *["--:"] * (len(HEADER) - 1)),
            *(_line(figure) for figure in figures),
        ]
        parts.append("\n".join([f"### {part}", "", *(f"| {' | '.join(line)} |" for line in lines)]))
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in _notes(report))]) + "\n"


def _line(figure: Figure) -> tuple[str, ...]:
    if figure.value is None:
        return figure.name, "–", "", *_aims(figure), "not measured", *[""] * 5
    return (
        figure.name,
        f"{number(figure.value)} {figure.unit}",
        f"{number(min(figure.values))} – {number(max(figure.values))}",
        *_aims(figure),
        VERDICTS[figure.verdict],
        _cost(figure.ours, figure.cost_unit),
        f"{_cost(figure.theirs, figure.cost_unit)} {figure.against}".strip(),
        f"{median(figure.per_second):,.0f}/s" if figure.per_second else "",
        f"{figure.checked:,}" if figure.checked else "",
        str(figure.wrong) if figure.checked else "",
    )


def _aims(figure: Figure) -> tuple[str, str]:
    if figure.target is None:
        return "", ""
    sign = "≤" if figure.target.at_most else "≥"
    return f"{sign} {figure.target.must:g}", f"{sign} {figure.target.reach:g}"


def _cost(values: Sequence[float], unit: str) -> str:
    return f"{number(median(values))} {unit}" if values else ""


def number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _notes(report: Report) -> list[str]:
    versions = ", ".join(f"{name} {each}" for name, each in report.versions.items())
    checked, wrong = (
        sum(getattr(figure, name) for figure in report.figures) for name in ("checked", "wrong")
    )
    return [
        (
            f"{report.machine}, {report.cores} cores; {report.system}; Python {report.python};"
            f" {versions}."
        ),
        (
            f"Revision {report.revision or 'unknown'}; model {report.model}; began {report.began},"
            f" took {report.took_seconds:.0f} s, the load average before it"
            f" {report.load_average:.2f}{BUSY if report.load_average > QUIET else ''}; medians of"
            f" {report.rounds} rounds of {report.leg_seconds} s; costs are CPU time of the server"
            " unless the unit says else."
        ),
        f"Answers compared with onnxruntime while the load ran: {checked:,}; wrong: {wrong}.",
        *(
            f"Not measured: {figure.name}: {figure.failure}"
            for figure in report.figures
            if figure.failure
        ),
        *(figure.note for figure in report.figures if figure.note),
    ]
