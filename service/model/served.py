"""Served: one model as it answers, with the threshold in force.

Immutable; a change makes another one.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import orjson
from msgspec import UNSET, UnsetType, structs

from hourglass.service.model.artifact import EXHIBIT_PREFIX, GuaranteeKind
from hourglass.service.model.calibration import Threshold
from hourglass.service.model.detector import Detector
from hourglass.service.model.guarantee import Guarantee, guarantee_of
from hourglass.service.model.schema import Schema


class Summary(NamedTuple):
    """What is told of a model in service, whether it is in memory or not."""

    name: str
    version: str
    variant: str
    alpha: float
    delta: float
    guarantee: Guarantee
    threshold: float
    expected_false_alarm_rate: float
    calibration_rows: int
    feature_count: int
    fitted_at: float  # seconds since the epoch
    warning: str | None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What every answer about rows begins with: which model, and the budget in force."""

    model: str
    version: str
    alpha: float
    delta: float
    certified: bool
    guarantee: GuaranteeKind
    threshold: float
    # why the budget in force is not the one that was set; absent where it is
    warning: str | UnsetType = UNSET


# two are the same only if they are one: hashed on the hot path
@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """One model in service: all that an answer needs."""

    name: str
    detector: Detector
    schema: Schema
    threshold: Threshold
    fitted_at: float  # seconds since the epoch
    warning: str | None = None  # why the threshold is not the one that an operator has set
    answer_head: bytes = field(init=False, repr=False)  # facts() as JSON, without the closing brace

    def __post_init__(self) -> None:
        object.__setattr__(self, "answer_head", orjson.dumps(self.facts())[:-1])

    @property
    def is_exhibit(self) -> bool:
        """Whether it ships with the service, and is nobody's traffic."""
        return self.name.startswith(EXHIBIT_PREFIX)

    @property
    def guarantee(self) -> Guarantee:
        """What holds for the threshold in force."""
        return guarantee_of(self.detector.manifest.calibration, self.threshold)

    @property
    def summary(self) -> Summary:
        """What is told of it."""
        manifest, threshold = self.detector.manifest, self.threshold
        return Summary(
            name=self.name,
            version=self.detector.version,
            variant=manifest.model.variant,
            alpha=threshold.alpha,
            delta=threshold.delta,
            guarantee=self.guarantee,
            threshold=threshold.score,
            expected_false_alarm_rate=threshold.expected_false_alarm_rate,
            calibration_rows=self.detector.table.n,
            feature_count=self.schema.width,
            fitted_at=self.fitted_at,
            warning=self.warning,
        )

    def facts(self) -> dict[str, object]:
        """The fields of Facts that there are."""
        facts = Facts(
            model=self.name,
            version=self.detector.version,
            alpha=self.threshold.alpha,
            delta=self.threshold.delta,
            certified=self.guarantee.kind == "certified",
            guarantee=self.guarantee.kind,
            threshold=self.threshold.score,
            warning=self.warning or UNSET,
        )
        return {name: value for name, value in structs.asdict(facts).items() if value is not UNSET}
