"""What the service kept of alarms, as rows that a run compares with its own."""

import json
from pathlib import Path

import numpy as np
import pytest

from hourglass.service.errors import InvalidSettings, UnknownAlarms
from hourglass.service.model.artifact import UNSEEN, Feature
from hourglass.service.watch.alarms import Alarm, Alarms, Entry, OrdinaryRow, Signature
from hourglass.service.watch.feedback import Verdict, Word
from hourglass.training.errors import RunError
from hourglass.training.journal import read_journal

FEATURES = (
    Feature(name="load", kind="numeric"),
    Feature(name="open", kind="boolean"),
    Feature(name="site", kind="categorical", categories=("north", "south")),
)
NOW = 1_790_000_000.0
FAR, STUCK, GAP = [0.1, True, "north"], [2.5, False, "elsewhere"], [None, None, "south"]
CALM = [1.0, False, "south"]
# the same as a run encodes them
FAR_D, STUCK_D = [np.float32(0.1), 1, 0], [2.5, 0, UNSEEN]
GAP_D, CALM_D = [np.nan, np.nan, 1], [1.0, 0, 1]
ROWS = np.array([FAR_D, STUCK_D, GAP_D, CALM_D], np.float32)


def alarm(row: list[object], feature: str) -> Alarm:
    return Alarm(
        Signature(None, (feature,)), NOW, "v", 9.0, 3.0, 0.001, json.dumps(row), None, "so"
    )


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A journal of three groups of alarms, and their keys by the feature to blame."""
    path = tmp_path / "journal.sqlite"
    file = Alarms(path)
    found = [alarm(FAR, "load"), alarm(STUCK, "site"), alarm(GAP, "open")]
    calm = [OrdinaryRow(0, NOW, "v", 0.1, 0.8, json.dumps(CALM))]
    counts = dict.fromkeys((each.signature for each in found), 1)
    file.write([Entry("pump", 100, counts, found, calm)])
    keys = {each.features[0]: each.key for each in file.groups("pump", since=0.0, most=9)}
    file.close()
    return path, keys


def test_rows_of_alarms_are_found_again_among_those_of_a_file(
    kept: tuple[Path, dict[str, str]],
) -> None:
    path, keys = kept
    journal = read_journal(path, "pump", FEATURES, confirmed=[keys["load"]], exclude_alarms=True)
    np.testing.assert_array_equal(journal.alarms_AD, ROWS[:3])
    np.testing.assert_array_equal(journal.confirmed_KD, ROWS[:1])
    np.testing.assert_array_equal(journal.ordinary_OD, ROWS[3:])
    for since, rows in ((NOW, 1), (NOW + 1, 0)):
        later = read_journal(
            path, "pump", FEATURES, confirmed=(), exclude_alarms=True, ordinary_since=since
        )
        assert (len(later.ordinary_OD), len(later.alarms_AD)) == (rows, 3)
    confirmed_N, alarmed_N = journal.left_out(ROWS)
    assert confirmed_N.tolist() == [True, False, False, False]
    assert alarmed_N.tolist() == [False, True, True, False]
    confirmed_N, alarmed_N = journal._replace(exclude_alarms=False).left_out(ROWS)
    assert (confirmed_N.tolist()[0], alarmed_N.any()) == (True, False)


def test_real_alarms_are_confirmed_and_expected_ones_are_no_alarms(
    kept: tuple[Path, dict[str, str]],
) -> None:
    path, keys = kept
    file = Alarms(path)
    said: tuple[tuple[Verdict, str], ...]
    said = ("expected", "load"), ("real", "load"), ("expected", "site")
    for verdict, feature in said:
        file.add_feedback("pump", Word(verdict, keys[feature], None, None, None, None))
    file.close()
    journal = read_journal(path, "pump", FEATURES, confirmed=(), exclude_alarms=True)
    confirmed_N, alarmed_N = journal.left_out(ROWS)
    assert confirmed_N.tolist() == [True, False, False, False]  # what was said last
    assert alarmed_N.tolist() == [False, False, True, False]


def test_what_a_journal_does_not_have_is_said(
    kept: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    path, _ = kept
    with pytest.raises(UnknownAlarms, match="no alarms of pump are kept under the key 'ab'"):
        read_journal(path, "pump", FEATURES, confirmed=["ab"], exclude_alarms=False)
    with pytest.raises(RunError, match="has no row of an alarm of valve"):
        read_journal(path, "valve", FEATURES, confirmed=(), exclude_alarms=True)
    nothing = read_journal(path, "valve", FEATURES, confirmed=(), exclude_alarms=False)
    assert len(nothing.alarms_AD) == len(nothing.ordinary_OD) == 0
    with pytest.raises(InvalidSettings, match="there is no journal"):
        read_journal(tmp_path / "none", "pump", FEATURES, confirmed=(), exclude_alarms=False)
    (tmp_path / "other").write_text("no journal")
    with pytest.raises(InvalidSettings, match="is no journal of Hourglass"):
        read_journal(tmp_path / "other", "pump", FEATURES, confirmed=(), exclude_alarms=False)
