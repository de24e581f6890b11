"""The versions of a model are listed, and brought into service forwards and back."""

import json

import httpx
import pytest

from tests.artifacts import NUMERIC, make_artifact, publish, sample_rows
from tests.serving import Process, serving


@pytest.fixture
def two(tmp_path):
    """A model of two versions, the later one in service."""
    old = publish(tmp_path, "pump", make_artifact())
    return old, publish(tmp_path, "pump", make_artifact(shift=1, alpha=0.1)), tmp_path


def test_versions_say_what_they_are(two):
    old, new, folder = two
    (folder / "pump" / old / "report.json").write_text(json.dumps({"quality": {"auroc": 0.9}}))
    (folder / "pump" / new / "report.html").write_text("<p>")
    torn = folder / "pump" / ("0" * 64)
    torn.mkdir()
    (torn / "model.onnx").write_bytes(b"torn")
    with serving(folder) as client:
        answer = client.get("/v1/models/pump/versions").raise_for_status().json()
        assert (answer["model"], answer["current"]) == ("pump", new)
        listed = {each["version"]: each for each in answer["versions"]}
        assert set(listed) == {old, new}
        expected = {
            "variant": "handmade", "rows": 1000, "features": ["a", "b", "c", "d"], "guarantee": "certified",
            "delta": 0.05, "size": len(make_artifact()), "alpha": 0.05, "auroc": 0.9, "report": False,
        }  # fmt: skip
        assert expected.items() <= listed[old].items()
        assert {"alpha": 0.1, "auroc": None, "report": True}.items() <= listed[new].items()
        (broken,) = answer["broken"]
        assert broken["version"] == "0" * 64
        assert "was changed, or cut short" in broken["problem"]
        publish(folder, "pump", make_artifact(shift=2))
        assert len(client.get("/v1/models/pump/versions").json()["versions"]) == 3
        assert client.get("/v1/models/fan/versions").status_code == 404


def test_promoting_goes_back_and_forth_at_once(two):
    old, new, folder = two
    rows = {"rows": sample_rows(NUMERIC, 3).tolist()}
    with serving(folder, poll_seconds=3600) as client:
        for version in (old, new, old):
            answer = client.post("/v1/models/pump/promote", json={"version": version[:10]})
            assert answer.raise_for_status().json()["version"] == version
            assert (folder / "pump" / "current").read_text() == f"{version}\n"
            assert client.post("/v1/models/pump/score", json=rows).json()["version"] == version
            assert client.get("/v1/models/pump/versions").json()["current"] == version


def test_what_cannot_be_promoted_leaves_the_model_as_it_is(two):
    old, new, folder = two
    alien = publish(folder, "pump", b"nonsense")
    (folder / "pump" / "current").write_text(f"{new}\n")
    (folder / "pump" / old / "model.onnx").write_bytes(b"damaged")
    with serving(folder, poll_seconds=3600) as client:
        for version, status, said in (
            ("ffff", 404, "version 'ffff' of 'pump' is not there"),
            ("", 404, "is ambiguous"),
            ("../pump", 404, "is not there"),
            (old, 409, "is damaged: its SHA-256 is another"),
            (alien, 409, "is not ONNX"),
        ):
            answer = client.post("/v1/models/pump/promote", json={"version": version})
            assert (answer.status_code, said in answer.json()["detail"]) == (status, True)
            assert answer.headers["content-type"] == "application/problem+json"
            assert (folder / "pump" / "current").read_text() == f"{new}\n"
            assert client.get("/v1/models/pump").json()["version"] == new
        assert client.post("/v1/models/fan/promote", json={"version": new}).status_code == 404
        assert client.post("/v1/models/pump/promote", json={}).status_code == 400


def test_a_process_that_only_scores_promotes_nothing(two):
    old, new, folder = two
    with serving(folder, read_only=True) as client:
        answer = client.post("/v1/models/pump/promote", json={"version": old})
        assert (answer.status_code, answer.json()["type"]) == (403, "/docs#read-only")
        assert client.get("/v1/models/pump/versions").json()["current"] == new
    assert (folder / "pump" / "current").read_text() == f"{new}\n"


@pytest.mark.slow
def test_all_workers_serve_what_was_promoted_when_it_is_answered(two):
    old, new, folder = two
    with Process(folder, "--workers", "2", HOURGLASS_POLL_SECONDS="3600") as process:
        url = f"{process.url}/v1/models/pump"
        for version in (old, new):
            httpx.post(f"{url}/promote", json={"version": version}).raise_for_status()
            assert {httpx.get(url).json()["version"] for _ in range(12)} == {version}
        assert process.stop() == 0
