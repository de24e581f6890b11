"""Batcher: requests that one turn of the event loop reads are scored in one run of the model.

It is the one scoring path, of the routes and of the protocol in front of them: body -> decoding ->
detector.score -> encoding -> observers. The event loop itself does what small requests need, since
handing it to a thread would cost more than doing it. A request to a windowed model, whose rows are
in order, has runs of its own.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import NamedTuple, Protocol, TypeVar, cast

import numpy as np

from hourglass.service.errors import InvalidRow
from hourglass.service.machine import heap
from hourglass.service.model.detector import Scores
from hourglass.service.model.served import Served
from hourglass.service.rows import decoding, encoding, ordered
from hourglass.service.rows.decoding import Body, Cells, Float32
from hourglass.service.rows.ordered import Ordered, Run
from hourglass.service.serving.observers import Observers

T = TypeVar("T")
INLINE_SECONDS = 0.001  # that scoring may hold up the event loop
OBSERVED_AT_ONCE = 100  # stretches, of which each takes some microseconds


class Waiter(Protocol):
    """Who waits for an answer: a future, or a request on a connection."""

    def set_result(self, result: bytes, /) -> None: ...
    def set_exception(self, error: Exception, /) -> None: ...


class Batcher:
    """Collects the requests of a turn of the event loop.

    Small batches are scored on the loop, larger ones in one thread; long work of another kind has a
    thread of its own, so that scores do not wait for it.
    """

    def __init__(self, observers: Observers, *, inline_cells: int, max_rows: int) -> None:
        self._observers, self._max_rows = observers, max_rows
        self._inline_cells, self._scored_cells = inline_cells, 16 * inline_cells
        # a number's JSON has to be parsed
        self._json_bytes, self._raw_bytes = (
            4 * inline_cells,
            4 * self._scored_cells,
        )
        self._waiting: dict[_Kind, _Batch] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scoring")
        self._long_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="long work")

    async def score(self, served: Served, rows_ND: Float32) -> Scores:
        """The scores of these rows [N, D], by this very model."""
        answer: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()
        batch = self._batch((served, False))
        batch.parts.append((answer, *batch.add(rows_ND, gap=True)))
        return await answer

    async def answer(
        self, served: Served, body: Body, content_type: str, *, raw: bool = False
    ) -> bytes:
        """The answer to a score request, by this very model; an error that says what is wrong with
        the body otherwise.

        It is JSON, or mere numbers if it is to be raw.
        """
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.ask(served, body, content_type, answer, raw=raw)
        return await answer

    def ask(
        self,
        served: Served,
        body: Body,
        content_type: str,
        waiter: Waiter,
        *,
        raw: bool = False,
        alone: bool = False,
    ) -> bool:
        """The same for whoever waits; whether it takes the thread, and with it some time.

        What is wrong with a small body is raised. `alone`: nobody else seems to ask, so that one
        row without a gap is answered at once, not at the end of the turn.
        """
        large = len(body) > (self._raw_bytes if content_type == decoding.RAW else self._json_bytes)
        if served.detector.window > 1:
            return self._ask_in_order((served, raw), body, content_type, waiter, large=large)
        if large:
            self._ask_thread((served, raw), body, content_type, waiter)
            return True
        cells, gap = decoding.decode_cells(
            body, content_type, served.schema, max_rows=self._max_rows
        )
        alone = alone and not (gap or raw or self._waiting) and self._most_rows(served) >= 1
        if alone and type(cells) is bytes and len(cells) == 4 * served.schema.width:
            self._answer_alone(served, cells, waiter)
            return False
        kind = served, raw
        batch = self._waiting.get(kind) or self._batch(kind)
        batch.spans.append(batch.add(cells, gap))
        batch.waiters.append(waiter)
        if 2 * batch.count > batch.most:
            # with as many again it would have to go to the thread
            self._start(self._waiting.pop(kind))
        return False

    async def run(self, cells: int, work: Callable[[], T]) -> T:
        """Any other work on so many cells: at once when it is little, in the thread of scores when
        it is short, else in the other.
        """
        if cells <= self._inline_cells:
            return work()
        thread = self._thread if cells <= self._scored_cells else self._long_thread
        return await asyncio.get_running_loop().run_in_executor(thread, work)

    def discard(self, *buffers: Body | Float32) -> None:
        """Free what nobody reads any more, beside the event loop where it is large."""
        for buffer in filter(heap.is_large, buffers):
            asyncio.get_running_loop().run_in_executor(None, heap.empty, buffer)

    def close(self) -> None:
        """End the threads, once what they do is done."""
        self._thread.shutdown()
        self._long_thread.shutdown()

    def _batch(self, kind: "_Kind") -> "_Batch":
        if (batch := self._waiting.get(kind)) is None:
            if not self._waiting:
                asyncio.get_running_loop().call_soon(self._flush)
            batch = self._waiting[kind] = _Batch(*kind, self._most_rows(kind[0]))
        return batch

    def _most_rows(self, served: Served) -> float:
        """That the event loop may score at once."""
        return (
            min(self._scored_cells, INLINE_SECONDS / served.detector.cell_seconds)
            / served.schema.width
        )

    def _ask_thread(self, kind: "_Kind", body: Body, content_type: str, waiter: Waiter) -> None:
        """A large body, alone: parsing it would stop the loop for everybody."""

        def work() -> _Run:
            cells, gap = decoding.decode_cells(
                body, content_type, kind[0].schema, max_rows=self._max_rows
            )
            batch = _Batch(*kind, math.inf)
            batch.spans.append(batch.add(cells, gap))
            return batch.run()

        def finish(run: "asyncio.Future[_Run]") -> None:
            self._finish(kind[0], run.result, [waiter], [])
            self.discard(body)

        asyncio.get_running_loop().run_in_executor(self._thread, work).add_done_callback(finish)

    def _ask_in_order(
        self, kind: "_Kind", body: Body, content_type: str, waiter: Waiter, *, large: bool
    ) -> bool:
        """Rows of a windowed model; whether it takes the thread."""
        served, raw = kind

        def read() -> Ordered:
            return ordered.decode_ordered(
                body, content_type, served.schema, max_rows=self._max_rows
            )

        def answer(came: Ordered) -> _OrderedRun:
            runs = ordered.score_in_order(served, came)
            spread = ordered.spread(served, came, runs)
            return came.rows_ND, runs, encoding.encode_in_order(served, spread, raw=raw)

        def finish(result: "Callable[[], _OrderedRun]") -> None:
            try:
                rows_ND, runs, encoded = result()
            except Exception as error:
                _tell(waiter, error)
                error.__traceback__ = None  # as in _finish
                self.discard(body)
                return
            _tell(waiter, encoded)
            told = chain.from_iterable(run.apart() for run in runs)
            self._observe(served, told, body, rows_ND)

        if not large:
            came = read()
            if len(came.rows_ND) <= self._most_rows(served):
                finish(lambda: answer(came))
                return False
        loop = asyncio.get_running_loop()
        run = loop.run_in_executor(self._thread, lambda: answer(read() if large else came))
        run.add_done_callback(lambda done: finish(done.result))
        return True

    def _observe(
        self,
        served: Served,
        told: "Iterator[tuple[Float32, Scores, float, str | None]]",
        *buffers: Body | Float32,
    ) -> None:
        """Tell of stretches, which may be tens of thousands: some in each turn of the loop."""
        for place, each in enumerate(told, 1):
            self._observers.scored(served, *each)
            if place == OBSERVED_AT_ONCE:
                asyncio.get_running_loop().call_soon(self._observe, served, told, *buffers)
                return
        self.discard(*buffers)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for batch in waiting.values():
            self._start(batch)

    def _start(self, batch: "_Batch") -> None:
        if batch.count <= batch.most:
            self._finish(batch.served, batch.run, batch.waiters, batch.parts)
        else:
            run = asyncio.get_running_loop().run_in_executor(self._thread, batch.run)
            run.add_done_callback(partial(self._finish_done, batch))

    def _answer_alone(self, served: Served, cells: bytes, waiter: Waiter) -> None:
        rows_ND = decoding.as_rows(cells, served.schema.width)
        try:
            started = time.perf_counter()
            scores = served.detector.score(rows_ND, gapless=True)
            seconds = time.perf_counter() - started
            (answer,) = encoding.encode_each(served, scores, [(0, 1)])
        except Exception as error:
            _tell(waiter, error)
            return
        _tell(waiter, answer)
        self._observers.scored(served, rows_ND, scores, seconds)

    def _finish_done(self, batch: "_Batch", run: "asyncio.Future[_Run]") -> None:
        self._finish(batch.served, run.result, batch.waiters, batch.parts)

    def _finish(
        self,
        served: Served,
        result: "Callable[[], _Run]",
        waiters: list[Waiter],
        parts: "list[_Part]",
    ) -> None:
        """Give each waiter its part of the result, or the error that came instead: nobody waits for
        ever.
        """
        try:
            rows_ND, scores, seconds, encoded = result()
            answers: Sequence[bytes | Exception] = encoded
        except Exception as error:
            for future, _, _ in parts:
                if not future.done():
                    future.set_exception(error)
            for each in waiters:
                _tell(each, error)
            # the frames that it went through hold the body, and it itself, in a circle
            error.__traceback__ = None
            return
        for each, answer in zip(waiters, answers, strict=True):
            _tell(each, answer)
        for future, start, end in parts:
            if not future.done():
                future.set_result(Scores(*(each[start:end] for each in scores)))
        self._observers.scored(served, rows_ND, scores, seconds)
        if not parts:  # who asked for mere scores has the rows
            self.discard(rows_ND)


def _tell(waiter: Waiter, answer: bytes | Exception) -> None:
    try:
        if isinstance(answer, bytes):
            waiter.set_result(answer)
        else:
            waiter.set_exception(answer)
    except asyncio.InvalidStateError:
        pass  # a future whose client has gone


_Kind = tuple[Served, bool]  # of batch: the model, and whether its answers are raw
_OrderedRun = tuple[Float32, list[Run], bytes]  # all rows, those that were scored, the answer
_Part = tuple["asyncio.Future[Scores]", int, int]


class _Run(NamedTuple):
    rows_ND: Float32
    scores: Scores
    seconds: float  # of the model alone
    answers: list[bytes | InvalidRow]


class _Batch:
    """What one model is asked together: rows one below the other, and who wants which of them."""

    __slots__ = (
        "_gap",
        "_row_bytes",
        "cells",
        "count",
        "most",
        "parts",
        "raw",
        "served",
        "spans",
        "waiters",
    )

    def __init__(self, served: Served, raw: bool, most: float) -> None:
        self.served, self.raw = served, raw
        # rows: those that there are, and those that the event loop may score
        self.count, self.most = (
            0,
            most,
        )
        self._gap = False
        self._row_bytes = 4 * served.schema.width
        self.cells: list[Cells] = []
        self.waiters: list[Waiter] = []  # of whole answers
        self.spans: list[
            tuple[int, int]
        ] = []  # of each waiter, its first row and the one after its last
        self.parts: list[_Part] = []  # of mere scores

    def add(self, cells: Cells, gap: bool) -> tuple[int, int]:
        """The rows' place.

        Where there is a gap, or may be, all of them will be looked through for it.
        """
        self._gap = self._gap or gap
        start = self.count
        self.count = end = start + (
            len(cells) // self._row_bytes if type(cells) is bytes else len(cells)
        )
        self.cells.append(cells)
        return start, end

    def run(self) -> _Run:
        rows_ND = self._rows()
        started = time.perf_counter()
        scores = self.served.detector.score(rows_ND, gapless=not self._gap)
        seconds = time.perf_counter() - started
        return _Run(
            rows_ND,
            scores,
            seconds,
            encoding.encode_each(self.served, scores, self.spans, raw=self.raw),
        )

    def _rows(self) -> Float32:
        first = self.cells[0]
        if len(self.cells) > 1:
            return decoding.as_rows(
                b"".join(cast("list[bytes]", self.cells)), self.served.schema.width
            )
        return (
            first
            if isinstance(first, np.ndarray)
            else decoding.as_rows(first, self.served.schema.width)
        )
