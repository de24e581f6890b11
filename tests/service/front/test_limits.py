"""What a client may send, and how slowly: heads, bodies, connections and answers have limits, and
nobody else notices those that run into them.
"""

import json
import re
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from hourglass.service.errors import HeadTooLarge, MalformedRequest
from hourglass.service.front import limits
from tests.artifacts import MIXED, make_artifact, publish
from tests.posts import PLAIN, request, rows
from tests.serving import Connection, Process, serving, wait_until

GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
SCORE = "/v1/models/plain/score"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    publish(folder, "plain", make_artifact())
    publish(folder, "mixed", make_artifact(MIXED))
    return folder


@pytest.fixture(scope="module", params=[True, False], ids=["fast", "ordinary"])
def client(folder, request):
    with serving(folder, fast=request.param) as client:
        yield client


@pytest.fixture
def hurried(monkeypatch):
    """Limits of time that a test can wait for."""
    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.6)
    monkeypatch.setattr(limits, "WINDOW_SECONDS", 0.6)
    monkeypatch.setattr(limits, "WATCH_SECONDS", 0.05)


def problem_of(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    """The status of an answer, and its problem's slug; it closes the connection."""
    status, headers, body = answer
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    problem = json.loads(body)
    assert problem["status"] == status
    return status, problem["type"].removeprefix("/docs#")


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def send_in_background(connection: Connection, *parts: bytes) -> threading.Thread:
    """Sends what the server may not want to have all of."""

    def send() -> None:
        with suppress(OSError):
            connection.send(*parts)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@contextmanager
def loop_delays(client):
    """The longest that a request to /health/live took meanwhile."""
    longest, stop = [0.0], threading.Event()

    def ask() -> None:
        with Connection(client) as connection:
            while not stop.is_set():
                started = time.perf_counter()
                connection.send(GET)
                connection.answer()
                longest[0] = max(longest[0], time.perf_counter() - started)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield longest
    finally:
        stop.set()
        thread.join()


CHUNKED = (
    b"POST /v1/models/plain/score HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)
FIELDS = b"".join(b"x-%d: a\r\n" % n for n in range(101))
TOO_LARGE = {
    "a head of 64 KiB and a byte": (b"GET / HTTP/1.1\r\nx: " + b"a" * 2**16, 431),
    "a complete head of as many": (b"GET / HTTP/1.1\r\nx: " + b"a" * 2**16 + b"\r\n\r\n", 431),
    "101 fields": (b"GET / HTTP/1.1\r\n" + FIELDS + b"\r\n", 431),
    "101 fields of a score request": (
        b"POST /v1/models/plain/score HTTP/1.1\r\n" + FIELDS
        + b"content-type: application/json\r\ncontent-length: 20\r\n\r\n" + PLAIN, 431,
    ),
    "101 fields and no end": (b"GET / HTTP/1.1\r\n" + FIELDS, 431),
    "a request line of 8 KiB and a byte": (b"GET /" + b"a" * 2**13, 414),
    "a complete request line of as many": (b"GET /" + b"a" * 2**13 + b" HTTP/1.1\r\n\r\n", 414),
    "a chunk's extension": (CHUNKED + b"1;" + b"a" * 2**10, 431),
    "trailers": (CHUNKED + b"0\r\nx: " + b"a" * 2**16, 431),
    "101 trailers": (CHUNKED + b"0\r\n" + FIELDS + b"\r\n", 431),
}  # fmt: skip


class TestHeads:
    @pytest.mark.parametrize(("data", "status"), [*TOO_LARGE.values()], ids=[*TOO_LARGE])
    def test_what_is_too_large_is_refused_and_the_connection_closed(self, client, data, status):
        slug = {431: "head-too-large", 414: "request-line-too-long"}[status]
        for parts in ([data], [data[:100], data[100:]], [data[:-7], data[-7:]]):
            with Connection(client) as connection:
                connection.send(*parts, pause_seconds=0.02)
                assert problem_of(connection.answer()) == (status, slug)
                assert connection.rest() == b""

    def test_what_is_just_small_enough_is_read(self, client):
        head = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nx: "
        fields = b"".join(b"x-%d: a\r\n" % n for n in range(99))
        for data in (
            head + b"a" * (2**16 - len(head) - 4) + b"\r\n\r\n",
            b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n",
            CHUNKED + b"14;" + b"a" * 1000 + b"\r\n" + PLAIN + b"\r\n0\r\n" + fields + b"\r\n",
            CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in PLAIN) + b"0\r\n\r\n",
        ):
            with Connection(client) as connection:
                connection.send(data, GET)
                assert connection.answer()[0] == 200
                assert connection.answer()[0] == 200

    def test_40_mib_of_fields_take_neither_memory_nor_the_loop(self, client):
        with loop_delays(client) as longest:
            time.sleep(0.2)
            before = resident_bytes()
            for begin, more in ((b"GET / HTTP/1.1\r\n", b"a:b\r\n"), (b"GET /", b"aaaaa")):
                with Connection(client) as connection:
                    writer = send_in_background(connection, begin, *[more * 200_000] * 40)
                    assert problem_of(connection.answer())[0] in (414, 431)
                    writer.join()
            assert resident_bytes() - before < 8_000_000
        assert longest[0] < 2

    def test_a_body_in_chunks_of_one_byte_lets_others_have_their_turn(self, client):
        data = CHUNKED + b"1\r\n \r\n" * 300_000
        with loop_delays(client) as longest, Connection(client) as connection:
            connection.send(data, b"14\r\n" + PLAIN + b"\r\n0\r\n\r\n")
            assert connection.answer()[0] == 200
        assert longest[0] < 2


@pytest.mark.parametrize(
    ("line", "error"), [(b"x\r\n", MalformedRequest), (b"1" * 2000 + b"\r\n", HeadTooLarge)]
)
def test_a_boundary_refuses_a_chunk_whose_size_is_none(line, error):
    boundary = limits.Boundary()
    assert boundary.cut(b"POST / HTTP/1.1\r\n\r\nx") == 19
    boundary.begin_body([(b"transfer-encoding", b"chunked")])
    with pytest.raises(error):
        boundary.cut(line)


class TestTime:
    @pytest.mark.parametrize("fast", [True, False])
    @pytest.mark.parametrize("beginning", [b"", b"P", b"POST /v1/models/pl", b"GET / HTTP/1.1\r\n"])
    def test_a_head_has_ten_seconds_and_silence_counts(self, models, hurried, fast, beginning):
        with serving(models, fast=fast) as client, Connection(client) as connection:
            started = time.monotonic()
            connection.send(beginning)
            if beginning:
                assert problem_of(connection.answer()) == (408, "too-slow")
            assert connection.rest() == b""
            assert 0.4 < time.monotonic() - started < 5

    @pytest.mark.parametrize("fast", [True, False])
    def test_a_head_that_trickles_has_no_more_time(self, models, hurried, fast):
        with serving(models, fast=fast) as client, Connection(client) as connection:
            connection.send(GET)
            assert connection.answer()[0] == 200
            writer = send_in_background(connection, *[b"P"], *[b"a"] * 40)
            with suppress(OSError):
                connection.send(*[b"x"] * 30, pause_seconds=0.05)
            assert connection.answer()[0] in (400, 408)
            writer.join()

    @pytest.mark.parametrize("length", [20, 1000, 1_000_000])
    @pytest.mark.parametrize("path", [SCORE, "/v1/models/plain/explain"])
    def test_a_body_that_does_not_go_on_is_given_up(self, models, hurried, length, path):
        with serving(models, fast=True) as client, Connection(client) as connection:
            connection.send(request(b"{", path=path, length=length))
            assert problem_of(connection.answer()) == (408, "too-slow")
            assert connection.rest() == b""
            assert 'hourglass_rejections_total{reason="slow"} 1.0' in client.get("/metrics").text

    @pytest.mark.parametrize("path", [SCORE, "/v1/models/plain/explain"])
    def test_a_body_has_to_bring_so_many_bytes_a_second(self, models, hurried, path):
        body = PLAIN + b" " * 1_000_000
        for rate, status in ((1000, 408), (100, 200)):
            with (
                serving(models, fast=True, min_bytes_per_second=rate) as client,
                Connection(client) as connection,
            ):
                connection.send(request(body[:700_000], path=path, length=len(body)))
                for at in range(700_000, 700_000 + 30 * 20, 20):  # 400 bytes a second
                    with suppress(OSError):
                        connection.send(body[at : at + 20], pause_seconds=0.05)
                with suppress(OSError):
                    connection.send(body[700_600:])
                assert connection.answer()[0] == status

    def test_keep_alive_is_a_setting(self, models):
        with serving(models, fast=True, keep_alive=0.5) as client:
            for asked in (GET, request()):
                with Connection(client) as connection:
                    connection.send(asked)
                    assert connection.answer()[0] == 200
                    started = time.monotonic()
                    assert connection.rest() == b""
                    assert 0.3 < time.monotonic() - started < 3

    def test_a_client_that_does_not_read_is_let_go(self, models, hurried):
        with serving(models, fast=True) as client, ExitStack() as stack:
            connections = [stack.enter_context(Connection(client)) for _ in range(4)]
            for connection, asked in zip(
                connections,
                [GET.replace(b"/health/live", b"/metrics"), request(rows(*[[1, 2, 3, 4]] * 100))]
                * 2,
                strict=True,
            ):
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                send_in_background(connection, *[asked * 100] * 100)
            deadline = time.monotonic() + 30
            state = client.server.server_state
            while len(state.connections) > 1 and time.monotonic() < deadline:
                client.get("/health/live").raise_for_status()
                time.sleep(0.1)
            assert len(state.connections) == 1

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "beginning", [b"", b"POST /v1/models/pl", request()[:-5], request(b"{", length=900_000)]
    )
    def test_half_a_request_does_not_hold_up_the_end(self, folder, beginning):
        with Process(folder) as process, Connection(client_of(process)) as connection:
            connection.send(beginning, pause_seconds=0.3)
            started = time.monotonic()
            assert process.stop() == 0
            assert time.monotonic() - started < 8
        assert "Traceback" not in "".join(process.log)


class TestRoom:
    def test_bodies_in_flight_have_a_budget_and_the_one_beyond_is_told_to_come_again(self, models):
        half = request(bytes(600_000), kind="application/octet-stream", length=900_000)
        explain = request(
            bytes(600_000), kind="application/octet-stream", length=900_000,
            path="/v1/models/plain/explain",
        )  # fmt: skip
        settings = {"max_body_bytes": 1_000_000, "max_held_bytes": 1_000_000, "max_rows": 10}
        for first in (half, explain):
            for second in (half, explain):
                with (
                    serving(models, fast=True, **settings) as client,
                    Connection(client) as one,
                    Connection(client) as other,
                ):
                    one.send(first, pause_seconds=0.3)
                    other.send(second + bytes(300_000))
                    status, headers, body = other.answer()
                    assert (status, headers["retry-after"]) == (503, "1")
                    assert json.loads(body)["type"] == "/docs#overloaded"
                    one.send(bytes(300_000))
                    assert one.answer()[0] == 413  # it found room: more rows than ten
                    other.send(second + bytes(300_000))
                    assert other.answer()[0] == 413
                    assert client.server.lifespan.state["parts"].room.held == 0
                    metrics = client.get("/metrics").text
                    assert 'hourglass_rejections_total{reason="overloaded"} 1.0' in metrics

    @pytest.mark.parametrize("path", [SCORE, "/v1/models/plain/explain"])
    def test_a_client_that_goes_gives_its_room_back(self, models, path):
        data = request(bytes(600_000), kind="application/octet-stream", length=900_000, path=path)
        with serving(models, fast=True) as client:
            room = client.server.lifespan.state["parts"].room
            for _ in range(5):
                with Connection(client) as connection:
                    connection.send(data)
                    wait_until(lambda: room.held > 500_000)
                    assert room.held <= 600_000
                wait_until(lambda: room.held == 0)

    def test_connections_have_a_cap_and_those_within_it_the_fast_path(self, models):
        with serving(models, fast=True, max_connections=3) as client, ExitStack() as stack:
            within = [stack.enter_context(Connection(client)) for _ in range(3)]
            for connection in within:
                connection.send(request())
                assert connection.answer()[0] == 200
            with Connection(client) as beyond:
                answer = beyond.answer()
                assert problem_of(answer) == (503, "overloaded")
                assert answer[1]["retry-after"] == "1"
            within[0].send(request())
            assert within[0].answer()[0] == 200
            assert all(each._fast for each in client.server.server_state.connections)

    def test_who_pipelines_and_reads_nothing_makes_the_process_keep_little(self, folder):
        with serving(folder, fast=True) as client, ExitStack() as stack:
            client.get("/metrics")
            before = resident_bytes()
            data = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20_000
            connections = [stack.enter_context(Connection(client)) for _ in range(10)]
            writers = [send_in_background(connection, data) for connection in connections]
            time.sleep(2)
            client.get("/health/live").raise_for_status()
            assert resident_bytes() - before < 40_000_000
            for connection in connections:
                connection.socket.shutdown(socket.SHUT_RDWR)
            for writer in writers:
                writer.join()


class TestOrder:
    MALFORMED = b"GET /x\x00 HTTP/1.1\r\n\r\n"

    @pytest.mark.parametrize(
        "good",
        [GET, request(), request(path="/v1/models/plain/explain"), CHUNKED + b"14\r\n" + PLAIN + b"\r\n0\r\n\r\n"],
        ids=["get", "score", "explain", "in chunks"],
    )  # fmt: skip
    @pytest.mark.parametrize(
        "bad", [MALFORMED, b"garbage", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
    )
    def test_a_bad_pipelined_request_waits_its_turn(self, client, good, bad, caplog):
        for count in (1, 3):
            with Connection(client) as connection:
                connection.send(good * count + bad)
                for _ in range(count):
                    assert connection.answer()[0] == 200
                assert problem_of(connection.answer()) == (400, "malformed-request")
                assert connection.rest() == b""
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []

    def test_a_score_that_comes_in_pieces_behind_another_request_is_answered_after_it(
        self, models, monkeypatch
    ):
        from hourglass.service.model.detector import Detector

        gate, explain = threading.Event(), Detector.explain

        def waits(self, *arguments, **named):
            gate.wait(10)
            return explain(self, *arguments, **named)

        with serving(models, fast=True, inline_cells=0) as client, Connection(client) as connection:
            monkeypatch.setattr(Detector, "explain", waits)
            connection.send(request(path="/v1/models/plain/explain"), pause_seconds=0.1)
            connection.send(request()[:30], request()[30:], pause_seconds=0.1)
            gate.set()
            answers = [connection.answer() for _ in range(2)]
        assert [status for status, _, _ in answers] == [200, 200]
        first, second = (json.loads(body) for _, _, body in answers)
        assert "explanations" in first
        assert "explanations" not in second

    def test_a_bad_chunk_is_answered_and_ends_its_request(self, client, caplog):
        with Connection(client) as connection:
            connection.send(GET + CHUNKED + b"14\r\n" + PLAIN + b"\r\nx\r\n")
            assert connection.answer()[0] == 200
            assert problem_of(connection.answer()) == (400, "malformed-request")
            assert connection.rest() == b""
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []

    @pytest.mark.parametrize(
        "asked",
        [
            request(b"", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA", method="GET", path="/health/live", kind=None, length=None),
            request(PLAIN, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
        ],
        ids=["get", "score"],
    )  # fmt: skip
    def test_an_upgrade_is_ignored(self, client, asked):
        with Connection(client) as connection:
            connection.send(asked + asked, GET)
            assert [connection.answer()[0] for _ in range(3)] == [200] * 3
            head, _, body = asked.partition(b"\r\n\r\n")
            connection.send(head + b"\r\n\r\n", body, pause_seconds=0.05)
            assert connection.answer()[0] == 200

    @pytest.mark.parametrize(
        "asked", [GET, request(), request(path="/v1/models/plain/explain"), request(PLAIN + b" " * 100_000)]
    )  # fmt: skip
    def test_a_client_that_shuts_its_writing_side_gets_its_answers(self, client, asked):
        for count in (1, 5):
            for _ in range(20):
                with Connection(client) as connection:
                    connection.send(asked * count)
                    connection.socket.shutdown(socket.SHUT_WR)
                    for _ in range(count):
                        assert connection.answer()[0] == 200
                    assert connection.rest() == b""

    def test_what_a_client_that_shuts_its_writing_side_has_not_sent_wholly_is_no_request(
        self, client, caplog
    ):
        for rest in (b"P", request()[:-3], GET[:-3], request(b"{", length=900_000)):
            with Connection(client) as connection:
                connection.send(request() + rest)
                connection.socket.shutdown(socket.SHUT_WR)
                assert connection.answer()[0] == 200
                assert connection.rest() == b""
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []

    @pytest.mark.parametrize("path", [SCORE, "/v1/models/plain/explain"])
    def test_an_answer_whose_client_has_gone_is_not_counted_as_200(self, models, path, monkeypatch):
        from hourglass.service.model.detector import Detector

        gate, begun = threading.Event(), threading.Event()
        for name in ("score", "explain"):
            run = getattr(Detector, name)

            def waits(self, *arguments, run=run, **named):
                if threading.current_thread().name.startswith(("scoring", "long work")):
                    begun.set()
                    gate.wait(10)
                return run(self, *arguments, **named)

            monkeypatch.setattr(Detector, name, waits)
        with serving(models, fast=True, inline_cells=0) as client:
            with Connection(client) as connection:
                connection.send(request(path=path))
                assert begun.wait(10)
                # a reset: of one that only closes nobody can tell whether it still reads
                connection.socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
                )
            time.sleep(0.2)
            gate.set()
            route = path.replace("/plain/", "/{name}/")
            line = f'hourglass_requests_total{{method="POST",route="{route}",status="499"}} 1.0'
            wait_until(lambda: line in client.get("/metrics").text.splitlines())


def client_of(process: Process):
    import httpx

    return httpx.Client(base_url=process.url)
