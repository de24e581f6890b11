"""The costs of detectors on made-up rows, and the figures that presets are held to."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from tests.benchmarks.adbench.outcome import Measured, Outcome
from tests.benchmarks.adbench.report import Grid


class Target(NamedTuple):
    """One figure of one preset at one width."""

    detector: str
    width: int
    figure: str
    reached: Callable[[float], bool]
    said: str


TARGETS = (
    Target(
        "fast", 32, "bulk_rows_per_second", lambda rate: rate >= 300_000, "at least 300,000 rows/s"
    ),
    Target(
        "balanced",
        32,
        "bulk_rows_per_second",
        lambda rate: rate >= 40_000,
        "at least 40,000 rows/s",
    ),
    Target(
        "balanced",
        32,
        "one_row_microseconds",
        lambda micro: micro <= 300,
        "at most 300 µs for one row",
    ),
    Target("accurate", 50, "fit_seconds", lambda seconds: seconds <= 60, "at most 60 s of fitting"),
)

COLUMNS: dict[str, tuple[str, str]] = {
    "fit s": ("fit_seconds", ".1f"),
    "fit CPU s": ("cpu_seconds", ".1f"),
    "publish s": ("publish_seconds", ".1f"),
    "kB": ("size_bytes", ",.0f"),
    "µs, 1 row": ("one_row_microseconds", ",.0f"),
    "µs a row of 1,024": ("bulk_row_microseconds", ",.2f"),
    "rows/s in bulk": ("bulk_rows_per_second", ",.0f"),
    "AUROC": ("auroc", ".3f"),
}


def speed_grids(outcomes: Sequence[Outcome]) -> list[Grid]:
    """Medians over seeds."""
    found: dict[tuple[str, str], list[Measured]] = {}
    for each in outcomes:
        if each.measured:
            found.setdefault((each.detector, each.set), []).append(each.measured)
    lines = [
        [
            detector,
            str(runs[0].features),
            str(runs[0].fit_rows),
            *(_cell(runs, *column) for column in COLUMNS.values()),
        ]
        for (detector, _), runs in found.items()
    ]
    return [
        Grid(
            "Costs on made-up rows, one thread",
            ["detector", "features", "fit rows", *COLUMNS],
            lines,
        ),
        *_targets(found),
    ]


def _targets(found: dict[tuple[str, str], list[Measured]]) -> list[Grid]:
    lines = []
    for target in TARGETS:
        value = _middle(found.get((target.detector, f"d{target.width}"), []), target.figure)
        if value is not None:
            verdict = "met" if target.reached(value) else "missed"
            lines.append(
                [target.detector, str(target.width), target.said, f"{value:,.1f}", verdict]
            )
    return (
        [Grid("Targets", ["preset", "features", "target", "measured", ""], lines)] if lines else []
    )


def _cell(runs: Sequence[Measured], figure: str, form: str) -> str:
    value = _middle(runs, figure)
    if value is None:
        return "–"
    return format(value / 1000 if figure == "size_bytes" else value, form)


def _middle(runs: Sequence[Measured], figure: str) -> float | None:
    known = [value for run in runs if (value := getattr(run, figure)) is not None]
    return float(median(known)) if known else None
