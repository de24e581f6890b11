"""The service as a process, with its models in a bucket of a real S3 server."""

import json
import signal
from pathlib import Path

import httpx
import pytest

from hourglass.service.model.artifact import version_of
from hourglass.service.serving.places import open_store
from hourglass.service.serving.signatures import SIGNATURE_FILE, SigningKey, make_keys
from tests.artifacts import make_artifact
from tests.buckets import Buckets
from tests.serving import Process, wait_until

FIRST, SECOND = make_artifact(seed=1), make_artifact(seed=2)
V1, V2 = version_of(FIRST), version_of(SECOND)
POLL = {"HOURGLASS_POLL_SECONDS": "0.1"}
ROWS = {"rows": [[0.0, 0.0, 0.0, 0.0]]}


def scored_by(server: Process) -> str:
    answer = httpx.post(f"{server.url}/v1/models/pump/score", json=ROWS)
    return answer.json().get("version", answer.text)


def gauge(server: Process, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])


@pytest.mark.slow
def test_the_service_follows_a_bucket_and_outlives_it(s3: Buckets, tmp_path: Path) -> None:
    url, cache = s3.make(), tmp_path / "cache"
    pump = open_store(url, cache=tmp_path / "trainer").model("pump")
    pump.publish(FIRST, {"report.json": '{"a": 1}'})
    flags = ("--cache", str(cache), "--workers", "2")
    with Process(url, *flags, **POLL) as server:
        assert f"serving {url} on {server.url}" in "".join(server.log)
        wait_until(lambda: scored_by(server) == V1)
        report = httpx.get(f"{server.url}/v1/models/pump/report?format=json")
        assert report.json() == {"a": 1}
        listed = httpx.get(f"{server.url}/v1/models/pump/versions").json()
        assert (listed["current"], [each["version"] for each in listed["versions"]]) == (V1, [V1])

        pump.publish(SECOND, {})
        wait_until(lambda: all(scored_by(server) == V2 for _ in range(8)))
        answer = httpx.post(f"{server.url}/v1/models/pump/promote", json={"version": V1[:9]})
        assert answer.status_code == 200, answer.text
        assert s3.read(url, "pump/current") == f"{V1}\n".encode()
        answer = httpx.patch(f"{server.url}/v1/models/pump", json={"alpha": 0.1})
        assert answer.status_code == 200, answer.text
        assert json.loads(s3.read(url, "pump/threshold.json"))["alpha"] == 0.1

        assert gauge(server, "hourglass_store_reachable") == 1
        s3.stop()
        try:
            wait_until(lambda: gauge(server, "hourglass_store_reachable") == 0)
            since = gauge(server, "hourglass_store_look_timestamp_seconds")
            wait_until(lambda: all(scored_by(server) == V1 for _ in range(8)))
            answer = httpx.patch(f"{server.url}/v1/models/pump", json={"alpha": 0.2})
            assert answer.status_code == 409
            assert f"{url} does not answer" in answer.json()["detail"]
            assert server.stop(signal.SIGTERM) == 0
            with Process(url, *flags, **POLL) as again:
                log = "".join(again.log)
                assert "the copies of its models are served meanwhile" in log
                wait_until(lambda: scored_by(again) == V1)
                alpha = httpx.get(f"{again.url}/v1/models/pump").json()["alpha"]
                assert alpha == 0.1
                assert gauge(again, "hourglass_store_reachable") == 0
                s3.start()
                wait_until(lambda: gauge(again, "hourglass_store_reachable") == 1)
                assert gauge(again, "hourglass_store_look_timestamp_seconds") > since
        finally:
            s3.stop()
            s3.start()


@pytest.mark.slow
def test_a_version_that_nobody_who_is_trusted_has_signed_is_a_failed_load(
    tmp_path: Path,
) -> None:
    models, key = tmp_path / "models", tmp_path / "signing.pem"
    public = make_keys(key)
    pump = open_store(models).model("pump")
    pump.publish(FIRST, {})
    pump.write(SIGNATURE_FILE, SigningKey(key).sign(FIRST), version=V1)
    with Process(models, "--trust", str(public), **POLL) as server:
        wait_until(lambda: scored_by(server) == V1)
        pump.publish(SECOND, {})

        def failed() -> bool:
            text = httpx.get(f"{server.url}/metrics").text
            return (
                'hourglass_model_error{model="pump",reason="untrusted"} 1.0' in text
                and 'hourglass_model_reloads_total{model="pump",outcome="failed"} 1.0' in text
            )

        wait_until(failed)
        assert scored_by(server) == V1
        assert "has no signature beside it" in "".join(server.log)
        pump.write(SIGNATURE_FILE, SigningKey(key).sign(SECOND), version=V2)
        wait_until(lambda: scored_by(server) == V2)


def test_a_place_that_cannot_be_used_is_said_before_anything_starts(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from hourglass.service.__main__ import main

    for flags, sentence in (
        (("--models", "ftp://host/x"), "models cannot be taken from ftp://host/x, expected"),
        (("--trust", tmp_path / "k"), f"{tmp_path / 'k'} cannot be read: No such file"),
    ):
        assert main(["serve", *map(str, flags), "--port", "0"]) == 2
        assert sentence in capfd.readouterr().err
