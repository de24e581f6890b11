"""Traffic: how many rows of each model had which score since its threshold was set.

A bounded sketch: one count for each step of the model's table of p-values, by which the alarms of
any budget are known exactly, and one for each SEVERITY_STEP of severity, for a picture. It begins
anew when the version or the threshold in force is another one. Several workers add theirs up.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.calibration import Threshold
from hourglass.service.model.intervals import kolmogorov
from hourglass.service.model.served import Served
from hourglass.service.serving.registry import Registry
from hourglass.service.watch.shared_counts import SharedCounts

SEVERITY_STEP, MOST_SEVERE = 0.05, 12.0  # more severe rows count with the last step
P_VALUE_BINS = 20
DAY_SECONDS = 86400.0
_SEVERITIES = round(MOST_SEVERE / SEVERITY_STEP) + 1

Float32 = NDArray[np.float32]
Integers = NDArray[np.int64]


class Histogram(msgspec.Struct, frozen=True):
    """Counts between edges, which are one more than they."""

    edges: list[float]
    counts: list[int]


class Uniformity(msgspec.Struct, frozen=True):
    """Whether the p-values are as those of normal rows would be: the largest distance between the
    two distributions, and how often it is as large by chance, for rows that do not depend on each
    other.
    """

    statistic: float
    p_value: float


class Counted(NamedTuple):
    """What was counted of one model since its threshold was set."""

    since: float  # seconds since the epoch
    step_counts: Integers  # [E + 1] by the table's steps
    severity_counts: Integers

    @property
    def rows(self) -> int:
        return int(self.step_counts.sum())

    def alarms(self, served: Served, threshold: Threshold) -> int:
        """Those of any budget."""
        scores = served.detector.table.scores
        first = int(np.searchsorted(scores, np.float32(threshold.score), side="right"))
        return int(self.step_counts[first:].sum())

    def rows_per_day(self, now: float) -> float | None:
        """As of the time since then; None in the first second."""
        seconds = now - self.since
        return self.rows / seconds * DAY_SECONDS if seconds >= 1 else None

    def severities(self) -> Histogram:
        """Up to the most severe row."""
        last = int(self.severity_counts.nonzero()[0].max(initial=0))
        edges = [round(step * SEVERITY_STEP, 6) for step in range(last + 2)]
        return Histogram(edges, self.severity_counts[: last + 1].tolist())

    def p_values(self, served: Served) -> Histogram:
        """In bins of the same width, each with its upper edge."""
        upper = np.ceil(served.detector.table.p_values * P_VALUE_BINS - 1e-6).astype(int)
        bins = np.clip(upper, 1, P_VALUE_BINS) - 1
        counts = np.bincount(bins, self.step_counts, P_VALUE_BINS).astype(int)
        edges = [step / P_VALUE_BINS for step in range(P_VALUE_BINS + 1)]
        return Histogram(edges, counts.tolist())

    def uniformity(self, served: Served) -> Uniformity | None:
        """By the test of Kolmogorov and Smirnov against the calibration rows, which are a sample
        too. Where p-values are larger than uniform by their making, of blocks or of several models,
        only an excess of small ones counts. None without rows.
        """
        if not (rows := self.rows):
            return None
        table, record = served.detector.table, served.detector.manifest.calibration
        live = self.step_counts[::-1].cumsum()[::-1][1:] / rows
        calibration = (table.p_values[1:].astype(np.float64) * (table.n + 1) - 1) / table.n
        one_sided = record.guarantee == "blocks" or record.method != "split-conformal"
        apart = live - calibration if one_sided else np.abs(live - calibration)
        distance = max(float(apart.max(initial=0.0)), 0.0)
        both = rows * table.n / (rows + table.n)
        return Uniformity(distance, kolmogorov(distance, both, one_sided=one_sided))


class Traffic:
    """The counts of all models. Metrics hands them over what it has kept of many runs, since one
    run more to tell of costs a hundredth of scoring a row.
    """

    def __init__(self, models: Registry, folder: Path | None = None, pid: int = 0) -> None:
        self._models, self._folder, self._pid = models, folder, pid
        self._counting: dict[str, _Counting] = {}
        self.fetch: Callable[[], None] = lambda: None  # have what is kept elsewhere handed over

    def count(self, served: Served, score_N: Float32, severity_N: Float32) -> None:
        """Rows with finite scores; of what is not in force any more they do not count."""
        counting = self._counting.get(served.name)
        if counting is None or counting.served is not served:
            counting = self._of_run(served)
        if counting is not None:
            counting.count(score_N, severity_N)

    def follow(self, served: Served) -> "_Counting":
        """Count for this model and threshold, from now on if they are others than before."""
        counting = self._counting.get(served.name)
        if counting is None or counting.shared.key != _key(served):
            if counting is not None:
                counting.shared.drop()
            counting = self._counting[served.name] = _Counting(served, self._folder, self._pid)
        counting.served = served
        return counting

    def counted(self, served: Served) -> Counted:
        """What all workers have counted for this model and threshold."""
        self.fetch()
        since, counts = self.follow(served).shared.total()
        steps = len(served.detector.table.p_values)
        return Counted(since, counts[:steps], counts[steps:])

    def forget(self) -> None:
        """Have no counts of models that are no more."""
        for name in self._counting.keys() - self._models.names:
            self._counting.pop(name).shared.drop()

    def _of_run(self, served: Served) -> "_Counting | None":
        """Where to count rows of what is not known to be in force; None if it is not any more."""
        in_force = self._models.served.get(served.name)
        if in_force is None or in_force is served:
            return self.follow(served)
        counting = self._counting.get(served.name)
        is_same = counting is not None and counting.shared.key == _key(served)
        return counting if is_same else None


class _Counting:
    """One worker's counts of one model under one threshold."""

    __slots__ = ("_steps", "served", "shared")

    def __init__(self, served: Served, folder: Path | None, pid: int) -> None:
        self.served, self._steps = served, len(served.detector.table.p_values)
        self.shared = SharedCounts(
            self._steps + _SEVERITIES,
            folder,
            kind="traffic",
            model=served.name,
            key=_key(served),
            pid=pid,
        )

    def count(self, score_N: Float32, severity_N: Float32) -> None:
        self.shared.share()
        counts = self.shared.counts
        # sorted ones are found several times as fast
        steps = np.searchsorted(self.served.detector.table.scores, np.sort(score_N), side="left")
        counts[: self._steps] += np.bincount(steps, minlength=self._steps)
        severities = np.minimum(severity_N / SEVERITY_STEP, _SEVERITIES - 1).astype(np.intp)
        counts[self._steps :] += np.bincount(severities, minlength=_SEVERITIES)


def _key(served: Served) -> str:
    """Of a version and a threshold."""
    said = f"{served.detector.version} {served.threshold}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]
