"""What is served, changing its threshold, and reloading it."""

import json
import time
from datetime import UTC, datetime

import pytest

from hourglass.service.model.detector import Detector
from hourglass.service.model.guarantee import UNTESTED
from hourglass.service.model.served import Served
from hourglass.service.serving.store import ModelFolder, StoredThreshold
from tests.artifacts import MIXED, make_artifact, publish, sample_rows
from tests.serving import Connection, serving


@pytest.fixture
def running(models):
    with serving(models, poll_seconds=3600) as client:
        yield client


def test_the_list_shows_every_model_with_its_threshold(client):
    answer = client.get("/v1/models").json()
    assert [model["name"] for model in answer["models"]] == ["mixed", "plain"]
    assert answer["broken"] == []
    detector = Detector.from_bytes(make_artifact(MIXED))
    assert answer["models"][0] == {
        "name": "mixed",
        "version": detector.version,
        "variant": "handmade",
        "alpha": 0.05,
        "delta": 0.05,
        "certified": True,
        "guarantee": "certified",
        "guarantee_reason": UNTESTED,
        "threshold": detector.threshold.score,
        "expected_false_alarm_rate": 13 / 401,
        "calibration_rows": 400,
        "feature_count": 4,
        "fitted_at": answer["models"][0]["fitted_at"],
        "ready": True,
        "last_error": None,
        "fault": None,
        "warning": None,
    }
    assert answer["waiting"] == []


def test_one_model_shows_its_features_and_where_it_comes_from(client):
    answer = client.get("/v1/models/mixed").json()
    assert [feature["name"] for feature in answer["features"]] == ["load", "open", "site", "heat"]
    assert answer["features"][2] == {
        "name": "site", "kind": "categorical", "unit": None, "categories": ["north", "south", "west"],
        "minimum": None, "maximum": None, "missing_rate": 0.0,
    }  # fmt: skip
    assert answer["features"][0]["unit"] == "kW"
    assert answer["rows"] == {"fit": 1000, "validation": 100, "calibration": 400}
    assert answer["model"]["variant"] == "handmade"
    assert answer["model"]["hyper_parameters"] == {"shift": 0.0}
    assert answer["model"]["stores_rows"] == "none"
    assert answer["latent_width"] == 2
    assert answer["can_decode"] is True
    assert answer["min_observed_fraction"] == 0.5
    assert answer["nearest_certifiable_alpha"] == pytest.approx(1 - 0.05 ** (1 / 400))
    fitted = datetime.fromisoformat(answer["fitted_at"])
    assert fitted.utcoffset().total_seconds() == 0
    assert abs((datetime.now(UTC) - fitted).total_seconds()) < 3600


def test_a_broken_model_is_listed_with_its_reason_and_the_others_are_served(tmp_path):
    publish(tmp_path, "pump", make_artifact())
    publish(tmp_path, "fan", b"nonsense")
    with serving(tmp_path) as client:
        answer = client.get("/v1/models").json()
        assert [model["name"] for model in answer["models"]] == ["pump"]
        assert answer["broken"] == [
            {
                "name": "fan",
                "last_error": "the model file is not ONNX, or is cut short",
                "fault": "refused",
            }
        ]
        assert client.get("/health/ready").json()["models"] == ["pump"]
        assert (
            'hourglass_model_reloads_total{model="fan",outcome="failed"} 1.0'
            in client.get("/metrics").text
        )


class TestChangingTheThreshold:
    def test_another_alpha_is_in_the_next_answer(self, running):
        row = {"rows": sample_rows(MIXED, 1).tolist()[:0] or [[0.1, True, "west", 0.2]]}
        before = running.post("/v1/models/mixed/score", json=row).json()
        changed = running.patch("/v1/models/mixed", json={"alpha": 0.2}).json()
        after = running.post("/v1/models/mixed/score", json=row).json()
        assert (changed["alpha"], changed["delta"], changed["certified"]) == (0.2, 0.05, True)
        assert (before["alpha"], after["alpha"]) == (0.05, 0.2)
        assert after["threshold"] == changed["threshold"] < before["threshold"]
        assert after["score"] == before["score"]
        assert after["ratio"][0] == pytest.approx(after["score"][0] / after["threshold"], rel=1e-6)

    def test_delta_alone_keeps_alpha(self, running):
        changed = running.patch("/v1/models/plain", json={"delta": 0.5}).json()
        assert (changed["alpha"], changed["delta"]) == (0.05, 0.5)
        assert changed["expected_false_alarm_rate"] > 13 / 401

    def test_nothing_changes_nothing(self, running, models):
        assert (
            running.patch("/v1/models/plain", json={}).json()
            == running.get("/v1/models").json()["models"][1]
        )
        assert not (models / "plain" / "threshold.json").exists()

    def test_what_cannot_be_certified_is_a_409_that_says_what_can(self, running):
        problem = running.patch("/v1/models/plain", json={"alpha": 0.001})
        assert (problem.status_code, problem.json()["type"]) == (409, "/docs#uncertifiable-alpha")
        detail = problem.json()["detail"]
        assert (
            "with 400 calibration rows: it needs at least 2995; the nearest alpha that can be"
            " certified is 0.0075" in detail
        )

    def test_uncertified_takes_the_marginal_rule_and_says_so_in_every_answer(self, running):
        changed = running.patch(
            "/v1/models/plain", json={"alpha": 0.005, "uncertified": True}
        ).json()
        assert (changed["alpha"], changed["certified"]) == (0.005, False)
        assert (
            running.post("/v1/models/plain/score", json={"rows": [[1, 2, 3, 4]]}).json()[
                "certified"
            ]
            is False
        )
        assert running.get("/v1/models/plain").json()["certified"] is False

    @pytest.mark.parametrize("kind", ["none", "blocks"])
    def test_no_change_certifies_a_model_whose_rows_were_not_exchangeable(self, models, kind):
        reason = "not exchangeable: the last fifth of the rows alarms at 21 %"
        publish(models, "plain", make_artifact(guarantee=kind, reason=reason))
        with serving(models) as running:
            for change in ({"alpha": 0.2}, {"uncertified": True}, {"uncertified": False}):
                changed = running.patch("/v1/models/plain", json=change).json()
                assert (changed["certified"], changed["guarantee"]) == (False, kind)
                assert changed["guarantee_reason"] == reason
                scored = running.post("/v1/models/plain/score", json={"rows": [[1, 2, 3, 4]]})
                answer = scored.json()
                assert (answer["certified"], answer["guarantee"]) == (False, kind)
            metrics = running.get("/metrics").text
        assert f'hourglass_model_guarantee{{guarantee="{kind}",model="plain"}} 1.0' in metrics
        assert 'hourglass_model_certified{model="plain"} 0.0' in metrics

    def test_what_is_left_out_stays_the_rule_without_a_guarantee_included(self, running):
        running.patch("/v1/models/plain", json={"alpha": 0.005, "uncertified": True})
        changed = running.patch("/v1/models/plain", json={"delta": 0.1}).json()
        assert (changed["alpha"], changed["delta"], changed["certified"]) == (0.005, 0.1, False)
        back = running.patch("/v1/models/plain", json={"alpha": 0.05, "uncertified": False}).json()
        assert (back["alpha"], back["delta"], back["certified"]) == (0.05, 0.1, True)

    def test_it_survives_a_restart(self, running, models):
        running.patch("/v1/models/plain", json={"alpha": 0.2, "delta": 0.1})
        with serving(models) as restarted:
            model = restarted.get("/v1/models/plain").json()
            assert (model["alpha"], model["delta"]) == (0.2, 0.1)

    @pytest.mark.parametrize(
        "change",
        [
            {"alpha": None}, {"alpha": 0}, {"alpha": -0.1}, {"alpha": 0.51}, {"alpha": "0.1"}, {"alpha": True},
            {"delta": 0}, {"delta": 1}, {"beta": 0.1}, {"uncertified": 1}, [], "x",
        ],
    )  # fmt: skip
    def test_what_is_no_budget_is_a_400(self, running, change):
        problem = running.patch("/v1/models/plain", json=change)
        assert (problem.status_code, problem.json()["type"]) == (400, "/docs#invalid-json")
        assert running.get("/v1/models/plain").json()["alpha"] == 0.05

    def test_it_must_be_json(self, running):
        assert running.patch("/v1/models/plain", content=b"{}").status_code == 415

    def test_where_it_cannot_be_stored_it_is_a_409(self, running, models):
        (models / "plain" / "threshold.json").mkdir()
        problem = running.patch("/v1/models/plain", json={"alpha": 0.2})
        assert (problem.status_code, problem.json()["type"]) == (409, "/docs#threshold-not-stored")
        assert running.get("/v1/models/plain").json()["alpha"] == 0.05

    def test_the_model_is_taken_once_the_body_is_there(self, running, models):
        """A body may take long to come; what is changed is the model that is then in service."""
        body = b'{"alpha": 0.2}'
        head = (
            "PATCH /v1/models/plain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with Connection(running) as connection:
            connection.send(head.encode() + body[:5])
            time.sleep(0.1)
            version = publish(models, "plain", make_artifact(shift=1, calibration_rows=300))
            running.post("/v1/models/plain/reload").raise_for_status()
            connection.send(body[5:])
            status, _, answer = connection.answer()
        changed = json.loads(answer)
        assert (status, changed["version"], changed["alpha"]) == (200, version, 0.2)
        assert changed["calibration_rows"] == 300

    def test_it_merges_into_what_another_process_has_stored(self, running, models):
        stored = StoredThreshold(alpha=0.3, delta=0.05)
        ModelFolder(models / "plain").change_threshold(lambda _: stored)
        changed = running.patch("/v1/models/plain", json={"delta": 0.2}).json()
        assert (changed["alpha"], changed["delta"]) == (0.3, 0.2)

    def test_what_a_new_version_cannot_certify_is_a_warning_in_every_answer_until_it_can(
        self, running, models
    ):
        running.patch("/v1/models/plain", json={"alpha": 0.01}).raise_for_status()
        publish(models, "plain", make_artifact(calibration_rows=100))
        running.post("/v1/models/plain/reload").raise_for_status()
        row = {"rows": [[1, 2, 3, 4]]}
        warning = (
            "threshold.json cannot be used, the model's own alpha = 0.05 is in force: alpha = 0.01"
            " cannot be certified at delta = 0.05 with 100 calibration rows: it needs at least 299;"
            " the nearest alpha that can be certified is 0.0296"
        )
        shown = running.get("/v1/models/plain").json()
        assert (shown["fault"], shown["warning"]) == ("uncertifiable", warning)
        assert running.get("/v1/models").json()["models"][1]["warning"] == warning
        assert running.post("/v1/models/plain/score", json=row).json()["warning"] == warning
        assert running.post("/v1/models/plain/explain", json=row).json()["warning"] == warning
        raw = running.post(
            "/v1/models/plain/score", json=row, headers={"accept": "application/octet-stream"}
        )
        assert raw.headers["hourglass-warning"] == warning
        assert 'error{model="plain",reason="uncertifiable"} 1.0' in running.get("/metrics").text
        running.patch("/v1/models/plain", json={"alpha": 0.1}).raise_for_status()
        assert running.get("/v1/models/plain").json()["fault"] is None
        assert "warning" not in running.post("/v1/models/plain/score", json=row).json()


class TestManyModels:
    """Of which few are kept in memory."""

    @pytest.fixture(params=[False, True], ids=["app", "front"])
    def few(self, tmp_path, request):
        for number, name in enumerate("abc"):
            publish(tmp_path, name, make_artifact(shift=number))
        with serving(tmp_path, fast=request.param, max_loaded=1, poll_seconds=3600) as client:
            yield client

    def test_each_answers_whether_it_is_in_memory_or_not(self, few):
        for name in "abcabc":
            answer = few.post(f"/v1/models/{name}/score", json={"rows": [[1, 2, 3, 4]]})
            assert (answer.status_code, answer.json()["model"]) == (200, name)
            assert few.get(f"/v1/models/{name}").json()["features"][0]["name"] == "a"
            assert few.get(f"/v2/models/{name}/ready").json()["ready"] is True

    def test_pipelined_requests_for_several_are_answered_in_their_order(self, few):
        body = b'{"rows":[[1,2,3,4]]}'
        requests = [
            (
                f"POST /v1/models/{name}/score HTTP/1.1\r\nHost: localhost\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            ).encode()
            + body
            for name in "abcabc"
        ]
        with Connection(few) as connection:
            connection.send(b"".join(requests))
            answers = [json.loads(connection.answer()[2])["model"] for _ in requests]
        assert answers == list("abcabc")

    def test_one_that_is_let_go_while_a_body_comes_is_read_again_for_it(self, few):
        def head(length: int) -> bytes:
            return (
                "POST /v1/models/a/score HTTP/1.1\r\nHost: localhost\r\n"
                f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
            ).encode()

        good, bad = b'{"rows":[[1,2,3,4]]}', b'{"rows":[[1,2,3]]}'
        for body, expected in ((good, 200), (bad, 422)):
            few.get("/v1/models/a").raise_for_status()
            with Connection(few) as connection:
                connection.send(head(len(body)) + body[:5], pause_seconds=0.1)
                few.get("/v1/models/b").raise_for_status()
                connection.send(body[5:] + head(len(good)) + good)
                assert [connection.answer()[0] for _ in range(2)] == [expected, 200]

    def test_the_list_says_which_are_in_memory_and_which_were_never_read(self, few):
        answer = few.get("/v1/models").json()
        assert len(answer["models"]) == 1
        assert sorted([answer["models"][0]["name"], *answer["waiting"]]) == ["a", "b", "c"]
        for name in answer["waiting"]:
            few.get(f"/v1/models/{name}").raise_for_status()
        models = few.get("/v1/models").json()["models"]
        assert [model["name"] for model in models] == ["a", "b", "c"]
        assert [model["ready"] for model in models].count(True) == 1
        assert few.get("/health/ready").json()["models"] == ["a", "b", "c"]


class TestReloading:
    def test_it_looks_now_rather_than_at_the_next_poll(self, running, models):
        first = running.get("/v1/models/plain").json()["version"]
        assert running.post("/v1/models/plain/reload").json() == {
            "model": "plain",
            "version": first,
            "outcome": "unchanged",
        }
        version = publish(models, "plain", make_artifact(shift=1))
        assert running.post("/v1/models/plain/reload").json() == {
            "model": "plain",
            "version": version,
            "outcome": "swapped",
        }
        assert (
            running.post("/v1/models/plain/score", json={"rows": [[1, 2, 3, 4]]}).json()["version"]
            == version
        )

    def test_it_finds_a_model_that_is_new(self, running, models):
        version = publish(models, "fan", make_artifact())
        assert running.post("/v1/models/fan/reload").json() == {
            "model": "fan",
            "version": version,
            "outcome": "loaded",
        }

    def test_a_refused_file_is_a_409_with_the_reason_and_the_old_model_stays(self, running, models):
        first = running.get("/v1/models/plain").json()["version"]
        publish(models, "plain", make_artifact(format="2.0"))
        problem = running.post("/v1/models/plain/reload")
        assert (problem.status_code, problem.json()["type"]) == (409, "/docs#invalid-artifact")
        assert "has format 2.0, this service reads format 1.x" in problem.json()["detail"]
        assert problem.json()["detail"].endswith(f"version {first} stays in service")
        model = running.get("/v1/models/plain").json()
        assert model["version"] == first
        assert "has format 2.0" in model["last_error"]


def test_the_folder_is_polled(models):
    with serving(models, poll_seconds=0.05) as client:
        version = publish(models, "plain", make_artifact(shift=1))
        for _ in range(200):
            if client.get("/v1/models/plain").json()["version"] == version:
                break
        assert client.get("/v1/models/plain").json()["version"] == version


def test_names_of_thresholds_on_disk_are_those_of_the_api(running, models):
    running.patch("/v1/models/plain", json={"alpha": 0.1})
    assert json.loads((models / "plain" / "threshold.json").read_text()) == {
        "alpha": 0.1,
        "delta": 0.05,
        "uncertified": False,
    }


@pytest.mark.parametrize("seconds", [0, 253_402_300_799, 253_402_300_800, 3e11, 1e30, -1e12])
def test_a_file_of_any_date_is_shown(models, monkeypatch, seconds):
    """Its file system may have none of these dates, another's has."""
    make = Served.__init__

    def dated(self, *arguments, **named):
        make(self, *arguments, **named)
        object.__setattr__(self, "fitted_at", seconds)

    monkeypatch.setattr(Served, "__init__", dated)
    with serving(models) as client:
        answer = client.get("/v1/models/plain")
        assert answer.status_code == 200
        shown = {0: "1970-01-01T00:00:00Z", -1e12: "0001-01-01T00:00:00Z"}
        assert answer.json()["fitted_at"] == shown.get(seconds, "9999-12-31T23:59:59Z")
        assert client.get("/metrics").status_code == 200
