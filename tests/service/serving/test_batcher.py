"""The batcher: what arrives together is scored together, and everyone gets their own rows back."""

import asyncio
import gc
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hourglass.service.errors import InvalidJSON, InvalidRow
from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema
from hourglass.service.model.served import Served
from hourglass.service.rows import decoding
from hourglass.service.rows.decoding import JSON
from hourglass.service.serving.batcher import Batcher
from hourglass.service.serving.observers import Observers
from hourglass.service.serving.registry import Registry
from hourglass.service.serving.store import Store
from hourglass.service.watch.metrics import Metrics
from tests.artifacts import NUMERIC, make_artifact, sample_rows


class Watched:
    """A detector that notes the batches it is given, and the threads it runs in."""

    def __init__(self, detector: Detector, error: Exception | None = None) -> None:
        self.detector, self.version, self.error = detector, detector.version, error
        self.manifest, self.table = detector.manifest, detector.table
        self.cell_seconds = 1e-9
        self.batches: list[int] = []
        self.threads: set[threading.Thread] = set()

    def score(self, rows_ND, *, gapless=False):
        self.batches.append(len(rows_ND))
        self.threads.add(threading.current_thread())
        if self.error:
            raise self.error
        return self.detector.score(rows_ND, gapless=gapless)


def served(shift: float = 0.0, error: Exception | None = None) -> Served:
    detector = Detector.from_bytes(make_artifact(shift=shift))
    return Served(
        "pump", Watched(detector, error), Schema.of(detector.manifest), detector.threshold, 0.0
    )


def batcher(inline_cells: int = 10_000) -> Batcher:
    registry = Registry(Store(Path("nowhere")), threads=1, max_bytes=1)
    observers = Observers([Metrics(registry, shared=False)])
    return Batcher(observers, inline_cells=inline_cells, max_rows=100)


def gather(batcher: Batcher, *requests):
    async def all_at_once():
        return await asyncio.gather(
            *(batcher.score(*request) for request in requests), return_exceptions=True
        )

    try:
        return asyncio.run(all_at_once())
    finally:
        batcher.close()


REQUESTS = [sample_rows(NUMERIC, n, seed=n) for n in (1, 3, 2, 5)]


@pytest.mark.parametrize("inline_cells", [10_000, 0])
def test_requests_of_one_turn_are_one_run_and_each_gets_its_own_rows(inline_cells):
    model = served()
    answers = gather(batcher(inline_cells), *((model, rows_ND) for rows_ND in REQUESTS))
    assert model.detector.batches == [11]
    for rows_ND, answer in zip(REQUESTS, answers, strict=True):
        expected = model.detector.detector.score(rows_ND)
        np.testing.assert_allclose(answer.score, expected.score, rtol=1e-6)
        np.testing.assert_array_equal(answer.p_value, expected.p_value)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("gaps", "batches"), [([0, 0, 0, 0], [11]), ([0, 0, 0, 3], [6, 5]), ([0, 4, 0, 0], [1, 10])]
)
def test_requests_of_one_turn_are_one_run_and_those_of_a_later_turn_another(gaps, batches):
    model, batching = served(), batcher()

    async def one_by_one():
        tasks = []
        for gap, rows_ND in zip(gaps, REQUESTS, strict=True):
            await turns(gap)
            tasks.append(asyncio.create_task(batching.score(model, rows_ND)))
        return await asyncio.gather(*tasks)

    answers = asyncio.run(one_by_one())
    batching.close()
    assert model.detector.batches == batches
    for rows_ND, answer in zip(REQUESTS, answers, strict=True):
        np.testing.assert_allclose(
            answer.score, model.detector.detector.score(rows_ND).score, rtol=1e-6
        )


@pytest.mark.parametrize("inline_cells", [10_000, 0])
def test_requests_that_took_different_models_are_never_scored_together(inline_cells):
    old, new = served(), served(shift=3)
    changed = replace(old, threshold=new.threshold)
    answers = gather(
        batcher(inline_cells), *((model, REQUESTS[3]) for model in (old, new, changed, old))
    )
    assert (old.detector.batches, new.detector.batches) == ([10, 5], [5])
    for model, answer in zip((old, new, old, old), answers, strict=True):
        np.testing.assert_allclose(
            answer.score, model.detector.detector.score(REQUESTS[3]).score, rtol=1e-6
        )


def test_small_batches_run_on_the_loop_and_large_ones_beside_it():
    small, large = served(), served()
    gather(batcher(inline_cells=2), (small, REQUESTS[3]))  # 20 cells
    gather(batcher(inline_cells=1), (large, REQUESTS[3]))
    assert small.detector.threads == {threading.main_thread()}
    assert threading.main_thread() not in large.detector.threads


def test_a_slow_model_runs_beside_the_loop_however_few_its_rows():
    slow = served()
    slow.detector.cell_seconds = 0.0001
    gather(batcher(), (slow, REQUESTS[3]))
    assert threading.main_thread() not in slow.detector.threads


def test_a_batch_that_as_much_again_would_drive_off_the_loop_is_scored_at_once():
    model, batching = served(), batcher(inline_cells=2)  # scores up to 32 cells, 8 rows

    async def all_at_once():
        bodies = [rows_ND.tobytes() for rows_ND in (*REQUESTS, REQUESTS[3])]
        return await asyncio.gather(
            *(batching.answer(model, body, decoding.RAW) for body in bodies)
        )

    answers = asyncio.run(all_at_once())
    batching.close()
    assert sorted(model.detector.batches) == [5, 5, 6]  # 1 and 3 and 2 rows, 5, 5
    for answer, rows_ND in zip(answers, (*REQUESTS, REQUESTS[3]), strict=True):
        expected = model.detector.detector.score(rows_ND).score
        np.testing.assert_allclose(json.loads(answer)["score"], expected, rtol=1e-6)


@pytest.mark.parametrize("inline_cells", [10_000, 0])
def test_an_error_answers_everyone_who_waits(inline_cells):
    error = RuntimeError("out of memory")
    model = served(error=error)
    assert gather(batcher(inline_cells), *((model, rows_ND) for rows_ND in REQUESTS)) == [error] * 4


@pytest.mark.parametrize("inline_cells", [10_000, 0])
def test_a_client_that_goes_takes_nothing_from_the_others(inline_cells):
    model, batching = served(), batcher(inline_cells)

    async def one_goes():
        tasks = [asyncio.create_task(batching.score(model, rows_ND)) for rows_ND in REQUESTS]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(one_goes())
    batching.close()
    assert isinstance(answers[1], asyncio.CancelledError)
    for n in (0, 2, 3):
        np.testing.assert_allclose(
            answers[n].score, model.detector.detector.score(REQUESTS[n]).score, rtol=1e-6
        )


def body_of(rows_ND) -> bytes:
    return json.dumps({"rows": rows_ND.tolist()}).encode()


@pytest.mark.parametrize("inline_cells", [10_000, 0])
def test_scores_and_whole_answers_are_one_run_unless_a_body_is_large(inline_cells):
    model, batching = served(), batcher(inline_cells)

    async def all_at_once():
        asked = (batching.answer(model, body_of(rows_ND), JSON) for rows_ND in REQUESTS[:3])
        return await asyncio.gather(
            batching.score(model, REQUESTS[3]), *asked, batching.score(model, REQUESTS[0])
        )

    first, *answers, last = asyncio.run(all_at_once())
    batching.close()
    assert sorted(model.detector.batches) == ([12] if inline_cells else [1, 2, 3, 6])
    expected = [model.detector.detector.score(rows_ND) for rows_ND in REQUESTS]
    np.testing.assert_allclose(first.score, expected[3].score, rtol=1e-6)
    np.testing.assert_allclose(last.score, expected[0].score, rtol=1e-6)
    for answer, scores in zip(answers, expected, strict=False):
        np.testing.assert_allclose(json.loads(answer)["score"], scores.score, rtol=1e-6)


class Waiter:
    """One that notes its answer."""

    def __init__(self) -> None:
        self.answer: bytes | Exception | None = None
        self.answered = asyncio.Event()

    def set_result(self, result: bytes) -> None:
        self.answer = result
        self.answered.set()

    set_exception = set_result


def test_who_asks_alone_for_one_row_is_answered_at_once_and_as_in_company():
    model, batching, body = served(), batcher(), body_of(REQUESTS[0])

    async def ask():
        alone = Waiter()
        assert not batching.ask(model, body, JSON, alone, alone=True)
        assert alone.answer is not None
        assert alone.answer == await batching.answer(model, body, JSON)
        first, second = Waiter(), Waiter()  # the second is mistaken: the first waits already
        batching.ask(model, body, JSON, first)
        batching.ask(model, body, JSON, second, alone=True)
        assert first.answer is second.answer is None
        await turns(3)
        assert first.answer == second.answer == alone.answer

    asyncio.run(ask())
    batching.close()
    assert model.detector.batches == [1, 1, 2]


def test_an_error_answers_who_asks_alone():
    error, waiter, batching = RuntimeError("out of memory"), Waiter(), batcher()
    batching.ask(served(error=error), body_of(REQUESTS[0]), JSON, waiter, alone=True)
    batching.close()
    assert waiter.answer is error


@pytest.mark.parametrize("asked", ["several rows", "raw body", "raw answer", "slow model"])
def test_who_asks_alone_for_anything_else_waits_as_others_do(asked):
    model, batching, waiter = served(), batcher(), Waiter()
    rows_ND = REQUESTS[asked == "several rows"]
    body, content_type = (
        (rows_ND.tobytes(), decoding.RAW) if asked == "raw body" else (body_of(rows_ND), JSON)
    )
    if asked == "slow model":
        model.detector.cell_seconds = 1.0

    async def ask():
        batching.ask(model, body, content_type, waiter, alone=True, raw=asked == "raw answer")
        assert waiter.answer is None
        await waiter.answered.wait()

    asyncio.run(ask())
    batching.close()
    assert isinstance(waiter.answer, bytes)


@pytest.mark.parametrize("inline_cells", [10_000, 0])
def test_what_is_wrong_with_one_body_concerns_nobody_else(inline_cells):
    model, batching = served(), batcher(inline_cells)
    far = np.full((2, 4), 3e38, np.float32)

    async def all_at_once():
        bodies = (b"{", body_of(far), body_of(REQUESTS[0]))
        return await asyncio.gather(
            *(batching.answer(model, body, JSON) for body in bodies), return_exceptions=True
        )

    with np.errstate(all="ignore"):
        wrong, too_far, right = asyncio.run(all_at_once())
    batching.close()
    assert (type(wrong), type(too_far), type(right)) == (InvalidJSON, InvalidRow, bytes)
    assert too_far.row == 0


def test_a_row_that_cannot_be_counted_is_answered_as_are_those_behind_it(monkeypatch, caplog):
    batching = batcher()

    def full(*_: object) -> None:
        raise OSError("no space left for metrics")

    monkeypatch.setattr(Metrics, "scored", full)

    async def all_at_once():
        body = body_of(REQUESTS[0][:1])
        return await asyncio.gather(
            *(batching.answer(served(shift), body, JSON) for shift in (0.0, 1.0))
        )

    answers = asyncio.run(asyncio.wait_for(all_at_once(), 10))
    batching.close()
    assert [type(answer) for answer in answers] == [bytes, bytes]
    assert [record.name for record in caplog.records] == ["hourglass.service.serving.observers"] * 2


def test_a_large_body_is_parsed_beside_the_loop(monkeypatch):
    model, batching, threads = served(), batcher(inline_cells=10), set()
    decode = decoding.decode_cells
    monkeypatch.setattr(
        decoding,
        "decode_cells",
        lambda *a, **b: (threads.add(threading.current_thread()), decode(*a, **b))[1],
    )
    asyncio.run(batching.answer(model, body_of(REQUESTS[3]), JSON))
    batching.close()
    assert len(threads) == 1
    assert threading.main_thread() not in threads


def test_other_work_runs_where_its_size_says():
    batching = batcher(inline_cells=10)

    async def both():
        return [await batching.run(cells, threading.current_thread) for cells in (10, 11)]

    inline, beside = asyncio.run(both())
    batching.close()
    assert inline is threading.main_thread()
    assert beside is not threading.main_thread()


@pytest.mark.parametrize("inline_cells", [10_000, 0])
def test_scores_do_not_wait_for_long_work_of_another_kind(inline_cells):
    scored, model = threading.Event(), served()
    asked = batcher(inline_cells)

    def work() -> bool:
        return scored.wait(10)

    async def score_meanwhile():
        long_work = asyncio.ensure_future(asked.run(10**9, work))
        await asked.score(model, REQUESTS[0])
        # what is short enough has the thread of scores, where there is one for it
        await asked.run(160_000 if inline_cells else 0, lambda: None)
        scored.set()
        return await long_work

    try:
        assert asyncio.run(score_meanwhile())
    finally:
        asked.close()


def test_nobody_holds_a_large_body_once_it_is_refused():
    body = bytearray(b'{"rows":[[' + b"1," * 2**15 + b"NaN]]}")
    held = sys.getrefcount(body)

    class Told:
        def __init__(self) -> None:
            self.event, self.message = asyncio.Event(), ""

        def set_exception(self, error: Exception) -> None:
            self.message = str(error)
            self.event.set()

    async def ask() -> str:
        asked, told = batcher(inline_cells=1), Told()
        asked.ask(served(), body, JSON, told)
        await told.event.wait()
        asked.close()
        return told.message

    gc.disable()  # a circle would hold it until it comes
    try:
        assert "the body is not JSON" in asyncio.run(ask())
        assert sys.getrefcount(body) == held
    finally:
        gc.enable()
