"""Messages of a broker -> rows: whose each is, when it was, and its values; and what is refused,
with the reason.

A message is a JSON object, or a record of Avro, with a value for each feature, by its name; null is
missing. It may hold more. Problems name a message by its place, the offset say.

Shapes: N rows, D features.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np

from hourglass.service.adapters.avro import Avro
from hourglass.service.errors import HourglassError, InvalidJSON, InvalidRow
from hourglass.service.model.artifact import LAST_SECOND
from hourglass.service.model.schema import Schema
from hourglass.service.rows.cells import shown
from hourglass.service.rows.decoding import Float32, pick_row, pick_rows
from hourglass.service.rows.ordered import AN_ENTITY, is_entity
from hourglass.service.rows.times import FIRST_SECOND, Float64, parse_time

_DECODER = msgspec.json.Decoder()
_SURROGATES = re.compile("[\ud800-\udfff]")  # what has one cannot be written again


class Message(NamedTuple):
    """As it came."""

    place: int
    body: bytes | None
    entity: str | None  # by its key or topic, whose bytes that are no UTF-8 are lone surrogates
    time: float | None  # seconds since 1970, when it was sent


class Rows(NamedTuple):
    """Those messages that hold one, in the order in which they came."""

    place_N: list[int]
    entity_N: list[str]
    time_N: Float64
    rows_ND: Float32


class Refused(NamedTuple):
    """A message of which no row can be made or scored."""

    place: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reader:
    """What of a message is what. `entity`: the field that says whose it is; without it its key or
    topic does. `time`: the field that says when it was, else the time at which it was sent. `avro`:
    what reads messages that are no JSON.
    """

    entity: str | None
    time: str
    avro: Avro | None = None

    def prepare(self, messages: Sequence[Message]) -> None:
        """Have what is needed to read them; RegistryAway, RegistryRefused."""
        if self.avro is not None:
            self.avro.fetch(each.body for each in messages)

    def read(
        self, messages: Sequence[Message], schema: Schema, *, few: bool
    ) -> tuple[Rows, list[Refused]]:
        """The rows, and what is refused. Where `few` values are let pass, a row may hold none."""
        objects: list[dict[str, Any]] = []
        places: list[int] = []
        entities: list[str] = []
        times: list[float] = []
        refused: list[Refused] = []
        for each in messages:
            try:
                sent = self.avro.decode(each.body) if self.avro else _object(each)
                entity, time = self._entity(sent, each), self._time(sent, each)
            except HourglassError as error:
                refused.append(Refused(each.place, str(error)))
                continue
            objects.append(sent)
            places.append(each.place)
            entities.append(entity)
            times.append(time)
        time_N = np.array(times, np.float64)
        rows_ND = pick_rows(objects, schema) if objects else None
        if rows_ND is not None:
            rows = Rows(places, entities, time_N, rows_ND.astype(np.float32))
            if few or schema.has_enough(rows.rows_ND).all():
                return rows, refused
        kept, found = [], []
        for row, (sent, place) in enumerate(zip(objects, places, strict=True)):
            try:
                found.append(pick_row(sent, place, schema, few=few))
                kept.append(row)
            except InvalidRow as error:
                refused.append(Refused(place, str(error)))
        refused.sort()
        cells_ND = np.array(found, np.float32).reshape(-1, schema.width)
        return (
            Rows([places[i] for i in kept], [entities[i] for i in kept], time_N[kept], cells_ND),
            refused,
        )

    def _entity(self, sent: dict[str, Any], message: Message) -> str:
        entity = message.entity if self.entity is None else sent.get(self.entity)
        if isinstance(entity, int) and not isinstance(entity, bool):
            entity = str(entity)
        if is_entity(entity) and not _SURROGATES.search(str(entity)):
            return str(entity)
        where = "as its key" if self.entity is None else f"as {self.entity!r}"
        raise InvalidRow(
            f"expected {AN_ENTITY} or a whole number {where}, got {shown(entity)} in row"
            f" {message.place}"
        )

    def _time(self, sent: dict[str, Any], message: Message) -> float:
        value = sent.get(self.time)
        if value is None:
            value = message.time
        time = parse_time(value, message.place)
        if not FIRST_SECOND <= time <= LAST_SECOND:
            raise InvalidRow(
                f"expected a time of the years 1 to 9999, got {time:g} as the time of row"
                f" {message.place}"
            )
        return time


def _object(message: Message) -> dict[str, Any]:
    try:
        sent = _DECODER.decode(message.body or b"")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidJSON(
            f"expected a JSON object, got what is no JSON in row {message.place}: {error}"
        ) from error
    if isinstance(sent, dict):
        return sent
    raise InvalidJSON(f"expected a JSON object, got {shown(sent)} in row {message.place}")
