"""The same rows fitted again with another seed: are the same rows alarmed, and in the same order?

`balanced` at the certified 5 %, or the run's own alpha where 5 % cannot be certified; as in a
user's refit the seed does not change which rows calibrate. The share of alarms shared is twice the
number in common by the sum of both.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

from tests.benchmarks.trust.product import Fit, Refused
from tests.benchmarks.trust.protocol import (
    Case,
    Figures,
    Line,
    Outcome,
    Protocol,
    at_least,
    over_sets,
    say,
)
from tests.benchmarks.trust.rows import one_class

PRESET = "balanced"
OTHER_SEED = 1000


def measure(case: Case, fit: Fit) -> Figures:
    rows = one_class(case)
    test_ND = np.concatenate([rows.fresh_ND, rows.anomalies_ND])
    scores, alarms = [], []
    for seed in (case.seed, case.seed + OTHER_SEED):
        fitted = fit(rows.fit_ND, preset=PRESET, seed=seed, split_seed=case.seed)
        try:
            threshold = fitted.threshold(0.05)
        except Refused:
            threshold = fitted.threshold()
        scores.append(fitted.scores(test_ND))
        alarms.append(scores[-1] > threshold)
    both, either = (alarms[0] & alarms[1]).sum(), alarms[0].sum() + alarms[1].sum()
    normal = len(rows.fresh_ND)
    both_normal = (alarms[0] & alarms[1])[:normal].sum()
    either_normal = alarms[0][:normal].sum() + alarms[1][:normal].sum()
    return {
        "shared": float(2 * both / either) if either else None,
        "shared, normal": float(2 * both_normal / either_normal) if either_normal else None,
        "Spearman": float(spearmanr(*scores).statistic),
    }


def lines(outcomes: Sequence[Outcome]) -> list[Line]:
    shared = [outcome.figures["shared"] for outcome in outcomes]
    least = min((share for share in shared if share is not None), default=None)
    return [
        at_least(
            f"two equal refits: alarms at 5 % that are shared (of the worst set {say(least)})",
            [over_sets(outcomes, "shared")],
            (0.85,),
        ),
        Line(
            "the same: false alarms that are shared; Spearman of the scores",
            f"{say(over_sets(outcomes, 'shared, normal'))}; {say(over_sets(outcomes, 'Spearman'))}",
        ),
    ]


PROTOCOL = Protocol(preset=PRESET, source="sets", seeds=1, measure=measure, lines=lines)
