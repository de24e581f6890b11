"""Scores: how those of held-out rows lie to the threshold, whether they stay so from the first rows
to the last, and whether p-values are uniform.

A p-value is uniform on rows that were not asked to set it. The calibration rows of a run have set
the table of the model, and its p-values of them are uniform by construction. So their later half is
held against their earlier half, which is another table: of exchangeable rows the p-values are
uniform, of rows that drift they are not.

Shapes: N held-out rows, A anomalies.
"""

import warnings

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, ks_2samp, kstwobign

from hourglass.service.model.calibration import Table
from hourglass.training.evaluate import PARTS
from hourglass.training.report.estimates import Estimate, share
from hourglass.training.report.material import Material

BINS = 40
MOST_BLOCKS = 30
FEWEST_IN_PART = 30  # rows of which a rate is told
LEVEL = 0.01  # of the test of uniformity
DECADES = 10.0  # scores that span more are told by their logarithm
FARTHEST = 1000.0  # times the largest score of a normal row, and no farther, anomalies are shown

Float32 = NDArray[np.float32]


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Rows by score; bins are one fewer than edges."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    anomalies: tuple[int, ...]  # the labelled ones; empty without
    is_log: bool  # whether the edges are equally far apart by their logarithm


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the held-out rows, and how many of them alarm."""

    name: str
    alarms: int
    rate: Estimate


class Uniformity(msgspec.Struct, frozen=True, kw_only=True):
    """Kolmogorov and Smirnov's test of p-values against uniform."""

    counts: tuple[int, ...]  # in ten bins from 0 to 1
    band: tuple[float, float]  # where a bin's count lies in 95 of 100 cases, if they are uniform
    n: int  # rows that are tested
    against: int  # rows behind the table that they are held against
    statistic: float
    p_value: float
    passed: bool
    text: str


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """Of the held-out rows."""

    rows: int
    threshold: float
    calibrated: bool  # these rows set the threshold, so that their rate is fixed as a whole
    distinct: int  # scores
    most_common: float  # share of the rows that have the most common score
    histogram: Histogram
    alarms: Estimate
    parts: tuple[Stretch, ...]  # by order
    parts_of: str  # what the order is
    blocks: tuple[Stretch, ...]  # of time or of groups, where there are any; the largest of many
    all_blocks: int
    uniform: Uniformity | None  # None of too few rows


def scores_of(material: Material) -> Scores:
    """The held-out rows of a report, in their order."""
    score_N, threshold = material.score_N, material.threshold
    alarm_N = threshold.is_anomaly(score_N)
    common = np.unique(score_N, return_counts=True)[1]
    parts = []
    count = min(PARTS, max(2, len(score_N) // FEWEST_IN_PART), len(score_N))
    for places in np.array_split(np.arange(len(score_N)), count):
        name = f"{int(places[0]) + 1} to {int(places[-1]) + 1}"
        parts.append(_stretch(name, alarm_N[places]))
    blocks = [
        _stretch(name, alarm_N[material.block_N == block])
        for block, name in enumerate(material.block_names)
        if material.block_N is not None
    ]
    largest = sorted(blocks, key=lambda block: -block.rate.n)[:MOST_BLOCKS]
    return Scores(
        rows=len(score_N),
        threshold=threshold.score,
        calibrated=material.calibrated,
        distinct=len(common),
        most_common=float(common.max(initial=0)) / max(len(score_N), 1),
        histogram=_histogram(score_N, material.anomaly_score_A, threshold.score),
        alarms=share(int(alarm_N.sum()), len(alarm_N)),
        parts=tuple(parts),
        parts_of=material.order,
        blocks=tuple(block for block in blocks if block in largest),
        all_blocks=len(blocks),
        uniform=fresh(material) if material.are_new else halves(score_N, material.order),
    )


def halves(score_N: Float32, order: str) -> Uniformity | None:
    """P-values of the later half by the earlier one; None of fewer than 20 rows."""
    if len(score_N) < 20:
        return None
    earlier_N, later_N = np.array_split(score_N, 2)
    at_least_N = len(earlier_N) - np.searchsorted(np.sort(earlier_N), later_N, side="left")
    p_N = (1 + at_least_N) / (len(earlier_N) + 1)
    with warnings.catch_warnings():
        # where the exact p-value is beyond float64, scipy takes the asymptotic one, and says so
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation", RuntimeWarning)
        tested = ks_2samp(later_N, earlier_N)
    return _uniformity(
        p_N,
        len(earlier_N),
        float(tested.statistic),
        float(tested.pvalue),
        f"the later half of the held-out rows, in {order}, against the earlier half",
    )


def fresh(material: Material) -> Uniformity | None:
    """P-values of rows that set nothing, by the model's own table; None of fewer than 10 rows."""
    table = material.detector.table
    if len(material.score_N) < 10:
        return None
    p_N = table.p_value(material.score_N).astype(np.float64)
    statistic = largest_distance(p_N, table)
    rows = len(p_N) * table.n / (len(p_N) + table.n)
    return _uniformity(
        p_N,
        table.n,
        statistic,
        float(kstwobign.sf(statistic * np.sqrt(rows))),
        "rows that set nothing of the model, against its calibration rows",
    )


def largest_distance(p_N: NDArray[np.float64], table: Table) -> float:
    """Between the share of rows at or below a p-value and that p-value, at the values there are."""
    levels = np.sort(table.p_values.astype(np.float64))
    at_most = np.searchsorted(np.sort(p_N), levels * (1 + 1e-6), side="right") / len(p_N)
    return float(np.abs(at_most - levels).max())


def _uniformity(
    p_N: NDArray[np.float64], against: int, statistic: float, p_value: float, rows: str
) -> Uniformity:
    passed = p_value > LEVEL
    found = "nothing against uniform p-values" if passed else "p-values are not uniform"
    counts = np.histogram(p_N, bins=10, range=(0, 1))[0]
    return Uniformity(
        counts=tuple(counts.tolist()),
        band=(float(binom.ppf(0.025, len(p_N), 0.1)), float(binom.ppf(0.975, len(p_N), 0.1))),
        n=len(p_N),
        against=against,
        statistic=statistic,
        p_value=p_value,
        passed=passed,
        text=(
            f"{found}: {rows} (n = {len(p_N):,} against {against:,}, Kolmogorov-Smirnov"
            f" distance {statistic:.3f}, p = {p_value:.3g})"
        ),
    )


def _stretch(name: str, alarm_N: NDArray[np.bool_]) -> Stretch:
    alarms = int(alarm_N.sum())
    return Stretch(name=name, alarms=alarms, rate=share(alarms, len(alarm_N)))


def _histogram(score_N: Float32, anomaly_A: Float32, threshold: float) -> Histogram:
    """Anomalies beyond the last edge are counted in the last bin."""
    low, high = float(score_N.min()), max(float(score_N.max()), threshold)
    if len(anomaly_A):
        far = np.minimum(anomaly_A.astype(np.float64), FARTHEST * high)
        high = max(high, float(np.quantile(far, 0.9)))
    is_log = low > 0 and high / low > DECADES
    edges = np.geomspace(low, high, BINS + 1) if is_log else np.linspace(low, high, BINS + 1)
    if not np.all(np.diff(edges) > 0):
        edges = np.linspace(low - 0.5, low + 0.5, BINS + 1)
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], float(score_N.max()))
    counts = np.histogram(score_N, edges)[0]
    anomalies = np.histogram(np.clip(anomaly_A, edges[0], edges[-1]), edges)[0]
    return Histogram(
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        anomalies=tuple(anomalies.tolist()) if len(anomaly_A) else (),
        is_log=is_log,
    )
