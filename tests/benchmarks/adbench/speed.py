"""Speed on made-up rows of a given width, so that detectors can be held to a figure whatever sets
there are.
"""

from pathlib import Path
from time import perf_counter

import numpy as np

from tests.benchmarks.adbench.outcome import Fitted
from tests.benchmarks.adbench.protocol import FIT_ROWS, Rows

WIDTHS = (32, 50)
MANY = 16_384  # rows of one call
CALLS = 7


def write_sets(folder: Path) -> list[Path]:
    """A set of each width, in which FIT_ROWS are fitted: correlated normal rows, and anomalies
    without the correlation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for width in WIDTHS:
        rng = np.random.default_rng(width)
        code_NK = rng.normal(size=(2 * FIT_ROWS, 8))
        normal_ND = np.tanh(code_NK @ rng.normal(size=(8, width))) + 0.1 * rng.normal(
            size=(2 * FIT_ROWS, width)
        )
        anomalies_AD = rng.permuted(normal_ND[:400], axis=0)
        path = folder / f"d{width}.npz"
        y_N = np.repeat([0, 1], [len(normal_ND), len(anomalies_AD)])
        np.savez(path, X=np.concatenate([normal_ND, anomalies_AD]).astype(np.float32), y=y_N)
        paths.append(path)
    return paths


def rows_per_second(fitted: Fitted, rows: Rows) -> float:
    """Of the fastest of a few calls: what the machine can do when nothing else wants it."""
    many_ND = rows.test_ND[np.arange(MANY) % len(rows.test_ND)]
    seconds = []
    for _ in range(CALLS):
        started = perf_counter()
        fitted.score(many_ND)
        seconds.append(perf_counter() - started)
    return MANY / min(seconds)
