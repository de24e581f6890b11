"""Liveness and readiness."""

from tests.artifacts import make_artifact, publish
from tests.serving import serving


def test_a_service_with_models_is_live_and_ready(client):
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready", "models": ["mixed", "plain"]}


def test_a_service_without_models_is_live_and_becomes_ready_when_one_appears(tmp_path):
    with serving(tmp_path, poll_seconds=0.05) as client:
        assert client.get("/health/live").status_code == 200
        problem = client.get("/health/ready")
        assert (problem.status_code, problem.headers["content-type"]) == (
            503,
            "application/problem+json",
        )
        assert problem.json()["type"] == "/docs#not-ready"
        publish(tmp_path, "pump", make_artifact())
        for _ in range(200):
            if client.get("/health/ready").status_code == 200:
                break
        assert client.get("/health/ready").json()["models"] == ["pump"]


def test_a_service_whose_only_model_is_broken_is_not_ready_and_says_why(tmp_path):
    publish(tmp_path, "pump", make_artifact(self_test_scale=1.01))
    with serving(tmp_path) as client:
        problem = client.get("/health/ready")
        assert problem.status_code == 503
        assert "pump: the self-test failed: score differs" in problem.json()["detail"]
