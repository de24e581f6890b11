"""How well a detector finds what happens in series of rows, and how often it calls without cause.

Rows in order of time depend on each other, so what is counted is what a person is told: events, as
the service opens them in a stream, against the labelled ranges of rows. A range is found when an
event opens in it, or within TOLERANCE rows of it, or when an event that opened in a range before
still alarms in it; an event that opens outside of all ranges is a false one. No point adjustment.

Shapes: N rows in order of entity and time, D features, E labelled ranges, V events.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema
from hourglass.service.streams.events import DAY_SECONDS, Judged, Rule, Watch, rule_of, step
from hourglass.service.streams.level import adapt
from hourglass.training.data import group_names, groups, is_clock, times
from hourglass.training.errors import RunError
from hourglass.training.evaluate import BATCH, PARTS
from hourglass.training.vus import BUFFER, Ranges, vus_pr

TOLERANCE = 5  # rows before and after a labelled range in which an event may open
EVENTS_PER_DAY = 1.0  # the budget, of one entity
EVENTS_PER_ROW = 3e-4  # where the time says nothing of days

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Integers = NDArray[np.integer]
Booleans = NDArray[np.bool_]


class Answers(NamedTuple):
    """[N] each, NaN where a row was not judged."""

    score_N: Float32
    p_value_N: Float32
    severity_N: Float32
    warming_N: Booleans  # not enough rows before


class Told(NamedTuple):
    """Events, by the rows that opened them and the last that alarmed."""

    opened_V: Integers
    last_V: Integers


class Matched(NamedTuple):
    found_E: Booleans
    delay_E: Float64  # rows from a range's first to the one that opened an event; NaN if not found
    false: int  # events


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A tenth of the normal rows, by time."""

    first: float  # time, as the column has it; seconds since 1970 of dates
    last: float
    rows: int  # that were judged
    alarms: int
    alarm_rate: float | None
    false_events: int


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector finds of the labelled rows."""

    anomalous_rows: int
    auroc: float
    average_precision: float
    vus_pr: float
    buffer_rows: int  # the longest buffer of VUS-PR
    detection_rate: float  # anomalous rows over the threshold
    ranges: int  # runs of anomalous rows
    ranges_alarmed: int  # with a row over the threshold, or within the tolerance
    ranges_found: int  # by events
    tolerance_rows: int
    median_delay_rows: float | None  # of the ranges that were found


class OrderedEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Rates are shares of judged rows."""

    rows: int
    entities: int
    warming_rows: int  # without enough rows before
    refused_rows: int  # with too few observed cells, as the service would refuse them
    window: int
    is_clock: bool  # times are seconds since 1970; else numbers that order the rows
    alpha: float
    certified: bool
    threshold: float
    normal_rows: int  # that were judged
    false_alarm_rate: float  # normal rows over the threshold
    adaptive_false_alarm_rate: float  # normal rows over the level that adapts to the entity
    worst_block: float  # the highest rate of a block
    blocks: tuple[Block, ...]
    events: int  # that were opened
    false_events: int  # opened outside of the labelled ranges
    false_events_per_10000_rows: float
    false_events_per_day: float | None  # of one entity; None where the time tells no days
    events_per_day: float | None  # the budget; of 10,000 rows where the time tells no days
    found: Found | None = None  # None without labelled anomalies
    seen: float | None = None  # share of rows that fitted or calibrated the model


def evaluate_table(
    detector: Detector,
    frame: pl.DataFrame,
    rows_ND: Float32,
    anomalous_N: Booleans | None,
    *,
    time: str,
    entity: str | None,
    events_per_day: float | None,
) -> OrderedEvaluation:
    """The same of a table's rows, by its columns; RunError says what is wrong with them."""
    for column in (time, entity):
        if column is not None and column not in frame.columns:
            columns = ", ".join(map(repr, frame.columns))
            raise RunError(f"there is no column {column!r}; the columns are {columns}")
    time_N = times(frame[time])
    has_days = is_clock(frame[time], time_N)
    if events_per_day is not None and not (has_days and events_per_day > 0):
        raise RunError(
            f"--events-per-day: expected a number over 0, got {events_per_day:g}"
            if has_days
            else f"--events-per-day: column {time!r} holds no dates or times, so it has no days"
        )
    entity_N: Integers = np.zeros(len(rows_ND), dtype=np.int64)
    names: tuple[str, ...] = ()
    if entity is not None:
        entity_N, names = groups(frame[entity]), group_names(frame[entity])
    return evaluate_ordered(
        detector,
        rows_ND,
        time_N,
        entity_N,
        np.zeros(len(rows_ND), dtype=bool) if anomalous_N is None else anomalous_N,
        is_clock=has_days,
        events_per_day=EVENTS_PER_DAY if events_per_day is None else events_per_day,
        names=names,
    )


def evaluate_ordered(
    detector: Detector,
    rows_ND: Float32,
    time_N: Float64,
    entity_N: Integers,
    anomalous_N: Booleans,
    *,
    is_clock: bool,
    events_per_day: float = EVENTS_PER_DAY,
    names: Sequence[str] = (),
) -> OrderedEvaluation:
    """Rows in any order; `is_clock`: their times are seconds; `names` are the entities', which a
    model with baselines knows them by.

    ValueError when no normal row, or none of the anomalous ones that there are, can be judged.
    """
    order_N = np.lexsort((time_N, entity_N))
    rows_ND, time_N = rows_ND[order_N], time_N[order_N]
    entity_N, anomalous_N = entity_N[order_N], anomalous_N[order_N]
    answers = judge(detector, rows_ND, time_N, entity_N, names)
    judged_N = ~np.isnan(answers.score_N)
    normal_N = judged_N & ~anomalous_N
    if not normal_N.any() or (anomalous_N.any() and not (judged_N & anomalous_N).any()):
        raise ValueError(
            f"evaluation needs normal and labelled rows that can be judged; of {len(rows_ND)},"
            f" {int(answers.warming_N.sum())} have fewer than {detector.window - 1} rows before"
        )
    interval = _interval(time_N, entity_N) if is_clock else None
    rule = rule_of(
        window=detector.window,
        interval=interval or 1.0,
        calibration_rows=detector.manifest.calibration.n,
        events_per_day=events_per_day if is_clock else EVENTS_PER_ROW * DAY_SECONDS,
    )
    clock_N = time_N if is_clock else np.arange(len(time_N), dtype=np.float64)
    told = tell(answers, clock_N, entity_N, rule)
    matched = match(told, Ranges.of(anomalous_N, entity_N), entity_N)
    alarm_N = detector.threshold.is_anomaly(answers.score_N)
    adaptive_N = adaptive_alarms(answers.p_value_N, entity_N, detector.threshold.alpha)
    false_N = np.zeros(len(rows_ND), dtype=bool)
    false_N[told.opened_V[~_in_ranges(told, Ranges.of(anomalous_N, entity_N), entity_N)]] = True
    blocks = _blocks(time_N, normal_N, alarm_N, false_N)
    normal_rows = int(normal_N.sum())
    days = normal_rows * interval / DAY_SECONDS if interval else None
    return OrderedEvaluation(
        rows=len(rows_ND),
        entities=len(np.unique(entity_N)),
        warming_rows=int(answers.warming_N.sum()),
        refused_rows=int((~judged_N & ~answers.warming_N).sum()),
        window=detector.window,
        is_clock=is_clock,
        alpha=detector.threshold.alpha,
        certified=detector.threshold.certified,
        threshold=detector.threshold.score,
        normal_rows=normal_rows,
        false_alarm_rate=float(alarm_N[normal_N].mean()),
        adaptive_false_alarm_rate=float(adaptive_N[normal_N].mean()),
        worst_block=max(block.alarm_rate for block in blocks if block.alarm_rate is not None),
        blocks=blocks,
        events=len(told.opened_V),
        false_events=matched.false,
        false_events_per_10000_rows=matched.false / normal_rows * 1e4,
        false_events_per_day=matched.false / days if days else None,
        events_per_day=events_per_day if is_clock else None,
        found=_found(answers, alarm_N, anomalous_N, entity_N, matched)
        if anomalous_N.any()
        else None,
    )


def judge(
    detector: Detector,
    rows_ND: Float32,
    time_N: Float64,
    entity_N: Integers,
    names: Sequence[str] = (),
) -> Answers:
    """What the detector says of rows in order of entity and time; after a longer step than its
    gap it warms anew. It knows the entities by their names, if at all.
    """
    window = detector.manifest.window
    starts_N = np.ones(len(rows_ND), dtype=bool)
    starts_N[1:] = entity_N[1:] != entity_N[:-1]
    if window is not None and window.gap is not None:
        starts_N[1:] |= np.diff(time_N) > window.gap
    score_N, p_value_N, severity_N = np.full((3, len(rows_ND)), np.nan, dtype=np.float32)
    answers = Answers(score_N, p_value_N, severity_N, np.zeros(len(rows_ND), dtype=bool))
    before = detector.window - 1
    enough_N = Schema.of(detector.manifest).has_enough(rows_ND)
    if before == 0:
        starts = [np.flatnonzero(enough_N)]
        stretches = [each[i : i + BATCH] for each in starts for i in range(0, len(each), BATCH)]
    else:
        stretches = np.split(np.arange(len(rows_ND)), np.flatnonzero(starts_N)[1:])
    for stretch in stretches:
        answers.warming_N[stretch[:before]] = True
        if len(stretch) > before:
            judged = stretch[before:]
            own = detector.of(names[entity_N[stretch[0]]]) if names else detector
            scores = own.score(rows_ND[stretch])
            answers.score_N[judged], answers.p_value_N[judged] = scores.score, scores.p_value
            answers.severity_N[judged] = scores.severity
    for each_N in answers[:3]:
        each_N[~enough_N] = np.nan
    return answers


def tell(answers: Answers, clock_N: Float64, entity_N: Integers, rule: Rule) -> Told:
    """The events that the service opens of these rows, in order of entity and time."""
    opened, last = [], []
    watch, entity = Watch(), None
    for row, (time, own) in enumerate(zip(clock_N.tolist(), entity_N.tolist(), strict=True)):
        if own != entity:
            watch, entity = Watch(), own
        elif time <= (watch.time if watch.time is not None else -np.inf):
            continue  # a row that is repeated counts once, as in a stream
        judged = Judged(
            time,
            float(answers.p_value_N[row]),
            float(answers.severity_N[row]),
            bool(answers.warming_N[row]),
        )
        change = step(watch, judged, rule)
        if change and change.kind == "opened":
            opened.append(row)
            last.append(row)
        if watch.open is not None and watch.open.last == time:
            last[-1] = row
    return Told(np.array(opened, dtype=np.int64), np.array(last, dtype=np.int64))


def match(told: Told, ranges: Ranges, entity_N: Integers, *, tolerance: int = TOLERANCE) -> Matched:
    """Which ranges are found, how late, and how many events are of none of them."""
    true_V = _in_ranges(told, ranges, entity_N, tolerance=tolerance)
    found_E = np.zeros(len(ranges), dtype=bool)
    delay_E = np.full(len(ranges), np.nan)
    for e, (start, stop) in enumerate(zip(ranges.start_E, ranges.stop_E, strict=True)):
        reaches_V = true_V & (told.last_V >= start - tolerance)
        reaches_V &= told.opened_V < stop + tolerance
        reaches_V &= entity_N[told.opened_V] == entity_N[start]
        if reaches_V.any():
            found_E[e] = True
            delay_E[e] = max(int(told.opened_V[reaches_V][0]) - int(start), 0)
    return Matched(found_E, delay_E, int((~true_V).sum()))


def adaptive_alarms(p_value_N: Float32, entity_N: Integers, alpha: float) -> Booleans:
    """Rows at or below their entity's level, which adapts."""
    alarm_N = np.zeros(len(p_value_N), dtype=bool)
    level, entity = alpha, None
    pairs = zip(p_value_N.tolist(), entity_N.tolist(), strict=True)
    for row, (p_value, own) in enumerate(pairs):
        if own != entity:
            level, entity = alpha, own
        alarm_N[row] = p_value <= level
        level = adapt(level, p_value, alpha)
    return alarm_N


def _in_ranges(
    told: Told, ranges: Ranges, entity_N: Integers, *, tolerance: int = TOLERANCE
) -> Booleans:
    """[V] whether an event opens in a labelled range, or within the tolerance."""
    true_V = np.zeros(len(told.opened_V), dtype=bool)
    for start, stop in zip(ranges.start_E, ranges.stop_E, strict=True):
        near_V = (told.opened_V >= start - tolerance) & (told.opened_V < stop + tolerance)
        true_V |= near_V & (entity_N[told.opened_V] == entity_N[start])
    return true_V


def _found(
    answers: Answers,
    alarm_N: Booleans,
    anomalous_N: Booleans,
    entity_N: Integers,
    matched: Matched,
) -> Found:
    """A row that was not judged scores least: it raises no alarm."""
    score_N = np.where(np.isnan(answers.score_N), -np.inf, answers.score_N)
    judged_N = np.isfinite(score_N)
    labels_N, judged_score_N = anomalous_N[judged_N], score_N[judged_N]
    row_V = np.flatnonzero(alarm_N)
    ranges = Ranges.of(anomalous_N, entity_N)
    alarmed = match(Told(row_V, row_V), ranges, entity_N).found_E
    delay_E = matched.delay_E[matched.found_E]
    return Found(
        anomalous_rows=int(labels_N.sum()),
        auroc=float(roc_auc_score(labels_N, judged_score_N)),
        average_precision=float(average_precision_score(labels_N, judged_score_N)),
        vus_pr=vus_pr(labels_N, judged_score_N, entity_N[judged_N]),
        buffer_rows=BUFFER,
        detection_rate=float(alarm_N[judged_N & anomalous_N].mean()),
        ranges=len(ranges),
        ranges_alarmed=int(alarmed.sum()),
        ranges_found=int(matched.found_E.sum()),
        tolerance_rows=TOLERANCE,
        median_delay_rows=float(np.median(delay_E)) if len(delay_E) else None,
    )


def _blocks(
    time_N: Float64, normal_N: Booleans, alarm_N: Booleans, false_N: Booleans
) -> tuple[Block, ...]:
    """PARTS of the rows by time, and what is raised in each of them outside of labelled ranges."""
    by_time_N = np.argsort(time_N, kind="stable")
    blocks = []
    for part in np.array_split(by_time_N, min(PARTS, len(by_time_N))):
        rows = int(normal_N[part].sum())
        alarms = int((alarm_N & normal_N)[part].sum())
        blocks.append(
            Block(
                first=float(time_N[part[0]]),
                last=float(time_N[part[-1]]),
                rows=rows,
                alarms=alarms,
                alarm_rate=alarms / rows if rows else None,
                false_events=int(false_N[part].sum()),
            )
        )
    return tuple(blocks)


def _interval(time_N: Float64, entity_N: Integers) -> float | None:
    """Median seconds between the rows of an entity."""
    steps = np.diff(time_N)[entity_N[1:] == entity_N[:-1]]
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else None
