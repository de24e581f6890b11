"""Sample: rows that a model judges, each by itself or, where it is of windows, with those before,
and by the baseline of its entity, where entities have one.

Shapes: N rows that are judged, T rows that they are among, W rows of a window, D features, K latent
dimensions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
    entity_T: Integers | None = None  # of the others, whose name this is the number of
    entity_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, detector: Detector, rows_ND: Float32) -> Self:
        """Rows that are each judged by itself."""
        return cls(detector, rows_ND, np.arange(len(rows_ND)))

    def __len__(self) -> int:
        return len(self.place_N)

    def at(self, place_N: Integers) -> Self:
        """Those at other places."""
        return replace(self, place_N=place_N)

    def take(self, which: Integers | Booleans) -> Self:
        """Some of them."""
        return self.at(self.place_N[which])

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
        return Scores(*self._ask(lambda own, windows: own.score_windows(windows)))

    def score_instead(self, windows_NWD: Float32) -> Scores:
        """[N] the same of other windows [N, W, D] of the same entities; W may be 1."""
        if self.detector.window == 1:
            return self.detector.score(np.ascontiguousarray(windows_NWD[:, 0]))
        if not len(self):
            return self.score()
        return Scores(*self._ask(lambda own, windows: own.score_windows(windows), windows_NWD))

    def explain(self) -> Explanation:
        """[N] the same with contributions and expected values, of one row at least."""
        if self.detector.window == 1:
            return self.detector.explain(self.rows_ND)
        return Explanation(*self._ask(lambda own, windows: own.explain_windows(windows)))

    def encode(self) -> Float32:
        """[N, K] codes, of one row at least."""
        if self.detector.window == 1:
            return self.detector.encode(self.rows_ND)
        return self._ask(lambda own, windows: (own.encode_windows(windows),))[0]

    def detectors(self) -> list[tuple[Detector, Integers]]:
        """The detector of each entity, with the numbers of its rows."""
        if self.entity_T is None or not self.entity_names or self.detector.knows(None) is None:
            return [(self.detector, np.arange(len(self)))]
        entity_N = self.entity_T[self.place_N]
        return [
            (self.detector.of(self.entity_names[entity]), np.flatnonzero(entity_N == entity))
            for entity in np.unique(entity_N)
        ]

    def _ask(
        self,
        ask: Callable[[Detector, Float32], Sequence[Float32]],
        instead_NWD: Float32 | None = None,
    ) -> list[Float32]:
        """What each entity's detector answers, in the order of the rows; some windows at a time."""
        step = max(1, CELLS // (self.detector.window * self.among_TD.shape[1]))
        numbers, found = [], []
        for own, own_N in self.detectors():
            for start in range(0, len(own_N), step):
                part_N = own_N[start : start + step]
                some_NWD = (
                    self.take(part_N).windows_NWD if instead_NWD is None else instead_NWD[part_N]
                )
                numbers.append(part_N)
                found.append(ask(own, some_NWD))
        order_N = np.argsort(np.concatenate(numbers), kind="stable")
        return [np.concatenate(arrays)[order_N] for arrays in zip(*found, strict=True)]
