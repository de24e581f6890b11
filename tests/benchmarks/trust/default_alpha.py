"""The budget that a run chooses by itself: what does it find, how much of the budget does it use,
and can the found be told apart?

`fast`, ten random splits a set. Found anomalies share the smallest p-value where they are equal to
it; with a severity, where theirs is within .01 of the highest.
"""

from collections.abc import Sequence

import numpy as np

from tests.benchmarks.trust.product import Fit
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
from tests.benchmarks.trust.rows import one_class, oracle, share_above

PRESET = "fast"
ALIKE = 0.01  # of severity


def measure(case: Case, fit: Fit) -> Figures:
    rows = one_class(case)
    fitted = fit(rows.fit_ND, preset=PRESET, seed=case.seed)
    threshold, alpha = fitted.threshold(), fitted.alpha
    fresh_N, anomaly_N = fitted.scores(rows.fresh_ND), fitted.scores(rows.anomalies_ND)
    rate = share_above(threshold, fresh_N)
    found_ND = rows.anomalies_ND[anomaly_N > threshold]
    severity_N = fitted.severities(found_ND) if len(found_ND) else None
    return {
        "n": fitted.n,
        "alpha": alpha,
        "guarantee": fitted.guarantee,
        "detection": share_above(threshold, anomaly_N),
        "oracle": share_above(oracle(fresh_N, alpha), anomaly_N),
        "used": rate / alpha,
        "over": float(rate > alpha),
        "smallest p-value": float((fitted.p_values(found_ND) < 1.5 / (fitted.n + 1)).mean())
        if len(found_ND)
        else None,
        "highest severity": None
        if severity_N is None
        else float((severity_N > severity_N.max() - ALIKE).mean()),
    }


def lines(outcomes: Sequence[Outcome]) -> list[Line]:
    alphas = [outcome.figures["alpha"] for outcome in outcomes]
    chosen = ", ".join(
        f"{alpha:.0%} {np.mean(np.equal(alphas, alpha)):.0%}" for alpha in sorted(set(alphas))
    )
    smallest, highest = (
        over_sets(outcomes, figure) for figure in ("smallest p-value", "highest severity")
    )
    return [
        at_least(
            "default alpha: detection of the certified threshold (an oracle's at the same alpha:"
            f" {say(over_sets(outcomes, 'oracle'))})",
            [over_sets(outcomes, "detection")],
            (0.62,),
        ),
        at_least("the same: false-alarm rate / alpha", [over_sets(outcomes, "used")], (0.55,)),
        Line(
            "the same: pairs over alpha; alphas chosen",
            f"{say(over_cases(outcomes, 'over'))}; {chosen}",
        ),
        at_most(
            "detected anomalies that share the smallest p-value"
            + ("" if highest is None else f" ({say(smallest)}), or the highest severity"),
            [smallest if highest is None else highest],
            (0.30,),
        ),
    ]


PROTOCOL = Protocol(preset=PRESET, source="sets", seeds=10, measure=measure, lines=lines)
