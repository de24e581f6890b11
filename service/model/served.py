"""Served: one model as it answers, with the threshold in force.

Immutable; a change makes another one.
"""

from dataclasses import dataclass, field

import orjson

from hourglass.service.model.calibration import Threshold
from hourglass.service.model.detector import Detector
from hourglass.service.model.guarantee import Guarantee, guarantee_of
from hourglass.service.model.schema import Schema


# two are the same only if they are one: hashed on the hot path
@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """One model in service: all that an answer needs."""

    name: str
    detector: Detector
    schema: Schema
    threshold: Threshold
    fitted_at: (
        float  # seconds since the epoch: when the file was written, since its bytes hold no time
    )
    answer_head: bytes = field(init=False, repr=False)  # facts() as JSON, without the closing brace

    def __post_init__(self) -> None:
        object.__setattr__(self, "answer_head", orjson.dumps(self.facts())[:-1])

    @property
    def guarantee(self) -> Guarantee:
        """What holds for the threshold in force."""
        return guarantee_of(self.detector.manifest.calibration, self.threshold)

    def facts(self) -> dict[str, object]:
        """What every answer to a score request begins with: which model, and the budget in
        force.
        """
        return {
            "model": self.name,
            "version": self.detector.version,
            "alpha": self.threshold.alpha,
            "delta": self.threshold.delta,
            "certified": self.guarantee.kind == "certified",
            "guarantee": self.guarantee.kind,
            "threshold": self.threshold.score,
        }
