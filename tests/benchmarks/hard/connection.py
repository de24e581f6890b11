"""One client's connection: what it sends and when, which answers are due to it, and whether those
that come are its own.
"""

import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from time import monotonic
from typing import NamedTuple

from tests.benchmarks.hard.answers import Answer, NoAnswer, take_answer
from tests.benchmarks.hard.good import MODEL, Good, score_in
from tests.benchmarks.hard.mutations import Mutated
from tests.benchmarks.hard.tally import Tally

HANG_SECONDS = 5.0
ADDRESSES = 200  # of 127.0.0.x that connections come from, so that no run uses its ports up
_OF_GOOD = b'"model":"%b"' % MODEL.encode()


class Exchange(NamedTuple):
    requests: tuple[Good | Mutated, ...]
    parts: Sequence[tuple[float, bytes]]  # seconds to wait before, bytes
    shuts: bool = False  # the client's writing side, when all is sent


class Connection:
    """A socket that never waits, and the exchange that goes over it."""

    def __init__(self, port: int, number: int, tally: Tally) -> None:
        self.port, self.tally = port, tally
        self._source = f"127.0.0.{2 + number % ADDRESSES}"
        self.socket: socket.socket | None = None
        self.received = bytearray()
        self.due: deque[Good | Mutated] = deque()
        self.parts: deque[tuple[float, bytes]] = deque()  # seconds to wait before, bytes
        self.index = 0  # of the exchange
        self.requests: tuple[Good | Mutated, ...] = ()
        self.next_part = 0.0
        self.moved = 0.0  # when anything last went or came
        self.ended = False  # the server sends no more
        self.may_close = False  # it has said so
        self.shuts = False  # the client shuts its writing side once all is sent

    def begin(self, index: int, exchange: Exchange) -> bool:
        """Take up an exchange; True where that took a new connection."""
        self.index, self.requests = index, exchange.requests
        self.due, self.parts = deque(exchange.requests), deque(exchange.parts)
        self.shuts, self.may_close = exchange.shuts, False
        self.moved = monotonic()
        self.next_part = self.moved + self.parts[0][0]
        if self.socket is not None:
            return False
        self.ended = False
        self.received.clear()
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.bind((self._source, 0))
        self.socket.setblocking(False)
        with suppress(BlockingIOError):
            self.socket.connect(("127.0.0.1", self.port))
        return True

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def send(self, now: float) -> None:
        """As much as it is time for, and the server takes."""
        assert self.socket is not None
        while self.parts and now >= self.next_part:
            pause_seconds, data = self.parts[0]
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                return
            except OSError:  # it reads no more; what it has said is still to be read
                self.parts.clear()
                return
            self.moved = now
            if sent < len(data):
                self.parts[0] = pause_seconds, data[sent:]
                return
            self.parts.popleft()
            if self.parts:
                self.next_part = now + self.parts[0][0]
            elif self.shuts:
                with suppress(OSError):
                    self.socket.shutdown(socket.SHUT_WR)

    def receive(self, now: float) -> None:
        assert self.socket is not None
        try:
            while data := self.socket.recv(2**18):
                self.received += data
                self.moved = now
            self.ended = True
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        self._take()

    def is_done(self, now: float) -> bool:
        """Whether the exchange is over; what of it went wrong is counted."""
        if not self.due:
            if self.ended or self.shuts or self.may_close:
                self.close()
            elif self.received:
                self.tally.found(
                    "an answer that nobody asked for", self, bytes(self.received[:300])
                )
                self.close()
            return True
        first = self.due[0]
        sent = not self.parts and not self.ended
        if sent and isinstance(first, Mutated) and first.ends == "incomplete":  # nothing is due
            self.due.popleft()
            self.close()
            return True
        if self.ended:
            self._count_missing()
            self.close()
            return True
        if now - self.moved > HANG_SECONDS:
            self.tally.found("hang", self, bytes(self.received[:300]))
            self.close()
            return True
        return False

    def _count_missing(self) -> None:
        """The server has closed: is what is lacking lost, or was the end announced or due?"""
        first = self.due[0]
        unframed = isinstance(first, Mutated) and not first.framed
        if unframed and first.ends != "complete":
            if first.ends == "bad":
                self.tally.closed_without_a_word += 1
        elif not self.may_close:
            kind = "lost after the client shut its side" if self.shuts else "lost"
            for _ in self.due:
                self.tally.found(kind, self, bytes(self.received[:300]))

    def _take(self) -> None:
        while self.due:
            first = self.due[0]
            method = "POST" if isinstance(first, Good) else first.method
            try:
                answer = take_answer(self.received, method, ended=self.ended)
            except NoAnswer as error:
                self.tally.found("no HTTP", self, error.args[0])
                self.ended = True
                return
            if answer is None:
                return
            self.due.popleft()
            self.tally.answered(first, answer)
            if answer.status >= 500:
                self.tally.found("5xx", self, answer.head + answer.body[:600])
            self._check(first, answer)
            if answer.closes:
                self.may_close = True
            if isinstance(first, Mutated) and not first.framed:
                self.due.clear()  # what follows, if anything, answers the rest of its bytes
                self.may_close = True

    def _check(self, asked: Good | Mutated, answer: Answer) -> None:
        """Whether the answer is that of its request."""
        if isinstance(asked, Mutated):
            if _OF_GOOD in answer.body or b"\r\nhourglass-model: good\r" in answer.head:
                self.tally.found("foreign", self, answer.body[:300])
            elif asked.path and answer.is_problem and answer.body:
                instance = b'"instance":"%b"' % asked.path.partition("?")[0].encode()
                if instance not in answer.body:
                    self.tally.found("foreign", self, answer.body[:600])
            return
        if answer.status != 200:
            self.tally.found("a good request refused", self, answer.head + answer.body[:300])
            return
        score = score_in(answer.body, raw=asked.form == "raw answer")
        # other last bits come from another place in the batch
        if score is None or abs(score - asked.score) > 1e-5 * asked.score:
            self.tally.found("foreign", self, answer.body[:300])


def as_parts(data: bytes, cuts: Sequence[int], pause_seconds: float) -> list[tuple[float, bytes]]:
    """The bytes, cut at these places; each part but the first comes after a pause."""
    places = [0, *sorted(cuts), len(data)]
    parts = [data[start:end] for start, end in pairwise(places)]
    return [
        (pause_seconds if number else 0.0, part)
        for number, part in enumerate(part for part in parts if part)
    ]
