"""The streams' file: one process's, refused where it is none, forgotten from its oldest end."""

import sqlite3
import stat

import numpy as np
import pytest

from hourglass.service.errors import InvalidSettings
from hourglass.service.serving.database import connect, prepare
from hourglass.service.streams.file import (
    BIN_SECONDS,
    MOST_RATIO,
    STREAMS,
    Bin,
    Changes,
    StreamsFile,
    gather,
    history_of,
)
from hourglass.service.streams.state import State, advance, rule_for
from tests.artifacts import NUMERIC, make_served, sample_rows

NOTHING = Changes({}, (), (), {})


def bins(*severities: float, entity: str = "a", first: float = 0.0) -> dict:
    return {
        ("m", entity, first + place * BIN_SECONDS): Bin(each, np.array([each, 0], np.float16))
        for place, each in enumerate(severities)
    }


def test_reading_makes_no_file(tmp_path):
    file = StreamsFile(tmp_path / "streams.sqlite")
    assert file.states(10) == ([], [])
    assert file.span("m") is None
    assert file.chronicle().open_events() == []
    assert not (tmp_path / "streams.sqlite").exists()
    file.write(NOTHING)
    file.close()
    assert stat.S_IMODE((tmp_path / "streams.sqlite").stat().st_mode) == 0o600


def test_a_bin_keeps_the_highest_severity_and_the_largest_contributions():
    file = StreamsFile(None)
    file.write(NOTHING._replace(bins={("m", "a", 0.0): Bin(1.0, np.array([1, 5], np.float16))}))
    file.write(NOTHING._replace(bins={("m", "a", 0.0): Bin(3.0, np.array([2, 4], np.float16))}))
    ((start, found),) = file.bins_of(("m", "a"), 0.0, 60.0)
    assert (start, found.severity, found.ratios_D.tolist()) == (0.0, 3.0, [2, 5])
    file.close()


def test_severities_are_gathered_into_the_bins_asked_for():
    file = StreamsFile(None)
    file.write(NOTHING._replace(bins=bins(1, 2, 3, 0.5, 4) | bins(9, entity="b", first=180.0)))
    assert file.span("m") == (0.0, 300.0)
    assert file.severities("m", 0.0, 120.0, 3) == {"a": [2, 3, 4], "b": [None, 9, None]}
    assert file.severities("m", 60.0, 60.0, 2) == {"a": [2, 3]}
    file.close()


def test_rows_of_one_minute_are_one_bin_whatever_requests_they_came_in():
    served, key = make_served(NUMERIC), ("m", "a")
    rows, time = sample_rows(NUMERIC, 50), np.arange(50) * 7.0  # nine rows a minute
    rows[20, 0] = 1e6  # what it contributes is beyond float16
    rule, whole, parts = rule_for(served, 1.0), State(), State()
    together = history_of(served, advance(whole, served, rows, time, rule, 0))
    apart = [
        (key, history_of(served, advance(parts, served, rows[k : k + 7], time[k : k + 7], rule, 0)))
        for k in range(0, 50, 7)
    ]
    found, other = gather([(key, together)]), gather(apart)
    scored = served.detector.explain(rows)
    assert [start for _, _, start in found] == [60.0 * k for k in range(6)]
    for start, each in ((start, each) for (_, _, start), each in found.items()):
        inside = time // 60 * 60 == start
        assert each.severity == scored.severity[inside].max()
        largest = (scored.contributions[inside] / served.threshold.score).max(axis=0)
        np.testing.assert_allclose(each.ratios_D, np.minimum(largest, MOST_RATIO), rtol=1e-3)
        assert other[(*key, start)].severity == pytest.approx(each.severity)
        np.testing.assert_allclose(other[(*key, start)].ratios_D, each.ratios_D, rtol=1e-3)
    assert history_of(served, advance(whole, served, rows[-1:], time[-1:], rule, 1)) is None


def test_the_oldest_bins_are_forgotten():
    file = StreamsFile(None, most_bins=100)
    file.write(NOTHING._replace(bins=bins(*range(150))))
    kept = file.bins_of(("m", "a"), 0.0, 1e9)
    assert len(kept) == 99
    assert kept[-1][0] == 149 * BIN_SECONDS
    file.close()


def test_a_failed_write_leaves_nothing_of_itself():
    file = StreamsFile(None)
    file.write(NOTHING)
    wrong = NOTHING._replace(
        bins=bins(1) | {("m", "a", 60.0): Bin(object(), np.zeros(2, np.float16))}
    )
    with pytest.raises(sqlite3.Error):
        file.write(wrong)
    assert file.bins_of(("m", "a"), 0.0, 1e9) == []
    file.write(NOTHING._replace(bins=bins(1)))
    assert len(file.bins_of(("m", "a"), 0.0, 1e9)) == 1
    file.close()


class TestPrepare:
    def test_the_file_of_another_program_is_refused(self, tmp_path):
        database = sqlite3.connect(tmp_path / "other.sqlite")
        database.execute("CREATE TABLE theirs (a)")
        database.close()
        with pytest.raises(InvalidSettings, match="another program wrote it"):
            prepare(tmp_path / "other.sqlite", STREAMS)

    def test_what_is_no_database_is_refused(self, tmp_path):
        (tmp_path / "text").write_text("not a database, and longer than its head" * 10)
        with pytest.raises(InvalidSettings, match="file is not a database"):
            prepare(tmp_path / "text", STREAMS)

    def test_a_file_that_another_process_has_is_refused(self, tmp_path):
        holder = connect(tmp_path / "streams.sqlite", STREAMS)
        with pytest.raises(InvalidSettings, match=r"database is locked.*another process has it"):
            prepare(tmp_path / "streams.sqlite", STREAMS)
        holder.close()
        prepare(tmp_path / "streams.sqlite", STREAMS)

    def test_a_folder_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(
            InvalidSettings, match=r"cannot be opened \(No such file or directory\)"
        ):
            prepare(tmp_path / "gone" / "streams.sqlite", STREAMS)
