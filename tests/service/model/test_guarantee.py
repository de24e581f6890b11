import msgspec
import pytest

from hourglass.service.model.artifact import CalibrationRecord
from hourglass.service.model.calibration import Threshold
from hourglass.service.model.detector import Detector
from hourglass.service.model.guarantee import ON_AVERAGE, UNTESTED, guarantee_of
from tests.artifacts import make_artifact

PASSED = "1,000 rows passed the tests of exchangeability"
DRIFTED = "not exchangeable: the last fifth of the rows alarms at 21 %"


def record(guarantee: str, reason: str | None, rule: str | None = None) -> CalibrationRecord:
    fields = {"method": "split-conformal", "n": 400, "alpha": 0.05, "delta": 0.05}
    return msgspec.convert(
        {**fields, "guarantee": guarantee, "reason": reason, "rule": rule}, CalibrationRecord
    )


def threshold(*, certified: bool, alpha: float = 0.05) -> Threshold:
    return Threshold(alpha, 0.05, certified, 13, 1.0, 13 / 401)


def test_what_the_run_certified_stays_so_by_the_rule_that_certifies():
    found = record("certified", PASSED)
    assert guarantee_of(found, threshold(certified=True)) == ("certified", PASSED)
    assert guarantee_of(found, threshold(certified=False)) == ("marginal", ON_AVERAGE)


@pytest.mark.parametrize("kind", ["none", "blocks"])
@pytest.mark.parametrize("alpha", [0.01, 0.2])
@pytest.mark.parametrize("certified", [True, False])
def test_no_other_budget_makes_certified_of_what_the_run_did_not_certify(kind, alpha, certified):
    now = threshold(certified=certified, alpha=alpha)
    assert guarantee_of(record(kind, DRIFTED, "certified"), now) == (kind, DRIFTED)


def test_rows_that_passed_can_be_certified_later_by_a_run_that_asked_for_less():
    found = record("marginal", PASSED, "marginal")
    assert guarantee_of(found, threshold(certified=False)) == ("marginal", PASSED)
    assert guarantee_of(found, threshold(certified=True)).kind == "certified"


def test_of_a_file_of_format_1_0_it_is_said_that_nobody_tested():
    found = record("certified", None)
    assert guarantee_of(found, threshold(certified=True)) == ("certified", UNTESTED)


def test_the_rule_is_read_apart_from_the_guarantee():
    detector = Detector.from_bytes(make_artifact(guarantee="none", reason=DRIFTED))
    assert detector.threshold.certified  # the more careful of the two rules, with no promise
    assert detector.threshold.rank == Detector.from_bytes(make_artifact()).threshold.rank
    blocks = Detector.from_bytes(make_artifact(guarantee="blocks", certified=False))
    assert not blocks.threshold.certified
