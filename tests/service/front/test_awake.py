"""The event loop looks again and again for a moment, and then sleeps."""

import asyncio
import selectors
from time import perf_counter

from hourglass.service.front.awake import Awake

SECONDS = 0.02


class Recording(selectors.DefaultSelector):
    """Of every look at the sockets, when it was and how long it would have slept."""

    def __init__(self):
        super().__init__()
        self.looks = []

    def select(self, timeout=None):
        self.looks.append((perf_counter(), timeout))
        return super().select(timeout)


def looks(work):
    selector = Recording()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.get_loop()
        selector.looks.clear()
        runner.run(work())
    return selector.looks


def test_it_does_not_sleep_before_the_time_and_does_after_it():
    until = 0.0

    async def work():
        nonlocal until
        until = perf_counter() + SECONDS
        Awake().stay(until)
        await asyncio.sleep(3 * SECONDS)

    seen = looks(work)
    assert {timeout for at, timeout in seen if at < until - 0.001} == {0}
    assert sum(at < until for at, _ in seen) > 20
    assert any(timeout is None or timeout > SECONDS / 2 for at, timeout in seen if at > until)


def test_to_be_asked_again_moves_the_time_and_adds_no_turns():
    turns, until = 0, 0.0

    class Counting(Awake):
        def _turn(self, loop):
            nonlocal turns
            turns += 1
            super()._turn(loop)

    async def work():
        nonlocal until
        awake = Counting()
        for _ in range(50):
            awake.stay(until := perf_counter() + SECONDS)
        await asyncio.sleep(3 * SECONDS)
        awake.stay(until := perf_counter() + SECONDS)  # once it is over it may begin again
        await asyncio.sleep(3 * SECONDS)

    seen = looks(work)
    assert turns <= len(seen) + 2
    assert {timeout for at, timeout in seen if until - SECONDS < at < until - 0.001} == {0}
