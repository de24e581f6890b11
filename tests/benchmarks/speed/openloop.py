"""A client that knows each answer by its request: at a fixed rate for latency, or a fixed number of
requests for their cost.

At a rate, requests leave when they are planned, whether or not the server has kept up. A client
that waits for an answer before it sends the next request measures a slow server at the server's own
convenience (coordinated omission). Here latency counts from the planned moment, so a request that
had to wait for a free connection has waited. One thread sends and reads without ever sleeping or
blocking: a sleep would be late by more than a small answer takes.
"""

import gc
import select
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import NamedTuple

import numpy as np

from tests.benchmarks.speed.requests import Query, answer_bytes

# bytes of a body sent at a time, so that a large one does not keep the others waiting
PIECE = 2**16
PATIENCE_SECONDS = 30  # for the last answers


class Stream(NamedTuple):
    """So many requests at a rate; math.inf is all of them at once, as fast as the connections take
    them.
    """

    query: Query
    per_second: float
    requests: int
    connections: int = 64


class Latency(NamedTuple):
    """Of one stream."""

    seconds: np.ndarray  # of each answer, from its planned moment to its last byte
    late_seconds: np.ndarray  # how much after its plan the client came to each: its own part
    checked: int
    wrong: int

    wall_seconds: float

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.seconds, q))


class _Connection:
    """One request at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.stream = self.index = self.wanted = 0
        self.planned = 0.0
        self.unsent = memoryview(b"")
        self.answer = bytearray()

    def begin(self, stream: int, index: int, request: bytes, planned: float) -> None:
        self.stream, self.index, self.planned = stream, index, planned
        self.unsent, self.answer, self.wanted = memoryview(request), bytearray(), 0

    def send(self) -> None:
        """A piece of what is unsent."""
        with suppress(BlockingIOError):
            self.unsent = self.unsent[self.socket.send(self.unsent[:PIECE]) :]

    def receive(self) -> bool:
        """Whether the answer is complete."""
        received = self.socket.recv(PIECE)
        if not received:
            raise ConnectionError("the server closed a connection")
        self.answer += received
        if not self.wanted:
            self.wanted = answer_bytes(self.answer)
        return 0 < self.wanted <= len(self.answer)


def at_rate(query: Query, per_second: float, seconds: float) -> Stream:
    return Stream(query, per_second, round(per_second * seconds))


def run(port: int, streams: Sequence[Stream]) -> list[Latency]:
    """All streams at once, until everything is answered; answers are looked at after that."""
    requests = [
        [stream.query.request(index) for index in range(len(stream.query.bodies))]
        for stream in streams
    ]
    plan = sorted(
        (number / stream.per_second, which, number % len(stream.query.bodies))
        for which, stream in enumerate(streams)
        for number in range(stream.requests)
    )
    idle = [[_Connection(port) for _ in range(stream.connections)] for stream in streams]
    connections = {each.socket.fileno(): each for free in idle for each in free}
    poll = select.epoll()
    for number in connections:
        poll.register(number, select.EPOLLIN)
    waiting: list[deque[tuple[float, int]]] = [deque() for _ in streams]
    sending: set[_Connection] = set()
    answers: list[list[tuple[float, int, bytes]]] = [[] for _ in streams]
    late: list[list[float]] = [[] for _ in streams]
    gc.disable()
    try:
        following, unanswered = 0, len(plan)
        start = perf_counter() + 0.05
        give_up = start + plan[-1][0] + PATIENCE_SECONDS
        while unanswered:
            now = perf_counter()
            if now > give_up:
                raise TimeoutError(
                    f"{unanswered} requests were not answered {PATIENCE_SECONDS} s after the last"
                )
            while following < len(plan) and start + plan[following][0] <= now:
                planned, which, index = plan[following]
                waiting[which].append((start + planned, index))
                late[which].append(now - start - planned)
                following += 1
            for which, queue in enumerate(waiting):
                while queue and idle[which]:
                    planned, index = queue.popleft()
                    connection = idle[which].pop()
                    connection.begin(which, index, requests[which][index], planned)
                    connection.send()
                    if connection.unsent:
                        sending.add(connection)
            for connection in list(sending):
                connection.send()
                if not connection.unsent:
                    sending.remove(connection)
            for number, _ in poll.poll(0):
                connection = connections[number]
                if connection.receive():
                    answers[connection.stream].append(
                        (
                            perf_counter() - connection.planned,
                            connection.index,
                            bytes(connection.answer),
                        )
                    )
                    idle[connection.stream].append(connection)
                    unanswered -= 1
        took = perf_counter() - start
    finally:
        gc.enable()
        poll.close()
        for connection in connections.values():
            connection.socket.close()
    return [
        _latency(stream.query, *found, took)
        for stream, *found in zip(streams, answers, late, strict=True)
    ]


def _latency(
    query: Query, answers: list[tuple[float, int, bytes]], late: list[float], took: float
) -> Latency:
    wrong = sum(
        not (answer.startswith(b"HTTP/1.1 200") and query.is_right(index, answer))
        for _, index, answer in answers
    )
    return Latency(
        np.array([seconds for seconds, *_ in answers]), np.array(late), len(answers), wrong, took
    )
