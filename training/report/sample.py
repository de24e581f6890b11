"""Sample: rows that a model judges, each by itself or, where it is of windows, with those before.

Shapes: N rows that are judged, T rows that they are among, W rows of a window, D features, K latent
dimensions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.detector import Detector, Explanation, Scores
from hourglass.service.model.schema import Schema

CELLS = 2**20  # of windows that are made at a time

Float32 = NDArray[np.float32]
Integers = NDArray[np.integer]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sample:
    """The rows at these places of others. Of a windowed model these are in order, and each place
    has the rest of its window right before it.
    """

    detector: Detector
    among_TD: Float32
    place_N: Integers

    @classmethod
    def of(cls, detector: Detector, rows_ND: Float32) -> Self:
        """Rows that are each judged by itself."""
        return cls(detector, rows_ND, np.arange(len(rows_ND)))

    def __len__(self) -> int:
        return len(self.place_N)

    def take(self, which: Integers | Booleans) -> Self:
        """Some of them."""
        return type(self)(self.detector, self.among_TD, self.place_N[which])

    @property
    def rows_ND(self) -> Float32:
        """[N, D] the rows that are judged."""
        return self.among_TD[self.place_N]

    @property
    def windows_NWD(self) -> Float32:
        """[N, W, D] all that each answer looks at."""
        windows_NWD: Float32 = self.among_TD[
            self.place_N[:, None] + np.arange(1 - self.detector.window, 1)
        ]
        return windows_NWD

    @property
    def has_enough_N(self) -> Booleans:
        """[N] which of them hold enough values to be judged."""
        enough_N: Booleans = Schema.of(self.detector.manifest).has_enough(self.rows_ND)
        return enough_N

    def score(self) -> Scores:
        """[N] scores, p-values and severities."""
        if self.detector.window == 1:
            return self.detector.score(self.rows_ND)
        if not len(self):
            nothing_N = np.zeros(0, np.float32)
            return Scores(nothing_N, nothing_N, nothing_N)
        found = [self.detector.score_windows(part.windows_NWD) for part in self._parts()]
        return Scores(*map(np.concatenate, zip(*found, strict=True)))

    def explain(self) -> Explanation:
        """[N] the same with contributions and expected values, of one row at least."""
        if self.detector.window == 1:
            return self.detector.explain(self.rows_ND)
        found = [self.detector.explain_windows(part.windows_NWD) for part in self._parts()]
        return Explanation(*map(np.concatenate, zip(*found, strict=True)))

    def encode(self) -> Float32:
        """[N, K] codes, of one row at least."""
        if self.detector.window == 1:
            return self.detector.encode(self.rows_ND)
        parts = self._parts()
        return np.concatenate([self.detector.encode_windows(part.windows_NWD) for part in parts])

    def _parts(self) -> Iterator[Self]:
        step = max(1, CELLS // (self.detector.window * self.among_TD.shape[1]))
        for start in range(0, len(self), step):
            yield self.take(np.arange(start, min(start + step, len(self))))


def score_windows(detector: Detector, windows_NWD: Float32) -> Scores:
    """[N] of windows [N, W, D] that may be of one row."""
    if detector.window == 1:
        return detector.score(np.ascontiguousarray(windows_NWD[:, 0]))
    return detector.score_windows(windows_NWD)
