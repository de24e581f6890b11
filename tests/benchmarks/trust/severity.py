"""One severity, many models: is a normal row as rarely as severe on one as on another?

`fast`, ten random splits a set. The spread is between sets, each over all its splits and over at
least 10,000 fresh normal rows: the largest probability that a normal row's ratio of score and
threshold is over 1.5, by the smallest, and where the product has a severity the same for a severity
over 3. A draw is within 3 when the share of fresh normal rows at least as severe as p = 1 / (n + 1)
is within a factor of 3 of it, in splits with five times as many fresh rows as calibration rows;
where there is no severity, the p-value stands in. Of five fresh rows that are due two or more come
in 96 % of draws, and a tail of few scores is uncertain: how often a draw is within 3 when scores
are exponential, so that the tail that is fitted is of the right kind, is said beside.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import numpy as np

from hourglass.service.model.severity import fit_tail
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
    say,
)
from tests.benchmarks.trust.rows import one_class

PRESET = "fast"
RATIO = 1.5
SEVERITY = 3.0
FACTOR = 3.0
FRESH = 10_000  # of a set's splits together, to tell a probability of some 1e-3
TIMES = 5  # as many fresh rows as calibration rows, to tell 1 / n
DRAWS = 200  # of exponential scores


def measure(case: Case, fit: Fit) -> Figures:
    rows = one_class(case)
    fitted = fit(rows.fit_ND, preset=PRESET, seed=case.seed)
    score_N, severity_N = fitted.scores(rows.fresh_ND), fitted.severities(rows.fresh_ND)
    smallest = 1 / (fitted.n + 1)
    if severity_N is None:
        at_smallest = float((fitted.p_values(rows.fresh_ND) < 1.5 * smallest).mean())
    else:
        at_smallest = float((severity_N >= -np.log10(smallest)).mean())
    enough = len(score_N) >= TIMES * fitted.n
    return {
        "n": fitted.n,
        "fresh": len(score_N),
        "ratio": int((score_N > RATIO * fitted.threshold()).sum()),
        "severe": None if severity_N is None else int((severity_N > SEVERITY).sum()),
        "at smallest": at_smallest,
        "within": float(smallest / FACTOR <= at_smallest <= FACTOR * smallest) if enough else None,
        "expected within": expected_within(fitted.n, len(score_N)) if enough else None,
    }


@cache
def expected_within(n: int, fresh: int) -> float:
    """How often the share of so many fresh rows is within FACTOR of 1 / (n + 1), when all scores
    are exponential.
    """
    random, smallest, within = np.random.default_rng(n), 1 / (n + 1), 0
    for _ in range(DRAWS):
        tail = fit_tail(np.sort(random.exponential(size=n)))
        assert tail is not None
        probability = math.exp(-tail.score(-math.log10(smallest)))
        share = random.binomial(fresh, probability) / fresh
        within += smallest / FACTOR <= share <= FACTOR * smallest
    return within / DRAWS


def lines(outcomes: Sequence[Outcome]) -> list[Line]:
    within = over_cases(outcomes, "within")
    by_severity = _probabilities(outcomes, "severe")
    by_ratio = _probabilities(outcomes, "ratio")
    spread = at_most(
        f"the largest of these probabilities by the smallest, over {len(by_severity)} models, at"
        " severity 3",
        [_spread(by_severity)],
        (FACTOR**2,),
        ".1f",
    )
    return [
        Line(
            f"P(normal row) at ratio 1.5 over {len(by_ratio)} models: smallest, largest",
            f"{min(by_ratio):.1e}, {max(by_ratio):.1e}: a factor of {say(_spread(by_ratio), '.0f')}"
            if by_ratio
            else "none",
        ),
        *([spread] if by_severity else []),
        at_least(
            "P(normal row) at the severity (or p-value) of 1/n: draws within a factor of 3 (of"
            f" exponential scores in such numbers: {say(over_cases(outcomes, 'expected within'))})",
            [within],
            (0.85,),
        ),
    ]


def _probabilities(outcomes: Sequence[Outcome], figure: str) -> list[float]:
    """Of the sets with enough fresh rows. Where none is that strange, half a row is counted."""
    counts: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.figures[figure] is not None:
            counts[outcome.set].append((outcome.figures[figure], outcome.figures["fresh"]))
    totals = [np.sum(pairs, axis=0) for pairs in counts.values()]
    return [float(max(strange, 0.5) / fresh) for strange, fresh in totals if fresh >= FRESH]


def _spread(probabilities: Sequence[float]) -> float | None:
    return max(probabilities) / min(probabilities) if probabilities else None


PROTOCOL = Protocol(preset=PRESET, source="sets", seeds=10, measure=measure, lines=lines)
