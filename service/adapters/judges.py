"""Judges: who says how strange rows of an entity are that come one after the other: a model in this
process, or a service that is asked. Both keep what streams keep of an entity.

Shapes: N rows, D features.
"""

from collections import deque
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import quote

import msgspec
import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from hourglass.service.adapters.stream import Change, Service, ServiceAway, ServiceRefused
from hourglass.service.errors import HourglassError, InvalidSettings
from hourglass.service.model.artifact import Feature, Queries
from hourglass.service.model.reasons import reasons_of
from hourglass.service.model.served import Served
from hourglass.service.serving.loading import load
from hourglass.service.serving.places import open_store
from hourglass.service.streams.state import (
    PAST,
    Answers,
    State,
    advance,
    is_anomaly,
    repeated_rows,
    rule_for,
    tell,
)

MOST_NAMED = 3  # features to blame

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class Plan(NamedTuple):
    """What the model in service is asked of."""

    version: str
    features: tuple[str, ...]
    queries: Queries
    window: int
    is_own: bool = True  # whether the version holds the expressions, and not the one before


class Verdict(NamedTuple):
    """What is said of an entity's last row, and of events that its rows opened or closed."""

    is_warming: bool
    severity: float  # NaN, as the p-value, of a row that holds too few values
    p_value: float
    is_alarm: bool  # by the threshold in force
    is_event: bool  # whether one is open
    blamed: tuple[tuple[str, float], ...]  # feature and share of the score, of a row that alarms
    changes: tuple[Change, ...]


class Judge(Protocol):
    """Who judges."""

    def plan(self) -> Plan:
        """Of the version in service now; HourglassError, InvalidSettings where it cannot be
        watched.
        """

    def newest(self, entity: str) -> float | None:
        """The time of the last row of an entity that it knows."""

    def judge(self, entity: str, rows_ND: Float32, time_N: Float64) -> Verdict:
        """The next rows of an entity; HourglassError."""

    def forget(self, entity: str) -> None:
        """Keep nothing of an entity here."""

    def close(self) -> None:
        """Nothing more is judged."""


class ModelJudge:
    """A model of a folder or bucket. `events_per_day` are false events of one entity."""

    def __init__(
        self,
        name: str,
        models: str,
        *,
        cache: Path | None = None,
        trust: Path | None = None,
        events_per_day: float = 1.0,
    ) -> None:
        self._folder = open_store(models, cache=cache, trust=trust).model(name)
        self._name, self._per_day = name, events_per_day
        self._served: Served | None = None
        self._plan: Plan | None = None
        self._look: object = None
        self._states: dict[str, State] = {}

    def plan(self) -> Plan:
        served = self._load()
        manifest = served.detector.manifest
        names = tuple(each.name for each in manifest.features)
        version, window = served.detector.version, served.detector.window
        self._plan = plan_after(self._plan, self._name, version, names, manifest.queries, window)
        return self._plan

    def newest(self, entity: str) -> float | None:
        state = self._states.get(entity)
        return None if state is None else state.newest

    def judge(self, entity: str, rows_ND: Float32, time_N: Float64) -> Verdict:
        served = self._served or self._load()
        state = self._states.get(entity) or State()
        repeated = repeated_rows(state, rows_ND, time_N)
        rule = rule_for(served, self._per_day)
        answers = advance(state, served, rows_ND, time_N, rule, repeated, entity=entity)
        events = tell(state, served, entity, answers)
        self._states[entity] = state
        last = answers.answers[-1]
        (is_alarm,) = is_anomaly(served, answers.answers[-1:])
        return Verdict(
            is_warming=bool(last["warming"]),
            severity=float(last["severity"]),
            p_value=float(last["p_value"]),
            is_alarm=bool(is_alarm),
            is_event=state.watch.open is not None,
            blamed=_blamed(served, entity, answers) if is_alarm else (),
            changes=tuple(msgspec.convert(structs.asdict(each), Change) for each in events),
        )

    def forget(self, entity: str) -> None:
        self._states.pop(entity, None)

    def close(self) -> None:
        self._states.clear()

    def _load(self) -> Served:
        """The version in service; the one before where the newest cannot be loaded."""
        look = self._folder.look()
        if self._served is None or look != self._look:
            try:
                self._folder.fetch(self._folder.current())
                self._served, _ = load(self._folder, self._served)
            except (HourglassError, OSError):  # a bucket that is away, a file closed to us
                if self._served is None:
                    raise
            self._look = look
        return self._served


class ServiceJudge:
    """A model that a service has, which keeps the entities' streams."""

    def __init__(self, name: str, url: str, *, key: str | None = None) -> None:
        self._service, self._name = Service(url, key), name
        self._path = f"/v1/models/{quote(name, safe='')}"
        self._plan: Plan | None = None
        self._is_old = False  # the plan: another version may be in service
        self._newest: dict[str, float] | None = None
        self._last: dict[str, deque[list[float | None]]] = {}  # rows that explain looks at
        self._open: dict[str, str | None] = {}  # the id of the event that was open last

    def plan(self) -> Plan:
        if self._plan is None or self._is_old:
            detail = msgspec.json.decode(self._ask("GET", self._path), type=_Detail)
            names = tuple(each.name for each in detail.features)
            window = detail.window.rows if detail.window else 1
            self._plan = plan_after(
                self._plan, self._name, detail.version, names, detail.queries, window
            )
            self._is_old = False
        return self._plan

    def newest(self, entity: str) -> float | None:
        if self._newest is None:
            answer = self._ask("GET", f"{self._path}/streams")
            entities = msgspec.json.decode(answer, type=_Entities).entities
            self._newest = {each.entity: each.last.timestamp() for each in entities}
        return self._newest.get(entity)

    def judge(self, entity: str, rows_ND: Float32, time_N: Float64) -> Verdict:
        plan = self._plan or self.plan()
        rows = [[None if cell != cell else cell for cell in row] for row in rows_ND.tolist()]
        path = f"{self._path}/streams/{quote(entity, safe='')}"
        changes: list[Change] = []
        for start in range(0, len(rows), PAST):  # so many are known where they are sent again
            part = slice(start, start + PAST)
            body = msgspec.json.encode({"time": time_N[part].tolist(), "rows": rows[part]})
            try:
                said = msgspec.json.decode(self._ask("POST", path, body), type=_Streamed)
            except ServiceRefused:
                self._is_old = True
                raise
            changes += said.changes
            open_now = said.event.id if said.event else None
            if any(said.repeated):  # what it told with the answer that was lost
                changes += self._missed(entity, self._open.get(entity), open_now)
            self._open[entity] = open_now
        self._is_old |= said.version != plan.version  # it may ask other expressions
        if self._newest is not None:
            self._newest[entity] = float(time_N[-1])
        last = self._last.setdefault(entity, deque(maxlen=plan.window))
        if last.maxlen != plan.window:
            last = self._last[entity] = deque(last, plan.window)
        last.extend(rows)
        severity, p_value = said.severity[-1], said.p_value[-1]
        is_alarm = bool(said.is_anomaly[-1])
        return Verdict(
            is_warming=said.warming[-1],
            severity=np.nan if severity is None else severity,
            p_value=np.nan if p_value is None else p_value,
            is_alarm=is_alarm,
            is_event=said.event is not None,
            blamed=self._blamed(plan, entity) if is_alarm else (),
            changes=tuple(changes),
        )

    def forget(self, entity: str) -> None:
        self._last.pop(entity, None)
        self._open.pop(entity, None)

    def close(self) -> None:
        self._service.close()

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Once more where a connection that was idle is closed, or an answer is lost: rows that
        come again count once.
        """
        try:
            return self._service.ask(method, path, body)
        except ServiceAway:
            return self._service.ask(method, path, body)

    def _missed(self, entity: str, before: str | None, after: str | None) -> list[Change]:
        """The event that was open before, and the one that is now, where these are not one."""
        changed = {before, after} - {None} if before != after else set()
        if not changed:
            return []
        answer = self._ask("GET", f"{self._path}/events?entity={quote(entity, safe='')}")
        events = msgspec.json.decode(answer, type=_Events).events
        return [each for each in reversed(events) if each.id in changed]

    def _blamed(self, plan: Plan, entity: str) -> tuple[tuple[str, float], ...]:
        """Of the last row; none where the rows before it are not known here."""
        rows = list(self._last[entity])
        order = {"entity": entity} if plan.window > 1 else {}
        body = msgspec.json.encode({"rows": rows, **order})
        answer = self._ask("POST", f"{self._path}/explain?top={MOST_NAMED}", body)
        last = msgspec.json.decode(answer, type=_Explained).explanations[-1]
        return tuple((each.feature, each.share) for each in last or ())


def plan_after(
    before: Plan | None,
    name: str,
    version: str,
    features: tuple[str, ...],
    queries: Queries | None,
    window: int,
) -> Plan:
    """Of a version; one that holds no expressions, and has the features of the one before, is asked
    for by that one's. InvalidSettings.
    """
    if queries is None and before is not None:
        if before.features == features:
            return before._replace(version=version, window=window, is_own=False)
        raise InvalidSettings(
            f"version {version[:8]} of {name} holds no expressions, and has other features than the"
            f" version before"
        )
    return Plan(version, features, require_queries(name, queries), window)


def require_queries(name: str, queries: Queries | None) -> Queries:
    """InvalidSettings of a model that was not fitted from a Prometheus."""
    if queries is None:
        raise InvalidSettings(
            f"{name} holds no expressions, since it was not fitted from a Prometheus:"
            " hourglass-train fit --prometheus URL makes a model that does"
        )
    return queries


def _blamed(served: Served, entity: str, answers: Answers) -> tuple[tuple[str, float], ...]:
    if answers.looked is None:
        return ()
    detector = served.detector.of(entity)
    series_TD = answers.looked.series[-1][1]
    window_TD = np.ascontiguousarray(series_TD[-detector.window :])
    explanation = detector.explain(window_TD)
    share_D = np.nan_to_num(explanation.contributions[0].astype(np.float64))
    order_D = np.argsort(-share_D, kind="stable")
    reasons = reasons_of(detector, window_TD, explanation, served.threshold.score)
    if reasons is not None:
        order_D = reasons.order_ND[0]
    share_D /= max(float(share_D.sum()), np.finfo(np.float64).tiny)
    features = served.schema.features
    return tuple((features[d].name, float(share_D[d])) for d in order_D[:MOST_NAMED].tolist())


class _WindowRows(msgspec.Struct, frozen=True):
    rows: int


class _Detail(msgspec.Struct, frozen=True):
    version: str
    features: list[Feature]
    queries: Queries | None = None
    window: _WindowRows | None = None


class _Entity(msgspec.Struct, frozen=True):
    entity: str
    last: datetime


class _Entities(msgspec.Struct, frozen=True):
    entities: list[_Entity]


class _Streamed(msgspec.Struct, frozen=True):
    version: str
    repeated: list[bool]
    severity: list[float | None]
    p_value: list[float | None]
    is_anomaly: list[bool | None]
    warming: list[bool]
    event: "_Event | None"
    changes: list[Change]


class _Event(Change, frozen=True):
    id: str


class _Events(msgspec.Struct, frozen=True):
    events: list[_Event]


class _Share(msgspec.Struct, frozen=True):
    feature: str
    share: float


class _Explained(msgspec.Struct, frozen=True):
    explanations: list[list[_Share] | None]
