"""The same in the shape of PyOD's detectors (Zhao, Nasrullah and Li, JMLR 20(96), 2019).

PyOD has the opposite sign: higher scores are less normal, and 1 is an anomaly.

Shapes: N rows.
"""

from math import erf, sqrt
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from . import estimator
from .estimator import Float64

Labels = NDArray[np.int64]


class Hourglass(estimator.Hourglass):
    """A detector as PyOD has them; parameters are those of `hourglass.sklearn.Hourglass`.

    Attributes
    ----------
    decision_scores_ : of the rows of the fit, [N], the higher the stranger.
    labels_ : 1 of the strangest `contamination` of them, 0 of the rest, [N].
    threshold_ : above it a row is an anomaly.
    """

    def __init__(
        self,
        contamination: float = 0.1,
        *,
        preset: str | None = None,
        variant: str | None = None,
        alpha: float | None = None,
        delta: float = 0.05,
        folds: int | None = None,
        epochs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        super().__init__(
            preset=preset,
            variant=variant,
            alpha=alpha,
            delta=delta,
            contamination=contamination,
            folds=folds,
            epochs=epochs,
            random_state=random_state,
        )

    def fit(self, X: Any, y: object = None) -> Self:
        """Fit on rows; ValueError for what training refuses, in its sentence."""
        super().fit(X, y)
        self.threshold_ = -self.offset_
        # NaN of rows that hold too few values, whose label is 0
        self.decision_scores_ = -self._score(self._checked(X, reset=False), may_lack=True)
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(np.int64)
        return self

    def decision_function(self, X: Any) -> Float64:
        """Scores [N], the higher the stranger."""
        return -self.score_samples(X)

    def predict(self, X: Any) -> Labels:
        """1 of anomalies, 0 of the rest, [N]."""
        return (self.decision_function(X) > self.threshold_).astype(np.int64)

    def fit_predict(self, X: Any, y: object = None) -> Labels:
        """The labels of the rows of the fit."""
        return self.fit(X, y).labels_

    def predict_proba(self, X: Any, method: Literal["linear", "unify"] = "linear") -> Float64:
        """[N, 2]: of a normal row and of an anomaly, as PyOD makes them of scores.

        `linear` stretches the scores of the fit to 0 to 1; `unify` reads them as of a Gaussian
        (Kriegel and others, Interpreting and unifying outlier scores, SDM 2011, eq. 9). `p_values`
        are calibrated, and these are not.
        """
        check_is_fitted(self)
        score_N, fitted_N = self.decision_function(X), self.decision_scores_
        if method == "linear":
            low, high = np.nanmin(fitted_N), np.nanmax(fitted_N)
            share_N = (score_N - low) / max(high - low, np.finfo(float).tiny)
        elif method == "unify":
            scaled_N = (score_N - np.nanmean(fitted_N)) / max(
                np.nanstd(fitted_N), np.finfo(float).tiny
            )
            share_N = np.array([erf(value / sqrt(2)) for value in scaled_N])
        else:
            raise ValueError(f"method must be 'linear' or 'unify', got {method!r}")
        share_N = share_N.clip(0, 1)
        return np.stack([1 - share_N, share_N], axis=1)
