"""`python -m tests.benchmarks.hard`: attack a server in every way, print what became of it."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console

from hourglass.service.serving.disk import write_atomically
from tests.benchmarks.adbench.report import Grid, as_markdown, print_grids
from tests.benchmarks.hard import exhaustion, fuzz, swaps
from tests.benchmarks.hard.attacks import ATTACKS
from tests.benchmarks.hard.protocol import Line, Options
from tests.benchmarks.machine import machine, revision

WIDTH = 400  # where there is no terminal, lines are as long as they need to be
MET = {True: "met", False: "missed", None: "–"}
PROTOCOLS: dict[str, Callable[[Options], list[Line]]] = {
    "fuzz": fuzz.measure,
    "exhaustion": exhaustion.measure,
    "swaps": swaps.measure,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    given = parser.parse_args(arguments)
    chosen = given.only or list(PROTOCOLS)
    if unknown := [name for name in chosen if name not in PROTOCOLS]:
        parser.error(f"there is no protocol {unknown[0]!r}; they are {', '.join(PROTOCOLS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server outlives the run
    options = Options(
        output=given.output.absolute(),
        seed=given.seed,
        requests=given.requests,
        fuzz_seconds=given.fuzz_seconds,
        connections=given.connections,
        hold_seconds=given.hold_seconds,
        scale=given.scale,
        attacks=tuple(given.attacks or ()),
        rounds=given.rounds,
        swaps=given.swaps,
    )
    options.output.mkdir(parents=True, exist_ok=True)
    began = datetime.now(UTC)
    found: dict[str, list[Line]] = {}
    for name in chosen:
        found[name] = PROTOCOLS[name](options)
        grids, notes = write(found, options, began)  # so that what is done is not lost
    console = Console()
    print_grids(grids, notes, console if console.is_terminal else Console(width=WIDTH))
    return 0


def write(
    found: dict[str, list[Line]], options: Options, began: datetime
) -> tuple[list[Grid], list[str]]:
    """Put the table into the output folder, and return it."""
    grids = [
        Grid(
            name,
            ["what", "now", "reach", ""],
            [[line.what, line.now, line.reach, MET[line.met]] for line in lines],
        )
        for name, lines in found.items()
    ]
    seconds = (datetime.now(UTC) - began).total_seconds()
    notes = [
        f"Revision {revision() or 'unknown'}; {machine()}; seed {options.seed}; scale"
        f" {options.scale:g}; {seconds / 60:.1f} minutes."
    ]
    write_atomically(options.output / "table.md", as_markdown(grids, notes).encode())
    lines = {name: [line._asdict() for line in each] for name, each in found.items()}
    write_atomically(options.output / "hard.json", msgspec.json.format(msgspec.json.encode(lines)))
    return grids, notes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.hard", description=__doc__, allow_abbrev=False
    )
    add, default = parser.add_argument, Options(Path("build/hard"))
    add("--only", nargs="+", metavar="PROTOCOL", help=f"of {', '.join(PROTOCOLS)}")
    add("--seed", type=int, default=default.seed, metavar="N", help="of what is sent (0)")
    add("--requests", type=int, metavar="N", help="mutated ones (as many as the seconds take)")
    add(
        "--fuzz-seconds",
        type=float,
        default=default.fuzz_seconds,
        metavar="N",
        help=f"where no number of requests is given ({default.fuzz_seconds:g})",
    )
    add(
        "--connections",
        type=int,
        default=default.connections,
        metavar="N",
        help=f"of the fuzz, at once ({default.connections})",
    )
    add(
        "--hold-seconds",
        type=float,
        default=default.hold_seconds,
        metavar="N",
        help=f"that silent clients stay ({default.hold_seconds:g})",
    )
    add("--scale", type=float, default=1.0, metavar="X", help="of the attacks' sizes (1)")
    add(
        "--attacks",
        nargs="+",
        metavar="NAME",
        choices=ATTACKS,
        help=f"of the exhaustion's {', '.join(ATTACKS)} (all)",
    )
    add("--rounds", type=int, default=1, metavar="N", help="of each attack, for a median (1)")
    add("--swaps", type=int, default=default.swaps, metavar="N", help=f"({default.swaps})")
    add(
        "--output",
        type=Path,
        default=default.output,
        metavar="FOLDER",
        help="the table, logs, and the first finds of each kind (build/hard)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
