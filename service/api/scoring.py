"""Rows in, scores, explanations, reconstructions and codes out.

Every answer comes from one model taken at the start.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from time import perf_counter
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, Router, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from hourglass.service.api.body import accepts_raw, in_json, of_rows, read_body, reading
from hourglass.service.api.entrance import NEEDS_SCORE
from hourglass.service.api.parts import Parts
from hourglass.service.errors import NotDecodable, NotSampleable, TooManyRows
from hourglass.service.model.detector import Codes, Detector, Explanation
from hourglass.service.model.reasons import EXTRA_ROWS, reasons_of
from hourglass.service.model.served import Facts, Served
from hourglass.service.rows import decoding, encoding, ordered
from hourglass.service.rows.decoding import Body, Float32
from hourglass.service.rows.ordered import Ordered, Stretch

MAX_TOP = 1_000_000
# What one answer may hold, since few bytes can ask for much: a gigabyte was had by `top` or by
# `count` on a model of 2,000 features.
MAX_CONTRIBUTIONS = 2**18
MAX_EXPLAINED_VALUES = 2**22
MAX_VALUES = 2**23
EXPLAINED_CELLS = 2**17  # explained and written at once, of a request


class ScoreAnswer(Facts, frozen=True, kw_only=True):
    """One array per quantity; entry i belongs to row i."""

    # from here on null of a row that a model of ordered rows cannot judge: too few came before it,
    # or it holds too few values
    score: list[float | None]
    ratio: list[float | None]  # score / threshold: 1 is the threshold
    p_value: list[float | None]
    severity: list[float | None]  # -log10 of the p-value, comparable between models
    # beyond all calibration scores, where severity is a fitted tail's
    extrapolated: list[bool | None]
    is_anomaly: list[bool | None]
    # of a model of ordered rows: whether fewer rows came before than it looks at
    warming: list[bool] | msgspec.UnsetType = msgspec.UNSET
    # of a model with baselines: whether the row's entity has one; rows of others are judged by the
    # fleet's
    known_entity: list[bool] | msgspec.UnsetType = msgspec.UNSET


class Contribution(msgspec.Struct, frozen=True):
    """What one feature adds to a row's score."""

    feature: str
    contribution: float
    share: float  # of the score
    actual: float | str | bool | None  # null is missing
    # given the values that are not to blame; of a boolean the probability of true
    expected: float | str | None
    unit: str | msgspec.UnsetType = msgspec.UNSET
    # from here on absent of a model of format 1.0
    expected_sd: float | msgspec.UnsetType | None = msgspec.UNSET  # of a number
    # of a number, (actual - expected) / expected_sd
    deviation: float | msgspec.UnsetType | None = msgspec.UNSET
    direction: Literal["high", "low"] | msgspec.UnsetType | None = msgspec.UNSET
    # of the expected category, or of true
    probability: float | msgspec.UnsetType | None = msgspec.UNSET
    # without the values that are to blame the row would not alarm
    blamed: bool | msgspec.UnsetType = msgspec.UNSET


class ExplainAnswer(ScoreAnswer, frozen=True, kw_only=True):
    """The scores, for each row that alarms why it does, and for each row its features, those that
    are to blame first, then the largest contributions.
    """

    reason: list[str | None]  # a sentence; null of a row that does not alarm
    explanations: list[list[Contribution] | None]  # null of a row without a score


class RowsAnswer(msgspec.Struct, frozen=True):
    """Rows as arrays in feature order."""

    model: str
    version: str
    rows: list[list[float | str | bool | None]]


class ReconstructAnswer(msgspec.Struct, frozen=True):
    """Rows without noise and gaps, and for each row the features that were null. Of a model of
    ordered rows what the rows before let expect; null where there are too few.
    """

    model: str
    version: str
    rows: list[list[float | str | bool | None] | None]
    filled: list[list[str] | None]
    # of a model with baselines, as in a score answer
    known_entity: list[bool] | msgspec.UnsetType = msgspec.UNSET


class EncodeAnswer(msgspec.Struct, frozen=True):
    """The model's codes of the rows; of a variational model their means, and beside each number
    its standard deviation.
    """

    model: str
    version: str
    codes: list[list[float] | None]  # null of a row that a model of ordered rows cannot judge
    deviations: list[list[float]] | msgspec.UnsetType = msgspec.UNSET
    # of a model with baselines, as in a score answer
    known_entity: list[bool] | msgspec.UnsetType = msgspec.UNSET


@post(
    "/score",
    summary="Score rows",
    description=(
        "An `Accept` header that names `application/octet-stream` is answered with mere numbers."
    ),
    responses=of_rows(ScoreAnswer),
    status_code=200,
)
async def score(
    request: Request[Any, Any, Any],
    parts: NamedDependency[Parts],
    name: FromPath[str | None] = None,
) -> Response[bytes]:
    served = await parts.registry.get(name)
    raw = accepts_raw(request.scope["headers"])
    answer = await parts.batcher.answer(served, *await read_body(request), raw=raw)
    if raw:
        return Response(answer, media_type=decoding.RAW, headers=encoding.raw_headers(served))
    return Response(answer, media_type=decoding.JSON)


@post("/explain", summary="Explain rows", **in_json(ExplainAnswer))
async def explain(
    request: Request[Any, Any, Any],
    parts: NamedDependency[Parts],
    name: FromPath[str | None] = None,
    top: Annotated[
        int, QueryParameter(ge=1, le=MAX_TOP, description="How many features to list for each row.")
    ] = 10,
) -> Response[bytes]:
    served = await parts.registry.get(name)
    body, content_type = await read_body(request)
    if served.detector.window > 1:
        async with _in_order(parts, served, body, content_type) as came:
            encoded = await _explain_in_order(parts, served, content_type, came, top)
    else:
        async with _decoded(parts, served, body, content_type) as rows_ND:
            encoded = await _explain(parts, served, body, content_type, rows_ND, top)
    return Response(encoded, media_type=decoding.JSON)


async def _explain(
    parts: Parts, served: Served, body: Body, content_type: str, rows_ND: Float32, top: int
) -> bytes:
    width = served.schema.width
    require_small(len(rows_ND), min(top, width), MAX_CONTRIBUTIONS, "contributions")
    require_small(len(rows_ND), width, MAX_EXPLAINED_VALUES, "values")
    explained: list[tuple[Float32, Explanation, float]] = []

    def explain_parts() -> Iterator[encoding.Explained]:
        rows = max(1, EXPLAINED_CELLS // width)
        for start in range(0, len(rows_ND), rows):
            part_ND = rows_ND[start : start + rows]
            started = perf_counter()
            explanation = served.detector.explain(part_ND)
            encoding.require_finite(
                served, explanation.score, explanation.contributions, first=start
            )
            reasons = reasons_of(served.detector, part_ND, explanation, served.threshold.score)
            explained.append((part_ND, explanation, perf_counter() - started))
            yield encoding.Explained(part_ND, explanation, reasons)

    def answer() -> bytes:
        sent = decoding.sent_categories(body, content_type, served.schema, rows_ND)
        return encoding.encode_explanations(served, explain_parts(), sent, top=top)

    # the search for what is to blame scores an alarming row many times over
    work = rows_ND.size * (1 + EXTRA_ROWS + width)
    encoded = await parts.batcher.run(work, answer)
    for part in explained:
        parts.observers.explained(served, *part)
    return encoded


async def _explain_in_order(
    parts: Parts, served: Served, content_type: str, came: Ordered, top: int
) -> bytes:
    rows_ND, width, window = came.rows_ND, served.schema.width, served.detector.window
    require_small(len(rows_ND), min(top, width), MAX_CONTRIBUTIONS, "contributions")
    # the windows of rows that alarm are looked at many times over
    require_small(len(rows_ND), width * window, MAX_EXPLAINED_VALUES, "values of windows")
    explained: list[tuple[Float32, Explanation, float]] = []

    def explain_parts(
        stretches: list[Stretch],
    ) -> Iterator[tuple[ordered.Integers, encoding.Explained]]:
        for judged_M, rows_TD, entity in ordered.looks(served, rows_ND, stretches, EXPLAINED_CELLS):
            started, detector = perf_counter(), served.detector.of(entity)
            explanation = detector.explain(rows_TD)
            reasons = reasons_of(detector, rows_TD, explanation, served.threshold.score)
            part_MD = rows_TD[window - 1 :]
            explained.append((part_MD, explanation, perf_counter() - started))
            yield judged_M, encoding.Explained(part_MD, explanation, reasons)

    def answer() -> bytes:
        stretches = ordered.stretches_of(served, came)
        runs = ordered.score_stretches(served, rows_ND, stretches)
        spread = ordered.spread(served, came, runs)
        sent = decoding.sent_categories(came.body, content_type, served.schema, rows_ND)
        return encoding.encode_explanations_in_order(
            served, rows_ND, spread, explain_parts(stretches), sent, top=top
        )

    encoded = await parts.batcher.run(rows_ND.size * (1 + EXTRA_ROWS + width), answer)
    for part in explained:
        parts.observers.explained(served, *part)
    return encoded


@post("/reconstruct", summary="Fill gaps and remove noise", **in_json(ReconstructAnswer))
async def reconstruct(
    request: Request[Any, Any, Any],
    parts: NamedDependency[Parts],
    name: FromPath[str | None] = None,
) -> Response[bytes]:
    served = await parts.registry.get(name)
    async with _in_order(parts, served, *await read_body(request)) as came:
        rows_ND, detector = came.rows_ND, served.detector
        require_small(len(rows_ND), served.schema.width, MAX_VALUES, "values")

        def answer() -> bytes:
            if detector.window == 1:
                clean_ND = detector.reconstruct(rows_ND)
                return encoding.encode_rows(served, clean_ND, filled_from=rows_ND)
            stretches = ordered.stretches_of(served, came)
            clean_ND, known_N = ordered.judge(served, rows_ND, stretches, Detector.reconstruct)
            return encoding.encode_rows(
                served,
                clean_ND,
                filled_from=rows_ND,
                known_N=known_N,
                known_entity_N=ordered.known_entities(served, came),
            )

        encoded = await parts.batcher.run(rows_ND.size, answer)
    return Response(encoded, media_type=decoding.JSON)


@post("/encode", summary="Rows to codes", **in_json(EncodeAnswer))
async def encode(
    request: Request[Any, Any, Any],
    parts: NamedDependency[Parts],
    name: FromPath[str | None] = None,
) -> Response[bytes]:
    served = await parts.registry.get(name)
    async with _in_order(parts, served, *await read_body(request)) as came:
        rows_ND, detector = came.rows_ND, served.detector
        require_small(len(rows_ND), detector.latent_width, MAX_VALUES, "values")

        def answer() -> bytes:
            if detector.window == 1:
                return encoding.encode_codes(served, detector.encode_with_deviation(rows_ND))
            stretches = ordered.stretches_of(served, came)
            code_NK, known_N = ordered.judge(served, rows_ND, stretches, Detector.encode)
            return encoding.encode_codes(
                served,
                Codes(code_NK, None),
                known_N=known_N,
                known_entity_N=ordered.known_entities(served, came),
            )

        encoded = await parts.batcher.run(rows_ND.size, answer)
    return Response(encoded, media_type=decoding.JSON)


@post(
    "/decode",
    summary="Codes to rows",
    description=(
        "An `Accept` header that names `application/octet-stream` is answered with mere numbers."
    ),
    responses=of_rows(RowsAnswer, 409),
    status_code=200,
)
async def decode(
    request: Request[Any, Any, Any],
    parts: NamedDependency[Parts],
    name: FromPath[str | None] = None,
) -> Response[bytes]:
    served = await parts.registry.get(name)
    detector = served.detector
    if not detector.can_decode:
        row = "row" if detector.window == 1 else "rows before"
        raise NotDecodable(
            f"model {served.name} needs the {row} as well as the code to reconstruct it"
        )
    body, content_type = await read_body(request)
    read = partial(
        decoding.decode_codes,
        body,
        content_type,
        detector.latent_width,
        max_rows=parts.settings.max_rows,
    )
    raw = accepts_raw(request.scope["headers"])
    write = encoding.encode_raw_rows if raw else encoding.encode_rows
    async with reading(parts, body, read) as codes_NK:
        require_small(len(codes_NK), detector.width, MAX_VALUES, "values")

        def answer() -> bytes:
            return write(served, detector.decode(codes_NK))

        encoded = await parts.batcher.run(len(codes_NK) * detector.width, answer)
    return Response(
        encoded,
        media_type=decoding.RAW if raw else decoding.JSON,
        headers=encoding.raw_head(served) if raw else None,
    )


class SampleRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many rows to make up. The same seed gives the same rows of the same version."""

    count: Annotated[int, msgspec.Meta(ge=1)] = 1
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0


@post("/sample", summary="Make up rows", **in_json(RowsAnswer, 409))
async def sample(
    request: Request[Any, Any, Any],
    parts: NamedDependency[Parts],
    name: FromPath[str | None] = None,
) -> Response[bytes]:
    served = await parts.registry.get(name)
    wanted = decoding.decode_request(*await read_body(request), SampleRequest)
    if wanted.count > parts.settings.max_rows:
        raise TooManyRows(
            f"expected a count of at most {parts.settings.max_rows}, got {wanted.count}"
        )
    detector = served.detector
    if detector.window > 1:
        raise NotSampleable(
            f"model {served.name} looks at {detector.window} rows in order, and makes up none"
        )
    if detector.manifest.sampling is None:
        variant = detector.manifest.model.variant
        raise NotSampleable(
            f"model {served.name} cannot make up rows: the code space of the variant {variant} has"
            " holes, and what lies in them decodes to nothing real"
        )
    require_small(wanted.count, detector.width, MAX_VALUES, "values")

    def answer() -> bytes:
        return encoding.encode_rows(served, detector.sample(wanted.count, wanted.seed))

    return Response(
        await parts.batcher.run(wanted.count * detector.width, answer), media_type=decoding.JSON
    )


def _decoded(
    parts: Parts, served: Served, body: Body, content_type: str
) -> AbstractAsyncContextManager[Float32]:
    """The body's rows."""
    read = partial(
        decoding.decode_rows, body, content_type, served.schema, max_rows=parts.settings.max_rows
    )
    return reading(parts, body, read)


@asynccontextmanager
async def _in_order(
    parts: Parts, served: Served, body: Body, content_type: str
) -> AsyncGenerator[Ordered, None]:
    """The body's rows, and of a windowed model what is said of their order."""
    decode = ordered.decode_ordered if served.detector.window > 1 else ordered.decode_single
    came: list[Ordered] = []

    def read() -> Float32:
        came.append(decode(body, content_type, served.schema, max_rows=parts.settings.max_rows))
        return came[0].rows_ND

    async with reading(parts, body, read):
        yield came[0]


def require_small(rows: int, width: int, most: int, what: str) -> None:
    """TooManyRows where an answer of so many rows would hold more than it may."""
    if rows * width > most:
        raise TooManyRows(
            f"expected at most {most} {what} in one answer, got {rows} rows of {width}; ask for"
            " fewer rows"
        )


ROUTES = [score, explain, reconstruct, encode, decode, sample]
router = Router("/v1", route_handlers=ROUTES, opt=NEEDS_SCORE, tags=["scoring"])
named_router = Router(
    "/v1/models/{name:str}", route_handlers=ROUTES, opt=NEEDS_SCORE, tags=["scoring"]
)
