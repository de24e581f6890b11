"""The harness itself, without wrk and without peers: what it sends, reads, divides and says."""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests import environment
from tests.artifacts import make_artifact, publish
from tests.benchmarks.speed import peer, server, wrk
from tests.benchmarks.speed.__main__ import main, perform
from tests.benchmarks.speed.bench import Bench, Pair
from tests.benchmarks.speed.figure import Figure, Target
from tests.benchmarks.speed.leg import Checker, Counted, Measured, in_rounds
from tests.benchmarks.speed.memory import Sample, memory_figure
from tests.benchmarks.speed.models import Model, make_rows
from tests.benchmarks.speed.openloop import Stream, at_rate, run
from tests.benchmarks.speed.raw import Raw, RawLeg
from tests.benchmarks.speed.report import Report, as_markdown, make_report
from tests.benchmarks.speed.requests import (
    RAW,
    Query,
    answer_bytes,
    json_rows,
    make_query,
    raw_rows,
    scores_in,
)
from tests.benchmarks.speed.server import Cores, Server, ServerFailed

CORE = min(os.sched_getaffinity(0))
WRK_SAID = """Running 1s test @ http://127.0.0.1:8000
  1 threads and 64 connections
Requests/sec:  12180.11
figures requests=12180 sent=12244 microseconds=1000350 connect=0 read=1 write=0 status=2 timeout=0 wrong=3 p50=5210 p99=9020
example 503 {"title":"No model is in service"}
"""


def tiny(folder: Path) -> Model:
    """A handmade model of four features."""
    publish(folder / "models", "tiny", make_artifact())
    return Model(folder / "models", "tiny", 4, folder / "rows.csv")


def numbered(count: int) -> Query:
    """Requests whose expected scores are their own numbers."""
    bodies = tuple(str(index).encode() for index in range(count))
    return Query(
        "/score", "text/plain", bodies, tuple(np.array([float(index)]) for index in range(count))
    )


@contextmanager
def numbering(*, stall_seconds: float = 0.0, add: int = 0) -> Iterator[int]:
    """A server that answers a body's number (plus `add`) as its score, the first one after a while;
    its port.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    stalled: list[bool] = []

    def answer(connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as file:
            while file.readline():
                length = 0
                while (line := file.readline().strip()) != b"":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                number = int(file.read(length))
                if not stalled:
                    stalled.append(True)
                    time.sleep(stall_seconds)
                body = json.dumps({"score": [number + add]}).encode()
                file.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
                file.flush()

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    accepting.join()


class Fixed:
    """A leg of which the costs are known, in µs."""

    def __init__(self, name: str, *costs: float) -> None:
        self.name, self._costs = name, iter(costs)

    def measure(self, seconds: int) -> Measured:
        return Measured(next(self._costs) / 1e6, 10.0, checked=5)


def test_what_wrk_says_is_read_and_errors_are_counted_apart_from_wrong_answers() -> None:
    load = wrk.parse(WRK_SAID)
    assert (load.requests, load.sent, load.errors, load.wrong) == (12180, 12244, 1, 3)
    assert (load.seconds, load.p50_seconds, load.p99_seconds) == (1.00035, 0.00521, 0.00902)
    assert load.example == '503 {"title":"No model is in service"}'


def test_wrk_without_figures_fails_with_what_it_said() -> None:
    with pytest.raises(wrk.WrkFailed, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused")


def test_scores_are_found_in_whatever_way_an_answer_nests_and_writes_them() -> None:
    assert scores_in(b'{"model":"d32","score":[1.5,2e-3],"p":[9]}', '"score":', 2).tolist() == [
        1.5,
        0.002,
    ]
    assert scores_in(b'{"data": [[0.25], [-1]]}', '"data":', 2).tolist() == [0.25, -1.0]
    assert scores_in(b'{"score":[1.5]}', '"score":', 2) is None
    assert scores_in(b'{"detail":"no such model, 404"}', '"score":', 1) is None


def test_a_raw_answer_is_right_only_as_such_and_as_a_whole(tmp_path: Path) -> None:
    query = make_query(
        tiny(tmp_path), 3, count=2, encode=raw_rows, content_type=RAW, raw_answer=True
    )
    assert b"\r\nAccept: application/octet-stream\r\n" in query.request(0)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n\r\n"
    body = np.stack([query.expected[0], np.ones(3)], axis=1).astype("<f4").tobytes()
    assert query.is_right(0, head + body)
    assert not query.is_right(1, head + body)
    assert not query.is_right(0, head + body[:-8])
    assert not query.is_right(0, head.replace(b"octet-stream", b"json") + body)


def test_an_answer_is_right_within_float32_and_for_its_own_request_only() -> None:
    query = numbered(3)
    assert query.is_right(2, b'{"score":[2.00001]}')
    assert not query.is_right(2, b'{"score":[2.001]}')
    assert not query.is_right(2, b'{"score":[1.0]}')


def test_requests_hold_their_rows_exactly_and_expect_what_onnxruntime_says_of_them(
    tmp_path: Path,
) -> None:
    model = tiny(tmp_path)
    query = make_query(model, 3, count=2)
    raw = make_query(model, 3, count=2, encode=raw_rows, content_type=RAW)
    sent = np.array(json.loads(query.bodies[1])["rows"], dtype=np.float32)
    assert (sent == np.frombuffer(raw.bodies[1], "<f4").reshape(3, 4)).all()
    assert (query.rows, len(query.bodies)) == (3, 2)
    assert (query.expected[1] == raw.expected[1]).all()
    assert (query.expected[0] != query.expected[1]).any()
    head, _, body = query.request(0).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/models/tiny/score HTTP/1.1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head


def test_rows_of_a_width_come_from_the_same_factors_whatever_the_seed() -> None:
    fitted, asked = make_rows(4000, 8, seed=0), make_rows(4000, 8, seed=7)
    assert (fitted[:5] != asked[:5]).all()
    assert np.abs(np.corrcoef(fitted.T) - np.corrcoef(asked.T)).max() < 0.1
    assert len(json_rows(fitted[:1])) < 8 * 10 + 15


def test_an_http_answer_is_complete_at_its_content_length() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
    assert answer_bytes(answer[:20]) == 0
    assert answer_bytes(answer) == len(answer)


def test_every_answer_of_the_client_is_that_of_its_own_request() -> None:
    with numbering() as port:
        one, other = run(
            port, [at_rate(numbered(7), 200, 0.2), Stream(numbered(3), 50, 5, connections=1)]
        )
    assert (one.checked, one.wrong, len(one.seconds)) == (40, 0, 40)
    assert (other.checked, other.wrong) == (5, 0)
    with numbering(add=1) as port:
        (shifted,) = run(port, [Stream(numbered(7), float("inf"), 20, connections=4)])
    assert (shifted.checked, shifted.wrong) == (20, 20)


def test_latency_counts_from_the_planned_moment_so_that_a_stall_is_paid_by_all_who_came_in_it() -> (
    None
):
    with numbering(stall_seconds=0.3) as port:
        (latency,) = run(port, [Stream(numbered(2), 100, 20, connections=1)])
    # the twenty planned at 0, 10, ... 190 ms are all answered after the 300 ms for which the first
    # one holds the connection
    assert sorted(latency.seconds)[0] >= 0.3 - 0.19
    assert (latency.seconds >= 0.2).sum() >= 11


def test_an_answer_without_its_length_is_an_error_rather_than_a_wait() -> None:
    with pytest.raises(ConnectionError, match="without a Content-Length"):
        answer_bytes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")


def test_the_checker_beside_the_load_sees_an_answer_that_belongs_to_another_request() -> None:
    for add, right in ((0, True), (1, False)):
        with numbering(add=add) as port, Checker(port, numbered(4)) as checker:
            while not checker.checked:
                time.sleep(0.01)
        assert (checker.wrong == 0) == right
        assert ("score" in checker.example) != right


def test_cpu_time_and_memory_are_of_the_process_and_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; print(1,"
        " flush=True); time.sleep(60)'])"
    )
    with Server("parent", [sys.executable, "-c", code], CORE, log=tmp_path / "log") as parent:
        while not (tmp_path / "log").read_text():
            time.sleep(0.01)
        pid, child = server.family(parent.popen.pid)
        assert parent.cpu_seconds() == pytest.approx(
            server.cpu_seconds(pid) + server.cpu_seconds(child), rel=0.1
        )
        assert server.cpu_seconds(child) > 0
        assert parent.resident_bytes() > server.resident_bytes(pid) > 2**20
        assert os.sched_getaffinity(child) == {CORE}
    # it is gone, and so is its child as soon as the kernel has come to it
    assert server.cpu_seconds(pid) == 0
    while server.resident_bytes(child):
        time.sleep(0.01)


def test_a_status_field_in_kilobytes_is_read_as_bytes() -> None:
    assert (
        server.status_bytes("Name:\tpython\nVmPeak:\t  900 kB\nVmRSS:\t  128 kB\n", "VmRSS")
        == 131072
    )
    assert server.status_bytes("Name:\tpython\nState:\tZ (zombie)\n", "VmRSS") == 0


def test_a_server_that_ends_at_its_start_fails_with_its_last_line(tmp_path: Path) -> None:
    code = "import sys; sys.exit('no module named anything')"
    with (
        Server("broken", [sys.executable, "-c", code], CORE, log=tmp_path / "log") as broken,
        pytest.raises(ServerFailed, match="broken ended at its start: no module named anything"),
    ):
        broken.wait_until_listening()


def test_a_bulk_is_counted_and_checked_against_the_service_and_onnxruntime_alone(
    tmp_path: Path,
) -> None:
    model = tiny(tmp_path)
    query = make_query(model, 32, count=3)
    command = [
        sys.executable,
        "-m",
        "hourglass.service",
        "serve",
        "--models",
        str(model.folder),
        "--port",
        "{port}",
    ]
    with (
        Server("hourglass", command, CORE, log=tmp_path / "log") as ours,
        Raw(model, CORE, tmp_path) as raw,
    ):
        ours.wait_until_right(query)
        leg = Counted(ours, query, connections=2)
        answer = raw.ask(32, 0.05)
        measured = leg.measure(0)
    assert (measured.checked, measured.wrong) == (4, 0)
    assert measured.cpu_seconds > answer.cpu_seconds / answer.rows > 0
    assert answer.rows % 32 == 0
    assert RawLeg(raw, 32).name == "onnxruntime, score and p_value, d = 4, 32 rows a call"


def test_a_pair_is_the_ratio_of_the_costs_round_by_round_by_row_where_the_limit_is() -> None:
    ours, theirs = Fixed("ours", 100, 50, 400), Fixed("theirs", 2, 2, 2)
    pair = Pair("bulk", "of onnxruntime", "onnxruntime", theirs, ours, Target(0.8, 0.95), rows=64)
    measured = in_rounds([theirs, ours, theirs], 3, 1, lambda _: None)
    figure = pair.figure("bulk", measured)
    assert figure.values == pytest.approx((1.28, 2.56, 0.32))
    assert (figure.value, figure.verdict) == (pytest.approx(1.28), "reached")
    assert (figure.checked, figure.wrong) == (30, 0)


@pytest.mark.parametrize(
    ("target", "value", "verdict"),
    [
        (Target(1.6, 2.5), 1.59, "missed"),
        (Target(1.6, 2.5), 1.6, "must"),
        (Target(1.6, 2.5), 2.5, "reached"),
        (Target(1.25, 1.0, at_most=True), 1.3, "missed"),
        (Target(1.25, 1.0, at_most=True), 1.2, "must"),
        (Target(1.25, 1.0, at_most=True), 1.0, "reached"),
    ],
)
def test_a_target_is_missed_met_or_reached(target: Target, value: float, verdict: str) -> None:
    assert target.verdict(value) == verdict
    doubtful = Figure(
        part="latency", name="p99", unit="× echo", values=(value,), target=target, in_doubt=True
    )
    assert doubtful.verdict == "in doubt"


def test_memory_is_compared_between_the_looks_after_the_warm_up_and_the_last_ones() -> None:
    sizes = [50, 60, 100, 101, 102, 110, 120, 111, 112]
    samples = [Sample(30 * n, 30_000 * n, size) for n, size in enumerate(sizes)]
    figure = memory_figure(samples, wrong=0, seconds=9)
    assert (figure.theirs, figure.ours) == ((100,), (112,))
    assert figure.verdict == "missed"


def test_the_table_names_targets_misses_wrong_answers_and_what_was_not_measured() -> None:
    figures = [
        Figure(
            part="one row",
            name="a",
            unit="× echo",
            values=(2, 1, 3),
            target=Target(1.6, 2.5),
            ours=(9, 8, 7),
            checked=4,
        ),
        Figure(
            part="one row",
            name="b",
            unit="× echo",
            values=(0.5,),
            target=Target(1.6, 2.5),
            checked=10,
            wrong=2,
        ),
        Figure(part="peers", name="c", unit="", failure="no wheel for this Python"),
    ]
    report = make_report(
        figures,
        model="model",
        rounds=3,
        leg_seconds=1,
        began=datetime.now(UTC),
        load_average=0.1,
        wrk="4.1",
    )
    text = as_markdown(report)
    assert "| a | 2 × echo | 1 – 3 | ≥ 1.6 | ≥ 2.5 | met | 8 µs |" in text
    assert "| b | 0.5 × echo | 0.5 – 0.5 | ≥ 1.6 | ≥ 2.5 | missed |" in text
    assert "| c | – |" in text
    assert "Not measured: c: no wheel for this Python" in text
    assert "compared with onnxruntime while the load ran: 14; wrong: 2." in text
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_a_peer_that_cannot_be_installed_is_in_the_table_with_the_reason() -> None:
    def fail() -> list[Figure]:
        raise environment.EnvironmentFailed("MLServer's environment cannot be made: no network")

    mlserver = next(each for each in peer.PEERS if each.name == "MLServer")
    figures = peer.attempt(mlserver, fail)
    assert [figure.name for figure in figures] == [
        "one JSON row, d = 32, 64 connections, against MLServer",
        "64 JSON rows, d = 32, 16 connections, against MLServer",
    ]
    assert {figure.failure for figure in figures} == {
        "MLServer's environment cannot be made: no network"
    }


def test_every_peer_has_pinned_requirements_that_hold_on_any_machine() -> None:
    assert [each.name for each in peer.PEERS] == [
        "FastAPI",
        "MLServer",
        "BentoML",
        "LitServe",
        "Robyn",
        "PyOD",
    ]
    for each in peer.PEERS:
        _, *lines = each.requirements.read_text().splitlines()
        assert all(
            line.count("==") == 1 and "+" not in line and "@" not in line for line in lines
        ), each.name


def test_a_part_that_fails_is_a_failure_of_ours_and_takes_no_other_with_it(tmp_path: Path) -> None:
    bench = Bench(Cores(), rounds=1, seconds=1, config=tmp_path / "model.toml", work=tmp_path)

    def fail(_: Bench) -> list[Figure]:
        raise ServerFailed("hourglass ended at its start: it said nothing")

    (figure,) = perform("one-row", fail, bench)
    assert (figure.part, figure.failure) == (
        "one-row",
        "hourglass ended at its start: it said nothing",
    )
    assert figure.ours_failed


def test_a_part_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "one-row,speed"])
    assert ended.value.code == 2
    assert "there is no part 'speed'" in capsys.readouterr().err


def test_without_wrk_the_benchmark_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([]) == 2
    assert "apt-get install wrk" in capsys.readouterr().err
