"""What people say of alarms: that they are real, that they were to be expected, or that nobody
wants to see their like for a while.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import orjson
from litestar import Request, Response, Router, get, post, route
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from hourglass.service.api.body import read_body
from hourglass.service.api.entrance import CHANGES, NEEDS_ADMIN, NEEDS_READ
from hourglass.service.api.parts import Parts
from hourglass.service.api.problems import problems
from hourglass.service.errors import InvalidBody
from hourglass.service.model.schema import Schema
from hourglass.service.model.served import Served
from hourglass.service.rows.decoding import JSON, decode_request, decode_rows, sent_categories
from hourglass.service.rows.encoding import row_values
from hourglass.service.watch.feedback import MOST_NOTE, Feedback, Verdict, Word

MOST_LISTED = 1000
MAX_ENTITY = 1000  # characters


class FeedbackRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A verdict on a group of alarms by its `key`, or on a `row`; a group is muted by `until`."""

    verdict: Verdict
    key: str | None = None
    row: list[Any] | dict[str, Any] | None = None
    entity: Annotated[str, msgspec.Meta(max_length=MAX_ENTITY)] | None = None  # of the row
    until: datetime | None = None  # of mute; what is past ends it
    note: Annotated[str, msgspec.Meta(max_length=MOST_NOTE)] | None = None


class FeedbackList(msgspec.Struct, frozen=True, kw_only=True):
    """What was said, last first."""

    model: str
    feedback: list[Feedback]


@route(
    "/{name:str}/feedback",
    http_method="OPTIONS",
    include_in_schema=False,
    status_code=204,
)
async def feedback_options() -> Response[None]:
    """Litestar's own answer knows one handler of the path only."""
    return Response(None, headers={"Allow": "GET, OPTIONS, POST"})


@post(
    "/{name:str}/feedback",
    summary="Say what an alarm or a row was",
    responses=problems(400, 403, 404, 413, 415, 422, 503, 507),
    opt={**NEEDS_ADMIN, CHANGES: True},  # what is muted is not told, what is expected is learnt
    status_code=200,
)
async def give_feedback(
    request: Request[Any, Any, Any], parts: NamedDependency[Parts], name: FromPath[str]
) -> Feedback:
    served = await parts.registry.get(name)
    word = _word(decode_request(*await read_body(request), FeedbackRequest), served)
    return await parts.journal.ask(lambda alarms: alarms.add_feedback(name, word))


@get(
    "/{name:str}/feedback",
    summary="List what was said of alarms and rows",
    responses=problems(404, 503),
    opt=NEEDS_READ,
)
async def list_feedback(
    parts: NamedDependency[Parts],
    name: FromPath[str],
    limit: Annotated[
        int, QueryParameter(ge=1, le=MOST_LISTED, description="How many entries at most.")
    ] = 100,
) -> FeedbackList:
    await parts.registry.get(name)
    said = await parts.journal.ask(lambda alarms: alarms.feedback(name, most=limit))
    return FeedbackList(model=name, feedback=said)


router = Router(
    "/v1/models",
    route_handlers=[feedback_options, give_feedback, list_feedback],
    tags=["alarms"],
)


def _word(said: FeedbackRequest, served: Served) -> Word:
    if (said.key is None) == (said.row is None):
        both = "neither" if said.key is None else "both"
        raise InvalidBody(f"expected the key of a group of alarms or a row, got {both}")
    if (said.verdict == "mute") != (said.until is not None) or (
        said.verdict == "mute" and said.key is None
    ):
        raise InvalidBody('expected "until" with the verdict "mute" of a key, and only there')
    if said.entity is not None and said.row is None:
        raise InvalidBody('expected "entity" with a row only: that of a group is known')
    row = None if said.row is None else _row(said.row, served.schema)
    until = said.until
    if until is not None and until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return Word(
        verdict=said.verdict,
        key=said.key,
        row=row,
        entity=said.entity,
        until=None if until is None else until.timestamp(),
        note=said.note,
    )


def _row(row: list[Any] | dict[str, Any], schema: Schema) -> str:
    """As JSON, in feature order; InvalidRow and its like where it is none of the model's."""
    body = msgspec.json.encode({"rows": [row]})
    rows_1D = decode_rows(body, JSON, schema, max_rows=1)
    values = row_values(schema.features, rows_1D[0])
    for (_, d), category in sent_categories(body, JSON, schema, rows_1D).items():
        values[d] = category
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY).decode()
