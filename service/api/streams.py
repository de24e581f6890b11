"""Streams: rows of an entity one after the other, its events, and what its time looked like."""

import math
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

import msgspec
import numpy as np
from litestar import Request, Response, Router, delete, get, post, route
from litestar.di import NamedDependency
from litestar.exceptions import ClientException
from litestar.params import FromPath, QueryParameter
from msgspec import UNSET, UnsetType

from hourglass.service.api.alarms import seconds_of
from hourglass.service.api.body import in_json, read_body, reading
from hourglass.service.api.entrance import NEEDS_READ, NEEDS_SCORE
from hourglass.service.api.parts import Parts
from hourglass.service.api.problems import problems
from hourglass.service.errors import InvalidRow, ReadOnly
from hourglass.service.model.served import Facts, Served
from hourglass.service.rows import decoding, ordered
from hourglass.service.rows.ordered import LONGEST_ENTITY
from hourglass.service.rows.times import time_of
from hourglass.service.streams.events import Event
from hourglass.service.streams.file import BIN_SECONDS, StreamsFile
from hourglass.service.streams.state import Float64, is_anomaly
from hourglass.service.streams.streams import Taken, require

ANSWER_CELLS = 32  # as long as a row of an answer takes to be written, 4 us
MAX_EVENTS, MAX_BINS, MAX_LANES = 1000, 1000, 1000
Since = Annotated[str | None, QueryParameter(description="A time; without it all that is kept.")]
Bins = Annotated[int, QueryParameter(ge=1, le=MAX_BINS, description="Into how many parts.")]


class StreamAnswer(Facts, frozen=True, kw_only=True):
    """What is said of rows of one entity; entry i belongs to row i, and is null while the entity is
    warming, or where a row holds too few values.
    """

    entity: str
    # of a model with baselines: whether this entity has one, or is judged by the fleet's
    known_entity: bool | UnsetType = UNSET
    time: list[datetime]
    score: list[float | None]
    p_value: list[float | None]
    severity: list[float | None]
    is_anomaly: list[bool | None]  # by the threshold in force
    level: list[float]  # the adaptive one that the row was held against
    is_adaptive_anomaly: list[bool | None]  # p_value <= level
    warming: list[bool]
    repeated: list[bool]  # it came before, and counts for nothing
    event: Event | None  # the one that is open
    changes: list[Event]  # those that these rows opened or closed


class EntitySummary(msgspec.Struct, frozen=True, kw_only=True):
    """One entity of a model."""

    entity: str
    rows: int  # that counted
    last: datetime
    warming: bool  # whether the next row cannot be judged yet
    event: str | None  # the id of the one that is open


class Entities(msgspec.Struct, frozen=True):
    """The entities of a model, those whose rows came last first."""

    model: str
    entities: list[EntitySummary]


class Events(msgspec.Struct, frozen=True):
    """Events of a model's entities, those that began last first."""

    model: str
    events: list[Event]


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """What an entity's time looked like."""

    entity: str
    severity: list[float | None]  # the highest of each bin; null where no row was judged
    last: datetime | None
    warming: bool
    event: str | None


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """All entities' time side by side, the strangest first."""

    model: str
    since: datetime
    until: datetime
    bin_seconds: float
    times: list[datetime]  # at which the bins begin
    entities: list[Lane]


class EntityTimeline(msgspec.Struct, frozen=True, kw_only=True):
    """One entity's time, by feature."""

    model: str
    entity: str
    since: datetime
    until: datetime
    bin_seconds: float
    times: list[datetime]
    severity: list[float | None]
    features: list[str]
    # for each feature and bin the largest contribution, over the threshold
    contributions: list[list[float | None]]
    events: list[Event]  # the last first


@post(
    "/{name:str}/streams/{entity:path}",
    summary="Take the next rows of an entity",
    opt=NEEDS_SCORE,
    **in_json(StreamAnswer, 409),
)
async def take_rows(
    request: Request[Any, Any, Any],
    parts: NamedDependency[Parts],
    name: FromPath[str],
    entity: FromPath[str],
) -> Response[bytes]:
    streams, served = require(parts.streams), await parts.registry.get(name)
    entity = _named(request, entity)
    if served.is_exhibit:
        raise ReadOnly(f"{name[:80]!r} ships with the service, and has no streams")
    if len(entity) > LONGEST_ENTITY:
        raise InvalidRow(
            f"expected an entity of at most {LONGEST_ENTITY} characters, got {len(entity)}"
        )
    body, content_type = await read_body(request)
    read = partial(
        ordered.decode_stream, body, content_type, served, max_rows=parts.settings.max_rows
    )
    async with reading(parts, body, read) as (rows_ND, time_N):
        taken = await streams.take(served, entity, rows_ND, time_N)
        for run in taken.answers.looked.runs if taken.answers.looked else ():
            parts.observers.scored(served, run.rows_TD, run.scores, run.seconds, entity)
        if parts.recorder:
            new = slice(taken.answers.repeated, None)
            said = taken.answers.answers[new]
            parts.recorder.streamed(
                served, entity, rows_ND[new], said["time"], said["score"], said["p_value"]
            )
        cells = ANSWER_CELLS * len(rows_ND)
        encoded = await parts.batcher.run(cells, lambda: _encode(served, entity, taken))
    return Response(encoded, media_type=decoding.JSON)


@delete(
    "/{name:str}/streams/{entity:path}",
    summary="Forget an entity",
    responses=problems(404, 409),
    opt=NEEDS_SCORE,
    status_code=204,
)
async def forget_entity(
    request: Request[Any, Any, Any],
    parts: NamedDependency[Parts],
    name: FromPath[str],
    entity: FromPath[str],
) -> None:
    await parts.registry.get(name)
    require(parts.streams).forget(name, _named(request, entity))


@route(
    "/{name:str}/streams/{entity:path}",
    http_method="OPTIONS",
    include_in_schema=False,
    status_code=204,
)
async def entity_options() -> Response[None]:
    """Litestar's own answer knows one handler of the path only."""
    return Response(None, headers={"Allow": "DELETE, OPTIONS, POST"})


@get("/{name:str}/streams", summary="List the entities", responses=problems(404, 409))
async def list_entities(parts: NamedDependency[Parts], name: FromPath[str]) -> Entities:
    served = await parts.registry.get(name)
    return Entities(
        name,
        [
            EntitySummary(
                entity=each.entity,
                rows=each.rows,
                last=time_of(each.last),
                warming=each.warming,
                event=each.event,
            )
            for each in require(parts.streams).entities(served)
        ],
    )


@get("/{name:str}/events", summary="List the events", responses=problems(404, 409, 503))
async def list_events(
    parts: NamedDependency[Parts],
    name: FromPath[str],
    since: Annotated[
        str | None, QueryParameter(description="Events that ended before it are left out.")
    ] = None,
    entity: Annotated[str | None, QueryParameter(description="Of this entity alone.")] = None,
    is_open: Annotated[
        bool | None,
        QueryParameter(name="open", description="Only those that are open, or that are not."),
    ] = None,
    limit: Annotated[
        int, QueryParameter(ge=1, le=MAX_EVENTS, description="How many events at most.")
    ] = 100,
) -> Events:
    await parts.registry.get(name)
    after = seconds_of(since, "since") if since is not None else None

    def ask(file: StreamsFile) -> list[Event]:
        return file.chronicle().events(
            name, since=after, entity=entity, is_open=is_open, most=limit
        )

    return Events(name, await require(parts.streams).ask(ask))


@get(
    "/{name:str}/timeline",
    summary="Show the severity of all entities over time",
    responses=problems(404, 409, 503),
)
async def show_timeline(
    parts: NamedDependency[Parts],
    name: FromPath[str],
    since: Since = None,
    until: Since = None,
    bins: Bins = 120,
    limit: Annotated[
        int, QueryParameter(ge=1, le=MAX_LANES, description="How many entities at most.")
    ] = 50,
) -> Timeline:
    served, streams = await parts.registry.get(name), require(parts.streams)
    known = {each.entity: each for each in streams.entities(served)}
    cut = _cut(name, since, until, bins)

    def ask(file: StreamsFile) -> tuple[_Grid, dict[str, list[float | None]]]:
        grid = cut(file)
        return grid, file.severities(name, grid.since, grid.seconds, bins)

    grid, found = await streams.ask(ask)
    for entity in known:
        found.setdefault(entity, [None] * bins)

    def strangest(lane: tuple[str, list[float | None]]) -> float:
        return max((value for value in lane[1] if value is not None), default=-1.0)

    lanes = sorted(found.items(), key=strangest, reverse=True)[:limit]
    return Timeline(
        model=name,
        since=time_of(grid.since),
        until=time_of(grid.since + bins * grid.seconds),
        bin_seconds=grid.seconds,
        times=grid.times(bins),
        entities=[
            Lane(
                entity=entity,
                severity=severities,
                last=time_of(seen.last) if (seen := known.get(entity)) else None,
                warming=seen is not None and seen.warming,
                event=seen.event if seen else None,
            )
            for entity, severities in lanes
        ],
    )


@get(
    "/{name:str}/timeline/{entity:path}",
    summary="Show one entity over time, by feature",
    responses=problems(404, 409, 503),
)
async def show_entity_timeline(
    request: Request[Any, Any, Any],
    parts: NamedDependency[Parts],
    name: FromPath[str],
    entity: FromPath[str],
    since: Since = None,
    until: Since = None,
    bins: Bins = 120,
) -> EntityTimeline:
    served, streams = await parts.registry.get(name), require(parts.streams)
    entity = _named(request, entity)
    streams.seen(served, entity)
    width = served.schema.width
    cut = _cut(name, since, until, bins)

    def ask(file: StreamsFile) -> EntityTimeline:
        grid = cut(file)
        end = grid.since + bins * grid.seconds
        severity_B = np.full(bins, np.nan)
        ratios_BD = np.full((bins, width), np.nan)
        for start, each in file.bins_of((name, entity), grid.since, end):
            place = min(int((start - grid.since) / grid.seconds), bins - 1)
            severity_B[place] = np.fmax(severity_B[place], each.severity)
            if len(each.ratios_D) == width:
                ratios_BD[place] = np.fmax(ratios_BD[place], each.ratios_D)
        events = file.chronicle().events(name, since=grid.since, entity=entity, most=MAX_EVENTS)
        return EntityTimeline(
            model=name,
            entity=entity,
            since=time_of(grid.since),
            until=time_of(end),
            bin_seconds=grid.seconds,
            times=grid.times(bins),
            severity=_nullable(severity_B),
            features=[feature.name for feature in served.schema.features],
            contributions=[_nullable(ratio_B) for ratio_B in ratios_BD.T],
            events=[event for event in events if event.start.timestamp() < end],
        )

    return await streams.ask(ask)


class _Grid(msgspec.Struct, frozen=True):
    """Time in bins of equal length."""

    since: float
    seconds: float

    def times(self, bins: int) -> list[datetime]:
        return [time_of(self.since + place * self.seconds) for place in range(bins)]


def _cut(
    name: str, since: str | None, until: str | None, bins: int
) -> Callable[[StreamsFile], _Grid]:
    """What finds the bins: between the times asked for, else over all that is kept."""
    first = seconds_of(since, "since") if since is not None else None
    last = seconds_of(until, "until") if until is not None else None
    if first is not None and last is not None and last <= first:
        raise ClientException(f"until: expected a time later than since, got {str(until)[:40]!r}")

    def find(file: StreamsFile) -> _Grid:
        kept = file.span(name) or (0.0, BIN_SECONDS)
        start = kept[0] if first is None else first
        stop = kept[1] if last is None else last
        return _Grid(start, max(stop - start, BIN_SECONDS) / bins)

    return find


router = Router(
    "/v1/models",
    opt=NEEDS_READ,
    route_handlers=[
        entity_options,
        take_rows,
        forget_entity,
        list_entities,
        list_events,
        show_timeline,
        show_entity_timeline,
    ],
    tags=["streams"],
)


def _named(request: Request[Any, Any, Any], entity: str) -> str:
    """The entity as it was sent: routing takes slashes away that stand together or at the end."""
    sent = request.scope.get("raw_path", b"").partition(b"?")[0].partition(b"/v1/models/")[2]
    parts = sent.split(b"/", 2)  # the model, streams or timeline, the entity
    try:
        return unquote_to_bytes(parts[2]).decode() if len(parts) == 3 else entity.lstrip("/")
    except UnicodeDecodeError:
        raise InvalidRow(f"expected an entity in UTF-8, got {parts[2][:80]!r}") from None


def _encode(served: Served, entity: str, taken: Taken) -> bytes:
    answers = taken.answers.answers
    p_values, levels = answers["p_value"].tolist(), answers["level"].tolist()
    known = served.detector.knows(entity)
    answer = {
        **served.facts(),
        "entity": entity,
        **({} if known is None else {"known_entity": known}),
        "time": [time_of(seconds) for seconds in answers["time"].tolist()],
        "score": answers["score"].tolist(),
        "p_value": p_values,
        "severity": answers["severity"].tolist(),
        "is_anomaly": is_anomaly(served, answers),
        "level": levels,
        "is_adaptive_anomaly": [
            None if math.isnan(p_value) else p_value <= level
            for p_value, level in zip(p_values, levels, strict=True)
        ],
        "warming": answers["warming"].tolist(),
        "repeated": [place < taken.answers.repeated for place in range(len(answers))],
        "event": taken.event,
        "changes": taken.changes,
    }
    return msgspec.json.encode(answer)


def _nullable(values: Float64) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]
