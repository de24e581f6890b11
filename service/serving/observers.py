"""Observers: whoever is told of every run of a model over rows.

Metrics are one; what fails in one stops nobody's answer.
"""

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.detector import Explanation, Scores
from hourglass.service.model.served import Served

Float32 = NDArray[np.float32]
_logger = logging.getLogger(__name__)


class Observer(Protocol):
    """Is told on the event loop, after the run and in its order; must be quick, and keep none of
    the arrays' memory waiting.
    """

    def scored(
        self,
        served: Served,
        rows_ND: Float32,
        scores: Scores,
        seconds: float,
        entity: str | None,
        /,
    ) -> None:
        """Rows [N, D] were scored for the first time; the model took so long.

        NaN where a score is not finite. Of a windowed model the rows are [N + W - 1, D] of one
        entity, the first of them those that the first score looks back at.
        """

    def explained(
        self, served: Served, rows_ND: Float32, explanation: Explanation, seconds: float, /
    ) -> None:
        """Rows [N, D] were looked at once more: they were, or could have been, scored before, and
        are no new traffic.
        """


class Observers:
    """All of them, told in turn of everything but exhibits, which nobody watches."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def scored(
        self,
        served: Served,
        rows_ND: Float32,
        scores: Scores,
        seconds: float,
        entity: str | None = None,
    ) -> None:
        """Tell each; an error of theirs is logged."""
        if served.is_exhibit:
            return
        for observer in self._observers:
            try:
                observer.scored(served, rows_ND, scores, seconds, entity)
            except Exception:
                _logger.exception(
                    "%s was not told of %d scored rows", type(observer).__name__, len(scores.score)
                )

    def explained(
        self, served: Served, rows_ND: Float32, explanation: Explanation, seconds: float
    ) -> None:
        """The same of rows that were explained."""
        if served.is_exhibit:
            return
        for observer in self._observers:
            try:
                observer.explained(served, rows_ND, explanation, seconds)
            except Exception:
                _logger.exception(
                    "%s was not told of %d explained rows", type(observer).__name__, len(rows_ND)
                )


UNOBSERVED = Observers(())
