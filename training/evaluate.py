"""How well a detector separates labelled rows, and how it behaves at its threshold.

Uses the service's detector and nothing else.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema

Float32 = NDArray[np.float32]


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Rates are shares of the scored rows; rows with too few observed cells are not scored, as the
    service would refuse them.
    """

    auroc: float  # area under the ROC curve
    average_precision: float
    detection_rate: float  # anomalies over the threshold
    false_alarm_rate: float  # normal rows over the threshold
    alpha: float
    certified: bool
    threshold: float
    normal_rows: int
    anomalous_rows: int
    refused_rows: int


def evaluate(detector: Detector, normal_ND: Float32, anomalies_AD: Float32) -> Evaluation:
    """Score both sets; ValueError when one of them has no row that can be scored."""
    normal_N, refused_normal = _scores(detector, normal_ND)
    anomalies_A, refused_anomalies = _scores(detector, anomalies_AD)
    if not len(normal_N) or not len(anomalies_A):
        raise ValueError(
            "evaluation needs at least one normal and one anomalous row that can be scored"
        )
    scores = np.concatenate([normal_N, anomalies_A])
    labels = np.concatenate([np.zeros(len(normal_N)), np.ones(len(anomalies_A))])
    threshold = detector.threshold
    return Evaluation(
        auroc=float(roc_auc_score(labels, scores)),
        average_precision=float(average_precision_score(labels, scores)),
        detection_rate=float(threshold.is_anomaly(anomalies_A).mean()),
        false_alarm_rate=float(threshold.is_anomaly(normal_N).mean()),
        alpha=threshold.alpha,
        certified=threshold.certified,
        threshold=threshold.score,
        normal_rows=len(normal_N),
        anomalous_rows=len(anomalies_A),
        refused_rows=refused_normal + refused_anomalies,
    )


def evaluate_labelled(
    detector: Detector, normal_ND: Float32, anomalies_AD: Float32
) -> Evaluation | None:
    """The same, but None when one of them has no row that can be scored."""
    try:
        return evaluate(detector, normal_ND, anomalies_AD)
    except ValueError:
        return None


def _scores(detector: Detector, rows_ND: Float32, batch: int = 4096) -> tuple[Float32, int]:
    """Scores of the rows the service would score, and how many it would refuse."""
    scored_ND = rows_ND[Schema.of(detector.manifest).has_enough(rows_ND)]
    parts = [
        detector.score(scored_ND[i : i + batch]).score for i in range(0, len(scored_ND), batch)
    ]
    score_N = np.concatenate([np.empty(0, dtype=np.float32), *parts])
    # what a row shows may all be features that no fit row showed
    score_N = score_N[~np.isnan(score_N)]
    return score_N, len(rows_ND) - len(score_N)
