"""The multivariate API, v1.1, of the retired Azure Anomaly Detector, for the clients that speak it.

https://learn.microsoft.com/rest/api/anomalydetector/ describes it. A model is trained by
`hourglass-train work`, as a job of serving/jobs.py; its id is its name under /v1, too.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec
import numpy as np
from litestar import Request, Response, Router, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from hourglass.service.adapters.azure import Azure, Judged, Told, model_of, shown, states_of
from hourglass.service.api.body import BYTES_OF_A_CELL, read_packed_body
from hourglass.service.api.entrance import (
    CHANGES,
    NEEDS_ADMIN,
    NEEDS_READ,
    NEEDS_SCORE,
    OF_NO_MODEL,
)
from hourglass.service.api.parts import Parts
from hourglass.service.api.problems import AZURE, JSON
from hourglass.service.errors import InvalidBody, InvalidJSON, NotTrained, UnknownModel
from hourglass.service.model.detector import Scores
from hourglass.service.model.served import Served
from hourglass.service.rows import cells
from hourglass.service.rows.aligned import ALIGN_MODES, FILL_METHODS, Float32, Joined, Series, join
from hourglass.service.rows.decoding import Body
from hourglass.service.rows.tables import FLOAT32_MAX
from hourglass.service.rows.times import has_name, parse_time
from hourglass.service.serving.jobs import MOST_JOBS, Job, TrainRequest
from hourglass.service.serving.sources import MOST_VARIABLES

PREFIX = f"{AZURE}v1.1/multivariate"
LEAST_WINDOW, MOST_WINDOW, DEFAULT_WINDOW = 28, 2880, 300  # rows
MOST_NAME = 24  # characters of displayName
MOST_TOP, DEFAULT_TOP = 30, 10  # contributors
PAGE, MOST_PAGE = 10, MOST_JOBS  # models of an answer
MOST_LAST = 10_000  # timestamps of a variable sent along
T = TypeVar("T", bound=str)
S = TypeVar("S", bound=msgspec.Struct)
_Request = Request[Any, Any, Any]


class _AlignPolicy(msgspec.Struct, frozen=True, rename="camel"):
    align_mode: str | None = None
    fill_na_method: str | None = msgspec.field(default=None, name="fillNAMethod")
    padding_value: float | None = None


class _Train(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    data_source: str
    start_time: datetime
    end_time: datetime
    data_schema: str | None = None
    display_name: str | None = None
    sliding_window: int | None = None
    align_policy: _AlignPolicy | None = None


class _Detect(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    data_source: str
    start_time: datetime
    end_time: datetime
    top_contributor_count: int | None = None


class _Variable(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    variable: str | None = None
    variable_name: str | None = None
    timestamps: list[Any]
    values: list[Any]


class _DetectLast(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    variables: list[_Variable]
    top_contributor_count: int | None = None


@post("/models", opt={**NEEDS_ADMIN, CHANGES: True}, status_code=201)
async def train(request: _Request, parts: NamedDependency[Parts]) -> Response[Any]:
    azure = _azure(parts)
    body = _decoded(await _body(request, parts), _Train)
    asked, wanted = _train_request(body)
    azure.require_allowed(wanted.source)
    job = await asyncio.to_thread(azure.jobs.create, asked, wanted, azure.roots)
    location = f"{_base(request, parts)}/models/{job.id}"
    return _answer(model_of(job), 201, {"Location": location})


@get("/models", opt=NEEDS_READ)
async def list_models(request: _Request, parts: NamedDependency[Parts]) -> Response[Any]:
    skip = _number(request, "skip", 0, least=0, most=10**9)
    top = _number(request, "top", PAGE, least=1, most=MOST_PAGE)
    jobs = (await asyncio.to_thread(_azure(parts).jobs.all))[::-1]  # the newest first
    answer: dict[str, Any] = {
        "models": [model_of(job) for job in jobs[skip : skip + top]],
        "currentCount": len(jobs),
        "maxCount": MOST_JOBS,
    }
    if skip + top < len(jobs):
        query = urlencode({"skip": skip + top, "top": top})
        answer["nextLink"] = f"{_base(request, parts)}/models?{query}"
    return _answer(answer)


@get("/models/{name:str}", opt=NEEDS_READ)
async def get_model(parts: NamedDependency[Parts], name: FromPath[str]) -> Response[Any]:
    return _answer(model_of(await asyncio.to_thread(_azure(parts).jobs.get, name)))


@delete("/models/{name:str}", opt={**NEEDS_ADMIN, CHANGES: True}, status_code=204)
async def delete_model(parts: NamedDependency[Parts], name: FromPath[str]) -> None:
    azure, folder = _azure(parts), parts.registry.store.model(name)

    def work() -> None:
        azure.jobs.delete(name)
        if not folder.path.is_dir():  # not trained yet
            return
        with tempfile.TemporaryDirectory(prefix=".deleted-", dir=folder.path.parent) as gone:
            shutil.move(folder.path, gone)  # in one step: nobody sees a part

    await asyncio.to_thread(work)


@post("/models/{name:str}", opt=NEEDS_SCORE, status_code=200)
async def detect(
    request: _Request, parts: NamedDependency[Parts], name: FromPath[str]
) -> Response[Any]:
    """Litestar's paths know of no colon: what is asked for stands behind it."""
    model, _, verb = name.partition(":")
    if verb not in ("detect-batch", "detect-last"):
        raise UnknownModel(
            f"expected MODEL:detect-batch or MODEL:detect-last at the path's end, got {name[:80]!r}"
        )
    azure = _azure(parts)
    body = await _body(request, parts)
    job = await asyncio.to_thread(azure.jobs.get, model)
    if job.status != "READY":
        raise NotTrained(f"model is not ready: {job.id} is {job.status}")
    served = await _served(parts, job)
    if verb == "detect-last":
        return await _detect_last(parts, job, served, body)
    return await _detect_batch(request, parts, job, served, body)


# its id is as good as a secret: who has it may read it, also by a key that is for some models alone
@get("/detect-batch/{result:str}", opt={**NEEDS_READ, OF_NO_MODEL: True})
async def get_detection(parts: NamedDependency[Parts], result: FromPath[str]) -> Response[Any]:
    answer = await asyncio.to_thread(_azure(parts).detection, result)
    return Response(answer, media_type=JSON)


router = Router(
    PREFIX,
    route_handlers=[train, list_models, get_model, delete_model, detect, get_detection],
    include_in_schema=False,  # Azure's document says what there is
)


async def _detect_batch(
    request: _Request, parts: Parts, job: Job, served: Served, body: Body
) -> Response[Any]:
    azure = _azure(parts)
    asked = _decoded(body, _Detect)
    start, end = _span(asked.start_time, asked.end_time)
    top = _top(asked.top_contributor_count)
    azure.require_allowed(asked.data_source)
    setup = {
        "dataSource": asked.data_source,
        "topContributorCount": top,
        "startTime": shown(start),
        "endTime": shown(end),
    }
    judge = partial(
        azure.detect, job, served, asked.data_source, start, end, top, _observer(parts, served)
    )
    identifier, answer = await asyncio.to_thread(azure.begin, setup, judge)
    headers = {
        "Operation-Id": identifier,
        "Operation-Location": f"{_base(request, parts)}/detect-batch/{identifier}",
    }
    return Response(answer, status_code=202, media_type=JSON, headers=headers)


async def _detect_last(parts: Parts, job: Job, served: Served, body: Body) -> Response[Any]:
    azure, tell = _azure(parts), _observer(parts, served)

    def work() -> Judged:
        came, top = _last_request(body, job)
        return azure.detect_last(job, served, came, top, tell)

    judged = await parts.batcher.run(len(body) // BYTES_OF_A_CELL, work)
    return _answer({"variableStates": states_of(judged.states), "results": judged.results})


async def _served(parts: Parts, job: Job) -> Served:
    """The model of a job, which may have been published a moment ago."""
    try:
        return await parts.registry.get(job.id)
    except UnknownModel:
        await parts.registry.look(job.id)
        return await parts.registry.get(job.id)


def _observer(parts: Parts, served: Served) -> Told:
    """What tells the observers of a run, on the event loop, from whatever thread it was in."""
    loop = asyncio.get_running_loop()

    def tell(rows_ND: Float32, scores: Scores, seconds: float) -> None:
        with suppress(RuntimeError):  # the loop has ended, as the service has
            loop.call_soon_threadsafe(
                parts.observers.scored, served, rows_ND, scores, seconds, None
            )

    return tell


def _train_request(sent: _Train) -> tuple[dict[str, Any], TrainRequest]:
    """What is asked for, as it is echoed and as the worker takes it."""
    start, end = _span(sent.start_time, sent.end_time)
    if len(sent.display_name or "") > MOST_NAME:
        raise InvalidBody(
            f"displayName: expected at most {MOST_NAME} characters, got"
            f" {len(sent.display_name or '')}"
        )
    window = sent.sliding_window if sent.sliding_window is not None else DEFAULT_WINDOW
    if not LEAST_WINDOW <= window <= MOST_WINDOW:
        raise InvalidBody(
            f"slidingWindow: expected {LEAST_WINDOW} to {MOST_WINDOW} rows, got {window}"
        )
    align = sent.align_policy or _AlignPolicy()
    schema = _choice("dataSchema", sent.data_schema, ("OneTable", "MultiTable"), "OneTable")
    mode = _choice("alignMode", align.align_mode, ALIGN_MODES, "Outer")
    method = _choice("fillNAMethod", align.fill_na_method, FILL_METHODS, "Linear")
    padding = align.padding_value
    if abs(padding or 0.0) > FLOAT32_MAX:
        raise InvalidBody(f"paddingValue: expected what float32 can hold, got {padding:g}")
    asked = {
        "dataSource": sent.data_source,
        "dataSchema": schema,
        "startTime": shown(start),
        "endTime": shown(end),
        **({"displayName": sent.display_name} if sent.display_name is not None else {}),
        "slidingWindow": window,
        "alignPolicy": {
            "alignMode": mode,
            "fillNAMethod": method,
            **({"paddingValue": padding} if padding is not None else {}),
        },
    }
    return asked, TrainRequest(
        source=sent.data_source,
        is_multi_table=schema == "MultiTable",
        start=start,
        end=end,
        display_name=sent.display_name,
        window=window,
        align_mode=mode,
        fill_method=method,
        padding=padding or 0.0,
    )


def _last_request(body: Body, job: Job) -> tuple[Joined, int]:
    """The rows that are sent along, and of how many contributors is told. Azure's clients write a
    bare NaN, which is no JSON: Python's reader, slower than the others, takes it.
    """
    try:
        sent = msgspec.convert(json.loads(body), _DetectLast)
    except RecursionError as error:
        raise InvalidJSON("the request body nests too deep") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise InvalidJSON(f"the request body is not what is expected: {_said(error)}") from error
    if not 1 <= len(sent.variables) <= MOST_VARIABLES:
        raise InvalidBody(f"variables: expected 1 to {MOST_VARIABLES}, got {len(sent.variables)}")
    series = [_series(each, place) for place, each in enumerate(sent.variables)]
    rows = join(series, job.request.align_mode, most=MOST_LAST)
    return rows, _top(sent.top_contributor_count)


def _series(sent: _Variable, place: int) -> Series:
    name = sent.variable if sent.variable is not None else sent.variable_name
    if name is None:
        raise InvalidBody(f"variables[{place}]: expected its name as variable, got none")
    noun = f"variable {name[:80]!r}"
    if len(sent.timestamps) != len(sent.values) or len(sent.values) > MOST_LAST:
        raise InvalidBody(
            f"{noun}: expected as many timestamps as values, at most {MOST_LAST}, got"
            f" {len(sent.timestamps)} and {len(sent.values)}"
        )
    for row, value in enumerate(sent.values):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and not abs(value) > FLOAT32_MAX):
            raise InvalidBody(
                f"{noun}, row {row}: expected a number that float32 can hold, NaN or null, got"
                f" {cells.shown(value)}"
            )
    time_M = np.array([parse_time(each, row) for row, each in enumerate(sent.timestamps)], float)
    if not has_name(time_M).all():
        raise InvalidBody(f"{noun}: expected timestamps of the years 1 to 9999")
    return Series(name, time_M, np.array(sent.values, float))  # of None it makes NaN


def _choice(field: str, sent: str | None, known: Sequence[T], default: T) -> T:
    """Clients compare without case, and so do we."""
    if sent is None:
        return default
    for each in known:
        if each.lower() == sent.lower():
            return each
    raise InvalidBody(f"{field}: expected one of {', '.join(known)}, got {sent[:40]!r}")


def _span(start: datetime, end: datetime) -> tuple[float, float]:
    """In seconds since 1970; a time without a zone is UTC."""
    first, last = (
        (each if each.tzinfo else each.replace(tzinfo=UTC)).timestamp() for each in (start, end)
    )
    if not has_name(np.array([first, last])).all():
        raise InvalidBody("expected a startTime and an endTime of the years 1 to 9999")
    if first > last:
        raise InvalidBody(f"expected a startTime before the endTime {end}, got {start}")
    return first, last


def _top(sent: int | None) -> int:
    top = DEFAULT_TOP if sent is None else sent
    if not 1 <= top <= MOST_TOP:
        raise InvalidBody(f"topContributorCount: expected 1 to {MOST_TOP}, got {top}")
    return top


def _number(request: _Request, name: str, default: int, *, least: int, most: int) -> int:
    """A parameter of the query, which some clients write with a $ before it."""
    sent = request.query_params.get(name) or request.query_params.get(f"${name}")
    if sent is None:
        return default
    if not (sent.isascii() and sent.isdigit() and len(sent) < 12 and least <= int(sent) <= most):
        raise InvalidBody(f"{name}: expected a number from {least} to {most}, got {sent[:40]!r}")
    return int(sent)


def _decoded(body: Body, kind: type[S]) -> S:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJSON(f"the request body is not what is expected: {_said(error)}") from error


def _said(error: Exception) -> str:
    return str(error).replace("`", "'")


async def _body(request: _Request, parts: Parts) -> Body:
    _, read = await read_packed_body(request, max_bytes=parts.settings.max_body_bytes)
    return await asyncio.to_thread(read)


def _base(request: _Request, parts: Parts) -> str:
    """Where the client, or people by the settings, reach the API."""
    url = request.base_url  # with the root path behind it, or not
    here = parts.settings.public_url.rstrip("/") or f"{url.scheme}://{url.netloc}".rstrip("/")
    root_path = "" if parts.settings.public_url else parts.settings.root_path
    return f"{here}{root_path}{PREFIX}"


def _azure(parts: Parts) -> Azure:
    assert isinstance(parts.azure, Azure)  # these routes are there with it alone
    return parts.azure


def _answer(
    answer: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response[Any]:
    return Response(
        msgspec.json.encode(answer), status_code=status, media_type=JSON, headers=headers
    )
