"""Does `explain` name the cells that were changed, and what was expected there?

Fresh normal rows with one cell, or three, moved by 3 or 6 standard deviations up or down, or
swapped with another row's (another value, else nothing would have changed). Alarmed rows are those
over the certified threshold of 5 %, or over the run's own where 5 % cannot be certified. The error
of the expected value is its mean distance from the true one, in standard deviations of the feature.

Shapes: N rows, D features, C changed cells of a row.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.trust.product import Fit, Fitted, Floats, Integers, Refused
from tests.benchmarks.trust.protocol import (
    Case,
    Figures,
    Line,
    Outcome,
    Protocol,
    at_least,
    at_most,
    over_sets,
    say,
)
from tests.benchmarks.trust.rows import one_class

PRESET = "balanced"
ROWS = 300  # at most, of each kind of change
FEWEST_ALARMS = 10  # that a share of them says something
SHIFTS = {"3 sd": 3.0, "6 sd": 6.0}
KINDS = (*SHIFTS, "swap")
TRIES = 200


def measure(case: Case, fit: Fit) -> Figures:
    rows = one_class(case)
    fitted = fit(rows.fit_ND, preset=PRESET, seed=case.seed)
    try:
        threshold = fitted.threshold(0.05)
    except Refused:
        threshold = fitted.threshold()
    mean_D = rows.fit_ND.mean(axis=0, dtype=np.float64)
    sd_D = rows.fit_ND.std(axis=0, dtype=np.float64)
    true_ND = rows.fresh_ND[:ROWS].astype(np.float64)
    random = np.random.default_rng(case.seed)
    figures: dict[str, Any] = {"rows": len(true_ND)}
    for kind in KINDS:
        changed_ND, cells_NC = change(true_ND, sd_D, kind, 1, random)
        told = _told(fitted, threshold, changed_ND, cells_NC)
        cell = (np.arange(len(true_ND)), cells_NC[:, 0])
        sd_N = sd_D[cells_NC[:, 0]]
        figures |= {f"one, {kind}, {name}": value for name, value in told.items() if name != "at"}
        figures[f"expected, {kind}"] = float(
            (np.abs(told["at"][cell] - true_ND[cell]) / sd_N).mean()
        )
        figures[f"column mean, {kind}"] = float(
            (np.abs(mean_D[cells_NC[:, 0]] - true_ND[cell]) / sd_N).mean()
        )
        told = _told(fitted, threshold, *change(true_ND, sd_D, kind, 3, random))
        figures |= {f"three, {kind}, {name}": value for name, value in told.items() if name != "at"}
    return figures


def change(
    rows_ND: Floats, sd_D: Floats, kind: str, count: int, random: np.random.Generator
) -> tuple[Floats, Integers]:
    """Rows with `count` other values, and where: [N, C]. Constant features are left alone."""
    varying = np.flatnonzero(sd_D > 0)
    cells_NC = np.stack([random.choice(varying, count, replace=False) for _ in rows_ND])
    at = np.arange(len(rows_ND))[:, None], cells_NC
    changed_ND = rows_ND.copy()
    if kind in SHIFTS:
        changed_ND[at] += SHIFTS[kind] * sd_D[cells_NC] * random.choice([-1.0, 1.0], cells_NC.shape)
        return changed_ND, cells_NC
    for row, features in enumerate(cells_NC):
        for feature in features:
            others = rows_ND[random.integers(len(rows_ND), size=TRIES), feature]
            other = others[others != rows_ND[row, feature]]
            changed_ND[row, feature] = other[0] if len(other) else rows_ND[row, feature]
    return changed_ND, cells_NC


def _told(
    fitted: Fitted, threshold: float, changed_ND: Floats, cells_NC: Integers
) -> dict[str, Any]:
    """Recall of the changed among as many named, over all rows and over alarmed ones, and the
    expected values `at` [N, D].
    """
    blame = fitted.explain(changed_ND)
    count = cells_NC.shape[1]
    named_NC = blame.order[:, :count]
    recall_N = (named_NC[:, :, None] == cells_NC[:, None, :]).any(axis=1).mean(axis=1)
    alarmed_N: NDArray[np.bool_] = fitted.scores(changed_ND) > threshold
    enough = alarmed_N.sum() >= FEWEST_ALARMS
    return {
        "all": float(recall_N.mean()),
        "alarmed": float(recall_N[alarmed_N].mean()) if enough else None,
        "alarms": float(alarmed_N.mean()),
        "at": blame.expected,
    }


def lines(outcomes: Sequence[Outcome]) -> list[Line]:
    def mean(form: str, kinds: Sequence[str] = KINDS) -> list[float | None]:
        return [over_sets(outcomes, form.format(kind)) for kind in kinds]

    def said(form: str, kinds: Sequence[str] = KINDS) -> str:
        return " / ".join(map(say, mean(form, kinds)))

    sd = tuple(SHIFTS)
    beside = said("column mean, {}", ("6 sd", "swap"))
    return [
        at_least(
            "explain, one cell changed (by 3 sd / 6 sd / swapped), alarmed rows: the first feature"
            " named is the changed one",
            mean("one, {}, alarmed"),
            (0.98, 0.99, 0.92),
        ),
        Line("the same, all rows", said("one, {}, all")),
        at_least(
            "three cells changed by 3 / 6 sd: recall among the first three named",
            mean("three, {}, all", sd),
            (0.93, 0.98),
        ),
        Line("the same, swapped", said("three, {}, all", ("swap",))),
        at_most(
            "error of the expected value of a changed cell (6 sd / swap), in sd of the feature"
            f" (a plain column mean: {beside})",
            mean("expected, {}", ("6 sd", "swap")),
            (0.35, 0.42),
        ),
    ]


PROTOCOL = Protocol(preset=PRESET, source="sets", seeds=1, measure=measure, lines=lines)
