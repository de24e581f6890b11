"""Many jobs: in parallel processes of one thread each, under a time limit, and not again what was
done before.
"""

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from time import perf_counter

import msgspec

from hourglass.service.serving.disk import write_atomically
from tests import environment
from tests.benchmarks.adbench.outcome import Baseline, Hourglass, Job, Outcome, Question
from tests.benchmarks.adbench.protocol import read_set, split
from tests.benchmarks.machine import ROOT, machine, revision

ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "POLARS_MAX_THREADS",
    ),
    "1",
)
BASELINES = ROOT / "build" / "adbench-env"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
OVERHEAD_ROWS = (
    1000  # of a fit, what does not grow with the rows, in rows; for the estimate of the time left
)


def plan(
    sets: Iterable[Path],
    detectors: dict[str, Hourglass | Baseline],
    seeds: Iterable[int],
    question: Question = "quality",
    hidden_in_training: Sequence[float] = (0.0,),
) -> list[Job]:
    """Seed by seed and small sets first, so that a run that is cut short has whole tables."""
    by_size = sorted(sets, key=_cells)
    return [
        Job(
            path=str(path.resolve()),
            seed=seed,
            name=name,
            detector=detector,
            question=question,
            hidden_in_training=hidden,
        )
        for seed in seeds
        for path in by_size
        for name, detector in detectors.items()
        for hidden in hidden_in_training
    ]


def outcome_path(output: Path, job: Job) -> Path:
    return output / job.set / job.file


def run(
    jobs: list[Job],
    output: Path,
    *,
    parallel: int,
    time_limit: float,
    again: str | None = None,
    tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> None:
    """Do what has no outcome in the output folder yet; `again` is "failed" or "all" to do it once
    more.
    """
    waiting = [job for job in jobs if not _done(outcome_path(output, job), again)]
    if len(waiting) < len(jobs):
        tell(f"{len(jobs) - len(waiting)} of {len(jobs)} are there already")
    workplace, progress = Workplace(waiting, time_limit), _Progress(waiting, parallel)
    with ThreadPoolExecutor(parallel) as pool:
        try:
            for done in as_completed(
                [pool.submit(_finish, workplace, job, output) for job in waiting]
            ):
                tell(progress.line(*done.result()))
        except BaseException:  # Ctrl-C, mostly
            pool.shutdown(wait=False, cancel_futures=True)
            workplace.close()
            raise


class Workplace:
    """Where jobs run: knows the interpreter of each kind of detector, and ends what is still
    running when it closes.
    """

    def __init__(self, jobs: Iterable[Job], time_limit: float) -> None:
        self._time_limit = time_limit
        self._baselines: Path | str | None = None  # their interpreter, or why there is none
        if any(isinstance(job.detector, Baseline) for job in jobs):
            try:
                self._baselines = environment.ensure(BASELINES, REQUIREMENTS, "the baselines'")
            except environment.EnvironmentFailed as error:
                self._baselines = str(error)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False
        self._lock = threading.Lock()
        self._machine, self._revision = machine(), revision()

    def perform(self, job: Job) -> Outcome:
        """The outcome, whatever happens to the process."""
        if isinstance(job.detector, Hourglass):
            outcome = self._in_process(job, sys.executable)
        elif isinstance(self._baselines, Path):
            outcome = self._in_process(job, str(self._baselines))
        else:
            outcome = _failed(job, self._baselines or "the baselines' environment was not made")
        return msgspec.structs.replace(outcome, machine=self._machine, revision=self._revision)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for process in self._running:
                process.kill()

    def _in_process(self, job: Job, interpreter: str) -> Outcome:
        command = [interpreter, "-m", "tests.benchmarks.adbench.job"]
        environ = {**os.environ, **ONE_THREAD, "ORT_DISABLE_TELEMETRY": "1"}
        with self._lock:
            if self._closed:
                raise KeyboardInterrupt
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the run, which then ends its jobs
            )
            self._running.add(process)
        try:
            answer, said = process.communicate(msgspec.json.encode(job), timeout=self._time_limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return _failed(job, f"killed: not done within {self._time_limit:g} s")
        finally:
            with self._lock:
                self._running.discard(process)
        if self._closed:
            raise KeyboardInterrupt
        if process.returncode:
            last = said.decode(errors="replace").strip().rpartition("\n")[2]
            return _failed(
                job,
                f"the process ended with status {process.returncode}:"
                f" {last[:300] or 'it said nothing'}",
            )
        return msgspec.json.decode(answer, type=Outcome)


def _finish(workplace: Workplace, job: Job, output: Path) -> tuple[Job, Outcome, float]:
    started = perf_counter()
    outcome = workplace.perform(job)
    path = outcome_path(output, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.format(msgspec.json.encode(outcome), indent=1) + b"\n")
    return job, outcome, perf_counter() - started


def _done(path: Path, again: str | None) -> bool:
    if again == "all" or not path.exists():
        return False
    return again != "failed" or msgspec.json.decode(path.read_bytes(), type=Outcome).failure is None


def _failed(job: Job, reason: str) -> Outcome:
    baseline = isinstance(job.detector, Baseline)
    return Outcome(
        set=job.set,
        seed=job.seed,
        detector=job.name,
        baseline=baseline,
        hidden_in_training=job.hidden_in_training,
        failure=reason,
    )


@functools.cache
def _fit_rows(path: str) -> int:
    return len(split(*read_set(Path(path)), seed=0).fit_ND)


@functools.cache
def _cells(path: Path) -> int:
    return split(*read_set(path), seed=0).fit_ND.size


class _Progress:
    """A line a job, with the time left."""

    def __init__(self, jobs: list[Job], parallel: int) -> None:
        self._total, self._done = len(jobs), 0
        self._left, self._spent, self._seconds = sum(map(self._weight, jobs)), 0, 0.0
        self._parallel = parallel

    def line(self, job: Job, outcome: Outcome, seconds: float) -> str:
        self._done += 1
        self._left -= self._weight(job)
        self._spent += self._weight(job)
        self._seconds += seconds
        minutes = self._left * self._seconds / self._spent / self._parallel / 60
        if outcome.measured:
            said = (
                f"AUROC {outcome.measured.auroc:.3f}  AP {outcome.measured.average_precision:.3f}"
            )
        else:
            said = f"FAILED, {outcome.failure}"
        count = f"[{self._done:>{len(str(self._total))}}/{self._total}]"
        hidden = (
            f", {job.hidden_in_training:.0%} of the fit cells missing"
            if job.hidden_in_training
            else ""
        )
        return (
            f"{count} {job.set} seed {job.seed} {job.name}{hidden}: {said}  {seconds:.1f} s;"
            f" {minutes:.0f} min left"
        )

    def _weight(self, job: Job) -> int:
        return OVERHEAD_ROWS + _fit_rows(job.path)
