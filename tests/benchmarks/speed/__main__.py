"""`python -m tests.benchmarks.speed`: measure, print the table, write it."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console

from hourglass.service.serving.disk import write_atomically
from tests.benchmarks.machine import ROOT
from tests.benchmarks.speed import parts, wrk
from tests.benchmarks.speed.bench import Bench
from tests.benchmarks.speed.figure import Figure
from tests.benchmarks.speed.memory import memory
from tests.benchmarks.speed.peer import peers
from tests.benchmarks.speed.report import as_markdown, make_report, print_report
from tests.benchmarks.speed.server import Cores, ServerFailed

WIDTH = 240  # where there is no terminal
PARTS = {
    "one-row": parts.one_row,
    "access-log": parts.access_log,
    "bulk": parts.bulk,
    "v2": parts.infer,
    "latency": parts.latency,
    "mixed": parts.mixed,
    "start": parts.start,
    "memory": memory,
    "peers": peers,
}
SHORT = [name for name in PARTS if name not in ("memory", "peers")]


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    chosen = options.only.split(",") if options.only else list(PARTS) if options.all else SHORT
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    if missing := [command for command in ("wrk", "taskset") if shutil.which(command) is None]:
        package = {"wrk": "wrk", "taskset": "util-linux"}[missing[0]]
        print(
            f"the load comes from {missing[0]}, which is not installed: apt-get install {package}",
            file=sys.stderr,
        )
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server outlives the run
    began, busy = datetime.now(UTC), os.getloadavg()[0]
    try:
        bench = Bench(
            Cores(), options.rounds, options.seconds, options.model, options.work.absolute()
        )
        os.sched_setaffinity(0, {bench.cores.load})
        figures = [figure for name in chosen for figure in perform(name, PARTS[name], bench)]
    except ServerFailed as error:
        print(f"the benchmark cannot run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return _report(figures, options, began, busy)


def perform(name: str, part: Callable[[Bench], list[Figure]], bench: Bench) -> list[Figure]:
    """A part's figures, or why there are none: the other parts' are not lost with them."""
    try:
        return part(bench)
    except (ServerFailed, wrk.WrkFailed, subprocess.CalledProcessError, OSError) as error:
        print(f"{name} failed: {error}", file=sys.stderr)
        return [
            Figure(part=name, name=f"all of {name}", unit="", failure=str(error), ours_failed=True)
        ]


def _report(
    figures: list[Figure], options: argparse.Namespace, began: datetime, busy: float
) -> int:
    """1 where an answer was wrong or a part failed; a missed target and a peer that is missing are
    results.
    """
    report = make_report(
        figures,
        model=options.model.stem,
        rounds=options.rounds,
        leg_seconds=options.seconds,
        began=began,
        load_average=busy,
        wrk=wrk.version(),
    )
    options.output.mkdir(parents=True, exist_ok=True)
    write_atomically(
        options.output / "speed.json",
        msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n",
    )
    write_atomically(options.output / "speed.md", as_markdown(report).encode())
    console = Console()
    print_report(report, console if console.is_terminal else Console(width=WIDTH))
    return 1 if any(figure.wrong or figure.ours_failed for figure in figures) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.speed", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    work = ROOT / "build" / "speed"
    add("--only", metavar="PARTS", help=f"by comma: {', '.join(PARTS)} ({', '.join(SHORT)})")
    add("--all", action="store_true", help="every part: memory and peers too")
    add("--rounds", type=int, default=5, metavar="N", help="of every leg, interleaved (5)")
    add("--seconds", type=int, default=1, metavar="N", help="of a leg (1)")
    add(
        "--model",
        type=Path,
        default=Path(__file__).with_name("model.toml"),
        metavar="FILE.toml",
        help="what is served",
    )
    add(
        "--work",
        type=Path,
        default=work,
        metavar="FOLDER",
        help="models, logs, environments (build/speed)",
    )
    add(
        "--output",
        type=Path,
        default=work,
        metavar="FOLDER",
        help="where speed.json and speed.md go (build/speed)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
