"""Scores: how those of held-out rows lie to the threshold, whether they stay so from the first rows
to the last, and whether p-values are uniform.

A p-value is uniform on rows that were not asked to set it. The calibration rows of a run have set
the table of the model, and its p-values of them are uniform by construction. So their later half is
held against their earlier half, which is another table: of exchangeable rows the p-values are
uniform, of rows that drift they are not.

Rows that follow each other are alike: what the tests count is what they are worth in rows drawn
singly.

Shapes: N held-out rows, A anomalies.
"""

import warnings

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, ks_2samp, kstwobign

from hourglass.service.model.calibration import Table
from hourglass.training.report.estimates import Estimate, share
from hourglass.training.report.material import Material, in_parts

BINS = 40
MOST_BLOCKS = 30
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
    blocks: tuple[Stretch, ...]  # of groups, time or entities; the largest of many
    all_blocks: int
    blocks_of: str = "block"  # what a block is
    uniform: Uniformity | None  # None of too few rows


def scores_of(material: Material) -> Scores:
    """The held-out rows of a report, in their order."""
    score_N, threshold = material.score_N, material.threshold
    alarm_N = threshold.is_anomaly(score_N)
    common = np.unique(score_N, return_counts=True)[1]
    if material.series is None:
        parts = [
            stretch(f"{int(places[0]) + 1} to {int(places[-1]) + 1}", alarm_N[places])
            for places in in_parts(len(score_N))
        ]
    else:
        series = material.series
        parts = _stretches(alarm_N, series.span_N, series.span_names, material.worth)
    blocks = _stretches(alarm_N, material.block_N, material.block_names, material.worth)
    largest = sorted(blocks, key=lambda block: -block.rate.n)[:MOST_BLOCKS]
    return Scores(
        rows=len(score_N),
        threshold=threshold.score,
        calibrated=material.calibrated,
        distinct=len(common),
        most_common=float(common.max(initial=0)) / max(len(score_N), 1),
        histogram=_histogram(score_N, material.anomaly_score_A, threshold.score),
        alarms=share(int(alarm_N.sum()), len(alarm_N), material.worth),
        parts=tuple(parts),
        parts_of=material.order,
        blocks=tuple(block for block in blocks if block in largest),
        all_blocks=len(blocks),
        blocks_of=material.blocks_of,
        uniform=fresh(material) if material.are_new else earlier_and_later(material),
    )


def earlier_and_later(material: Material) -> Uniformity | None:
    """The later half of the held-out rows against the earlier one; each row is worth as much as one
    that calibrates, since drift itself makes rows alike.
    """
    return halves(material.score_N, material.order, material.calibration_worth, material.unit)


def halves(
    score_N: Float32, order: str, worth: float = 1.0, unit: str = "rows"
) -> Uniformity | None:
    """P-values of the later half by the earlier one; None of rows that are worth less than 20."""
    if len(score_N) * worth < 20:
        return None
    earlier_N, later_N = np.array_split(score_N, 2)
    at_least_N = len(earlier_N) - np.searchsorted(np.sort(earlier_N), later_N, side="left")
    p_N = (1 + at_least_N) / (len(earlier_N) + 1)
    with warnings.catch_warnings():
        # where the exact p-value is beyond float64, scipy takes the asymptotic one, and says so
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation", RuntimeWarning)
        tested = ks_2samp(later_N, earlier_N)
    statistic, p_value = float(tested.statistic), float(tested.pvalue)
    if worth < 1:
        rows = worth * len(later_N) * len(earlier_N) / len(score_N)
        p_value = float(kstwobign.sf(statistic * np.sqrt(rows)))
    return _uniformity(
        p_N,
        len(earlier_N),
        statistic,
        p_value,
        f"the later half of the held-out {unit}, in {order}, against the earlier half",
        worth,
    )


def fresh(material: Material) -> Uniformity | None:
    """P-values of rows that set nothing, by the model's own table; None of fewer than 10 rows."""
    table, worth = material.detector.table, material.calibration_worth
    if len(material.score_N) * worth < 10:
        return None
    p_N = table.p_value(material.score_N).astype(np.float64)
    statistic = largest_distance(p_N, table)
    rows = worth * len(p_N) * table.n / (len(p_N) + table.n)
    return _uniformity(
        p_N,
        table.n,
        statistic,
        float(kstwobign.sf(statistic * np.sqrt(rows))),
        f"{material.unit} that set nothing of the model, against its calibration {material.unit}",
        worth,
    )


def largest_distance(p_N: NDArray[np.float64], table: Table) -> float:
    """Between the share of rows at or below a p-value and that p-value, at the values there are."""
    levels = np.sort(table.p_values.astype(np.float64))
    at_most = np.searchsorted(np.sort(p_N), levels * (1 + 1e-6), side="right") / len(p_N)
    return float(np.abs(at_most - levels).max())


def _uniformity(
    p_N: NDArray[np.float64],
    against: int,
    statistic: float,
    p_value: float,
    rows: str,
    worth: float,
) -> Uniformity:
    passed = p_value > LEVEL
    found = "nothing against uniform p-values" if passed else "p-values are not uniform"
    counts = np.histogram(p_N, bins=10, range=(0, 1))[0]
    drawn = max(1, round(len(p_N) * worth))
    low, high = (float(binom.ppf(q, drawn, 0.1)) * len(p_N) / drawn for q in (0.025, 0.975))
    told_by = f"n = {len(p_N):,} against {against:,}"
    if worth < 1:
        told_by += f", worth {drawn:,} against {max(1, round(against * worth)):,}"
    return Uniformity(
        counts=tuple(counts.tolist()),
        band=(low, high),
        n=len(p_N),
        against=against,
        statistic=statistic,
        p_value=p_value,
        passed=passed,
        text=(
            f"{found}: {rows} ({told_by}, Kolmogorov-Smirnov distance {statistic:.3f}, p ="
            f" {p_value:.3g})"
        ),
    )


def _stretches(
    alarm_N: NDArray[np.bool_],
    block_N: NDArray[np.integer] | None,
    names: tuple[str, ...],
    worth: float,
) -> list[Stretch]:
    return [
        stretch(name, alarm_N[block_N == block], worth)
        for block, name in enumerate(names)
        if block_N is not None
    ]


def stretch(name: str, alarm_N: NDArray[np.bool_], worth: float = 1.0) -> Stretch:
    """How many of these alarm, each of which is worth so much."""
    alarms = int(alarm_N.sum())
    return Stretch(name=name, alarms=alarms, rate=share(alarms, len(alarm_N), worth))


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
