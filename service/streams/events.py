"""Events: a person is told once of what lasts, not of each row, and not more often than a budget.

An event opens at a p-value at or below a level, and closes after QUIET rows above it. Each opening
divides the level by e, each row multiplies it by exp(budget), so that over n rows the number of
events is n budget + log(first level / last level): whatever the rows do, within the budget but for
that term (an additive-increase form of online error control, as Ramdas, Yang, Wainwright and
Jordan, Online Control of the False Discovery Rate with Decaying Memory, NeurIPS 2017). The level
goes below 1 / (n + 1): it is held against the severity, which goes on beyond.

What the budget is for one row follows from events a day and the median time between an entity's
rows: the model's at first, then what the rows show.

Rules:
- a warming row counts for nothing: it opens, closes and earns nothing, but that an event ends
  where rows warm for MOST_WARMING times as long as a silence takes: they may never be judged again;
- a row that could not be judged (its p-value is NaN) is a quiet one;
- rows that alarm are never left out: the budget grows by them too;
- after a silence as long as QUIET rows an open event is closed, by `lapse` while the entity is
  silent, or by the next row, which opens none itself;
- a swap of the model changes the rule and leaves the watch as it is;
- where rows are counted, and their times tell no days, the budget is EVENTS_PER_ROW.

Pure: what is kept of an entity is a Watch, which msgspec writes and reads.
"""

import hashlib
import math
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from hourglass.service.rows.times import time_of

DAY_SECONDS = 86400.0
QUIET = 30  # rows after which an event is over
SHORTEST_SILENCE = 60.0  # seconds that end an event at the earliest, however fast rows come
MOST_WARMING = 4
COUNTED_SILENCE = 3600.0  # by the clock, where the times of rows tell nothing of seconds
EVENTS_PER_ROW = 3e-4  # 3 in 10,000 rows, where their times tell nothing of days
STEP_RATE = 0.02  # by which the median time between rows is moved to each observed one
MOST_BUDGET = 0.01  # events a row, where rows are a day apart or the budget is not one
MOST_LEVEL = 0.1  # the level a row is held against at most, however long nothing happened
# The first level is two openings below the budget: rows depend on each other and models age, and a
# level that begins too high is paid for by people. It is no lower than a tenth of an order beyond
# where severity tells scores apart (severity.CAP), so that a low budget does not make a model deaf
# for longer than a quarter of an event takes.
CREDIT = 2.0
RESOLVED = 10**-1.1
# Why an event ended: QUIET rows above its level; none came for as long; its entity was forgotten,
# or made room; or a process that was killed, or a change of what is kept, left no state of it.
Ending = Literal["quiet", "silence", "forgotten", "evicted", "lost"]


class Judged(NamedTuple):
    """One row of an entity, as its model has judged it."""

    time: float  # seconds since 1970
    p_value: float  # NaN where it could not be judged
    severity: float
    is_warming: bool = False


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """When an event opens and closes, of all entities of a model."""

    events_per_day: float | None = 1.0  # false ones, of one entity; None: rows are counted
    interval: float | None = None  # seconds between rows, as the model has seen them
    hits: int = 1  # rows at or below the level of the last `of`, for an event to open
    of: int = 1
    quiet: int = QUIET
    smallest: float = 0.0  # p-value that the model gives, 1 / (n + 1)


class Span(msgspec.Struct):
    """An event so far, in seconds since 1970."""

    start: float  # the first row that alarmed
    last: float  # the last row that alarmed
    peak: float  # the most severe row
    severity: float  # of the peak, as its p-value
    p_value: float
    level: float  # log of the level at which it opened; a row above it is quiet
    rows: int = 1  # from the first row to the last that alarmed
    quiet: int = 0  # rows since the last that alarmed
    ending: Ending | None = None


class Watch(msgspec.Struct):
    """What is kept of one entity: its level, and the event that is open."""

    level: float | None = None  # natural logarithm; None before the rate of its rows is known
    step: float | None = None  # seconds, the median time between its rows
    time: float | None = None  # of its last row
    recent: list[float | None] = []  # of the rows before, those that alarmed, for `hits`
    open: Span | None = None


class Change(NamedTuple):
    """What a row did: an event opened, became more severe than it was, or closed."""

    kind: Literal["opened", "risen", "closed"]
    span: Span


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What a person is told of: from when to when, how strange, and what is to blame."""

    id: str
    model: str
    version: str  # that was in service when it opened, or when it was last as severe
    entity: str
    start: datetime  # the first row that alarmed
    peak: datetime
    end: datetime | None  # the last row that alarmed; null while the event is open
    end_reason: Ending | None = None  # null while the event is open
    last: datetime | None = None  # the last row that alarmed so far; null of events of before 0.1
    open: bool
    rows: int  # from the first row that alarmed to the last
    severity: float  # of the peak
    p_value: float
    features: list[str]
    sentence: str | None


def rule_of(
    *, window: int, interval: float | None, calibration_rows: int, events_per_day: float | None
) -> Rule:
    """The rule for a model whose answers look at `window` rows.

    One row that stands out is often nothing more, so of a model of single rows three in five open
    an event; windows have seen the rows before already.
    """
    hits, of = (3, 5) if window == 1 else (1, 1)
    return Rule(
        events_per_day=events_per_day,
        interval=interval,
        hits=hits,
        of=of,
        smallest=1 / (calibration_rows + 1),
    )


def step(watch: Watch, judged: Judged, rule: Rule) -> Change | None:
    """Take the next row of an entity, later than all before."""
    before, watch.time = watch.time, judged.time
    lapsed = None
    if before is not None:
        lapsed = lapse(watch, judged.time - before, rule)
        _learn_step(watch, judged.time - before)
    elif rule.interval is not None and watch.step is None:
        watch.step = rule.interval
    if judged.is_warming or watch.step is None:
        return lapsed or _end_unjudged(watch, judged.time, rule)
    budget = budget_of(watch, rule)
    if watch.level is None:
        watch.level = math.log(first_level(budget, rule))
    watch.level = min(watch.level + budget, math.log(MOST_LEVEL))
    return lapsed or _judge(watch, judged, rule)


def lapse(
    watch: Watch, silent_seconds: float, rule: Rule, longest: float | None = None
) -> Change | None:
    """Close the event of an entity that has been silent for so long. `longest`: seconds, in place
    of those that follow from the watch.
    """
    if silent_seconds <= (_silence(watch, rule) if longest is None else longest):
        return None
    watch.recent = []
    return _close(watch, "silence") if watch.open else None


def end(event: Event, ending: Ending) -> Event:
    """An open event whose entity has no state any more: it ends with its last row that alarmed."""
    last = event.last or event.peak
    return msgspec.structs.replace(event, end=last, last=last, end_reason=ending, open=False)


def budget_of(watch: Watch, rule: Rule) -> float:
    """Events for one row of this entity."""
    if rule.events_per_day is None:
        return EVENTS_PER_ROW
    return min(rule.events_per_day * (watch.step or 0) / DAY_SECONDS, MOST_BUDGET)


def first_level(budget: float, rule: Rule) -> float:
    """The level that the first row of an entity is held against."""
    return min(max(budget * math.exp(-CREDIT), rule.smallest * RESOLVED), MOST_LEVEL)


def event_of(
    span: Span,
    *,
    is_open: bool,
    model: str,
    version: str,
    entity: str,
    features: list[str],
    sentence: str | None,
) -> Event:
    """The event, for people; its id is the same whenever it is asked for."""
    return Event(
        id=event_id(model, entity, span.start),
        model=model,
        version=version,
        entity=entity,
        start=time_of(span.start),
        peak=time_of(span.peak),
        end=None if is_open else time_of(span.last),
        end_reason=None if is_open else span.ending,
        last=time_of(span.last),
        open=is_open,
        rows=span.rows,
        severity=span.severity,
        p_value=span.p_value,
        features=features,
        sentence=sentence,
    )


def event_id(model: str, entity: str, start: float) -> str:
    """Of one event: rows of an entity have different times."""
    return hashlib.sha256("\0".join((model, entity, repr(start))).encode()).hexdigest()[:16]


def _judge(watch: Watch, judged: Judged, rule: Rule) -> Change | None:
    log_p = _log_p(judged)
    span = watch.open
    if span is not None:
        return _go_on(watch, span, judged, log_p, rule)
    assert watch.level is not None
    recent = [*watch.recent, judged.time if log_p <= watch.level else None][-rule.of :]
    alarms = [each for each in recent if each is not None]
    if recent[-1] is None or len(alarms) < rule.hits:
        watch.recent = recent[1 - rule.of :] if rule.of > 1 else []
        return None
    watch.recent = []
    rows = len(recent) - recent.index(alarms[0])
    watch.open = Span(
        start=alarms[0],
        last=judged.time,
        peak=judged.time,
        severity=judged.severity,
        p_value=judged.p_value,
        level=watch.level,
        rows=rows,
    )
    watch.level -= 1
    return Change("opened", watch.open)


def _go_on(watch: Watch, span: Span, judged: Judged, log_p: float, rule: Rule) -> Change | None:
    """A row while an event is open."""
    if log_p > span.level:
        span.quiet += 1
        return _close(watch, "quiet") if span.quiet >= rule.quiet else None
    span.rows += span.quiet + 1
    span.quiet, span.last = 0, judged.time
    if judged.severity <= span.severity:
        return None
    span.peak, span.severity, span.p_value = judged.time, judged.severity, judged.p_value
    return Change("risen", span)


def _end_unjudged(watch: Watch, time: float, rule: Rule) -> Change | None:
    """At a row that is warming: close an event that has been open too long without one that is
    not.
    """
    if watch.open is None or time - watch.open.last <= MOST_WARMING * _silence(watch, rule):
        return None
    return _close(watch, "silence")


def _silence(watch: Watch, rule: Rule) -> float:
    """Seconds after which an event is over; of rows that are counted, as they are counted."""
    shortest = 0.0 if rule.events_per_day is None else SHORTEST_SILENCE
    return max(shortest, rule.quiet * (watch.step or 0))


def _close(watch: Watch, ending: Ending) -> Change:
    span, watch.open, watch.recent = watch.open, None, []
    assert span is not None
    span.ending = ending
    return Change("closed", span)


def _log_p(judged: Judged) -> float:
    """Natural, by the severity, which goes on where the p-value is at its smallest; a row that
    could not be judged is quiet.
    """
    if math.isfinite(judged.severity):
        return -judged.severity * math.log(10)
    return math.log(judged.p_value) if judged.p_value > 0 else math.inf


def _learn_step(watch: Watch, seconds: float) -> None:
    """Move the median time between rows towards what was seen."""
    if watch.step is None or watch.step == 0:
        watch.step = seconds
    elif seconds != watch.step:
        rate = 1 + STEP_RATE
        watch.step *= rate if seconds > watch.step else 1 / rate
