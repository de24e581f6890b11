from pathlib import Path

import numpy as np
import pytest

from hourglass.training.fingerprints import (
    FILE,
    Fingerprints,
    fingerprint,
    read_fingerprints,
    write_fingerprints,
)
from tests.training import tables


def test_rows_are_known_again_and_others_are_not(tmp_path: Path) -> None:
    rows_ND, fresh_ND = tables.correlated(200), tables.correlated(300, seed=1)
    rows_ND[0, 1] = np.nan
    rows_ND[1, 0] = 0.0
    (tmp_path / FILE).write_text(write_fingerprints(fingerprint(rows_ND)))
    known = read_fingerprints(tmp_path)
    assert known
    again_ND = rows_ND.copy()
    again_ND[0, 1] = -np.float32(np.nan)
    again_ND[1, 0] = -0.0
    assert known.seen(again_ND) == 1.0
    assert known.seen(fresh_ND) == 0.0
    assert known.seen(np.concatenate([fresh_ND, again_ND])) == 0.4


def test_of_many_rows_a_sample_is_kept_that_tells_the_share() -> None:
    rows_ND = tables.correlated(20_000)
    known = fingerprint(rows_ND, most=2000, salt=b"salt")
    assert len(known.hashes) < 2000 * 8 * 1.4
    mixed_ND = np.concatenate([rows_ND[:5000], tables.correlated(5000, seed=1)])
    assert known.seen(mixed_ND) == pytest.approx(0.5, abs=0.06)


def test_two_models_of_the_same_rows_share_no_fingerprint() -> None:
    rows_ND = tables.correlated(50)
    assert fingerprint(rows_ND).hashes != fingerprint(rows_ND).hashes


def test_a_file_that_is_absent_or_damaged_says_nothing(tmp_path: Path) -> None:
    assert read_fingerprints(tmp_path) is None
    (tmp_path / FILE).write_text("{")
    assert read_fingerprints(tmp_path) is None


def test_rows_that_a_run_left_out_were_looked_at_and_are_none_of_the_model(tmp_path: Path) -> None:
    rows_ND = np.arange(40, dtype=np.float32).reshape(10, 4)
    made_of = fingerprint(rows_ND[:6], rows_ND[:8])
    (tmp_path / FILE).write_text(write_fingerprints(made_of))
    known = read_fingerprints(tmp_path)
    assert known
    assert known.holds(rows_ND).tolist() == [True] * 6 + [False] * 4
    assert known.lacks(rows_ND).tolist() == [False] * 8 + [True] * 2
    # a file of before says nothing of such rows
    before = Fingerprints(salt=made_of.salt, rows=made_of.rows, hashes=made_of.hashes)
    assert before.lacks(rows_ND).tolist() == [False] * 6 + [True] * 4
