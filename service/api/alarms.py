"""The alarms that were raised, in groups, and some of the rows beside them that raised none."""

from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Response, Router, get
from litestar.di import NamedDependency
from litestar.exceptions import ClientException
from litestar.params import FromPath, QueryParameter

from hourglass.service.api.body import answered
from hourglass.service.api.entrance import NEEDS_READ
from hourglass.service.api.parts import Parts
from hourglass.service.api.problems import problems
from hourglass.service.api.scoring import Contribution
from hourglass.service.errors import InvalidRow
from hourglass.service.rows import decoding
from hourglass.service.rows.times import parse_time, time_of
from hourglass.service.watch.alarms import AlarmGroup, Alarms

MAX_GROUPS = 1000
Value = float | str | bool | None


class AlarmGroups(msgspec.Struct, frozen=True, kw_only=True):
    """The groups, the last ones first, and exact counts since all were counted."""

    model: str
    since: datetime
    rows_scored: int
    alarms: int
    muted: int  # of these, in no group
    rows_kept: bool  # whether the rows' values are (--journal)
    groups: list[AlarmGroup]


class LoggedAlarm(msgspec.Struct, frozen=True, kw_only=True):
    """One alarm that was kept."""

    time: datetime
    version: str
    score: float
    severity: float
    p_value: float
    sentence: str | None
    # in feature order, null is missing; null as a whole where no values are kept
    row: list[Value] | None
    # as of explain, `actual` and `expected` null where no values are kept; null where there was no
    # time to look for them
    reasons: list[Contribution] | None


class AlarmsOfGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A group with those of its alarms that are kept, the last ones first."""

    model: str
    key: str
    group: AlarmGroup
    alarms: list[LoggedAlarm]


class LoggedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One ordinary row that was kept."""

    time: datetime
    version: str
    severity: float
    p_value: float
    row: list[Value]


class OrdinaryRows(msgspec.Struct, frozen=True, kw_only=True):
    """Some rows that raised no alarm, drawn from all; none where no values are kept."""

    model: str
    rows: list[LoggedRow]


def _written(fields: dict[str, Any]) -> Response[bytes]:
    return Response(msgspec.json.encode(fields), media_type=decoding.JSON)


@get("/{name:str}/alarms", summary="List the groups of alarms", responses=problems(404, 503))
async def list_alarms(
    parts: NamedDependency[Parts],
    name: FromPath[str],
    limit: Annotated[
        int, QueryParameter(ge=1, le=MAX_GROUPS, description="How many groups at most.")
    ] = 100,
    since: Annotated[
        str | None, QueryParameter(description="Groups whose last alarm is older are left out.")
    ] = None,
) -> AlarmGroups:
    await parts.registry.get(name)
    after = seconds_of(since, "since") if since is not None else 0.0

    def ask(alarms: Alarms) -> AlarmGroups:
        rows, count = alarms.counts(name)
        return AlarmGroups(
            model=name,
            since=time_of(alarms.began()),
            rows_scored=rows,
            alarms=count,
            muted=alarms.muted(name),
            rows_kept=parts.journal.values,
            groups=alarms.groups(name, since=after, most=limit),
        )

    return await parts.journal.ask(ask)


@get(
    "/{name:str}/alarms/{key:str}",
    summary="List the alarms of a group",
    responses=answered(AlarmsOfGroup, 404, 503),
)
async def show_alarms(
    parts: NamedDependency[Parts], name: FromPath[str], key: FromPath[str]
) -> Response[bytes]:
    await parts.registry.get(name)
    group, alarms = await parts.journal.ask(lambda alarms: alarms.group(name, key))
    return _written({"model": name, "key": group.key, "group": group, "alarms": alarms})


@get(
    "/{name:str}/ordinary",
    summary="List some rows that raised no alarm",
    responses=answered(OrdinaryRows, 404, 503),
)
async def list_ordinary(parts: NamedDependency[Parts], name: FromPath[str]) -> Response[bytes]:
    await parts.registry.get(name)
    rows = await parts.journal.ask(lambda alarms: alarms.ordinary(name))
    return _written({"model": name, "rows": rows})


router = Router(
    "/v1/models",
    route_handlers=[list_alarms, show_alarms, list_ordinary],
    opt=NEEDS_READ,
    tags=["alarms"],
)


def seconds_of(text: str, parameter: str) -> float:
    """Since the epoch, of a time in whatever form rows have it."""
    sent: str | float = text
    with suppress(ValueError):
        sent = float(text)
    try:
        return parse_time(sent, 0)
    except InvalidRow as error:
        raise ClientException(
            f"{parameter}: expected a time as 2026-11-29T01:06:22Z, got {text[:40]!r}"
        ) from error
