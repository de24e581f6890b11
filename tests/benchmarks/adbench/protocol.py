"""The one-class protocol: which rows of a set are for fitting and which are the test.

Shapes: N rows, D features.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FIT_ROWS = 10_000  # at most
TEST_ROWS = 20_000  # about

Float32 = NDArray[np.float32]


class Rows(NamedTuple):
    """What a method may see, and what it is judged on."""

    fit_ND: Float32  # normal rows; whatever the method holds out comes from these too
    test_ND: Float32
    anomalous_N: NDArray[np.bool_]  # of the test rows


def split(x_ND: Float32, y_N: NDArray[np.integer], seed: int) -> Rows:
    """One generator, numpy's RandomState(seed), shuffles first the normal rows, then the anomalies.

    The first half of the normal rows, at most FIT_ROWS of them, is for fitting. The test is the
    other half and all anomalies; if these are more than TEST_ROWS, the same share of each, the
    first of the shuffled, so that anomalies stay as rare as they were.
    """
    random = np.random.RandomState(seed)
    normal = random.permutation(np.flatnonzero(y_N == 0))
    anomalies = random.permutation(np.flatnonzero(y_N != 0))
    half = len(normal) // 2
    fit, rest = normal[: min(half, FIT_ROWS)], normal[half:]
    share = min(1.0, TEST_ROWS / (len(rest) + len(anomalies)))
    rest, anomalies = rest[: round(len(rest) * share)], anomalies[: round(len(anomalies) * share)]
    anomalous_N = np.repeat([False, True], [len(rest), len(anomalies)])
    return Rows(x_ND[fit], x_ND[np.concatenate([rest, anomalies])], anomalous_N)


def read_set(path: Path) -> tuple[Float32, NDArray[np.integer]]:
    """X [N, D] and y [N] (0 normal, else anomalous) of an npz file; ValueError when it has neither
    kind of row.
    """
    with np.load(path) as arrays:
        x_ND, y_N = arrays["X"].astype(np.float32), arrays["y"].ravel()
    if x_ND.ndim != 2 or len(x_ND) != len(y_N) or (y_N == 0).sum() < 2 or not (y_N != 0).any():
        raise ValueError(
            f"{path} holds no X [rows, features] with y [rows] of both kinds: got {x_ND.shape} and"
            f" {y_N.shape}"
        )
    return x_ND, y_N


def find_sets(folder: Path) -> list[Path]:
    """The npz files of a folder, by name."""
    return sorted(folder.glob("*.npz"))
