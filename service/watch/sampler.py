"""Sampler: draws rows of runs, each as likely as any other, at a price for those alone that are
drawn.
"""

import math
import random

import numpy as np
from numpy.typing import NDArray

Places = list[int] | NDArray[np.intp]
MANY = 16  # drawn rows, from which on numpy is faster


class Sampler:
    """`share` is how likely a row is, above 0."""

    __slots__ = ("_draw", "_many", "_scale", "_share", "_until")

    def __init__(self, share: float) -> None:
        self._share, self._many = share, np.random.default_rng()
        self._draw = random.Random()  # noqa: S311
        self._scale = 1 / math.log1p(-share) if share < 1 else 0.0
        self._until = self._step()  # rows, the next that is drawn included

    def places(self, count: int) -> Places:
        """Which of the next so many rows are drawn, in order."""
        if (until := self._until) > count:
            self._until = until - count
            return []
        if (left := (count - until) * self._share) >= MANY:
            return self._many_places(count, left)
        places = []
        while until <= count:
            places.append(until - 1)
            until += self._step()
        self._until = until - count
        return places

    def _step(self) -> int:
        """From one row to the next that is drawn: geometric."""
        return 1 + int(math.log(1 - self._draw.random()) * self._scale)

    def _many_places(self, count: int, left: float) -> Places:
        steps = self._many.geometric(self._share, int(left + 6 * math.sqrt(left)) + 2)
        steps[0] = self._until
        places = steps.cumsum() - 1
        inside = int(places.searchsorted(count))
        # it takes a chance of one in a billion that so many steps do not lead out
        self._until = int(places[inside]) - count + 1 if inside < len(places) else 1
        return places[:inside]
