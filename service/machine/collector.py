"""Garbage collection: what is there once a process has started stays, and is not looked at again.

To look through it, the collector would stop everybody for 50 ms now and then.
"""

import gc
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


def freeze() -> None:
    """Look no more at what is there."""
    gc.collect()
    gc.freeze()


def freeze_when_started(app: ASGIApp) -> ASGIApp:
    """The app; what its start has made is frozen until it ends."""

    async def frozen(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return

        async def watched_send(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                freeze()
            await send(message)

        try:
            await app(scope, receive, watched_send)
        finally:
            gc.unfreeze()

    return frozen
