"""Events: what opens and closes one, what it costs, and how often that is."""

import itertools
import math
from collections.abc import Iterable

import msgspec
import numpy as np
import pytest

from hourglass.service.streams.events import (
    DAY_SECONDS,
    Change,
    Judged,
    Rule,
    Watch,
    budget_of,
    event_id,
    event_of,
    lapse,
    rule_of,
    step,
)

MINUTE = 60.0
RULE = Rule(events_per_day=1.0, interval=MINUTE)
ORDINARY, STRANGE = 0.5, 1e-6


def judged(row: int, p_value: float, *, seconds: float = MINUTE, warming: bool = False) -> Judged:
    severity = -math.log10(p_value) if p_value > 0 else math.nan
    return Judged(row * seconds, p_value, severity, warming)


def told(watch: Watch, rows: Iterable[Judged], rule: Rule = RULE) -> list[tuple[float, str]]:
    """When what opened, rose and closed, as rows."""
    return [
        (each.time / MINUTE, change.kind) for each in rows if (change := step(watch, each, rule))
    ]


def at_level(watch: Watch) -> float:
    assert watch.level is not None
    return math.exp(watch.level)


class TestOpening:
    def test_an_event_opens_at_a_p_value_at_or_below_the_level(self) -> None:
        watch = Watch()
        step(watch, judged(0, ORDINARY), RULE)
        level = at_level(watch) * math.exp(1 / 1440)  # as the next row has it
        assert (
            step(msgspec.convert(msgspec.to_builtins(watch), Watch), judged(1, level * 1.001), RULE)
            is None
        )
        change = step(watch, judged(1, level * 0.999), RULE)
        assert change is not None
        assert change.kind == "opened"
        assert change.span.start == change.span.peak == change.span.last == MINUTE

    def test_a_row_multiplies_the_level_by_exp_budget_and_an_opening_divides_it_by_e(self) -> None:
        watch = Watch()
        step(watch, judged(0, ORDINARY), RULE)
        before = watch.level
        step(watch, judged(1, ORDINARY), RULE)
        assert watch.level == pytest.approx(before + 1 / 1440)
        step(watch, judged(2, STRANGE), RULE)
        assert watch.level == pytest.approx(before + 2 / 1440 - 1)
        step(watch, judged(3, STRANGE), RULE)  # the same event, which also earns
        assert watch.level == pytest.approx(before + 3 / 1440 - 1)

    def test_the_severity_goes_on_where_p_values_are_all_the_smallest(self) -> None:
        rule = rule_of(window=30, interval=MINUTE, calibration_rows=999, events_per_day=0.01)
        watch = Watch()
        step(watch, judged(0, ORDINARY), rule)
        assert at_level(watch) == pytest.approx(1e-3 * 10**-1.1, rel=1e-3)
        assert step(watch, Judged(60, 1e-3, 4.0), rule) is None
        assert step(watch, Judged(120, 1e-3, 4.2), rule) is not None

    def test_of_a_model_of_single_rows_three_in_five_open_an_event(self) -> None:
        rule = rule_of(window=1, interval=MINUTE, calibration_rows=999, events_per_day=1)
        rows = [
            STRANGE,
            STRANGE,
            ORDINARY,
            ORDINARY,
            ORDINARY,
            STRANGE,
            ORDINARY,
            STRANGE,
            ORDINARY,
            STRANGE,
        ]
        watch = Watch()
        assert told(watch, [judged(row, p) for row, p in enumerate(rows)], rule) == [(9, "opened")]
        assert watch.open is not None
        assert watch.open.start == 5 * MINUTE
        assert watch.open.rows == 5

    def test_of_a_model_of_windows_one_row_opens_an_event(self) -> None:
        rule = rule_of(window=2, interval=MINUTE, calibration_rows=999, events_per_day=1)
        watch = Watch()
        assert told(watch, [judged(0, ORDINARY), judged(1, STRANGE)], rule) == [(1, "opened")]

    def test_nothing_opens_before_the_rate_of_rows_is_known(self) -> None:
        rule = Rule(events_per_day=1.0)
        watch = Watch()
        assert step(watch, judged(0, STRANGE), rule) is None
        change = step(watch, judged(1, STRANGE), rule)
        assert change is not None
        assert change.span.start == MINUTE

    def test_a_warming_row_counts_for_nothing(self) -> None:
        watch = Watch()
        step(watch, judged(0, ORDINARY), RULE)
        before = watch.level
        assert told(watch, [judged(row, STRANGE, warming=True) for row in range(1, 30)]) == []
        assert watch.level == before


class TestClosing:
    def test_an_event_closes_at_its_last_alarm_after_thirty_quiet_rows(self) -> None:
        watch = Watch()
        rows = [ORDINARY, STRANGE, ORDINARY, STRANGE] + [ORDINARY] * 40
        assert told(watch, [judged(row, p) for row, p in enumerate(rows)]) == [
            (1, "opened"),
            (33, "closed"),
        ]
        assert watch.open is None

    def test_an_alarm_in_the_thirtieth_row_goes_on_with_the_event(self) -> None:
        watch = Watch()
        rows = [ORDINARY, STRANGE] + [ORDINARY] * 29 + [STRANGE] + [ORDINARY] * 29
        assert told(watch, [judged(row, p) for row, p in enumerate(rows)]) == [(1, "opened")]
        assert watch.open is not None
        assert (watch.open.rows, watch.open.quiet) == (31, 29)

    def test_a_row_that_was_an_alarm_at_the_opening_is_not_quiet_below_the_lowered_level(
        self,
    ) -> None:
        watch = Watch()
        step(watch, judged(0, ORDINARY), RULE)
        opened_at = at_level(watch)
        step(watch, judged(1, STRANGE), RULE)
        assert at_level(watch) < opened_at / 2
        for row in range(2, 100):
            assert step(watch, judged(row, opened_at * 0.9), RULE) is None
        assert watch.open is not None

    def test_the_peak_is_told_when_it_rises_and_only_then(self) -> None:
        watch = Watch()
        rows = [ORDINARY, 1e-6, 1e-5, 1e-7, 1e-7]
        assert told(watch, [judged(row, p) for row, p in enumerate(rows)]) == [
            (1, "opened"),
            (3, "risen"),
        ]
        assert watch.open is not None
        assert watch.open.peak == 3 * MINUTE
        assert watch.open.severity == pytest.approx(7)

    def test_a_row_that_could_not_be_judged_is_a_quiet_one(self) -> None:
        watch = Watch()
        told(watch, [judged(0, ORDINARY), judged(1, STRANGE)])
        rows = [Judged(row * MINUTE, math.nan, math.nan) for row in range(2, 40)]
        assert told(watch, rows) == [(31, "closed")]

    def test_warming_rows_neither_close_an_event_nor_go_on_with_it(self) -> None:
        watch = Watch()
        told(watch, [judged(0, ORDINARY), judged(1, STRANGE)])
        assert told(watch, [judged(row, ORDINARY, warming=True) for row in range(2, 60)]) == []
        assert told(watch, [judged(row, ORDINARY) for row in range(60, 100)]) == [(89, "closed")]

    def test_an_event_ends_where_rows_are_never_judged_again(self) -> None:
        watch = Watch()
        told(watch, [judged(0, ORDINARY), judged(1, STRANGE)])
        rows = [judged(row, ORDINARY, warming=True) for row in range(2, 300)]
        assert told(watch, rows) == [(4 * 30 + 2, "closed")]


class TestSilence:
    def test_an_entity_that_falls_silent_closes_its_event_after_thirty_rows_of_time(self) -> None:
        watch = Watch()
        told(watch, [judged(0, ORDINARY), judged(1, STRANGE)])
        assert lapse(watch, 30 * MINUTE, RULE) is None
        change = lapse(watch, 30 * MINUTE + 1, RULE)
        assert change is not None
        assert change == Change("closed", change.span)
        assert change.span.last == MINUTE
        assert lapse(watch, 1e6, RULE) is None  # told once

    def test_the_next_row_after_a_silence_closes_the_event_and_opens_none(self) -> None:
        watch = Watch()
        told(watch, [judged(0, ORDINARY), judged(1, STRANGE)])
        rows = [judged(32, STRANGE), judged(33, 1e-7)]
        assert told(watch, rows) == [(32, "closed"), (33, "opened")]

    def test_a_shorter_gap_goes_on_with_the_event(self) -> None:
        watch = Watch()
        told(watch, [judged(0, ORDINARY), judged(1, STRANGE)])
        assert told(watch, [judged(30, ORDINARY)]) == []
        assert watch.open is not None

    def test_fast_rows_have_a_minute_before_their_silence_ends_an_event(self) -> None:
        rule = Rule(events_per_day=1000, interval=0.01)
        watch = Watch()
        step(watch, judged(0, ORDINARY, seconds=0.01), rule)
        step(watch, judged(1, STRANGE, seconds=0.01), rule)
        assert lapse(watch, 60, rule) is None
        assert lapse(watch, 60.1, rule) is not None

    def test_three_in_five_are_not_counted_across_a_silence(self) -> None:
        rule = rule_of(window=1, interval=MINUTE, calibration_rows=999, events_per_day=1)
        watch = Watch()
        rows = [
            judged(0, ORDINARY),
            judged(1, STRANGE),
            judged(2, STRANGE),
            judged(40, STRANGE),
            judged(41, STRANGE),
        ]
        assert told(watch, rows, rule) == []


class TestBudget:
    def test_the_budget_of_a_row_is_by_the_models_interval_before_rows_have_shown_theirs(
        self,
    ) -> None:
        watch = Watch()
        step(watch, judged(0, ORDINARY), RULE)
        assert budget_of(watch, RULE) == pytest.approx(MINUTE / DAY_SECONDS)

    def test_the_budget_follows_the_median_time_between_rows(self) -> None:
        generator = np.random.default_rng(0)
        watch = Watch()
        time = 0.0
        for row in range(2000):
            step(watch, Judged(time, ORDINARY, 0.3), RULE)
            time += 3600.0 if row % 50 == 0 else float(generator.uniform(8, 12))  # gaps, and 10 s
        assert watch.step == pytest.approx(10, rel=0.1)

    def test_a_day_between_rows_is_no_licence_to_tell_of_each(self) -> None:
        watch = Watch()
        step(
            watch,
            judged(0, ORDINARY, seconds=DAY_SECONDS),
            Rule(events_per_day=50, interval=DAY_SECONDS),
        )
        assert budget_of(watch, Rule(events_per_day=50)) == 0.01

    def test_a_swap_of_the_model_keeps_level_and_event(self) -> None:
        watch = Watch()
        told(watch, [judged(0, ORDINARY), judged(1, STRANGE)])
        span, level = watch.open, watch.level
        other = rule_of(window=1, interval=30.0, calibration_rows=99, events_per_day=1.0)
        assert step(watch, judged(2, ORDINARY), other) is None
        assert watch.open is span
        assert watch.level == pytest.approx(level + 1 / 1440)

    @pytest.mark.parametrize("per_10_000", [3, 10, 30])
    def test_uniform_p_values_open_events_within_the_budget(self, per_10_000: int) -> None:
        """The mean over entities, to within two of its standard errors."""
        rule = Rule(events_per_day=per_10_000 / 1e4 * 1440, interval=MINUTE)
        opened = [count_opened(seed, rule, 10_000) for seed in range(30)]
        mean, error = np.mean(opened), np.std(opened) / math.sqrt(len(opened))
        assert mean <= per_10_000 + 2 * error
        assert mean >= per_10_000 / 5  # a budget is there to be spent

    def test_three_in_five_are_within_the_budget_too(self) -> None:
        rule = rule_of(window=1, interval=MINUTE, calibration_rows=9999, events_per_day=1.44)
        assert np.mean([count_opened(seed, rule, 10_000) for seed in range(20)]) <= 10

    def test_scores_that_only_grow_open_no_more_than_the_budget_and_a_few(self) -> None:
        """Of n rows n budget + log(first / last level): severity ends, and so the level does."""
        rule = rule_of(window=30, interval=MINUTE, calibration_rows=999, events_per_day=1.44)
        watch, opened = Watch(), 0
        for row in range(40_000):
            is_strange = row % 31 == 0  # a new event, could it open, by each of them
            opened += told(
                watch, [Judged(row * MINUTE, 1e-3, 4.0 if is_strange else 0.3)], rule
            ) == [(row, "opened")]
        assert 38 <= opened <= 40 + 3

    @pytest.mark.parametrize("rows", [500, 5000])
    def test_a_level_shift_is_told_once(self, rows: int) -> None:
        generator = np.random.default_rng(1)
        watch = Watch()
        p_values = [*generator.uniform(0.01, 1, 500), *generator.uniform(1e-6, 1e-5, rows)]
        changes = told(watch, [judged(row, p) for row, p in enumerate(p_values)])
        assert [row for row, kind in changes if kind != "risen"] == [500]


class TestEvents:
    def test_ids_are_of_model_entity_and_start_and_of_nothing_else(self) -> None:
        ids = [event_id(*each) for each in itertools.product(("a", "b"), ("c", "d"), (1.0, 2.0))]
        assert len(set(ids)) == 8
        assert event_id("a", "c", 1.0) == ids[0]
        assert event_id("ab", "c", 1.0) != event_id("a", "bc", 1.0)

    def test_an_event_keeps_its_id_from_opening_to_closing(self) -> None:
        watch, events = Watch(), []
        for row, p_value in enumerate([ORDINARY, 1e-6, 1e-7] + [ORDINARY] * 30):
            if change := step(watch, judged(row, p_value), RULE):
                events.append(
                    event_of(
                        change.span,
                        is_open=change.kind != "closed",
                        model="m",
                        version="v",
                        entity="e",
                        features=["load"],
                        sentence=None,
                    )
                )
        assert len({each.id for each in events}) == 1
        assert [each.end is None for each in events] == [True, True, False]
        assert msgspec.json.decode(msgspec.json.encode(events[2])) == {
            "id": events[0].id,
            "model": "m",
            "version": "v",
            "entity": "e",
            "start": "1970-01-01T00:01:00Z",
            "peak": "1970-01-01T00:02:00Z",
            "end": "1970-01-01T00:02:00Z",
            "end_reason": "quiet",
            "last": "1970-01-01T00:02:00Z",
            "open": False,
            "rows": 2,
            "severity": pytest.approx(7),
            "p_value": 1e-7,
            "features": ["load"],
            "sentence": None,
        }

    def test_a_watch_that_was_written_and_read_goes_on_alike(self) -> None:
        generator = np.random.default_rng(2)
        rule = rule_of(window=1, interval=None, calibration_rows=999, events_per_day=20)
        kept, written = Watch(), Watch()
        told_of = 0
        for row in range(2000):
            p_value = 1e-5 if row % 60 > 54 else float(generator.uniform())
            written = msgspec.msgpack.decode(msgspec.msgpack.encode(written), type=Watch)
            change = step(kept, judged(row, p_value), rule)
            assert step(written, judged(row, p_value), rule) == change
            told_of += change is not None
        assert written == kept
        assert told_of >= 8

    def test_a_watch_is_small(self) -> None:
        watch = Watch()
        rule = rule_of(window=1, interval=None, calibration_rows=999, events_per_day=20)
        told(watch, [judged(row, STRANGE) for row in range(10)], rule)
        assert len(msgspec.msgpack.encode(watch)) < 400


def count_opened(seed: int, rule: Rule, rows: int) -> int:
    watch, opened = Watch(), 0
    for row, p_value in enumerate(np.random.default_rng(seed).uniform(size=rows).tolist()):
        change = step(watch, Judged(row * MINUTE, p_value, -math.log10(p_value)), rule)
        opened += change is not None and change.kind == "opened"
    return opened
