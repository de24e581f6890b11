"""Few rows: what is found at 5 % after fitting 300, 100 or 60 normal rows, and is the rate kept?

`fast`, ten draws a set, of sets that have 500 normal rows besides. Where the product refuses 5 %,
nothing is found; beside it stands what it offers instead. An oracle knows the fresh rows' scores
and uses the whole budget. No rule of rank that holds in 95 % of draws may do that: its rate is on
average at most that of the certified rank, so that the oracle at that rate bounds what can be had.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hourglass.service.model.calibration import certified_rank
from tests.benchmarks.trust.product import Fit, Refused
from tests.benchmarks.trust.protocol import (
    Case,
    Figures,
    Line,
    Outcome,
    Protocol,
    at_least,
    at_most,
    over_cases,
    over_sets,
    say,
)
from tests.benchmarks.trust.rows import draw, oracle, share_above

PRESET = "fast"
ALPHA, DELTA = 0.05, 0.05
COUNTS = (300, 100, 60)
FRESH = 500


def measure(case: Case, fit: Fit) -> Figures:
    figures: dict[str, Any] = {}
    for count in COUNTS:
        rows = draw(case, count, FRESH)
        offered = fit(rows.fit_ND, preset=PRESET, seed=case.seed)
        fresh_N, anomaly_N = offered.scores(rows.fresh_ND), offered.scores(rows.anomalies_ND)
        figures |= {
            f"offered alpha, {count}": offered.alpha,
            f"offered detection, {count}": share_above(offered.threshold(), anomaly_N),
            f"oracle, {count}": share_above(oracle(fresh_N, ALPHA), anomaly_N),
        }
        try:
            fitted = fit(rows.fit_ND, preset=PRESET, seed=case.seed, alpha=ALPHA)
        except Refused:
            figures[f"refused, {count}"] = 1.0
            continue
        threshold = fitted.threshold()
        rate = share_above(threshold, fitted.scores(rows.fresh_ND))
        bound = oracle(fresh_N, certified_rank(count, ALPHA, DELTA) / (count + 1))
        figures |= {
            f"refused, {count}": 0.0,
            f"guarantee, {count}": fitted.guarantee,
            f"detection, {count}": share_above(threshold, fitted.scores(rows.anomalies_ND)),
            f"over, {count}": float(rate > ALPHA),
            f"used, {count}": rate / ALPHA,
            f"bound, {count}": share_above(bound, anomaly_N),
        }
    return figures


def lines(outcomes: Sequence[Outcome]) -> list[Line]:
    def found(count: int) -> float | None:
        """None where most draws were refused: what is left is no answer to the question."""
        refused = over_cases(outcomes, f"refused, {count}")
        return None if refused > 0.5 else over_sets(outcomes, f"detection, {count}")

    def each(figure: str, counts: Sequence[int] = COUNTS) -> str:
        return " / ".join(say(over_sets(outcomes, f"{figure}, {count}")) for count in counts)

    def alphas(count: int) -> str:
        values = [outcome.figures[f"offered alpha, {count}"] for outcome in outcomes]
        return f"{np.mean(values):.0%}"

    counts = " / ".join(map(str, COUNTS))
    return [
        at_least(
            f"300 rows, 5 %; 100 and 60 rows, 5 %: detection (an oracle's: {each('oracle')}; at the"
            f" rate of the certified rank: {each('bound')})",
            [found(count) for count in COUNTS],
            (0.54, 0.30, 0.30),
        ),
        at_most(
            "the same: draws over alpha",
            [over_cases(outcomes, f"over, {count}") for count in COUNTS],
            (0.06,) * len(COUNTS),
        ),
        Line("the same: draws in which 5 % is refused", each("refused")),
        Line("the same: false-alarm rate / alpha", each("used")),
        Line(
            f"{counts} rows, what is offered by default: mean alpha; detection",
            f"{' / '.join(map(alphas, COUNTS))}; {each('offered detection')}",
        ),
    ]


PROTOCOL = Protocol(preset=PRESET, source="sets", seeds=10, measure=measure, lines=lines)
