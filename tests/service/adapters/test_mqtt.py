"""`hourglass stream --mqtt`: rows of topics scored as they come, answers published retained."""

import json
import re
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, ClassVar
from urllib.request import urlopen

import numpy as np
import pytest

from hourglass.service.__main__ import main
from hourglass.service.adapters.joining import Joiner
from hourglass.service.adapters.mqtt import address_of, topics_of
from hourglass.service.errors import HourglassError
from tests.artifacts import make_windowed_artifact, publish
from tests.mosquitto import Mosquitto
from tests.service.adapters.test_kafka import BEGIN, NAMES, expected, rows_of, steady
from tests.serving import free_port
from tests.streaming import Streaming

ANSWERS = "plant/{entity}/anomaly"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mqtt") / "models"
    publish(folder, "plant", make_windowed_artifact(rows=4, gap=600.0))
    return folder


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as broker:
        yield broker


def streaming(
    broker: Mosquitto, models: Path, folder: Path, *more: str, topic: str | None = None
) -> Streaming:
    """The command of the README as a process of its own, once it is online."""
    known, log = len(broker.heard), folder / "stream.log"
    instead = {
        "localhost": broker.address,
        "models": str(models),
        "session.sqlite": str(folder / "session.sqlite"),
        **({} if topic is None else {"plant/+/state": topic}),
    }
    process = Streaming("--mqtt", instead, *more, log=log)
    deadline = time.monotonic() + 120
    while not any(each.payload == b"online" for each in broker.heard[known:]):
        if process.process.poll() is not None or time.monotonic() > deadline:
            process.__exit__()
            pytest.fail(log.read_text())
        time.sleep(0.05)
    return process


def assert_answers(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert len(found) == len(wanted)
    for answer, each in zip(found, wanted, strict=True):
        assert steady(answer) == {
            name: pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
            for name, value in each.items()
        }


@pytest.mark.slow
def test_rows_are_answered_and_events_published_retained(
    models: Path, broker: Mosquitto, tmp_path: Path
) -> None:
    sent = rows_of(["left", "right"], 0, 100)
    with streaming(broker, models, tmp_path) as process:
        for entity, row in sent[:150]:
            broker.put(f"plant/{entity}/state", row)
        broker.put("plant/left/state", sent[100][1])  # comes again
        broker.put("plant/left/state", {"time": BEGIN})
        for entity, row in sent[150:]:
            broker.put(f"plant/{entity}/state", row)
        wanted = expected(sent)
        for entity in ("left", "right"):
            found = broker.wait(f"plant/{entity}/anomaly", 100)
            assert_answers(found, [each for each in wanted if each["entity"] == entity])
            (opened,) = broker.wait(f"plant/{entity}/anomaly/event", 1)
            assert opened["open"]
            assert opened["features"]
            assert json.loads(broker.kept(f"plant/{entity}/anomaly") or b"") == found[-1]
            assert found[-1]["event"] == opened["id"]
        (refused,) = broker.wait("hourglass/plant/refused", 1)
        assert refused["topic"] == "plant/+/state of left"
        assert "lacks the feature 'a'" in refused["reason"]
        assert broker.kept("hourglass/plant/status") == b"online"
        assert process.stop() == 0
    assert broker.kept("hourglass/plant/status") == b"offline"


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_its_will_and_no_row_is_lost_or_counted_twice(
    models: Path, broker: Mosquitto, tmp_path: Path
) -> None:
    sent = rows_of(["left"], 0, 120)
    with streaming(broker, models, tmp_path) as process:
        for _, row in sent[:60]:
            broker.put("plant/left/state", row)
        broker.wait("plant/left/anomaly", 30)
        process.kill()
    deadline = time.monotonic() + 120
    while broker.kept("hourglass/plant/status") != b"offline":
        assert time.monotonic() < deadline
    for _, row in sent[60:100]:  # while nobody is there
        broker.put("plant/left/state", row)
    with streaming(broker, models, tmp_path) as process:
        for _, row in sent[100:]:
            broker.put("plant/left/state", row)
        last = expected(sent)[-1]
        deadline = time.monotonic() + 120
        while not (found := broker.on("plant/left/anomaly")) or found[-1]["time"] != last["time"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert process.stop() == 0
    # what had been answered but not acknowledged is answered again, with the same answer
    answers: dict[str, dict[str, Any]] = {}
    for each in found:
        before = answers.setdefault(each["time"], each)
        assert steady(before) == steady(each)
    assert_answers([*answers.values()], expected(sent))


@pytest.mark.slow
def test_a_broker_that_goes_and_comes_back_costs_nothing(
    models: Path, broker: Mosquitto, tmp_path: Path
) -> None:
    sent = rows_of(["left"], 0, 60)
    with streaming(broker, models, tmp_path) as process:
        for _, row in sent[:30]:
            broker.put("plant/left/state", row)
        broker.wait("plant/left/anomaly", 15)
        broker.stop()
        broker.start()
        broker.hear()
        for _, row in sent[30:]:
            broker.put("plant/left/state", row)
        deadline = time.monotonic() + 120
        wanted = expected(sent)
        while broker.on("plant/left/anomaly")[-1]["time"] != wanted[-1]["time"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert process.stop() == 0
    answers = {each["time"]: each for each in broker.on("plant/left/anomaly")}
    assert_answers([*answers.values()], wanted)


@pytest.mark.slow
def test_values_of_sensors_with_topics_of_their_own_are_joined_by_time(
    models: Path, broker: Mosquitto, tmp_path: Path
) -> None:
    sent = rows_of(["left", "right"], 0, 20)
    topic = "plant/{entity}/{feature}/value"
    order = np.random.default_rng(0)
    with streaming(broker, models, tmp_path, "--join-seconds", "600", topic=topic) as process:
        for entity, row in sent:
            for name in order.permutation(NAMES).tolist():
                body = {"value": row[name], "time": row["time"]}
                broker.put(f"plant/{entity}/{name}/value", body)
        wanted = expected(sent)
        for entity in ("left", "right"):
            found = broker.wait(f"plant/{entity}/anomaly", 20)
            assert_answers(found, [each for each in wanted if each["entity"] == entity])
        broker.put("plant/left/a/value", {"value": 1.0, "time": BEGIN + 60 * 20})
        broker.put("plant/left/heat/value", {"value": 1.0, "time": BEGIN + 60 * 20})
        (refused,) = broker.wait("hourglass/plant/refused", 1)
        assert refused["reason"] == "the model does not know the feature 'heat'"
        assert process.stop() == 0
    assert len(broker.on("plant/left/anomaly")) == 20
    # three of four are missing: the row is answered once it was waited for, and not judged
    with streaming(broker, models, tmp_path, "--join-seconds", "0.1", topic=topic) as process:
        last = broker.wait("plant/left/anomaly", 21)[-1]
        assert (last["score"], last["warming"]) == (None, False)
        assert process.stop() == 0


def test_the_time_of_a_value_is_in_the_field_that_is_said_to_have_it() -> None:
    joiner = Joiner({"a", "b"}, 60.0, "at")
    for second in (20, 10):
        joiner.add("left", "a", b'{"value": 1, "at": %d}' % second, None)
        joiner.add("left", "b", b'{"value": 2, "at": %d}' % second, None)
    assert [json.loads(body)["time"] for _, body in joiner.due()] == [10.0, 20.0]


def test_addresses_may_be_ipv6() -> None:
    assert address_of("[::1]:1884") == ("::1", 1884)
    assert address_of("broker") == ("broker", 1883)


def packets(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """The kind and the body of each that a client of MQTT sends."""
    while kind := stream.read(1):
        length, shift = 0, 0
        while (byte := stream.read(1)[0]) & 128:
            length, shift = length | (byte & 127) << shift, shift + 7
        yield kind[0] >> 4, stream.read(length | byte << shift)


class Refusing(socketserver.StreamRequestHandler):
    """A broker that lets nobody subscribe, which mosquitto's files of rules cannot say."""

    def handle(self) -> None:
        for kind, body in packets(self.rfile):
            match kind:
                case 1:  # CONNECT
                    self.wfile.write(b"\x20\x02\x00\x00")
                case 3:  # PUBLISH
                    end = 2 + int.from_bytes(body[:2])
                    self.wfile.write(b"\x40\x02" + body[end : end + 2])
                case 8:  # SUBSCRIBE
                    self.wfile.write(b"\x90\x03" + body[:2] + b"\x80")


@pytest.mark.slow
def test_a_subscription_that_is_refused_ends_it_with_a_sentence(models: Path) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        address = f"127.0.0.1:{server.server_address[1]}"
        flags = ["--mqtt", address, "--topic", "plant/+/state", "--model", "plant"]
        command = [sys.executable, "-m", "hourglass.service", "stream", *flags]
        ended = subprocess.run(
            [*command, "--models", str(models)],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        server.shutdown()
        thread.join()
    assert ended.returncode == 2, ended.stderr
    assert "refuses the subscription to plant/+/state" in ended.stderr
    assert "Traceback" not in ended.stderr


class Flooding(socketserver.StreamRequestHandler):
    """A broker that sends rows faster than they are scored; every tenth is of QoS 1."""

    rows = 30_000
    times: ClassVar[set[str]] = set()  # of the rows that were answered
    acknowledged: ClassVar[set[int]] = set()

    def handle(self) -> None:
        self._writing = threading.Lock()
        for kind, body in packets(self.rfile):
            match kind:
                case 1:  # CONNECT
                    self._send(b"\x20\x02\x00\x00")
                case 3:  # PUBLISH
                    end = 2 + int.from_bytes(body[:2])
                    self._send(b"\x40\x02" + body[end : end + 2])
                    if body[2:end].endswith(b"/anomaly"):
                        self.times.add(json.loads(body[end + 2 :])["time"])
                case 4:  # PUBACK
                    self.acknowledged.add(int.from_bytes(body[:2]))
                case 8:  # SUBSCRIBE
                    self._send(b"\x90\x03" + body[:2] + b"\x01")
                    threading.Thread(target=self._flood).start()
                case 14:  # DISCONNECT
                    return

    def _flood(self) -> None:
        topic = b"plant/left/state"
        for i in range(self.rows):
            row = json.dumps({**dict.fromkeys(NAMES, 0.5), "time": BEGIN + 60 * i}).encode()
            number = (1 + i // 10).to_bytes(2) if i % 10 == 0 else b""
            body = len(topic).to_bytes(2) + topic + number + row
            size = bytes([len(body) % 128 | 128 * (len(body) > 127)])
            size += bytes([len(body) // 128]) if len(body) > 127 else b""
            self._send((b"\x32" if number else b"\x30") + size + body)

    def _send(self, packet: bytes) -> None:
        with self._writing:
            self.wfile.write(packet)


@pytest.mark.slow
def test_of_rows_that_come_too_fast_those_of_qos_0_are_dropped_and_counted(
    models: Path, tmp_path: Path
) -> None:
    port = free_port()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Flooding) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        address = f"127.0.0.1:{server.server_address[1]}"
        flags = ["--mqtt", address, "--topic", "plant/+/state", "--model", "plant"]
        command = [sys.executable, "-m", "hourglass.service", "stream", *flags]
        log = (tmp_path / "log").open("w")
        process = subprocess.Popen(
            [*command, "--models", str(models), "--port", str(port)], stderr=log
        )
        try:
            deadline, dropped = time.monotonic() + 120, 0
            while len(Flooding.times) + dropped < Flooding.rows:
                assert time.monotonic() < deadline, (len(Flooding.times), dropped)
                time.sleep(0.2)
                with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                    found = re.search(
                        rb"^hourglass_stream_dropped_total (\S+)", answer.read(), re.M
                    )
                    dropped = int(float(found[1])) if found else 0
            assert dropped > Flooding.rows // 10
            while len(Flooding.acknowledged) < Flooding.rows // 10:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            process.terminate()
            assert process.wait(60) == 0
            log.close()
            server.shutdown()
            thread.join()
    said = re.findall(r"(\d+) messages of QoS 0 were dropped", (tmp_path / "log").read_text())
    assert sum(map(int, said)) == dropped


def test_a_row_waits_for_its_values_and_a_later_one_does_not_overtake_it() -> None:
    joiner = Joiner({"a", "b"}, 60.0)
    assert joiner.add("left", "a", b'{"value": 1, "time": 10}', None)
    assert joiner.add("left", "a", b'{"value": 2, "time": 20}', None)
    assert [*joiner.due()] == []
    kept = joiner.waiting("left")
    assert kept is not None
    joiner = Joiner({"a", "b"}, 60.0)
    joiner.put("left", kept)
    assert joiner.add("left", "b", b'{"value": 3, "time": 20}', None)
    found = [json.loads(body) for _, body in joiner.due()]
    assert found == [
        {"cells": {"a": 1, "b": None}, "time": 10.0},
        {"cells": {"a": 2, "b": 3}, "time": 20.0},
    ]
    assert not joiner.add("left", "b", b'{"value": 3, "time": 10}', 20.0)
    assert joiner.waiting("left") is None
    # without a time values belong to the row that is being gathered
    for value, name in ((b"1", "a"), (b"2", "a"), (b"3", "b"), (b"true", "b")):
        joiner.add("left", name, value, 20.0)
    rows = [json.loads(body)["cells"] for _, body in joiner.due()]
    assert rows == [{"a": 1, "b": 3}, {"a": 2, "b": True}]


@pytest.mark.parametrize(
    ("topic", "answers", "said"),
    [
        ("plant/state", ANSWERS, "expected a level + or {entity}"),
        ("plant/+/state", "plant/anomaly", "expected {entity} in it"),
        ("plant/+/#", ANSWERS, "would come back as rows of plant/+/#"),
        ("+/+/anomaly", ANSWERS, "would come back as rows"),
        ("$share/all/plant/+/state", ANSWERS, "expected no $share"),
        ("plant/{entity}/{entity}", ANSWERS, "expected {entity} once"),
        (
            "plant/pump+/+",
            ANSWERS,
            "expected + as a whole level, and # as the last one, got 'pump+'",
        ),
        ("plant/+/#/x", ANSWERS, "and # as the last one, got '#'"),
        ("plant/+/state", "plant/+/{entity}", "expected a topic without + and #"),
    ],
)
def test_topics_that_cannot_be_are_refused(topic: str, answers: str, said: str) -> None:
    with pytest.raises(HourglassError) as refused:
        topics_of(topic, answers, "hourglass/plant")
    assert said in str(refused.value)


def test_a_topic_says_whose_a_row_is() -> None:
    topics = topics_of("plant/+/state", ANSWERS, "hourglass/plant")
    assert topics.filter == "plant/+/state"
    found = topics.pattern.fullmatch("plant/pump 7/state")
    assert found is not None
    assert found["entity"] == "pump 7"
    assert not topics.by_sensor
    topics = topics_of("+/line/{entity}/{feature}", ANSWERS, "hourglass/plant")
    assert topics.filter == "+/line/+/+"
    assert topics.by_sensor


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "--mqtt expects --topic TOPIC, such as plant/+/state"),
        (["--topic", "plant/state"], "expected a level + or {entity}"),
        (["--topic", "plant/+/state", "--mqtt", "host:port"], "expected HOST or HOST:PORT"),
        (
            ["--topic", "plant/+/state", "--kafka", "host"],
            "one source of rows, got --kafka and --m",
        ),
        (["--topic", "plant/+/state", "--mqtt", "mqtt://host"], "expected HOST or HOST:PORT"),
        (["--topic", "plant/+/state", "--mqtt", "me:secret@host"], "without a name and a password"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    models: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    flags = ["stream", "--mqtt", "127.0.0.1:1", "--model", "plant", "--models", str(models)]
    assert main([*flags, *more]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "secret" not in error
    assert error.count("\n") == 1
