"""`python -m tests.benchmarks.adbench FOLDER --detectors ... --seeds ... --output ...`: measure,
then report.
"""

import argparse
import signal
import sys
from pathlib import Path

import msgspec
from rich.console import Console

from hourglass.service.serving.disk import write_atomically
from tests.benchmarks.adbench import missing, schedule, speed
from tests.benchmarks.adbench.detectors import GROUPS, OURS, choose
from tests.benchmarks.adbench.missing_table import make_missing_table, missing_grids
from tests.benchmarks.adbench.outcome import Baseline, Outcome, Question
from tests.benchmarks.adbench.protocol import find_sets
from tests.benchmarks.adbench.report import (
    Grid,
    as_markdown,
    failure_notes,
    origin_note,
    print_grids,
    table_grids,
    table_notes,
)
from tests.benchmarks.adbench.speed_table import speed_grids
from tests.benchmarks.adbench.table import (
    REFERENCE,
    failed,
    make_table,
    read_outcomes,
    read_reference,
)

WIDTH = 400  # where there is no terminal, lines are as long as they need to be


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    question: Question = "speed" if options.speed else "missing" if options.missing else "quality"
    try:
        detectors = choose(options.detectors or "ours")
        seeds = _seeds(options.seeds)
        if question == "missing" and (
            others := [name for name, it in detectors.items() if isinstance(it, Baseline)]
        ):
            raise ValueError(
                f"--missing is for detectors of ours, which take missing cells; {others[0]}"
                " does not"
            )
    except ValueError as error:
        parser.error(str(error))
    output = options.output if question == "quality" else options.output / question
    sets = _sets(options, question, output)
    if not options.report:
        if not sets:
            parser.error(
                "expected a folder with npz files"
                if options.folder is None
                else f"no set in {options.folder}"
            )
        hidden = (0.0, *missing.SHARES) if options.missing == "training" else (0.0,)
        jobs = schedule.plan(sets, detectors, seeds, question, hidden)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no job outlives the run
        try:
            schedule.run(
                jobs,
                output,
                parallel=options.jobs,
                time_limit=options.time_limit,
                again=options.again,
            )
        except KeyboardInterrupt:
            print("interrupted; what is done is kept, the same command goes on", file=sys.stderr)
            return 130
    outcomes = [
        outcome
        for outcome in read_outcomes(output)
        if (not options.detectors or outcome.detector in detectors)
        and (not sets or outcome.set in {path.stem for path in sets})
        and (not options.seeds or outcome.seed in seeds)
    ]
    if not outcomes:
        print(f"there is no outcome in {output} yet", file=sys.stderr)
        return 1
    if question == "quality":
        _report_quality(outcomes, options)
    elif question == "missing":
        rows = make_missing_table(outcomes)
        _write(output, rows, missing_grids(rows), _notes(outcomes))
    else:
        _write(output, outcomes, speed_grids(outcomes), _notes(outcomes))
    return 0


def _sets(options: argparse.Namespace, question: Question, output: Path) -> list[Path]:
    """Those asked for, of the folder or made up."""
    there = find_sets(options.folder) if options.folder else []
    if question == "speed":
        there = speed.write_sets(output / "made-up")
    if options.sets:
        return [path for path in there if path.stem in options.sets.split(",")]
    return missing.choose_sets(there) if question == "missing" else there


def _report_quality(outcomes: list[Outcome], options: argparse.Namespace) -> None:
    if options.reference:
        outcomes += _of_the_same_sets(read_reference(options.reference), outcomes)
    against = options.against.split(",") if options.against else None
    if against is not None and options.reference:
        against += [
            outcome.detector for outcome in outcomes if outcome.detector.startswith(REFERENCE)
        ]
    table = make_table(outcomes, against)
    if against is None and not table.duels:
        table = make_table(outcomes, list(OURS))  # ours alone: against each other
    _write(options.output, table, table_grids(table), table_notes(table))


def _write(output: Path, table: object, grids: list[Grid], notes: list[str]) -> None:
    """As JSON and Markdown into the folder, and for whoever looks on."""
    write_atomically(
        output / "table.json", msgspec.json.format(msgspec.json.encode(table), indent=1) + b"\n"
    )
    write_atomically(output / "table.md", as_markdown(grids, notes).encode())
    console = Console()
    print_grids(grids, notes, console if console.is_terminal else Console(width=WIDTH))


def _notes(outcomes: list[Outcome]) -> list[str]:
    """Where the figures are from, and what failed."""
    return [origin_note(make_table(outcomes)), *failure_notes(failed(outcomes))]


def _of_the_same_sets(reference: list[Outcome], outcomes: list[Outcome]) -> list[Outcome]:
    sets = {outcome.set for outcome in outcomes}
    return [outcome for outcome in reference if outcome.set in sets]


def _seeds(text: str | None) -> list[int]:
    """`0-4`, `0,2,7` or `3`."""
    seeds: list[int] = []
    for part in (text or "0").split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"--seeds: expected numbers such as 0-4 or 0,2, got {text!r}")
        seeds += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(seeds))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.adbench", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "folder",
        nargs="?",
        type=Path,
        metavar="FOLDER",
        help="npz files with X [rows, features] and y [rows]",
    )
    add(
        "--detectors",
        metavar="NAMES",
        help=f"by comma: names, {', '.join(GROUPS)}, files of type .toml (ours)",
    )
    add("--sets", metavar="NAMES", help="by comma, without .npz (all)")
    add("--seeds", metavar="SEEDS", help="0-4 or 0,2,7 (0; in a report all that are there)")
    add("--jobs", type=int, default=1, metavar="N", help="processes at a time, one thread each (1)")
    add(
        "--time-limit",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="of one job: fit, publish, test (600)",
    )
    add(
        "--output",
        type=Path,
        default=Path("build/adbench"),
        metavar="FOLDER",
        help="outcomes and table (build/adbench)",
    )
    again = "do again what has an outcome: the failed, or all"
    add("--again", nargs="?", const="all", choices=("failed", "all"), help=again)
    hidden = (
        "what missing cells do to ours, on eight sets; `training`: also after fitting rows that"
        " lack as many"
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument(
        "--missing", nargs="?", const="test", choices=("test", "training"), help=hidden
    )
    speeds = "costs on made-up rows of 32 and 50 features; needs no folder"
    other.add_argument("--speed", action="store_true", help=speeds)
    add("--report", action="store_true", help="measure nothing, report what the output folder has")
    add(
        "--against",
        metavar="NAMES",
        help="whom to compare with (every baseline; without one, ours with each other)",
    )
    add(
        "--reference",
        type=Path,
        metavar="FILE.csv",
        help="known figures of seed 0: columns set, model, auroc, auprc",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
