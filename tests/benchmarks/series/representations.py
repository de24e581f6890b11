"""What baselines see of a row and of the rows before it, as the study had it: causal, numpy alone.

The first rows of a series take the rows that there are.

Shapes: N rows, D features, W rows of a window.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

LAGS = 5
SPANS = (5, 10, 30, 60)
RIDGE = 1e-3  # of a row's variance

Floats = NDArray[np.float64]


class Representation(Protocol):
    """Learns from fit rows, then derives columns of the rows of a series."""

    def __call__(self, fit_ND: Floats) -> Callable[[Floats], Floats]: ...


def row(fit_ND: Floats) -> Callable[[Floats], Floats]:
    return lambda rows_ND: rows_ND


def raw(window: int) -> Representation:
    """The last W rows side by side."""

    def fit(fit_ND: Floats) -> Callable[[Floats], Floats]:
        return lambda rows_ND: np.hstack([_before(rows_ND, lag) for lag in range(window)])

    return fit


def multi(window: int) -> Representation:
    """The row, its difference from the row before, mean and deviation over spans up to W."""

    def fit(fit_ND: Floats) -> Callable[[Floats], Floats]:
        def derive(rows_ND: Floats) -> Floats:
            parts = [rows_ND, rows_ND - _before(rows_ND, 1)]
            for span in (span for span in SPANS if span <= window):
                parts += _moments(rows_ND, span)
            return np.hstack(parts)

        return derive

    return fit


def residual(window: int) -> Representation:
    """The residual of a ridge forecaster by 5 lags and the mean of the W rows before, its mean and
    deviation over W, the row, and its mean over W.
    """

    def fit(fit_ND: Floats) -> Callable[[Floats], Floats]:
        center_D, scale_D = fit_ND.mean(axis=0), fit_ND.std(axis=0)
        scale_D = np.where(scale_D > 1e-9, scale_D, 1.0)
        known_NL = _past((fit_ND - center_D) / scale_D, window)[window:]
        target_ND = ((fit_ND - center_D) / scale_D)[window:]
        squares = known_NL.T @ known_NL + RIDGE * len(known_NL) * np.eye(known_NL.shape[1])
        weights_LD = np.linalg.solve(squares, known_NL.T @ target_ND)

        def derive(rows_ND: Floats) -> Floats:
            z_ND = (rows_ND - center_D) / scale_D
            off_ND = z_ND - _past(z_ND, window) @ weights_LD
            return np.hstack([off_ND, *_moments(off_ND, window), z_ND, _moments(z_ND, window)[0]])

        return derive

    return fit


def _past(z_ND: Floats, window: int) -> Floats:
    lags = [_before(z_ND, lag) for lag in range(1, LAGS + 1)]
    return np.hstack([*lags, _before(_moments(z_ND, window)[0], 1)])


def _before(rows_ND: Floats, lag: int) -> Floats:
    """The rows so many before; the first row for those that have none."""
    return rows_ND[np.maximum(np.arange(len(rows_ND)) - lag, 0)]


def _moments(rows_ND: Floats, span: int) -> list[Floats]:
    """Mean and standard deviation over the last rows."""
    start_N = np.maximum(np.arange(len(rows_ND)) - span + 1, 0)
    count_N1 = (np.arange(len(rows_ND)) - start_N + 1)[:, None]
    apart_ND = rows_ND - rows_ND.mean(axis=0)  # sums of squares stay small

    def mean(values_ND: Floats) -> Floats:
        sums_ND = np.vstack([np.zeros(values_ND.shape[1]), np.cumsum(values_ND, axis=0)])
        return (sums_ND[1:] - sums_ND[start_N]) / count_N1

    mean_ND = mean(apart_ND)
    variance_ND = np.maximum(mean(np.square(apart_ND)) - np.square(mean_ND), 0)
    return [mean_ND + rows_ND.mean(axis=0), np.sqrt(variance_ND)]
