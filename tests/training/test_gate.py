"""The gate: what it asks of columns, of the champion, of both models, and what follows."""

import re
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from hourglass.service.model.artifact import UNSEEN, Feature, Manifest
from hourglass.service.model.calibration import build_table
from hourglass.service.model.detector import Detector
from hourglass.training.data import describe
from hourglass.training.fingerprints import fingerprint
from hourglass.training.gate import (
    FEWEST,
    Confirmed,
    Decision,
    GateCheck,
    Pair,
    ask_champion,
    ask_of_journal,
    compare,
    decide,
    find_confirmed,
    is_new_to,
    look_at_columns,
    recode,
)
from hourglass.training.manifest import drift_reference

Float32 = NDArray[np.float32]
FEATURES = (
    Feature(name="load", kind="numeric"),
    Feature(name="open", kind="boolean"),
    Feature(name="site", kind="categorical", categories=("north", "south", "west")),
    Feature(name="heavy", kind="numeric"),  # of a heavy tail
    Feature(name="fixed", kind="numeric"),
)


def draw(rows: int, seed: int) -> Float32:
    random = np.random.default_rng(seed)
    return np.stack(
        [
            np.where(random.random(rows) < 0.1, np.nan, 50 + 10 * random.normal(size=rows)),
            random.random(rows) < 0.3,
            random.choice(3, rows, p=[0.6, 0.3, 0.1]),
            random.standard_t(2, rows),
            np.full(rows, 5.0),
        ],
        axis=1,
    ).astype(np.float32)


def manifest_of(rows_ND: Float32) -> Manifest:
    features = describe(FEATURES, rows_ND)
    drift = tuple(map(drift_reference, features, rows_ND.T))
    return cast(Manifest, SimpleNamespace(features=features, drift=drift))


CHAMPION = manifest_of(draw(1000, 0))


def failed(rows_ND: Float32) -> dict[str, str]:
    checks = look_at_columns(CHAMPION, rows_ND)
    return {check.name: check.text for check in checks if check.status == "fail"}


@pytest.mark.parametrize("rows", [FEWEST, 200, 5000])
def test_columns_of_other_draws_pass(rows: int) -> None:
    refused = [failed(draw(rows, seed)) for seed in range(1, 101)]
    assert sum(map(bool, refused)) == 0, refused


def test_fewer_rows_tell_of_no_column() -> None:
    (check,) = look_at_columns(CHAMPION, draw(FEWEST - 1, 1))
    assert (check.status, check.name) == ("warn", "Columns")


def spoil(column: int, value: Any) -> Float32:
    rows_ND = draw(500, 1)
    rows_ND[:, column] = value(rows_ND[:, column])
    return rows_ND


def test_what_is_odd_about_a_column_is_said_with_its_name() -> None:
    zeros = failed(spoil(0, np.zeros_like))
    assert zeros["Constant columns"] == "column 'load': every value is 0, and they varied"
    assert "outside of" in zeros["Ranges"]
    units = failed(spoil(0, lambda values: values * 1000))
    assert "'load': eight tenths of the values are" in units["Scales"]
    assert set(units) == {"Ranges", "Scales", "Distributions"}
    # within the range, so that the distribution alone tells
    moved = failed(spoil(0, lambda values: values + 18))
    assert "'load'" in moved["Distributions"]
    missing = failed(spoil(0, lambda values: np.where(np.arange(500) % 2, np.nan, values)))
    assert list(missing) == ["Missing cells"]
    assert "were" in missing["Missing cells"]
    unseen = failed(spoil(2, lambda values: np.where(np.arange(500) % 10, values, UNSEEN)))
    assert "10.0% of the values are categories it does not know" in unseen["Ranges"]
    other = failed(spoil(2, lambda values: (values + 1) % 3))
    assert list(other) == ["Distributions"]
    # half of a night, at a value in the midst of the others
    half = failed(spoil(0, lambda values: np.where(np.arange(500) % 2, 50, values)))
    assert list(half) == ["Repeated values"]
    assert re.match(r"column 'load': 5\d\.\d% of the values are 50, and", half["Repeated values"])
    stuck = failed(spoil(1, np.zeros_like))
    assert "Constant columns" in stuck
    fixed = failed(spoil(4, lambda values: values + 1))
    assert "100.0% of the values are outside of 5 to 5" in fixed["Ranges"]


def detector(score_C: Float32, **manifest: object) -> Detector:
    """What the gate asks of one that is calibrated by these scores, at alpha = 5 %."""
    table = build_table(score_C)
    return cast(
        Detector,
        SimpleNamespace(
            table=table, threshold=table.threshold(0.05, 0.05), manifest=SimpleNamespace(**manifest)
        ),
    )


def scores(rows: int, seed: int, *, shift: float = 0.0) -> Float32:
    return np.exp(np.random.default_rng(seed).normal(size=rows) + shift).astype(np.float32)


def statuses(checks: tuple[GateCheck, ...]) -> list[str]:
    return [check.status for check in checks]


def test_a_champion_is_content_with_rows_like_its_own() -> None:
    asked = [
        ask_champion(detector(scores(200, seed)), scores(500, 1000 + seed)) for seed in range(200)
    ]
    assert not any("fail" in statuses(checks) for checks in asked)
    # warnings are of what chance makes once in some thousand draws
    assert sum("warn" in statuses(checks) for checks in asked) <= 1


def test_a_champion_that_finds_rows_strange_refuses_them() -> None:
    checks = ask_champion(detector(scores(200, 0)), scores(500, 1, shift=2.0))
    assert statuses(checks) == ["fail", "fail"]
    assert "another population, or it has aged" in checks[0].text


def test_rows_that_a_service_would_refuse_are_not_counted() -> None:
    few = ask_champion(detector(scores(200, 0)), np.full(1000, np.nan, np.float32))
    assert few[0].text == "0 rows are new to it, and 50 are asked about at least"


def pair(agreement: float, twin: float | None, rows: int = 400) -> Pair:
    """Scores that correlate so; Spearman's is a little less than Pearson's."""
    random = np.random.default_rng(0)
    base, other, third = random.normal(size=(3, rows))

    def mix(share: float, noise: NDArray[np.float64]) -> Float32:
        return (share * base + np.sqrt(1 - share**2) * noise).astype(np.float32)

    return Pair(
        mix(agreement, other),
        base.astype(np.float32),
        None if twin is None else mix(twin, third),
    )


def test_models_have_to_rank_rows_alike_as_far_as_equal_fits_do() -> None:
    assert compare(pair(0.95, 0.97), same=True).status == "pass"
    assert compare(pair(0.1, 0.97), same=True).status == "fail"
    assert compare(pair(0.1, None), same=True).status == "fail"
    # where two seeds alone make more of a difference, so may the rows
    assert compare(pair(0.4, 0.5), same=True).status == "pass"
    assert compare(pair(0.1, 0.97), same=False).status == "warn"
    assert compare(pair(0.9, None, rows=FEWEST - 1), same=True).status == "warn"


def test_a_challenger_that_misses_confirmed_anomalies_is_refused() -> None:
    champion, challenger = detector(scores(400, 0)), detector(scores(400, 1))
    far, near = np.full(50, 1e3, np.float32), np.full(50, 0.1, np.float32)
    held_out = Pair(scores(200, 2), scores(200, 3), None)
    good = find_confirmed(champion, challenger, Confirmed(far, far), held_out)
    assert statuses(good) == ["pass", "pass"]
    blind = find_confirmed(champion, challenger, Confirmed(far, near), held_out)
    assert statuses(blind) == ["fail", "fail"]
    assert blind[0].text == "0.0% of 50 confirmed anomalies alarm, 100.0% with the champion"
    assert find_confirmed(champion, challenger, Confirmed(far[:0], far[:0]), held_out) == ()
    # one of five may be lost by chance
    one = np.array([1e3, 1e3, 1e3, 1e3, 0.1], np.float32)
    few = find_confirmed(champion, challenger, Confirmed(far[:5], one), held_out)
    assert few[0].status == "pass"


def test_rows_that_did_not_alarm_must_not_and_alarms_that_are_lost_warn() -> None:
    both = detector(scores(400, 2)), detector(scores(400, 0))
    calm, far = scores(200, 1), np.full(200, 1e3, np.float32)
    assert statuses(ask_of_journal(*both, far, Pair(calm, calm, None))) == ["pass", "pass"]
    assert statuses(ask_of_journal(*both, calm[:0], Pair(calm, far, None))) == ["fail"]
    assert statuses(ask_of_journal(*both, calm, Pair(calm, calm, None))) == ["pass", "warn"]


def test_rows_that_did_not_alarm_tell_nothing_once_normal_has_moved() -> None:
    """Those that the champion still finds ordinary lie at its edge, beyond which they may be of
    any other fit."""
    both = detector(scores(400, 2)), detector(scores(400, 0))
    calm, far = scores(200, 1), np.full(200, 1e3, np.float32)
    moved = np.arange(200) < 150
    (check,) = ask_of_journal(*both, calm[:0], Pair(np.where(moved, far, calm), far, None))
    assert check.status == "warn"
    assert re.match(r"7\d\.\d% of 200 rows that did not alarm in service would by now", check.text)
    # a few of them may; the rest are asked about
    few = np.arange(200) < 10
    checks = ask_of_journal(*both, calm[:0], Pair(np.where(few, far, calm), far, None))
    assert statuses(checks) == ["fail"]
    unseen = np.full(200, np.nan, np.float32)
    assert ask_of_journal(*both, calm[:0], Pair(unseen, calm, None)) == ()


def decided(*statuses: str, forced: bool = False, forced_at: float | None = None) -> Decision:
    checks = [
        GateCheck(name=f"Check {n}", status=cast(Any, status), text=f"found {n}")
        for n, status in enumerate(statuses)
    ]
    return decide(
        checks, champion="a", challenger="b", decided_at=9.0, forced=forced, forced_at=forced_at
    )


def test_one_failed_check_refuses_unless_a_person_insists() -> None:
    assert decided("pass", "warn") == Decision(
        published=True,
        forced=False,
        reason="none of 2 checks failed, with a warning about check 1",
        champion="a",
        challenger="b",
        decided_at=9.0,
        checks=decided("pass", "warn").checks,
    )
    refused = decided("pass", "fail", "fail")
    assert (refused.published, refused.forced) == (False, False)
    assert refused.reason == "check 1: found 1, and 1 more checks failed"
    forced = decided("fail", forced=True)
    assert (forced.published, forced.forced) == (True, True)
    assert not decided("pass", forced=True).forced


def test_when_a_person_last_insisted_is_handed_on() -> None:
    assert decided("fail", forced=True, forced_at=3.0).forced_at == 9.0
    assert decided("pass", forced=True, forced_at=3.0).forced_at == 3.0
    assert decided("fail", forced_at=3.0).forced_at == 3.0
    assert decided("pass").forced_at is None


def test_a_category_is_recoded_by_its_name() -> None:
    ours = (Feature(name="site", kind="categorical", categories=("a", "b", "c")),)
    theirs = (Feature(name="site", kind="categorical", categories=("b", "c", "d")),)
    rows_ND = np.array([[0], [1], [2], [np.nan], [UNSEEN]], np.float32)
    recoded = recode(rows_ND, ours, theirs).ravel()
    np.testing.assert_array_equal(recoded, np.float32([UNSEEN, 0, 1, np.nan, UNSEEN]))


def test_rows_that_made_the_champion_are_not_new_to_it() -> None:
    old_ND, new_ND = draw(300, 0), draw(300, 1)
    both_ND = np.concatenate([old_ND, new_ND])
    assert is_new_to(fingerprint(old_ND), both_ND).tolist() == [False] * 300 + [True] * 300
    # of more rows than fingerprints are kept for, it is known of a part
    some_N = is_new_to(fingerprint(old_ND, most=150), both_ND)
    assert not some_N[:300].any()
    assert 100 <= some_N[300:].sum() <= 200
    assert not is_new_to(fingerprint(both_ND), both_ND).any()
    # where hardly one is, all are asked about
    assert is_new_to(fingerprint(both_ND[:-10]), both_ND).all()
    assert is_new_to(None, both_ND).all()
