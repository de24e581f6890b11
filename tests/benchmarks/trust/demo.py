"""The demo's model and broken cells: is the broken feature named first, and do strange rows get an
expected row of their own?

The demo fits `balanced` on the benign rows of the UCI breast cancer data. One of its 30 features is
broken in a benign row: a sensor's error codes, or a slip of units. Shapes: N rows, D features.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer

from tests.benchmarks.trust.product import Fit, Floats
from tests.benchmarks.trust.protocol import Case, Figures, Line, Outcome, Protocol, at_most

PRESET = "balanced"
ROWS_A_FEATURE = 40
FAULTS: dict[str, Callable[[Floats], Floats]] = {
    "-999": lambda value: np.full_like(value, -999.0),
    "65535": lambda value: np.full_like(value, 65535.0),
    "x100": lambda value: value * 100,
    "x1000": lambda value: value * 1000,
}
SAME = 1e-3  # standard deviations between expected values that are one and the same


def measure(case: Case, fit: Fit) -> Figures:
    bunch: Any = load_breast_cancer()
    benign_ND, malignant_ND = bunch.data[bunch.target == 1], bunch.data[bunch.target == 0]
    fitted = fit(benign_ND, preset=PRESET, seed=case.seed)
    threshold = fitted.threshold()
    random = np.random.default_rng(case.seed)
    width = benign_ND.shape[1]
    broken_N = np.repeat(np.arange(width), ROWS_A_FEATURE)
    rows_ND = benign_ND[random.integers(len(benign_ND), size=len(broken_N))]
    at = np.arange(len(broken_N)), broken_N
    figures: dict[str, Any] = {"alpha": fitted.alpha}
    for name, fault in FAULTS.items():
        changed_ND = rows_ND.copy()
        changed_ND[at] = fault(rows_ND[at])
        changed_N = changed_ND[at] != rows_ND[at]  # a zero stays one
        alarmed_N = (fitted.scores(changed_ND) > threshold) & changed_N
        first_N = fitted.explain(changed_ND).order[:, 0]
        figures[f"{name}, alarms"] = float(alarmed_N.sum() / changed_N.sum())
        figures[f"{name}, not named"] = float((first_N != broken_N)[alarmed_N].mean())
    expected_ND = fitted.explain(malignant_ND).expected / benign_ND.std(axis=0)
    _, counts = np.unique(np.round(expected_ND / SAME), axis=0, return_counts=True)
    return figures | {"malignant": len(malignant_ND), "share one expected row": int(counts.max())}


def lines(outcomes: Sequence[Outcome]) -> list[Line]:
    def mean(figure: str) -> float:
        return float(np.mean([outcome.figures[figure] for outcome in outcomes]))

    return [
        at_most(
            f"a gross fault ({', '.join(FAULTS)}) in one of 30 features of a normal row: the"
            " broken feature is not named first, share of alarms",
            [mean(f"{name}, not named") for name in FAULTS],
            (0.01,) * len(FAULTS),
        ),
        at_most(
            f"malignant rows of the demo, of {mean('malignant'):.0f}, that share one expected row",
            [mean("share one expected row")],
            (5,),
            ".0f",
        ),
    ]


PROTOCOL = Protocol(preset=PRESET, source="demo", seeds=2, measure=measure, lines=lines)
