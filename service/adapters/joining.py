"""One topic a sensor: values that come one by one, joined to rows by entity and time.

A row is whole once each feature has a value of its time; one that is not, after `patience_seconds`
or once a later one of its entity is whole: what did not come is missing. Values without a time
belong to the row that is being gathered.
"""

import time
from collections.abc import Iterator
from typing import Any

import msgspec

from hourglass.service.errors import InvalidRow
from hourglass.service.rows.times import parse_time

Value = float | str | bool | None


class Gathering(msgspec.Struct):
    """A row that is not whole yet."""

    time: float
    since: float  # seconds since 1970, when its first value came
    is_timed: bool
    values: dict[str, Value]


class Joiner:
    """The rows of all entities that are being gathered."""

    def __init__(
        self, features: set[str], patience_seconds: float, time_field: str = "time"
    ) -> None:
        self._features, self._patience = features, patience_seconds
        self._time_field = time_field
        self._gathering: dict[str, list[Gathering]] = {}  # of an entity, in order of time

    def add(self, entity: str, feature: str, body: bytes, newest: float | None) -> bool:
        """Gather a value: a number, a string, true, false, null, or {"value":, "time":}, with the
        time under its field's name; whether it is of a row that is later than the `newest` that was
        scored. InvalidRow.
        """
        if feature not in self._features:
            raise InvalidRow(f"the model does not know the feature {feature[:80]!r}")
        try:
            sent: Any = msgspec.json.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            sent = body.decode(errors="replace")
        now, when = time.time(), None
        if isinstance(sent, dict):
            if "value" not in sent:
                raise InvalidRow(
                    f'expected a value, or an object {{"value": …, "{self._time_field}": …}}'
                )
            when = sent.get(self._time_field)
            sent = sent["value"]
        if isinstance(sent, list | dict):
            raise InvalidRow("expected one value, got several")
        rows = self._gathering.setdefault(entity, [])
        if when is None:
            row = next((r for r in rows if not r.is_timed and feature not in r.values), None)
            if row is None:
                row = Gathering(now, now, False, {})
                rows.append(row)
        else:
            at = parse_time(when, 0)
            if newest is not None and at <= newest:
                return False
            row = next((r for r in rows if r.is_timed and r.time == at), None)
            if row is None:
                row = Gathering(at, now, True, {})
                rows.append(row)
                rows.sort(key=lambda each: each.time)
        row.values[feature] = sent
        return True

    def due(self) -> Iterator[tuple[str, bytes]]:
        """Rows to be scored now, as JSON; they are forgotten here."""
        now = time.time()
        for entity, rows in list(self._gathering.items()):
            ready = [
                place
                for place, row in enumerate(rows)
                if row.values.keys() >= self._features or now - row.since > self._patience
            ]
            count = ready[-1] + 1 if ready else 0
            for row in rows[:count]:
                cells = {name: row.values.get(name) for name in sorted(self._features)}
                yield entity, msgspec.json.encode({"cells": cells, "time": row.time})
            del rows[:count]
            if not rows:
                del self._gathering[entity]

    def waiting(self, entity: str) -> bytes | None:
        """What is gathered of an entity, to be kept; None where nothing is."""
        rows = self._gathering.get(entity)
        return msgspec.msgpack.encode(rows) if rows else None

    def put(self, entity: str, body: bytes) -> None:
        """Gather on what was kept."""
        self._gathering[entity] = msgspec.msgpack.decode(body, type=list[Gathering])
