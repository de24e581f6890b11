"""Brokers behind TLS, and those that ask who is there."""

import argparse
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hourglass.service.adapters.access import (
    BROKER_AUTH,
    access_of,
    add_access_arguments,
    credentials_of,
)
from hourglass.service.errors import InvalidSettings
from tests.artifacts import make_windowed_artifact, publish
from tests.authority import Authority
from tests.kafka import Cluster, streaming
from tests.kafka_front import Front
from tests.mosquitto import Mosquitto
from tests.service.adapters.test_kafka import assert_once, rows_of
from tests.serving import free_port


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("access") / "models"
    publish(folder, "plant", make_windowed_artifact(rows=4, gap=600.0))
    return folder


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster()
    cluster.make("rows", "scores", "scores-dead-letters")
    return cluster


def server_context(authority: Authority, *, asks_for_certificate: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("broker"))
    if asks_for_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.ca)
    return context


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", Front.mechanisms)
def test_rows_of_brokers_behind_tls_that_ask_who_is_there_are_answered(
    models: Path, authority: Authority, cluster: Cluster, tmp_path: Path, mechanism: str
) -> None:
    context = server_context(authority, asks_for_certificate=mechanism == "PLAIN")
    front = Front(cluster.address, context, ("me", "ünsaid"))
    sent = rows_of(["left"], 0, 20)
    cluster.put("rows", sent)
    flags = ["--tls-ca", str(authority.ca), "--sasl", mechanism]
    if mechanism == "PLAIN":
        certificate, key = authority.issue("stream")
        flags += ["--tls-cert", str(certificate), "--tls-key", str(key)]
    log = tmp_path / "log"
    environ = {BROKER_AUTH: "me:ünsaid"}
    with streaming(front.address, models, *flags, log=log, environ=environ) as process:
        cluster.wait("scores", 20)
        assert process.stop() == 0
    front.close()
    assert_once(cluster, sent)
    assert {*front.passed} == {mechanism}
    assert "ünsaid" not in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "auth", "said"),
    [
        (["--tls"], "me:secret", "CERTIFICATE_VERIFY_FAILED"),
        (["--tls-ca", "CA"], "me:secret", "certificate required"),
        (["--tls-ca", "CA", "CERT"], "me:other", "Authentication failed"),
        (
            ["--tls-ca", "CA", "CERT", "--sasl", "SCRAM-SHA-256"],
            "me:other",
            "Authentication failed",
        ),
    ],
)
def test_brokers_that_let_nobody_in_end_it_with_a_sentence(
    models: Path,
    authority: Authority,
    cluster: Cluster,
    tmp_path: Path,
    flags: list[str],
    auth: str,
    said: str,
) -> None:
    context = server_context(authority, asks_for_certificate=True)
    front = Front(cluster.address, context, ("me", "secret"))
    certificate, key = authority.issue("stream")
    known = {"CA": [str(authority.ca)]}
    known["CERT"] = ["--tls-cert", str(certificate), "--tls-key", str(key)]
    flags = [word for flag in flags for word in known.get(flag, [flag])]
    log = tmp_path / "log"
    environ = {BROKER_AUTH: auth}
    with streaming(front.address, models, *flags, log=log, environ=environ) as process:
        assert process.process.wait(60) == 2, log.read_text()
    front.close()
    lines = [line for line in log.read_text().splitlines() if " INFO " not in line]
    assert said in lines[-1]
    assert front.address in lines[-1]
    assert len(lines) == 1, lines
    assert "secret" not in log.read_text()


@pytest.fixture
def broker(tmp_path: Path, authority: Authority) -> Iterator[tuple[Mosquitto, str]]:
    """Beside the listener of the tests one with TLS and passwords, and its address."""
    port, passwords = free_port(), tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "me", "ünsaid"], check=True)
    certificate, key = authority.issue("broker")
    more = (
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n"
        f"cafile {authority.ca}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true\n"
    )
    with Mosquitto(tmp_path, more=more) as broker:
        yield broker, f"127.0.0.1:{port}"


def mqtt_flags(address: str, models: Path) -> list[str]:
    flags = ["--mqtt", address, "--topic", "plant/+/state", "--model", "plant"]
    command = [sys.executable, "-m", "hourglass.service", "stream", *flags]
    return [*command, "--models", str(models)]


@pytest.mark.slow
def test_an_mqtt_broker_is_reached_by_tls_with_a_password(
    models: Path, authority: Authority, broker: tuple[Mosquitto, str], tmp_path: Path
) -> None:
    heard, address = broker
    auth = tmp_path / "auth"
    auth.write_text("me:ünsaid\n")
    certificate, key = authority.issue("stream")
    flags = ["--tls-ca", authority.ca, "--tls-cert", certificate, "--tls-key", key]
    command = [*mqtt_flags(address, models), *map(str, flags), "--auth-file", str(auth)]
    process = subprocess.Popen(command)
    try:
        while heard.kept("hourglass/plant/status") != b"online":
            assert process.poll() is None
        sent = rows_of(["left"], 0, 10)
        for _, row in sent:
            heard.put("plant/left/state", row)
        heard.wait("hourglass/plant/left/anomaly", 10)
    finally:
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "auth", "said"),
    [
        (["--tls"], "me:ünsaid", "CERTIFICATE_VERIFY_FAILED"),
        (["--tls-ca", "CA", "CERT"], "me:other", "Not authorized"),
        (["--tls-ca", "CA", "CERT"], None, "Not authorized"),
    ],
)
def test_an_mqtt_broker_that_lets_nobody_in_ends_it_with_a_sentence(
    models: Path,
    authority: Authority,
    broker: tuple[Mosquitto, str],
    flags: list[str],
    auth: str | None,
    said: str,
) -> None:
    certificate, key = authority.issue("stream")
    known = {"CA": [str(authority.ca)]}
    known["CERT"] = ["--tls-cert", str(certificate), "--tls-key", str(key)]
    more = [word for flag in flags for word in known.get(flag, [flag])]
    ended = subprocess.run(
        [*mqtt_flags(broker[1], models), *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **({} if auth is None else {BROKER_AUTH: auth})},
    )
    assert ended.returncode == 2, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if " INFO " not in line]
    assert said in lines[-1]
    assert broker[1] in lines[-1]
    assert len(lines) == 1, lines


def options_of(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_access_arguments(parser)
    return parser.parse_args(flags)


def test_what_is_not_said_is_plain() -> None:
    access = access_of(options_of(), {})
    assert access.tls is None
    assert access.credentials is None


def test_a_file_wins_over_the_environment_and_no_error_repeats_it(tmp_path: Path) -> None:
    path = tmp_path / "auth"
    path.write_text("me:with : colon \n")
    found = credentials_of({"X": "you:other"}, "X", "--auth-file", path)
    assert found is not None
    assert (found.user, found.password) == ("me", "with : colon ")
    assert "colon" not in repr(found)
    for text in ("secret", ":secret", "secret:"):
        with pytest.raises(InvalidSettings, match="X: expected USER:PASSWORD") as refused:
            credentials_of({"X": text}, "X", "--auth-file", None)
        assert "secret" not in str(refused.value)
    with pytest.raises(InvalidSettings, match=r"--auth-file .*none: No such file"):
        credentials_of({}, "X", "--auth-file", tmp_path / "none")


def test_files_that_are_no_certificates_are_named(authority: Authority, tmp_path: Path) -> None:
    certificate, _ = authority.issue("one")
    _, other = authority.issue("other")
    text, locked = tmp_path / "text", tmp_path / "locked.key"
    text.write_text("none")
    subprocess.run(
        ["openssl", "pkey", "-in", other, "-aes256", "-passout", "pass:x", "-out", locked],
        check=True,
    )
    for flags, said in (
        (["--tls-ca", str(text)], "--tls-ca .*text: no certificate or crl found"),
        (["--tls-ca", str(tmp_path / "gone")], "--tls-ca .*gone: no such file"),
        (["--tls-key", str(other)], "--tls-key expects --tls-cert"),
        (["--tls-cert", str(certificate), "--tls-key", str(other)], "key values mismatch"),
        (["--tls-cert", str(certificate), "--tls-key", str(locked)], "a key without a password"),
    ):
        with pytest.raises(InvalidSettings, match=said):
            access_of(options_of(*flags), {})
