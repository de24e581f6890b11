"""One detector on one series: measured once, and kept as a line of JSON."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import process_time

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from hourglass.training.evaluate_ordered import Answers
from tests.benchmarks.machine import machine, revision
from tests.benchmarks.series import product
from tests.benchmarks.series.baselines import BASELINES
from tests.benchmarks.series.figures import Figures, figures
from tests.benchmarks.series.files import Source

DETECTORS = (*product.PRODUCTS, *BASELINES)
FILE = "outcomes.jsonl"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Figures by the names of the tests, or why there are none."""

    series: str
    family: str
    detector: str
    tests: dict[str, Figures] = {}
    failure: str | None = None
    cpu_seconds: float = 0.0  # of fitting
    revision: str | None = None
    machine: str | None = None


def measure_all(
    sources: Sequence[Source], detectors: Sequence[str], output: Path
) -> Iterator[Outcome]:
    """What has no line in the output folder yet, and what failed, each kept as soon as it is done;
    one thread.
    """
    done = {(each.series, each.detector) for each in read_outcomes(output) if each.failure is None}
    output.mkdir(parents=True, exist_ok=True)
    at, on = revision(), machine()
    for detector in detectors:
        for source in sources:
            if (source.name, detector) in done:
                continue
            outcome = msgspec.structs.replace(measure(source, detector), revision=at, machine=on)
            with (output / FILE).open("ab") as file:
                # a line of its own even after one that a kill cut off
                file.write(b"\n" + msgspec.json.encode(outcome))
                file.flush()
                os.fsync(file.fileno())
            yield outcome


def measure(source: Source, detector: str) -> Outcome:
    started, found, failure, seconds = process_time(), {}, None, 0.0
    try:
        with threadpool_limits(1):
            series = source.read()
            if detector in BASELINES:
                baseline = BASELINES[detector]
                table, score = baseline.fit(series)
                window, n = baseline.window, table.n

                def answer(rows_ND: np.ndarray) -> Answers:
                    score_N = score(rows_ND).astype(np.float32)
                    p_value_N, severity_N = table.p_value(score_N), table.severities(score_N)
                    return Answers(score_N, p_value_N, severity_N, np.zeros(len(score_N), bool))

            else:
                served, answer = product.fit(series, *product.PRODUCTS[detector])
                window, n = served.window, served.table.n
            seconds = process_time() - started
            found = {
                test.name: figures(answer(test.rows_ND), test, window=window, calibration_rows=n)
                for test in series.tests
            }
    except Exception as error:  # whatever a detector raises is a result, and it is told
        failure = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return Outcome(
        series=source.name,
        family=source.family,
        detector=detector,
        tests=found,
        failure=failure,
        cpu_seconds=round(seconds, 2),
    )


def read_outcomes(output: Path) -> list[Outcome]:
    """The last line of each series and detector; a line that was cut off counts as none."""
    outcomes: dict[tuple[str, str], Outcome] = {}
    path = output / FILE
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            outcome = msgspec.json.decode(line, type=Outcome)
        except msgspec.DecodeError:
            continue
        outcomes[outcome.series, outcome.detector] = outcome
    return list(outcomes.values())
