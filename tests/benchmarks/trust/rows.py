"""Which rows are fitted and which are fresh. Shapes: N rows, D features."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.adbench.protocol import FIT_ROWS, TEST_ROWS, Float32, read_set, split
from tests.benchmarks.trust.protocol import Case, Skipped

WIDEST = 200  # features; a wider set costs as much as all others together
FEWEST_ANOMALIES = 10  # that a share of them says something


class Rows(NamedTuple):
    fit_ND: Float32  # normal
    fresh_ND: Float32  # normal, as well
    anomalies_ND: Float32


def read_case(case: Case) -> tuple[Float32, NDArray[np.bool_]]:
    """X [N, D] and which rows are anomalous [N], in the file's order; Skipped where the set is too
    wide.
    """
    x_ND, y_N = read_set(Path(case.path))
    if x_ND.shape[1] > WIDEST:
        raise Skipped(f"{x_ND.shape[1]} features, more than {WIDEST}")
    return x_ND, y_N != 0


def one_class(case: Case) -> Rows:
    """The split of the benchmark of detection quality."""
    x_ND, anomalous_N = read_case(case)
    rows = split(x_ND, anomalous_N.astype(np.int8), case.seed)
    return Rows(rows.fit_ND, rows.test_ND[~rows.anomalous_N], rows.test_ND[rows.anomalous_N])


def in_order(case: Case) -> Rows:
    """Normal rows in the file's order: fit the first half, the second is fresh. Of a longer half
    rows at equal distances.
    """
    x_ND, anomalous_N = read_case(case)
    normal_ND, anomalies_ND = x_ND[~anomalous_N], x_ND[anomalous_N]
    half = len(normal_ND) // 2
    return Rows(
        _thin(normal_ND[:half], FIT_ROWS),
        _thin(normal_ND[half:], TEST_ROWS),
        _thin(anomalies_ND, TEST_ROWS),
    )


def draw(case: Case, count: int, fresh: int) -> Rows:
    """`count` normal rows at random to fit; Skipped where fewer than `fresh` others are left."""
    x_ND, anomalous_N = read_case(case)
    random = np.random.default_rng(case.seed)
    normal = random.permutation(np.flatnonzero(~anomalous_N))
    if len(normal) < count + fresh:
        raise Skipped(f"{len(normal)} normal rows, fewer than {count + fresh}")
    anomalies = random.permutation(np.flatnonzero(anomalous_N))
    return Rows(
        x_ND[normal[:count]],
        x_ND[normal[count : count + TEST_ROWS]],
        x_ND[anomalies[:TEST_ROWS]],
    )


def oracle(fresh_N: NDArray[np.floating], alpha: float) -> float:
    """The lowest threshold that at most a share alpha of the fresh normal scores is above."""
    ascending = np.sort(fresh_N)
    return float(ascending[len(ascending) - 1 - int(np.floor(alpha * len(ascending)))])


def share_above(threshold: float, score_N: NDArray[np.floating]) -> float | None:
    """None of no rows."""
    return float((score_N > threshold).mean()) if len(score_N) else None


def _thin(rows_ND: Float32, most: int) -> Float32:
    if len(rows_ND) <= most:
        return rows_ND
    return rows_ND[np.linspace(0, len(rows_ND) - 1, most).astype(int)]
