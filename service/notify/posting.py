"""A POST of JSON to somebody else's server, and where that is.

On the event loop, by asyncio's streams: all of it has one deadline, names are resolved beside the
loop, no redirect is followed and nothing of the answer is kept but its status.
"""

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from hourglass.service.errors import InvalidSettings

TIMEOUT_SECONDS = 10.0  # of one attempt, from looking up the name to the status
LINGER_SECONDS = 1.0  # that the rest of the answer is read, so that its sender sees no reset
MOST_SECONDS = 60.0  # between two attempts
AGAIN = frozenset((408, 425, 429))  # and all of 5xx: the same request may be taken later
Outcome = Literal["delivered", "failed", "dropped"]  # an attempt may fail, and a change be dropped
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
Answer = Literal["taken", "later", "refused"]
_logger = logging.getLogger(__name__)


class Address(NamedTuple):
    """Where to POST to."""

    host: str
    port: int
    path: str  # with its query
    context: ssl.SSLContext | None  # of https

    @property
    def authority(self) -> str:
        """As the Host header has it. It is all that is logged: paths may hold a token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.context else 80
        return host if self.port == usual else f"{host}:{self.port}"


def addresses_of(urls: str, flag: str) -> list[Address]:
    """Of URLs that are separated by commas; InvalidSettings says which one is wrong."""
    return [_address_of(each.strip(), flag) for each in urls.split(",") if each.strip()]


def _address_of(url: str, flag: str) -> Address:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidSettings(f"{flag}: expected a URL, got {url!r} ({error})") from error
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidSettings(
            f"{flag}: expected http://HOST/PATH or https://HOST/PATH, got {url!r}"
        )
    if parts.username is not None or parts.password is not None:
        raise InvalidSettings(f"{flag}: expected a URL without a user and a password in it")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.fragment or not (url.isascii() and url.isprintable()) or " " in url:
        raise InvalidSettings(
            f"{flag}: expected printable ASCII without spaces and without a fragment, got {url!r}"
        )
    try:
        host.encode("idna")  # as who looks it up does
    except UnicodeError as error:
        raise InvalidSettings(
            f"{flag}: expected a host whose names between dots have 1 to 63 characters, got {url!r}"
        ) from error
    context = ssl.create_default_context() if parts.scheme == "https" else None
    return Address(host, port or (443 if context else 80), path, context)


async def post(address: Address, body: bytes, headers: Mapping[str, str]) -> int:
    """The status of the answer; OSError, TimeoutError among them, where there is none."""
    head = [
        f"POST {address.path} HTTP/1.1",
        f"host: {address.authority}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "user-agent: hourglass",
        "connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    async with asyncio.timeout(TIMEOUT_SECONDS):
        reader, writer = await _connect(address)
        try:
            writer.write("\r\n".join([*head, "", ""]).encode() + body)
            await writer.drain()
            status = _status_of(await reader.readline())
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(LINGER_SECONDS):
                    while await reader.read(2**16):
                        pass
        except ValueError as error:  # a line without an end
            raise ConnectionError("the answer is not HTTP") from error
        finally:
            writer.close()
    return status


async def _connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To the first of the host's addresses that takes it."""
    found = await _look_up(address)
    for place, number in enumerate(found, 1):
        try:
            return await asyncio.open_connection(
                number,
                address.port,
                ssl=address.context,
                server_hostname=address.host if address.context else None,
            )
        except OSError:
            if place == len(found):
                raise
    raise ConnectionError("the host has no address")


async def _look_up(address: Address) -> list[str]:
    """The host's addresses, by a thread that nobody waits for: while a name server is silent, the
    loop's own threads are free for others, and the process can end.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str] | OSError] = loop.create_future()

    def settle(found: list[str] | OSError) -> None:
        if not answer.done():  # else the attempt has ended meanwhile
            answer.set_result(found)

    def look_up() -> None:
        found: list[str] | OSError
        try:
            infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(info[4][0]) for info in infos))
        except OSError as error:
            found = error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    found = await answer
    if isinstance(found, OSError):
        raise found
    return found


def _status_of(line: bytes) -> int:
    version, _, rest = line.partition(b" ")
    if not (version.startswith(b"HTTP/1.") and rest[:3].isdigit()):
        raise ConnectionError("the answer is not HTTP" if line else "no answer came")
    return int(rest[:3])


class Receiver:
    """Somebody who is told, and how that goes: each attempt is counted, and the log has a line when
    attempts begin to fail and when they work again.
    """

    def __init__(self, name: str, address: Address, count: Callable[[Outcome], None]) -> None:
        self.name, self._address, self._count = f"{name} {address.authority}", address, count
        self._is_failing = False

    async def tell(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """One attempt; whether the same request is worth another one."""
        answer: Answer = "later"
        try:
            status = await post(self._address, body, headers)
            problem = f"it answered {status}"
            if 200 <= status < 300:
                answer = "taken"
            elif status not in AGAIN and status < 500:
                answer = "refused"
        except OSError as error:
            problem = str(error) or "it did not answer in time"
        self._count("delivered" if answer == "taken" else "failed")
        if answer != "taken" and not self._is_failing:
            _logger.warning("%s fails: %s", self.name, problem)
        elif answer == "taken" and self._is_failing:
            _logger.warning("%s works again", self.name)
        self._is_failing = answer != "taken"
        return answer

    def drop(self, what: str, why: str) -> None:
        """Give something up."""
        self._count("dropped")
        _logger.error("%s was not told of %s: %s", self.name, what, why)


def wait_seconds(attempts: int, draw: float) -> float:
    """Until the next attempt, after so many failed: 1, 2, 4 and so on up to MOST_SECONDS, of which
    a half is by a draw from [0, 1), so that services that failed together do not return together.
    """
    return min(2.0 ** min(attempts - 1, 30), MOST_SECONDS) * (1 + draw) / 2
