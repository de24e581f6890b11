"""Many cases, in parallel processes, each kept as a line of JSON, and not again what was done
before.
"""

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from time import process_time

import msgspec
from threadpoolctl import threadpool_limits

from tests.benchmarks.machine import machine, revision
from tests.benchmarks.trust import product
from tests.benchmarks.trust.product import Fit
from tests.benchmarks.trust.protocol import Case, Outcome, Skipped
from tests.benchmarks.trust.protocols import PROTOCOLS


def perform(case: Case, fit: Fit = product.fit) -> Outcome:
    """The figures of a case, or why there are none in a sentence."""
    started, figures, skipped, failure = process_time(), {}, None, None
    try:
        with threadpool_limits(1):
            figures = dict(PROTOCOLS[case.protocol].measure(case, fit))
    except Skipped as reason:
        skipped = str(reason)
    except Exception as error:  # whatever the product raises is a result, and it is told
        failure = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return Outcome(
        protocol=case.protocol,
        set=case.set,
        seed=case.seed,
        figures=figures,
        skipped=skipped,
        failure=failure,
        cpu_seconds=round(process_time() - started, 2),
    )


def run(cases: Sequence[Case], output: Path, *, jobs: int, fit: Fit = product.fit) -> None:
    """Do what has no line in the output folder yet; a case that failed is done again."""
    done = {
        (outcome.protocol, outcome.set, outcome.seed)
        for outcome in read_outcomes(output)
        if outcome.failure is None
    }
    waiting = [case for case in cases if (case.protocol, case.set, case.seed) not in done]
    if len(waiting) < len(cases):
        _tell(f"{len(cases) - len(waiting)} of {len(cases)} are there already")
    output.mkdir(parents=True, exist_ok=True)
    at, on = revision(), machine()
    for number, outcome in enumerate(_perform(waiting, jobs, fit), 1):
        whole = msgspec.structs.replace(outcome, revision=at, machine=on)
        with (output / f"{outcome.protocol}.jsonl").open("ab") as file:
            # a line of its own even after one that a kill cut off
            file.write(b"\n" + msgspec.json.encode(whole))
        said = outcome.failure or outcome.skipped or f"{outcome.cpu_seconds:.1f} s of CPU"
        _tell(
            f"[{number}/{len(waiting)}] {outcome.protocol} {outcome.set} seed {outcome.seed}: {said}"
        )


def read_outcomes(output: Path) -> list[Outcome]:
    """The last line of each case; a line that was cut off, as by a kill, counts as none."""
    outcomes: dict[tuple[str, str, int], Outcome] = {}
    for path in sorted(output.glob("*.jsonl")):
        for line in path.read_bytes().split(b"\n"):
            try:
                outcome = msgspec.json.decode(line, type=Outcome)
            except msgspec.DecodeError:
                continue
            outcomes[outcome.protocol, outcome.set, outcome.seed] = outcome
    return list(outcomes.values())


def _perform(cases: Sequence[Case], jobs: int, fit: Fit) -> Iterator[Outcome]:
    if jobs == 1:
        yield from (perform(case, fit) for case in cases)
        return
    # spawned, since torch's threads do not outlive a fork
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        try:
            for done in as_completed([pool.submit(perform, case, fit) for case in cases]):
                yield done.result()
        except BaseException:  # Ctrl-C, mostly
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
