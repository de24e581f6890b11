"""DTE-NP, non-parametric diffusion time estimation (Livernoche et al., On Diffusion Modeling for
Anomaly Detection, ICLR 2024).

Had a row x been a training row m under Gaussian noise of unknown variance, x ~ N(m, v I) in D
dimensions and a flat prior on v, the posterior of v would be inverse-gamma with shape D/2 - 1 and
scale |x - m|²/2. What m was is unknown: the scale is averaged over the K training rows nearest to
x. The score is the mode of that posterior, scale / (shape + 1) = mean |x - m|² / D; the mean, where
there is one (D > 4), ranks the same.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors


class DteNp:
    """Has the two methods of PyOD's detectors that are used here."""

    def __init__(self, n_neighbors: int = 5) -> None:
        self.neighbours = NearestNeighbors(n_neighbors=n_neighbors)

    def fit(self, x_ND: NDArray[np.floating]) -> None:
        self.neighbours.fit(x_ND)

    def decision_function(self, x_ND: NDArray[np.floating]) -> NDArray[np.floating]:
        distances_NK, _ = self.neighbours.kneighbors(x_ND)
        shape, scale_N = x_ND.shape[1] / 2 - 1, (distances_NK**2).mean(axis=1) / 2
        return scale_N / (shape + 1)
