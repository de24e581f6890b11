"""Work: the trainings that clients of the retired Azure service asked the service for, one after
the other.

The service writes jobs into the folder of models, and any number of workers take them from there:
serving/jobs.py. A job ends READY, with its model in service, or FAILED with what was wrong; the job
of a worker that died is another's.
"""

import logging
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from hourglass.service.errors import HourglassError, InvalidTable, UnknownModel
from hourglass.service.model.detector import Detector
from hourglass.service.rows.aligned import (
    MOST_TIMES,
    Float32,
    Joined,
    TooFewRows,
    join,
    require_observed,
)
from hourglass.service.serving.jobs import (
    Claim,
    EpochState,
    Failure,
    Job,
    Jobs,
    Pair,
    Pairs,
    failure_of,
)
from hourglass.service.serving.sources import TIME, read_series
from hourglass.service.serving.store import Store
from hourglass.training.config import load_config
from hourglass.training.errors import RunError
from hourglass.training.progress import SILENT, Epoch, Progress
from hourglass.training.run import run

TOGETHER = 0.6  # correlation of variables that are said to go together
MOST_PAIRS = 20_000  # the strongest
SHARE_HELD_OUT = 0.03  # of the rows, the newest: these calibrate, however many blocks there are
TOLD_SECONDS = 2.0  # between epochs that are told of
_logger = logging.getLogger(__name__)


Watch = Callable[[str], AbstractContextManager[Progress]]


class Done(NamedTuple):
    """What came of a job."""

    job: Job
    seconds: float


def silent(_: str) -> AbstractContextManager[Progress]:
    """A watch that shows nothing."""
    return nullcontext(SILENT)


def work(models: Path, flags: dict[str, Any], watch: Watch = silent) -> Done | None:
    """Train the oldest job that waits; None where there is none. What is wrong with a job's data
    ends the job, and not the worker.

    `flags` are of the run, as load_config takes them; `watch` shows a job's progress by its title.
    """
    jobs = Jobs(models)
    claim = jobs.claim()
    if claim is None:
        return None
    started = perf_counter()
    with ExitStack() as held:
        held.callback(claim.release)
        try:
            with watch(claim.job.request.display_name or claim.job.id) as progress:
                job = _train(jobs, claim.job, models, flags, progress)
        except UnknownModel:  # deleted meanwhile
            shutil.rmtree(models / claim.job.id, ignore_errors=True)
            job = claim.job
        except (RunError, HourglassError, OSError, MemoryError) as error:
            job = _end(jobs, claim.job, _failure_of(error))
        except Exception as error:
            _logger.exception("the training of model %s failed", claim.job.id)
            text = f"{type(error).__name__}; the worker's log says more"
            job = _end(jobs, claim.job, Failure("InternalError", text))
        except BaseException:  # told to stop: the job is as it was, and another's
            _put_back(jobs, claim)
            raise
    return Done(job, perf_counter() - started)


def _train(jobs: Jobs, job: Job, models: Path, flags: dict[str, Any], progress: Progress) -> Job:
    request = job.request
    progress.stage("reading the data")
    series = read_series(request.source, job.roots, is_multi_table=request.is_multi_table)
    rows = join(series, request.align_mode, start=request.start, end=request.end)
    if not len(rows.time_N):
        raise TooFewRows("there are no rows from startTime to endTime")
    states = rows.states()
    jobs.update(job.id, variables=states)
    require_observed(states)
    rows_ND = rows.filled(request.fill_method, request.padding)
    jobs.keep_pairs(job.id, pairs_of(rows.variables, rows_ND))
    epochs = _Epochs(jobs, job.id, progress)
    with tempfile.TemporaryDirectory(prefix="hourglass-work-") as folder:
        data = _write(Path(folder) / "rows.parquet", rows, rows_ND)
        report = run(_config(job, models, data, rows, flags), epochs.progress)
    if not epochs.seen:
        epochs.seen.append(_single(models, job.id, rows_ND, report.seconds))
    return jobs.update(job.id, status="READY", errors=(), epochs=tuple(epochs.seen))


def _config(job: Job, models: Path, data: Path, rows: Joined, flags: dict[str, Any]) -> Any:
    """A run on all of the variables, whatever they look like, whose windows are of rows that follow
    each other, whatever time is between them, as the retired service's were.
    """
    return load_config(
        None,
        {
            "data": str(data),
            "name": job.id,
            "models": str(models),
            "time": TIME,
            "window": job.request.window,
            "gap": float(rows.time_N[-1] - rows.time_N[0]) + 1.0,
            "keep": rows.variables,
            "max_rows": MOST_TIMES,
            "force": True,  # of a job that is taken again: nobody is served by it yet
            **flags,
        },
    )


def pairs_of(variables: tuple[str, ...], rows_ND: Float32) -> Pairs:
    """Which variables go together in these rows."""
    values_ND = rows_ND.astype(np.float64)
    seen_ND = ~np.isnan(values_ND)
    count_D = np.maximum(seen_ND.sum(axis=0), 1)
    filled_ND = np.where(seen_ND, values_ND, 0.0)
    mean_D = filled_ND.sum(axis=0) / count_D
    off_ND = np.where(seen_ND, values_ND - mean_D, 0.0)
    sd_D = np.sqrt(np.square(off_ND).sum(axis=0) / count_D)
    sd_D = np.where(sd_D > 1e-9 * np.maximum(np.abs(mean_D), 1e-30), sd_D, np.inf)  # of constants
    z_ND = off_ND / sd_D
    together_DD = z_ND.T @ z_ND / np.maximum(seen_ND.T.astype(np.float64) @ seen_ND, 1)
    found = []
    for a, b in np.argwhere(np.triu(np.abs(together_DD) >= TOGETHER, 1)).tolist():
        # two that are one have no distance between them to be broken
        correlation = float(np.clip(together_DD[a, b], -0.9999, 0.9999))
        found.append(Pair(a, b, correlation))
    found.sort(key=lambda pair: -abs(pair.correlation))
    sd = np.where(np.isfinite(sd_D), sd_D, 1.0)
    return Pairs(
        variables=variables,
        mean=tuple(mean_D.tolist()),
        sd=tuple(sd.tolist()),
        pairs=tuple(found[:MOST_PAIRS]),
    )


class _Epochs:
    """A progress that writes epochs into the job, now and then, and passes everything on. A job
    that was deleted ends the run by UnknownModel.
    """

    def __init__(self, jobs: Jobs, identifier: str, progress: Progress) -> None:
        self._jobs, self._id = jobs, identifier
        self.seen: list[EpochState] = []
        self._progress = progress
        self._last, self._told = perf_counter(), perf_counter()
        self.progress = Progress(self._stage, self._epoch)

    def _stage(self, stage: str) -> None:
        self._jobs.get(self._id)
        self._progress.stage(stage)

    def _epoch(self, epoch: Epoch) -> None:
        now = perf_counter()
        number = len(self.seen) + 1  # of several networks one after the other
        self.seen.append(EpochState(number, epoch.loss, epoch.held_out_loss, now - self._last))
        self._last = now
        if now - self._told >= TOLD_SECONDS:
            self._told = now
            self._jobs.update(self._id, epochs=tuple(self.seen))
        self._progress.epoch(epoch)


def _single(models: Path, name: str, rows_ND: Float32, seconds: float) -> EpochState:
    """Of closed forms, which have no epochs, one: the mean scores of the rows, and of the newest
    ones, which were held out.
    """
    folder = Store(models).model(name)
    detector = Detector.from_bytes(folder.file(folder.current()).read_bytes())
    score_M = detector.score(rows_ND).score.astype(np.float64)
    held_out = max(1, round(SHARE_HELD_OUT * len(score_M)))
    loss, held_out_loss = (
        float(np.nan_to_num(each).mean()) for each in (score_M[:-held_out], score_M[-held_out:])
    )
    return EpochState(1, loss, held_out_loss, seconds)


def _write(path: Path, rows: Joined, rows_ND: Float32) -> Path:
    """The rows as a run reads them: times in seconds, numbers, and null where one is missing."""
    columns = [pl.Series(TIME, (rows.time_N * 1e6).round().astype("datetime64[us]"))]
    for variable, column_N in zip(rows.variables, rows_ND.T, strict=True):
        if variable == TIME:
            raise InvalidTable(f"a variable cannot be named {TIME!r}: the times of rows are")
        columns.append(pl.Series(variable, np.ascontiguousarray(column_N)).fill_nan(None))
    pl.DataFrame(columns).write_parquet(path)
    return path


def _failure_of(error: Exception) -> Failure:
    if isinstance(error, MemoryError):
        return Failure("OutOfMemory", "there is not enough memory for so many rows and variables")
    if isinstance(error, OSError):
        return Failure("InternalError", f"the worker: {error.strerror or error}")
    if isinstance(error, InvalidTable):
        return failure_of(error)
    return Failure("TrainingFailed", str(error).replace("--window", "slidingWindow"))


def _end(jobs: Jobs, job: Job, failure: Failure) -> Job:
    try:
        return jobs.update(job.id, status="FAILED", errors=(failure,))
    except UnknownModel:
        return job


def _put_back(jobs: Jobs, claim: Claim) -> None:
    with suppress(UnknownModel):
        jobs.update(claim.job.id, status="CREATED", attempts=claim.job.attempts - 1)


def work_on(
    models: Path,
    flags: dict[str, Any],
    *,
    once: bool,
    every_seconds: float,
    tell: Callable[[Done], None],
    wait: Callable[[float], object],
    watch: Watch = silent,
) -> None:
    """Train the jobs that wait, and then those that come, which are looked for `every_seconds`; or
    end with the last one that waits, where it is to be done `once`.
    """
    while True:
        done = work(models, flags, watch)
        if done is not None:
            tell(done)
        elif once:
            return
        else:
            wait(every_seconds)
