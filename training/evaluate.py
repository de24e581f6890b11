"""How well a detector separates labelled rows, and how it behaves at its threshold.

Uses the service's detector and nothing else.
"""

import math
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta
from sklearn.metrics import average_precision_score, roc_auc_score

from hourglass.service.model.detector import Detector
from hourglass.service.model.guarantee import guarantee_of
from hourglass.service.model.schema import Schema

PARTS = 10  # of a file, whose alarm rates are told apart
BATCH = 4096

Float32 = NDArray[np.float32]


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Rates are shares of the scored rows; rows with too few observed cells are not scored, as the
    service would refuse them.
    """

    auroc: float  # area under the ROC curve
    average_precision: float
    detection_rate: float  # anomalies over the threshold
    # normal rows over the threshold; None where too few rows are left that did not set it
    false_alarm_rate: float | None
    false_alarm_interval: tuple[float, float] | None = None  # 95 %
    alpha: float
    certified: bool
    threshold: float
    normal_rows: int
    anomalous_rows: int
    refused_rows: int
    seen: float | None = None  # share of rows that fitted or calibrated the model


class Rate(NamedTuple):
    """A share of rows, with its 95 % interval (Clopper and Pearson, Biometrika 26, 1934)."""

    rate: float | None
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, alarms: float, rows: float) -> "Rate":
        """Neither without rows; rows that are alike may count for less than one."""
        if not rows:
            return cls(None, None)
        low = float(beta.ppf(0.025, alarms, rows - alarms + 1)) if alarms else 0.0
        high = float(beta.ppf(0.975, alarms + 1, rows - alarms)) if alarms < rows else 1.0
        return cls(alarms / rows, (low, high))


NO_RATE = Rate(None, None)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Rows first to last of the file, from 1."""

    first: int
    last: int
    rows: int  # that were scored
    alarms: int
    alarm_rate: float | None
    interval: tuple[float, float] | None  # 95 %


class AlarmRates(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector says of rows without labelled anomalies, by part of the file."""

    alpha: float
    certified: bool
    threshold: float
    rows: int  # that were scored
    refused_rows: int
    alarms: int
    alarm_rate: float | None
    interval: tuple[float, float] | None  # 95 %
    parts: tuple[Part, ...]
    seen: float | None = None  # share of rows that fitted or calibrated the model


def evaluate(detector: Detector, normal_ND: Float32, anomalies_AD: Float32) -> Evaluation:
    """Score both sets; ValueError when one of them has no row that can be scored."""
    normal_N, refused = _scores(detector, normal_ND)
    anomalies_A, refused_anomalies = _scores(detector, anomalies_AD)
    return evaluate_scores(detector, normal_N, anomalies_A, refused + refused_anomalies)


def evaluate_scores(
    detector: Detector, normal_N: Float32, anomalies_A: Float32, refused: int
) -> Evaluation:
    """Of the scores of both sets, which hold no NaN; ValueError when one of them is empty."""
    if not len(normal_N) or not len(anomalies_A):
        raise ValueError(
            "evaluation needs at least one normal and one anomalous row that can be scored"
        )
    scores = np.concatenate([normal_N, anomalies_A])
    labels = np.concatenate([np.zeros(len(normal_N)), np.ones(len(anomalies_A))])
    threshold = detector.threshold
    false_alarms = Rate.of(int(threshold.is_anomaly(normal_N).sum()), len(normal_N))
    return Evaluation(
        auroc=float(roc_auc_score(labels, scores)),
        average_precision=float(average_precision_score(labels, scores)),
        detection_rate=float(threshold.is_anomaly(anomalies_A).mean()),
        false_alarm_rate=false_alarms.rate,
        false_alarm_interval=false_alarms.interval,
        alpha=threshold.alpha,
        certified=guarantee_of(detector.manifest.calibration, threshold).kind == "certified",
        threshold=threshold.score,
        normal_rows=len(normal_N),
        anomalous_rows=len(anomalies_A),
        refused_rows=refused,
    )


def evaluate_labelled(
    detector: Detector, normal_ND: Float32, anomalies_AD: Float32
) -> Evaluation | None:
    """The same, but None when one of them has no row that can be scored."""
    try:
        return evaluate(detector, normal_ND, anomalies_AD)
    except ValueError:
        return None


def evaluate_out_of_fold(
    detector: Detector, normal_N: Float32, anomalies_AD: Float32
) -> Evaluation | None:
    """The same of models that were fitted on all normal rows but one fold each: normal scores [N]
    are those by the model that a row is new to. No false-alarm rate, as no row is new to all.
    """
    try:
        anomalies_A, refused = _scores(detector, anomalies_AD)
        quality = evaluate_scores(detector, normal_N, anomalies_A, refused)
    except ValueError:
        return None
    return msgspec.structs.replace(quality, false_alarm_rate=None, false_alarm_interval=None)


def alarm_rates(detector: Detector, rows_ND: Float32) -> AlarmRates:
    """Alarms among rows [N, D] in the file's order, in PARTS parts."""
    asked = np.flatnonzero(Schema.of(detector.manifest).has_enough(rows_ND))
    score_N = np.full(len(rows_ND), np.nan, dtype=np.float32)
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        score_N[part] = detector.score(rows_ND[part]).score
    scored_N, alarm_N = ~np.isnan(score_N), detector.threshold.is_anomaly(score_N)
    parts = []
    for each in np.array_split(np.arange(len(rows_ND)), min(PARTS, len(rows_ND))):
        rows, alarms = int(scored_N[each].sum()), int(alarm_N[each].sum())
        rate, interval = Rate.of(alarms, rows)
        parts.append(
            Part(
                first=int(each[0]) + 1,
                last=int(each[-1]) + 1,
                rows=rows,
                alarms=alarms,
                alarm_rate=rate,
                interval=interval,
            )
        )
    rows, alarms = int(scored_N.sum()), int(alarm_N.sum())
    rate, interval = Rate.of(alarms, rows)
    return AlarmRates(
        alpha=detector.threshold.alpha,
        certified=detector.threshold.certified,
        threshold=detector.threshold.score,
        rows=rows,
        refused_rows=len(rows_ND) - rows,
        alarms=alarms,
        alarm_rate=rate,
        interval=interval,
        parts=tuple(parts),
    )


def cross_fitted(detector: Detector, calibration_ND: Float32, seed: int) -> Rate:
    """The false-alarm rate on calibration rows that did not set the threshold: each half, at
    random, meets the threshold of the other, at the rank that gives it the same expected rate.

    No rate where half of the rows are too few for that rank.
    """
    score_N = _scores(detector, calibration_ND)[0]
    halves = np.array_split(np.random.default_rng(seed).permutation(score_N), 2)
    alarms = 0
    for judged, setting in (halves, halves[::-1]):
        rank = math.floor(detector.threshold.expected_false_alarm_rate * (len(setting) + 1) + 1e-9)
        if rank == 0:
            return Rate(None, None)
        alarms += int((judged > np.sort(setting)[-rank]).sum())
    return Rate.of(alarms, len(score_N))


def _scores(detector: Detector, rows_ND: Float32, batch: int = BATCH) -> tuple[Float32, int]:
    """Scores of the rows the service would score, and how many it would refuse."""
    scored_ND = rows_ND[Schema.of(detector.manifest).has_enough(rows_ND)]
    parts = [
        detector.score(scored_ND[i : i + batch]).score for i in range(0, len(scored_ND), batch)
    ]
    score_N = np.concatenate([np.empty(0, dtype=np.float32), *parts])
    # what a row shows may all be features that no fit row showed
    score_N = score_N[~np.isnan(score_N)]
    return score_N, len(rows_ND) - len(score_N)
