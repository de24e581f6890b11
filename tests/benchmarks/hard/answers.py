"""Answers, taken off a stream of bytes."""

import re
from typing import NamedTuple

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_PROBLEM = re.compile(rb"\r\ncontent-type: *application/problem\+json", re.IGNORECASE)


class Answer(NamedTuple):
    status: int
    head: bytes
    body: bytes

    @property
    def closes(self) -> bool:
        return _CLOSES.search(self.head) is not None

    @property
    def is_problem(self) -> bool:
        return _PROBLEM.search(self.head) is not None


class NoAnswer(Exception):
    """What came is none."""


def take_answer(received: bytearray, method: str, *, ended: bool = False) -> Answer | None:
    """The first whole answer, which is taken out; None if it is not there yet. Those of 1xx, which
    announce another, are passed over.
    """
    while (end := received.find(b"\r\n\r\n") + 4) >= 4:
        head = bytes(received[:end])
        if not head.startswith(b"HTTP/1."):
            raise NoAnswer(head[:100])
        status = int(head[9:12])
        if status < 200:
            del received[:end]
            continue
        if method == "HEAD" or status in (204, 304):
            size, body = end, b""
        elif found := _LENGTH.search(head):
            size = end + int(found[1])
            if len(received) < size:
                return None
            body = bytes(received[end:size])
        elif _CHUNKED.search(head):
            if (size := received.find(b"\r\n0\r\n\r\n", end) + 7) < 7:
                return None
            body = bytes(received[end:size])
        elif ended:
            size, body = len(received), bytes(received[end:])
        else:
            return None
        del received[:size]
        return Answer(status, head, body)
    return None
