"""worker_app(settings): what each worker process runs, and what is asked of that process for it."""

from hourglass.service.app import create_app
from hourglass.service.machine import collector, heap, turns
from hourglass.service.settings import Settings


def worker_app(settings: Settings) -> collector.ASGIApp:
    """The app; called on the thread of the event loop, which then has short turns on its CPU."""
    heap.keep_freed()
    turns.shorten()
    return collector.freeze_when_started(create_app(settings, after_load=heap.give_back_freed))
