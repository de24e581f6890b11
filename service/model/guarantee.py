"""What is promised of a threshold: what the run found, which no later change of the budget raises.

- certified: the false-alarm rate is at most alpha with confidence 1 - delta, for rows that are
  exchangeable with the calibration rows; the run tested whether its own rows can be;
- marginal: the rate is at most alpha on average over calibration draws, under the same condition;
  of models that calibrate on each other's rows (cross-conformal), at most what the reason says;
- blocks: the rate was at most alpha in every held-out block of time, or of groups, looked at;
- none: the run's rows are not exchangeable, so that nothing is promised of others.
"""

from typing import NamedTuple

from hourglass.service.model.artifact import CalibrationRecord, GuaranteeKind
from hourglass.service.model.calibration import Threshold

UNTESTED = "no run tested whether these rows are exchangeable: the file is of format 1.0"
ON_AVERAGE = "alpha holds on average over calibration draws, by the rule without the confidence"


class Guarantee(NamedTuple):
    """One of the four, and in one sentence why."""

    kind: GuaranteeKind
    reason: str


def guarantee_of(record: CalibrationRecord, threshold: Threshold) -> Guarantee:
    """What holds for a threshold of a model with this record."""
    if record.guarantee in ("blocks", "none"):
        return Guarantee(record.guarantee, record.reason or UNTESTED)
    if not threshold.certified:
        own = record.guarantee == "marginal" and record.reason
        return Guarantee("marginal", own or ON_AVERAGE)
    if record.method != "split-conformal":  # its table is none that can certify
        return Guarantee("marginal", record.reason or ON_AVERAGE)
    own = record.guarantee == "certified" and record.reason
    untested = UNTESTED if record.reason is None else ""
    tested = f"{record.n} calibration rows that passed the tests of exchangeability set it"
    return Guarantee("certified", own or untested or tested)
