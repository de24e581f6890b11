"""Entrance: what every request passes before the app's routes, and what every answer passes behind
them.
"""

from collections.abc import Iterable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from hourglass.service.api.parts import Parts
from hourglass.service.errors import ForeignHost, ReadOnly
from hourglass.service.keys.file import Scope as KeyScope
from hourglass.service.keys.guard import WHICHEVER, Asked
from hourglass.service.settings import Settings
from hourglass.service.watch.metrics import ASGIApp, Receive, Scope, Send

PIECE_BYTES = 2**18  # of an answer: the next is written when the client has read the one before
CHANGES = "changes"  # of a handler's opt: it changes what is served
# Of a handler's opt: the scopes of keys, of which one suffices, or none is needed. A route that
# does not say is an admin's.
SCOPES = "scopes"
NEEDS_NO_KEY: dict[str, tuple[KeyScope, ...]] = {SCOPES: ()}
NEEDS_SCORE: dict[str, tuple[KeyScope, ...]] = {SCOPES: ("score",)}
NEEDS_READ: dict[str, tuple[KeyScope, ...]] = {SCOPES: ("read",)}
NEEDS_SCORE_OR_READ: dict[str, tuple[KeyScope, ...]] = {SCOPES: ("score", "read")}
NEEDS_ADMIN: dict[str, tuple[KeyScope, ...]] = {SCOPES: ("admin",)}
# Of a handler's opt: its path names no model, and its answer is of none, or leaves those out that
# the pass is not for.
OF_NO_MODEL = "of_no_model"
OPENED_BY = "opened_by"  # of a handler's opt: the word of --without-key that opens it
FOUND = "found"  # the key of a request's state under which the guard's pass is
_PROBED = ("/health/", "/metrics")  # by Kubernetes and Prometheus, which ask by address
_LOCAL = frozenset(("localhost", "127.0.0.1", "[::1]"))


def enter(app: ASGIApp, parts: Parts) -> ASGIApp:
    """The app behind its entrance: the root path is taken off, HEAD is answered as GET is, and the
    bytes of bodies and large answers are counted as held until the answer has left.
    """
    root_path, room = parts.settings.root_path, parts.room

    async def entered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        method = "GET" if scope["method"] == "HEAD" else scope["method"]  # servers send no body
        scope = {**scope, "method": method, "path": without_root(scope["path"], root_path)}
        held = 0

        async def counted_receive() -> Any:
            nonlocal held
            message = await receive()
            count = len(message.get("body", b""))
            room.take(count)
            held += count
            return message

        async def paced_send(message: Any) -> None:
            nonlocal held
            body = message.get("body", b"")
            if len(body) > PIECE_BYTES:
                room.keep(len(body))
                held += len(body)
                for at in range(0, len(body), PIECE_BYTES):
                    last = at + PIECE_BYTES >= len(body)
                    more = message.get("more_body", False) or not last
                    piece = body[at : at + PIECE_BYTES]
                    await send({**message, "body": piece, "more_body": more})
            else:
                await send(message)

        try:
            await app(scope, counted_receive, paced_send)
        finally:
            room.give_back(held)

    return entered


def require_allowed(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler, settings: Settings
) -> None:
    """ForeignHost or ReadOnly where these settings do not let the request pass."""
    headers = connection.scope["headers"]
    probed = connection.scope["path"].startswith(_PROBED)
    if not (probed or answers_for(headers, settings)):
        host = next(value for name, value in headers if name == b"host").decode("latin-1")
        expected = ", ".join(sorted(_allowed_hosts(settings)))
        raise ForeignHost(
            f"expected a Host among {expected}, got {host[:80]!r}; --allowed-hosts names others"
        )
    if settings.read_only and handler.opt.get(CHANGES):
        raise ReadOnly("this process only scores (--read-only): nothing can be changed here")


def asked_of(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler, settings: Settings
) -> Asked:
    """What the guard is asked about a request to that handler."""
    scope = connection.scope
    scopes = () if scope.get("method") == "OPTIONS" else scopes_of(handler, settings)
    of_none = handler.opt.get(OF_NO_MODEL, False)
    name = connection.path_params.get("name", WHICHEVER)
    # no model's name has a colon: behind it stands what is asked of the model, as Azure's have it
    model = None if of_none else name.partition(":")[0]
    return Asked(scope["path"], scope["headers"], scopes, model)


def scopes_of(handler: BaseRouteHandler, settings: Settings) -> tuple[KeyScope, ...]:
    """The scopes of which a key needs one for that handler; none where nobody needs a key."""
    if handler.opt.get(OPENED_BY) in settings.without_key.split(","):
        return ()
    scopes: tuple[KeyScope, ...] = handler.opt.get(SCOPES, NEEDS_ADMIN[SCOPES])
    return scopes


def answers_for(headers: Iterable[tuple[bytes, bytes]], settings: Settings) -> bool:
    """Whether the Host is one of those allowed; where none is named, by an old client, it is."""
    allowed = _allowed_hosts(settings)
    return "*" in allowed or all(
        _without_port(value.decode("latin-1")) in allowed
        for name, value in headers
        if name == b"host"
    )


def without_root(path: str, root_path: str) -> str:
    """The path as the routes know it, whether or not a proxy has taken the root path off."""
    if root_path and (path == root_path or path.startswith(root_path + "/")):
        return path[len(root_path) :] or "/"
    return path


def _allowed_hosts(settings: Settings) -> frozenset[str]:
    """Those of the setting; without it the local names where only they lead here, else any: a page
    from elsewhere, whose name was made to lead to this machine, is then refused.
    """
    if settings.allowed_hosts:
        return frozenset(each.strip().lower() for each in settings.allowed_hosts.split(","))
    own = f"[{settings.host}]" if ":" in settings.host else settings.host.lower()
    if own in _LOCAL or own.startswith("127."):
        return _LOCAL | {own}
    return frozenset("*")


def _without_port(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()
