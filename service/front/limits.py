"""Limits of the wire: where a request ends, how large its head may be, and how long its client may
take.
"""

import asyncio
import re
import time
from collections.abc import Collection, Iterable
from typing import Any

from hourglass.service.errors import HeadTooLarge, MalformedRequest, RequestLineTooLong

MAX_HEAD_BYTES = 2**16
MAX_FIELDS = 100
MAX_REQUEST_LINE_BYTES = 2**13
MAX_CHUNK_LINE_BYTES = 2**10  # a chunk's size and its extensions
# of a body in one turn of the event loop: a chunk may hold a single byte
CHUNKS_A_TURN = 256

HEAD_SECONDS = 10.0  # that a head may take, and the silence after a connection was made
WINDOW_SECONDS = 10.0  # over which a body's bytes, or an answer's, are counted
STOPPING_SECONDS = 2.0  # the same when the server ends
LINGER_SECONDS = 2.0  # for a client that is refused to read why
WATCH_SECONDS = 0.5  # between two looks at the connections

_UPGRADE = re.compile(rb"\nupgrade[ \t]*:", re.IGNORECASE)
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")


class Boundary:
    """Finds where a request ends, part by part as its bytes come.

    The parser behind it says what they mean; it says only how far they belong together, and
    refuses what is too long. A new one is made for each request.
    """

    __slots__ = (
        "_chunked",
        "_end",
        "_fields",
        "_head",
        "_left",
        "_line",
        "_trailer",
        "in_head",
        "read",
    )

    def __init__(self) -> None:
        self.in_head = True
        self.read = False  # the parser has read the head
        self._head = bytearray()
        self._fields = 0  # lines, of the head or of what follows the last chunk
        self._chunked = False
        self._left = 0  # of the body, or of a chunk and its line's end
        self._line = b""  # begun, of a chunk or behind the last one
        self._trailer = 0  # bytes
        self._end = False

    def cut(self, data: bytes) -> int:
        """How many of these bytes belong to the request's head, or once that is there to its
        body.
        """
        if self.in_head:
            return self._cut_head(data)
        if self._chunked:
            return self._cut_chunks(data)
        size = min(self._left, len(data))
        self._left -= size
        return size

    def begin_body(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """The head was read, and these are its fields, their names in lower case."""
        for name, value in headers:
            if name == b"transfer-encoding":
                self._chunked = True
            elif name == b"content-length":
                self._left = int(value)
        self._fields, self.read = 0, True

    def asks_for_upgrade(self) -> bool:
        """Whether the head, which is there, asks for another protocol: the parser would take its
        body for that.
        """
        return _UPGRADE.search(self._head) is not None

    def head_without_upgrade(self) -> bytes:
        """The head as of a client that does not ask: nobody has to follow (RFC 9110, 7.8)."""
        return _UPGRADE.sub(b"\nx-upgrade:", self._head)

    def require_agreement(self, complete: bool) -> None:
        """MalformedRequest where the parser, for which the request is complete or not, sees its
        parts end elsewhere: one of the two would take a body for a request.
        """
        at_end = not self.in_head and (self._end if self._chunked else self._left == 0)
        if self.in_head == self.read or at_end != complete:
            raise MalformedRequest("the request is not HTTP/1.1: its end is not where it should be")

    def _cut_head(self, data: bytes) -> int:
        seen = len(self._head)
        self._head += data[: MAX_HEAD_BYTES + 4 - seen]
        end = self._head.find(b"\r\n\r\n", max(0, seen - 3))
        size = end + 4 - seen if end >= 0 else len(data)
        self._fields += data.count(b"\n", 0, size)
        line = self._head.find(b"\n", 0, MAX_REQUEST_LINE_BYTES + 2)
        if line < 0 and len(self._head) > MAX_REQUEST_LINE_BYTES:
            raise RequestLineTooLong(
                f"expected a request line of at most {MAX_REQUEST_LINE_BYTES} bytes, got more"
            )
        self._require_small(seen + size, self._fields - (2 if end >= 0 else 1))
        if end >= 0:
            self.in_head = False
            del self._head[end + 4 :]
        return size

    def _cut_chunks(self, data: bytes) -> int:
        at, size, chunks = 0, len(data), 0
        while at < size and not self._end and chunks < CHUNKS_A_TURN:
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
                continue
            end = data.find(b"\n", at) + 1 or size
            self._line += data[at : min(end, at + MAX_HEAD_BYTES)]
            at = end
            complete = self._line.endswith(b"\n")
            if self._trailer:
                self._take_trailer(complete)
            else:
                self._take_size(complete)
            if complete:
                self._line = b""
                chunks += 1
        return at

    def _take_size(self, complete: bool) -> None:
        if len(self._line) > MAX_CHUNK_LINE_BYTES:
            raise HeadTooLarge(
                "expected a chunk's size and extensions in at most"
                f" {MAX_CHUNK_LINE_BYTES} bytes, got more"
            )
        if not complete:
            return
        if (digits := _SIZE.match(self._line)) is None:
            raise MalformedRequest("expected the size of a chunk, in hexadecimal digits")
        if size := int(digits[0], 16):
            self._left = size + 2
        else:
            self._trailer = 1

    def _take_trailer(self, complete: bool) -> None:
        self._require_small(self._trailer + len(self._line), self._fields)
        if complete:
            self._end = self._line == b"\r\n"
            self._trailer += len(self._line)
            self._fields += 1

    @staticmethod
    def _require_small(size: int, fields: int) -> None:
        if size > MAX_HEAD_BYTES:
            raise HeadTooLarge(f"expected a head of at most {MAX_HEAD_BYTES} bytes, got more")
        if fields > MAX_FIELDS:
            raise HeadTooLarge(f"expected at most {MAX_FIELDS} fields in a head, got more")


def watch(connections: Collection[Any], loop: asyncio.AbstractEventLoop) -> None:
    """Look at every Connection from now on: one clock for all of them, so that an answer sets no
    timer.
    """
    now = time.perf_counter()
    for connection in list(connections):
        connection.look(now)
    loop.call_later(WATCH_SECONDS, watch, connections, loop)
