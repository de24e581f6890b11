"""What is measured of a detector's answers on one test.

Shapes: N rows, E labelled ranges.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from hourglass.service.streams.events import DAY_SECONDS, rule_of
from hourglass.training.evaluate_ordered import Answers, adaptive_alarms, match, tell
from hourglass.training.vus import Ranges, vus_pr
from tests.benchmarks.series.files import LEAD, Test

BUDGETS = (3, 10, 30)  # false events per 10,000 rows
ALPHAS = (0.01, 0.05)


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    found: int  # ranges
    false_events: int
    delays: list[float]  # rows, of the ranges that were found


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    rows: int
    normal_rows: int
    ranges: int
    auroc: float | None  # None without rows of both kinds
    average_precision: float | None
    vus_pr: float | None
    alarm_rates: list[float]  # of normal rows, at ALPHAS
    adaptive_rates: list[float]
    budgets: list[Budget]  # by BUDGETS


def figures(answers: Answers, test: Test, *, window: int, calibration_rows: int) -> Figures:
    """Of the test's rows after the first LEAD."""
    answers = Answers(*(each_N[LEAD:] for each_N in answers))
    anomalous_N = test.anomalous_N[LEAD:]
    entity_N = np.zeros(len(anomalous_N), dtype=np.int64)
    score_N, p_value_N = answers.score_N, answers.p_value_N
    both = 0 < anomalous_N.sum() < len(anomalous_N)
    ranges = Ranges.of(anomalous_N, entity_N)
    budgets = []
    for budget in BUDGETS:
        rule = rule_of(
            window=window,
            interval=1.0,
            calibration_rows=calibration_rows,
            events_per_day=budget / 1e4 * DAY_SECONDS,
        )
        told = tell(answers, np.arange(len(anomalous_N), dtype=np.float64), entity_N, rule)
        matched = match(told, ranges, entity_N)
        budgets.append(
            Budget(
                found=int(matched.found_E.sum()),
                false_events=matched.false,
                delays=matched.delay_E[matched.found_E].tolist(),
            )
        )
    return Figures(
        rows=len(anomalous_N),
        normal_rows=int((~anomalous_N).sum()),
        ranges=len(ranges),
        auroc=float(roc_auc_score(anomalous_N, score_N)) if both else None,
        average_precision=float(average_precision_score(anomalous_N, score_N)) if both else None,
        vus_pr=vus_pr(anomalous_N, score_N) if both else None,
        alarm_rates=[_share(p_value_N <= alpha, ~anomalous_N) for alpha in ALPHAS],
        adaptive_rates=[
            _share(adaptive_alarms(p_value_N, entity_N, alpha), ~anomalous_N) for alpha in ALPHAS
        ],
        budgets=budgets,
    )


def _share(alarm_N: NDArray[np.bool_], normal_N: NDArray[np.bool_]) -> float:
    return float(alarm_N[normal_N].mean())
