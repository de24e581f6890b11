"""Who scores single rows while others misbehave: a process of its own, at a fixed rate.

A latency counts from the planned moment, so that a stall is paid by all who came in it. Every line
on standard input after the first, which says what to ask, begins another phase; at its end the
latencies of all phases are printed.
"""

import re
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from time import monotonic, sleep
from typing import NamedTuple

import msgspec

from tests.benchmarks.hard.answers import NoAnswer, take_answer
from tests.benchmarks.machine import ROOT

PER_SECOND = 100
SCORE = re.compile(rb'"score":\[([-+.e0-9]+)\]')
TIMEOUT_SECONDS = 30


class Ask(msgspec.Struct, frozen=True):
    port: int
    request: bytes
    score: float


class Phase(msgspec.Struct):
    """Latencies of right answers in seconds, and how many requests had none."""

    seconds: list[float] = []
    failed: int = 0

    @property
    def p99_seconds(self) -> float:
        ordered = sorted(self.seconds)
        return ordered[int(0.99 * len(ordered))] if ordered else float("inf")


class Phases(NamedTuple):
    idle: Phase
    attacked: Phase


class Bystander:
    """The process, from here."""

    def __init__(self, ask: Ask) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._say(msgspec.json.encode(ask))

    def __enter__(self) -> "Bystander":
        """Once it asks."""
        assert self._popen.stdout is not None
        self._popen.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.communicate()

    def begin_phase(self) -> None:
        self._say(b"")

    def end(self) -> list[Phases]:
        """Of each pair of phases, idle and attacked, after the one that it began in."""
        said, _ = self._popen.communicate()
        phases = msgspec.json.decode(said, type=list[Phase])[1:]
        return [Phases(*pair) for pair in zip(phases[::2], phases[1::2], strict=True)]

    def _say(self, line: bytes) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(line + b"\n")
        self._popen.stdin.flush()


def main() -> None:
    ask = msgspec.json.decode(sys.stdin.readline(), type=Ask)
    phases, ended = [Phase()], threading.Event()

    def listen() -> None:
        for _ in sys.stdin:
            phases.append(Phase())  # noqa: PERF401 - one by one, as they come
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    print("it asks", flush=True)
    connection, planned = None, monotonic()
    while not ended.is_set():
        planned += 1 / PER_SECOND
        sleep(max(0.0, planned - monotonic()))
        phase = phases[-1]
        try:
            connection = connection or connect(ask.port)
            if score(connection, ask):
                phase.seconds.append(monotonic() - planned)
                continue
        except (OSError, NoAnswer):
            pass
        phase.failed += 1
        if connection is not None:
            connection.close()
        connection = None
    print(msgspec.json.encode(phases).decode())


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def score(connection: socket.socket, ask: Ask) -> bool:
    """Whether the answer is right."""
    connection.sendall(ask.request)
    received = bytearray()
    while (answer := take_answer(received, "POST")) is None:
        if not (data := connection.recv(2**16)):
            return False
        received += data
    found = SCORE.search(answer.body)
    return found is not None and abs(float(found[1]) - ask.score) <= 1e-5 * ask.score


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
