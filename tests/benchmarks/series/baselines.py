"""Detectors that numpy and scikit-learn have, of standardised columns.

Shapes: N rows, D columns.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors

from hourglass.service.model.calibration import Table, build_table
from tests.benchmarks.series.files import Series
from tests.benchmarks.series.representations import Representation, multi, raw, residual, row

FIT_SHARE = 0.8  # of the training rows; calibration has the last ones
GAP, SMALL_GAP, SMALL = 60, 10, 2000  # rows between both, fewer below so many rows
NEIGHBOURS = 5
EXPLAINED = 0.9  # of the variance, by the principal components

Floats = NDArray[np.float64]
Score = Callable[[Floats], Floats]


class Baseline(NamedTuple):
    """How rows are seen, and how they are scored."""

    represent: Representation
    detect: Callable[[Floats], Score]
    window: int

    def fit(self, series: Series) -> tuple[Table, Score]:
        """The table of calibration scores, and the scores of a series of rows in order."""
        rows = len(series.train_ND)
        fit_rows = int(FIT_SHARE * rows)
        first = fit_rows + (SMALL_GAP if rows < SMALL else GAP)
        derive = self.represent(series.train_ND[:fit_rows])
        derived_ND = derive(series.train_ND)
        fit_ND = derived_ND[min(self.window - 1, fit_rows // 4) : fit_rows]
        center_D, scale_D = fit_ND.mean(axis=0), fit_ND.std(axis=0)
        scale_D = np.where(scale_D > 1e-9, scale_D, 1.0)
        score = self.detect((fit_ND - center_D) / scale_D)
        calibration_N = score((derived_ND[first:] - center_D) / scale_D)
        table = build_table(calibration_N.astype(np.float32))
        return table, lambda rows_ND: score((derive(rows_ND) - center_D) / scale_D)


def mahalanobis(fit_ND: Floats) -> Score:
    """By a covariance shrunk as Ledoit and Wolf do, which more columns than rows need."""
    return LedoitWolf().fit(fit_ND).mahalanobis


def knn(fit_ND: Floats) -> Score:
    """Mean distance to the nearest fit rows."""
    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(fit_ND)
    return lambda rows_ND: neighbours.kneighbors(rows_ND)[0].mean(axis=1)


def pca(fit_ND: Floats) -> Score:
    """Squared error of the reconstruction from the first principal components."""
    found = PCA(EXPLAINED, svd_solver="full").fit(fit_ND)

    def score(rows_ND: Floats) -> Floats:
        off_ND = rows_ND - found.inverse_transform(found.transform(rows_ND))
        return np.square(off_ND).sum(axis=1)

    return score


def mad(fit_ND: Floats) -> Score:
    """The farthest column's distance from its median, in median absolute deviations."""
    median_D = np.median(fit_ND, axis=0)
    spread_D = np.median(np.abs(fit_ND - median_D), axis=0)
    spread_D = np.where(spread_D > 1e-9, spread_D, 1.0)
    return lambda rows_ND: (np.abs(rows_ND - median_D) / spread_D).max(axis=1)


def isolation_forest(fit_ND: Floats) -> Score:
    forest = IsolationForest(random_state=0).fit(fit_ND)
    return lambda rows_ND: -forest.score_samples(rows_ND)


BASELINES = {
    "row Mahalanobis": Baseline(row, mahalanobis, 1),
    "row kNN": Baseline(row, knn, 1),
    "row PCA": Baseline(row, pca, 1),
    "row MAD": Baseline(row, mad, 1),
    "row isolation forest": Baseline(row, isolation_forest, 1),
    "raw 10 Mahalanobis": Baseline(raw(10), mahalanobis, 10),
    "raw 10 kNN": Baseline(raw(10), knn, 10),
    "raw 10 PCA": Baseline(raw(10), pca, 10),
    "raw 10 isolation forest": Baseline(raw(10), isolation_forest, 10),
    "multi 60 Mahalanobis": Baseline(multi(60), mahalanobis, 60),
    "multi 60 kNN": Baseline(multi(60), knn, 60),
    "residual+ 30 Mahalanobis": Baseline(residual(30), mahalanobis, 30),
    "residual+ 30 kNN": Baseline(residual(30), knn, 30),
}
