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
_MOST_QUESTIONS = 1024  # remembered
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
        self._questions: dict[tuple[str, str, str, int], str] = {}
        self._tick, self._begin = -1, ""  # a millisecond, and how lines of it begin
        if self._json:
            self._unit, self._end = 'e-6, "request_id": "', '"}\n'
        else:
            self._unit, self._end = " us [request_id=", "]\n"

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
            text = "".join(self._lines(answers))
            at = 0
            while at < len(text):
                end = len(text)
                if end - at > PIPE_BYTES:
                    end = text.rfind("\n", at, at + PIPE_BYTES) + 1 or text.find("\n", at) + 1
                self._write(text[at:end])
                at = end
        finally:
            self._done += len(answers)

    def _lines(self, answers: list[Answered]) -> list[str]:
        """All that lines of one millisecond, or to the same question, have in common is written
        once.
        """
        lines, known, unit, end = [], self._questions, self._unit, self._end
        for at, request_id, traceparent, client, method, path, route, status, seconds in answers:
            if (tick := int(at * 1000)) != self._tick:
                self._tick, self._begin = tick, self._say_when(*divmod(tick, 1000))
            question = method, path, route, status
            said = known.get(question) or self._say_question(*question)
            who = client[0] if client else ""
            trace = self._say_trace(traceparent) if traceparent else ""
            microseconds = int(seconds * 1e6)
            lines.append(f"{self._begin}{who}{said}{microseconds}{unit}{request_id}{trace}{end}")
        return lines

    def _say_when(self, second: int, milliseconds: int) -> str:
        if self._json:
            when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            begin = f'{{"time": "{when}.{milliseconds:03}Z", "level": "info"'
            return f'{begin}, "logger": "hourglass.access", "pid": {os.getpid()}, "client": "'
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{when},{milliseconds:03} INFO hourglass.access: "

    def _say_question(self, method: str, path: str, route: str, status: int) -> str:
        if self._json:
            fields = {"method": method, "path": path, "route": route, "status": status}
            said = f'", {json.dumps(fields)[1:-1]}, "seconds": '
        else:
            said = printable(f" {method} {path} {status} in ").replace("\n", "\\n")
        if len(self._questions) >= _MOST_QUESTIONS:
            self._questions.clear()
        self._questions[method, path, route, status] = said
        return said

    def _say_trace(self, traceparent: str) -> str:
        _, trace, span, _ = traceparent.split("-")
        if self._json:
            return f'", "trace_id": "{trace}", "span_id": "{span}'
        return f" trace_id={trace} span_id={span}"


def _write_to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
