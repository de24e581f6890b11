"""A webhook: each event that opens or closes is POSTed as JSON, signed, until it is taken.

Ids, headers and signature are those of Standard Webhooks (standardwebhooks.com, 1.0), for which
receivers have libraries: HMAC-SHA256 of id, time and body. A change has one id, whatever attempt it
is. Changes of one event arrive in order: one waits until the one before it was taken or given up;
those of other events do not wait for it.

What waits is in memory, bounded, and lost when the process ends; GET /v1/models/{name}/events has
it all.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from hourglass.service.errors import InvalidSettings
from hourglass.service.notify.posting import Address, Outcome, Receiver, wait_seconds
from hourglass.service.streams.events import Event

MOST_WAITING = 1000  # changes of one receiver; from there on the oldest make room
GIVE_UP_SECONDS = 3600.0  # after which a change is no news any more
FEWEST_SECRET_BYTES = 16
SECRET_PREFIX = "whsec_"  # before base64; any other secret is taken as it is  # noqa: S105
Kind = Literal["event.opened", "event.closed"]


class Notice(msgspec.Struct, frozen=True):
    """The body."""

    type: Kind
    timestamp: datetime  # when the service noticed it
    data: Event


@dataclass(slots=True)
class _Change:
    id: str
    body: bytes
    noticed: float  # on the clock of time.monotonic


@dataclass(slots=True)
class _Line:
    """The changes of one event that wait, the first of them for its time."""

    changes: deque[_Change] = field(default_factory=deque)
    attempts: int = 0
    due: float = 0.0


class Webhook:
    """One receiver. `count` is told of each outcome."""

    def __init__(
        self, address: Address, secret: bytes, count: Callable[[Outcome], None] = lambda _: None
    ) -> None:
        self._receiver, self._secret = Receiver("webhook", address, count), secret
        self._lines: dict[str, _Line] = {}  # by the event's id
        self._waiting = 0
        self._woken = asyncio.Event()
        self._random = random.Random()  # noqa: S311

    def tell(self, event: Event) -> None:
        """An event that opened or closed; returns at once."""
        what: Kind = "event.opened" if event.open else "event.closed"
        notice = Notice(what, datetime.now(UTC), event)
        change = _Change(f"{event.id}.{what}", msgspec.json.encode(notice), time.monotonic())
        self._lines.setdefault(event.id, _Line()).changes.append(change)
        self._waiting += 1
        while self._waiting > MOST_WAITING:
            self._drop(next(iter(self._lines)), f"more than {MOST_WAITING} wait")
        self._woken.set()

    async def clock(self) -> None:
        """Deliver until cancelled."""
        while True:
            self._woken.clear()
            now = time.monotonic()
            key = min(self._lines, key=lambda each: self._lines[each].due, default=None)
            if key is None or (due := self._lines[key].due) > now:
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if key is None else due - now):
                        await self._woken.wait()
                continue
            await self._deliver(key, self._lines[key])

    async def _deliver(self, key: str, line: _Line) -> None:
        change = line.changes[0]
        answer = await self._receiver.tell(change.body, self._headers(change))
        if not line.changes or line.changes[0] is not change:  # it had to make room meanwhile
            return
        if answer == "taken":
            self._leave(key, line)
        elif answer == "refused":
            self._drop(key, "it was refused")
        elif time.monotonic() - change.noticed > GIVE_UP_SECONDS:
            self._drop(key, f"no attempt of {GIVE_UP_SECONDS:.0f} s went well")
        else:
            line.attempts += 1
            line.due = time.monotonic() + wait_seconds(line.attempts, self._random.random())

    def _headers(self, change: _Change) -> dict[str, str]:
        seconds = str(int(time.time()))
        return {
            "webhook-id": change.id,
            "webhook-timestamp": seconds,
            "webhook-signature": sign(self._secret, change.id, seconds, change.body),
        }

    def _drop(self, key: str, why: str) -> None:
        line = self._lines[key]
        self._receiver.drop(line.changes[0].id, why)
        self._leave(key, line)

    def _leave(self, key: str, line: _Line) -> None:
        line.changes.popleft()
        line.attempts, line.due = 0, 0.0
        self._waiting -= 1
        if not line.changes:
            del self._lines[key]


def sign(secret: bytes, change_id: str, seconds: str, body: bytes) -> str:
    """The header webhook-signature."""
    signed = b".".join((change_id.encode(), seconds.encode(), body))
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def read_secret(path: Path | None, text: str) -> bytes:
    """The secret of a file or, without one, of the environment; no error repeats any of it."""
    source = f"--webhook-secret-file {path}" if path else "HOURGLASS_WEBHOOK_SECRET"
    if path:
        try:
            text = path.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError as error:
            raise InvalidSettings(f"{source}: expected text") from error
        except OSError as error:
            raise InvalidSettings(f"{source}: {error.strerror or error}") from error
    if not text and not path:
        raise InvalidSettings(
            "--webhook needs a secret to sign with, from --webhook-secret-file or from"
            " HOURGLASS_WEBHOOK_SECRET"
        )
    secret = text.encode()
    if text.startswith(SECRET_PREFIX):
        try:
            secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error as error:
            raise InvalidSettings(f"{source}: expected base64 after {SECRET_PREFIX}") from error
    if len(secret) < FEWEST_SECRET_BYTES:
        raise InvalidSettings(
            f"{source}: expected a secret of at least {FEWEST_SECRET_BYTES} bytes,"
            f" got {len(secret)}"
        )
    return secret
