"""Connection: uvicorn's protocol within limits.

uvicorn's parser is given one request at a time, and the next once that is answered: so answers
leave in order whatever comes behind them, and a client that does not read can make the process
keep little. A client that takes too long, for a head, a body or the reading of an answer, is let
go.
"""

from collections.abc import Mapping
from time import perf_counter
from types import MappingProxyType
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from hourglass.service.api.parts import STATE, Parts
from hourglass.service.api.problems import refuse
from hourglass.service.errors import HourglassError, MalformedRequest, Overloaded, TooSlow
from hourglass.service.front import limits
from hourglass.service.logs import REQUEST_ID, Identity, about
from hourglass.service.watch.answers import GONE

CLOSE = b"connection: close\r\n"
# that a connection without a request has left when the server ends: one may be on its way
PARTING_SECONDS = 0.5
REFUSED_CONNECTIONS = 64  # that are told why at once; further ones are closed without a word
_WATCHED = "watched"


class Connection(HttpToolsProtocol):
    """uvicorn's protocol within limits; for an app that is not the service's, without them."""

    # in the same dict as uvicorn's they would be too many for the interpreter to look them up fast
    __slots__ = (
        "_answered",
        "_boundary",
        "_came",
        "_closing",
        "_deaf",
        "_eof",
        "_flow",
        "_held",
        "_parts",
        "_since",
        "_unsent",
        "_window",
    )

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        parts = self.app_state.get(STATE)
        self._parts = parts if isinstance(parts, Parts) else None
        self._boundary: limits.Boundary | None = None  # of a request that uvicorn's parser reads
        self._held: bytes | None = None  # what follows a request that is not answered
        # when the connection was made, or when a head began that has not come wholly
        self._since = perf_counter()
        self._answered = 0.0  # when the last answer left
        self._window, self._came = 0.0, 0  # since when bytes of a body are counted, and how many
        self._unsent = 0  # bytes of answers, at the window's beginning
        self._closing = False  # the answers on their way are the connection's last
        self._eof = False  # the client sends no more
        self._deaf = False  # what comes is not read any more

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self._parts is None:
            return
        self.flow = self._flow = _Flow(transport)
        if _WATCHED not in self.app_state:
            self.app_state[_WATCHED] = True
            limits.watch(self.connections, self.loop)
        over = len(self.connections) - self._parts.settings.max_connections
        if over > REFUSED_CONNECTIONS:
            self.abort()
        elif over > 0:
            most = self._parts.settings.max_connections
            self.refuse(Overloaded(f"expected at most {most} connections at once, got more"))

    def data_received(self, data: bytes) -> None:
        if self._parts is None:
            super().data_received(data)
        elif self._deaf:
            return
        elif self._held is not None:
            self._hold(self._held + data)
        elif self._boundary is not None:
            self._feed(data)
        elif self._is_asked():
            self._hold(data)
        else:
            self._take(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn's gives None
        """A client that shuts its writing side still reads: it gets the answers to all that it has
        asked.
        """
        if self._parts is None or self._deaf:
            return None
        self._eof = True
        self._end_if_last()
        return not self.transport.is_closing()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][GONE] = self._is_gone

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field behind the body is none of the head: it was not there when that was judged."""
        if self._boundary is None or not self._boundary.read:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._boundary is not None:
            self._boundary.begin_body(self.headers)
        if self._closing and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._boundary = None

    def on_response_complete(self) -> None:
        if self._parts is None:
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self._answered = perf_counter()
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self._release()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._window, self._unsent = perf_counter(), self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._release()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deaf = True
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._held = self._boundary = None

    def shutdown(self) -> None:
        """The answers on their way are the connection's last; where there are none, the next one
        is, if its request comes soon.
        """
        self._closing = True
        self._window, self._came = perf_counter(), 0
        if self._is_asked():
            super().shutdown()
        elif not self._is_busy():
            self.loop.call_later(PARTING_SECONDS, self._part)

    def look(self, now: float) -> None:
        """Let a client go that takes too long, by what it is at."""
        if self._parts is None or self._deaf or self.transport.is_closing():
            return
        settings = self._parts.settings
        window = limits.STOPPING_SECONDS if self._closing else limits.WINDOW_SECONDS
        least = 1 if self._closing else settings.min_bytes_per_second * window
        over = now - self._window >= window
        if self.flow.write_paused:  # it does not read
            unsent = self.transport.get_write_buffer_size()
            if over and 0 <= self._unsent - unsent < least:
                self.abort()
            elif over:
                self._window, self._unsent = now, unsent
        elif self._is_receiving():
            if over and self._came < least and not self.flow.read_paused:
                got = f"{self._came} bytes in {now - self._window:.0f} s"
                self.refuse(TooSlow(f"expected a body to go on coming, got {got}"))
            elif over:
                self._window, self._came = now, 0
        elif self._is_beginning():
            if now - self._since > (window if self._closing else limits.HEAD_SECONDS):
                self.refuse(
                    TooSlow(f"expected a head within {limits.HEAD_SECONDS:g} s, got a part of it")
                )
        elif not self._is_busy() and (
            now - self._answered > settings.keep_alive
            if self._answered
            else now - self._since > limits.HEAD_SECONDS
        ):
            self.abort() if self.transport.get_write_buffer_size() else self.transport.close()

    def refuse(self, error: HourglassError) -> None:
        """Answer a request that is not read any further, and let its client go."""
        if self._parts is None or self._deaf or self.transport.is_closing():
            return
        if self._is_asked():
            if self.cycle.response_started:
                self.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        answers = self._parts.answers
        identity = Identity(answers.make_id())  # whatever the head, which may not be there, says
        with about(identity):
            refusal = refuse(error, "", "", self._parts.settings.root_path)
        self._parts.metrics.observe_rejection(refusal.reason)
        answers.answered(*identity, self.client, "other", "", "unmatched", refusal.status, 0.0)
        begin = begin_answer(
            refusal.status,
            refusal.media_type,
            self.server_state.default_headers,
            {**refusal.headers, REQUEST_ID.decode(): identity.request_id},
        )
        self.transport.write(b"%b%d\r\n%b\r\n%b" % (begin, len(refusal.body), CLOSE, refusal.body))
        self._linger()

    def abort(self) -> None:
        """End the connection at once; what was not sent is lost."""
        self._deaf = True
        if self.cycle is not None:
            self.cycle.disconnected = True
        self.transport.abort()

    def _take(self, data: bytes) -> None:
        """Take what comes when no request is being received."""
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Give uvicorn's parser the request that is being received, or the next one; hold the
        rest.
        """
        while data:
            if (boundary := self._boundary) is None:
                if self._is_asked() or self.flow.write_paused:
                    self._hold(data)
                    return
                if not (data := data.lstrip(b"\r\n")):
                    return
                boundary = self._boundary = limits.Boundary()
                self._begin_waiting(perf_counter())
            in_body = not boundary.in_head
            try:
                size = boundary.cut(data)
                self._came += size
                part = data[:size]
                if not (in_body or boundary.in_head) and boundary.asks_for_upgrade():
                    self.parser, part = _parser(self), boundary.head_without_upgrade()
                self._parse(part)
                boundary.require_agreement(self._boundary is None)
            except HourglassError as error:
                self.refuse(error)
                return
            data = data[size:]
            if data and in_body and self._boundary is not None:
                self._hold(data)
                self.loop.call_soon(self._release)  # many small chunks; others have their turn
                return

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # of CONNECT, which the app refuses
        except httptools.HttpParserError as error:
            raise MalformedRequest(f"the request is not HTTP/1.1: {error}") from error

    def _hold(self, data: bytes) -> None:
        self._held = data
        self._flow.holds = True
        self.flow.pause_reading()

    def _release(self) -> None:
        if (data := self._held) is not None and not self.transport.is_closing():
            self._held = None
            self._flow.holds = False
            self.flow.resume_reading()
            self._feed(data) if self._boundary is not None else self._take(data)
            self._end_if_last()

    def _end_if_last(self) -> None:
        """Once the client sends no more, end the connection behind the answers on their way."""
        if not self._eof or self._held is not None or self.transport.is_closing():
            return
        self._closing = True
        if self._boundary is None and self._is_asked():
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def _begin_waiting(self, now: float) -> None:
        """For what is lacking of a request."""
        self._window, self._came = now, 0
        if self._since <= self._answered:
            self._since = now

    def _is_asked(self) -> bool:
        """Whether the app has a request that is not answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _is_gone(self) -> bool:
        """Whether the client of the request that the app answers has gone."""
        return self.cycle.disconnected

    def _is_busy(self) -> bool:
        """Whether a request is being received, or waits for its answer."""
        return self._boundary is not None or self._held is not None or self._is_asked()

    def _is_receiving(self) -> bool:
        """Whether a part of a body is lacking."""
        return self._boundary is not None and not self._boundary.in_head

    def _is_beginning(self) -> bool:
        """Whether a part of a head is lacking."""
        return self._boundary is not None and self._boundary.in_head

    def _part(self) -> None:
        if not (self._is_busy() or self.transport.is_closing()):
            super().shutdown()

    def _linger(self) -> None:
        """Wait a while for the client to go: to close on bytes that nobody has read would take
        the answer from it.
        """
        self._deaf, self._held = True, None
        if self._eof:
            self.transport.close()
            return
        self._flow.holds = False
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(limits.LINGER_SECONDS, self.transport.abort)


class _Flow(FlowControl):
    """uvicorn's flow control: while bytes are held, what reads a body does not resume reading."""

    holds = False

    def resume_reading(self) -> None:
        if not self.holds:
            super().resume_reading()


def _parser(protocol: HttpToolsProtocol) -> httptools.HttpRequestParser:
    """A new one, as uvicorn makes it."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def begin_answer(
    status: int,
    content_type: str,
    headers: list[tuple[bytes, bytes]],
    own: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """An answer up to its length, as uvicorn writes it."""
    ours = {**own, "content-type": content_type}
    pairs = *headers, *[(name.lower().encode(), value.encode()) for name, value in ours.items()]
    lines = [b"%b: %b\r\n" % pair for pair in pairs]
    return b"".join([STATUS_LINE[status], *lines, b"content-length: "])
