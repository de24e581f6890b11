"""`python -m tests.benchmarks.gate FOLDER --half judge --seeds 0 1 2`: measure, then report."""

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import msgspec

from tests.benchmarks.gate.case import Outcome, measure
from tests.benchmarks.gate.spoiling import WAYS
from tests.benchmarks.gate.table import as_markdown, lines

Case = tuple[Path, int]  # a set, and a seed

# every other one, as ADBench numbers them, of those with 900 normal rows and 100 columns at most
TUNED = ("1_ALOI", "5_campaign", "10_cover", "20_letter", "24_mnist", "30_satellite", "40_vowels",
         "47_yeast")  # fmt: skip
JUDGED = ("2_annthyroid", "6_cardio", "12_fault", "23_mammography", "26_optdigits", "35_SpamBase",
          "44_Wilt")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / f"{options.half}.jsonl"
    sets = options.sets or (TUNED if options.half == "tune" else JUDGED)
    cases = [(options.folder / f"{name}.npz", seed) for seed in options.seeds for name in sets]
    if not options.report:
        ask = partial(measure, ways=options.ways, force=options.force)
        for (path, seed), found in perform(ask, cases, options.jobs):
            with file.open("ab") as written:
                for each in found:
                    written.write(msgspec.json.encode(each) + b"\n")
            print(f"{path.stem} {seed}", file=sys.stderr, flush=True)
    outcomes = [msgspec.json.decode(line, type=Outcome) for line in file.read_bytes().splitlines()]
    table = as_markdown(lines(outcomes))
    (options.output / f"{options.half}.md").write_text(table)
    print(table)
    return 0


def perform(
    ask: Callable[[Path, int], list[Outcome]], cases: Sequence[Case], jobs: int
) -> Iterator[tuple[Case, list[Outcome]]]:
    """What comes of each case, as it is there."""
    if jobs == 1:
        yield from ((case, ask(*case)) for case in cases)
        return
    # spawned: polars' threads are not in a fork, which would wait for them for ever
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(ask, *case): case for case in cases}
        for future in as_completed(futures):
            yield futures[future], future.result()


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gate", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="ADBench's npz files")
    add("--half", choices=("tune", "judge"), default="judge")
    add("--sets", nargs="+", metavar="SET", help="in place of a half's")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    add("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    add("--force", action="store_true", help="fit what the gate refuses, too")
    add("--jobs", type=int, default=1, metavar="N")
    add("--output", type=Path, default=Path("build/gate"), metavar="FOLDER")
    add("--report", action="store_true", help="of what was measured before")
    return parser


if __name__ == "__main__":
    sys.exit(main())
