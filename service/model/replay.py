"""Replay: what other false-alarm budgets would have done with rows that have their scores.

Shapes: N rows.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from hourglass.service.errors import UncertifiableAlpha
from hourglass.service.model.calibration import Table, Threshold
from hourglass.service.model.intervals import interval_of

Float32 = NDArray[np.float32]
Interval = tuple[float, float]  # of 95 %, by Clopper and Pearson

USUAL_ALPHAS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one budget does: a row alarms if its score is above `threshold`, which is if its p-value
    is at most `p_value_limit`.
    """

    alpha: float
    delta: float
    in_force: bool  # whether it is the model's budget at the moment
    p_value_limit: float
    severity_limit: float  # that of the threshold; more severe rows alarm
    threshold: float
    promised: float  # share of normal rows expected above the threshold
    alarms: int
    alarm_rate: float | None  # None without rows
    interval: Interval
    alarms_per_day: float | UnsetType | None = UNSET


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """Alarms of adjacent rows, of rows in order of one entity, from `first` to `last`; rows count
    from 0.
    """

    first: int
    last: int
    rows: int
    peak: int  # the row of the highest score
    severity: float  # of that row


class RowsOutcome(Outcome, frozen=True, kw_only=True):
    """What one budget does with rows that are all known."""

    alarm_rows: list[int]  # from 0
    episodes: list[Episode]
    # from here on of labelled rows alone, and absent without labels; None where nothing is to count
    precision: float | UnsetType | None = UNSET  # share of anomalies among alarms
    precision_interval: Interval | UnsetType = UNSET
    recall: float | UnsetType | None = UNSET  # share of alarms among anomalies
    recall_interval: Interval | UnsetType = UNSET
    false_alarm_rate: float | UnsetType | None = UNSET  # share of alarms among normal rows
    false_alarm_interval: Interval | UnsetType = UNSET


def thresholds(table: Table, in_force: Threshold, alphas: Sequence[float] = ()) -> list[Threshold]:
    """Those of these alphas by the rule in force; UncertifiableAlpha where one cannot be had. Of
    none, the usual ones that can be had, with the one in force.
    """
    of = partial(table.threshold, delta=in_force.delta, certified=in_force.certified)
    if alphas:
        return [of(alpha) for alpha in alphas]
    found = []
    for alpha in sorted({*USUAL_ALPHAS, in_force.alpha}, reverse=True):
        with suppress(UncertifiableAlpha):
            found.append(of(alpha))
    return found


def replay(
    table: Table,
    in_force: Threshold,
    budgets: Sequence[Threshold],
    score_N: Float32,
    *,
    labels_N: NDArray[np.float64] | None = None,
    rows_per_day: float | None = None,
    order_N: NDArray[np.intp] | None = None,
) -> list[RowsOutcome]:
    """What each budget does with [N] scores, NaN of a row that has none; of labels 1 is an anomaly,
    0 a normal row, NaN neither. `order_N` is the order in which rows are adjacent, if another.
    """
    order_N = np.arange(len(score_N)) if order_N is None else order_N
    known_N = ~np.isnan(score_N)
    severity_N, rows = table.severities(score_N), int(known_N.sum())
    outcomes = []
    for budget in budgets:
        alarm_N = budget.is_anomaly(score_N)
        alarms = int(alarm_N.sum())
        outcomes.append(
            RowsOutcome(
                **facts_of(table, in_force, budget, alarms, rows, rows_per_day),
                alarm_rows=np.flatnonzero(alarm_N).tolist(),
                episodes=_episodes(alarm_N, score_N, severity_N, order_N),
                **({} if labels_N is None else _by_labels(alarm_N & known_N, labels_N, known_N)),
            )
        )
    return outcomes


def facts_of(
    table: Table,
    in_force: Threshold,
    budget: Threshold,
    alarms: int,
    rows: int,
    rows_per_day: float | None,
) -> dict[str, Any]:
    """The fields of an Outcome."""
    rate = alarms / rows if rows else None
    per_day = {} if rows_per_day is None else {"alarms_per_day": rate and rate * rows_per_day}
    return {
        "alpha": budget.alpha,
        "delta": budget.delta,
        "in_force": budget == in_force,
        "p_value_limit": budget.expected_false_alarm_rate,
        "severity_limit": float(table.severities(np.array([budget.score], np.float32))[0]),
        "threshold": budget.score,
        "promised": budget.expected_false_alarm_rate,
        "alarms": alarms,
        "alarm_rate": rate,
        "interval": interval_of(alarms, rows),
        **per_day,
    }


def _episodes(
    alarm_N: NDArray[np.bool_],
    score_N: Float32,
    severity_N: Float32,
    order_N: NDArray[np.intp],
) -> list[Episode]:
    edges = np.flatnonzero(np.diff(alarm_N[order_N], prepend=False, append=False))
    episodes = []
    for first, end in edges.reshape(-1, 2).tolist():
        rows = order_N[first:end]
        peak = int(rows[score_N[rows].argmax()])
        episodes.append(
            Episode(
                first=int(rows[0]),
                last=int(rows[-1]),
                rows=end - first,
                peak=peak,
                severity=float(severity_N[peak]),
            )
        )
    return episodes


def _by_labels(
    alarm_N: NDArray[np.bool_], labels_N: NDArray[np.float64], known_N: NDArray[np.bool_]
) -> dict[str, Any]:
    anomalous_N, normal_N = (labels_N == 1) & known_N, (labels_N == 0) & known_N
    found, false = int((alarm_N & anomalous_N).sum()), int((alarm_N & normal_N).sum())
    anomalies, normals = int(anomalous_N.sum()), int(normal_N.sum())
    facts: dict[str, Any] = {}
    for name, hits, rows in (
        ("precision", found, found + false),
        ("recall", found, anomalies),
        ("false_alarm", false, normals),
    ):
        rate = f"{name}_rate" if name == "false_alarm" else name
        facts |= {rate: hits / rows if rows else None, f"{name}_interval": interval_of(hits, rows)}
    return facts
