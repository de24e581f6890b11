"""Budgets: how many alarms other values of alpha would give, and what share of them could be true.

With n exchangeable calibration rows and the threshold at rank m, the false-alarm rate is a Beta(m,
n + 1 - m) variable over the draws of these rows (Vovk, ACML 2012): its mean is what is expected,
its quantiles are the interval. Windows that follow each other are counted as what they are worth.
"""

import msgspec
import numpy as np
from scipy.stats import beta

from hourglass.service.errors import UncertifiableAlpha
from hourglass.service.model.calibration import Threshold
from hourglass.service.model.detector import Detector
from hourglass.service.model.guarantee import guarantee_of
from hourglass.training.report.estimates import Estimate

ALPHAS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
PREVALENCES = (0.0001, 0.001, 0.01, 0.05, 0.1)  # shares of all rows that are anomalies


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What one alpha would give; no threshold where the calibration rows cannot give it."""

    alpha: float
    in_force: bool
    certified: bool  # with confidence 1 - delta, or else on average
    threshold: float | None = None  # score
    severity_limit: float | None = None
    false_alarm_rate: Estimate | None = None  # share of normal rows; n calibration rows
    false_alarms_per_day: tuple[float, float, float] | None = None  # expected, low, high
    refusal: str | None = None  # why it cannot be had


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """The largest precision there can be where so many of all rows are anomalies."""

    prevalence: float
    precision: float  # where every anomaly is found
    precision_found: float | None  # where as many are found as of the labelled ones


class Budgets(msgspec.Struct, frozen=True, kw_only=True):
    """Alarms by alpha, and the ceiling on precision at the alpha in force."""

    rows_per_day: float | None  # None: not known, and alarms are told per 1,000 rows
    rows_per_day_is: str  # given, observed or unknown
    presupposes: str  # under what the intervals hold
    alphas: tuple[Budget, ...]
    ceilings: tuple[Ceiling, ...]


def budgets_of(
    detector: Detector,
    threshold: Threshold,
    *,
    rows_per_day: float | None,
    rows_per_day_is: str,
    detection: Estimate | None,
    worth: float = 1.0,
) -> Budgets:
    """Every alpha of the list, and the one in force."""
    kind = guarantee_of(detector.manifest.calibration, threshold).kind
    in_blocks = "blocks like those held out, and are cautious then; of others nothing is known"
    if detector.window > 1:
        in_blocks = "that what is normal stays as it was in the blocks held out"
    alphas = sorted({*ALPHAS, threshold.alpha})
    found = detection.value if detection else None
    rate = threshold.expected_false_alarm_rate
    return Budgets(
        rows_per_day=rows_per_day,
        rows_per_day_is=rows_per_day_is,
        presupposes={
            "certified": "exchangeable rows, as the tests found these to be",
            "marginal": "exchangeable rows; of several models they are about right",
            "blocks": in_blocks,
            "none": "exchangeable rows, which these are not: expect more alarms",
        }[kind],
        alphas=tuple(_budget(detector, alpha, threshold, rows_per_day, worth) for alpha in alphas),
        ceilings=tuple(
            Ceiling(
                prevalence=prevalence,
                precision=precision(prevalence, 1.0, rate),
                precision_found=None if found is None else precision(prevalence, found, rate),
            )
            for prevalence in PREVALENCES
        ),
    )


def precision(prevalence: float, detection: float, false_alarm_rate: float) -> float:
    """The share of alarms that are anomalies, by Bayes' rule."""
    true, false = prevalence * detection, (1 - prevalence) * false_alarm_rate
    return true / (true + false) if true + false else 0.0


def false_alarm_rate(rank: int, n: int, worth: float = 1.0) -> Estimate:
    """Of a threshold of rank m among n calibration scores, each of which is worth so much."""
    rate, effective = rank / (n + 1), max(n * worth, 1.0)
    told_by = effective + 1
    low, high = (float(beta.ppf(q, rate * told_by, (1 - rate) * told_by)) for q in (0.025, 0.975))
    return Estimate(
        value=rate, interval=(low, high), n=n, effective=effective if worth < 1 else None
    )


def _budget(
    detector: Detector,
    alpha: float,
    in_force: Threshold,
    rows_per_day: float | None,
    worth: float,
) -> Budget:
    is_in_force, table = alpha == in_force.alpha, detector.table
    try:
        threshold = (
            in_force
            if is_in_force
            else table.threshold(alpha, in_force.delta, certified=in_force.certified)
        )
    except UncertifiableAlpha as error:
        return Budget(alpha=alpha, in_force=False, certified=False, refusal=str(error))
    rate = false_alarm_rate(threshold.rank, table.n, worth)
    assert rate.value is not None
    assert rate.interval is not None
    per_day = None
    if rows_per_day is not None:
        per_day = (
            rate.value * rows_per_day,
            rate.interval[0] * rows_per_day,
            rate.interval[1] * rows_per_day,
        )
    kind = guarantee_of(detector.manifest.calibration, threshold).kind
    return Budget(
        alpha=alpha,
        in_force=is_in_force,
        certified=kind == "certified",
        threshold=threshold.score,
        severity_limit=float(table.severities(np.array([threshold.score], np.float32))[0]),
        false_alarm_rate=rate,
        false_alarms_per_day=per_day,
    )
