"""Rows in order: which rows of a request or a file follow each other, and what a windowed model
says of each of them.

Rows of one entity are in order of time, and those of several may be mixed. The first W - 1 rows of
an entity, and those after a gap, are warming: they are only looked back at. So is a row that holds
too few values, and it is itself not judged.

Shapes: N rows, D features, T rows of one stretch, M of them judged.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from time import perf_counter
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType
from numpy.typing import NDArray

from hourglass.service.errors import InvalidJSON, InvalidRow
from hourglass.service.model.detector import Detector, Scores
from hourglass.service.model.schema import Schema
from hourglass.service.model.served import Served
from hourglass.service.rows import decoding
from hourglass.service.rows.cells import shown
from hourglass.service.rows.decoding import OF_ORDER, Body, Float32
from hourglass.service.rows.slicing import WHOLE_BYTES
from hourglass.service.rows.times import (
    LATEST,
    Float64,
    has_name,
    in_seconds,
    parse_time,
    shown_time,
)

LOOKED_CELLS = 2**20  # asked about at once
TOGETHER_CELLS = 2**18  # of short stretches that are scored at once
LONGEST_ENTITY = 256  # characters
AN_ENTITY = f"a string of 1 to {LONGEST_ENTITY} characters"
FIELDS = ("rows", *OF_ORDER)

Entities = str | Sequence[str] | None  # of all rows, or of each; None: they are one's
Integers = NDArray[np.intp]


class Ordered(NamedTuple):
    """What came: rows, and what is said of their order."""

    rows_ND: Float32
    entities: Entities
    time_N: Float64 | None
    body: Body  # that holds the rows alone


class Stretch(NamedTuple):
    """Rows of one entity that follow each other."""

    entity: str | None
    rows_T: Integers  # which of all rows they are, in order


class Run(NamedTuple):
    """Stretches of one length that were scored together, B of them: of the last rows of each, M in
    all, scores that are NaN where a row holds too few values.
    """

    entities: list[str | None]  # of the stretches
    rows_BTD: Float32
    judged_M: Integers  # which of all rows have these scores
    scores: Scores
    seconds: float

    def apart(self) -> Iterator[tuple[Float32, Scores, float, str | None]]:
        """Of each stretch its rows [T, D], their scores, the seconds and whose it is."""
        count, seconds = len(self.judged_M) // len(self.entities), self.seconds / len(self.entities)
        for place, entity in enumerate(self.entities):
            own = slice(place * count, (place + 1) * count)
            yield self.rows_BTD[place], Scores(*(s[own] for s in self.scores)), seconds, entity


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    rows: Raw
    entity: Raw | UnsetType = UNSET
    time: Raw | UnsetType = UNSET


def decode_ordered(body: Body, content_type: str, schema: Schema, *, max_rows: int) -> Ordered:
    """Body -> rows [N, D], whose are they, and when; an error that names the row otherwise.

    Numbers alone are rows of one entity. A row may hold too few values to be judged.
    """
    entity: Raw | UnsetType = UNSET
    time: Raw | UnsetType = UNSET
    if decoding.media_type_of(content_type) == decoding.JSON:
        body, entity, time = _open(body)
    rows_ND = decoding.decode_rows(body, content_type, schema, max_rows=max_rows, few=True)
    entities = None if entity is UNSET else _entities(entity, len(rows_ND))
    time_N = None if time is UNSET else _times(time, len(rows_ND))
    return Ordered(rows_ND, entities, time_N, body)


def decode_single(body: Body, content_type: str, schema: Schema, *, max_rows: int) -> Ordered:
    """The same of a model of single rows, of which nothing more is said."""
    rows_ND = decoding.decode_rows(body, content_type, schema, max_rows=max_rows)
    return Ordered(rows_ND, None, None, body)


def decode_stream(
    body: Body, content_type: str, served: Served, *, max_rows: int
) -> tuple[Float32, Float64 | None]:
    """Body -> the next rows [N, D] of one entity and, where they came, their times [N]; an error
    that names the row otherwise. To a windowed model a row with few values is still history.
    """
    time: Raw | UnsetType = UNSET
    if decoding.media_type_of(content_type) == decoding.JSON:
        body, entity, time = _open(body)
        if entity is not UNSET:
            raise InvalidJSON("expected rows and time alone: the address says whose they are")
    few = served.detector.window > 1
    rows_ND = decoding.decode_rows(body, content_type, served.schema, max_rows=max_rows, few=few)
    if time is UNSET:
        return rows_ND, None
    sent = _decoded(time)
    time_N = parse_times(sent if isinstance(sent, list) else [sent], len(rows_ND))
    if not (named_N := has_name(time_N)).all():
        row = int(np.argmin(named_N))
        expected, got = "a time of the years 1 to 9999", shown_time(time_N[row])
        raise InvalidRow(
            f"expected {expected}, in seconds since 1970, got {got} as the time of row {row}",
            row=row,
            expected=expected,
            got=got,
        )
    return rows_ND, time_N


def parse_entities(sent: object, rows: int) -> Entities:
    """The field `entity` as it came: of all rows, or of each; InvalidRow names a wrong one."""
    if isinstance(sent, list):
        if len(sent) != rows:
            raise _wrong_length("entity", len(sent), rows)
        for row, entity in enumerate(sent):
            if not is_entity(entity):
                raise _no_entity(entity, row)
        return sent
    if not is_entity(sent):
        raise _no_entity(sent, None)
    return str(sent)


def parse_times(sent: object, rows: int) -> Float64:
    """The field `time` as it came, of each row; InvalidRow names a wrong one."""
    if not isinstance(sent, list):
        got = shown(sent)
        raise InvalidRow(
            f"expected an array of times, one for each row, got {got}",
            expected="an array of times",
            got=got,
        )
    if len(sent) != rows:
        raise _wrong_length("time", len(sent), rows)
    if {float, int}.issuperset(map(type, sent)):
        with suppress(OverflowError):
            value_N = np.array(sent, np.float64)
            if (np.abs(value_N) <= LATEST).all():
                return in_seconds(value_N)
    return np.array([parse_time(time, row) for row, time in enumerate(sent)], np.float64)


def is_entity(value: object) -> bool:
    """Whether it can be the name of one."""
    return isinstance(value, str) and 1 <= len(value) <= LONGEST_ENTITY


def stretches(
    rows: int, entities: Entities, time_N: Float64 | None, gap: float | None
) -> list[Stretch]:
    """The rows by entity, and where a step in time is longer than the gap in several; InvalidRow
    where time goes back.
    """
    if entities is None or isinstance(entities, str):
        names: list[str | None] = [entities]
        code_N = np.zeros(rows, np.intp)
    else:
        codes: dict[str, int] = {}
        code_N = np.array([codes.setdefault(entity, len(codes)) for entity in entities], np.intp)
        names = [*codes]
    order_N = np.argsort(code_N, kind="stable")
    code_N = code_N[order_N]
    begins_N = np.ones(rows, np.bool_)
    begins_N[1:] = code_N[1:] != code_N[:-1]
    if time_N is not None:
        step_N = np.diff(time_N[order_N])
        step_N[begins_N[1:]] = 0  # from one entity to the next
        if (step_N < 0).any():
            place = int(np.argmax(step_N < 0)) + 1
            before, row = order_N[place - 1 : place + 1].tolist()
            raise _back_in_time(names[code_N[place]], before, row, time_N)
        begins_N[1:] |= step_N > (np.inf if gap is None else gap)
    starts = np.flatnonzero(begins_N)
    return [
        Stretch(names[code], order_N[start:stop])
        for code, start, stop in zip(
            code_N[starts].tolist(), starts.tolist(), [*starts[1:].tolist(), rows], strict=True
        )
    ]


def sorted_stretches(
    rows: int, entities: Entities, time_N: Float64 | None, gap: float | None
) -> list[Stretch]:
    """The same of rows that may lie in any order."""
    if time_N is None:
        return stretches(rows, entities, None, None)
    order_N = np.argsort(time_N, kind="stable")
    if entities is not None and not isinstance(entities, str):
        entities = [entities[row] for row in order_N.tolist()]
    parts = stretches(rows, entities, time_N[order_N], gap)
    return [Stretch(part.entity, order_N[part.rows_T]) for part in parts]


def score_in_order(served: Served, came: Ordered) -> list[Run]:
    """What a windowed model says of what came; InvalidRow where time goes back."""
    return [*score_stretches(served, came.rows_ND, stretches_of(served, came))]


def stretches_of(served: Served, came: Ordered) -> list[Stretch]:
    """The stretches of what came, by the model's gap."""
    window = served.detector.manifest.window
    gap = None if window is None else window.gap
    return stretches(len(came.rows_ND), came.entities, came.time_N, gap)


def score_stretches(served: Served, rows_ND: Float32, parts: Sequence[Stretch]) -> Iterator[Run]:
    """What a windowed model says of the stretches that are no shorter than a window; short ones of
    one length are scored together.
    """
    detector, window, width = served.detector, served.detector.window, rows_ND.shape[1]
    alike: dict[tuple[int, str | None], list[Stretch]] = {}  # by length, and who has a baseline
    for part in parts:
        length = len(part.rows_T)
        if length * width > TOGETHER_CELLS // 2:
            yield _score_alike(served, rows_ND, [part])
        elif length >= window:
            own = part.entity if detector.knows(part.entity) else None
            alike.setdefault((length, own), []).append(part)
    for (length, _), short in alike.items():
        count = TOGETHER_CELLS // (length * width)
        for start in range(0, len(short), count):
            yield _score_alike(served, rows_ND, short[start : start + count])


def _score_alike(served: Served, rows_ND: Float32, parts: list[Stretch]) -> Run:
    detector, before = served.detector.of(parts[0].entity), served.detector.window - 1
    if len(parts) == 1:  # rows that lie one behind the other are not copied
        rows_BT = parts[0].rows_T[np.newaxis]
        rows_BTD = _take(rows_ND, rows_BT[0])[np.newaxis]
    else:
        rows_BT = np.stack([part.rows_T for part in parts])
        rows_BTD = rows_ND[rows_BT]
    started = perf_counter()
    scores = detector.score(rows_BTD[0]) if len(parts) == 1 else detector.score_windows(rows_BTD)
    seconds = perf_counter() - started
    judged_M = rows_BT[:, before:].ravel()
    if (few_M := ~served.schema.has_enough(rows_ND[judged_M])).any():
        scores = Scores(*(np.where(few_M, np.float32(np.nan), each) for each in scores))
    return Run([part.entity for part in parts], rows_BTD, judged_M, scores, seconds)


class Spread(NamedTuple):
    """[N] what was found of rows in order, as it is of all rows."""

    scores: Scores  # NaN where a row is warming, or holds too few values
    warming_N: NDArray[np.bool_]
    known_N: NDArray[np.bool_]  # the rest
    known_entity_N: NDArray[np.bool_] | None  # as known_entities says


def known_entities(served: Served, came: Ordered) -> NDArray[np.bool_] | None:
    """[N] whether the entity of each row has a baseline; None where none has."""
    detector, entities = served.detector, came.entities
    if detector.manifest.baseline is None:
        return None
    if entities is None or isinstance(entities, str):
        return np.full(len(came.rows_ND), detector.knows(entities), np.bool_)
    return np.array([detector.knows(entity) for entity in entities], np.bool_)


def spread(served: Served, came: Ordered, runs: Iterable[Run]) -> Spread:
    """Scores in the places of their rows."""
    scores, warming_N = in_places(len(came.rows_ND), runs)
    known_N = ~warming_N & served.schema.has_enough(came.rows_ND)
    return Spread(scores, warming_N, known_N, known_entities(served, came))


def in_places(rows: int, runs: Iterable[Run]) -> tuple[Scores, NDArray[np.bool_]]:
    """[N] of all rows their scores, NaN without one, and whether they are warming."""
    scores = Scores(*(np.full(rows, np.nan, np.float32) for _ in Scores._fields))
    warming_N = np.ones(rows, np.bool_)
    for run in runs:
        warming_N[run.judged_M] = False
        for all_N, some_M in zip(scores, run.scores, strict=True):
            all_N[run.judged_M] = some_M
    return scores, warming_N


class Looked(NamedTuple):
    """Judged rows M of a stretch, and those before them that the first of them looks back at."""

    judged_M: Integers  # which of all rows
    rows_TD: Float32
    entity: str | None


def looks(
    served: Served, rows_ND: Float32, parts: Sequence[Stretch], cells: int
) -> Iterator[Looked]:
    """The stretches in pieces of so many cells, each with the rows before it."""
    window = served.detector.window
    step = max(1, cells // rows_ND.shape[1])
    for part in parts:
        for start in range(0, len(part.rows_T) - window + 1, step):
            rows_T = part.rows_T[start : start + window - 1 + step]
            yield Looked(rows_T[window - 1 :], _take(rows_ND, rows_T), part.entity)


def windows_at(
    served: Served, rows_ND: Float32, parts: Sequence[Stretch], wanted: Integers
) -> Iterator[tuple[int, Float32, str | None]]:
    """The windows [W, D] that end with these of all rows, and whose they are."""
    window, wanted_N = served.detector.window, np.zeros(len(rows_ND), np.bool_)
    wanted_N[wanted] = True
    for part in parts:
        for place in np.flatnonzero(wanted_N[part.rows_T]).tolist():
            rows_W = part.rows_T[place - window + 1 : place + 1]
            yield int(rows_W[-1]), rows_ND[rows_W], part.entity


def judge(
    served: Served,
    rows_ND: Float32,
    parts: Sequence[Stretch],
    ask: Callable[[Detector, Float32], Float32],
) -> tuple[Float32, NDArray[np.bool_]]:
    """[N, X] what a detector answers of rows in order when it is asked so, and which rows [N] have
    such an answer: those that are judged.
    """
    known_N = served.schema.has_enough(rows_ND)
    warming_N, answer_NX = np.ones(len(rows_ND), np.bool_), None
    for judged_M, rows_TD, entity in looks(served, rows_ND, parts, LOOKED_CELLS):
        answer_MX = ask(served.detector.of(entity), rows_TD)
        if answer_NX is None:
            answer_NX = np.zeros((len(rows_ND), answer_MX.shape[1]), np.float32)
        answer_NX[judged_M], warming_N[judged_M] = answer_MX, False
    if answer_NX is None:
        answer_NX = np.zeros((len(rows_ND), 1), np.float32)
    return answer_NX, known_N & ~warming_N


def _open(body: Body) -> tuple[Body, Raw | UnsetType, Raw | UnsetType]:
    """A body of rows alone, and the fields beside them. What is no such JSON is for the reader of
    rows, which says what is wrong.

    A large body is not parsed for that, but looked through at half a gigabyte a second, while no
    other thread runs; one that holds neither field is not.
    """
    if len(body) > WHOLE_BYTES and not any(b'"%b"' % name.encode() in body for name in OF_ORDER):
        return body, UNSET, UNSET
    try:
        sent = msgspec.json.decode(body, type=_Request)
    except msgspec.ValidationError as error:
        if "unknown field" not in str(error):
            return body, UNSET, UNSET
        raise InvalidJSON(f"expected a JSON object with {', '.join(FIELDS)}: {error}") from error
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return body, UNSET, UNSET
    if sent.entity is UNSET and sent.time is UNSET:
        return body, UNSET, UNSET
    return b'{"rows":%b}' % sent.rows, sent.entity, sent.time


def _entities(sent: Raw, rows: int) -> Entities:
    return parse_entities(_decoded(sent), rows)


def _times(sent: Raw, rows: int) -> Float64:
    return parse_times(_decoded(sent), rows)


def _decoded(sent: Raw) -> object:
    """Also of numbers beyond any float, which are for who looks for a wrong one; InvalidJSON of
    arrays within arrays without end.
    """
    try:
        return msgspec.json.decode(sent)
    except msgspec.ValidationError:
        return json.loads(bytes(sent), parse_int=float)
    except RecursionError as error:
        raise InvalidJSON("expected times and entities, got arrays within arrays") from error


def _back_in_time(entity: str | None, before: int, row: int, time_N: Float64) -> InvalidRow:
    of = "" if entity is None else f" of entity {shown(entity)}"
    earliest, got = shown_time(time_N[before]), shown_time(time_N[row])
    return InvalidRow(
        f"expected the rows{of} in order of time, got row {row} at {got} after row {before} at"
        f" {earliest}",
        row=row,
        expected=f"a time of at least {earliest}",
        got=got,
    )


def _take(rows_ND: Float32, rows_T: Integers) -> Float32:
    if (np.diff(rows_T) == 1).all():
        return rows_ND[int(rows_T[0]) : int(rows_T[-1]) + 1]
    return rows_ND[rows_T]


def _no_entity(value: object, row: int | None) -> InvalidRow:
    got = shown(value)
    of = "" if row is None else f" of row {row}"
    return InvalidRow(
        f"expected {AN_ENTITY}, got {got} as the entity{of}", row=row, expected=AN_ENTITY, got=got
    )


def _wrong_length(field: str, sent: int, rows: int) -> InvalidRow:
    return InvalidRow(
        f"expected one {field} for each of {rows} rows, got {sent}",
        row=min(sent, rows),
        expected=f"{rows} in {field!r}",
        got=str(sent),
    )
