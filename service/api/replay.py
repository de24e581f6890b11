"""What other false-alarm budgets would have done: with rows that are sent, of which nothing is
kept, and with live traffic.
"""

import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import msgspec
import numpy as np
from litestar import Request, Response, Router, get, post, route
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from msgspec import UNSET, Meta, UnsetType

from hourglass.service.api.body import BYTES_OF_A_CELL, in_json, read_body
from hourglass.service.api.entrance import NEEDS_READ, NEEDS_SCORE
from hourglass.service.api.parts import Parts
from hourglass.service.api.problems import problems
from hourglass.service.api.scoring import require_small
from hourglass.service.errors import InvalidBody, InvalidJSON, TooManyRows
from hourglass.service.model.replay import Outcome, RowsOutcome, facts_of, replay, thresholds
from hourglass.service.rows import decoding, encoding, ordered
from hourglass.service.rows.ordered import Ordered
from hourglass.service.rows.times import time_of
from hourglass.service.serving.store import Rate
from hourglass.service.watch.traffic import SEVERITY_STEP, Histogram, Uniformity

MAX_ALPHAS = 64
MAX_OUTCOMES = 2**20  # rows times budgets of one answer
MAX_JSON_BYTES = 2**22  # parsed at once, which stops everybody for some milliseconds
MAX_PER_DAY = 1e12
PerDay = Annotated[float, Meta(gt=0, le=MAX_PER_DAY)]
Alphas = Annotated[
    list[Rate] | None,
    QueryParameter(
        name="alpha",
        max_items=MAX_ALPHAS,
        description="Budgets; without any, the usual ones that the model can have.",
    ),
]


class ReplayRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows, and what to hold them against."""

    rows: msgspec.Raw
    alphas: Annotated[list[Rate], Meta(min_length=1, max_length=MAX_ALPHAS)] | UnsetType = UNSET
    # of each row: 1 or true is an anomaly, 0 or false a normal row, null neither
    labels: list[bool | int | None] | UnsetType = UNSET
    rows_per_day: PerDay | UnsetType = UNSET
    # of a model of ordered rows: as in a score request
    entity: msgspec.Raw | UnsetType = UNSET
    time: msgspec.Raw | UnsetType = UNSET


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What each budget does with the rows that were sent; rows count from 0."""

    model: str
    version: str
    rows: int
    alphas: list[RowsOutcome]
    # null of a row that a model of ordered rows cannot judge, which is no alarm either
    score: list[float | None]
    severity: list[float | None]
    p_value: list[float | None]
    # of a model of ordered rows, as in a score answer
    warming: list[bool] | UnsetType = UNSET
    known_entity: list[bool] | UnsetType = UNSET


class LiveReplay(msgspec.Struct, frozen=True, kw_only=True):
    """What each budget would have done with the rows scored since the threshold was set."""

    model: str
    version: str
    since: datetime
    rows: int
    rows_per_day: float | None  # at the pace since then
    severity: Histogram
    severity_step: float  # the histogram's resolution; the alarms are counted exactly
    p_values: Histogram
    uniform: Uniformity | None
    alphas: list[Outcome]


@post(
    "/{name:str}/replay",
    summary="Hold rows against other budgets",
    opt=NEEDS_SCORE,
    description="Nothing of it is stored, and the rows are no traffic. The body's `alphas` win.",
    **in_json(Replay, 409),
)
async def replay_rows(
    request: Request[Any, Any, Any],
    parts: NamedDependency[Parts],
    name: FromPath[str],
    alphas: Alphas = None,
) -> Response[bytes]:
    served = await parts.registry.get(name)
    body, content_type = await read_body(request)
    max_rows = parts.settings.max_rows

    is_ordered = served.detector.window > 1

    def read() -> tuple[Ordered, ReplayRequest | None]:
        asked, rows = _open(body, content_type)
        decode = ordered.decode_ordered if is_ordered else ordered.decode_single
        return decode(rows, content_type, served.schema, max_rows=max_rows), asked

    came, asked = await parts.batcher.run(len(body) // BYTES_OF_A_CELL, read)
    rows_ND = came.rows_ND
    table, in_force = served.detector.table, served.threshold
    budgets = thresholds(table, in_force, (asked and asked.alphas) or alphas or ())
    require_small(len(rows_ND), len(budgets), MAX_OUTCOMES, "outcomes")
    labels_N = _labels(asked, len(rows_ND))

    def answer() -> bytes:
        order_N, warming = None, {}
        if is_ordered:
            stretches = ordered.stretches_of(served, came)
            runs = ordered.score_stretches(served, rows_ND, stretches)
            spread = ordered.spread(served, came, runs)
            encoding.require_known(served, spread)
            scores, warming = spread.scores, {"warming": spread.warming_N}
            warming |= encoding.known_entity(spread.known_entity_N)
            order_N = np.concatenate([stretch.rows_T for stretch in stretches])
        else:
            scores = served.detector.score(rows_ND)
            encoding.require_finite(served, scores.score)
        outcomes = replay(
            table,
            in_force,
            budgets,
            scores.score,
            labels_N=labels_N,
            rows_per_day=asked.rows_per_day if asked and asked.rows_per_day else None,
            order_N=order_N,
        )
        return encoding.encode_object(
            {
                "model": served.name,
                "version": served.detector.version,
                "rows": len(rows_ND),
                "alphas": [msgspec.json.encode(outcome) for outcome in outcomes],
                **scores._asdict(),
                **warming,
            }
        )

    return Response(await parts.batcher.run(rows_ND.size, answer), media_type=decoding.JSON)


@route(
    "/{name:str}/replay",
    http_method="OPTIONS",
    status_code=204,
    include_in_schema=False,
    sync_to_thread=False,
)
def replay_options() -> Response[None]:
    """In place of Litestar's own, which would tell of the first handler at a path only."""
    return Response(None, headers={"Allow": "GET, OPTIONS, POST"})


@get(
    "/{name:str}/replay",
    summary="Hold live traffic against other budgets",
    responses=problems(404, 409),
    opt=NEEDS_READ,
)
async def replay_live(
    parts: NamedDependency[Parts], name: FromPath[str], alphas: Alphas = None
) -> LiveReplay:
    served = await parts.registry.get(name)
    table, in_force = served.detector.table, served.threshold
    budgets = thresholds(table, in_force, alphas or ())
    counted = parts.traffic.counted(served)
    per_day = counted.rows_per_day(time.time())
    facts = partial(facts_of, table, in_force, rows=counted.rows, rows_per_day=per_day)
    return LiveReplay(
        model=served.name,
        version=served.detector.version,
        since=time_of(counted.since),
        rows=counted.rows,
        rows_per_day=per_day,
        severity=counted.severities(),
        severity_step=SEVERITY_STEP,
        p_values=counted.p_values(served),
        uniform=counted.uniformity(served),
        alphas=[
            Outcome(**facts(budget=budget, alarms=counted.alarms(served, budget)))
            for budget in budgets
        ],
    )


router = Router(
    "/v1/models",
    route_handlers=[replay_options, replay_rows, replay_live],  # options before the others
    tags=["budgets"],
)


def _open(body: decoding.Body, content_type: str) -> tuple[ReplayRequest | None, decoding.Body]:
    """What is asked, and a body of rows alone, with what is said of their order; what is no such
    JSON is for the reader of rows, which says what is wrong.
    """
    if decoding.media_type_of(content_type) != decoding.JSON:
        return None, body
    if len(body) > MAX_JSON_BYTES:
        raise TooManyRows(
            f"expected at most {MAX_JSON_BYTES} bytes of JSON to replay, got {len(body)}: send the"
            " rows in parts, or as float32"
        )
    try:
        asked = msgspec.json.decode(body, type=ReplayRequest)
    except msgspec.ValidationError as error:
        fields = ", ".join(ReplayRequest.__struct_fields__)
        raise InvalidJSON(f"expected a JSON object with {fields}: {error}") from error
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None, body
    order = [b'"rows":%b' % asked.rows]
    for name, sent in (("entity", asked.entity), ("time", asked.time)):
        if sent is not UNSET:
            order.append(b'"%b":%b' % (name.encode(), sent))
    return asked, b"{%b}" % b",".join(order)


def _labels(asked: ReplayRequest | None, rows: int) -> "np.ndarray[Any, Any] | None":
    if asked is None or asked.labels is UNSET:
        return None
    labels: Sequence[bool | int | None] = asked.labels
    if len(labels) != rows:
        raise InvalidBody(f"expected a label for each of {rows} rows, got {len(labels)}")
    for row, label in enumerate(labels):
        if label not in (0, 1, None):
            raise InvalidBody(f"expected 0, 1 or null as the label of row {row}, got {label}")
    return np.array(labels, np.float64)
