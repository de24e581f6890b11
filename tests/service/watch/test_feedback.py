"""Feedback: what people say of alarms is kept and never changed; what is muted is counted."""

import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from hourglass.service.errors import FullJournal, UnknownAlarms
from hourglass.service.watch import feedback
from hourglass.service.watch.alarms import Alarm, Alarms, Entry, Signature
from hourglass.service.watch.feedback import Word
from tests.artifacts import MIXED, make_artifact, publish
from tests.serving import serving, wait_until

ROW = "[1.0,null]"
FAR = [300.0, True, "north", 0.5]  # load, by far


def alarm(*features: str, entity: str | None = None, row: str | None = ROW, after: float = 0.0):
    signature = Signature(entity, features)
    return Alarm(signature, time.time() + after, "v", 1.0, 3.0, 0.01, row, None, "so")


def write(alarms: Alarms, *raised: Alarm, count: int = 1) -> None:
    counts = {each.signature: count for each in raised}
    alarms.write([Entry("tiny", 10, counts, raised, ())])


def word(verdict: feedback.Verdict, key: str | None, **fields: object) -> Word:
    given = {"row": None, "entity": None, "until": None, "note": None, **fields}
    return Word(verdict, key, **given)


def groups(alarms: Alarms):
    return {
        (each.entity, *each.features): each for each in alarms.groups("tiny", since=0.0, most=99)
    }


class TestSaid:
    def test_a_verdict_on_a_group_keeps_its_rows_with_it(self) -> None:
        alarms = Alarms(None)
        write(alarms, alarm("a"), alarm("a", row="[2.0,3.0]"), alarm("b", row=None), count=2)
        a, b = (groups(alarms)[None, name].key for name in "ab")
        assert groups(alarms)[None, "a"].verdict is None
        said = alarms.add_feedback("tiny", word("real", a, note="the pump leaked"))
        assert (said.features, said.rows, said.note) == (["a"], 2, "the pump leaked")
        assert alarms.add_feedback("tiny", word("expected", b)).rows == 0  # no values are kept
        assert [groups(alarms)[None, name].verdict for name in "ab"] == ["real", "expected"]
        alarms.add_feedback("tiny", word("expected", a))
        assert groups(alarms)[None, "a"].verdict == "expected"  # what was said last
        assert [each.verdict for each in alarms.feedback("tiny", most=9)] == [
            "expected",
            "expected",
            "real",
        ]
        assert alarms.feedback("other", most=9) == []

    def test_of_a_row_that_was_sent(self) -> None:
        alarms = Alarms(None)
        said = alarms.add_feedback("tiny", word("expected", None, row=ROW, entity="pump-7"))
        assert (said.key, said.features, said.entity, said.rows) == (None, None, "pump-7", 1)

    def test_there_is_no_such_group(self) -> None:
        alarms = Alarms(None)
        with pytest.raises(UnknownAlarms, match="no alarms of tiny are kept under the key 'x'"):
            alarms.add_feedback("tiny", word("real", "x"))

    def test_it_is_only_ever_added_to(self, tmp_path: Path) -> None:
        alarms = Alarms(tmp_path / "journal")
        alarms.add_feedback("tiny", word("expected", None, row=ROW))
        alarms.close()
        with sqlite3.connect(tmp_path / "journal") as database:
            for change in ("UPDATE feedback SET verdict = 'real'", "DELETE FROM feedback"):
                with pytest.raises(sqlite3.IntegrityError, match="only added to"):
                    database.execute(change)
        database.close()
        again = Alarms(tmp_path / "journal")
        assert [each.rows for each in again.feedback("tiny", most=9)] == [1]
        again.close()

    def test_it_outlives_the_alarms_that_it_is_of(self) -> None:
        alarms = Alarms(None, days=1)
        write(alarms, alarm("a", after=-86399.9))
        alarms.add_feedback("tiny", word("real", groups(alarms)[None, "a"].key))
        time.sleep(0.2)
        alarms._pruned_at = 0.0  # so that it looks again
        write(alarms, alarm("b"))
        assert list(groups(alarms)) == [(None, "b")]
        assert [each.rows for each in alarms.feedback("tiny", most=9)] == [1]

    def test_a_file_takes_so_much_and_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(feedback, "MOST_FEEDBACK", 2)
        alarms = Alarms(None)
        for _ in range(2):
            alarms.add_feedback("tiny", word("expected", None, row=ROW))
        with pytest.raises(FullJournal, match="holds 2 entries of feedback, and takes no more"):
            alarms.add_feedback("tiny", word("expected", None, row=ROW))


class TestMuted:
    def test_a_muted_pattern_makes_no_group_and_is_counted(self) -> None:
        alarms = Alarms(None)
        write(alarms, alarm("a", entity="p"), alarm("a", entity="q"), alarm("b", entity="p"))
        before = groups(alarms)
        until = time.time() + 60
        alarms.add_feedback("tiny", word("mute", before["p", "a"].key, until=until))
        write(alarms, alarm("a", entity="p"), count=70)
        write(alarms, alarm("a", entity="q"), alarm("b", entity="p"), alarm("a"), count=5)
        now = groups(alarms)
        assert {pattern: each.count for pattern, each in now.items()} == {
            ("p", "a"): 1,
            ("q", "a"): 6,
            ("p", "b"): 6,
            (None, "a"): 5,
        }
        assert now["p", "a"].muted_until == datetime.fromtimestamp(until, UTC)
        assert now["q", "a"].muted_until is None
        assert alarms.counts("tiny") == (30, 3 + 70 + 15)  # all of them are counted
        assert (alarms.muted("tiny"), alarms.muted("other")) == (70, 0)

    def test_it_ends_by_itself_and_by_what_is_said_later(self) -> None:
        alarms = Alarms(None)
        write(alarms, alarm("a"))
        key = groups(alarms)[None, "a"].key
        alarms.add_feedback("tiny", word("mute", key, until=time.time() + 60))
        write(alarms, alarm("a", after=61))
        assert alarms.muted("tiny") == 0
        write(alarms, alarm("a"))
        assert alarms.muted("tiny") == 1
        alarms.add_feedback("tiny", word("mute", key, until=time.time() - 1))
        write(alarms, alarm("a"))
        assert (alarms.muted("tiny"), groups(alarms)[None, "a"].count) == (1, 3)


@pytest.fixture
def client(tmp_path: Path):
    publish(tmp_path / "models", "tiny", make_artifact(MIXED))
    with serving(tmp_path / "models", journal=tmp_path / "journal") as client:
        client.post("/v1/models/tiny/score", json={"rows": [FAR]}).raise_for_status()
        yield client


def listed(client: httpx.Client) -> dict:
    return client.get("/v1/models/tiny/alarms").json()


class TestService:
    def test_what_is_said_is_answered_listed_and_shown_at_the_group(self, client) -> None:
        wait_until(lambda: listed(client)["groups"])
        (group,) = listed(client)["groups"]
        assert (group["verdict"], group["muted_until"]) == (None, None)
        answer = client.post(
            "/v1/models/tiny/feedback", json={"verdict": "real", "key": group["key"]}
        )
        assert answer.status_code == 200
        said = answer.json()
        assert (said["verdict"], said["key"], said["rows"]) == ("real", group["key"], 1)
        assert said["features"] == group["features"]
        assert client.get("/v1/models/tiny/feedback").json() == {
            "model": "tiny",
            "feedback": [said],
        }
        assert listed(client)["groups"][0]["verdict"] == "real"
        until = datetime.now(UTC) + timedelta(hours=1)
        mute = {"verdict": "mute", "key": group["key"], "until": until.isoformat()}
        client.post("/v1/models/tiny/feedback", json=mute).raise_for_status()
        for _ in range(3):
            client.post("/v1/models/tiny/score", json={"rows": [FAR]}).raise_for_status()
        assert (listed(client)["alarms"], listed(client)["muted"]) == (4, 3)
        assert listed(client)["groups"][0]["count"] == 1
        assert datetime.fromisoformat(listed(client)["groups"][0]["muted_until"]) == until

    def test_a_row_is_kept_as_the_model_reads_it(self, client, tmp_path) -> None:
        row = {"site": "nowhere", "load": 2, "open": False, "heat": None}
        body = {"verdict": "expected", "row": row, "entity": "pump-7", "note": "a drill"}
        said = client.post("/v1/models/tiny/feedback", json=body).json()
        assert (said["key"], said["entity"], said["note"], said["rows"]) == (
            None,
            "pump-7",
            "a drill",
            1,
        )
        with sqlite3.connect(tmp_path / "journal") as database:
            ((rows,),) = database.execute("SELECT rows FROM feedback").fetchall()
        database.close()
        assert rows == '[[2.0,false,"nowhere",null]]'

    @pytest.mark.parametrize(
        ("body", "status", "detail"),
        [
            ({"verdict": "real"}, 400, "the key of a group of alarms or a row, got neither"),
            ({"verdict": "real", "key": "k", "row": [1]}, 400, "a row, got both"),
            ({"verdict": "real", "key": "0" * 16}, 404, "kept under the key '0000"),
            ({"verdict": "mute", "key": "0" * 16}, 400, 'expected "until" with the verdict "mute"'),
            ({"verdict": "mute", "row": FAR, "until": "2030-01-01T00:00:00Z"}, 400, "of a key"),
            ({"verdict": "real", "key": "k", "until": "2030-01-01T00:00:00Z"}, 400, "only there"),
            ({"verdict": "real", "key": "k", "entity": "e"}, 400, '"entity" with a row only'),
            ({"verdict": "real", "row": [1, True]}, 422, "row 0"),
            ({"verdict": "real", "row": ["x", True, "north", 1]}, 422, "load"),
            ({"verdict": "wrong", "key": "k"}, 400, "Invalid enum value 'wrong'"),
            ({"verdict": "real", "key": "k", "note": "n" * 1001}, 400, "length <= 1000"),
            ({"verdict": "real", "key": "k", "who": "me"}, 400, "who"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, client, body, status, detail) -> None:
        answer = client.post("/v1/models/tiny/feedback", json=body)
        assert (answer.status_code, answer.json()["status"]) == (status, status)
        assert detail in answer.json()["detail"]
        assert client.get("/v1/models/tiny/feedback").json()["feedback"] == []

    def test_who_only_scores_says_nothing(self, tmp_path: Path) -> None:
        publish(tmp_path, "tiny", make_artifact(MIXED))
        with serving(tmp_path, read_only=True) as client:
            answer = client.post("/v1/models/tiny/feedback", json={"verdict": "real", "row": FAR})
        assert answer.status_code == 403
