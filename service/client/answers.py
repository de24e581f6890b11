"""What comes back: scores as arrays, and what went wrong as exceptions."""

from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.api.scoring import ScoreAnswer
from hourglass.service.errors import HourglassError

# What a score answer says of the model, of each row, and of some models' rows.
_OF_MODEL = ("model", "version", "alpha", "delta", "certified", "guarantee", "threshold")
_OF_ROWS = ("score", "ratio", "p_value", "severity")
_FLAGS = ("extrapolated", "is_anomaly")
_OPTIONAL_FLAGS = ("warming", "known_entity")


class ClientError(HourglassError):
    """What a client cannot do, in one sentence."""


class NoAnswer(ClientError):
    """The service cannot be reached, or went away in the middle, as often as it was asked."""


class Problem(ClientError):
    """The service refused; the fields are those of its problem+json (RFC 9457).

    `row` counts from 0 in the rows given, also where they were sent in parts.
    """

    def __init__(self, status: int, problem: dict[str, Any], *, first: int = 0) -> None:
        self.status = status
        self.type = str(problem.get("type", "about:blank"))
        self.title = str(problem.get("title", ""))
        self.detail = str(problem.get("detail", "")) or self.title
        self.feature: str | None = problem.get("feature")
        self.expected: str | None = problem.get("expected")
        self.got: str | None = problem.get("got")
        row = problem.get("row")
        self.row: int | None = None if row is None else first + row
        if first and row is not None:
            self.detail = f"{self.detail} (row {self.row} of those given)"
        super().__init__(f"{status}: {self.detail}")


class Scores(NamedTuple):
    """One entry a row in each array; NaN of a row that a model of ordered rows cannot judge."""

    model: str
    version: str
    alpha: float
    delta: float
    certified: bool
    guarantee: str
    threshold: float
    score: NDArray[np.float64]
    ratio: NDArray[np.float64]  # score / threshold
    p_value: NDArray[np.float64]
    severity: NDArray[np.float64]  # -log10 of the p-value, continued by a fitted tail
    extrapolated: NDArray[np.bool_]
    is_anomaly: NDArray[np.bool_]  # False of a row that is not judged
    warming: NDArray[np.bool_] | None  # of models of ordered rows alone
    known_entity: NDArray[np.bool_] | None  # of models with baselines alone
    warning: str | None  # where the budget in force is not the one that was set

    def __len__(self) -> int:
        return len(self.score)


def join_scores(parts: list[ScoreAnswer]) -> Scores:
    """The answers to the parts of one table, all of one version."""
    first = parts[0]

    def column(name: str, kind: type) -> Any:
        values = [value for part in parts for value in getattr(part, name)]
        if kind is float:
            return np.array([np.nan if value is None else value for value in values], np.float64)
        return np.array([bool(value) for value in values], np.bool_)

    values: dict[str, Any] = {name: getattr(first, name) for name in _OF_MODEL}
    values |= {name: column(name, float) for name in _OF_ROWS}
    values |= {name: column(name, bool) for name in _FLAGS}
    for name in _OPTIONAL_FLAGS:
        values[name] = None if getattr(first, name) is msgspec.UNSET else column(name, bool)
    values["warning"] = None if first.warning is msgspec.UNSET else first.warning
    return Scores(**values)
