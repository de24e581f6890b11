"""Sends what `calls` asks over httpx, in turn or as coroutines, and again where that is safe."""

import asyncio
import functools
import random
import time
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from . import calls
from .answers import ClientError, NoAnswer
from .calls import Request, Steps, problem_of

if TYPE_CHECKING:
    import httpx

LOCAL = "http://127.0.0.1:8000"
P = ParamSpec("P")
T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.1  # doubled from one to the next, and shortened at random by up to half
LONGEST_PAUSE_SECONDS = 10.0
AGAIN = (429, 503)  # there may be room later; nothing was done


class _Asker:
    """What both clients have in common.

    `key` is a key of the service. `retries` is how often a request is sent again, when no answer
    comes or the service has no room. `options` are httpx's, such as `verify` and `proxy`.
    """

    def __init__(
        self,
        url: str = LOCAL,
        *,
        key: str | None = None,
        timeout: float = 30.0,
        retries: int = 4,
        **options: Any,
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise ClientError("the client needs httpx: pip install 'hourglass[client]'") from error
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self.retries = retries
        self._httpx = httpx
        headers = dict(options.pop("headers", None) or {})
        if key is not None:
            key = key.strip()
            if not key or not key.isascii() or not key.isprintable() or " " in key:
                raise ClientError(
                    "key: expected one line without spaces, as hourglass keys add says"
                )
            headers["authorization"] = f"Bearer {key}"
        self._options = {"timeout": timeout, **options, "headers": headers}

    def _prepare(self, request: Request) -> dict[str, Any]:
        headers = {"content-type": request.content_type} if request.content_type else {}
        return {
            "method": request.method,
            "url": self.url + request.path,
            "content": request.body,
            "headers": {"accept": "application/json", **headers},
        }

    def _tries(self, request: Request) -> Generator[float, "httpx.Response | Exception", bytes]:
        """Yields how long to wait before each try, and takes what came of it; returns the body."""
        pause = 0.0
        for attempt in range(self.retries + 1):
            came = yield pause
            is_last = attempt == self.retries
            pause = min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS)
            pause *= random.uniform(0.5, 1.0)  # noqa: S311
            if isinstance(came, Exception):
                if isinstance(
                    came, self._httpx.LocalProtocolError | self._httpx.UnsupportedProtocol
                ):
                    raise ClientError(
                        f"{self.url} cannot be asked: {type(came).__name__}"
                    ) from None
                was_sent = not isinstance(
                    came, self._httpx.ConnectError | self._httpx.ConnectTimeout
                )
                # it may still be at work on what took too long
                is_late = isinstance(came, self._httpx.TimeoutException) and request.method != "GET"
                if is_last or (was_sent and (is_late or not request.may_repeat)):
                    reason = str(came) or type(came).__name__
                    raise NoAnswer(f"no answer from {self.url}: {reason}") from came
            elif came.status_code in AGAIN and not is_last:
                pause = max(pause, _asked_to_wait(came.headers.get("retry-after")))
            elif came.status_code >= 400:
                raise problem_of(request, came.status_code, came.content)
            elif came.status_code >= 300:
                to = came.headers.get("location", "nowhere")
                raise ClientError(f"{self.url} answers {came.status_code} and points to {to}")
            else:
                return came.content
        raise AssertionError  # the last try has returned or raised


def _asked_to_wait(retry_after: str | None) -> float:
    """Seconds, at most as long as a pause may be."""
    try:
        return min(float(retry_after or 0), LONGEST_PAUSE_SECONDS)
    except ValueError:
        return 0.0


def _in_turn(steps: Callable[P, Steps[T]]) -> Callable[Concatenate["Client", P], T]:
    @functools.wraps(steps)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(steps(*args, **kwargs))

    return method


def _as_coroutine(
    steps: Callable[P, Steps[T]],
) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, T]]:
    @functools.wraps(steps)
    async def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(steps(*args, **kwargs))

    return method


class Client(_Asker):
    """Asks a service, one request after the other, over connections that stay open.

    NoAnswer when it cannot be reached, Problem when it refuses, ClientError for rows that nothing
    could be made of.
    """

    def __init__(self, url: str = LOCAL, **options: Any) -> None:
        super().__init__(url, **options)
        self._client = self._httpx.Client(**self._options)

    models = _in_turn(calls.models)
    model = _in_turn(calls.model)
    score = _in_turn(calls.score)
    explain = _in_turn(calls.explain)
    reconstruct = _in_turn(calls.reconstruct)
    encode = _in_turn(calls.encode)
    decode = _in_turn(calls.decode)
    replay = _in_turn(calls.replay)
    live_replay = _in_turn(calls.live_replay)
    alarms = _in_turn(calls.alarms)
    alarms_of = _in_turn(calls.alarms_of)
    drift = _in_turn(calls.drift)
    say = _in_turn(calls.say)
    feedback = _in_turn(calls.feedback)
    stream = _in_turn(calls.stream)
    forget = _in_turn(calls.forget)
    streams = _in_turn(calls.streams)
    events = _in_turn(calls.events)
    set_budget = _in_turn(calls.set_budget)
    versions = _in_turn(calls.versions)
    promote = _in_turn(calls.promote)
    reload = _in_turn(calls.reload)

    def close(self) -> None:
        """Give the connections up."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        try:
            request = next(steps)
            while True:
                request = steps.send(self._send(request))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _send(self, request: Request) -> bytes:
        tries = self._tries(request)
        pause = next(tries)
        while True:
            time.sleep(pause)
            came: httpx.Response | Exception
            try:
                came = self._client.request(**self._prepare(request))
            except self._httpx.TransportError as error:
                came = error
            try:
                pause = tries.send(came)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]


class AsyncClient(_Asker):
    """The same as coroutines."""

    def __init__(self, url: str = LOCAL, **options: Any) -> None:
        super().__init__(url, **options)
        self._client = self._httpx.AsyncClient(**self._options)

    models = _as_coroutine(calls.models)
    model = _as_coroutine(calls.model)
    score = _as_coroutine(calls.score)
    explain = _as_coroutine(calls.explain)
    reconstruct = _as_coroutine(calls.reconstruct)
    encode = _as_coroutine(calls.encode)
    decode = _as_coroutine(calls.decode)
    replay = _as_coroutine(calls.replay)
    live_replay = _as_coroutine(calls.live_replay)
    alarms = _as_coroutine(calls.alarms)
    alarms_of = _as_coroutine(calls.alarms_of)
    drift = _as_coroutine(calls.drift)
    say = _as_coroutine(calls.say)
    feedback = _as_coroutine(calls.feedback)
    stream = _as_coroutine(calls.stream)
    forget = _as_coroutine(calls.forget)
    streams = _as_coroutine(calls.streams)
    events = _as_coroutine(calls.events)
    set_budget = _as_coroutine(calls.set_budget)
    versions = _as_coroutine(calls.versions)
    promote = _as_coroutine(calls.promote)
    reload = _as_coroutine(calls.reload)

    async def close(self) -> None:
        """Give the connections up."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        try:
            request = next(steps)
            while True:
                request = steps.send(await self._send(request))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def _send(self, request: Request) -> bytes:
        tries = self._tries(request)
        pause = next(tries)
        while True:
            await asyncio.sleep(pause)
            came: httpx.Response | Exception
            try:
                came = await self._client.request(**self._prepare(request))
            except self._httpx.TransportError as error:
                came = error
            try:
                pause = tries.send(came)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
