"""Rows in random order: how often is a certified rate exceeded, and what does the certificate cost?

`fast`, ten random splits a set, fresh normal rows up to about 20,000. A pair of set and split is
over when the share of fresh rows that alarm is over alpha: a certificate may miss that in delta =
5 % of draws, and fresh rows in finite number add their own noise; what a valid certificate of a
single split gives with as many fresh rows is said beside. Detection is beside that of an
oracle's threshold, which knows the fresh normal scores.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import betabinom

from hourglass.service.model.calibration import certified_rank
from tests.benchmarks.trust.product import Fit, Refused
from tests.benchmarks.trust.protocol import (
    Case,
    Figures,
    Line,
    Outcome,
    Protocol,
    at_most,
    over_cases,
    over_sets,
    say,
)
from tests.benchmarks.trust.rows import one_class, oracle, share_above

PRESET = "fast"
ALPHAS = (0.01, 0.05, 0.10)
DELTA = 0.05


def measure(case: Case, fit: Fit) -> Figures:
    rows = one_class(case)
    fitted = fit(rows.fit_ND, preset=PRESET, seed=case.seed)
    fresh_N, anomaly_N = fitted.scores(rows.fresh_ND), fitted.scores(rows.anomalies_ND)
    figures: dict[str, Any] = {
        "n": fitted.n,
        "guarantee": fitted.guarantee,
        "warnings": list(fitted.warnings),
    }
    for alpha in ALPHAS:
        try:
            threshold = fitted.threshold(alpha)
        except Refused:
            continue
        rate = share_above(threshold, fresh_N)
        figures |= {
            f"over, {alpha:g}": float(rate > alpha),
            f"expected over, {alpha:g}": expected_over(fitted.n, alpha, len(fresh_N)),
            f"used, {alpha:g}": rate / alpha,
            f"detection, {alpha:g}": share_above(threshold, anomaly_N),
            f"oracle, {alpha:g}": share_above(oracle(fresh_N, alpha), anomaly_N),
        }
    return figures


def expected_over(n: int, alpha: float, fresh: int) -> float:
    """How often a certificate from n exchangeable rows is over alpha on as many fresh ones: given
    the calibration rows, the rate is a Beta(m, n + 1 - m) variable (Vovk, ACML 2012, prop. 2a).
    """
    rank = certified_rank(n, alpha, DELTA)
    return float(betabinom.sf(np.floor(alpha * fresh), fresh, rank, n + 1 - rank))


def lines(outcomes: Sequence[Outcome]) -> list[Line]:
    def said(figure: str) -> str:
        return " / ".join(say(over_sets(outcomes, f"{figure}, {alpha:g}")) for alpha in ALPHAS)

    expected = " / ".join(
        say(over_cases(outcomes, f"expected over, {alpha:g}")) for alpha in ALPHAS
    )
    warned = float(np.mean([bool(outcome.figures["warnings"]) for outcome in outcomes]))
    return [
        at_most(
            "the same, shuffled, certified 1 / 5 / 10 %: (set, split) pairs over alpha (of a valid"
            f" certificate with as many fresh rows {expected})",
            [over_cases(outcomes, f"over, {alpha:g}") for alpha in ALPHAS],
            (0.06,) * len(ALPHAS),
        ),
        Line("the same: false-alarm rate / alpha", said("used")),
        Line("the same: detection, of an oracle's", f"{said('detection')} of {said('oracle')}"),
        at_most("the same: pairs of which the run warns without need", [warned], (0.06,)),
    ]


PROTOCOL = Protocol(preset=PRESET, source="sets", seeds=10, measure=measure, lines=lines)
