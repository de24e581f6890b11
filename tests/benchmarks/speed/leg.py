"""A leg: one server under one load for a few seconds, and what a request of it costs."""

import math
import threading
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Protocol

from tests.benchmarks.speed import openloop, wrk
from tests.benchmarks.speed.requests import Query
from tests.benchmarks.speed.server import Server

CHECK_SECONDS = 0.05  # between the checker's requests


class Measured(NamedTuple):
    """Of one leg in one round."""

    cpu_seconds: float  # of the server for one request, or for one row of raw onnxruntime
    per_second: float  # requests, by the wall clock
    checked: int = 0
    wrong: int = 0
    example: str = ""  # of a wrong answer
    p99_seconds: float = 0.0  # as wrk sees it


class Leg(Protocol):
    """Whatever can be measured in turn."""

    name: str

    def measure(self, seconds: int) -> Measured: ...


class Loaded:
    """A server with so many connections that each send the next request when the last is
    answered.
    """

    def __init__(self, server: Server, query: Query, connections: int, *, core: int) -> None:
        self.name = _name(server, query, connections)
        self.server, self.query, self.connections, self.core = server, query, connections, core

    def measure(self, seconds: int) -> Measured:
        with TemporaryDirectory() as folder, Checker(self.server.port, self.query) as checker:
            before = self.server.cpu_seconds()
            load = wrk.run(
                self.server.port,
                self.query,
                connections=self.connections,
                seconds=seconds,
                core=self.core,
                folder=Path(folder),
            )
            self.server.wait_until_idle()
            spent = self.server.cpu_seconds() - before
        # what wrk left unanswered at its end was worked on as well
        requests = load.sent + checker.checked
        if not load.requests:
            raise wrk.WrkFailed(f"{self.server.name} answered nothing in {seconds} s")
        return Measured(
            spent / requests,
            load.requests / load.seconds,
            requests,
            load.wrong + load.errors + checker.wrong,
            load.example or checker.example,
            load.p99_seconds,
        )


def _name(server: Server, query: Query, connections: int) -> str:
    rows = f"{query.rows} row{'s' * (query.rows > 1)}"
    answer = ", answers raw" if query.raw_answer else ""
    return (
        f"{server.name}, {query.path}, {rows} as {query.content_type}{answer}, {connections}"
        " connections"
    )


class Counted:
    """A server that gets a fixed number of large requests: of a second's few, those cut off at
    wrk's end would be too many.
    """

    def __init__(self, server: Server, query: Query, connections: int) -> None:
        self.name = _name(server, query, connections)
        self.server, self.query, self.connections = server, query, connections
        self._per_second = 0.0

    def measure(self, seconds: int) -> Measured:
        if not self._per_second:
            self._per_second = self._send(2 * self.connections).per_second
        found = self._send(max(2 * self.connections, round(self._per_second * seconds)))
        self._per_second = found.per_second
        return found

    def _send(self, requests: int) -> Measured:
        before = self.server.cpu_seconds()
        (found,) = openloop.run(
            self.server.port, [openloop.Stream(self.query, math.inf, requests, self.connections)]
        )
        self.server.wait_until_idle()
        spent = self.server.cpu_seconds() - before
        return Measured(spent / requests, requests / found.wall_seconds, found.checked, found.wrong)


class Checker:
    """A client beside the load whose every answer must be that of its own request: no two may be
    mixed up.
    """

    def __init__(self, port: int, query: Query) -> None:
        self.checked = self.wrong = 0
        self.example = ""
        self._port, self._query = port, query
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._check, daemon=True)

    def __enter__(self) -> "Checker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _check(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        index = 0
        while not self._end.wait(CHECK_SECONDS):
            index = (index + 1) % len(self._query.bodies)
            try:
                connection.request(
                    "POST",
                    self._query.path,
                    self._query.bodies[index],
                    {"Content-Type": self._query.content_type},
                )
                response = connection.getresponse()
                answer = response.read()
                right = response.status == 200 and self._query.is_right(index, answer)
            except (OSError, HTTPException) as error:
                right, answer = False, repr(error).encode()
                connection.close()
            self.checked += 1
            if not right:
                self.wrong += 1
                self.example = answer[:300].decode(errors="replace")
        connection.close()


def in_rounds(
    legs: Sequence[Leg], rounds: int, seconds: int, tell: Callable[[str], None]
) -> dict[str, list[Measured]]:
    """Every leg once in each round, in turn, so that what disturbs the machine disturbs all of
    them.
    """
    measured: dict[str, list[Measured]] = {leg.name: [] for leg in legs}
    for number in range(rounds):
        for leg in {leg.name: leg for leg in legs}.values():
            found = leg.measure(seconds)
            measured[leg.name].append(found)
            tell(
                f"round {number + 1}: {leg.name}: {found.cpu_seconds * 1e6:.1f} µs,"
                f" {found.per_second:.0f}/s"
            )
            if found.wrong:
                tell(
                    f"  {found.wrong} of {found.checked} answers are wrong, such as {found.example}"
                )
    return measured
