"""Pulse: whether this process stood still, so that what it had may be others' by now."""

import asyncio
from time import monotonic


class Pulse:
    """Knows whether this process stood still, so that its partitions may be others' by now."""

    def __init__(self, longest_seconds: float) -> None:
        self._longest, self._beat, self.stops = longest_seconds, monotonic(), 0

    def has_stopped(self) -> bool:
        """Whether it does so since the last beat."""
        return monotonic() - self._beat > self._longest

    async def beat(self) -> None:
        """Until cancelled."""
        while True:
            self.stops += self.has_stopped()
            self._beat = monotonic()
            await asyncio.sleep(self._longest / 10)
