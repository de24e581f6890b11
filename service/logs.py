"""Logs: which request a line is about, and what a line looks like.

A request has an id, its client's (x-request-id) or one that is made, which every answer gives back;
and may have a place in a trace, https://www.w3.org/TR/trace-context/. Bodies and queries are never
logged.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from hourglass.service.errors import printable

REQUEST_ID = b"x-request-id"
TRACEPARENT = b"traceparent"
# of which nothing needs escaping, in a line of either format or in a header
ID_PATTERN = rb"[A-Za-z0-9._~:/+=@-]{1,128}"
TRACEPARENT_PATTERN = rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_logger = logging.getLogger("hourglass.service")
_ID, _TRACEPARENT = re.compile(ID_PATTERN), re.compile(TRACEPARENT_PATTERN)


class Identity(NamedTuple):
    """What a request is known by; empty where its client does not say."""

    request_id: str = ""
    traceparent: str = ""

    def fields(self) -> dict[str, str]:
        """Of a line about it. The span is the client's, in which the request was made."""
        fields = {"request_id": self.request_id} if self.request_id else {}
        if self.traceparent:
            _, fields["trace_id"], fields["span_id"], _ = self.traceparent.split("-")
        return fields


_NOBODY = Identity()
_about: ContextVar[Identity] = ContextVar("about", default=_NOBODY)


def read_identity(headers: Iterable[tuple[bytes, bytes]]) -> Identity:
    """What these headers (names in lower case) say; what is too long or unsafe is as if it were
    not there.
    """
    request_id = traceparent = b""
    for name, value in headers:
        if name == REQUEST_ID and not request_id and _ID.fullmatch(value):
            request_id = value
        elif name == TRACEPARENT and not traceparent and _TRACEPARENT.fullmatch(value):
            traceparent = value
    return Identity(request_id.decode(), traceparent.decode())


@contextmanager
def about(identity: Identity) -> Iterator[None]:
    """Lines that are logged meanwhile, in this task or thread, are about this request."""
    token = _about.set(identity)
    try:
        yield
    finally:
        _about.reset(token)


class TextLines(logging.Formatter):
    """A line for a person. A traceback takes several."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """No message looks like two, whatever a path in it holds."""
        record.message = printable(record.message).replace("\n", "\\n")
        line = super().formatMessage(record)
        fields = " ".join(f"{name}={value}" for name, value in _about.get().fields().items())
        return f"{line} [{fields}]" if fields else line


class JSONLines(logging.Formatter):
    """One JSON object, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
            **_about.get().fields(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def timestamp(seconds: float) -> str:
    """RFC 3339, in UTC, to the millisecond."""
    whole = int(seconds)
    begin = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{begin}.{int((seconds - whole) * 1000):03}Z"


def configuration(format_: str, level: str) -> dict[str, Any]:
    """For logging.config.dictConfig; only __main__ asks for it."""
    lines = {"text": "TextLines", "json": "JSONLines"}[format_]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": f"{__name__}.{lines}"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"hourglass.service": {"level": level.upper()}},
    }


def warn(problem: str | None) -> None:
    """Of what is wrong, where something is."""
    if problem:
        announce(problem, logging.WARNING)


def announce(sentence: str, level: int = logging.INFO) -> None:
    """On stderr: for a person as it is, whatever the level; where the log is JSON as a line of
    it.
    """
    if any(isinstance(each.formatter, JSONLines) for each in logging.root.handlers):
        _logger.log(level, sentence)
    else:
        print(f"hourglass: {printable(sentence)}", file=sys.stderr, flush=True)
