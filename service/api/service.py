"""Service: what every route works with."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from service.batcher import Batcher
from service.metrics import Metrics
from service.registry import Registry
from service.settings import Settings

# What may refuse a request: it is given the path and the headers (names in lower case), and raises one of the errors that
# api/problems.py has an answer for. It may be asked twice about one request.
Guard = Callable[[str, Iterable[tuple[bytes, bytes]]], None]

STATE = "service"  # the key of the lifespan's state under which the server finds the service


def allow(path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """The guard that lets everything pass."""


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of one running service, put together in app.py."""

    settings: Settings
    registry: Registry
    metrics: Metrics
    batcher: Batcher
    guard: Guard
