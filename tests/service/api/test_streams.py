"""Streams over HTTP: equal to batch, idempotent by time, events told, kept over a restart."""

import shutil
import threading
from datetime import UTC, datetime
from urllib.parse import quote

import httpx
import msgspec
import numpy as np
import pytest

from hourglass.service.model.detector import Detector
from tests.artifacts import (
    MIXED,
    NUMERIC,
    make_artifact,
    make_windowed_artifact,
    publish,
    sample_rows,
)
from tests.serving import Process, serving, wait_until

T0 = 1_760_000_000.0
QUIET_ROWS = 30
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def row_model() -> bytes:
    return make_artifact(conditional=True)


@pytest.fixture(scope="module")
def window_model() -> bytes:
    return make_windowed_artifact(rows=4, gap=600.0)


@pytest.fixture
def models(tmp_path, row_model, window_model):
    folder = tmp_path / "models"
    publish(folder, "rows", row_model)
    publish(folder, "windows", window_model)
    return folder


def rows_of(count: int, seed: int = 0) -> np.ndarray:
    """The first ones of the same rows."""
    return sample_rows(NUMERIC, 100, seed=seed)[:count]


def send(client, model, entity, rows, time, status=200):
    answer = client.post(
        f"/v1/models/{model}/streams/{entity}",
        json={"time": time, "rows": np.asarray(rows).tolist()},
    )
    assert answer.status_code == status, answer.text
    return answer.json()


def times(first: int, count: int, step: float = 60.0) -> list[float]:
    return [T0 + step * place for place in range(first, first + count)]


@pytest.mark.parametrize("model", ["rows", "windows"])
@pytest.mark.parametrize("parts", [[40], [1] * 40, [3, 1, 20, 2, 14]])
def test_a_stream_is_answered_as_the_batch_is_whatever_its_requests(
    models, row_model, window_model, model, parts
):
    rows = rows_of(40)
    detector = Detector.from_bytes(row_model if model == "rows" else window_model)
    expected, first = detector.score(rows), detector.window - 1
    got = {"score": [], "p_value": [], "severity": [], "warming": []}
    with serving(models) as client:
        at = 0
        for count in parts:
            answer = send(client, model, "a", rows[at : at + count], times(at, count))
            for name in got:
                got[name] += answer[name]
            at += count
    assert got["warming"] == [True] * first + [False] * (40 - first)
    assert got["score"][:first] == [None] * first
    for name in ("score", "p_value", "severity"):
        np.testing.assert_allclose(got[name][first:], getattr(expected, name), rtol=1e-5)


def test_the_answer_has_the_facts_the_time_and_both_levels(models):
    with serving(models) as client:
        answer = send(
            client, "rows", "a", rows_of(2), ["2026-11-29T01:00:00Z", "2026-11-29T02:01:00+01:00"]
        )
    assert answer["model"] == "rows"
    assert answer["entity"] == "a"
    assert answer["time"] == ["2026-11-29T01:00:00Z", "2026-11-29T01:01:00Z"]
    assert answer["level"] == pytest.approx([0.05, 0.05 + 0.005 * 0.05], rel=1e-5)
    assert answer["is_anomaly"] == [False, False]
    assert answer["is_adaptive_anomaly"] == [False, False]
    assert answer["repeated"] == [False, False]
    assert (answer["event"], answer["changes"]) == (None, [])


class TestTime:
    def test_a_repeated_row_is_answered_alike_and_not_counted_twice(self, models):
        with serving(models) as client:
            first = send(client, "windows", "a", rows_of(6), times(0, 6))
            again = send(client, "windows", "a", rows_of(6), times(0, 6))
            more = send(client, "windows", "a", rows_of(8)[4:], times(4, 4))
            (listed,) = client.get("/v1/models/windows/streams").json()["entities"]
        same = ("score", "p_value", "severity", "level", "warming", "is_anomaly", "time")
        assert {name: again[name] for name in same} == {name: first[name] for name in same}
        assert again["repeated"] == [True] * 6
        assert more["repeated"] == [True, True, False, False]
        assert listed["rows"] == 8

    def test_a_late_row_is_refused_with_the_newest_time_and_nothing_is_taken(self, models):
        with serving(models) as client:
            send(client, "windows", "a", rows_of(6)[[0, 1, 3, 4]], [*times(0, 2), *times(3, 2)])
            late = send(client, "windows", "a", rows_of(7)[[2, 6]], [T0 + 120, T0 + 600], 409)
            other = send(client, "windows", "a", rows_of(9)[7:8], times(4, 1), 409)
            (listed,) = client.get("/v1/models/windows/streams").json()["entities"]
            metrics = client.get("/metrics").text
        newest = datetime.fromtimestamp(T0 + 240, UTC).isoformat().replace("+00:00", "Z")
        assert late["type"] == "/docs#late-row"
        assert late["detail"] == f"row 0 is late: the newest row of this entity is of {newest}"
        assert other["detail"].startswith(
            "row 0 has the time of a row that came before, and other values"
        )
        assert listed["rows"] == 4
        assert 'hourglass_late_rows_total{model="windows"} 2.0' in metrics

    def test_rows_of_one_request_that_go_back_in_time_are_named(self, models):
        with serving(models) as client:
            answer = send(client, "rows", "a", rows_of(3), [T0, T0 + 2, T0 + 2], 422)
            listed = client.get("/v1/models/rows/streams").json()["entities"]
        assert answer["row"] == 2
        assert listed == []

    @pytest.mark.parametrize(
        ("time", "detail"),
        [
            ([T0], "expected one time for each of 2 rows, got 1"),
            (["soon", T0], 'got "soon" as the time of row 0'),
            ([T0, None], "as the time of row 1"),
            ([T0, 10**400], "… as the time of row 1"),
            (
                [T0, 1e13],
                "expected a time of the years 1 to 9999, in seconds since 1970, got 10000000000000 as the time of row 1",
            ),
        ],
    )
    def test_a_time_that_is_none_is_named(self, models, time, detail):
        with serving(models) as client:
            assert detail in send(client, "rows", "a", rows_of(2), time, 422)["detail"]

    def test_without_times_rows_come_now(self, models):
        with serving(models) as client:
            before = datetime.now(UTC)
            for count in (3, 1, 2):
                answer = client.post(
                    "/v1/models/rows/streams/a", json={"rows": rows_of(count).tolist()}
                ).json()
                seen = [datetime.fromisoformat(each) for each in answer["time"]]
                assert seen == sorted(set(seen))
                assert before <= seen[-1] <= datetime.now(UTC)

    def test_a_gap_longer_than_the_models_warms_anew(self, models):
        with serving(models) as client:
            send(client, "windows", "a", rows_of(5), times(0, 5))
            answer = send(
                client, "windows", "a", rows_of(5), [T0 + 10_000 + 60 * k for k in range(5)]
            )
            metrics = client.get("/metrics").text
        assert answer["warming"] == [True, True, True, False, False]
        assert 'hourglass_warm_ups_total{model="windows"} 2.0' in metrics

    def test_a_gap_within_a_request_warms_anew(self, models):
        at = [*times(0, 5), *(T0 + 10_000 + 60 * k for k in range(5))]
        with serving(models) as client:
            answer = send(client, "windows", "a", rows_of(10), at)
        assert answer["warming"] == [True, True, True, False, False] * 2


def strange(count: int) -> np.ndarray:
    rows = rows_of(count, seed=5)
    rows[:, 1] += 40
    return rows


class TestCountedRows:
    """A model whose rows' time is a count, or their number: nothing is said of seconds and days."""

    def test_the_budget_is_of_rows_and_the_log_says_so(self, models, caplog):
        with caplog.at_level("INFO", "hourglass.service"), serving(models) as client:
            for model in ("rows", "windows"):
                client.get(f"/v1/models/{model}").raise_for_status()
        said = [each.getMessage() for each in caplog.records if "counted" in each.getMessage()]
        assert said == [
            "windows was fitted on rows that are counted, not timed: events of its streams are held"
            " to 3 in 10,000 rows, whatever --events-per-day says"
        ]

    def test_rows_without_times_are_counted_on(self, models):
        with serving(models) as client:
            for count in (3, 5):
                answer = client.post(
                    "/v1/models/windows/streams/a", json={"rows": rows_of(count).tolist()}
                ).json()
            late = send(client, "windows", "a", rows_of(2)[1:], [4.0], 409)
        assert answer["time"][-1] == "1970-01-01T00:00:08Z"
        assert answer["warming"] == [False] * 5
        assert late["detail"].endswith("the newest row of this entity is of 8")


def test_milliseconds_are_the_same_times_as_dates_and_seconds(models):
    at = [datetime.fromtimestamp(each, UTC).isoformat() for each in times(0, 6)]
    with serving(models) as client:
        send(client, "windows", "a", rows_of(6), at)
        again = send(client, "windows", "a", rows_of(6), [1000 * each for each in times(0, 6)])
        events = client.get("/v1/models/windows/events", params={"since": 1000 * T0})
    assert again["repeated"] == [True] * 6
    assert [datetime.fromisoformat(each).timestamp() for each in again["time"]] == times(0, 6)
    assert events.status_code == 200


class TestEvents:
    def test_what_lasts_is_one_event_with_who_is_to_blame(self, models):
        with serving(models) as client:
            send(client, "rows", "a", rows_of(20), times(0, 20))
            opened = send(client, "rows", "a", strange(10), times(20, 10))
            closed = send(client, "rows", "a", rows_of(40), times(30, 40))
            events = client.get("/v1/models/rows/events").json()["events"]
            metrics = client.get("/metrics").text
        (change,) = opened["changes"]
        assert change["open"] is True
        assert change["start"] == opened["time"][0]
        assert "b" in change["features"]
        assert opened["event"]["id"] == change["id"]
        (end,) = closed["changes"]
        assert (end["id"], end["open"], end["end"]) == (change["id"], False, opened["time"][-1])
        assert closed["event"] is None
        assert events == [end]
        assert end["rows"] == 10
        assert "b is" in end["sentence"]
        assert 'hourglass_events_total{model="rows"} 1.0' in metrics
        assert 'hourglass_open_events{model="rows"} 0.0' in metrics

    def test_events_are_listed_by_what_is_asked(self, models):
        with serving(models) as client:
            for entity in ("a", "b"):
                send(client, "rows", entity, rows_of(20), times(0, 20))
                send(client, "rows", entity, strange(10), times(20, 10))
            send(client, "rows", "a", rows_of(40), times(30, 40))

            def ask(query):
                answer = client.get(f"/v1/models/rows/events?{query}").raise_for_status()
                return [each["entity"] for each in answer.json()["events"]]

            assert sorted(ask("")) == ["a", "b"]
            assert ask("open=true") == ["b"]
            assert ask("open=false") == ["a"]
            assert ask("entity=a") == ["a"]
            assert ask("since=2030-01-01T00:00:00Z") == ["b"]  # it is open
            assert len(ask("limit=1")) == 1
            assert client.get("/v1/models/rows/events?since=soon").status_code == 400
            assert client.get("/v1/models/nobody/events").status_code == 404
            assert 'hourglass_open_events{model="rows"} 1.0' in client.get("/metrics").text


class TestEntities:
    def test_they_are_listed_the_last_used_first_and_forgotten(self, models):
        with serving(models) as client:
            send(client, "windows", "a", rows_of(2), times(0, 2))
            send(client, "windows", "b", rows_of(6), times(0, 6))
            listed = client.get("/v1/models/windows/streams").json()["entities"]
            assert [(e["entity"], e["rows"], e["warming"]) for e in listed] == [
                ("b", 6, False),
                ("a", 2, True),
            ]
            assert listed[0]["last"] == datetime.fromtimestamp(T0 + 300, UTC).isoformat().replace(
                "+00:00", "Z"
            )
            assert client.delete("/v1/models/windows/streams/b").status_code == 204
            assert client.delete("/v1/models/windows/streams/b").status_code == 404
            listed = client.get("/v1/models/windows/streams").json()["entities"]
            assert [each["entity"] for each in listed] == ["a"]
            assert send(client, "windows", "b", rows_of(4), times(0, 4))["warming"] == [
                True
            ] * 3 + [False]

    def test_an_open_event_of_who_is_forgotten_closes(self, models):
        with serving(models) as client:
            send(client, "rows", "a", rows_of(20), times(0, 20))
            send(client, "rows", "a", strange(10), times(20, 10))
            client.delete("/v1/models/rows/streams/a")
            (event,) = client.get("/v1/models/rows/events").json()["events"]
        assert event["open"] is False

    def test_the_least_recently_used_makes_room(self, models):
        with serving(models, max_entities=2) as client:
            for entity in ("a", "b", "a", "c"):
                at = times(0, 1) if entity != "a" else [T0 + len(entity)]
                send(client, "rows", entity, rows_of(1), at)
            listed = client.get("/v1/models/rows/streams").json()["entities"]
            metrics = client.get("/metrics").text
        assert [each["entity"] for each in listed] == ["c", "a"]
        assert 'hourglass_stream_evicted_total{model="rows"} 1.0' in metrics
        assert 'hourglass_stream_entities{model="rows"} 2.0' in metrics

    def test_a_request_that_is_refused_makes_nobody_leave(self, models):
        with serving(models, max_entities=1) as client:
            send(client, "rows", "a", rows_of(1), times(0, 1))
            send(client, "rows", "b", rows_of(2), [T0 + 1, T0], 422)
            listed = client.get("/v1/models/rows/streams").json()["entities"]
            assert [each["entity"] for each in listed] == ["a"]
            assert 'hourglass_stream_evicted_total{model="rows"} 0.0' in client.get("/metrics").text


class TestRestart:
    @pytest.mark.parametrize("model", ["rows", "windows"])
    def test_a_restart_goes_on_where_it_was(self, models, model):
        rows = rows_of(30)
        with serving(models) as client:
            whole = send(client, model, "whole", rows, times(0, 30))
            send(client, model, "cut", rows[:13], times(0, 13))
        with serving(models) as client:
            rest = send(client, model, "cut", rows[13:], times(13, 17))
            again = send(client, model, "whole", rows, times(0, 30))
        for name in ("score", "level", "warming"):
            assert rest[name] == whole[name][13:]
        assert again["repeated"] == [True] * 30
        assert again["score"] == whole["score"]

    def test_an_event_is_open_after_a_restart(self, models):
        with serving(models) as client:
            send(client, "rows", "a", rows_of(20), times(0, 20))
            opened = send(client, "rows", "a", strange(10), times(20, 10))
        with serving(models) as client:
            assert client.get("/v1/models/rows/events?open=true").json()["events"] == [
                opened["event"]
            ]
            closed = send(client, "rows", "a", rows_of(40), times(30, 40))
        assert closed["changes"][0]["id"] == opened["event"]["id"]

    def test_a_swap_replays_the_rows_before(self, models):
        with serving(models, poll_seconds=0.05) as client:
            send(client, "windows", "a", rows_of(6), times(0, 6))
            version = publish(
                models, "windows", other := make_windowed_artifact(rows=5, gap=600.0, seed=3)
            )
            client.post("/v1/models/windows/reload").raise_for_status()
            answer = send(client, "windows", "a", rows_of(9)[6:], times(6, 3))
        assert answer["version"] == version
        assert answer["warming"] == [True, False, False]  # it had three rows, and needs four
        expected = Detector.from_bytes(other).score(rows_of(9)[3:]).score
        np.testing.assert_allclose(answer["score"][1:], expected, rtol=1e-5)

    def test_a_model_of_other_features_warms_anew(self, models):
        with serving(models, poll_seconds=0.05) as client:
            send(client, "windows", "a", rows_of(6), times(0, 6))
            publish(models, "windows", make_windowed_artifact(NUMERIC[:3], rows=4))
            client.post("/v1/models/windows/reload").raise_for_status()
            answer = send(client, "windows", "a", rows_of(4)[:, :3], times(6, 4))
        assert answer["warming"] == [True] * 3 + [False]


class TestTimeline:
    def test_entities_side_by_side_the_strangest_first(self, models):
        with serving(models) as client:
            send(client, "rows", "calm", rows_of(30), times(0, 30))
            send(client, "rows", "odd", [*rows_of(20), *strange(10)], times(0, 30))
            answer = client.get("/v1/models/rows/timeline?bins=3").raise_for_status().json()
        assert [each["entity"] for each in answer["entities"]] == ["odd", "calm"]
        assert len(answer["times"]) == 3
        odd, calm = (each["severity"] for each in answer["entities"])
        assert odd[2] > 2.5 > max(odd[:2])
        assert all(value is not None for value in calm)
        assert answer["entities"][0]["event"] is not None
        assert answer["bin_seconds"] == pytest.approx(600, rel=0.05)

    def test_one_entity_by_feature(self, models):
        with serving(models) as client:
            send(client, "rows", "odd", [*rows_of(20), *strange(10)], times(0, 30))
            answer = client.get("/v1/models/rows/timeline/odd?bins=3").raise_for_status().json()
            assert client.get("/v1/models/rows/timeline/nobody").status_code == 404
        assert answer["features"] == ["a", "b", "c", "d"]
        assert len(answer["contributions"]) == 4
        assert (
            max(answer["contributions"], key=lambda ratios: ratios[2]) == answer["contributions"][1]
        )
        assert answer["contributions"][1][2] > 1 > answer["contributions"][1][0]
        assert len(answer["events"]) == 1

    def test_bins_between_two_times(self, models):
        with serving(models) as client:
            send(client, "rows", "a", rows_of(10), times(0, 10))
            since, until = (
                datetime.fromtimestamp(T0 + s, UTC).isoformat().replace("+00:00", "Z")
                for s in (-600, 0)
            )
            answer = client.get(
                f"/v1/models/rows/timeline?since={since}&until={until}&bins=10"
            ).json()
        assert (answer["since"], answer["until"], answer["bin_seconds"]) == (since, until, 60)
        assert answer["entities"][0]["severity"][:9] == [None] * 9


@pytest.mark.slow
def test_several_workers_keep_no_streams(models):
    with Process(models, "--workers", "2") as process:
        answer = httpx.post(
            f"{process.url}/v1/models/rows/streams/a", json={"rows": [[1, 2, 3, 4]]}
        )
    assert answer.status_code == 409
    assert answer.json()["type"] == "/docs#no-streams"
    assert "serve with --workers 1" in answer.json()["detail"]


class TestNames:
    @pytest.mark.parametrize(
        "entity",
        [
            "a/b",
            "/leading",
            "trailing/",
            "a//b",
            "...",
            "räum 7 🌡",
            "a?b#c",
            "100%",
            "%2F",
            "x" * 256,
        ],
    )
    def test_an_entity_has_any_name(self, models, entity):
        path = f"/v1/models/rows/{{}}/{quote(entity, safe='')}"
        with serving(models) as client:
            body = {"rows": rows_of(3).tolist(), "time": times(0, 3)}
            answer = client.post(path.format("streams"), json=body)
            assert answer.status_code == 200, answer.text
            assert answer.json()["entity"] == entity
            (listed,) = client.get("/v1/models/rows/streams").json()["entities"]
            timeline = client.get(path.format("timeline")).raise_for_status().json()
            assert client.delete(path.format("streams")).status_code == 204
            assert client.get("/v1/models/rows/streams").json()["entities"] == []
        assert listed["entity"] == entity
        assert timeline["entity"] == entity

    def test_a_name_that_is_too_long_or_no_text_is_refused(self, models):
        with serving(models) as client:
            for name, detail in (("x" * 257, "at most 256 characters, got 257"), ("%FF", "UTF-8")):
                answer = client.post(
                    f"/v1/models/rows/streams/{name}", json={"rows": rows_of(1).tolist()}
                )
                assert answer.status_code == 422
                assert detail in answer.json()["detail"]


class TestBrokenRows:
    @pytest.mark.parametrize(
        ("row", "status", "feature", "detail"),
        [
            ([1.0, 2.0, 3.0], 422, None, "expected 4 features, got 3 in row 1"),
            ([1.0, 1e39, 3.0, 4.0], 400, "b", "got 1e+39 in row 1"),
            ([1.0, "many", 3.0, 4.0], 422, "b", "row 1"),
            ([1.0, None, None, None], 422, None, "row 1"),
        ],
    )
    def test_they_are_named_and_change_nothing(self, models, row, status, feature, detail):
        with serving(models) as client:
            send(client, "rows", "a", rows_of(2), times(0, 2))
            before = client.get("/v1/models/rows/streams").json()
            answer = client.post(
                "/v1/models/rows/streams/a",
                json={"rows": [rows_of(1)[0].tolist(), row], "time": times(2, 2)},
            )
            assert client.get("/v1/models/rows/streams").json() == before
            # the first row of that request was not taken either
            more = send(client, "rows", "a", rows_of(3)[2:], times(2, 1))
        assert answer.status_code == status
        assert detail in answer.json()["detail"]
        assert answer.json()["row"] == 1
        assert answer.json().get("feature") == feature
        assert more["repeated"] == [False]

    def test_an_unseen_category_is_judged_as_score_judges_it(self, tmp_path):
        publish(tmp_path, "mixed", make_artifact(MIXED, conditional=True))
        row = {"load": 1.0, "open": True, "site": "moon", "heat": 1.0}
        with serving(tmp_path) as client:
            stream, score = (
                client.post(f"/v1/models/mixed/{path}", json={"rows": [row]}).json()
                for path in ("streams/a", "score")
            )
        assert stream["score"] == pytest.approx(score["score"], rel=1e-5)


def test_a_setting_says_what_a_gap_is(models):
    at = [*times(0, 5), *(T0 + 400 + 60 * k for k in range(5))]
    with serving(models) as client:
        assert send(client, "windows", "a", rows_of(10), at)["warming"][5:] == [False] * 5
    with serving(models, stream_gap=120.0) as client:
        again = send(client, "windows", "b", rows_of(10), at)
    assert again["warming"] == [True, True, True, False, False] * 2


def test_a_model_that_retires_takes_its_series_along(models):
    with serving(models, poll_seconds=0.05) as client:
        send(client, "rows", "a", rows_of(3), times(0, 3))
        assert 'hourglass_stream_entities{model="rows"} 1.0' in client.get("/metrics").text
        shutil.rmtree(models / "rows")
        wait_until(lambda: 'model="rows"' not in client.get("/metrics").text)
        assert client.get("/v1/models/rows/streams").status_code == 404


def test_other_requests_are_answered_while_a_large_body_is_scored(models):
    count = 20_000
    rows = sample_rows(NUMERIC, count)
    body = msgspec.json.encode({"rows": rows.tolist(), "time": times(0, count)})
    answered, is_done = [], threading.Event()
    with serving(models) as client:

        def ask():
            with httpx.Client(base_url=client.base_url) as other:
                while not is_done.is_set():
                    other.get("/health/live")
                    answered.append(1)

        asking = threading.Thread(target=ask)
        asking.start()
        answer = client.post("/v1/models/rows/streams/a", content=body, headers=JSON, timeout=60)
        is_done.set()
        asking.join()
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["score"]) == count
    assert len(answered) > 10  # were it scored on the event loop, a few before and one after
