"""Streams: the entities whose rows come one after the other, in memory and behind it in a file.

Rows of one entity are taken one request after the other. What changes is written behind, about
WRITE_SECONDS later, by a thread of its own: a process that is killed loses so much, and the rows
that it had answered may be sent again.
"""

import asyncio
import logging
import os
import sqlite3
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import msgspec
import numpy as np

from hourglass.service.errors import LateRow, NoStreams, StreamsFailed, UnknownEntity
from hourglass.service.model.reasons import EXTRA_ROWS
from hourglass.service.model.served import Served
from hourglass.service.rows.decoding import Float32
from hourglass.service.rows.times import is_clock
from hourglass.service.serving.batcher import INLINE_SECONDS, Batcher
from hourglass.service.streams.events import COUNTED_SILENCE, Ending, Event, Rule, end, lapse
from hourglass.service.streams.file import Changes, History, Key, StreamsFile, gather, history_of
from hourglass.service.streams.state import (
    Answers,
    Float64,
    State,
    advance,
    copy_of,
    event_in,
    features_of,
    is_counted,
    is_warming,
    repeated_rows,
    rule_for,
    tell,
)

T = TypeVar("T")
WRITE_SECONDS = 0.5
EXPLAINED = 4  # times what scoring takes, explaining may take
INLINE_CELLS_A_SECOND = 8192 / INLINE_SECONDS  # that the event loop may score itself
ROW_CELLS = 64  # as long as a row's level, watch and digest take, 8 us
ENCODED_AT_ONCE = 200  # states, on the event loop
RETRY_SECONDS = 5.0  # after what could not be written
MOST_WAITING = 10_000  # events, while they cannot be written
SHORTEST_STEP = 1e-6  # seconds between rows that came without times
FILE = "streams.sqlite"  # beside the models
What = Literal["evicted", "late", "warm_ups"]  # what is counted besides events
_logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Entity:
    """One, and since when it is silent."""

    state: State
    arrived: float  # time.monotonic of its last row
    rule: Rule | None = None
    is_stored: bool = False  # whether the file has it, or is about to
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Seen(NamedTuple):
    """What is told of an entity in a list."""

    entity: str
    rows: int
    last: float
    warming: bool
    event: str | None


class Taken(NamedTuple):
    """What is answered to rows of one entity."""

    answers: Answers
    changes: list[Event]  # events that opened or closed
    event: Event | None  # the one that is open


class Streams:
    """`tell` is told of each event that opens or closes, `count` of what else happens, and
    `count_failure` of each time that the file could not be had or written. `gap`: seconds, after
    which an entity warms anew, instead of the model's.
    """

    def __init__(
        self,
        batcher: Batcher,
        path: Path | None,
        *,
        most: int = 10_000,
        events_per_day: float = 1.0,
        gap: float | None = None,
        tell: Callable[[Event], None] = lambda _: None,
        count: Callable[[str, What, int], None] = lambda _, __, ___: None,
        count_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._batcher, self._file = batcher, StreamsFile(path)
        self._path, self._most, self._per_day = path, most, events_per_day
        self._gap = gap
        self._tell, self._count, self._count_failure = tell, count, count_failure
        self._entities: OrderedDict[Key, Entity] = OrderedDict()  # the last used last
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="streams")
        self._open: set[Key] = set()  # whose event is
        self._dirty: set[Key] = set()
        self._gone: set[Key] = set()
        self._events: dict[str, Event] = {}
        self._history: list[tuple[Key, History]] = []
        self._is_failing, self._retry_at = False, 0.0
        self._flushing = asyncio.Lock()

    async def start(self) -> list[Event]:
        """Read what there was; the events that are open. Those that no state knows of end."""

        def read() -> tuple[list[tuple[Key, State]], list[Key], list[Event]]:
            if self._path and not os.access(self._path.parent, os.W_OK):
                raise PermissionError("nothing can be written there")
            return *self._file.states(self._most), self._file.chronicle().open_events()

        try:
            states, others, events = await self._run(read)
        except (sqlite3.Error, OSError) as error:
            _logger.warning("streams are in memory alone: %s: %s", self._path, error)
            self._count_failure()
            self._file = StreamsFile(None)
            return []
        now = time.monotonic()
        for key, state in states:
            self._entities[key] = Entity(state, now, is_stored=True)
            self._note_open(key, state)
        self._gone.update(others)
        still_open = {event.id for event in self._all_open()}
        for event in events:
            if event.id not in still_open:
                self._say(end(event, "lost"))
        return [event for event in events if event.id in still_open]

    async def take(
        self, served: Served, name: str, rows_ND: Float32, time_N: Float64 | None
    ) -> Taken:
        """The next rows of an entity; without times they came just now. LateRow, InvalidRow."""
        key = served.name, name
        entity = self._entities.get(key) or self._add(key)
        self._entities.move_to_end(key)
        async with entity.lock:
            if self._entities.get(key) is entity:
                return await self._take(served, key, entity, rows_ND, time_N)
        return await self.take(served, name, rows_ND, time_N)  # it was forgotten meanwhile

    async def _take(
        self, served: Served, key: Key, entity: Entity, rows_ND: Float32, time_N: Float64 | None
    ) -> Taken:
        # a copy, which takes the other's place once all went well: what is written meanwhile, or
        # after an error, is a state between requests
        state = copy_of(entity.state)
        rule = entity.rule = rule_for(served, self._per_day)
        at_N = _times(state, len(rows_ND), served) if time_N is None else time_N
        try:
            repeated = repeated_rows(state, rows_ND, at_N)

            def work() -> tuple[Answers, History | None]:
                answers = advance(
                    state, served, rows_ND, at_N, rule, repeated, gap=self._gap, entity=key[1]
                )
                return answers, history_of(served, answers)

            answers, history = await self._batcher.run(_cells(served, len(rows_ND)), work)
            changes = await self._batcher.run(
                _blamed_cells(served, answers), lambda: tell(state, served, key[1], answers)
            )
        except LateRow:
            self._count(served.name, "late", 1)
            raise
        except BaseException:
            if entity.state.newest is None and self._entities.get(key) is entity:
                del self._entities[key]  # none of its rows was taken
            raise
        if self._entities.get(key) is not entity:
            raise UnknownEntity(f"entity {key[1][:80]!r} of {served.name} was just forgotten")
        entity.state = state
        if history is not None and not self._is_failing:
            self._history.append((key, history))
        return Taken(answers, changes, self._keep(key, entity, answers, changes))

    def forget(self, model: str, name: str) -> None:
        """Know nothing more of an entity; UnknownEntity."""
        self._require(model, name)
        self._let_go((model, name), "forgotten")

    def entities(self, served: Served) -> list[Seen]:
        """Those of a model, the last used first."""
        features = features_of(served)
        return [
            self._seen(key, entity, served, features)
            for key, entity in reversed(self._entities.items())
            if key[0] == served.name
        ]

    def seen(self, served: Served, name: str) -> Seen:
        """One of them; UnknownEntity."""
        entity = self._require(served.name, name)
        return self._seen((served.name, name), entity, served, features_of(served))

    def counts(self) -> Mapping[str, int]:
        """model -> its entities."""
        return Counter(model for model, _ in list(self._entities))

    def open_events(self) -> Mapping[str, int]:
        """model -> its open events; of each model that has entities."""
        found: Counter[str] = Counter()
        for (model, _), entity in list(self._entities.items()):
            found[model] += entity.state.watch.open is not None
        return found

    async def ask(self, question: Callable[[StreamsFile], T]) -> T:
        """What the file says, with all that is waiting to be written; StreamsFailed."""
        await self._flush()

        def work() -> T:
            try:
                return question(self._file)
            except (sqlite3.Error, OSError) as error:
                raise StreamsFailed(f"the streams' file cannot be read: {error}") from error

        return await self._run(work)

    async def clock(self) -> None:
        """Write behind, and close the events of who is silent, until cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            try:
                self._lapse()
                await self._flush()
            except Exception:  # the clock must go on
                _logger.exception("the streams' clock failed")

    async def close(self) -> None:
        """Write what there is, and end."""
        await self._flush()
        await self._run(self._file.close)
        self._thread.shutdown()

    def _all_open(self) -> list[Event]:
        events = (self._open_event(key, self._entities[key]) for key in self._open)
        return [event for event in events if event is not None]

    def _note_open(self, key: Key, state: State) -> None:
        (self._open.discard if state.watch.open is None else self._open.add)(key)

    def _add(self, key: Key) -> Entity:
        entity = self._entities[key] = Entity(State(), time.monotonic())
        return entity

    def _make_room(self) -> None:
        """Let go of who was used last longest ago, where there are too many."""
        while len(self._entities) > self._most:
            oldest = next((k for k, each in self._entities.items() if not each.lock.locked()), None)
            if oldest is None:
                return
            self._let_go(oldest, "evicted")
            self._count(oldest[0], "evicted", 1)

    def _let_go(self, key: Key, why: Ending) -> None:
        entity = self._entities.pop(key)
        if (event := self._open_event(key, entity)) is not None:
            self._say(end(event, why))
        self._open.discard(key)
        self._dirty.discard(key)
        if entity.is_stored:  # others would heap up while the disk is full
            self._gone.add(key)

    def _keep(
        self, key: Key, entity: Entity, answers: Answers, changes: list[Event]
    ) -> Event | None:
        """Have written what was answered, and told what changed."""
        entity.arrived = time.monotonic()
        self._dirty.add(key)
        self._note_open(key, entity.state)
        self._make_room()  # not before: a request that is refused lets go of nobody
        for event in changes:
            self._say(event)
        now_open = self._open_event(key, entity)
        if now_open is not None:
            self._events[now_open.id] = now_open
        if answers.looked is not None and answers.looked.warm_ups:
            self._count(key[0], "warm_ups", answers.looked.warm_ups)
        return now_open

    def _seen(self, key: Key, entity: Entity, served: Served, features: bytes) -> Seen:
        event = self._open_event(key, entity)
        return Seen(
            key[1],
            entity.state.rows,
            entity.state.newest or 0.0,
            is_warming(entity.state, served, features),
            event.id if event else None,
        )

    def _open_event(self, key: Key, entity: Entity) -> Event | None:
        span = entity.state.watch.open
        return event_in(entity.state, *key, span, is_open=True) if span else None

    def _say(self, event: Event) -> None:
        self._events[event.id] = event
        self._tell(event)

    def _lapse(self) -> None:
        now = time.monotonic()
        for key in list(self._open):
            entity = self._entities[key]
            if entity.lock.locked():
                continue
            rule = entity.rule or self._rule_by_times(entity.state)
            longest = COUNTED_SILENCE if rule.events_per_day is None else None
            if change := lapse(entity.state.watch, now - entity.arrived, rule, longest):
                self._dirty.add(key)
                self._open.discard(key)
                self._say(event_in(entity.state, *key, change.span, is_open=False))

    def _rule_by_times(self, state: State) -> Rule:
        """Of an entity of which no row has come since the start."""
        is_timed = is_clock(np.array([state.newest or 0.0]))
        return Rule(events_per_day=self._per_day if is_timed else None)

    def _require(self, model: str, name: str) -> Entity:
        if (entity := self._entities.get((model, name))) is None:
            raise UnknownEntity(f"no row of entity {name[:80]!r} of {model} has come")
        return entity

    async def _changes(self) -> Changes:
        dirty, self._dirty = self._dirty, set()
        gone, self._gone = self._gone, set()
        states: dict[Key, tuple[float, bytes]] = {}
        for place, key in enumerate(dirty):
            if place % ENCODED_AT_ONCE == ENCODED_AT_ONCE - 1:
                await asyncio.sleep(0)
            if (entity := self._entities.get(key)) is not None:
                body, entity.is_stored = msgspec.msgpack.encode(entity.state), True
                states[key] = entity.state.newest or 0.0, body
        # an event is written with the state that it is of: of who changed meanwhile neither is
        changed = self._dirty | self._gone
        events, self._events = self._events, {}
        for event in list(events.values()):
            if (event.model, event.entity) in changed:
                self._events[event.id] = events.pop(event.id)
        states = {key: state for key, state in states.items() if key not in changed}
        return Changes(states, gone, events.values(), {})

    async def _flush(self) -> None:
        """Write what waits, also where who asked is cancelled meanwhile: what was taken to be
        written would be lost.
        """
        await asyncio.shield(asyncio.create_task(self._write()))

    async def _write(self) -> None:
        """One after the other; what cannot be written waits on, but for its history."""
        async with self._flushing:
            await self._write_waiting()

    async def _write_waiting(self) -> None:
        if not (self._dirty or self._gone or self._events or self._history):
            return
        if self._is_failing and time.monotonic() < self._retry_at:
            return
        changes = await self._changes()
        history, self._history = self._history, []
        try:
            await self._run(lambda: self._file.write(changes._replace(bins=gather(history))))
        except (sqlite3.Error, OSError) as error:
            if not self._is_failing:
                _logger.error("streams cannot be written to %s: %s", self._path, error)
            self._count_failure()
            self._is_failing, self._retry_at = True, time.monotonic() + RETRY_SECONDS
            self._dirty |= changes.states.keys()
            self._gone |= {*changes.gone}
            self._events = {event.id: event for event in changes.events} | self._events
            for key in list(self._events)[:-MOST_WAITING]:
                del self._events[key]
            return
        if self._is_failing:
            _logger.warning("streams are written again")
        self._is_failing = False

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _times(state: State, count: int, served: Served) -> Float64:
    """Times of rows that came just now: evenly from the one before on, also where that one's time
    is ahead of the clock. Where rows are counted, they are counted on.
    """
    if is_counted(served):
        return (state.newest or 0.0) + np.arange(1.0, count + 1)
    now = time.time()
    window = served.detector.manifest.window
    if state.newest is not None:
        first = state.newest
        now = max(now, first + count * SHORTEST_STEP)
    else:
        first = now - count * ((window.interval if window else None) or 1.0)
    return first + (now - first) * np.arange(1, count + 1) / count


def _cells(served: Served, count: int) -> int:
    """As many as take as long to score as the new rows and those before take to explain."""
    detector = served.detector
    cells = (count + detector.window) * detector.width
    seconds = EXPLAINED * cells * detector.cell_seconds
    return ROW_CELLS * count + max(cells, round(seconds * INLINE_CELLS_A_SECOND))


def _blamed_cells(served: Served, answers: Answers) -> int:
    """The same of the search for who is to blame, which scores a window many times over."""
    detector = served.detector
    peaks = sum(each.peak is not None for each in answers.told)
    return peaks * detector.window * detector.width * (1 + EXTRA_ROWS + detector.width)


def require(streams: "Streams | None") -> Streams:
    """The streams of this process; NoStreams where there are several workers."""
    if streams is None:
        raise NoStreams(
            "streams are kept by one process, since an entity's rows must meet its state: serve"
            " with --workers 1"
        )
    return streams
