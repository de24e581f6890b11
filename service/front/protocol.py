"""The fast path: a uvicorn protocol that answers score requests itself and leaves every other one
to the app behind it.

Whether it takes a request is decided on its head alone (request_head.py). The plain ones go
straight to the batcher, which the ordinary route asks too, so that both give the same answers.
Everything else goes through uvicorn's own parser, as if this module were not there.

A client sends the same head again and again: what a head means is remembered by its bytes, read
once by the parser that uvicorn uses.

Order: answers leave a connection in the order of its requests. Bytes that cannot be looked at yet
are held, and reading is paused.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from time import perf_counter
from types import MappingProxyType
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from hourglass.service.api.parts import STATE, Parts, allow
from hourglass.service.api.problems import refuse
from hourglass.service.front.request_head import RequestHead, may_begin, read_request_head
from hourglass.service.model.served import Served
from hourglass.service.rows import decoding, encoding

_CLOSE = b"connection: close\r\n"
MAX_HEADS = 1024  # remembered
RECEIVED_BYTES = 2**16  # of a body: if more are lacking, they are read in another way
ROOM = (
    32  # times what has come of such a body, of which a first read often gives no more than 64 KiB
)
MAX_PENDING = 256  # unanswered requests of one connection that are looked at
PARTING_SECONDS = (
    0.5  # that a connection without a request has left when the server ends: one may be on its way
)


class ScoringProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with plain score requests taken out of the stream between two others."""

    # in the same dict as uvicorn's they would be too many for the interpreter to look them up fast
    __slots__ = (
        "_answered",
        "_beginning",
        "_body",
        "_busy",
        "_closing",
        "_fast",
        "_front",
        "_head",
        "_held",
        "_in_message",
        "_pending",
        "_started",
    )

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._front = cast(_Front, front := _front(self.app_state))
        logged = self.config.access_log and self.access_log
        self._fast = front is not None and not (logged or self.root_path or self.limit_concurrency)
        self._in_message = False  # uvicorn's parser has seen a part of a request
        self._beginning = b""  # of a head that may be a plain one's
        self._head: RequestHead | None = None  # of the request whose body is being received
        self._body = bytearray()
        self._started = 0.0
        self._pending: deque[_Request] = deque()  # unanswered, in order
        self._busy = False  # one of them takes the thread, and may take long
        self._held: bytes | None = None
        self._closing = False
        self._answered = 0.0  # when the last answer left

    def data_received(self, data: bytes) -> None:
        if (
            not self._fast
            or self._in_message
            or (self.cycle is not None and not self.cycle.response_complete)
        ):
            super().data_received(data)
        elif self._held is not None:
            self._held += data
        elif self._beginning:
            data, self._beginning = self._beginning + data, b""
            self._take(data)
        else:
            self._take(data)

    def on_message_begin(self) -> None:
        self._in_message = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._in_message = False
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._closing and self.cycle is not None:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """The answers on their way are the connection's last; where there are none, the next one
        is, if its request comes soon.
        """
        self._closing = True
        if self.cycle is not None and not self.cycle.response_complete:
            super().shutdown()
        elif not self._pending and self._head is None:
            self.loop.call_later(PARTING_SECONDS, self._part)

    def _part(self) -> None:
        if not (self._pending or self._head is not None or self.transport.is_closing()):
            super().shutdown()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._release()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._pending.clear()
        self._held, self._head, self._beginning = None, None, b""

    def timeout_keep_alive_handler(self) -> None:
        """One timer serves many answers: when it comes too early for the last of them, it is set
        again.
        """
        self.timeout_keep_alive_task = None
        if self._pending or self._beginning or self._head is not None or self._held is not None:
            return
        left = self._answered + self.timeout_keep_alive - perf_counter()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(
                left, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def _take(self, data: bytes) -> None:
        """Take the plain score requests at the beginning of the data; what follows goes to uvicorn,
        or has to wait.
        """
        front, pending, at, size = self._front, self._pending, 0, len(data)
        while at < size:
            if (head := self._head) is None:
                if self._closing and pending:
                    return  # the answers on their way are the connection's last
                if self._busy or self.flow.write_paused or len(pending) >= MAX_PENDING:
                    self._hold(data[at:])
                    return
                end = data.find(b"\r\n\r\n", at) + 4
                if end < 4 and may_begin(rest := data[at:]):
                    self._beginning = rest
                    return
                head = front.heads.get(data[at:end]) or front.read(data[at:end])
                if (
                    head is None
                    or not (front.guard is allow or front.lets_pass(head))
                    or not front.parts.registry.is_loaded(head.name)
                ):
                    self._hand_over(data[at:])
                    return
                self._started = perf_counter()
                at, stop = end, end + head.length
                if stop > size:
                    self._head = head
                    if stop - size > RECEIVED_BYTES:
                        _Receiver(self, data[at:], head.length)
                    else:
                        self._body = bytearray(memoryview(data)[at:])
                    return
                self._ask(head, data[at:stop], alone=front.last is self and stop == size)
                at = stop
            else:
                stop = at + head.length - len(self._body)
                self._body += memoryview(data)[at:stop]
                at = stop
                if len(self._body) == head.length:
                    self.take_body(self._body)

    def take_body(self, body: bytes | bytearray) -> None:
        """The body that was being received."""
        head, self._head, self._body = cast(RequestHead, self._head), None, bytearray()
        self._ask(head, body)

    def _hand_over(self, data: bytes) -> None:
        if self._pending:
            self._hold(data)
        else:
            super().data_received(data)

    def _hold(self, data: bytes) -> None:
        self._held = data
        self.flow.pause_reading()

    def _release(self) -> None:
        if (data := self._held) is not None and not self.transport.is_closing():
            self._held = None
            self.flow.resume_reading()
            self._take(data)

    def _ask(self, head: RequestHead, body: bytes | bytearray, *, alone: bool = False) -> None:
        """From here on the request is answered here, whatever becomes of it."""
        request = _Request(self, head, self._started)
        self._pending.append(request)
        self._front.last = self
        parts = self._front.parts
        try:
            request.served = served = parts.registry.find(head.name)
            if parts.batcher.ask(
                served, body, head.content_type, request, raw=head.raw, alone=alone
            ):
                self._busy = True
        except Exception as error:
            request.set_exception(error)

    def _write(self, request: "_Request", begin: bytes, body: bytes, now: float) -> None:
        """Write the answers at the front of the queue, of which this may be one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        pending = self._pending
        closing = self._closing and self._head is None
        close = _CLOSE if closing and request is pending[-1] else b""
        request.reply = b"%b%d\r\n%b\r\n%b" % (begin, len(body), close, body)
        while pending and (reply := pending[0].reply) is not None:
            del pending[0]
            self.transport.write(reply)
        if pending:
            return
        self._busy = False
        if closing:
            self.transport.close()
            return
        self._answered = now
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        if self._held is not None:
            self._release()


class _Receiver(asyncio.BufferedProtocol):
    """Takes a connection's place until a large body is there: it is read to where it stays, and not
    copied twice.

    Room is made for so many times of what has come, since to announce a large body costs a client
    nothing.
    """

    def __init__(self, connection: ScoringProtocol, begin: bytes, length: int) -> None:
        self._connection, self._length, self._at = connection, length, len(begin)
        self._body = bytearray(min(length, max(RECEIVED_BYTES, ROOM * len(begin))))
        self._body[: self._at] = begin
        _exchange(connection, self)

    def get_buffer(self, _: int) -> memoryview:
        if self._at == len(self._body):
            self._body += bytes(min(self._length - self._at, self._at))
        return memoryview(self._body)[self._at :]

    def buffer_updated(self, count: int) -> None:
        self._at += count
        if self._at == self._length:
            _exchange(self._connection, self._connection)
            self._connection.take_body(self._body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()


def _exchange(connection: ScoringProtocol, protocol: asyncio.BaseProtocol) -> None:
    """Give a connection's transport to another protocol; how it reads is settled when it begins
    to.
    """
    transport = connection.transport
    transport.pause_reading()
    transport.set_protocol(protocol)
    transport.resume_reading()


class _Request:
    """One request that waits for its answer: what the batcher knows as a waiter."""

    __slots__ = ("connection", "head", "reply", "served", "started")

    def __init__(self, connection: ScoringProtocol, head: RequestHead, started: float) -> None:
        self.connection, self.head, self.started = connection, head, started
        self.served: Served
        self.reply: bytes | None = None

    def set_result(self, body: bytes) -> None:
        connection, now = self.connection, perf_counter()
        front, headers = connection._front, connection.server_state.default_headers
        begin = front.ok if headers is front.headers else front.renew(headers)
        if self.head.raw:
            begin = front.begin_raw(self.served)
        connection._write(self, begin, body, now)
        metrics = connection._front.parts.metrics
        metrics.observe_request(self.head.route, "POST", 200, now - self.started)

    def set_exception(self, error: Exception) -> None:
        connection, now = self.connection, perf_counter()
        metrics = connection._front.parts.metrics
        refusal = refuse(error, "POST", self.head.path)
        metrics.observe_rejection(refusal.reason)
        metrics.observe_request(self.head.route, "POST", refusal.status, now - self.started)
        begin = _begin(refusal.status, refusal.media_type, connection.server_state.default_headers)
        connection._write(self, begin, refusal.body, now)


class _Front:
    """What the connections of one process share: the service, and the heads they know."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.guard = parts, parts.guard
        # to ask; the one that asks twice in a row asks alone
        self.last: ScoringProtocol | None = None
        self.heads: dict[bytes, RequestHead] = {}
        self.headers: list[tuple[bytes, bytes]] = []  # uvicorn's own, of every answer
        self.ok = _begin(200, decoding.JSON, self.headers)
        self._raw: tuple[Served | None, bytes] = None, b""

    def read(self, data: bytes) -> RequestHead | None:
        """The head of a plain request, which is remembered."""
        if (head := read_request_head(data, self.parts)) is not None:
            if len(self.heads) >= MAX_HEADS:
                self.heads.clear()
            self.heads[data] = head
        return head

    def lets_pass(self, head: RequestHead) -> bool:
        """Whether the guard does; if not, the app asks it again, and says so."""
        try:
            self.guard(head.path, head.headers)
        except Exception:
            return False
        return True

    def renew(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The beginning of an answer; once a second, since uvicorn's headers hold the date."""
        self.headers, self.ok = headers, _begin(200, decoding.JSON, headers)
        self._raw = None, b""
        return self.ok

    def begin_raw(self, served: Served) -> bytes:
        """The beginning of a raw answer; only the last model's is kept."""
        if self._raw[0] is not served:
            self._raw = (
                served,
                _begin(200, decoding.RAW, self.headers, encoding.raw_headers(served)),
            )
        return self._raw[1]


def _begin(
    status: int,
    content_type: str,
    headers: list[tuple[bytes, bytes]],
    own: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """An answer up to its length, as uvicorn writes it."""
    ours = {**own, "content-type": content_type}
    pairs = *headers, *[(name.encode(), value.encode()) for name, value in ours.items()]
    lines = [b"%b: %b\r\n" % pair for pair in pairs]
    return b"".join([STATUS_LINE[status], *lines, b"content-length: "])


def _front(state: dict[str, Any]) -> _Front | None:
    """Of the app that has put its service into the lifespan's state; None of any other."""
    if isinstance(front := state.get("front"), _Front):
        return front
    if isinstance(parts := state.get(STATE), Parts):
        front = state["front"] = _Front(parts)
        return front
    return None
