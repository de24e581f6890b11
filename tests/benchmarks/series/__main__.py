"""`python -m tests.benchmarks.series FOLDER`: measure, then write the tables."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hourglass.service.serving.disk import write_atomically
from tests.benchmarks.adbench.report import Grid, as_markdown, print_grids
from tests.benchmarks.series import files, fleet
from tests.benchmarks.series.baselines import BASELINES
from tests.benchmarks.series.outcomes import DETECTORS, measure_all, read_outcomes
from tests.benchmarks.series.product import PRODUCTS
from tests.benchmarks.series.table import make_grids, make_notes

GROUPS = {"all": DETECTORS, "ours": tuple(PRODUCTS), "baselines": tuple(BASELINES)}
WIDTH = 400  # where there is no terminal, lines are as long as they need to be


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    detectors = GROUPS.get(options.detectors) or tuple(options.detectors.split(";"))
    if unknown := [each for each in detectors if each not in DETECTORS]:
        parser.error(f"there is no detector {unknown[0]!r}; they are {'; '.join(DETECTORS)}")
    sources = [
        source
        for source in files.find(options.folder)
        if not options.series or source.name in options.series
    ]
    if not sources:
        parser.error(f"{options.folder} has no series: NAME_train.csv, or a column {files.LABEL!r}")
    if options.fleet:
        made = fleet.fleets(sources, options.tested)
        for each in fleet.measure_all(made, "fast", options.output):
            print(f"{each.fleet}: {each.way}: AUROC {each.auroc:.3f}", file=sys.stderr, flush=True)
        tested = {(each.name, len(each.tested)) for each in made}
        own = [e for e in fleet.read_outcomes(options.output) if (e.fleet, e.tested) in tested]
        grids, notes = [fleet.make_grid(own)], fleet.make_notes(own)
        return _write(grids, notes, options.output / "fleets.md")
    try:
        for outcome in measure_all(sources, detectors, options.output):
            said = outcome.failure or f"{outcome.cpu_seconds:.1f} s of CPU"
            print(f"{outcome.detector} on {outcome.series}: {said}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("interrupted; what is done is kept, the same command goes on", file=sys.stderr)
        return 130
    asked = {source.name for source in sources}
    outcomes = [
        outcome
        for outcome in read_outcomes(options.output)
        if outcome.series in asked and outcome.detector in detectors
    ]
    return _write(make_grids(outcomes), make_notes(outcomes), options.output / "table.md")


def _write(grids: Sequence[Grid], notes: Sequence[str], path: Path) -> int:
    write_atomically(path, as_markdown(grids, notes).encode())
    console = Console()
    print_grids(grids, notes, console if console.is_terminal else Console(width=WIDTH))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.series", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="CSV files, by the names that files.py tells")
    add(
        "--detectors",
        default="all",
        metavar="NAMES",
        help="all, ours, baselines, or names of the table with ; between them",
    )
    add("--series", nargs="+", metavar="NAME", help="these alone (all)")
    add(
        "--fleet",
        action="store_true",
        help="instead one model of many machines against a model of each: fleet.py",
    )
    add(
        "--tested",
        type=int,
        default=8,
        metavar="N",
        help="machines of each fleet that are tested, and have a model of their own (8)",
    )
    add(
        "--output",
        type=Path,
        default=Path("build/series"),
        metavar="FOLDER",
        help="outcomes, a line of JSON each, and the tables (build/series)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
