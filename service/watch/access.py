"""Access log: one line for each answer, of the ordinary way and of the fast path.

A line through Python's logging costs as much as half a score. So what lines need is kept, and a
thread writes those of a tenth of a second at once.
"""

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from hourglass.service.errors import printable

WRITE_SECONDS = 0.1
MOST_WAITING = 2**16  # lines that nobody takes, before further ones are lost
PIPE_BYTES = 4096  # that a pipe takes without bytes of other processes among them
_MOST_TEMPLATES = 1024  # remembered
_logger = logging.getLogger(__name__)

# when (seconds since 1970), request id, traceparent, client, method, path, route template, status,
# seconds until the answer
Answered = tuple[float, str, str, tuple[str, int] | None, str, str, str, int, float]


class AccessLog:
    """Lines for answers, written by a thread: an output that nobody reads holds up no score."""

    def __init__(
        self, format_: Literal["text", "json"], write: Callable[[str], object] | None = None
    ) -> None:
        self._json = format_ == "json"
        self._write = write or _write_to_stderr
        self._kept: list[Answered] = []
        self.add = self._kept.append
        # each counted by one thread alone: lines taken, those of them lost, and those that are done
        self._taken = self._lost = self._done = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="access")
        self._templates: dict[tuple[str, str, str, str], str] = {}
        self._second, self._second_text = 0, ""

    async def clock(self) -> None:
        """Write behind, until it is cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            self.flush()

    def flush(self) -> None:
        """Have written what was kept."""
        if not self._kept:
            return
        answers, lost = self._kept[:], self._lost
        self._kept.clear()
        if self._taken - self._done + len(answers) > MOST_WAITING:
            self._lost += len(answers)
            return
        self._lost = 0
        self._taken += len(answers)
        self._thread.submit(self._write_lines, answers, lost)

    def close(self) -> None:
        """Write what there is, and end."""
        self.flush()
        self._thread.shutdown()

    def _write_lines(self, answers: list[Answered], lost: int) -> None:
        """In the thread."""
        try:
            if lost:
                _logger.warning("%d lines of the access log were lost: nobody took them", lost)
            text = "".join([self._line(*each) for each in answers])
            at = 0
            while at < len(text):
                end = len(text)
                if end - at > PIPE_BYTES:
                    end = text.rfind("\n", at, at + PIPE_BYTES) + 1 or text.find("\n", at) + 1
                self._write(text[at:end])
                at = end
        finally:
            self._done += len(answers)

    def _line(
        self,
        at: float,
        request_id: str,
        traceparent: str,
        client: tuple[str, int] | None,
        method: str,
        path: str,
        route: str,
        status: int,
        seconds: float,
    ) -> str:
        asked = client[0] if client else "", method, path, route
        if (template := self._templates.get(asked)) is None:
            if len(self._templates) >= _MOST_TEMPLATES:
                self._templates.clear()
            template = self._templates[asked] = self._template(*asked)
        second = int(at)
        if second != self._second:
            self._second, self._second_text = second, self._say_second(second)
        trace = self._say_trace(traceparent) if traceparent else ""
        milliseconds = int((at - second) * 1000)
        return template % (self._second_text, milliseconds, status, seconds, request_id, trace)

    def _template(self, client: str, method: str, path: str, route: str) -> str:
        """All of a line but what differs between two answers to the same question."""
        if self._json:
            asked = json.dumps({"client": client, "method": method, "path": path, "route": route})
            return (
                '{"time": "%s.%03dZ", "level": "info", "logger": "hourglass.access", '
                f'{asked[1:-1].replace("%", "%%")}, "pid": {os.getpid()}, '
                '"status": %d, "seconds": %.6f, "request_id": "%s"%s}\n'
            )
        shown = printable(f"{client or '-'} {method} {path}").replace("\n", "\\n")
        return (
            f"%s,%03d INFO hourglass.access: {shown.replace('%', '%%')}"
            " %d in %.6f s [request_id=%s%s]\n"
        )

    def _say_second(self, second: int) -> str:
        if self._json:
            return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))

    def _say_trace(self, traceparent: str) -> str:
        _, trace, span, _ = traceparent.split("-")
        if self._json:
            return f', "trace_id": "{trace}", "span_id": "{span}"'
        return f" trace_id={trace} span_id={span}"


def _write_to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
