"""Parts: what every route works with."""

from collections.abc import Callable
from dataclasses import dataclass

from hourglass.service.keys.guard import Asked, Pass
from hourglass.service.serving.batcher import Batcher
from hourglass.service.serving.observers import Observers
from hourglass.service.serving.peers import Peers
from hourglass.service.serving.registry import Registry
from hourglass.service.serving.room import Room
from hourglass.service.settings import Settings
from hourglass.service.streams.streams import Streams
from hourglass.service.watch.answers import Answers
from hourglass.service.watch.drift import Drift
from hourglass.service.watch.journal import Journal
from hourglass.service.watch.metrics import Metrics
from hourglass.service.watch.recorder import Recorder
from hourglass.service.watch.shadow import Shadow
from hourglass.service.watch.traffic import Traffic

# What may refuse a request: it raises one of the errors that api/problems.py has an answer for. A
# pass that it gives may be for some models alone. It is asked once about each request.
Guard = Callable[[Asked], Pass | None]

STATE = "parts"  # the key of the lifespan's state under which the server finds them


def allow(asked: Asked) -> None:
    """The guard that lets everything pass."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one running service, put together in app.py."""

    settings: Settings
    registry: Registry
    metrics: Metrics
    answers: Answers
    traffic: Traffic
    journal: Journal
    drift: Drift
    shadow: Shadow
    observers: Observers
    batcher: Batcher
    room: Room
    guard: Guard
    recorder: Recorder | None  # None where nothing is recorded
    streams: Streams | None  # None where there are several workers
    peers: Peers | None = None  # where there are several workers
    # adapters.azure's Azure where the retired service's API is spoken, and not loaded elsewhere
    azure: object = None
