"""Service: what every route works with."""

from dataclasses import dataclass

from service.batcher import Batcher
from service.metrics import Metrics
from service.registry import Registry
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of one running service, put together in app.py."""

    settings: Settings
    registry: Registry
    metrics: Metrics
    batcher: Batcher
