"""`hourglass watch`: a Prometheus is asked what a model was fitted on, time after time; what the
model says of it is on /metrics.

Each time is a whole multiple of the model's step, as it was at the fit, so that its windows are the
same. What was missed since the last time is asked with the next one.

Rules:
- an entity has a severity only for the time that was asked last: what is missing, late, or not
  answered at all has a state in its place, and no number;
- an expression that is refused, has no value, or several for an entity, is a missing value of the
  row, and is said;
- Prometheus away, or the service that judges: the state of all entities, until it is back;
- a version that holds no expressions is asked for by those of the one before, which is said; where
  it has other features it cannot be watched, and all entities are away until another one is there.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event as Flag
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

import numpy as np

from hourglass.service.adapters.judges import Judge, Plan, Verdict
from hourglass.service.adapters.stream import Change, ServiceAway, ServiceRefused
from hourglass.service.errors import HourglassError, InvalidSettings
from hourglass.service.rows.label_sets import LabelSet, name_of
from hourglass.service.serving.prometheus import (
    Asked,
    Grid,
    Prometheus,
    PrometheusAway,
    grid_until,
    say_several,
)

MOST_CAUGHT_UP = 1000  # rows of an entity, after a while in which nothing was asked
LOOKED_BACK = 30  # rows at the start beyond a window, so that an event that is on is known
SETTLE_SHARE, SETTLE_SECONDS = 0.1, 2.0  # of a step, and at most, that samples take to be stored
FORGET_SECONDS = 3600.0  # after which an entity that is missing is no more
MOST_SAID = 5  # sentences of a kind at a time

# what is known of an entity at the time that was asked last
EntityState = Literal["ok", "warming", "unjudged", "missing", "late", "away"]
ENTITY_STATES: tuple[EntityState, ...] = get_args(EntityState)
ExpressionState = Literal["ok", "none", "several", "late", "refused"]
EXPRESSION_STATES: tuple[ExpressionState, ...] = get_args(ExpressionState)


class Seen(NamedTuple):
    """One entity, as it is exposed."""

    state: EntityState
    asked: float  # when it last had a row, in seconds since 1970
    missing: int  # features without a value in that row
    verdict: Verdict | None  # of a row at the time that was asked last


class Board(NamedTuple):
    """All that is exposed; immutable, and swapped whole."""

    plan: Plan | None = None
    at: float = 0.0  # the time that was asked last, in seconds since 1970
    is_up: bool = False  # whether Prometheus and who judges answered
    entities: Mapping[LabelSet, Seen] = MappingProxyType({})
    expressions: Mapping[str, ExpressionState] = MappingProxyType({})
    rows: int = 0  # judged since the start
    misses: Mapping[str, int] = MappingProxyType({})  # by state, times of entities without a score


@dataclass(slots=True)
class Watch:
    """`every`: seconds between rows, of a model of single rows; None: as at the fit. `tell` gets
    each event that opens or closes, `say` each sentence for who runs this.
    """

    prometheus: Prometheus
    judge: Judge
    every: float | None = None
    tell: Callable[[Change], None] = lambda _: None
    say: Callable[[str], None] = lambda _: None
    board: Board = field(default_factory=Board)
    _last: int | None = None  # the time that was judged last, in steps since 1970
    _said: frozenset[str] = frozenset()

    def run(self, stop: Flag) -> None:
        """Until it is told to stop."""
        while not stop.is_set():
            step = self.tick(time.time())
            now = time.time()
            due = (np.floor((now - settle(step)) / step) + 1) * step + settle(step)
            stop.wait(max(due - now, 0.01))

    def tick(self, now: float) -> float:
        """Ask and judge what is due; the seconds to the next time."""
        try:
            plan = self.judge.plan()
            if self.board.plan is None or plan.version != self.board.plan.version:
                self._take(plan)
        except (ServiceRefused, InvalidSettings) as error:
            if self.board.plan is None and not isinstance(error, ServiceAway):
                raise  # there is no such model, the key does not open it, or it cannot be watched
            self._be_away(now, str(error))
            known = self.board.plan
            return self.every or (known.queries.step_seconds if known else 1.0)
        step = self.every or plan.queries.step_seconds
        grid = self._due(now, plan, step)
        if grid is None:
            return step
        refused: dict[str, str] = {}
        try:
            asked = self.prometheus.ask(
                dict(zip(plan.features, plan.queries.expressions, strict=True)),
                grid,
                late_seconds=plan.queries.late_seconds,
                labels=plan.queries.labels,
                on_refusal=lambda name, error: refused.setdefault(name, str(error)),
            )
            entities, problems = self._judge_all(plan, asked)
        except (PrometheusAway, ServiceAway) as error:
            self._be_away(now, str(error))
            return step
        expressions = _expressions(plan, asked, refused)
        misses = dict(self.board.misses)
        for seen in entities.values():
            if seen.state != "ok":
                misses[seen.state] = misses.get(seen.state, 0) + 1
        rows = self.board.rows + int(asked.joined.is_row_ET.sum())
        at = float(grid.time_T[-1])
        if not self.board.is_up and self._last is not None:
            self.say(f"{self.prometheus.url} answers again")
        self.board = Board(plan, at, True, entities, expressions, rows, misses)
        self._last = grid.first + grid.times - 1
        self._say_new(plan, asked, refused, problems)
        return step

    def _take(self, plan: Plan) -> None:
        """Another version: where its entities are others, the ones before are no more."""
        before = self.board.plan
        if self.every and plan.window > 1 and self.every != plan.queries.step_seconds:
            raise InvalidSettings(
                f"--every: the model looks at {plan.window} rows that are"
                f" {plan.queries.step_seconds:g} s apart, expected this, got {self.every:g} s"
            )
        if not plan.is_own:
            self.say(
                f"version {plan.version[:8]} holds no expressions: those of the version before are"
                " asked on"
            )
        self.board = self.board._replace(plan=plan, expressions=MappingProxyType({}))
        if before and before.queries.labels != plan.queries.labels:
            for entity in self.board.entities:
                self.judge.forget(name_of(before.queries.labels, entity))
            self.board = self.board._replace(entities=MappingProxyType({}))
        if before and before.queries.step_seconds != plan.queries.step_seconds:
            self._last = None

    def _due(self, now: float, plan: Plan, step: float) -> Grid | None:
        """The times since the last one; None where there is none."""
        newest = grid_until(now - settle(step), step, 1).first
        count = plan.window - 1 + LOOKED_BACK
        if self._last is not None:
            count = min(newest - self._last, MOST_CAUGHT_UP)
        return Grid(newest - count + 1, count, step) if count > 0 else None

    def _judge_all(self, plan: Plan, asked: Asked) -> tuple[dict[LabelSet, Seen], list[str]]:
        """What each entity's rows are, and what is wrong with them."""
        labels, at = plan.queries.labels, float(asked.time_T[-1])
        found: dict[LabelSet, Seen] = {}
        problems: list[str] = []
        is_row_ET = asked.joined.is_row_ET
        for place, entity in enumerate(asked.joined.entities):
            name, before = name_of(labels, entity), self.board.entities.get(entity)
            is_new_T = is_row_ET[place].copy()
            if (newest := self.judge.newest(name)) is not None:
                is_new_T &= asked.time_T > newest
            rows_ND = asked.joined.values_ETD[place][is_new_T].astype(np.float32)
            verdict = before.verdict if before else None
            if len(rows_ND):
                try:
                    verdict = self.judge.judge(name, rows_ND, asked.time_T[is_new_T])
                except ServiceAway:
                    raise
                except HourglassError as error:
                    verdict = None
                    problems.append(f"{name} cannot be judged: {error}")
            if verdict and len(rows_ND):
                self._tell(verdict)
            seen_at = float(asked.time_T[is_new_T][-1]) if len(rows_ND) else 0.0
            seen_at = max(seen_at, before.asked if before else 0.0)
            if not is_row_ET[place, -1]:
                state: EntityState = "late" if asked.late_ETD[place, -1].any() else "missing"
                found[entity] = Seen(state, seen_at, len(plan.features), None)
                continue
            missing = int(np.isnan(asked.joined.values_ETD[place, -1]).sum())
            found[entity] = Seen(_state_of(verdict), seen_at, missing, verdict)
        for entity, seen in self.board.entities.items():
            if entity in found:
                continue
            if at - seen.asked < FORGET_SECONDS:
                found[entity] = Seen("missing", seen.asked, len(plan.features), None)
            else:
                self.judge.forget(name_of(labels, entity))
        return dict(sorted(found.items())), problems

    def _tell(self, verdict: Verdict) -> None:
        """Of the rows before the start an event alone that is still open."""
        is_start = self._last is None
        for change in verdict.changes[-1:] if is_start else verdict.changes:
            if change.open or not is_start:
                self.tell(change)

    def _be_away(self, now: float, sentence: str) -> None:
        entities = {
            entity: seen._replace(state="away", verdict=None)
            for entity, seen in self.board.entities.items()
        }
        misses = {**self.board.misses, "away": self.board.misses.get("away", 0) + 1}
        self.board = self.board._replace(is_up=False, entities=entities, misses=misses, at=now)
        if sentence not in self._said:
            self.say(f"{sentence}; it is asked again")
        self._said = frozenset((sentence,))

    def _say_new(
        self, plan: Plan, asked: Asked, refused: Mapping[str, str], problems: list[str]
    ) -> None:
        """What is wrong now and was not before."""
        labels = plan.queries.labels
        wrong = [*refused.values(), *problems]
        wrong += [say_several(each, plan.features, labels) for each in asked.joined.several]
        states = self.board.expressions
        wrong += [f"expression {name!r} has no value" for name in states if states[name] == "none"]
        wrong += [
            f"{name_of(labels, entity)} is {seen.state}"
            for entity, seen in self.board.entities.items()
            if seen.state in ("missing", "late", "unjudged")
        ]
        new = [each for each in wrong if each not in self._said]
        for sentence in new[:MOST_SAID]:
            self.say(sentence)
        if len(new) > MOST_SAID:
            self.say(f"and {len(new) - MOST_SAID} more are missing, late or refused")
        self._said = frozenset(wrong)


def settle(step: float) -> float:
    """Seconds that are waited for the samples of a time."""
    return min(SETTLE_SHARE * step, SETTLE_SECONDS)


def _state_of(verdict: Verdict | None) -> EntityState:
    if verdict is None:
        return "unjudged"
    if verdict.is_warming:
        return "warming"
    return "unjudged" if np.isnan(verdict.severity) else "ok"


def _expressions(
    plan: Plan, asked: Asked, refused: Mapping[str, str]
) -> dict[str, ExpressionState]:
    """At the time that was asked last."""
    is_row_E = asked.joined.is_row_ET[:, -1]
    several = {plan.features[each.expression] for each in asked.joined.several}
    found: dict[str, ExpressionState] = {}
    for place, name in enumerate(plan.features):
        if name in refused:
            found[name] = "refused"
        elif name in several:
            found[name] = "several"
        else:
            late_E = asked.late_ETD[:, -1, place]
            is_there = (~np.isnan(asked.joined.values_ETD[:, -1, place])).any()
            # of an entity of which all is late nothing is wrong with one expression
            if (late_E & is_row_E).any() or (late_E.any() and not is_there):
                found[name] = "late"
            else:
                found[name] = "ok" if is_there else "none"
    return found
