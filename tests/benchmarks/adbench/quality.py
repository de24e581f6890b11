"""How well scores tell anomalies from normal rows. Shapes: N rows, D features."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.benchmarks.adbench.outcome import Fitted

BULK = 1024


class Quality(NamedTuple):
    auroc: float
    average_precision: float


def score_rows(fitted: Fitted, rows_ND: NDArray[np.float32]) -> NDArray[np.floating]:
    """[N] scores, from calls of BULK rows."""
    return np.concatenate(
        [fitted.score(rows_ND[i : i + BULK]) for i in range(0, len(rows_ND), BULK)]
    )


def judge(score_N: NDArray[np.floating], anomalous_N: NDArray[np.bool_]) -> Quality:
    rank_N = np.unique(score_N, return_inverse=True)[1]  # an infinite score has a rank, too
    return Quality(
        float(roc_auc_score(anomalous_N, rank_N)),
        float(average_precision_score(anomalous_N, rank_N)),
    )


def share_above(threshold: float, score_N: NDArray[np.floating]) -> float:
    return float((score_N > threshold).mean())
