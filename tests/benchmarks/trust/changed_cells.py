"""Does `explain` name the cells that were changed, and what was expected there?

Fresh normal rows with one cell, or three, moved by 3 or 6 standard deviations up or down, or
swapped with another row's (another value, else nothing would have changed). Alarmed rows are those
over the certified threshold of 5 %, or over the run's own where 5 % cannot be certified. Some of
them were over it before the change: there something else is strange as well, and to name it first
is no mistake; so that the others are told of as well. The error of the expected value is its mean
distance from the true one, in standard deviations of the feature; that of a filled gap is the same
where one cell, or a tenth of all, is missing.

Beside the product stands what a single Gaussian of the fit rows says: the feature that is most
standard deviations off what the others let expect, and that expectation. What it reaches tells how
hard the sets are.

Shapes: N rows, D features, C changed cells of a row.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hourglass.service.model.artifact import Feature
from hourglass.service.model.conditional import Conditional
from tests.benchmarks.trust.product import Blame, Fit, Fitted, Floats, Integers, Refused
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
SIMULATED = 150
FEWEST_ALARMS = 10  # that a share of them says something
SHIFTS = {"3 sd": 3.0, "6 sd": 6.0}
KINDS = (*SHIFTS, "swap")
GAPS = ("one", "a tenth")  # cells of a row
RIDGE = 1e-3  # of a standardised feature's variance


def measure(case: Case, fit: Fit) -> Figures:
    rows = one_class(case)
    fitted = fit(rows.fit_ND, preset=PRESET, seed=case.seed)
    try:
        threshold = fitted.threshold(0.05)
    except Refused:
        threshold = fitted.threshold()
    gaussian = Gaussian(rows.fit_ND)
    mean_D = rows.fit_ND.mean(axis=0, dtype=np.float64)
    sd_D = rows.fit_ND.std(axis=0, dtype=np.float64)
    true_ND = rows.fresh_ND[:ROWS].astype(np.float64)
    random = np.random.default_rng(case.seed)
    before_N = fitted.scores(true_ND) > threshold
    figures: dict[str, Any] = {"rows": len(true_ND)}
    for kind in KINDS:
        for number, count in (("one", 1), ("three", 3)):
            changed_ND, cells_NC = change(true_ND, rows.fit_ND, kind, count, random)
            alarmed_N = fitted.scores(changed_ND) > threshold
            raised_N = alarmed_N & ~before_N
            figures[f"{number}, {kind}, alarms"] = float(alarmed_N.mean())
            at = np.arange(len(true_ND))[:, None], cells_NC
            true_NC, sd_NC = true_ND[at], sd_D[cells_NC]
            beside = f"{number}, {kind}, column mean, error"
            figures[beside] = float((np.abs(mean_D[cells_NC] - true_NC) / sd_NC).mean())
            for by, blame in (
                ("product", fitted.explain(changed_ND)),
                ("Gaussian", gaussian.explain(changed_ND)),
            ):
                recall_N = _recall(blame.order[:, :count], cells_NC)
                figures |= {
                    f"{number}, {kind}, {by}, all": float(recall_N.mean()),
                    f"{number}, {kind}, {by}, alarmed": _mean(recall_N[alarmed_N]),
                    f"{number}, {kind}, {by}, raised": _mean(recall_N[raised_N]),
                    f"{number}, {kind}, {by}, error": float(
                        (np.abs(blame.expected[at] - true_NC) / sd_NC).mean()
                    ),
                }
            figures[f"{number}, {kind}, before"] = _mean(before_N[alarmed_N])
    figures |= _fill_errors(fitted, gaussian, true_ND, sd_D, random)
    return figures | _attainable(gaussian, rows.fit_ND, random)


def _attainable(gaussian: "Gaussian", fit_ND: Floats, random: np.random.Generator) -> Figures:
    """Recall of three changed cells where the law of the rows is known."""
    figures: dict[str, Any] = {}
    drawn_ND = gaussian.draw(SIMULATED, random)
    for kind in SHIFTS:
        changed_ND, cells_NC = change(drawn_ND, fit_ND, kind, 3, random)
        recall_N = _recall(gaussian.likeliest_sets(changed_ND, 3), cells_NC)
        figures[f"three, {kind}, attainable"] = float(recall_N.mean())
    return figures


def _mean(values_N: Floats) -> float | None:
    return float(values_N.mean()) if len(values_N) >= FEWEST_ALARMS else None


def _fill_errors(
    fitted: Fitted, gaussian: "Gaussian", true_ND: Floats, sd_D: Floats, random: np.random.Generator
) -> Figures:
    figures = {}
    varying = np.flatnonzero(sd_D > 0)
    for name, count in (("one", 1), ("a tenth", max(1, round(0.1 * len(varying))))):
        cells_NC = np.stack([random.choice(varying, count, replace=False) for _ in true_ND])
        at = np.arange(len(true_ND))[:, None], cells_NC
        gap_ND = true_ND.copy()
        gap_ND[at] = np.nan
        for by, filled_ND in (
            ("product", fitted.fill(gap_ND)),
            ("Gaussian", gaussian.fill(gap_ND)),
        ):
            error_NC = np.abs(filled_ND[at] - true_ND[at]) / sd_D[cells_NC]
            figures[f"gaps, {name}, {by}, error"] = float(error_NC.mean())
    return figures


def change(
    rows_ND: Floats, fit_ND: Floats, kind: str, count: int, random: np.random.Generator
) -> tuple[Floats, Integers]:
    """Rows with `count` other values, and where: [N, C]. Features that are constant in the fit rows
    are left alone; swapped values are the fit rows'.
    """
    sd_D = fit_ND.std(axis=0, dtype=np.float64)
    varying = np.flatnonzero(sd_D > 0)
    cells_NC = np.stack([random.choice(varying, count, replace=False) for _ in rows_ND])
    at = np.arange(len(rows_ND))[:, None], cells_NC
    changed_ND = rows_ND.copy()
    if kind in SHIFTS:
        changed_ND[at] += SHIFTS[kind] * sd_D[cells_NC] * random.choice([-1.0, 1.0], cells_NC.shape)
        return changed_ND, cells_NC
    for row, features in enumerate(cells_NC):
        for feature in features:
            others = fit_ND[:, feature]
            changed_ND[row, feature] = random.choice(others[others != rows_ND[row, feature]])
    return changed_ND, cells_NC


def _recall(named_NC: Integers, cells_NC: Integers) -> Floats:
    """[N] share of the changed cells that are named."""
    return (named_NC[:, :, None] == cells_NC[:, None, :]).any(axis=1).mean(axis=1)


class Gaussian:
    """One Gaussian of the fit rows, as much shrunk as keeps constant columns harmless."""

    def __init__(self, rows_ND: Floats) -> None:
        x_ND = rows_ND.astype(np.float64)
        self._mean_D, self._sd_D = x_ND.mean(axis=0), x_ND.std(axis=0)
        self._sd_D[self._sd_D == 0] = 1.0
        covariance_DD = np.cov((x_ND - self._mean_D) / self._sd_D, rowvar=False, ddof=0)
        self._precision_DD = np.linalg.inv(covariance_DD + RIDGE * np.eye(len(covariance_DD)))

    def draw(self, count: int, random: np.random.Generator) -> Floats:
        """[count, D] rows of it."""
        root_DD = np.linalg.cholesky(np.linalg.inv(self._precision_DD))
        return self._mean_D + self._sd_D * (random.normal(size=(count, len(root_DD))) @ root_DD.T)

    def likeliest_sets(self, rows_ND: Floats, count: int) -> Integers:
        """[N, count] the features without which the rest of each row is likeliest."""
        features = tuple(Feature(name=f"x{d}", kind="numeric") for d in range(len(self._mean_D)))
        exact = Conditional(features, self._mean_D, self._sd_D, self._precision_DD)
        first_NC = self.explain(rows_ND).order[:, :count]
        return np.array(
            [
                exact.strangest_set(row_D, first_C.tolist())
                for row_D, first_C in zip(rows_ND, first_NC, strict=True)
            ]
        )

    def explain(self, rows_ND: Floats) -> Blame:
        scale_D = np.diag(self._precision_DD)
        pull_ND = ((rows_ND - self._mean_D) / self._sd_D) @ self._precision_DD
        order_ND = np.argsort(-np.abs(pull_ND) / np.sqrt(scale_D), axis=1, kind="stable")
        return Blame(order_ND, rows_ND - pull_ND / scale_D * self._sd_D)

    def fill(self, rows_ND: Floats) -> Floats:
        """[N, D] the rows, with their gaps (NaN) at the conditional means."""
        z_ND = (rows_ND - self._mean_D) / self._sd_D
        for z_D in z_ND:
            gap_D = np.isnan(z_D)
            pull = self._precision_DD[np.ix_(gap_D, ~gap_D)] @ z_D[~gap_D]
            z_D[gap_D] = -np.linalg.solve(self._precision_DD[np.ix_(gap_D, gap_D)], pull)
        return self._mean_D + self._sd_D * z_ND


def lines(outcomes: Sequence[Outcome]) -> list[Line]:
    def mean(form: str, kinds: Sequence[str] = KINDS) -> list[float | None]:
        return [over_sets(outcomes, form.format(kind)) for kind in kinds]

    def said(form: str, kinds: Sequence[str] = KINDS) -> str:
        return " / ".join(map(say, mean(form, kinds)))

    sd, far = tuple(SHIFTS), ("6 sd", "swap")
    return [
        at_least(
            "explain, one cell changed (by 3 sd / 6 sd / swapped), alarmed rows: the first feature"
            f" named is the changed one (one Gaussian: {said('one, {}, Gaussian, alarmed')})",
            mean("one, {}, product, alarmed"),
            (0.98, 0.99, 0.92),
        ),
        Line(
            "the same, of alarms that the change itself raised (alarmed rows that had alarmed"
            f" before it: {said('one, {}, before')})",
            said("one, {}, product, raised"),
        ),
        Line(
            f"the same, all rows (one Gaussian: {said('one, {}, Gaussian, all')})",
            said("one, {}, product, all"),
        ),
        at_least(
            "three cells changed by 3 / 6 sd: recall among the first three named (one Gaussian:"
            f" {said('three, {}, Gaussian, all', sd)}; of rows that are Gaussian, by the exact one:"
            f" {said('three, {}, attainable', sd)})",
            mean("three, {}, product, all", sd),
            (0.93, 0.98),
        ),
        Line("the same, swapped", said("three, {}, product, all", ("swap",))),
        at_most(
            "error of the expected value of a changed cell (6 sd / swap), in sd of the feature"
            f" (a plain column mean: {said('one, {}, column mean, error', far)}; one Gaussian:"
            f" {said('one, {}, Gaussian, error', far)})",
            mean("one, {}, product, error", far),
            (0.35, 0.42),
        ),
        Line(
            "error of a filled gap, one cell / a tenth of them missing, in sd of the feature (one"
            f" Gaussian: {said('gaps, {}, Gaussian, error', GAPS)})",
            said("gaps, {}, product, error", GAPS),
        ),
    ]


PROTOCOL = Protocol(preset=PRESET, source="sets", seeds=1, measure=measure, lines=lines)
