"""What is kept of one entity between its rows, and what new rows make of it.

A State has the W - 1 rows before the next one, the adaptive level, the watch over events, and the
answers to the last PAST rows, by which a row that comes again is known. At W = 30 and 52 features
it takes 9 kB. Answers are those of the batch: the same graph looks at the same rows.

Rules:
- rows come in order of time; a row that came before (its time and its values) is answered as it was
  and counts for nothing; any other row that is not later than the newest is late, and all rows of
  its request are refused with it;
- after a step in time longer than the gap (the model's, or the setting), and where a model of
  other features is in service, the entity warms anew; the level and an open event stay;
- a swap of the model for one of the same features replays the rows before: it warms no longer than
  its window is longer;
- where the budget alpha is changed, the level begins anew as it.

Shapes: N new rows, D features, W rows of a window, T rows of a series.
"""

import hashlib
import math
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from hourglass.service.errors import InvalidRow, LateRow
from hourglass.service.model.detector import Detector, Scores
from hourglass.service.model.reasons import reasons_of
from hourglass.service.model.served import Served
from hourglass.service.rows.decoding import Float32
from hourglass.service.rows.encoding import require_finite
from hourglass.service.rows.sentences import say_why
from hourglass.service.rows.times import shown_time
from hourglass.service.streams.events import (
    Event,
    Judged,
    Rule,
    Span,
    Watch,
    event_of,
    rule_of,
    step,
)
from hourglass.service.streams.level import adapt

PAST = 64  # rows that are known when they come again
MOST_BLAMED = 3  # features that are named where none is to blame by itself
Float64 = NDArray[np.float64]
ANSWER = np.dtype(
    [
        ("time", "<f8"),
        ("digest", "<u8"),  # of the row's values
        ("score", "<f4"),
        ("p_value", "<f4"),
        ("severity", "<f4"),
        ("level", "<f4"),  # that the row was held against
        ("warming", "?"),
    ]
)
NO_ANSWERS = np.empty(0, ANSWER)


class Blame(msgspec.Struct):
    """What is to blame for the event that is open, at its peak so far."""

    version: str
    features: list[str]
    sentence: str | None


class State(msgspec.Struct):
    """One entity of a model."""

    features: bytes = b""  # a digest of the features that the rows before have
    before: bytes = b""  # float32, the rows before the next one that follow each other
    past: bytes = b""  # of ANSWER, the last rows that were answered
    rows: int = 0  # that counted
    alpha: float | None = None
    level: float = 0.0
    watch: Watch = msgspec.field(default_factory=Watch)
    blame: Blame | None = None

    @property
    def newest(self) -> float | None:
        """The time of the last row."""
        return self.watch.time


class Run(NamedTuple):
    """Rows that were scored at once, with those before them, and the scores of the last of them."""

    rows_TD: Float32
    scores: Scores
    seconds: float


class Answers(NamedTuple):
    """What is said of the rows of one request, those included that came before."""

    answers: NDArray[np.void]  # of ANSWER, [N]
    repeated: int  # the first rows, that came before
    told: "list[Told]"  # what happened to events
    looked: "Looked | None"  # what the model says of the new rows; None where there are none


@dataclass(slots=True)
class Told:
    """An event of this request, and where its peak lies if it does in these rows."""

    span: Span
    peak: int | None
    kinds: list[str]


def rule_for(served: Served, events_per_day: float) -> Rule:
    """The rule of events of a model."""
    window = served.detector.manifest.window
    return rule_of(
        window=served.detector.window,
        interval=window.interval if window else None,
        calibration_rows=served.detector.table.n,
        events_per_day=None if is_counted(served) else events_per_day,
    )


def is_counted(served: Served) -> bool:
    """Whether a model of ordered rows was fitted on rows whose time is a count, or their number."""
    window = served.detector.manifest.window
    return window is not None and window.interval is None


def copy_of(state: State) -> State:
    """One that may be changed while the other is read."""
    span = state.watch.open
    watch = structs.replace(state.watch, open=span and structs.replace(span))
    return structs.replace(state, watch=watch)


def repeated_rows(state: State, rows_ND: Float32, time_N: Float64) -> int:
    """How many of the first rows came before; LateRow where one is not later than the newest, and
    InvalidRow where rows are not in order of time.
    """
    steps = np.diff(time_N)
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0)) + 1
        raise InvalidRow(
            f"row {row} is not later than the row before it; rows come in order of time",
            row=row,
            expected="a later time than that of the row before",
            got=shown_time(time_N[row]),
        )
    if state.newest is None or time_N[0] > state.newest:
        return 0
    newest = shown_time(state.newest)
    count = int(np.searchsorted(time_N, state.newest, side="right"))
    past, digests = np.frombuffer(state.past, ANSWER), _digests(rows_ND[:count])
    places = np.searchsorted(past["time"], time_N[:count])
    for row, place in enumerate(places.tolist()):
        if place == len(past) or past["time"][place] != time_N[row]:
            raise LateRow(f"row {row} is late: the newest row of this entity is of {newest}")
        if past["digest"][place] != digests[row]:
            raise LateRow(
                f"row {row} has the time of a row that came before, and other values; the newest"
                f" row of this entity is of {newest}"
            )
    return count


def advance(
    state: State,
    served: Served,
    rows_ND: Float32,
    time_N: Float64,
    rule: Rule,
    repeated: int,
    *,
    gap: float | None = None,
    entity: str | None = None,
    looked: "Looked | None" = None,
) -> Answers:
    """Take the rows from `repeated` on; errors leave the state as it was. `gap`: seconds, instead
    of the model's; `entity`: whose they are, where the model knows it; `looked`: what the model
    says of these rows, where it was asked already.
    """
    again = NO_ANSWERS
    if repeated:
        again = _answers_again(state, time_N[:repeated])
        rows_ND, time_N = rows_ND[repeated:], time_N[repeated:]
    if not len(rows_ND):
        return Answers(again, repeated, [], None)
    if looked is None:
        looked = _look(state, served, entity, rows_ND, time_N, gap)
    answers = looked.answers
    told = _step(state, served, answers, rule)
    state.features, state.before = looked.features, looked.before.tobytes()
    # numpy takes 30 us to find out that two such arrays are alike
    state.past = (state.past + answers[-PAST:].tobytes())[-PAST * ANSWER.itemsize :]
    state.rows += len(rows_ND)
    if repeated:
        answers = np.concatenate([again, answers])
    return Answers(answers, repeated, told, looked)


def tell(state: State, served: Served, entity: str, answers: Answers) -> list[Event]:
    """The events that opened or closed, after who is to blame was looked for, which takes a while
    where one opened or its peak rose.
    """
    changes = []
    for each in answers.told:
        if each.peak is not None and answers.looked is not None:
            detector = served.detector.of(entity)
            state.blame = _blame(served, detector, answers.looked, each.peak)
        changes += [
            event_in(state, served.name, entity, each.span, is_open=kind == "opened")
            for kind in each.kinds
            if kind != "risen"
        ]
    return changes


def is_warming(state: State, served: Served, features: bytes) -> bool:
    """Whether the next row cannot be judged yet; `features` is features_of(served)."""
    rows = len(state.before) // (4 * served.schema.width)
    return features != state.features or rows < served.detector.window - 1


def event_in(state: State, model: str, entity: str, span: Span, *, is_open: bool) -> Event:
    """The event, with who is to blame as was last found."""
    blame = state.blame or Blame("", [], None)
    return event_of(
        span,
        is_open=is_open,
        model=model,
        version=blame.version,
        entity=entity,
        features=blame.features,
        sentence=blame.sentence,
    )


class Looked(NamedTuple):
    """What the model says of new rows; nothing of the state is changed by it."""

    features: bytes
    before: Float32  # the rows before the next one
    answers: NDArray[np.void]  # of ANSWER, [N]; the levels are not known yet
    contributions_ND: Float32
    warm_ups: int
    series: list[tuple[int, Float32]]  # stretches: the first new row, and it with those before
    runs: list[Run]


class Stretches(NamedTuple):
    """New rows by gaps in time."""

    features: bytes
    before: Float32  # the rows before the next one
    # the first new row and the one after the last, and the rows from those before on
    parts: list[tuple[int, int, Float32]]
    warm_ups: int


def answers_to(
    rows_ND: Float32, time_N: Float64, scores: Scores, warming_N: NDArray[np.bool_]
) -> NDArray[np.void]:
    """Of ANSWER, [N], without the levels, which depend on the rows before."""
    answers = np.empty(len(rows_ND), ANSWER)
    answers["time"], answers["warming"] = time_N, warming_N
    answers["digest"] = _digests(rows_ND)
    answers["score"], answers["p_value"] = scores.score, scores.p_value
    answers["severity"] = scores.severity
    return answers


def stretches_after(
    state: State,
    served: Served,
    rows_ND: Float32,
    time_N: Float64,
    gap: float | None,
    features: bytes,
) -> Stretches:
    """The rows of an entity, each stretch of them after what its windows look back at. `gap`:
    seconds, instead of the model's; `features`: features_of(served).
    """
    if gap is None and (known := served.detector.manifest.window):
        gap = known.gap
    window = served.detector.window
    count, width = rows_ND.shape
    before = np.empty((0, width), np.float32)
    if features == state.features:
        before = np.frombuffer(state.before, np.float32).reshape(-1, width)
    starts, parts, warm_ups = _starts(time_N, gap), [], 0
    for start, stop in zip(starts, [*starts[1:], count], strict=True):
        if start > 0 or _is_after_gap(state, time_N, gap):
            before = before[:0]
        before = before[max(len(before) - window + 1, 0) :]
        warm_ups += window > 1 and not len(before)
        series_TD = np.concatenate([before, rows_ND[start:stop]])
        parts.append((start, stop, series_TD))
        before = series_TD[max(len(series_TD) - window + 1, 0) :]
    return Stretches(features, before, parts, warm_ups)


def _look(
    state: State,
    served: Served,
    entity: str | None,
    rows_ND: Float32,
    time_N: Float64,
    gap: float | None,
) -> Looked:
    detector = served.detector.of(entity)
    window = detector.window
    count, width = rows_ND.shape
    stretches = stretches_after(state, served, rows_ND, time_N, gap, features_of(served))
    score_N, p_value_N, severity_N = (np.full(count, np.nan, np.float32) for _ in range(3))
    contributions_ND = np.full((count, width), np.nan, np.float32)
    warming_N = np.ones(count, np.bool_)
    runs: list[Run] = []
    for _, stop, series_TD in stretches.parts:
        if len(series_TD) < window:
            continue
        began = perf_counter()
        found = detector.explain(series_TD)
        seconds = perf_counter() - began
        first = stop - len(found.score)
        has_enough_M = served.schema.has_enough(rows_ND[first:stop])
        # of a row whose window says nothing a windowed model has no score
        is_wrong_M = np.isinf(found.score) if window > 1 else ~np.isfinite(found.score)
        require_finite(served, np.where(has_enough_M & is_wrong_M, np.inf, 0), first=first)
        for all_N, part_M in (
            (score_N, found.score),
            (p_value_N, found.p_value),
            (severity_N, found.severity),
        ):
            all_N[first:stop] = np.where(has_enough_M, part_M, np.nan)
        contributions_ND[first:stop] = found.contributions
        warming_N[first:stop] = False
        scores = Scores(*(each[first:stop] for each in (score_N, p_value_N, severity_N)))
        runs.append(Run(series_TD, scores, seconds))
    return Looked(
        stretches.features,
        stretches.before,
        answers_to(rows_ND, time_N, Scores(score_N, p_value_N, severity_N), warming_N),
        contributions_ND,
        stretches.warm_ups,
        [(start, series_TD) for start, _, series_TD in stretches.parts],
        runs,
    )


def _starts(time_N: Float64, gap: float | None) -> list[int]:
    """Of stretches without a gap."""
    if gap is None:
        return [0]
    return [0, *(np.flatnonzero(np.diff(time_N) > gap) + 1).tolist()]


def _is_after_gap(state: State, time_N: Float64, gap: float | None) -> bool:
    return gap is not None and state.newest is not None and time_N[0] - state.newest > gap


def _step(state: State, served: Served, answers: NDArray[np.void], rule: Rule) -> list[Told]:
    """Levels and events, row by row; the levels are written to the answers."""
    alpha = served.threshold.alpha
    if state.alpha != alpha:
        state.alpha, state.level = alpha, alpha
    told: dict[int, Told] = {}
    levels = []
    for row, (time, _, _, p_value, severity, _, warming) in enumerate(answers.tolist()):
        levels.append(max(state.level, 0.0))
        if not warming:
            state.level = adapt(state.level, p_value, alpha)
        change = step(state.watch, Judged(time, p_value, severity, warming), rule)
        if change is not None:
            entry = told.setdefault(id(change.span), Told(change.span, None, []))
            entry.kinds.append(change.kind)
            if change.kind != "closed":
                entry.peak = row
    answers["level"] = levels
    return list(told.values())


def _blame(served: Served, detector: Detector, looked: Looked, row: int) -> Blame:
    """Who is to blame for the score of a row: by masking, where the row alarms at the threshold in
    force; else the features that contribute most.
    """
    features = served.schema.features
    start, series_TD = max((each for each in looked.series if each[0] <= row), key=lambda e: e[0])
    stop = len(series_TD) - (_stop_of(looked, start) - row) + 1
    window_TD = np.ascontiguousarray(series_TD[stop - detector.window : stop])
    explanation = detector.explain(window_TD)
    reasons = reasons_of(detector, window_TD, explanation, served.threshold.score)
    sentence = None
    names: list[str] = []
    if reasons is not None:
        (sentence,) = say_why(features, window_TD[-1:], reasons)
        blamed = int(reasons.blamed_N[0])
        columns = reasons.order_ND[0, :blamed].tolist() or list(reasons.groups[0])
        names = [features[column].name for column in columns]
    if not names:
        share_D = np.nan_to_num(explanation.contributions[0])
        order = np.argsort(-share_D, kind="stable")[:MOST_BLAMED].tolist()
        names = [features[d].name for d in order if share_D[d] > 0]
    return Blame(detector.version, names, sentence)


def _stop_of(looked: Looked, start: int) -> int:
    """The new row after the stretch that begins at one."""
    later = [each for each, _ in looked.series if each > start]
    return min(later, default=len(looked.answers))


def _answers_again(state: State, time_N: Float64) -> NDArray[np.void]:
    past = np.frombuffer(state.past, ANSWER)
    return past[np.searchsorted(past["time"], time_N)]


def features_of(served: Served) -> bytes:
    """A digest of names, kinds and categories."""
    said = [(each.name, each.kind, each.categories) for each in served.schema.features]
    return hashlib.blake2b(msgspec.msgpack.encode(said), digest_size=8).digest()


def _digests(rows_ND: Float32) -> list[int]:
    """Of each row's values."""
    # one way to write a zero, and a NaN
    plain_ND = np.where(np.isnan(rows_ND), np.float32(np.nan), rows_ND + np.float32(0))
    cells, size = plain_ND.tobytes(), 4 * rows_ND.shape[1]
    return [
        int.from_bytes(hashlib.blake2b(cells[i : i + size], digest_size=8).digest(), "little")
        for i in range(0, len(cells), size)
    ]


def is_anomaly(served: Served, answers: NDArray[np.void]) -> list[bool | None]:
    """By the threshold in force; None of a row that was not judged."""
    limit = served.threshold.score
    return [None if math.isnan(score) else score > limit for score in answers["score"].tolist()]
