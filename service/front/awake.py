"""Awake: an event loop that for a moment looks for more again and again, instead of sleeping until
it comes.

To be woken for a request costs about as much as to look at the sockets until it is there, and what
is woken works slowly, its caches cold. So a client that asks again as soon as it has its answer
gets the next in half the time, for the same time of the processor.
"""

import asyncio
from time import perf_counter

AWAKE_SECONDS = (
    0.0001  # after an answer; a client on the same machine asks again within half of that
)


class Awake:
    """Keeps the loop that it is first used in from sleeping."""

    def __init__(self) -> None:
        self._until = 0.0
        self._turning = False

    def stay(self, until: float) -> None:
        """No sleep before that time of the performance counter."""
        self._until = until
        if not self._turning:
            self._turning = True
            self._turn(asyncio.get_running_loop())

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turning = perf_counter() < self._until
        if self._turning:
            loop.call_soon(self._turn, loop)
