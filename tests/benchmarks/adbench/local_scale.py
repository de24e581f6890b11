"""The mean distance to the nearest rows, each over the root of a local scale.

A row x at distance d_k from its k-th nearest training row, which is r_k from its own K-th, scores
the mean over k of (d_k / (median(r) / 10 + r_k))^.5: half way between a distance and its ratio to
that of the neighbours (LOF; Breunig et al., SIGMOD 2000), and never infinite where rows coincide.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

FLOOR = 0.1  # of the median scale
SMALL = 1e-12


class LocalScale:
    """Has the two methods of PyOD's detectors that are used here."""

    def __init__(self, n_neighbors: int = 5) -> None:
        self.neighbours = NearestNeighbors(n_neighbors=n_neighbors)

    def fit(self, x_ND: NDArray[np.floating]) -> None:
        self.neighbours.fit(x_ND)
        scale_M = self.neighbours.kneighbors()[0][:, -1]  # not counting a row itself
        self.scale_M = scale_M + FLOOR * np.median(scale_M) + SMALL

    def decision_function(self, x_ND: NDArray[np.floating]) -> NDArray[np.floating]:
        distance_NK, index_NK = self.neighbours.kneighbors(x_ND)
        score_N: NDArray[np.floating] = np.sqrt(distance_NK / self.scale_M[index_NK]).mean(axis=1)
        return score_N
