"""The harness itself: what it sends is the same again, and what a server does wrong is counted."""

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import httptools
import pytest

from tests.artifacts import make_artifact
from tests.benchmarks.hard import attacks, connection, exhaustion, fuzz, swaps
from tests.benchmarks.hard.__main__ import main
from tests.benchmarks.hard.answers import NoAnswer, take_answer
from tests.benchmarks.hard.bystander import Phase, Phases
from tests.benchmarks.hard.good import FORMS, Good, make_goods
from tests.benchmarks.hard.mutations import FRAMED, UNFRAMED, framed, how_it_ends, unframed
from tests.benchmarks.hard.protocol import Options
from tests.benchmarks.hard.tally import Tally

Goods = dict[str, list[Good]]
Answering = Callable[[bytes], bytes | None]  # to a body; None closes


@pytest.fixture(scope="module")
def goods() -> Goods:
    """All as JSON, so that a made-up server can read them."""
    made = make_goods(make_artifact())
    return dict.fromkeys(FORMS, made["json"])


def answer(body: str, *headers: str, status: int = 200) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *headers, f"content-length: {len(body)}"]
    return "\r\n".join((*lines, "", body)).encode()


@contextmanager
def answering(to: Answering) -> Iterator[SimpleNamespace]:
    """A server on a free port that answers as it is told, one request after the other."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=100)

    def serve(client: socket.socket) -> None:
        asked: list[tuple[bytes, bytes]] = []

        class Reader:
            body = b""

            def on_body(self, data: bytes) -> None:
                self.body += data

            def on_message_complete(self) -> None:
                asked.append((parser.get_method(), self.body))
                self.body = b""

        parser = httptools.HttpRequestParser(Reader())
        with client:
            while data := client.recv(2**16):
                try:  # an upgrade is what no server has to offer
                    parser.feed_data(data.replace(b"Upgrade", b"Refused"))
                except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                    asked.append((b"GET", b""))
                while asked:
                    method, body = asked.pop(0)
                    if (said := to(body)) is None:
                        return
                    client.sendall(
                        said if method != b"HEAD" else said[: said.find(b"\r\n\r\n") + 4]
                    )

    def guarded(client: socket.socket) -> None:
        with suppress(OSError):
            serve(client)

    def accept() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=guarded, args=(client,), daemon=True).start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    port = listening.getsockname()[1]
    popen = SimpleNamespace(pid=os.getpid(), poll=lambda: None)
    try:
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}", popen=popen)
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join()


def fuzzed(to: Answering, goods: Goods, folder: Path, requests: int = 100) -> Tally:
    tally = Tally(folder)
    with answering(to) as server:
        fuzz.fuzz(server, goods, tally, [], Options(folder, requests=requests, connections=4))
    return tally


def right(goods: Goods, body: bytes) -> bytes:
    """What is due to a body, of a good request or another."""
    scores = {good.data.partition(b"\r\n\r\n")[2]: good.score for good in goods["json"]}
    if body in scores:
        return answer(f'{{"model":"good","score":[{scores[body]}]}}')
    return answer("{}")


def test_the_same_number_and_seed_send_the_same_bytes(goods: Goods) -> None:
    for index in range(50):
        assert fuzz.plan(3, index, goods) == fuzz.plan(3, index, goods)
    assert fuzz.plan(3, 1, goods) != fuzz.plan(3, 2, goods)
    assert fuzz.plan(3, 1, goods) != fuzz.plan(4, 1, goods)


def test_the_parts_of_an_exchange_are_its_requests(goods: Goods) -> None:
    several = 0
    for index in range(200):
        exchange = fuzz.plan(0, index, goods)
        several += len(exchange.parts) > 1
        sent = b"".join(part for _, part in exchange.parts)
        assert sent == b"".join(each.data for each in exchange.requests)
    assert several > 10


def test_a_framed_request_is_one_whole_request_of_every_kind() -> None:
    made = [framed(random.Random(index)) for index in range(2000)]
    assert {how_it_ends(each.data) for each in made} == {"complete"}
    assert len({each.kind for each in made}) >= len(set(FRAMED))
    others = [unframed(random.Random(index)) for index in range(2000)]
    assert {each.ends for each in others} == {"complete", "bad", "incomplete"}
    assert len({each.kind for each in others}) == len(set(UNFRAMED))


def test_a_server_that_answers_all_has_nothing_counted_against_it(
    goods: Goods, tmp_path: Path
) -> None:
    tally = fuzzed(lambda body: right(goods, body), goods, tmp_path)
    assert tally.finds == {}
    assert tally.mutated >= 100
    assert tally.statuses[200] > 100


def test_an_answer_to_another_request_is_foreign(goods: Goods, tmp_path: Path) -> None:
    last = [right(goods, goods["json"][0].data.partition(b"\r\n\r\n")[2])]

    def shifted(body: bytes) -> bytes:
        last.append(right(goods, body))
        return last[-2]

    tally = fuzzed(shifted, goods, tmp_path)
    assert tally.finds["foreign"] > 20
    (first, *_) = sorted(tmp_path.glob("foreign-*.txt"))
    assert "POST /v1/models/good/score" in first.read_text()


def test_a_connection_that_ends_without_a_word_loses_answers_and_one_that_says_so_does_not(
    goods: Goods, tmp_path: Path
) -> None:
    said: list[int] = []

    def ending(body: bytes) -> bytes | None:
        said.append(0)
        return None if len(said) % 5 == 0 else right(goods, body)

    assert fuzzed(ending, goods, tmp_path).finds["lost"] > 5
    tally = fuzzed(
        lambda body: right(goods, body).replace(b"\r\n", b"\r\nconnection: close\r\n", 1),
        goods,
        tmp_path,
    )
    assert tally.finds == {}


def test_a_server_that_does_not_answer_hangs(
    goods: Goods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HANG_SECONDS", 0.2)
    tally = fuzzed(lambda _: b"HTTP/1.1 100 Continue\r\n\r\n", goods, tmp_path, requests=20)
    assert tally.finds["hang"] >= 4


def test_errors_of_the_server_and_good_requests_refused_are_counted(
    goods: Goods, tmp_path: Path
) -> None:
    tally = fuzzed(lambda _: answer("{}", status=503), goods, tmp_path, requests=20)
    assert tally.finds["5xx"] == tally.statuses[503] > 20
    assert tally.finds["a good request refused"] > 4
    assert tally.plain_errors == tally.statuses[503]


def test_the_table_says_what_was_found_and_whether_memory_is_flat(tmp_path: Path) -> None:
    tally = Tally(tmp_path)
    tally.finds["lost"] = 3
    sizes = [50, *[100] * 18, 120]
    said = fuzz.lines(tally, sizes, 9.0, died=False, log=["Traceback (most recent call last):"])
    verdicts = {line.what: (line.now, line.met) for line in said}
    assert verdicts["lost answers"] == ("3", False)
    assert verdicts["hangs over 5 s"] == ("0", True)
    assert verdicts["tracebacks in its log"] == ("1", False)
    (flat,) = [line for line in said if line.what.startswith("resident memory")]
    assert (flat.now, flat.met) == ("1.10", False)


def test_answers_are_taken_off_a_stream_whole() -> None:
    first, chunked = answer("one"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo"
    received = bytearray(b"HTTP/1.1 100 Continue\r\n\r\n" + first + chunked)
    taken = take_answer(received, "POST")
    assert taken is not None
    assert taken.body == b"one"
    assert take_answer(received, "POST") is None
    received += b"\r\n0\r\n\r\n"
    taken = take_answer(received, "POST")
    assert taken is not None
    assert (taken.body, received) == (b"3\r\ntwo\r\n0\r\n\r\n", b"")
    with pytest.raises(NoAnswer):
        take_answer(bytearray(b"SSH-2.0\r\n\r\n"), "POST")


def test_a_slower_bystander_and_more_memory_than_allowed_are_missed() -> None:
    idle, attacked = Phase([0.001] * 100), Phase([0.001] * 90 + [0.005] * 10)
    rounds, canned = [Phases(idle, attacked)] * 2 + [Phases(idle, idle)], [Phases(idle, idle)]
    said = attacks.Said({"open at the end": 2})
    outcome = exhaustion.Outcome(rounds, canned, said, 9 * 32 * attacks.MIB, False)
    attack = attacks.Attack("a body", attacks.half_heads, attacks.BODY_BYTES, closes=True)
    slow, large, left = exhaustion.lines(attack, outcome, Options(Path()))
    assert slow.now == (
        "5.0 × (idle 1.0 ms, then 5.0 ms); right 300, failed 0;"
        " a server that does nothing 1.0 × (idle 1.0 ms, then 1.0 ms)"
    )
    assert (slow.met, large.met, left.met) == (False, False, False)


@pytest.mark.slow
def test_an_attack_on_a_real_server_says_what_it_was_answered_and_what_it_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exhaustion, "IDLE_SECONDS", 0.5)
    options = Options(tmp_path, scale=0.002, hold_seconds=0.5, rounds=2)
    outcome = exhaustion.outcome_of("keys", attacks.ATTACKS["keys"], options)
    assert outcome.said.keys() == {"422"}
    assert outcome.said["422"] >= 6
    assert not outcome.died
    for rounds in (outcome.phases, outcome.canned):
        assert len(rounds) == 2
        assert all(len(each.idle.seconds) > 10 for each in rounds)
        assert all(each.attacked.failed == 0 for each in rounds)


@pytest.mark.slow
def test_a_real_server_is_fuzzed_and_swapped_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(swaps, "rubbish", lambda _: nullcontext())
    few = ["--requests", "100", "--connections", "4", "--swaps", "4", "--output", str(tmp_path)]
    assert main(["--only", "fuzz", "swaps", *few]) == 0
    table = (tmp_path / "table.md").read_text()
    for met in (
        "answers of 5xx | 0 | 0 | met",
        "foreign answers | 0 | 0 | met",
        "deaths of the server | 0 | 0 | met",
        "swaps that did not come within 5 s | 0 | 0 | met",
        "answers that are of neither version, or mixed | 0 | 0 | met",
        "requests that failed | 0 | 0 | met",
    ):
        assert met in table
    assert "Revision" in capsys.readouterr().out


def test_a_version_that_never_comes_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pump").mkdir()
    monkeypatch.setattr(swaps, "TIMEOUT_SECONDS", 0.05)
    with answering(lambda _: answer('{"version":"old"}')) as server:
        port = int(server.url.rpartition(":")[2])
        assert swaps.swap(tmp_path, port, ["new"], 30)[:2] == (0, 30)


def test_a_protocol_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "fuzzing"])
    assert ended.value.code == 2
    assert "there is no protocol 'fuzzing'" in capsys.readouterr().err
