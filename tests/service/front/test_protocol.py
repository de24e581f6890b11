"""The fast path: it answers as the ordinary route does, byte by byte, in order, and leaves
everything unusual to it.
"""

import asyncio
import itertools
import json
import random
import re
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http import flow_control, httptools_impl

from hourglass.service.errors import UnknownModel
from hourglass.service.front import protocol
from hourglass.service.front.protocol import ScoringProtocol
from hourglass.service.model.detector import Detector
from tests.artifacts import MIXED, NUMERIC, make_artifact, publish, sample_rows
from tests.posts import CLOSING, INVALID, LIMITS, ODD, PLAIN, RAW_ROW, VALID, request, rows
from tests.serving import Connection, serving


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Clients of two servers of the same models: one answers by the ordinary route, one by the fast
    path.
    """
    folder = tmp_path_factory.mktemp("models")
    publish(folder, "plain", make_artifact())
    publish(folder, "mixed", make_artifact(MIXED))
    with serving(folder, **LIMITS) as ordinary, serving(folder, fast=True, **LIMITS) as fast:
        yield ordinary, fast


@pytest.fixture
def fast(both):
    return both[1]


@pytest.fixture
def service(fast):
    """The parts of the fast server."""
    return fast.server.lifespan.state["parts"]


@pytest.fixture
def taken(monkeypatch):
    """The requests that uvicorn's parser gets to see."""
    seen = []
    begin = ScoringProtocol.on_message_begin
    monkeypatch.setattr(
        ScoringProtocol, "on_message_begin", lambda self: (seen.append(self), begin(self))[1]
    )
    return seen


def everything(client: httpx.Client, data: bytes) -> bytes:
    """All that comes back for these bytes and a last request that closes the connection; the date
    left out.
    """
    with Connection(client) as connection:
        connection.send(
            data
            + request(
                b"", "Connection: close", method="GET", path="/health/live", kind=None, length=None
            )
        )
        return comparable(re.sub(rb"date: [^\r]*\r\n", b"", connection.rest()))


def comparable(answer: bytes) -> bytes:
    """Without what differs from app to app: the ids made for requests, and the order in which
    Litestar names the methods of a route.
    """
    answer = re.sub(rb"(x-request-id: )[0-9a-f]{12}-[0-9a-f]{8}\b", rb"\1MADE", answer)
    return answer.replace(b"POST, OPTIONS", b"OPTIONS, POST")


@pytest.mark.parametrize("data", [*VALID.values()], ids=[*VALID])
def test_a_plain_request_is_answered_as_by_the_ordinary_route_and_without_it(both, data, taken):
    expected, got = (everything(client, data) for client in both)
    assert got == expected
    headers = (
        rb"(hourglass-\w+: .*\r\n)*content-type:"
        rb" application/(json|octet-stream)\r\ncontent-length: "
    )
    assert re.match(rb"HTTP/1.1 200 OK\r\nserver: uvicorn\r\n" + headers, got)
    assert len(taken) == 1  # the last, that everything() adds


@pytest.mark.parametrize("data", [*INVALID.values()], ids=[*INVALID])
def test_what_is_wrong_with_a_body_is_said_in_the_same_words(both, data, taken):
    expected, got = (everything(client, data) for client in both)
    assert got == expected
    assert got.startswith(b"HTTP/1.1 4")
    assert b"\r\ncontent-type: application/problem+json\r\n" in got
    assert len(taken) == 1


@pytest.mark.parametrize("data", [*ODD.values(), *CLOSING.values()], ids=[*ODD, *CLOSING])
def test_everything_else_is_left_to_uvicorn_and_the_app(both, data, taken):
    expected, got = (everything(client, data) for client in both)
    assert got == expected
    assert got.startswith(b"HTTP/1.1 ")
    assert taken or got.startswith((b"HTTP/1.1 400", b"HTTP/1.1 200"))


def test_what_follows_a_body_is_another_request(fast):
    assert re.findall(
        rb"HTTP/1.1 \d+", everything(fast, request(PLAIN + b"garbage", length=len(PLAIN)))
    ) == [
        b"HTTP/1.1 200",
        b"HTTP/1.1 400",
    ]


def test_expect_continue_and_head_are_as_they_are(both):
    for client in both:
        with Connection(client) as connection:
            connection.send(request(b"", "Expect: 100-continue", length=len(PLAIN)))
            assert connection.answer()[0] == 100
            connection.send(PLAIN)
            assert connection.answer()[0] == 200
            connection.send(request(b"", method="HEAD", kind=None, length=None))
            assert connection.answer(body=False)[0] == 405


CELL = (
    st.none()
    | st.floats(-1e39, 1e39)
    | st.integers(-(2**70), 2**70)
    | st.booleans()
    | st.text(max_size=3)
)
ROW = st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=4) | st.lists(CELL, max_size=6)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(ROW, max_size=20),
    st.sampled_from([None, 1]),
    st.binary(max_size=3),
    st.integers(0, 10_000),
)
def test_any_body_gets_the_same_answer(both, sent, indent, noise, place):
    body = json.dumps({"rows": sent}, indent=indent).encode()
    place %= len(body)
    for each in (body, body[:place] + noise + body[place + 1 :]):
        expected, got = (everything(client, request(each) if each else b"") for client in both)
        assert got == expected


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=200))
def test_any_float32_body_gets_the_same_answer(both, body):
    data = request(body, kind="application/octet-stream")
    expected, got = (everything(client, data) for client in both)
    assert got == expected


def test_the_answers_hold_no_more_and_no_less_than_the_scores(fast):
    rows_ND = sample_rows(NUMERIC, 60, seed=1)
    detector = Detector.from_bytes(make_artifact())
    for count in (1, 2, 15, 16, 17, 60):
        answer = fast.post("/v1/models/plain/score", json={"rows": rows_ND[:count].tolist()}).json()
        np.testing.assert_allclose(
            answer["score"], detector.score(rows_ND[:count]).score, rtol=1e-6
        )
        assert answer["is_anomaly"] == [score > answer["threshold"] for score in answer["score"]]


class TestOneConnection:
    @pytest.mark.parametrize("name", ["one row", "a row too short", "categories"])
    def test_a_request_may_come_in_two_parts_cut_anywhere(self, fast, name):
        data = {**VALID, **INVALID}[name]
        with Connection(fast) as connection:
            connection.send(data)
            expected = connection.answer()
            for cut in range(1, len(data)):
                connection.send(data[:cut], data[cut:], pause_seconds=0.001)
                status, headers, body = connection.answer()
                assert (status, body, headers.keys()) == (
                    expected[0],
                    expected[2],
                    expected[1].keys(),
                )

    def test_a_large_body_may_come_in_any_parts_with_others_before_and_behind_it(self, models):
        rows_ND = sample_rows(NUMERIC, 12_000, seed=3)
        expected = Detector.from_bytes(make_artifact()).score(rows_ND)
        large = request(
            rows_ND.tobytes(), "Accept: application/octet-stream", kind="application/octet-stream"
        )
        data = request() + large + request(b"{") + large + request()
        with serving(models, fast=True) as client:
            for size in (30_000, 65_536, 100_000, len(data)):
                with Connection(client) as connection:
                    parts = [data[at : at + size] for at in range(0, len(data), size)]
                    writer = threading.Thread(
                        target=connection.send, args=parts, kwargs={"pause_seconds": 0.005}
                    )
                    writer.start()
                    answers = [connection.answer() for _ in range(5)]
                    writer.join()
                assert [status for status, _, _ in answers] == [200, 200, 400, 200, 200]
                for answer in (answers[1], answers[3]):
                    np.testing.assert_allclose(
                        np.frombuffer(answer[2], "<f4").reshape(-1, 2),
                        np.stack(expected[:2], 1),
                        rtol=1e-5,
                    )

    def test_who_announces_a_large_body_holds_no_more_memory_than_what_was_sent_calls_for(
        self, models
    ):
        def resident_bytes() -> int:
            status = Path("/proc/self/status").read_text()
            return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

        announced = request(bytes(1000), kind="application/octet-stream", length=16_000_000)
        with serving(models, fast=True) as client, ExitStack() as stack:
            before = resident_bytes()
            connections = [stack.enter_context(Connection(client)) for _ in range(20)]
            for connection in connections:
                connection.send(announced, pause_seconds=0.01)
            assert resident_bytes() - before < 16_000_000
            connections[0].send(bytes(999_000))  # more than there is room for at first
            connections[0].send(bytes(15_000_000))
            status, _, body = connections[0].answer()
        assert (status, json.loads(body)["type"]) == (413, "/docs#too-many-rows")

    def test_a_client_may_go_in_the_middle_of_a_large_body(self, models, caplog):
        large = request(bytes(800_000), kind="application/octet-stream")
        with serving(models, fast=True) as client:
            for sent in (300, 150_000, 799_000):
                with Connection(client) as connection:
                    connection.send(large[:sent], pause_seconds=0.05)
                    connection.socket.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
                    )
            assert client.post("/v1/models/plain/score", json={"rows": [[1, 2, 3, 4]]}).is_success
            time.sleep(0.1)
            assert not client.server.server_state.connections - {
                *list(client.server.server_state.connections)[:1]
            }
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []

    def test_a_request_may_come_byte_by_byte(self, fast):
        with Connection(fast) as connection:
            for data in (VALID["several rows"], ODD["in chunks"], VALID["one row"]):
                connection.send(*(data[i : i + 1] for i in range(len(data))), pause_seconds=0.0005)
                assert connection.answer()[0] == 200

    @pytest.mark.parametrize("seed", range(6))
    def test_requests_sent_at_once_are_answered_in_order_whoever_answers_them(self, both, seed):
        """Plain, wrong, large and odd ones mixed, of two models, cut into arbitrary parts."""
        draw = random.Random(seed)
        kinds = [*VALID.values(), *INVALID.values(), *ODD.values()]
        sent = draw.choices(kinds, k=60)
        sent += [request(rows([n, 1, 2, 3])) for n in range(20)]
        draw.shuffle(sent)
        expected = [everything(both[0], data) for data in sent]
        last = everything(both[1], b"")
        data = b"".join(sent)
        cuts = sorted(draw.sample(range(len(data)), 30))
        with Connection(both[1]) as connection:
            writer = threading.Thread(
                target=connection.send,
                args=[data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)])],
                kwargs={"pause_seconds": 0.002},
            )
            writer.start()
            for each in expected:
                status, headers, body = connection.answer()
                del headers["date"]
                head, _, text = each.removesuffix(last).partition(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                assert (status, comparable(body)) == (int(lines[0].split()[1]), text)
                got = "\r\n".join(f"{name}: {value}" for name, value in headers.items())
                assert comparable(got.encode()).decode().split("\r\n") == lines[1:]
            writer.join()

    def test_a_client_that_reads_nothing_is_not_read_from_for_ever_and_loses_nothing(self, fast):
        with Connection(fast) as connection:
            connection.socket.settimeout(1)
            data, sent = request(rows(*[[1, 2, 3, 4]] * 50)), 0
            block = data * 50
            with pytest.raises(TimeoutError):  # noqa: PT012  it is which of them blocks that is not known
                while sent < 200 * 2**20:
                    sent += connection.socket.send(block[sent % len(block) :])
            assert sent < 100 * 2**20
            connection.socket.settimeout(20)
            for _ in range(sent // len(data)):
                assert connection.answer()[0] == 200

    def test_a_client_may_go_at_any_moment(self, fast, caplog):
        data = request() + request(rows(*[[1, 2, 3, 4]] * 100)) + request(b"{") + request()
        for cut in range(1, len(data), 37):
            with Connection(fast) as connection:
                connection.send(data[:cut])
                if cut % 2:  # a reset in place of a good-bye
                    connection.socket.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
                    )
        assert fast.post("/v1/models/plain/score", json={"rows": [[1, 2, 3, 4]]}).is_success
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []

    def test_an_idle_one_is_closed_after_the_timeout_and_a_busy_one_is_not(self, models):
        with (
            serving(models, fast=True, keep_alive=1) as client,
            Connection(client) as connection,
        ):
            started = time.monotonic()
            for _ in range(8):
                connection.send(request())
                assert connection.answer()[0] == 200
                time.sleep(0.2)
            last = time.monotonic()
            assert last - started > 1.5
            assert connection.rest() == b""
            assert 0.5 < time.monotonic() - last < 3
            with Connection(client) as slow:
                slow.send(request()[:-5])
                time.sleep(1.5)
                slow.send(request()[-5:])
                assert slow.answer()[0] == 200


@pytest.fixture
def watched(monkeypatch):
    """The sizes of the batches, and a gate that a run of more than `gate.rows` rows waits for."""
    score, sizes = Detector.score, []
    gate = threading.Event()
    gate.set()

    def watched_score(self, rows_ND, *, gapless=False):
        sizes.append(len(rows_ND))
        gate.wait(10)
        return score(self, rows_ND, gapless=gapless)

    monkeypatch.setattr(Detector, "score", watched_score)
    return sizes, gate


class TestOneTurn:
    def test_requests_of_one_connection_are_one_run(self, models, watched):
        with serving(models, fast=True) as client, Connection(client) as connection:
            watched[0].clear()
            connection.send(request() * 20)
            for _ in range(20):
                assert connection.answer()[0] == 200
        assert watched[0] == [20]

    def test_requests_of_many_connections_are_one_run(self, models, watched):
        sizes, gate = watched
        with serving(models, fast=True) as client:
            connections = [Connection(client) for _ in range(10)]
            for connection in connections:  # accepted
                connection.send(request())
                connection.answer()
            sizes.clear()
            gate.clear()
            connections[0].send(request(rows([9, 9, 9, 9])))
            while not sizes:
                time.sleep(0.01)
            for n, connection in enumerate(connections[1:]):
                connection.send(request(rows([n, 0, 0, 0])))
            time.sleep(0.2)
            gate.set()
            scores = [json.loads(connection.answer()[2])["score"][0] for connection in connections]
            for connection in connections:
                connection.socket.close()
        assert sizes == [1, 9]
        expected = Detector.from_bytes(make_artifact()).score(
            np.array([[9, 9, 9, 9], *[[n, 0, 0, 0] for n in range(9)]], np.float32)
        )
        np.testing.assert_allclose(scores, expected.score, rtol=1e-5)

    @pytest.mark.parametrize("inline_cells", [8192, 0])
    def test_an_exception_answers_everyone_who_waits(
        self, models, monkeypatch, caplog, inline_cells
    ):
        def broken(*_: object, **__: object):
            raise ZeroDivisionError("secret detail")

        with (
            serving(models, fast=True, inline_cells=inline_cells) as client,
            Connection(client) as connection,
        ):
            with monkeypatch.context() as patch:
                patch.setattr(Detector, "score", broken)
                connection.send(
                    request() * 4
                    + request(path="/v1/models/mixed/score", body=rows([1, True, "west", 0]))
                )
                answers = [connection.answer() for _ in range(5)]
                connection.send(request())
                answers.append(connection.answer())
            connection.send(request())
            assert connection.answer()[0] == 200
            metrics = client.get("/metrics").text
        for status, headers, body in answers:
            assert (status, headers["content-type"]) == (500, "application/problem+json")
            assert b"secret" not in body
        assert "ZeroDivisionError: secret detail" in caplog.text
        assert 'hourglass_rejections_total{reason="internal"} 6.0' in metrics

    def test_a_large_body_keeps_nobody_else_waiting(self, models, watched):
        _, gate = watched
        with (
            serving(models, fast=True, inline_cells=100) as client,
            Connection(client) as large,
            Connection(client) as small,
        ):
            gate.clear()
            threading.Timer(0.5, gate.set).start()
            large.send(request(rows(*[[1, 2, 3, 4]] * 90)) + request())
            time.sleep(0.1)
            small.send(
                request(b"{")
                + request(b"", method="GET", path="/health/live", kind=None, length=None)
            )
            assert small.answer()[0] == 400
            assert small.answer()[0] == 200
            assert not gate.is_set()
            assert len(json.loads(large.answer()[2])["score"]) == 90
            assert len(json.loads(large.answer()[2])["score"]) == 1

    def test_many_large_bodies_at_once_leave_turns_to_others(self, models, monkeypatch):
        turns, is_over = [0], threading.Event()
        updated = protocol._Receiver.buffer_updated

        def next_turn(loop: asyncio.AbstractEventLoop) -> None:
            turns.append(0)
            if not is_over.is_set():
                loop.call_soon(next_turn, loop)

        def count(self, size: int) -> None:
            if len(turns) == 1:
                next_turn(self._connection.loop)
            turns[-1] += size
            updated(self, size)

        monkeypatch.setattr(protocol._Receiver, "buffer_updated", count)
        large = request(bytes(4_000_000), kind="application/octet-stream")
        with serving(models, fast=True) as client, ExitStack() as stack:
            connections = [stack.enter_context(Connection(client)) for _ in range(20)]
            sending = [threading.Thread(target=each.send, args=(large,)) for each in connections]
            for each in sending:
                each.start()
            for connection in connections:
                assert connection.answer()[0] in {200, 413}
            for each in sending:
                each.join()
            is_over.set()
        assert sum(turns) > 20 * 3_800_000
        assert max(turns) <= protocol.TURN_BYTES + 20 * protocol.READ_BYTES


class TestStopping:
    def test_what_is_in_flight_is_answered_and_the_connection_is_closed(self, models, watched):
        _, gate = watched
        with (
            serving(models, fast=True, inline_cells=100) as client,
            Connection(client) as busy,
            Connection(client) as half,
        ):
            gate.clear()
            busy.send(request(rows(*[[1, 2, 3, 4]] * 90)))
            half.send(request()[:-5])
            time.sleep(0.2)
            client.server.should_exit = True
            time.sleep(0.3)
            half.send(request()[-5:])
            gate.set()
            for connection in (busy, half):
                status, headers, _ = connection.answer()
                assert (status, headers["connection"]) == (200, "close")
                assert connection.rest() == b""

    def test_a_large_body_that_is_coming_in_is_waited_for(self, models):
        large = request(bytes(800_000), kind="application/octet-stream")
        with serving(models, fast=True) as client, Connection(client) as connection:
            connection.send(large[:200_000], pause_seconds=0.1)
            client.server.should_exit = True
            time.sleep(0.3)
            connection.send(large[200_000:])
            status, headers, body = connection.answer()
            assert (status, headers["connection"], len(json.loads(body)["score"])) == (
                200,
                "close",
                50_000,
            )
            assert connection.rest() == b""

    def test_what_waits_behind_the_one_in_flight_is_not_begun(self, models, watched):
        _, gate = watched
        with serving(models, fast=True, inline_cells=0) as client, Connection(client) as connection:
            gate.clear()
            connection.send(request(RAW_ROW, kind="application/octet-stream"))
            connection.send(request(b"{", path="/v1/models/nobody/score"))
            time.sleep(0.2)
            client.server.should_exit = True
            time.sleep(0.3)
            gate.set()
            answers = [connection.answer()]
            assert connection.rest() == b""
        assert [headers.get("connection") for _, headers, _ in answers] == ["close"]


def test_both_ways_count_the_same(models):
    counted = []
    for fast in (False, True):
        with serving(models, fast=fast, **LIMITS) as client:
            for data in (*VALID.values(), *INVALID.values(), *ODD.values()):
                with Connection(client) as connection:
                    connection.send(data)
                    connection.answer()
            lines = client.get("/metrics").text.splitlines()
        # the journal's clock writes once a second, and keeps so many of a storm in each; times pass
        volatile = (
            *("_seconds_sum", "_seconds_bucket", "process_", "python_", "_journal_alarms"),
            "_timestamp_seconds",
        )
        counted.append([line for line in lines if not any(word in line for word in volatile)])
    assert counted[1] == counted[0]
    assert 'hourglass_rejections_total{reason="too_many_rows"} 1.0' in counted[1]


@pytest.mark.parametrize("fast", [False, True])
def test_a_guard_is_asked_once_before_anything_is_done_on_both_ways(models, fast):
    seen = []

    def guard(asked):
        seen.append((asked.path, asked.scopes, asked.model))
        if asked.scopes and (b"x-key", b"right") not in asked.headers:
            raise UnknownModel("nobody is served here")

    with serving(models, fast=fast, guard=guard) as client, Connection(client) as connection:
        for _ in range(2):
            connection.send(
                request(PLAIN, "X-Key: wrong") + request(PLAIN, "X-Key: right") + request(b"{")
            )
            statuses = [
                (status, json.loads(body).get("detail"))
                for status, _, body in (connection.answer() for _ in range(3))
            ]
            assert statuses == [
                (404, "nobody is served here"),
                (200, None),
                (404, "nobody is served here"),
            ]
        assert client.get("/v1/models").status_code == 404
        assert client.get("/health/live").status_code == 200
        metrics = client.get("/metrics", headers={"x-key": "right"}).text
        assert 'reason="model"} 5.0' in metrics
    score = ("/v1/models/plain/score", ("score",), "plain")
    assert seen == [
        *[score] * 6,
        ("/v1/models", ("score", "read"), None),
        ("/health/live", (), ""),
        ("/metrics", ("read",), ""),
    ]


@pytest.mark.parametrize("pause_seconds", [0, 0.1])
def test_a_field_behind_the_body_is_none_of_the_heads(models, pause_seconds):
    """It would pass a proxy, or a guard, that has looked at the head."""
    seen = []
    chunked = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%b\r\n" % (len(PLAIN), PLAIN)
    trailers = b"0\r\nX-Key: right\r\nHost: elsewhere\r\n\r\n"
    head = b"POST /v1/models/plain/score HTTP/1.1\r\nHost: localhost\r\n"
    with (
        serving(models, fast=True, guard=lambda asked: seen.append(dict(asked.headers))) as client,
        Connection(client) as connection,
    ):
        connection.send(head + chunked + chunk, trailers, pause_seconds=pause_seconds)
        connection.send(head + chunked + chunk + trailers)
        assert [connection.answer()[0] for _ in range(2)] == [200, 200]
    assert [each[b"host"] for each in seen] == [b"localhost", b"localhost"]
    assert not [each for each in seen if b"x-key" in each]


def test_an_access_log_has_every_request(models, caplog):
    with (
        caplog.at_level("INFO", "uvicorn.access"),
        serving(models, fast=True, server_options={"access_log": True}) as client,
    ):
        assert client.post("/v1/models/plain/score", json={"rows": [[1, 2, 3, 4]]}).is_success
    assert '"POST /v1/models/plain/score HTTP/1.1" 200' in caplog.text


def test_behind_another_root_path_the_app_answers(models, taken):
    with serving(models, fast=True, server_options={"root_path": "/x"}) as client:
        client.post("/v1/models/plain/score", json={"rows": [[1, 2, 3, 4]]})
    assert len(taken) == 1


def test_another_app_is_served_as_by_uvicorn():
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    import uvicorn

    async def ask():
        server = uvicorn.Server(
            uvicorn.Config(
                app, port=0, http=ScoringProtocol, log_config=None, access_log=False, lifespan="off"
            )
        )
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        writer.write(request())
        line = await reader.readline()
        writer.close()
        server.should_exit = True
        await serving
        return line

    assert asyncio.run(ask()) == b"HTTP/1.1 204 No Content\r\n"


def test_uvicorn_has_the_inside_that_the_fast_path_is_built_on():
    """When this fails after an update of uvicorn, read the whole of its httptools_impl.py before
    the pin is moved.
    """
    names = {
        "app_state", "access_log", "root_path", "limit_concurrency", "cycle", "flow", "loop", "server_state", "transport",
        "timeout_keep_alive", "timeout_keep_alive_task", "pipeline",
    }  # fmt: skip
    code = httptools_impl.HttpToolsProtocol.__init__.__code__
    assert names <= {*code.co_names}
    for method in ("data_received", "on_headers_complete", "on_message_begin", "on_message_complete", "shutdown", "resume_writing",
                   "connection_lost", "timeout_keep_alive_handler", "_unset_keepalive_if_required"):  # fmt: skip
        assert callable(getattr(httptools_impl.HttpToolsProtocol, method))
    assert {"response_complete", "keep_alive"} <= {
        *httptools_impl.RequestResponseCycle.__init__.__code__.co_names
    }
    assert {"read_paused", "write_paused"} <= {*flow_control.FlowControl.__init__.__code__.co_names}
    assert httptools_impl.STATUS_LINE[200] == b"HTTP/1.1 200 OK\r\n"
