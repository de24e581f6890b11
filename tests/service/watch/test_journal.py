"""The journal: alarms are counted exactly, grouped and kept; scoring never waits, nor fails."""

import asyncio
import json
import os
import re
import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import httpx
import numpy as np
import pytest

from hourglass.service.errors import InvalidSettings
from hourglass.service.model.detector import Scores
from hourglass.service.model.served import Served
from hourglass.service.serving.database import prepare
from hourglass.service.watch import alarms as kept
from hourglass.service.watch import journal as watched
from hourglass.service.watch.alarms import JOURNAL, Alarm, Alarms, Entry, Signature
from hourglass.service.watch.journal import Journal
from hourglass.service.watch.metrics import Metrics
from tests.artifacts import MIXED, NUMERIC, as_json_rows, make_artifact, make_served, publish
from tests.serving import Process, serving, wait_until

T = TypeVar("T")
FAR = [300.0, 1.0, 0.0, 0.5]  # load, by far
ROWS = np.array([FAR, [0.5, 1.0, 0.0, -400.0]], np.float32)  # and heat
NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def served() -> Served:
    return make_served(MIXED, conditional=True)


@pytest.fixture
def journal() -> Iterator[Journal]:
    journal = Journal(Alarms(None), values=True)
    yield journal
    journal.close()


class Models:
    """A registry of nothing."""

    names: frozenset[str] = frozenset()


def metrics_of(journal: Journal) -> Metrics:
    """Those that tell the journal of runs."""
    told_by = getattr(journal.fetch, "__self__", None)
    if told_by is None:
        told_by = Metrics(Models(), shared=False, journal=journal)  # type: ignore[arg-type]
    return told_by


def run(journal: Journal, served: Served, rows_ND: np.ndarray) -> Scores:
    scores = served.detector.score(rows_ND)
    metrics_of(journal).scored(served, rows_ND, scores, 0.0)
    return scores


def ask(journal: Journal, question: Callable[[Alarms], T]) -> T:
    return asyncio.run(journal.ask(question))


@contextmanager
def full_disk() -> Iterator[None]:
    """Files that cannot grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def groups(journal: Journal) -> dict[tuple[str, ...], int]:
    found = ask(journal, lambda alarms: alarms.groups("tiny", since=0.0, most=100))
    return {tuple(group.features): group.count for group in found}


def alarm(at: float, *features: str, severity: float = 3.0) -> Alarm:
    return Alarm(Signature(None, features), at, "v", 1.0, severity, 0.01, None, None, "so")


def entry(*alarms: Alarm) -> Entry:
    counts = {each.signature: 0 for each in alarms}
    for each in alarms:
        counts[each.signature] += 1
    return Entry("tiny", 10, counts, alarms, ())


class TestGroups:
    def test_alarms_of_the_same_features_within_five_minutes_are_one_group(self) -> None:
        alarms = Alarms(None)
        alarms.write([entry(alarm(NOW, "a"), alarm(NOW + 1, "a", "b"))])
        (b, a) = alarms.groups("tiny", since=0.0, most=9)
        alarms.write([entry(alarm(NOW + 290, "a", severity=4.0))])
        alarms.write([entry(alarm(NOW + 580, "a"))])
        alarms.write([entry(alarm(NOW + 881, "a"))])
        late, early, other = alarms.groups("tiny", since=0.0, most=9)
        assert [each.count for each in (late, early, other)] == [1, 3, 1]
        assert (early.key, other.key) == (a.key, b.key)
        assert late.key != early.key
        assert (early.last - early.first).total_seconds() == 580
        assert (early.worst.severity, early.worst.time) == (4.0, kept.time_of(NOW + 290))
        assert early.sentence == "3 alarms within 10 minutes, the worst: so"
        assert [group.key for group in alarms.groups("tiny", since=NOW + 800, most=9)] == [late.key]
        assert [group.key for group in alarms.groups("tiny", since=0.0, most=1)] == [late.key]
        assert alarms.counts("tiny") == (40, 5)
        assert alarms.counts("other") == (0, 0)

    def test_the_key_is_the_same_in_another_process(self, tmp_path: Path) -> None:
        found = []
        for path in (tmp_path / "a", tmp_path / "b"):
            alarms = Alarms(path)
            alarms.write([entry(alarm(NOW, "a"))])
            found += [group.key for group in alarms.groups("tiny", since=0.0, most=9)]
            alarms.close()
        assert found[0] == found[1]

    def test_two_processes_that_see_one_storm_write_one_group(self, tmp_path: Path) -> None:
        one, other = Alarms(tmp_path / "j"), Alarms(tmp_path / "j")
        for at in range(5):
            one.write([entry(alarm(NOW + at, "a"))])
            other.write([entry(alarm(NOW + at, "a"))])
        (group,) = other.groups("tiny", since=0.0, most=9)
        assert (group.count, one.counts("tiny")) == (10, (100, 10))
        one.close(), other.close()

    def test_what_is_kept_is_bounded_and_the_worst_stays(self) -> None:
        alarms = Alarms(None, most=150)
        alarms.write([entry(alarm(NOW, "a", severity=9.0))])
        for at in range(1, 400):
            alarms.write([entry(alarm(NOW + at / 10, "a"))])
        (group,) = alarms.groups("tiny", since=0.0, most=9)
        _, listed = alarms.group("tiny", group.key)
        assert (group.count, len(listed)) == (400, kept.GROUP_ALARMS + 1)
        assert (listed[0].time, listed[-1].severity) == (kept.time_of(NOW + 39.9), 9.0)
        for number in range(160):
            alarms.write([entry(alarm(NOW + 40 + number, f"f{number}"))])
        rows = alarms._open().execute("SELECT count(*) FROM alarms").fetchone()
        assert rows == (150,)
        assert len(alarms.groups("tiny", since=0.0, most=1000)) == 150

    def test_what_is_too_old_goes(self) -> None:
        alarms = Alarms(None, days=1.0)
        old = time.time() - 86400 - 5
        alarms.write([entry(alarm(old, "a"), alarm(old + 86400, "b"))])
        assert [group.features for group in alarms.groups("tiny", since=0.0, most=9)] == [["b"]]


class TestJournal:
    def test_an_alarm_is_kept_with_its_row_and_its_reasons(self, journal, served) -> None:
        run(journal, served, ROWS[:1])
        (group,) = ask(journal, lambda alarms: alarms.groups("tiny", since=0.0, most=9))
        assert (group.features, group.count) == (["load"], 1)
        assert group.sentence == (
            "load is 300 kW where 0.6 ± 0.8 kW was expected (374 sd too high)"
        )
        _, (one,) = ask(journal, lambda alarms: alarms.group("tiny", group.key))
        assert json.loads(bytes(one.row)) == [300.0, True, "north", 0.5]
        blamed = [each for each in json.loads(bytes(one.reasons)) if each["blamed"]]
        assert [(each["feature"], each["actual"]) for each in blamed] == [("load", 300.0)]
        assert one.version == served.detector.version
        assert one.severity == served.detector.score(ROWS[:1]).severity[0]

    def test_without_a_file_no_value_is_kept(self, served) -> None:
        journal = Journal(Alarms(None), values=False)
        run(journal, served, ROWS[:1])
        run(journal, served, np.zeros((50, 4), np.float32))
        (group,) = ask(journal, lambda alarms: alarms.groups("tiny", since=0.0, most=9))
        assert group.sentence == "load is 374 sd too high"
        _, (one,) = ask(journal, lambda alarms: alarms.group("tiny", group.key))
        assert one.row is None
        reasons = json.loads(bytes(one.reasons))
        assert {(each["actual"], each["expected"], each["expected_sd"]) for each in reasons} == {
            (None, None, None)
        }
        assert ask(journal, lambda alarms: alarms.ordinary("tiny")) == []
        journal.close()

    def test_a_storm_of_alarms_that_are_alike_is_one_group_and_every_one_is_counted(
        self, journal, served
    ) -> None:
        storm = np.tile(ROWS[:1], (10_000, 1))
        storm[:, 0] += np.arange(10_000)
        for start in range(0, 1000, 1):
            run(journal, served, storm[start : start + 1])
        run(journal, served, storm[1000:])
        assert groups(journal) == {("load",): 10_000}
        assert ask(journal, lambda alarms: alarms.counts("tiny")) == (10_000, 10_000)
        (group,) = ask(journal, lambda alarms: alarms.groups("tiny", since=0.0, most=9))
        assert group.worst.severity == served.detector.score(storm[-1:]).severity[0]
        _, listed = ask(journal, lambda alarms: alarms.group("tiny", group.key))
        assert len(listed) <= kept.GROUP_ALARMS + 1

    def test_of_two_storms_at_once_each_has_its_share(self, journal, served) -> None:
        run(journal, served, np.repeat(ROWS, [6000, 2000], axis=0))
        found = groups(journal)
        assert set(found) == {("load",), ("heat",)}
        assert sum(found.values()) == 8000
        # of 256 that were drawn three quarters are of the first, give or take four sd
        assert found["load",] == pytest.approx(6000, abs=4 * 8000 * (0.75 * 0.25 / 256) ** 0.5)

    def test_what_there_is_no_time_to_explain_belongs_to_what_is_most_alike(
        self, journal, served, monkeypatch
    ) -> None:
        monkeypatch.setattr(watched, "SHARE", 0.0)
        journal._saved = 1e-9  # for the first rows alone
        for row_D in np.concatenate([ROWS, ROWS, ROWS, ROWS]):
            run(journal, served, row_D[None])
        found = ask(journal, lambda alarms: alarms.groups("tiny", since=0.0, most=9))
        assert {tuple(group.features): group.count for group in found} == {
            ("load",): 4,
            ("heat",): 4,
        }
        listed = [
            one
            for group in found
            for one in ask(journal, lambda alarms, key=group.key: alarms.group("tiny", key))[1]
        ]
        assert sum(one.reasons is not None for one in listed) == watched.TOGETHER

    def test_a_fair_sample_of_alarms_is_kept(self, journal, served) -> None:
        """By simulation: early, late, alone or in bulk, each is as likely to be kept."""
        seen = watched._Seen(served)
        seen.most, times, draws = 8, np.zeros(64), 1500
        rows_ND = np.tile(np.arange(64, dtype=np.float32)[:, None], 4)
        scores = Scores(*(np.arange(64, dtype=np.float32) for _ in range(3)))
        for _ in range(draws):
            seen.kept, seen.alarms, seen.worst = [], 0, None
            for place in range(16):
                part = slice(place, place + 1)
                one = Scores(*(each[part] for each in scores))
                journal._note_one(seen, rows_ND[part], one, float(place), None)
            journal._note(seen, rows_ND, scores, list(range(16, 64)), None)
            times[[int(each.score) for each in seen.kept]] += 1
            assert (seen.alarms, len(seen.kept), seen.worst.score) == (64, 8, 63.0)
        expected = draws * 8 / 64
        assert np.abs(times - expected).max() < 5 * (expected * (1 - 8 / 64)) ** 0.5
        assert abs(times[:16].mean() - expected) < 4 * (expected / 16) ** 0.5

    def test_alarms_that_cannot_be_explained_are_counted_and_kept(
        self, journal, served, monkeypatch, caplog
    ) -> None:
        def fail(*_: object) -> None:
            raise ArithmeticError("of a strange model")

        monkeypatch.setattr(watched, "reasons_of", fail)
        run(journal, served, ROWS)
        (group,) = ask(journal, lambda alarms: alarms.groups("tiny", since=0.0, most=9))
        assert (group.features, group.count) == ([], 2)
        _, listed = ask(journal, lambda alarms: alarms.group("tiny", group.key))
        assert [one.reasons for one in listed] == [None, None]
        assert "2 alarms of tiny are not explained" in caplog.text

    def test_rows_that_are_refused_raise_no_alarm(self, journal, served) -> None:
        for values in ([np.inf], [np.nan], [np.inf, np.nan, 0.1]):
            scores = Scores(*(np.array(values, np.float32) for _ in range(3)))
            rows_ND = np.zeros((len(values), 4), np.float32)
            metrics_of(journal).scored(served, rows_ND, scores, 0.0)
        assert ask(journal, lambda alarms: alarms.counts("tiny"))[1] == 0

    def test_the_threshold_in_force_decides(self, journal, served) -> None:
        scores = run(journal, served, ROWS[:1])
        calm = replace(served, threshold=replace(served.threshold, score=float(scores.score[0])))
        metrics_of(journal).scored(calm, ROWS[:1], scores, 0.0)
        assert ask(journal, lambda alarms: alarms.counts("tiny")) == (2, 1)

    def test_a_model_of_the_first_format_groups_by_what_contributes_most(self, journal) -> None:
        run(journal, make_served(MIXED), ROWS)
        found = groups(journal)
        assert sum(found.values()) == 2
        assert all(len(features) == 1 for features in found)

    def test_some_ordinary_rows_are_kept_and_no_alarm_is_among_them(
        self, journal, served, monkeypatch
    ) -> None:
        monkeypatch.setattr(watched, "MOST_ORDINARY", 10**6)
        draw = np.random.default_rng(0)
        for number in range(40):
            rows_ND = np.tile(np.array([[0, 1, 0, 0]], np.float32), (100, 1))
            rows_ND[:, 3] = draw.normal(0, 0.1, 100)
            rows_ND[::7, 0], rows_ND[:, 3] = 300, rows_ND[:, 3] + number
            run(journal, served, rows_ND)
            rows = ask(journal, lambda alarms: alarms.ordinary("tiny"))
            assert len(rows) <= kept.ORDINARY_ROWS
        values = np.array([json.loads(bytes(row.row))[0] for row in rows])
        assert (values == 0).all()
        assert len(rows) > kept.ORDINARY_ROWS / 4


class TestFile:
    def test_a_new_file_is_its_owners_alone(self, tmp_path: Path) -> None:
        prepare(tmp_path / "journal", JOURNAL)
        assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600
        prepare(tmp_path / "journal", JOURNAL)  # and is ours from then on

    def test_what_is_no_journal_is_said_in_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("not a database at all, but longer than its header\n" * 99)
        foreign = sqlite3.connect(tmp_path / "foreign")
        foreign.execute("CREATE TABLE other (x)")
        foreign.commit(), foreign.close()
        torn = Alarms(tmp_path / "torn")
        for at in range(300):
            torn.write([entry(alarm(NOW + at, f"feature {at}"))])
        torn.close()
        data = bytearray((tmp_path / "torn").read_bytes())
        data[4096:] = os.urandom(len(data) - 4096)
        (tmp_path / "torn").write_bytes(data)
        (tmp_path / "folder").mkdir()
        for name, said in (
            ("text", "is no journal of Hourglass, or is damaged (file is not a database)"),
            ("foreign", "is no journal of Hourglass, or is damaged (another program wrote it)"),
            ("torn", "is no journal of Hourglass, or is damaged"),
            ("folder", "cannot be opened (Is a directory)"),
            ("nowhere/journal", "cannot be opened (No such file or directory)"),
        ):
            with pytest.raises(InvalidSettings) as raised:
                prepare(tmp_path / name, JOURNAL)
            sentence = str(raised.value)
            assert sentence.startswith(f"the journal {tmp_path / name} {said}")
            assert "\n" not in sentence
        assert (tmp_path / "text").read_text().startswith("not a database")

    def test_what_a_full_disk_refuses_waits_and_is_written_once_there_is_room(
        self, tmp_path, served, caplog
    ) -> None:
        told: list[tuple[int, int, int]] = []
        journal = Journal(Alarms(tmp_path / "journal"), values=True)
        metrics_of(journal)
        journal.tell = lambda *counts: told.append(counts)
        run(journal, served, ROWS)
        assert sum(groups(journal).values()) == 2
        with full_disk():
            for _ in range(5):
                run(journal, served, np.tile(ROWS, (20, 1)))
                assert ask(journal, lambda _: 7) == 7
        assert [failures for _, _, failures in told[1:]] == [1] * 5
        assert caplog.text.count("the journal cannot be written, and alarms wait") == 1
        rows, alarms = ask(journal, lambda alarms: alarms.counts("tiny"))  # nothing new came
        assert (rows, alarms) == (len(ROWS) * 101, 2 + 5 * 40)
        assert sum(groups(journal).values()) == 2 + 5 * 40
        assert sum(lost for _, lost, _ in told) == 0
        assert "the journal can be written again" in caplog.text
        journal.close()

    def test_of_what_waits_the_oldest_beyond_a_bound_is_lost_and_counted(
        self, tmp_path, served, monkeypatch
    ) -> None:
        monkeypatch.setattr(watched, "MOST_WAITING", 100)
        told: list[tuple[int, int, int]] = []
        journal = Journal(Alarms(tmp_path / "journal"), values=True)
        metrics_of(journal)
        journal.tell = lambda *counts: told.append(counts)
        run(journal, served, ROWS)
        assert sum(groups(journal).values()) == 2
        with full_disk():
            for _ in range(5):
                run(journal, served, np.tile(ROWS, (20, 1)))
                ask(journal, lambda _: 7)
        assert sum(lost for _, lost, _ in told) == 3 * 40
        rows, alarms = ask(journal, lambda alarms: alarms.counts("tiny"))
        assert (rows, alarms) == (len(ROWS) * 101, 2 + 2 * 40)  # no row is uncounted
        with full_disk():
            run(journal, served, ROWS)
            journal.close()
        assert sum(lost for _, lost, _ in told) == 3 * 40 + 2

    def test_what_no_file_takes_is_dropped_alone_and_counted(
        self, tmp_path, served, monkeypatch, caplog
    ) -> None:
        told: list[tuple[int, int, int]] = []
        journal = Journal(Alarms(tmp_path / "journal"), values=True)
        metrics_of(journal)
        journal.tell = lambda *counts: told.append(counts)
        with monkeypatch.context() as patched, full_disk():
            run(journal, served, ROWS)
            ask(journal, lambda _: 7)  # these wait
            patched.setattr(
                Journal, "_entry", lambda *_: entry(alarm(NOW, "a")._replace(score=None))
            )
            run(journal, served, ROWS)
            ask(journal, lambda _: 7)
        assert sum(groups(journal).values()) == 2
        assert [sum(each) for each in zip(*told, strict=True)] == [2, 1, 2]
        assert "1 alarms of tiny are not in the journal" in caplog.text
        journal.close()

    def test_the_clock_goes_on_whatever_writing_comes_to(self, journal, served, monkeypatch):
        monkeypatch.setattr(watched, "WRITE_SECONDS", 0.01)
        told: list[tuple[int, int, int]] = []
        metrics_of(journal)
        journal.tell = lambda *counts: told.append(counts)

        def fail(*_: object) -> None:
            raise RuntimeError("nobody thought of it")

        async def a_while() -> None:
            clock = asyncio.create_task(journal.clock())
            with monkeypatch.context() as patched:
                patched.setattr(Alarms, "write", fail)
                run(journal, served, ROWS)
                await asyncio.to_thread(wait_until, lambda: told)
            run(journal, served, ROWS)
            await asyncio.to_thread(wait_until, lambda: len(told) == 2)
            clock.cancel()

        asyncio.run(a_while())
        assert told == [(0, 2, 0), (2, 0, 0)]

    def test_a_service_goes_on_scoring_and_answers_while_the_disk_is_full(
        self, tmp_path, monkeypatch
    ) -> None:
        publish(tmp_path, "mixed", make_artifact(MIXED, conditional=True))
        rows = as_json_rows(MIXED, ROWS)

        def full(*_: object) -> float:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(Alarms, "write", full)
        with serving(tmp_path, journal=tmp_path / "journal") as client:
            for _ in range(3):
                client.post("/v1/models/mixed/score", json={"rows": rows}).raise_for_status()
                answer = client.get("/v1/models/mixed/alarms").raise_for_status().json()
                assert (answer["alarms"], answer["groups"]) == (0, [])
            text = client.get("/metrics").text
            monkeypatch.setattr(Alarms, "began", full)
            failed = client.get("/v1/models/mixed/alarms")
            assert (failed.status_code, failed.json()["type"]) == (503, "/docs#journal-failed")
        (failures,) = re.findall(
            r"^hourglass_journal_write_failures_total (.*)", text, re.MULTILINE
        )
        assert float(failures) >= 3  # and once a second
        assert "hourglass_journal_lost_total 0.0" in text
        assert "hourglass_journal_alarms_total 0.0" in text


class TestRoutes:
    def test_alarms_are_listed_in_groups_and_each_with_its_alarms(self, tmp_path: Path) -> None:
        publish(tmp_path, "mixed", make_artifact(MIXED, conditional=True))
        rows = as_json_rows(MIXED, ROWS)
        with serving(tmp_path) as client:
            url = "/v1/models/mixed/alarms"
            empty = client.get(url).json()
            assert (empty["alarms"], empty["groups"], empty["rows_kept"]) == (0, [], False)
            assert empty["rows_scored"] == 0
            client.post("/v1/models/mixed/score", json={"rows": [*rows, rows[0]]})
            client.post("/v1/models/mixed/explain", json={"rows": rows})
            client.post("/v1/models/mixed/replay", json={"rows": rows})
            answer = client.get(url).json()
            assert (answer["rows_scored"], answer["alarms"]) == (3, 3)
            assert {tuple(each["features"]): each["count"] for each in answer["groups"]} == {
                ("load",): 2,
                ("heat",): 1,
            }
            for group in answer["groups"]:
                found = client.get(f"{url}/{group['key']}").json()
                assert found["group"] == group
                assert len(found["alarms"]) == group["count"]
                assert answer["since"] <= group["first"] <= group["last"]
            assert len(client.get(url, params={"limit": 1}).json()["groups"]) == 1
            late = client.get(url, params={"since": "2999-01-01T00:00:00Z"}).json()
            assert (late["groups"], late["alarms"]) == ([], 3)
            assert client.get(url, params={"since": "yesterday"}).status_code == 400
            unknown = client.get(f"{url}/0123456789abcdef")
            assert (unknown.status_code, unknown.json()["type"]) == (404, "/docs#unknown-alarms")
            assert client.get("/v1/models/other/alarms").status_code == 404
            assert client.get("/v1/models/mixed/ordinary").json() == {"model": "mixed", "rows": []}

    @pytest.mark.slow
    @pytest.mark.parametrize("with_file", [True, False])
    def test_two_workers_tell_of_one_storm_as_one_group(
        self, tmp_path: Path, with_file: bool
    ) -> None:
        publish(tmp_path / "models", "mixed", make_artifact(MIXED, conditional=True))
        row = as_json_rows(MIXED, ROWS[:1])
        flags = ("--journal", str(tmp_path / "journal")) if with_file else ()
        with Process(tmp_path / "models", "--workers", "2", *flags) as process:
            url = f"{process.url}/v1/models/mixed"
            for _ in range(40):  # each on its own connection, so that both workers get some
                httpx.post(f"{url}/score", json={"rows": row * 5}).raise_for_status()
            wait_until(lambda: httpx.get(f"{url}/alarms").json()["alarms"] == 200)
            for _ in range(6):
                answer = httpx.get(f"{url}/alarms").json()
                (group,) = answer["groups"]
                assert (answer["alarms"], group["count"]) == (200, 200)
                assert answer["rows_kept"] is with_file
            assert process.stop() == 0
        assert (tmp_path / "journal").exists() is with_file

    @pytest.mark.slow
    def test_a_process_that_is_killed_loses_at_most_a_second(self, tmp_path: Path) -> None:
        publish(tmp_path / "models", "mixed", make_artifact(MIXED, conditional=True))
        row = as_json_rows(MIXED, ROWS[:1])
        journal = tmp_path / "journal"
        sent: list[float] = []
        with Process(tmp_path / "models", "--journal", str(journal)) as process:
            with httpx.Client(base_url=process.url) as client:
                end = time.monotonic() + 3
                while time.monotonic() < end:
                    client.post("/v1/models/mixed/score", json={"rows": row}).raise_for_status()
                    sent.append(time.time())
                    time.sleep(0.01)
            os.killpg(process.popen.pid, signal.SIGKILL)
            killed = time.time()
            process.wait()
        prepare(journal, JOURNAL)  # it is sound
        alarms = Alarms(journal)
        _, count = alarms.counts("mixed")
        (group,) = alarms.groups("mixed", since=0.0, most=9)
        alarms.close()
        # a look a second, and the time that a busy machine lets the thread wait
        lost = sent[count:]
        assert group.count == count > 0
        assert not lost or lost[0] > killed - 2 * watched.WRITE_SECONDS
        with Process(tmp_path / "models", "--journal", str(journal)) as process:
            again = httpx.get(f"{process.url}/v1/models/mixed/alarms").json()
            assert (again["alarms"], again["groups"][0]["key"]) == (count, group.key)
            assert process.stop() == 0

    def test_a_journal_that_is_none_ends_the_start_with_one_line(self, tmp_path, capsys) -> None:
        from hourglass.service.__main__ import main

        publish(tmp_path / "models", "plain", make_artifact(NUMERIC))
        (tmp_path / "text").write_text("x" * 5000)
        flags = ["serve", "--models", str(tmp_path / "models"), "--port", "0"]
        assert main([*flags, "--journal", str(tmp_path / "text")]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith(f"hourglass: the journal {tmp_path / 'text'} is no journal")
