"""What is counted of series: by hand where one can count, by simulation where one cannot."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from hourglass.service.model.detector import Detector
from hourglass.service.rows.tables import encode_table
from hourglass.service.streams.events import DAY_SECONDS, rule_of
from hourglass.training.evaluate_ordered import (
    TOLERANCE,
    Answers,
    OrderedEvaluation,
    Told,
    adaptive_alarms,
    evaluate_ordered,
    judge,
    match,
    tell,
)
from hourglass.training.vus import Ranges
from tests.artifacts import make_windowed_artifact, sample_rows
from tests.training import tables
from tests.training.conftest import Outcome, Published

Command = Callable[..., Outcome]
ONE = np.zeros(1000, dtype=np.int64)  # entity


def ranges(*pairs: tuple[int, int]) -> Ranges:
    return Ranges(np.array([a for a, _ in pairs]), np.array([b for _, b in pairs]))


def told(*pairs: tuple[int, int]) -> Told:
    return Told(np.array([a for a, _ in pairs]), np.array([b for _, b in pairs]))


def answers(p_value_N: np.ndarray) -> Answers:
    p_value_N = p_value_N.astype(np.float32)
    return Answers(
        1 / p_value_N, p_value_N, -np.log10(p_value_N), np.zeros(len(p_value_N), dtype=bool)
    )


def test_a_range_is_found_by_an_event_that_opens_in_it_or_within_the_tolerance() -> None:
    wanted = ranges((100, 120), (200, 220), (300, 320), (400, 420))
    raised = told(
        (103, 110),  # found, 3 rows late
        (200 - TOLERANCE, 210),  # early: no delay
        (300 - TOLERANCE - 1, 310),  # opened too early to be of it: a false one, though it lasts
        (420 + TOLERANCE, 430),  # too late
        (700, 700),
    )
    matched = match(raised, wanted, ONE)
    assert matched.found_E.tolist() == [True, True, False, False]
    assert matched.delay_E[:2].tolist() == [3, 0]
    assert np.isnan(matched.delay_E[2:]).all()
    assert matched.false == 3


def test_an_event_that_goes_on_finds_the_next_range_as_well() -> None:
    matched = match(told((110, 205)), ranges((100, 120), (200, 220), (300, 320)), ONE)
    assert (matched.found_E.tolist(), matched.false) == ([True, True, False], 0)
    assert matched.delay_E[:2].tolist() == [10, 0]


def test_an_event_is_of_its_own_entity_alone() -> None:
    entity_N = np.repeat([0, 1], 500)
    matched = match(told((502, 502)), ranges((490, 500)), entity_N)
    assert (matched.found_E.tolist(), matched.false) == ([False], 1)


def test_events_are_those_of_the_service_and_a_repeated_row_counts_once() -> None:
    rule = rule_of(window=30, interval=1.0, calibration_rows=9999, events_per_day=86.4)
    p_value_N = np.full(1000, 0.5)
    p_value_N[[400, 405, 420, 600]] = 2e-5
    clock_N = np.arange(1000.0)
    raised = tell(answers(p_value_N), clock_N, ONE, rule)
    assert (raised.opened_V.tolist(), raised.last_V.tolist()) == ([400, 600], [420, 600])
    clock_N[405:] -= 1  # row 405 repeats the time of row 404
    again = tell(answers(p_value_N), clock_N, ONE, rule)
    assert (again.opened_V.tolist(), again.last_V.tolist()) == ([400, 600], [420, 600])
    two = np.repeat([0, 1], 500)
    assert tell(answers(p_value_N), np.arange(1000.0), two, rule).opened_V.tolist() == [400, 600]


def test_normal_rows_open_no_more_events_than_the_budget_and_alarm_as_the_level_says() -> None:
    random = np.random.default_rng(0)
    p_value_N = random.uniform(1e-5, 1, 40_000) ** 1.3  # the model alarms more than it says
    entity_N = np.repeat([0, 1], 20_000)
    budget = 1e-3
    rule = rule_of(
        window=30, interval=1.0, calibration_rows=99_999, events_per_day=budget * DAY_SECONDS
    )
    raised = tell(answers(p_value_N), np.arange(40_000.0), entity_N, rule)
    assert 5 <= len(raised.opened_V) <= 40_000 * budget + 2 * 5
    alarm_N = adaptive_alarms(p_value_N.astype(np.float32), entity_N, 0.05)
    assert (p_value_N <= 0.05).mean() > 0.09
    assert alarm_N.mean() == pytest.approx(0.05, abs=0.005)


def series(rows: int = 400) -> pl.DataFrame:
    """Rows of two machines a minute apart, mixed; a fault in each, and the labels."""
    begin = datetime(2026, 5, 4, tzinfo=UTC)
    parts = []
    for seed, machine in enumerate(("left", "right")):
        normal = tables.mixed(rows, anomalies=0, seed=seed)
        fault = tables.mixed(20, anomalies=20, seed=seed).filter(pl.col("fault") == 1)
        table = pl.concat([normal[:250], fault, normal[250:]])
        times = [begin + timedelta(minutes=i) for i in range(table.height)]
        parts.append(table.with_columns(pl.Series("at", times), pl.lit(machine).alias("machine")))
    return pl.concat(parts).sample(fraction=1.0, shuffle=True, seed=1)


def test_evaluate_tells_of_ranges_events_and_blocks(
    published: Published, command: Command, tmp_path: Path
) -> None:
    data = tmp_path / "series.parquet"
    series().write_parquet(data)
    flags = "--label fault --time at --entity machine".split()
    outcome = command("evaluate", published.folder, data, *flags, "--json")
    assert outcome.code == 0, outcome.err
    found = msgspec.json.decode(outcome.out, type=OrderedEvaluation)
    assert (found.rows, found.entities, found.warming_rows) == (840, 2, 0)
    assert found.found is not None
    assert (found.found.ranges, found.found.ranges_found, found.found.ranges_alarmed) == (2, 2, 2)
    assert found.found.median_delay_rows == 2  # three rows of five alarm
    assert found.found.vus_pr > 0.8
    assert found.is_clock
    assert found.events_per_day == 1
    assert found.false_events == sum(block.false_events for block in found.blocks)
    assert found.false_events_per_day == pytest.approx(
        found.false_events / (found.normal_rows / 1440)
    )
    assert len(found.blocks) == 10
    assert sum(block.rows for block in found.blocks) == found.normal_rows
    begin = datetime(2026, 5, 4, tzinfo=UTC).timestamp()
    assert (found.blocks[0].first, found.blocks[-1].last) == (begin, begin + 419 * 60)
    # the alarms are the detector's own, whatever order the rows are in
    rows_ND = encode_table(series(), published.detector.manifest.features)
    normal_N = (series()["fault"] == 0).to_numpy()
    alarm_N = published.detector.threshold.is_anomaly(published.detector.score(rows_ND).score)
    assert found.false_alarm_rate == pytest.approx(alarm_N[normal_N].mean())
    printed = command("evaluate", published.folder, data, *flags).out
    assert "2 of 2 labelled ranges by an event" in printed
    assert "Normal rows, by time" in printed


def test_evaluate_of_rows_without_anomalies_tells_of_false_events_and_blocks_alone(
    published: Published, command: Command, tmp_path: Path
) -> None:
    data = tmp_path / "normal.csv"
    table = tables.mixed(500, anomalies=0, seed=5).with_columns(pl.Series("turn", range(500)))
    table.drop("fault").write_csv(data)
    outcome = command("evaluate", published.folder, data, "--time", "turn", "--json")
    assert outcome.code == 0, outcome.err
    found = msgspec.json.decode(outcome.out, type=OrderedEvaluation)
    assert (found.found, found.is_clock, found.false_events_per_day) == (None, False, None)
    assert found.false_events_per_10000_rows == found.false_events / found.normal_rows * 1e4
    assert found.worst_block == max(block.alarm_rate or 0 for block in found.blocks)
    printed = command("evaluate", published.folder, data, "--time", "turn").out
    assert "Without labelled anomalies there is nothing to be found." in printed


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--entity machine", "--entity is of rows in order of time; --time COLUMN names their"),
        ("--events-per-day 2", "--events-per-day is of rows in order of time"),
        ("--time hour", "there is no column 'hour'; the columns are 'load', 'flow'"),
        ("--time at --entity who", "there is no column 'who'"),
        ("--time site", "time column 'site', row 1: expected a date, a time or a number, got"),
        ("--time turn --events-per-day 2", "column 'turn' holds no dates or times, so it has no"),
        ("--time at --events-per-day 0", "--events-per-day: expected a number over 0, got 0"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_sentence(
    published: Published, command: Command, tmp_path: Path, flags: str, said: str
) -> None:
    data = tmp_path / "series.csv"
    table = series(260)
    table.with_columns(pl.Series("turn", range(table.height))).write_csv(data)
    outcome = command("evaluate", published.folder, data, *flags.split())
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert said in outcome.err


def test_rows_that_the_service_would_refuse_are_not_judged(published: Published) -> None:
    rows_ND = encode_table(series(), published.detector.manifest.features)
    rows_ND[7] = np.nan
    judged = judge(published.detector, rows_ND, np.arange(840.0), np.zeros(840, dtype=np.int64))
    assert np.flatnonzero(np.isnan(judged.score_N)).tolist() == [7]
    assert not judged.warming_N.any()


def test_a_model_of_windows_warms_in_each_entity_and_after_each_gap(tmp_path: Path) -> None:
    detector = Detector.from_bytes(make_windowed_artifact(rows=4, gap=10.0))
    rows_ND = sample_rows(detector.manifest.features, 100)
    rows_ND[~np.isfinite(rows_ND)] = 0
    time_N = np.arange(100.0)
    time_N[70:] += 10  # a step of 11 seconds, in the second entity
    entity_N = np.repeat([0, 1], 50)
    found = judge(detector, rows_ND, time_N, entity_N)
    assert np.flatnonzero(found.warming_N).tolist() == [0, 1, 2, 50, 51, 52, 70, 71, 72]
    assert np.isnan(found.score_N[found.warming_N]).all()
    scores = detector.score(rows_ND[52 - 2 : 70])
    np.testing.assert_array_equal(found.score_N[53:70], scores.score)
    evaluated = evaluate_ordered(
        detector, rows_ND, time_N, entity_N, np.zeros(100, dtype=bool), is_clock=True
    )
    assert (evaluated.warming_rows, evaluated.window, evaluated.normal_rows) == (9, 4, 91)
    with pytest.raises(ValueError, match="of 3, 3 have fewer than 3 rows before"):
        evaluate_ordered(
            detector, rows_ND[:3], time_N[:3], ONE[:3], np.zeros(3, dtype=bool), is_clock=True
        )


def test_a_model_of_windows_is_not_evaluated_without_the_time_of_its_rows(
    command: Command, tmp_path: Path
) -> None:
    model, data = tmp_path / "model.onnx", tmp_path / "rows.csv"
    model.write_bytes(make_windowed_artifact(rows=4))
    data.write_text("a,b\n1,2\n")
    outcome = command("evaluate", model, data)
    assert outcome.code == 2
    assert "windows of 4 rows in order of time; --time COLUMN names their time" in outcome.err
