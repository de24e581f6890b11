"""The fast path: a uvicorn protocol that answers score requests itself and leaves every other one
to the app behind it.

Whether it takes a request is decided on its head alone (request_head.py). The plain ones go
straight to the batcher, which the ordinary route asks too, so that both give the same answers.
Everything else goes through uvicorn's own parser (connection.py), as if this module were not there.

A client sends the same head again and again, but for its request's id: what a head means is
remembered by its other bytes, read once by the parser that uvicorn uses.

Order: answers leave a connection in the order of its requests. Bytes that cannot be looked at yet
are held, and reading is paused.
"""

import asyncio
from collections import deque
from time import perf_counter
from typing import Any, cast

from hourglass.service.api.parts import STATE, Parts, allow
from hourglass.service.api.problems import refuse
from hourglass.service.errors import HourglassError, NotLoaded, Overloaded
from hourglass.service.front.connection import CLOSE, Connection, begin_answer
from hourglass.service.front.request_head import (
    RequestHead,
    may_begin,
    read_request_head,
    without_identity,
)
from hourglass.service.logs import Identity, about
from hourglass.service.machine.heap import ROOM_BYTES, reserve
from hourglass.service.model.served import Served
from hourglass.service.rows import decoding, encoding
from hourglass.service.watch.metrics import UNDELIVERED

MAX_HEADS = 1024  # remembered
RECEIVED_BYTES = 2**16  # of a body: if more are lacking, they are read in another way
READ_BYTES = 2**16  # of it at once
# of all such bodies in one turn of the event loop, in which everybody else waits
TURN_BYTES = 2**18
MAX_PENDING = 256  # unanswered requests of one connection that are looked at
LARGE_ANSWER_BYTES = 2**16


class ScoringProtocol(Connection):
    """uvicorn's protocol, with plain score requests taken out of the stream between two others."""

    __slots__ = (
        "_beginning",
        "_body",
        "_busy",
        "_fast",
        "_front",
        "_head",
        "_kept",
        "_pending",
        "_receiver",
        "_started",
    )

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._front = cast(_Front, front := _front(self.app_state))
        logged = self.config.access_log and self.access_log
        self._fast = front is not None and not (logged or self.root_path or self.limit_concurrency)
        self._beginning = b""  # of a head that may be a plain one's
        self._head: RequestHead | None = None  # of the request whose body is being received
        self._body = bytearray()
        self._receiver: _Receiver | None = None
        self._started = 0.0
        self._pending: deque[_Request] = deque()  # unanswered, in order
        self._busy = False  # one of them takes the thread, and may take long
        self._kept = 0  # bytes of large answers that the client has not read

    def data_received(self, data: bytes) -> None:
        if (
            not self._fast
            or self._boundary is not None
            or self._held is not None
            or (self.cycle is not None and not self.cycle.response_complete)
        ):
            super().data_received(data)
        elif self._deaf:
            return
        elif self._beginning:
            data, self._beginning = self._beginning + data, b""
            self._take(data)
        else:
            self._take(data)

    def resume_writing(self) -> None:
        self._give_back_kept()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._give_back_kept()
        if self._receiver is not None:
            self._receiver.give_back()
        self._pending.clear()
        self._head, self._beginning = None, b""

    def look(self, now: float) -> None:
        if not self._pending or self.flow.write_paused:
            super().look(now)

    def refuse(self, error: HourglassError) -> None:
        if self._receiver is not None:
            self._receiver.give_back()
            self._receiver = None
            _exchange(self, self)
        super().refuse(error)

    def _is_busy(self) -> bool:
        return bool(
            self._pending or self._beginning or self._head is not None or super()._is_busy()
        )

    def _is_receiving(self) -> bool:
        return self._head is not None or super()._is_receiving()

    def _is_beginning(self) -> bool:
        return bool(self._beginning) or super()._is_beginning()

    def _end_if_last(self) -> None:
        if self._pending and self._eof and self._held is None:
            self._closing, self._head = True, None  # what has not come wholly never will
        else:
            super()._end_if_last()

    def _take(self, data: bytes) -> None:
        """Take the plain score requests at the beginning of the data; what follows goes to uvicorn,
        or has to wait.
        """
        if not self._fast:
            self._feed(data)
            return
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
                    self._begin_waiting(perf_counter())
                    return
                head = front.heads.get(data[at:end]) or front.read(data[at:end])
                if head is None or not front.parts.registry.is_loaded(head.name):
                    self._hand_over(data[at:])  # where the guard is asked
                    return
                self._started = perf_counter()
                refused = None if front.guard is allow else front.refused(head)
                at, stop = end, end + head.length
                if stop > size:
                    self._head = head
                    self._begin_waiting(self._started)
                    if refused is not None or stop - size > RECEIVED_BYTES:
                        self._receiver = _Receiver(self, data[at:], head.length, refused)
                    else:
                        self._body = bytearray(memoryview(data)[at:])
                    return
                if refused is not None:
                    self._answer_refused(head, refused)
                else:
                    self._ask(head, data[at:stop], alone=front.last is self and stop == size)
                at = stop
            else:
                stop = at + head.length - len(self._body)
                self._body += memoryview(data)[at:stop]
                self._came += min(stop, size) - at
                at = stop
                if len(self._body) == head.length:
                    self.take_body(self._body)

    def take_body(self, body: bytes | bytearray | Exception, *, counted: int = 0) -> None:
        """The body that was being received, so many bytes of which are counted as held; or why it
        was thrown away.
        """
        head, self._head, self._body = cast(RequestHead, self._head), None, bytearray()
        if isinstance(body, Exception):
            self._answer_refused(head, body)
        else:
            self._ask(head, body, counted=counted)

    def _answer_refused(self, head: RequestHead, error: Exception) -> None:
        self._pending.append(request := _Request(self, head, self._started, 0))
        request.set_exception(error)

    def _hand_over(self, data: bytes) -> None:
        if self._pending:
            self._hold(data)
        else:
            self._feed(data)

    def _ask(
        self,
        head: RequestHead,
        body: bytes | bytearray,
        *,
        alone: bool = False,
        counted: int = 0,
    ) -> None:
        """From here on the request is answered here, whatever becomes of it."""
        request = _Request(self, head, self._started, counted)
        self._pending.append(request)
        self._front.last = self
        parts = self._front.parts
        try:
            request.served = served = parts.registry.find(head.name)
            if parts.batcher.ask(
                served, body, head.content_type, request, raw=head.raw, alone=alone
            ):
                self._busy = True
        except NotLoaded:
            self._busy = True
            self.tasks.add(task := self.loop.create_task(self._load_and_ask(request, body)))
            task.add_done_callback(self.tasks.discard)
        except Exception as error:
            request.set_exception(error)

    async def _load_and_ask(self, request: "_Request", body: bytes | bytearray) -> None:
        """The model was let go while the body came."""
        head, parts = request.head, self._front.parts
        try:
            request.served = served = await parts.registry.get(head.name)
            parts.batcher.ask(served, body, head.content_type, request, raw=head.raw)
        except Exception as error:
            request.set_exception(error)

    def _write(self, request: "_Request", begin: bytes, body: bytes, now: float) -> bool:
        """Write the answers at the front of the queue, of which this may be one; whether the
        client is still there.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return False
        pending = self._pending
        closing = self._closing and self._head is None
        close = CLOSE if closing and request is pending[-1] else b""
        request.reply = b"%b%d\r\nx-request-id: %b\r\n%b\r\n%b" % (
            begin,
            len(body),
            request.request_id.encode(),
            close,
            body,
        )
        while pending and (reply := pending[0].reply) is not None:
            del pending[0]
            self.transport.write(reply)
        if len(body) > LARGE_ANSWER_BYTES:
            self._keep()
        if pending:
            return True
        self._busy = False
        if closing:
            self.transport.close()
            return True
        self._answered = now
        if self._held is not None:
            self._release()
        return True

    def _keep(self) -> None:
        """Count what the client has not read of a large answer, until it has read nearly all."""
        if self.flow.write_paused:
            kept = self.transport.get_write_buffer_size()
            self._front.parts.room.keep(kept - self._kept)
            self._kept = kept

    def _give_back_kept(self) -> None:
        if self._kept:
            self._front.parts.room.give_back(self._kept)
            self._kept = 0


class _Receiver(asyncio.BufferedProtocol):
    """Takes a connection's place until a large body is there: it is read to where it stays, and not
    copied twice.

    Room for all of it is made once much of it has come, since to announce a large body costs a
    client nothing. What there is no room for in the process, or what is refused from the beginning,
    is read and thrown away.

    By itself the event loop reads 32 times from a connection before the next has its turn: forty
    bodies at once held others up for seconds.
    """

    def __init__(
        self, connection: ScoringProtocol, begin: bytes, length: int, refused: Exception | None
    ) -> None:
        self._connection, self._length, self._at = connection, length, len(begin)
        self._body = reserve(min(length, max(ROOM_BYTES, len(begin))))
        self._body[: self._at] = begin
        self._room, self._counted = connection._front.parts.room, 0
        self._refused: Exception | None = None
        self._turn = 0  # bytes read in it
        connection._front.receivers.add(self)
        if refused is None:
            self._count(self._at)
        else:
            self._refuse(refused)
        _exchange(connection, self)

    def get_buffer(self, _: int) -> memoryview:
        if self._refused is not None:
            return memoryview(self._body)[: self._length - self._at]
        if self._at == len(self._body):
            begin, self._body = self._body, reserve(self._length)
            self._body[: self._at] = begin
        return memoryview(self._body)[self._at : self._at + READ_BYTES]

    def buffer_updated(self, count: int) -> None:
        self._at += count
        self._connection._came += count
        if self._refused is None:
            self._count(count)
        if self._at == self._length:
            connection, counted = self._connection, self._counted
            connection._receiver = None
            connection._front.receivers.discard(self)
            _exchange(connection, connection)
            connection.take_body(self._refused or self._body, counted=counted)
            return
        self._turn += count
        receivers = self._connection._front.receivers
        if self._turn * len(receivers) >= TURN_BYTES:
            self._connection.transport.pause_reading()
            self._connection.loop.call_soon(self._read_on)

    def eof_received(self) -> bool | None:
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def give_back(self) -> None:
        """The body will not be there."""
        self._connection._front.receivers.discard(self)
        self._empty()

    def _count(self, count: int) -> None:
        try:
            self._room.take(count)
            self._counted += count
        except Overloaded as refused:
            self._refuse(refused)

    def _refuse(self, error: Exception) -> None:
        self._empty()
        self._refused, self._body = error, bytearray(RECEIVED_BYTES)

    def _empty(self) -> None:
        self._room.give_back(self._counted)
        self._counted = 0

    def _read_on(self) -> None:
        """In the next turn."""
        self._turn = 0
        connection = self._connection
        if connection._receiver is self and not connection.transport.is_closing():
            connection.transport.resume_reading()


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

    __slots__ = ("connection", "counted", "head", "reply", "request_id", "served", "started")

    def __init__(
        self, connection: ScoringProtocol, head: RequestHead, started: float, counted: int
    ) -> None:
        self.connection, self.head, self.started = connection, head, started
        self.counted = counted  # bytes of its body, as held
        self.request_id = head.identity[0] or connection._front.parts.answers.make_id()
        self.served: Served
        self.reply: bytes | None = None

    def set_result(self, body: bytes) -> None:
        connection, now = self.connection, perf_counter()
        front, headers = connection._front, connection.server_state.default_headers
        begin = front.ok if headers is front.headers else front.renew(headers)
        if self.head.raw:
            begin = front.begin_raw(self.served)
        status = 200 if connection._write(self, begin, body, now) else UNDELIVERED
        if self.counted:
            front.parts.room.give_back(self.counted)
        self._tell(front.parts, status, now)

    def set_exception(self, error: Exception) -> None:
        connection, now = self.connection, perf_counter()
        parts = connection._front.parts
        with about(Identity(self.request_id, self.head.identity.traceparent)):
            refusal = refuse(error, "POST", self.head.path, parts.settings.root_path)
        begin = begin_answer(
            refusal.status,
            refusal.media_type,
            connection.server_state.default_headers,
            refusal.headers,
        )
        delivered = connection._write(self, begin, refusal.body, now)
        if self.counted:
            parts.room.give_back(self.counted)
        parts.metrics.observe_rejection(refusal.reason)
        status = refusal.status if delivered else UNDELIVERED
        self._tell(parts, status, now)

    def _tell(self, parts: Parts, status: int, now: float) -> None:
        head = self.head
        parts.answers.answered(
            self.request_id,
            head.identity[1],
            self.connection.client,
            "POST",
            head.path,
            head.route,
            status,
            now - self.started,
        )


class _Front:
    """What the connections of one process share: the service, and the heads they know."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.guard = parts, parts.guard
        # to ask; the one that asks twice in a row asks alone
        self.last: ScoringProtocol | None = None
        self.receivers: set[_Receiver] = set()  # of large bodies
        self.heads: dict[bytes, RequestHead] = {}
        self.headers: list[tuple[bytes, bytes]] = []  # uvicorn's own, of every answer
        self.ok = begin_answer(200, decoding.JSON, self.headers)
        self._raw: tuple[Served | None, bytes] = None, b""

    def read(self, data: bytes) -> RequestHead | None:
        """The head of a plain request, which is remembered without what only this request has."""
        rest, identity = without_identity(data)
        if (head := self.heads.get(rest)) is None:
            if (head := read_request_head(rest, self.parts)) is None:
                return None
            if len(self.heads) >= MAX_HEADS:
                self.heads.clear()
            self.heads[rest] = head
        return head.of(identity) if identity else head

    def refused(self, head: RequestHead) -> Exception | None:
        """Why the guard refuses the request; None where it lets it pass."""
        try:
            self.guard(head.asked)
        except Exception as error:
            return error
        return None

    def renew(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The beginning of an answer; once a second, since uvicorn's headers hold the date."""
        self.headers, self.ok = headers, begin_answer(200, decoding.JSON, headers)
        self._raw = None, b""
        return self.ok

    def begin_raw(self, served: Served) -> bytes:
        """The beginning of a raw answer; only the last model's is kept."""
        if self._raw[0] is not served:
            self._raw = (
                served,
                begin_answer(200, decoding.RAW, self.headers, encoding.raw_headers(served)),
            )
        return self._raw[1]


def _front(state: dict[str, Any]) -> _Front | None:
    """Of the app that has put its service into the lifespan's state; None of any other."""
    if isinstance(front := state.get("front"), _Front):
        return front
    if isinstance(parts := state.get(STATE), Parts):
        front = state["front"] = _Front(parts)
        return front
    return None
