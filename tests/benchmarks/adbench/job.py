"""One job in a process of its own: a Job comes in on standard input, an Outcome goes out on
standard output.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.adbench import missing, speed
from tests.benchmarks.adbench.outcome import Baseline, Fitted, Job, Measured, Outcome
from tests.benchmarks.adbench.protocol import Float32, Rows, read_set, split
from tests.benchmarks.adbench.quality import BULK, judge, score_rows, share_above

CALLS = 100  # timed calls of a detector, or
CALL_SECONDS = 1.0  # what fits into this, but
FEWEST_CALLS = 5


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    answer = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no part of the answer
    with os.fdopen(answer, "wb") as out:
        out.write(msgspec.json.encode(perform(job)))


def perform(job: Job) -> Outcome:
    """The figures of a job, or why it failed in a sentence."""
    measured = failure = None
    try:
        rows = split(*read_set(Path(job.path)), job.seed)
        if job.hidden_in_training:
            rows = rows._replace(
                fit_ND=missing.hide(
                    rows.fit_ND, job.hidden_in_training, (job.seed, missing.OF_FIT_ROWS)
                )
            )
        fitted = _fit(job, rows.fit_ND)
        measured = measure(fitted, rows)
        if job.question == "missing":
            measured = msgspec.structs.replace(measured, missing=missing.measure(fitted, rows, job))
        elif job.question == "speed":
            measured = msgspec.structs.replace(
                measured, bulk_rows_per_second=speed.rows_per_second(fitted, rows)
            )
    except (
        Exception
    ) as error:  # whatever a library raises is this detector's result, and it is told
        failure = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return Outcome(
        set=job.set,
        seed=job.seed,
        detector=job.name,
        baseline=isinstance(job.detector, Baseline),
        hidden_in_training=job.hidden_in_training,
        measured=measured,
        failure=failure,
    )


def measure(fitted: Fitted, rows: Rows) -> Measured:
    """Score the test rows and time the scoring; ValueError when a row has no score."""
    score_N = score_rows(fitted, rows.test_ND)
    if np.isnan(score_N).any():
        raise ValueError(f"{np.isnan(score_N).sum()} of {len(score_N)} test rows have no score")
    quality, threshold = judge(score_N, rows.anomalous_N), fitted.threshold
    bulk_ND = rows.test_ND[np.arange(BULK) % len(rows.test_ND)]
    return Measured(
        auroc=quality.auroc,
        average_precision=quality.average_precision,
        detection_rate=None
        if threshold is None
        else share_above(threshold, score_N[rows.anomalous_N]),
        false_alarm_rate=None
        if threshold is None
        else share_above(threshold, score_N[~rows.anomalous_N]),
        alpha=fitted.alpha,
        certified=fitted.certified,
        fit_seconds=fitted.fit_seconds,
        publish_seconds=fitted.publish_seconds,
        cpu_seconds=fitted.cpu_seconds,
        size_bytes=fitted.size_bytes,
        one_row_microseconds=_microseconds(fitted.score, bulk_ND[:1]),
        bulk_row_microseconds=_microseconds(fitted.score, bulk_ND) / BULK,
        fit_rows=len(rows.fit_ND),
        test_rows=len(rows.test_ND),
        anomalies=int(rows.anomalous_N.sum()),
        features=rows.fit_ND.shape[1],
        notes=fitted.notes,
    )


def _fit(job: Job, rows_ND: Float32) -> Fitted:
    # imported late: neither environment has the other's libraries
    if isinstance(job.detector, Baseline):
        from tests.benchmarks.adbench import baselines

        return baselines.fit(job.detector, rows_ND, job.seed)
    from tests.benchmarks.adbench import ours

    return ours.fit(job.detector, rows_ND, job.seed)


def _microseconds(score: Callable[[Float32], NDArray[np.floating]], rows_ND: Float32) -> float:
    """Median wall time of a call, the first two aside."""
    seconds: list[float] = []
    while len(seconds) < FEWEST_CALLS + 2 or (len(seconds) < CALLS and sum(seconds) < CALL_SECONDS):
        started = perf_counter()
        score(rows_ND)
        seconds.append(perf_counter() - started)
    return float(np.median(seconds[2:])) * 1e6


if __name__ == "__main__":
    main()
