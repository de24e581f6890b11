"""Patience: work in one thread that nobody has to wait for, should it hang.

A folder of models may lie on a file system that stops answering, and a model may take for ever to
load. What waits in line behind such work is given to another thread after a second, what takes too
long is let go, and neither holds up the end of the process.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE_SECONDS = 1.0  # in line behind other work


class Hanging(Exception):
    """The work is not done in time; `work` is what it comes to, should it ever end."""

    def __init__(self, work: "Future[Any]") -> None:
        super().__init__("not done in time")
        self.work = work


class PatientThread:
    """Always the same thread, while nothing hangs: each thread has its own part of the heap, and
    every one would keep the room that a load took.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._line: _Line | None = None

    async def run(self, work: Callable[[], T], *, seconds: float) -> T:
        """What the work comes to; Hanging where it takes longer than so many seconds."""
        done = (line := self._current()).put(work)
        if not await _is_done(done, PATIENCE_SECONDS):
            if done.cancel():  # it has not begun
                self._let_go(line)
                done = (line := self._current()).put(work)
            if not await _is_done(done, seconds - PATIENCE_SECONDS):
                self._let_go(line)
                raise Hanging(done)
        return done.result()

    def close(self, *, seconds: float) -> None:
        """Wait so long for what is being done."""
        if self._line is not None:
            self._line.close()
            self._line.thread.join(seconds)
            self._line = None

    def _current(self) -> "_Line":
        if self._line is None:
            self._line = _Line(self._name)
        return self._line

    def _let_go(self, line: "_Line") -> None:
        """Have no more work done in that thread, which ends with what it does."""
        line.close()
        if self._line is line:
            self._line = None


async def _is_done(done: "Future[Any]", seconds: float) -> bool:
    """Whether it is, after so long at most; what it comes to is not taken."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def tell(_: object) -> None:
        with suppress(RuntimeError):  # the loop may have ended
            loop.call_soon_threadsafe(told.set)

    done.add_done_callback(tell)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await told.wait()
    return done.done()


class _Line:
    """Work in line before one thread, which the process does not wait for when it ends."""

    def __init__(self, name: str) -> None:
        self._waiting: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.thread.start()

    def put(self, work: Callable[[], T]) -> "Future[T]":
        done: Future[T] = Future()
        self._waiting.put((done, work))
        return done

    def close(self) -> None:
        self._waiting.put(None)

    def _work(self) -> None:
        while (given := self._waiting.get()) is not None:
            done, work = given
            if done.set_running_or_notify_cancel():
                try:
                    done.set_result(work())
                except BaseException as error:
                    done.set_exception(error)
            del given, done, work  # a model that was swapped out would stay until the next one
