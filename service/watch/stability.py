"""Stability: whether shares of live rows differ from those of the fit rows by more than chance.

The measure is the population stability index, PSI = sum (p - r) ln(p / r) over the shares of bins.
Of rows that do not change, PSI / (1 / n + 1 / m) of n live rows and m of reference is a chi-squared
variable with one degree of freedom less than bins (Yurdakul and Naranjo, Journal of Risk Model
Validation 14, 2020): the usual limits of .1 and .25 know nothing of n.

Rows that depend on each other tell less than so many. How much less is seen in K blocks of the
window: by how much the variance of their shares is larger than that of independent rows, its design
effect (Rao and Scott, Journal of the American Statistical Association 76, 1981), with the degrees
of freedom of Satterthwaite and, since it is an estimate from K blocks, Fisher's F in place of
chi-squared (Thomas and Rao, ibid. 82, 1987). What changes the whole window does not enter it.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.intervals import chi_squared_limit, f_limit

BLOCKS = 16  # K
HALF = 0.5  # a row, added to each bin: a share of 0 has no logarithm

Float64 = NDArray[np.float64]
Counts = NDArray[np.int64]


class Stability(NamedTuple):
    """How far shares lie apart, and how far chance brings them."""

    psi: float
    critical: float
    design_effect: float  # of the live rows; 1 where they are independent
    # by how much more rows it takes to tell as much: that, and that it is an estimate
    inflation: float

    @property
    def is_apart(self) -> bool:
        """Whether it is more than chance explains, at the level that was asked for."""
        return self.psi > self.critical


def stability(
    live_KB: Counts, reference_B: Counts, *, level: float, share: float | None = None
) -> Stability | None:
    """The counts of K blocks of live rows in order against those of the reference, at a level of
    significance. `share` is that of the rows that were looked at, where the rows of reference
    depend on each other as those of the stream do; None: they are independent. None without rows,
    or with one bin.
    """
    live_B = live_KB.sum(axis=0)
    n, m, bins = int(live_B.sum()), int(reference_B.sum()), len(reference_B)
    if n == 0 or m == 0 or bins < 2:
        return None
    p_B, r_B = _shares(live_B), _shares(reference_B)
    psi = float(((p_B - r_B) * np.log(p_B / r_B)).sum())
    freedom = bins - 1
    chi_squared = _chi_squared(level, freedom)
    independent = (1 / n + 1 / m) * chi_squared
    effect, effective_freedom = _design_effect(live_KB)
    limit = freedom * _f(level, effective_freedom, effective_freedom * (len(live_KB) - 1))
    of_reference = chi_squared
    if share is not None:  # between rows that were looked at lie others, as like them as they are
        of_reference = limit * max(1.0, 1 + (effect - 1) / share)
    dependent = limit * effect / n + of_reference / m
    critical = max(independent, dependent)
    return Stability(psi, critical, max(1.0, effect), critical / independent)


def _shares(count_B: Counts) -> Float64:
    smooth_B = count_B.astype(np.float64) + HALF
    return np.asarray(smooth_B / smooth_B.sum())


def _design_effect(live_KB: Counts) -> tuple[float, int]:
    """The mean design effect over bins, and how many degrees of freedom it leaves, rounded down."""
    n_K = live_KB.sum(axis=1)
    filled_KB = live_KB[n_K > 0]
    blocks, bins = len(filled_KB), filled_KB.shape[1]
    if blocks < 2:
        return 1.0, bins - 1
    size = n_K[n_K > 0]
    p_B = _shares(live_KB.sum(axis=0))
    apart_KB = filled_KB / size[:, None] - filled_KB.sum(axis=0) / size.sum()
    scaled_KB = apart_KB * np.sqrt(size)[:, None] / np.sqrt(p_B)
    covariance_BB = scaled_KB.T @ scaled_KB / (blocks - 1)
    trace, squares = float(np.trace(covariance_BB)), float((covariance_BB**2).sum())
    # the trace of the square is too large by trace^2 / (K - 1), since it is of an estimate
    squares = max(squares - trace**2 / (blocks - 1), trace**2 / (bins - 1))
    freedom = trace**2 / squares if squares > 0 else bins - 1
    return trace / (bins - 1), max(1, min(int(freedom), bins - 1))


@lru_cache(maxsize=4096)
def _chi_squared(level: float, freedom: int) -> float:
    return chi_squared_limit(level, freedom)


@lru_cache(maxsize=4096)
def _f(level: float, above: int, below: int) -> float:
    return f_limit(level, above, below)
