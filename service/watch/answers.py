"""Answers: who is told of each, on both ways of a request."""

import itertools
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

from hourglass.service.logs import REQUEST_ID, Identity, about, read_identity
from hourglass.service.watch.access import AccessLog
from hourglass.service.watch.metrics import (
    METHODS,
    UNDELIVERED,
    ASGIApp,
    Metrics,
    Receive,
    Scope,
    Send,
)
from hourglass.service.watch.traces import Traces

# the key of a request's state under which a server may put a function: has the client gone?
GONE = "gone"


class Answers:
    """Tells the metrics of each answer and, where there are some, the access log and traces."""

    def __init__(
        self, metrics: Metrics, access: AccessLog | None = None, traces: Traces | None = None
    ) -> None:
        self._metrics, self._access, self._traces = metrics, access, traces
        self._prefix, self._count = secrets.token_hex(6), itertools.count()

    def make_id(self) -> str:
        """For a request whose client gave it none; no other request of any process has it."""
        return f"{self._prefix}-{next(self._count):08x}"

    def answered(
        self,
        request_id: str,
        traceparent: str,
        client: tuple[str, int] | None,
        method: str,
        path: str,
        route: str,
        status: int,
        seconds: float,
    ) -> None:
        """A request to a route (its template) was answered, or with UNDELIVERED would have been."""
        known_method = method if method in METHODS else "other"
        self._metrics.observe_request(route, known_method, status, seconds)
        if self._access is not None:
            self._access.add(
                (time.time(), request_id, traceparent, client, method, path, route, status, seconds)
            )
        if self._traces is not None:
            self._traces.answered(
                Identity(request_id, traceparent),
                client,
                known_method,
                path,
                route,
                status,
                seconds,
            )

    def observe(self, app: ASGIApp) -> ASGIApp:
        """The app, with every answer told of, also the 404 and 405 that routing gives before any
        middleware is reached; and with its request's id in each.
        """

        async def observed(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            started = time.perf_counter()
            status, seconds, client = 0, 0.0, scope.get("client")
            method, path = scope["method"], scope["path"]
            identity = read_identity(scope["headers"])
            if not identity.request_id:
                identity = identity._replace(request_id=self.make_id())
            header = REQUEST_ID, identity.request_id.encode()

            async def told_send(message: MutableMapping[str, Any]) -> None:
                nonlocal status, seconds
                if message["type"] == "http.response.start":
                    status, seconds = message["status"], time.perf_counter() - started
                    message = {**message, "headers": [*message.get("headers", ()), header]}
                await send(message)
                if message["type"] == "http.response.body" and not message.get("more_body"):
                    route = scope.get("path_template", "unmatched")  # Litestar's
                    answered = UNDELIVERED if is_gone() else status
                    self.answered(*identity, client, method, path, route, answered, seconds)

            is_gone = scope.get("state", {}).get(GONE, bool)
            with about(identity):
                await app(scope, receive, told_send)

        return observed
