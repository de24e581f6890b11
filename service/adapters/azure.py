"""Azure: what a model says of rows, in the words of the retired Azure service's multivariate API.

A row's severity is 0 where it does not alarm, and else 1 - 10^(t - s) of its severity s and the
threshold's t: the share of false alarms that would be milder. Its score is 1 - 10^-s: the share of
normal rows that are less strange, continued beyond those that calibrated as severity is.

Shapes: N rows, W of a window, D features, M judged rows, A alarms.
"""

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import InvalidSettings, InvalidTable, Overloaded
from hourglass.service.model.detector import Scores
from hourglass.service.model.served import Served
from hourglass.service.rows.aligned import (
    Joined,
    TooFewRows,
    VariableState,
    join,
    require_observed,
)
from hourglass.service.serving.jobs import (
    OPEN,
    Detections,
    Failure,
    Job,
    Jobs,
    Pairs,
    Status,
    failure_of,
)
from hourglass.service.serving.sources import read_series, require_allowed, roots_of

MOST_JUDGED = 100_000  # rows of one detection
MOST_WAITING = 100  # detections
BROKEN = 3.0  # standard deviations of what one of a pair lets expect of the other
SMALLEST = 1e-6  # severity of a row that alarms

_logger = logging.getLogger(__name__)
Json = dict[str, Any]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
# told of a run: rows [N + W - 1, D], their scores, the seconds that it took
Told = Callable[[Float32, Scores, float], None]


class Judged(NamedTuple):
    """A detection that is done."""

    results: list[Json]
    states: tuple[VariableState, ...]


class _Summary(msgspec.Struct, frozen=True):
    status: Status


class _Kept(msgspec.Struct, frozen=True):
    summary: _Summary


class Azure:
    """What the routes of the retired service's API work with."""

    def __init__(self, models: Path, roots: tuple[str, ...]) -> None:
        self.jobs, self.detections, self.roots = Jobs(models), Detections(models), roots
        # detections one after the other, so that they take scoring one processor at most
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="azure")
        self._lock, self._waiting = Lock(), 0  # detections that are not done

    def begin(self, setup: Json, judge: Callable[[], Judged]) -> tuple[str, bytes]:
        """Begin a detection that was set up so; its id, and what is said of it now. Overloaded
        where too many wait already.
        """
        with self._lock:
            if self._waiting >= MOST_WAITING:
                raise Overloaded(f"{self._waiting} detections wait already; later there is room")
            self._waiting += 1
        with ExitStack() as held:
            held.callback(self._make_room)
            identifier = held.enter_context(self.detections.begun())
            answer = _detection(identifier, setup, "CREATED")
            self.detections.keep(identifier, answer)
            at_work = held.pop_all()  # until it is done

        def work() -> None:
            with at_work:
                try:
                    self.detections.keep(identifier, _detection(identifier, setup, "RUNNING"))
                    self.detections.keep(identifier, _ended(identifier, setup, judge))
                except OSError as error:  # the disk is full, say: polling tells that it was lost
                    _logger.error("the detection %s was lost: %s", identifier, error)

        try:
            self._thread.submit(work)
        except RuntimeError as error:
            at_work.close()
            raise Overloaded("the service is about to end: ask again") from error
        return identifier, answer

    def _make_room(self) -> None:
        with self._lock:
            self._waiting -= 1

    def detection(self, identifier: str) -> bytes:
        """What is said of a detection now; UnknownDetection where there is none."""
        answer = self.detections.get(identifier)
        if not _is_open(answer) or self.detections.is_at_work(identifier):
            return answer
        answer = self.detections.get(identifier)  # it may have ended between the two
        if not _is_open(answer):
            return answer
        lost = Failure("ServiceRestarted", "the service ended meanwhile: ask for it again")
        setup = msgspec.json.decode(answer)["summary"]["setupInfo"]
        return _detection(identifier, setup, "FAILED", errors=[lost])

    def require_allowed(self, source: str) -> None:
        """InvalidTable where data may not come from there."""
        require_allowed(source, self.roots)

    def close(self) -> None:
        """End the thread once what it does is done; what waits is not begun."""
        self._thread.shutdown(cancel_futures=True)

    def detect(
        self, job: Job, served: Served, source: str, start: float, end: float, top: int, tell: Told
    ) -> Judged:
        """Judge the rows of a source from start to end; InvalidTable where they cannot be."""
        series = read_series(source, self.roots, is_multi_table=job.request.is_multi_table)
        window = served.detector.window
        rows = join(
            series,
            job.request.align_mode,
            start=start,
            end=end,
            before=window - 1,
            most=MOST_JUDGED,
        )
        asked = rows.between(start, end)
        if not len(asked.time_N):
            raise TooFewRows(f"there are no rows from {shown(start)} to {shown(end)}")
        states = asked.states()
        require_observed(states)
        if len(rows.time_N) < window:
            raise TooFewRows(
                f"a window has {window} rows, and the source holds {len(rows.time_N)} up to"
                f" {shown(end)}, {len(asked.time_N)} of them from {shown(start)} on"
            )
        results = self._judge(job, served, rows, top, tell)
        unjudged = len(asked.time_N) - len(results)
        before = [
            failed(
                time,
                "NotEnoughInput",
                f"a window has {window} rows, and {place + len(rows.time_N) - len(asked.time_N)}"
                " are before this one",
            )
            for place, time in enumerate(asked.time_N[:unjudged].tolist())
        ]
        return Judged(before + results, states)

    def detect_last(self, job: Job, served: Served, came: Joined, top: int, tell: Told) -> Judged:
        """Judge the last of the rows that came; TooFewRows where they hold no window."""
        window = served.detector.window
        if len(came.time_N) < window:
            raise TooFewRows(
                f"a window has {window} rows, and the variables have {len(came.time_N)}"
                f" {'timestamps together' if job.request.align_mode == 'Inner' else 'timestamps'}"
            )
        last = Joined(came.variables, came.time_N[-window:], came.value_ND[-window:])
        return Judged(self._judge(job, served, last, top, tell), last.states())

    def _judge(self, job: Job, served: Served, rows: Joined, top: int, tell: Told) -> list[Json]:
        """What is said of all rows that have a window's before them."""
        names = [feature.name for feature in served.schema.features]
        require_variables(rows.variables, names)
        places = [rows.variables.index(name) for name in names]
        request = job.request
        filled_ND = rows.filled(request.fill_method, request.padding)
        rows_ND = np.ascontiguousarray(filled_ND[:, places])
        if not np.isfinite(rows_ND[~np.isnan(rows_ND)]).all():
            raise InvalidTable("expected values that float32 can hold")
        window = served.detector.window
        started = perf_counter()
        scores = served.detector.score(rows_ND)
        seconds = perf_counter() - started
        few_M = ~served.schema.has_enough(rows_ND[window - 1 :])
        scores = Scores(*(np.where(few_M, np.float32(np.nan), each) for each in scores))
        tell(rows_ND, scores, seconds)
        alarm_A = np.flatnonzero(served.threshold.is_anomaly(scores.score))
        (least,) = served.detector.table.severities(
            np.array([served.threshold.score], np.float32)
        ).tolist()
        interpreted = dict(
            zip(
                alarm_A.tolist(),
                _interpret(self.jobs.pairs(job.id), served, rows_ND, alarm_A, names, top),
                strict=True,
            )
        )
        return [
            _result(time, severity, least, interpreted.get(place))
            for place, (time, severity) in enumerate(
                zip(rows.time_N[window - 1 :].tolist(), scores.severity.tolist(), strict=True)
            )
        ]


def azure_of(models: str | Path, data: str) -> Azure:
    """What --azure and --azure-data ask for; InvalidSettings where it cannot be had: jobs are files
    that several processes lock, for which a bucket is no place.
    """
    folder = str(models)
    if folder.startswith("file:///"):
        folder = unquote(urlsplit(folder).path)
    if "://" in folder:
        raise InvalidSettings(
            f"--azure keeps jobs beside the models: expected a folder of models, got {models}"
        )
    if not (roots := roots_of(data)):
        raise InvalidSettings(
            "--azure needs --azure-data: the places below which the data of its clients may lie"
        )
    if find_spec("polars") is None:
        raise InvalidSettings("--azure reads CSV by polars: pip install 'hourglass[files]'")
    return Azure(Path(folder), roots)


def _ended(identifier: str, setup: Json, judge: Callable[[], Judged]) -> bytes:
    """The answer of a detection that was done, or could not be."""
    try:
        results, states = judge()
    except InvalidTable as error:
        return _detection(identifier, setup, "FAILED", errors=[failure_of(error)])
    except Exception:
        _logger.exception("the detection %s failed", identifier)
        bug = Failure("InternalError", "the service's log says what it was")
        return _detection(identifier, setup, "FAILED", errors=[bug])
    return _detection(identifier, setup, "READY", states=states, results=results)


def _detection(
    identifier: str,
    setup: Json,
    status: Status,
    *,
    errors: Sequence[Failure] = (),
    states: Sequence[VariableState] = (),
    results: Sequence[Json] = (),
) -> bytes:
    summary = {
        "status": status,
        "errors": errors,
        "variableStates": states_of(states),
        "setupInfo": setup,
    }
    return msgspec.json.encode({"resultId": identifier, "summary": summary, "results": results})


def _is_open(answer: bytes) -> bool:
    return msgspec.json.decode(answer, type=_Kept).summary.status in OPEN


def require_variables(came: Sequence[str], names: Sequence[str]) -> None:
    """InvalidTable where a variable of the model is not among those that came, or another is."""
    absent = sorted(set(names) - set(came))
    if absent:
        raise InvalidTable(
            f"expected the variables that the model was trained on, got none named {absent[0]!r}"
            f" ({len(absent)} of {len(names)} absent)"
        )
    if others := sorted(set(came) - set(names)):
        raise InvalidTable(
            f"expected the {len(names)} variables that the model was trained on, got another named"
            f" {others[0][:80]!r}"
        )


def shown(seconds: float) -> str:
    """A time as the API writes it."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")[:26]
    return text.rstrip("0").rstrip(".") + "Z"


def states_of(states: Sequence[VariableState]) -> list[Json]:
    """What is said of the variables."""
    found = []
    for state in states:
        each: Json = {
            "variable": state.variable,
            "filledNARatio": state.filled_ratio,
            "effectiveCount": state.effective_count,
        }
        if state.first is not None and state.last is not None:
            each |= {"firstTimestamp": shown(state.first), "lastTimestamp": shown(state.last)}
        found.append(each)
    return found


def model_of(job: Job) -> Json:
    """A model as the API tells of it."""
    info: Json = {
        **job.asked,
        "status": job.status,
        "errors": [msgspec.to_builtins(each) for each in job.errors],
        "diagnosticsInfo": {
            "modelState": {
                "epochIds": [each.number for each in job.epochs],
                "trainLosses": [each.loss for each in job.epochs],
                "validationLosses": [each.held_out_loss for each in job.epochs],
                "latenciesInSeconds": [each.seconds for each in job.epochs],
            },
            "variableStates": states_of(job.variables),
        },
    }
    return {
        "modelId": job.id,
        "createdTime": shown(job.created),
        "lastUpdatedTime": shown(job.updated),
        "modelInfo": info,
    }


def failed(time: float, code: str, message: str) -> Json:
    """A row that is not judged."""
    return {"timestamp": shown(time), "errors": [{"code": code, "message": message}]}


def _result(time: float, severity: float, least: float, interpretation: list[Json] | None) -> Json:
    if math.isnan(severity):
        return failed(time, "TooManyMissingValues", "the row holds too few values to be judged")
    value: Json = {"isAnomaly": interpretation is not None, "severity": 0.0}
    if interpretation is not None:
        value["severity"] = max(1 - 10 ** (least - severity), SMALLEST)
    value["score"] = 1 - 10**-severity
    if interpretation is not None:
        value["interpretation"] = interpretation
    return {"timestamp": shown(time), "value": value, "errors": []}


def _interpret(
    pairs: Pairs | None,
    served: Served,
    rows_ND: Float32,
    alarm_A: NDArray[np.intp],
    names: Sequence[str],
    top: int,
) -> list[list[Json]]:
    """Of each row that alarms the variables that are blamed most, whose shares sum to 1, and those
    that it no longer goes together with.
    """
    window = served.detector.window
    found: list[list[Json]] = []
    # of a few at a time: the windows of many would be the rows many times over
    step = max(1, 2**22 // (window * rows_ND.shape[1]))
    for at in range(0, len(alarm_A), step):
        some_A = alarm_A[at : at + step]
        windows_AWD = np.stack([rows_ND[i : i + window] for i in some_A])
        blamed_AD = served.detector.explain_windows(windows_AWD).contributions
        for row_D, blamed_D in zip(windows_AWD[:, -1], blamed_AD, strict=True):
            most = np.argsort(-blamed_D, kind="stable")[:top]
            most = most[blamed_D[most] > 0]
            total = float(blamed_D[most].sum(dtype=np.float64)) or 1.0
            changes = changed_pairs(pairs, dict(zip(names, row_D.tolist(), strict=True)))
            found.append(
                [
                    {
                        "variable": names[i],
                        "contributionScore": float(blamed_D[i]) / total,
                        "correlationChanges": {"changedVariables": changes.get(names[i], [])[:top]},
                    }
                    for i in most.tolist()
                ]
            )
    return found


def changed_pairs(pairs: Pairs | None, row: dict[str, float]) -> dict[str, list[str]]:
    """Of each variable those that it no longer goes together with, the furthest off first: given
    either of the two, the other is more than BROKEN standard deviations from what it lets expect.
    """
    if pairs is None:
        return {}
    z = [
        (row.get(name, math.nan) - mean) / sd
        for name, mean, sd in zip(pairs.variables, pairs.mean, pairs.sd, strict=True)
    ]
    changes: dict[str, list[tuple[float, str]]] = {}
    for pair in pairs.pairs:
        left = math.sqrt(1 - pair.correlation**2)
        one, other = z[pair.first], z[pair.second]
        off = max(abs(one - pair.correlation * other), abs(other - pair.correlation * one)) / left
        if off > BROKEN:  # not of NaN
            a, b = pairs.variables[pair.first], pairs.variables[pair.second]
            changes.setdefault(a, []).append((-off, b))
            changes.setdefault(b, []).append((-off, a))
    return {name: [other for _, other in sorted(each)] for name, each in changes.items()}
