"""Batcher: what arrives together is scored together, in one run of the model, without waiting for more."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.detector import Scores
from service.metrics import Metrics
from service.registry import Served

Float32 = NDArray[np.float32]
T = TypeVar("T")


class _Waiter(NamedTuple):
    rows_ND: Float32
    answer: "asyncio.Future[Scores]"


class Batcher:
    """Collects the requests of one turn of the event loop. Small batches are scored on the loop, larger ones in one thread."""

    def __init__(self, metrics: Metrics, *, inline_cells: int) -> None:
        self._metrics, self._inline_cells = metrics, inline_cells
        self._waiting: dict[Served, list[_Waiter]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scoring")

    async def score(self, served: Served, rows_ND: Float32) -> Scores:
        """The scores of these rows [N, D], by this very model."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush, loop)
        waiter = _Waiter(rows_ND, loop.create_future())
        self._waiting.setdefault(served, []).append(waiter)
        return await waiter.answer

    async def run(self, cells: int, work: Callable[[], T]) -> T:
        """Any other work on so many cells: at once when it is little, else in the thread."""
        if cells <= self._inline_cells:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """End the thread, once what it does is done."""
        self._thread.shutdown()

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting, self._waiting = self._waiting, {}
        for served, waiters in waiting.items():
            work = partial(_score_together, served, waiters)
            if sum(waiter.rows_ND.size for waiter in waiters) <= self._inline_cells:
                self._answer(served, waiters, work)
            else:
                run = loop.run_in_executor(self._thread, work)
                run.add_done_callback(partial(self._answer_done, served, waiters))

    def _answer_done(self, served: Served, waiters: list[_Waiter], run: "asyncio.Future[_Run]") -> None:
        self._answer(served, waiters, run.result)

    def _answer(self, served: Served, waiters: list[_Waiter], result: "Callable[[], _Run]") -> None:
        """Give each waiter its part of the result, or the error that came instead: nobody waits for ever."""
        try:
            scores, seconds = result()
            self._metrics.observe_scores(served, scores, seconds)
        except Exception as error:
            for waiter in waiters:
                if not waiter.answer.done():
                    waiter.answer.set_exception(error)
            return
        start = 0
        for rows_ND, answer in waiters:
            end = start + len(rows_ND)
            if not answer.done():  # else its client has gone
                answer.set_result(Scores(scores.score[start:end], scores.p_value[start:end]))
            start = end


class _Run(NamedTuple):
    scores: Scores
    seconds: float


def _score_together(served: Served, waiters: list[_Waiter]) -> _Run:
    rows = [waiter.rows_ND for waiter in waiters]
    rows_ND = rows[0] if len(rows) == 1 else np.concatenate(rows)
    started = time.perf_counter()
    scores = served.detector.score(rows_ND)
    return _Run(scores, time.perf_counter() - started)
