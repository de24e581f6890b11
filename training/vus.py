"""The volume under the surface of precision and recall, VUS-PR: how well scores find ranges.

Average precision asks of each row that it be found exactly where the label is. Labels of a series
are ranges whose ends nobody knows to the row, so here a label fades out on both sides of its range
over a buffer of rows, recall also asks that each range be found at all, and the area is averaged
over all lengths of the buffer from 0 up (Paparrizos, Boniol, Palpanas, Tsay, Elmore and Franklin,
Volume Under the Surface: A New Accuracy Evaluation Measure for Time-Series Anomaly Detection, PVLDB
15, 2022, with 250 thresholds as TSB-AD computes it). No point adjustment: a range that is hit once
counts for the rows that were hit.

Of a buffer of l rows, half on either side, a row d rows from a range has the label sqrt(1 - d / l);
one near two ranges has 1 at most. With the precision TP / (rows above the threshold), where TP sums
the labels of those rows, the recall is TP over the mean of the anomalous rows and the rows that may
be found (the anomalous ones, and the buffer's labels above the threshold), times the share of
ranges with a row above the threshold. Ranges whose buffers meet are one.

Shapes: N rows, E ranges, K thresholds.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BUFFER = 100  # rows: the longest
THRESHOLDS = 250

Booleans = NDArray[np.bool_]
Integers = NDArray[np.integer]
Floats = NDArray[np.floating]


class Ranges(NamedTuple):
    """Runs of anomalous rows, none across segments: rows start to stop - 1."""

    start_E: Integers
    stop_E: Integers

    @classmethod
    def of(cls, anomalous_N: Booleans, segment_N: Integers) -> "Ranges":
        same_N = np.zeros(len(anomalous_N), dtype=bool)  # run as the row before
        same_N[1:] = anomalous_N[1:] & anomalous_N[:-1] & (segment_N[1:] == segment_N[:-1])
        start_E = np.flatnonzero(anomalous_N & ~same_N)
        last_E = np.flatnonzero(anomalous_N & ~np.append(same_N[1:], False))
        return cls(start_E, last_E + 1)

    def __len__(self) -> int:
        return len(self.start_E)


def vus_pr(
    anomalous_N: Booleans,
    score_N: Floats,
    segment_N: Integers | None = None,
    *,
    buffer: int = BUFFER,
) -> float:
    """Rows in order of time; buffers do not leave a segment (an entity, a stretch without a gap).

    ValueError without rows of both kinds, or with a score that is NaN.
    """
    if not 0 < anomalous_N.sum() < len(anomalous_N):
        raise ValueError("VUS-PR needs anomalous and normal rows")
    if np.isnan(score_N).any():
        raise ValueError(f"row {int(np.isnan(score_N).argmax()) + 1} has no score")
    if segment_N is None:
        segment_N = np.zeros(len(score_N), dtype=np.int64)
    ranges = Ranges.of(anomalous_N, segment_N)
    ranks_K = np.linspace(0, len(score_N) - 1, THRESHOLDS).astype(int)
    threshold_K = np.sort(score_N)[::-1][ranks_K]
    # which thresholds a row reaches: the first and all after it
    first_N = np.searchsorted(-threshold_K, -score_N)
    above_K = _reached(first_N, np.ones(len(score_N)))
    exact_K = _reached(first_N[anomalous_N], np.ones(int(anomalous_N.sum())))
    near = _near(ranges, anomalous_N, segment_N)
    areas = [
        _area(length, ranges, near, first_N, above_K, exact_K, segment_N)
        for length in range(buffer + 1)
    ]
    return float(np.mean(areas))


class _Near(NamedTuple):
    """Rows outside of all ranges, and how far they are from the nearest range and the next one."""

    row_M: Integers
    distance_M: Floats
    second_M: Floats


def _near(ranges: Ranges, anomalous_N: Booleans, segment_N: Integers) -> _Near:
    row_M = np.flatnonzero(~anomalous_N)
    before_M = np.searchsorted(ranges.start_E, row_M) - 1  # the range before the row
    distances = []
    for offset in (0, -1, 1, 2):
        range_M = before_M + offset
        exists_M = (range_M >= 0) & (range_M < len(ranges))
        edge_E = ranges.stop_E - 1 if offset <= 0 else ranges.start_E
        edge_M = edge_E[range_M.clip(0, len(ranges) - 1)]
        exists_M &= segment_N[edge_M] == segment_N[row_M]
        distances.append(np.where(exists_M, np.abs(row_M - edge_M), np.inf))
    nearest, second = np.sort(distances, axis=0)[:2]
    return _Near(row_M, nearest, second)


def _area(
    length: int,
    ranges: Ranges,
    near: _Near,
    first_N: Integers,
    above_K: Floats,
    exact_K: Floats,
    segment_N: Integers,
) -> float:
    """Under precision and recall, with a buffer of so many rows."""
    half = length // 2
    inside_M = near.distance_M <= half
    faded_M = np.sqrt(1 - near.distance_M[inside_M] / max(length, 1))
    # sqrt(1/2) at the least, so that two of them are 1
    label_M = np.where(near.second_M[inside_M] <= half, 1.0, faded_M)
    buffer_K = _reached(first_N[near.row_M[inside_M]], label_M)
    anomalous = float((ranges.stop_E - ranges.start_E).sum())
    hits_K = exact_K + buffer_K
    recall_K = np.minimum(hits_K / (anomalous + buffer_K / 2), 1.0)
    recall_K = recall_K * _found(half, ranges, first_N, segment_N)
    steps_K = np.diff(recall_K, prepend=0.0)
    return float(np.dot(steps_K, hits_K / above_K))


def _found(half: int, ranges: Ranges, first_N: Integers, segment_N: Integers) -> Floats:
    """[K] share of the ranges, with their buffers, that have a row above each threshold."""
    follows_E = segment_N[ranges.start_E[1:]] == segment_N[ranges.start_E[:-1]]
    apart_E = (ranges.stop_E[:-1] - 1 + half < ranges.start_E[1:] - half) | ~follows_E
    start_E = ranges.start_E[np.append(True, apart_E)] - half
    stop_E = ranges.stop_E[np.append(apart_E, True)] + half
    start_E = np.maximum(start_E, np.searchsorted(segment_N, segment_N[start_E + half]))
    ends_E = np.searchsorted(segment_N, segment_N[stop_E - half - 1], side="right")
    stop_E = np.minimum(stop_E, ends_E)
    bounds = np.stack([start_E, stop_E], axis=1).ravel()
    # a row more, so that a range may end with the last one
    first_E = np.minimum.reduceat(np.append(first_N, THRESHOLDS), bounds)[::2]
    return _reached(first_E, np.ones(len(first_E))) / len(first_E)


def _reached(first_N: Integers, weight_N: Floats) -> Floats:
    """[K] the sum of the weights that reach each threshold."""
    return np.cumsum(np.bincount(first_N, weight_N, minlength=THRESHOLDS))
