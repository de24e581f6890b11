"""Sampler: draws rows of runs, each as likely as any other, at a price for those alone that are
drawn.
"""

import math

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.intp]
NONE: Integers = np.empty(0, np.intp)


class Sampler:
    """`share` is how likely a row is, above 0."""

    __slots__ = ("_draw", "_share", "_until")

    def __init__(self, share: float) -> None:
        self._share, self._draw = share, np.random.default_rng()
        self._until = int(self._draw.geometric(share))  # rows, the next that is drawn included

    def places(self, count: int) -> Integers:
        """Which of the next so many rows are drawn."""
        if self._until > count:
            self._until -= count
            return NONE
        left = (count - self._until) * self._share
        steps = self._draw.geometric(self._share, int(left + 6 * math.sqrt(left)) + 2)
        steps[0] = self._until
        places: Integers = steps.cumsum() - 1
        inside = int(np.searchsorted(places, count))
        # it takes a chance of one in a billion that so many steps do not lead out
        self._until = int(places[inside]) - count + 1 if inside < len(places) else 1
        return places[:inside]
