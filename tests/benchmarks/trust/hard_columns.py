"""Columns that a model may be blind to, made up: one that was empty in all training rows, one of two
thousand, and one whose variation is smaller than a float32's step at its size.

Each answers with the share of rows with a gross error in that column that alarm at the default
alpha, or with the product's refusal, which is as good. Shapes: N rows, D features, K factors.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.benchmarks.trust.product import Fit, Floats, Refused
from tests.benchmarks.trust.protocol import Case, Figures, Line, Outcome, Protocol, say

PRESET = "fast"
FRESH = 200
ALARMS = 0.99  # of the rows, to have been seen


def measure(case: Case, fit: Fit) -> Figures:
    figures: dict[str, Any] = {}
    for name, make in COLUMNS.items():
        fit_ND, broken_ND = make(np.random.default_rng(case.seed))
        try:
            fitted = fit(fit_ND, preset=PRESET, seed=case.seed)
            figures[name] = float((fitted.scores(broken_ND) > fitted.threshold()).mean())
        except Refused as reason:
            figures[name], figures[f"{name}, refused"] = None, str(reason)
    return figures


def _empty(random: np.random.Generator) -> tuple[Floats, Floats]:
    """Later every row has a value there."""
    rows_ND = _correlated(1000 + FRESH, 8, random)
    rows_ND[:1000, 3] = np.nan
    rows_ND[1000:, 3] = 1000.0
    return rows_ND[:1000], rows_ND[1000:]


def _wide(random: np.random.Generator) -> tuple[Floats, Floats]:
    """300 rows of 2,000 columns, one column off by 60 standard deviations."""
    rows_ND = _correlated(300 + FRESH, 2000, random)
    rows_ND[300:, 7] += 60 * rows_ND[:300, 7].std()
    return rows_ND[:300], rows_ND[300:]


def _offset(random: np.random.Generator) -> tuple[Floats, Floats]:
    """A column of 1e9 ± 5, off by 30, which is half a step of a float32 there; in a column of 0 ± 5
    it alarms.
    """
    return _around(1e9, random)


def _no_offset(random: np.random.Generator) -> tuple[Floats, Floats]:
    return _around(0.0, random)


def _around(center: float, random: np.random.Generator) -> tuple[Floats, Floats]:
    rows_ND = _correlated(1000 + FRESH, 5, random)
    rows_ND[:, 2] = center + 5 * random.normal(size=len(rows_ND))
    rows_ND[1000:, 2] = center + 30
    return rows_ND[:1000], rows_ND[1000:]


def _correlated(rows: int, width: int, random: np.random.Generator) -> Floats:
    """Three factors and noise."""
    factors_NK = random.normal(size=(rows, 3))
    noise_ND = 0.5 * random.normal(size=(rows, width))
    return factors_NK @ random.normal(size=(3, width)) + noise_ND


COLUMNS: dict[str, Callable[[np.random.Generator], tuple[Floats, Floats]]] = {
    "a column that was empty in all training rows, later full": _empty,
    "300 rows of 2,000 columns, one column off by 60 sd": _wide,
    "a column of 1e9 ± 5, off by 6 sd": _offset,
    "the same column of 0 ± 5 (for comparison)": _no_offset,
}


def lines(outcomes: Sequence[Outcome]) -> list[Line]:
    return [_line(name, outcomes) for name in COLUMNS]


def _line(name: str, outcomes: Sequence[Outcome]) -> Line:
    shares = [outcome.figures[name] for outcome in outcomes]
    if None in shares:
        return Line(name, "refused", "alarms or is refused", met=True)
    share = float(np.mean(shares))
    return Line(name, f"{say(share)} alarm", "alarms or is refused", share >= ALARMS)


PROTOCOL = Protocol(preset=PRESET, source="made up", seeds=1, measure=measure, lines=lines)
