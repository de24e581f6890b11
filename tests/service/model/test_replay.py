"""What other budgets would have done, counted by hand."""

import numpy as np
import pytest
from msgspec import UNSET

from hourglass.service.errors import UncertifiableAlpha
from hourglass.service.model.calibration import Threshold, build_table
from hourglass.service.model.intervals import interval_of
from hourglass.service.model.replay import RowsOutcome, replay, thresholds

# of the scores 1 to 99 a score above 90 has p <= 10 / 100
TABLE = build_table(np.arange(1, 100, dtype=np.float32))
TENTH = TABLE.threshold(0.1, 0.05, certified=False)
SCORES = np.array([1, 95, 96, 2, 99.5, np.nan, 91, 3, 90, 200], np.float32)


def outcome(**options: object) -> RowsOutcome:
    (found,) = replay(TABLE, TENTH, [TENTH], SCORES, **options)  # type: ignore[arg-type]
    return found


def test_alarms_are_the_rows_above_the_threshold_and_a_row_without_a_score_is_none() -> None:
    found = outcome()
    assert (found.threshold, found.p_value_limit, found.in_force) == (90.0, 0.1, True)
    assert found.alarm_rows == [1, 2, 4, 6, 9]
    assert (found.alarms, found.alarm_rate) == (5, 5 / 9)
    assert found.interval == interval_of(5, 9)
    assert found.promised == 0.1
    assert found.severity_limit == TABLE.severities(np.array([90], np.float32))[0]


def test_an_episode_is_of_adjacent_alarms_and_knows_its_peak() -> None:
    episodes = [(each.first, each.last, each.rows, each.peak) for each in outcome().episodes]
    assert episodes == [(1, 2, 2, 2), (4, 4, 1, 4), (6, 6, 1, 6), (9, 9, 1, 9)]
    severities = TABLE.severities(SCORES)
    assert [each.severity for each in outcome().episodes] == severities[[2, 4, 6, 9]].tolist()


def test_precision_and_recall_are_of_labelled_rows_with_a_score() -> None:
    # alarms 1, 2, 4, 6, 9; of row 9 nothing is known, and row 5 has no score
    labels = np.array([0, 1, 0, 1, 1, 1, 0, 0, 0, np.nan])
    found = outcome(labels_N=labels)
    assert (found.precision, found.precision_interval) == (2 / 4, interval_of(2, 4))
    assert (found.recall, found.recall_interval) == (2 / 3, interval_of(2, 3))
    assert (found.false_alarm_rate, found.false_alarm_interval) == (2 / 5, interval_of(2, 5))


def test_without_anomalies_there_is_no_recall_and_without_labels_nothing_of_the_kind() -> None:
    found = outcome(labels_N=np.zeros(10))
    assert (found.recall, found.precision, found.false_alarm_rate) == (None, 0.0, 5 / 9)
    assert (outcome().precision, outcome().recall_interval) == (UNSET, UNSET)


def test_alarms_a_day_are_at_the_pace_given() -> None:
    assert outcome(rows_per_day=1440).alarms_per_day == pytest.approx(800)
    assert outcome().alarms_per_day is UNSET


def test_no_row_at_all_raises_no_alarm() -> None:
    (found,) = replay(TABLE, TENTH, [TENTH], np.empty(0, np.float32), rows_per_day=10)
    assert (found.alarms, found.alarm_rate, found.interval) == (0, None, (0.0, 1.0))
    assert (found.alarm_rows, found.episodes, found.alarms_per_day) == ([], [], None)


def test_the_usual_budgets_are_those_that_can_be_had_with_the_one_in_force() -> None:
    in_force = TABLE.threshold(0.07, 0.05, certified=False)
    assert [each.alpha for each in thresholds(TABLE, in_force)] == [0.1, 0.07, 0.05, 0.02, 0.01]
    certified = Threshold(0.1, 0.05, True, 0, 0.0, 0.0)
    assert [each.alpha for each in thresholds(TABLE, certified)] == [0.1, 0.05]


def test_a_budget_that_is_asked_for_and_cannot_be_had_is_refused() -> None:
    with pytest.raises(UncertifiableAlpha, match=r"alpha = 0\.001 cannot be reached"):
        thresholds(TABLE, TENTH, [0.1, 0.001])


def test_alarms_of_exchangeable_rows_are_as_many_as_promised() -> None:
    """By simulation: over draws of calibration and rows the rate is rank / (n + 1)."""
    draw = np.random.default_rng(0)
    rates = []
    for _ in range(300):
        table = build_table(draw.exponential(size=199).astype(np.float32))
        budget = table.threshold(0.05, 0.05, certified=False)
        (found,) = replay(table, budget, [budget], draw.exponential(size=400).astype(np.float32))
        rates.append(found.alarm_rate)
    error = np.std(rates) / len(rates) ** 0.5
    assert found.promised == 0.05
    assert np.mean(rates) == pytest.approx(0.05, abs=4 * error)
