"""`python -m tests.benchmarks.trust FOLDER --series FOLDER --jobs 2`: measure, then report."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hourglass.service.serving.disk import write_atomically
from tests.benchmarks.adbench.protocol import find_sets
from tests.benchmarks.adbench.report import as_markdown, print_grids
from tests.benchmarks.trust import product, schedule
from tests.benchmarks.trust.product import Fit
from tests.benchmarks.trust.protocol import Case
from tests.benchmarks.trust.protocols import PROTOCOLS
from tests.benchmarks.trust.table import make_grids, make_notes

WIDTH = 400  # where there is no terminal, lines are as long as they need to be


def main(arguments: Sequence[str] | None = None, fit: Fit = product.fit) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.only or () if name not in PROTOCOLS]:
        parser.error(f"there is no protocol {unknown[0]!r}; they are {', '.join(PROTOCOLS)}")
    cases = [
        case
        for name, protocol in PROTOCOLS.items()
        if name in (options.only or PROTOCOLS)
        for case in _cases(name, options)
    ]
    if not cases:
        parser.error("expected a folder with npz files, or --series, or --only a protocol without")
    if not options.report:
        try:
            schedule.run(cases, options.output, jobs=options.jobs, fit=fit)
        except KeyboardInterrupt:
            print("interrupted; what is done is kept, the same command goes on", file=sys.stderr)
            return 130
    asked = {(case.protocol, case.set, case.seed) for case in cases}
    outcomes = [
        outcome
        for outcome in schedule.read_outcomes(options.output)
        if (outcome.protocol, outcome.set, outcome.seed) in asked
    ]
    if not outcomes:
        print(f"there is no outcome in {options.output} yet", file=sys.stderr)
        return 1
    grids, notes = make_grids(outcomes), make_notes(outcomes)
    write_atomically(options.output / "table.md", as_markdown(grids, notes).encode())
    console = Console()
    print_grids(grids, notes, console if console.is_terminal else Console(width=WIDTH))
    return 0


def _cases(name: str, options: argparse.Namespace) -> list[Case]:
    """Those of a protocol; none where the folder it needs is not given."""
    protocol = PROTOCOLS[name]
    if protocol.source == "sets":
        paths = find_sets(options.folder) if options.folder else []
    elif protocol.source == "series":
        paths = sorted(options.series.glob("*.csv")) if options.series else []
    else:
        return protocol.cases(name, [], options.seeds)
    wanted = [path for path in paths if not options.sets or path.stem in options.sets]
    return protocol.cases(name, wanted, options.seeds) if wanted else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.trust", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "folder",
        nargs="?",
        type=Path,
        metavar="FOLDER",
        help="npz files with X [rows, features] and y [rows]",
    )
    add("--series", type=Path, metavar="FOLDER", help="CSV files of SKAB, TEP and ASD")
    add("--only", nargs="+", metavar="PROTOCOL", help=f"of {', '.join(PROTOCOLS)}")
    add("--sets", nargs="+", metavar="SET", help="files' names without their ending (all)")
    add("--seeds", nargs="+", type=int, metavar="SEED", help="in place of the protocols' own")
    add("--jobs", type=int, default=1, metavar="N", help="processes, one thread each (1)")
    add(
        "--output",
        type=Path,
        default=Path("build/trust"),
        metavar="FOLDER",
        help="outcomes, a file of JSON lines a protocol, and the table (build/trust)",
    )
    add("--report", action="store_true", help="measure nothing, report what the output folder has")
    return parser


if __name__ == "__main__":
    sys.exit(main())
