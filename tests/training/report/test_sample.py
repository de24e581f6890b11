"""Rows that a report asks a model about: alone, in windows, and by the baseline of their entity."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hourglass.service.model.detector import Detector
from hourglass.service.serving.store import MODEL_FILE
from hourglass.training.report.remake import Rows, remake
from hourglass.training.report.sample import Sample
from tests.artifacts import NUMERIC, make_artifact, make_windowed_artifact, publish, sample_rows
from tests.training import tables

ENTITIES = {"north": (100.0, 5.0), "south": (-3.0, 0.125)}
WINDOW = 4


@pytest.fixture(scope="module")
def fleet() -> Detector:
    """Of two entities with baselines."""
    return Detector.from_bytes(make_windowed_artifact(rows=WINDOW, entities=ENTITIES))


def in_units_of(entity: str, rows_ND: np.ndarray) -> np.ndarray:
    center, scale = ENTITIES[entity]
    return (center + scale * rows_ND).astype(np.float32)


def test_single_rows_are_asked_for_as_they_are() -> None:
    detector, rows_ND = Detector.from_bytes(make_artifact()), sample_rows(NUMERIC, 30)
    sample = Sample.of(detector, rows_ND).take(np.arange(5, 20))
    np.testing.assert_array_equal(sample.score().score, detector.score(rows_ND[5:20]).score)
    np.testing.assert_array_equal(sample.encode(), detector.encode(rows_ND[5:20]))
    assert sample.windows_NWD.shape == (15, 1, 4)
    others = sample.score_instead(sample.windows_NWD + 1).score
    np.testing.assert_array_equal(others, detector.score(rows_ND[5:20] + 1).score)


def test_windows_are_judged_in_any_order_as_their_series_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = Detector.from_bytes(make_windowed_artifact(rows=WINDOW))
    rows_TD = sample_rows(NUMERIC, 50)
    place_N = np.random.default_rng(0).permutation(np.arange(WINDOW - 1, 50))
    sample, expected = Sample(detector, rows_TD, place_N), detector.explain(rows_TD)
    monkeypatch.setattr("hourglass.training.report.sample.CELLS", 5 * WINDOW * 4)
    which = place_N - WINDOW + 1
    np.testing.assert_array_equal(sample.score().score, expected.score[which])
    np.testing.assert_array_equal(sample.explain().contributions, expected.contributions[which])
    np.testing.assert_array_equal(sample.encode(), detector.encode(rows_TD)[which])
    np.testing.assert_array_equal(sample.rows_ND, rows_TD[place_N])
    assert len(sample.take(place_N < 0).score().score) == 0


def test_each_window_is_judged_by_its_own_entitys_baseline(fleet: Detector) -> None:
    rows_TD = sample_rows(NUMERIC, 40)
    both_TD = np.concatenate([in_units_of("north", rows_TD), in_units_of("south", rows_TD)])
    entity_T = np.repeat([0, 1], 40)
    place_N = np.array([60, 10, 70, 20, 30])
    sample = Sample(fleet, both_TD, place_N, entity_T, ("north", "south"))
    expected = fleet.score(rows_TD).score[place_N % 40 - WINDOW + 1]
    np.testing.assert_allclose(sample.score().score, expected, rtol=1e-4)
    np.testing.assert_allclose(sample.explain().score, expected, rtol=1e-4)
    instead = sample.score_instead(sample.windows_NWD).score
    np.testing.assert_allclose(instead, expected, rtol=1e-4)
    codes = fleet.encode(rows_TD)[place_N % 40 - WINDOW + 1]
    np.testing.assert_allclose(sample.encode(), codes, rtol=1e-3, atol=1e-4)


def test_a_report_of_a_fleet_is_the_same_in_whatever_units_its_entities_are(
    tmp_path: Path,
) -> None:
    rows_TD = sample_rows(NUMERIC, 400, seed=5)
    names = [feature.name for feature in NUMERIC]
    version = publish(tmp_path, "fleet", make_windowed_artifact(rows=WINDOW, entities=ENTITIES))
    facts = {}
    for units in ("own", "fleet"):
        parts = [
            pl.DataFrame(
                in_units_of(entity, rows_TD) if units == "own" else rows_TD, schema=names
            ).with_columns(
                at=pl.Series(1.7e9 + 60.0 * np.arange(400)),
                # whom the model does not know has the fleet's units
                site=pl.lit(entity if units == "own" else f"other {entity}"),
            )
            for entity in ENTITIES
        ]
        data = tables.write(pl.concat(parts), tmp_path / f"{units}.parquet")
        file = tmp_path / "fleet" / version / MODEL_FILE
        facts[units] = remake(file, Rows(data, time="at", entity="site"))
    own, others = facts["own"], facts["fleet"]
    assert own.scores.alarms.value == pytest.approx(others.scores.alarms.value, abs=2e-3)
    assert own.scores.alarms.n == 2 * (400 - WINDOW + 1)
    assert own.timeline
    assert others.timeline
    assert own.timeline.effective == pytest.approx(others.timeline.effective, rel=0.01)
    first, same = own.strangest.windows[0], others.strangest.windows[0]
    assert first.severity == pytest.approx(same.severity, rel=1e-2)
    assert [each.feature for each in first.blamed] == [each.feature for each in same.blamed]
    assert first.blamed[0].sd == pytest.approx(same.blamed[0].sd, rel=1e-2)
    assert any("of each of 2 entities its name" in each.what for each in own.privacy)
