"""Estimates: a figure that so many rows tell, with the interval in which it lies.

Rows that follow each other are alike, and tell less than as many drawn singly: each is `worth` a
share of such a one, and the interval is that of as many as they are worth together.

Shapes: N normal rows, A anomalies.
"""

import math
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.training.evaluate import Rate

Z = 1.959964  # standard deviations either side of 95 %

Floats = NDArray[np.floating]


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A share or an area under a curve; neither value nor interval where no row tells."""

    value: float | None
    interval: tuple[float, float] | None  # 95 %
    n: int  # rows
    effective: float | None = None  # drawn singly, that tell as much; None: they are

    @property
    def told_by(self) -> str:
        """How many rows, and what they are worth."""
        worth = "" if self.effective is None else f", worth {max(self.effective, 1):,.0f}"
        return f"n = {self.n:,}{worth}"

    def say(self, digits: int = 1) -> str:
        """As a percentage with its interval and n."""
        if self.value is None or self.interval is None:
            return f"unknown (n = {self.n})"
        low, high = self.interval
        return (
            f"{self.value:.{digits}%} (95 %: {low:.{digits}%} to {high:.{digits}%}, {self.told_by})"
        )


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One figure minus another of the same rows."""

    value: float
    interval: tuple[float, float]  # 95 %


class Placements(msgspec.Struct, frozen=True):
    """Of each anomaly the share of normal rows below it, and of each normal row the share of
    anomalies above it; a tie counts half.
    """

    anomaly_A: Floats
    normal_N: Floats

    @classmethod
    def of(cls, normal_N: Floats, anomaly_A: Floats) -> "Placements":
        return cls(_below(anomaly_A, normal_N), 1 - _below(normal_N, anomaly_A))


class Worth(NamedTuple):
    """Of one row, in rows drawn singly."""

    anomaly: float = 1.0
    normal: float = 1.0


SINGLY = Worth()


def share(count: int, rows: int, worth: float = 1.0) -> Estimate:
    """A share of rows, with the interval of Clopper and Pearson; together they are worth one."""
    if worth >= 1 or not rows:
        rate, interval = Rate.of(count, rows)
        return Estimate(value=rate, interval=interval, n=rows)
    rate, effective = count / rows, max(rows * worth, 1.0)
    interval = Rate.of(rate * effective, effective).interval
    return Estimate(value=rate, interval=interval, n=rows, effective=effective)


def auroc(placements: Placements, worth: Worth = SINGLY) -> Estimate:
    """The area under the ROC curve, with DeLong's variance (Biometrics 44, 1988) on the scale of
    the logit; of a perfect order what as many rows as the smaller set would tell of a share.
    """
    rows = len(placements.anomaly_A) + len(placements.normal_N)
    if min(len(placements.anomaly_A), len(placements.normal_N)) < 2:
        return Estimate(value=None, interval=None, n=rows)
    effective = (
        max(len(placements.anomaly_A) * worth.anomaly, 1.0),
        max(len(placements.normal_N) * worth.normal, 1.0),
    )
    value, sd = float(placements.anomaly_A.mean()), math.sqrt(_variance(placements, worth))
    told = None if worth == SINGLY else sum(effective)
    if not 0 < value < 1 or sd == 0:
        fewest = min(effective)
        interval = Rate.of(value * fewest, fewest).interval
        return Estimate(value=value, interval=interval, n=rows, effective=told)
    middle, half = math.log(value / (1 - value)), min(Z * sd / (value * (1 - value)), 500.0)
    low, high = (1 / (1 + math.exp(-(middle + sign * half))) for sign in (-1, 1))
    return Estimate(value=value, interval=(low, high), n=rows, effective=told)


def auroc_difference(one: Placements, other: Placements, worth: Worth = SINGLY) -> Difference:
    """How much more of one score than of another on the same rows."""
    apart = Placements(one.anomaly_A - other.anomaly_A, one.normal_N - other.normal_N)
    value, half = float(apart.anomaly_A.mean()), Z * math.sqrt(_variance(apart, worth))
    return Difference(value=value, interval=(max(value - half, -1.0), min(value + half, 1.0)))


def _variance(placements: Placements, worth: Worth) -> float:
    pairs = ((placements.anomaly_A, worth.anomaly), (placements.normal_N, worth.normal))
    return sum(float(each.var(ddof=1)) / max(len(each) * part, 1.0) for each, part in pairs)


def _below(these: Floats, those: Floats) -> Floats:
    """Of each of these the share of those that are smaller."""
    ascending = np.sort(those)
    sides = (np.searchsorted(ascending, these, side=side) for side in ("left", "right"))
    return np.asarray(sum(sides) / (2 * len(ascending)), dtype=np.float64)
