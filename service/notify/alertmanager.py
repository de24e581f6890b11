"""An Alertmanager is told which events are open, by its API v2 (POST /api/v2/alerts).

It wants states, not messages: all alerts that fire, again and again, each with a time at which it
is over if nobody repeats it; and an alert that is over once more, with its end. So nothing is
queued here. What failed is in the next attempt, in the state that it has then.
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import msgspec

from hourglass.service.notify.posting import Address, Answer, Outcome, Receiver, wait_seconds
from hourglass.service.streams.events import Event

PATH = "/api/v2/alerts"
AGAIN_SECONDS = 60.0  # that open events are repeated after
# An alert is over for Alertmanager when it was not repeated for so long, whatever its own
# resolve_timeout is: the service, or the way to it, is gone.
LASTS = timedelta(minutes=4)
MOST_ALERTS = 10_000  # from there on those told of first make room


class Alert(msgspec.Struct, frozen=True, rename="camel"):
    """One, as the API has it. The labels are its identity; the rest may change."""

    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: datetime
    ends_at: datetime
    generator_url: str = msgspec.field(name="generatorURL")


class Alertmanager:
    """One receiver. `link` is where people reach the service; `count` is told of outcomes."""

    def __init__(
        self, address: Address, link: str, count: Callable[[Outcome], None] = lambda _: None
    ) -> None:
        path, _, query = address.path.partition("?")
        path = path.rstrip("/") + PATH + (f"?{query}" if query else "")
        self._receiver = Receiver("Alertmanager", address._replace(path=path), count)
        self._link = link
        self._events: dict[str, Event] = {}  # open, or closed and not yet told
        self._woken = asyncio.Event()
        self._random = random.Random()  # noqa: S311

    def begin(self, events: Iterable[Event]) -> None:
        """Those that were open when the service ended."""
        self._events |= {event.id: event for event in events}

    def tell(self, event: Event) -> None:
        """An event that opened or closed; returns at once."""
        self._events[event.id] = event
        while len(self._events) > MOST_ALERTS:
            key = next(iter(self._events))
            del self._events[key]
            self._receiver.drop(key, f"more than {MOST_ALERTS} are open")
        self._woken.set()

    async def clock(self) -> None:
        """Tell until cancelled."""
        attempts = 0
        while True:
            self._woken.clear()
            if await self._tell() == "later":
                # what opens meanwhile does not hasten the next attempt
                attempts += 1
                await asyncio.sleep(wait_seconds(attempts, self._random.random()))
                continue
            attempts = 0
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_SECONDS):
                    await self._woken.wait()

    async def _tell(self) -> Answer:
        told = dict(self._events)
        if not told:
            return "taken"
        alerts = [self._alert(event) for event in told.values()]
        answer = await self._receiver.tell(msgspec.json.encode(alerts), {})
        if answer == "later":
            return answer
        for key, event in told.items():
            if not event.open and self._events.get(key) is event:
                del self._events[key]
                if answer == "refused":
                    self._receiver.drop(key, "it was refused")
        return answer

    def _alert(self, event: Event) -> Alert:
        """Times of rows may be ahead of this clock, or long past: an alert begins by now, and ends
        after it began.
        """
        now = datetime.now(UTC)
        start = min(event.start, now)
        end = now + LASTS if event.end is None else max(min(event.end, now), start)
        summary = event.sentence or f"{event.entity} is not as {event.model} expects"
        return Alert(
            labels={"alertname": "HourglassEvent", "model": event.model, "entity": event.entity},
            annotations={
                "summary": summary,
                "features": ", ".join(event.features),
                "severity": f"{event.severity:.2f}",
                "peak": event.peak.isoformat(),
                "event": event.id,
                "version": event.version,
            },
            starts_at=start,
            ends_at=end,
            generator_url=f"{self._link}/v1/models/{quote(event.model, safe='')}/events"
            f"?entity={quote(event.entity, safe='')}",
        )
