"""Entities whose rows come from a broker: their states in memory, and the answers to new rows.

What is said of a row is what the service's streams say of it. A row that came before, its time and
its values, counts for nothing and is not answered again; a late one is refused.
"""

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from operator import lt
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType, structs

from hourglass.service.adapters.messages import Refused, Rows
from hourglass.service.errors import HourglassError, LateRow
from hourglass.service.model.served import Served
from hourglass.service.rows.times import time_of
from hourglass.service.streams.events import Event, Rule, event_id
from hourglass.service.streams.state import Answers as Said
from hourglass.service.streams.state import (
    Looked,
    State,
    advance,
    copy_of,
    repeated_rows,
    rule_for,
    tell,
)
from hourglass.service.streams.together import New, look_together

MOST_ENTITIES = 100_000  # that are kept; then those go whose rows came last longest ago


class Answer(msgspec.Struct, frozen=True):
    """What is said of one row; null where it was not judged."""

    entity: str
    time: datetime
    model: str
    version: str
    score: float | None
    p_value: float | None
    severity: float | None
    is_anomaly: bool | None  # by the threshold in force
    level: float  # the adaptive one that the row was held against
    is_adaptive_anomaly: bool | None  # p_value <= level
    warming: bool
    # of the last row of its entity that came with others:
    event: str | UnsetType | None = UNSET  # the id of the one that is open
    changes: list[Event] | UnsetType = UNSET  # events that these rows opened or closed


class Answered(NamedTuple):
    """The answer to one message."""

    place: int
    time: float  # of the row, seconds since 1970
    answer: Answer
    state: State | None  # of the entity after its last row of those that came together


class Outcome(NamedTuple):
    """What came of messages."""

    answered: list[Answered]  # in the order in which they came
    refused: list[Refused]
    repeated: int  # that came before
    changes: list[Event]  # events that opened or closed


class Entities:
    """`gap`: seconds after which an entity warms anew, in place of the model's."""

    def __init__(
        self,
        *,
        events_per_day: float = 1.0,
        gap: float | None = None,
        most: int = MOST_ENTITIES,
    ) -> None:
        self._per_day, self._gap, self._most = events_per_day, gap, most
        self._states: OrderedDict[str, State] = OrderedDict()  # the last used last

    def __len__(self) -> int:
        return len(self._states)

    def take(self, served: Served, rows: Rows) -> Outcome:
        """Rows in the order in which they came."""
        outcome = Outcome([], [], 0, [])
        rule = rule_for(served, self._per_day)
        owned: dict[str, list[int]] = {}
        for row, entity in enumerate(rows.entity_N):
            owned.setdefault(entity, []).append(row)
        parts = _parts(rows, owned)
        looked = self._look(served, parts)
        repeated = 0
        for entity, part in parts.items():
            taken = self._take(served, entity, part, rule, looked.get(entity))
            outcome.answered.extend(taken.answered)
            outcome.refused.extend(taken.refused)
            outcome.changes.extend(taken.changes)
            repeated += taken.repeated
        while len(self._states) > self._most:
            self._states.popitem(last=False)
        outcome.answered.sort(key=_place)
        outcome.refused.sort()
        return outcome._replace(repeated=repeated)

    def restore(self, served: Served, rows: Rows, kept: Mapping[str, tuple[int, State]]) -> None:
        """Have the states that rows led to before. Of an entity of which a state after some row is
        `kept`, only its window and its last answers are made again.
        """
        owned: dict[str, list[int]] = {}
        for row, entity in enumerate(rows.entity_N):
            owned.setdefault(entity, []).append(row)
        rule = rule_for(served, self._per_day)
        for entity in {**owned, **kept}:
            own = owned.get(entity, [])
            if entity in kept:
                place, state = kept[entity]
                before = [row for row in own if rows.place_N[row] <= place]
                own = own[len(before) :]
                self._take(served, entity, _of(rows, before), rule)
                made = self._states.get(entity, State())
                self._states[entity] = structs.replace(
                    state, features=made.features, before=made.before, past=made.past
                )
            self._take(served, entity, _of(rows, own), rule)

    def newest(self, entity: str) -> float | None:
        """The time of its last row; None where none has come."""
        state = self._states.get(entity)
        return None if state is None else state.newest

    def put(self, entity: str, state: State) -> None:
        """Know what was known of an entity."""
        self._states[entity] = state

    def _look(self, served: Served, parts: Mapping[str, Rows]) -> Mapping[str, Looked | None]:
        """What the model says of those entities' rows that all are new, and in order."""
        asked = []
        for entity, rows in parts.items():
            state = self._states.get(entity) or State()
            times = rows.time_N.tolist()
            before = times if state.newest is None else [state.newest, *times]
            if all(map(lt, before, before[1:])):
                asked.append(New(state, entity, rows.rows_ND, rows.time_N))
        if not asked:
            return {}
        looked = look_together(served, asked, self._gap)
        return {new.entity: each for new, each in zip(asked, looked, strict=True)}

    def _take(
        self,
        served: Served,
        entity: str,
        rows: Rows,
        rule: Rule,
        looked: Looked | None = None,
    ) -> Outcome:
        answered: list[Answered] = []
        refused: list[Refused] = []
        changes: list[Event] = []
        state, repeated, first, together = self._states.get(entity), 0, 0, len(rows.place_N)
        state = State() if state is None else copy_of(state)
        while first < len(rows.place_N):
            place, is_old = rows.place_N[first], False
            if looked is None:
                is_old = state.newest is not None and rows.time_N[first] <= state.newest
                stop = min(_increasing(rows, first), first + together)
                part = slice(first, first + 1 if is_old else stop)
            else:
                part = slice(first, first + together)
            rows_TD, time_T = rows.rows_ND[part], rows.time_N[part]
            try:
                if is_old:
                    repeated += repeated_rows(state, rows_TD, time_T)
                    first += 1
                    continue
                said = advance(
                    state,
                    served,
                    rows_TD,
                    time_T,
                    rule,
                    0,
                    gap=self._gap,
                    entity=entity,
                    looked=looked,
                )
            except HourglassError as error:
                if part.stop > first + 1:
                    together = 1  # which of them it is will be seen
                    continue
                refused.append(Refused(place, _renamed(error, place)))
                first += 1
                continue
            changes += tell(state, served, entity, said)
            answered += _answers(served, entity, rows.place_N[part], said)
            first = part.stop
        if answered:
            self._states[entity] = state
            self._states.move_to_end(entity)
            last, span = answered[-1], state.watch.open
            event = event_id(served.name, entity, span.start) if span else None
            answer = structs.replace(last.answer, event=event, changes=changes)
            answered[-1] = Answered(last.place, last.time, answer, state)
        return Outcome(answered, refused, repeated, changes)


def _answers(served: Served, entity: str, places: list[int], said: Said) -> list[Answered]:
    version, limit = served.detector.version, served.threshold.score
    found = []
    rows = zip(places, said.answers.tolist(), strict=True)
    for place, (time, _, score, p_value, severity, level, warming) in rows:
        has_score = score == score
        is_judged = has_score and not warming
        answer = Answer(
            entity,
            time_of(time),
            served.name,
            version,
            score if is_judged else None,
            p_value if is_judged else None,
            severity if is_judged else None,
            score > limit if has_score else None,
            level,
            p_value <= level if is_judged else None,
            warming,
        )
        found.append(Answered(place, time, answer, None))
    return found


def _parts(rows: Rows, owned: Mapping[str, list[int]]) -> dict[str, Rows]:
    """The rows of each entity."""
    ordered = _of(rows, [row for own in owned.values() for row in own])
    parts: dict[str, Rows] = {}
    stop = 0
    for entity, own in owned.items():
        first, stop = stop, stop + len(own)
        parts[entity] = Rows(
            ordered.place_N[first:stop],
            ordered.entity_N[first:stop],
            ordered.time_N[first:stop],
            ordered.rows_ND[first:stop],
        )
    return parts


def _of(rows: Rows, own: list[int]) -> Rows:
    return Rows(
        [rows.place_N[i] for i in own],
        [rows.entity_N[i] for i in own],
        rows.time_N[own],
        rows.rows_ND[own],
    )


def _increasing(rows: Rows, first: int) -> int:
    """The row before which, from the first on, each is later than the one before."""
    if first + 1 == len(rows.time_N):
        return first + 1
    steps = np.diff(rows.time_N[first:]) <= 0
    return first + 1 + int(np.argmax(steps)) if steps.any() else len(rows.time_N)


def _renamed(error: HourglassError, place: int) -> str:
    """The sentence about the only row of several, by its place among all."""
    text = str(error)
    if isinstance(error, LateRow) or text.startswith("row 0"):
        return f"row {place}{text.removeprefix('row 0')}"
    return f"row {place}: {text}"


def _place(answered: Answered) -> int:
    return answered.place
