"""create_app(settings): the one place where the service is put together."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.handlers import BaseRouteHandler
from litestar.types import ControllerRouterHandler

from service import heap, turns
from service.api import docs, health, inference, metrics, models, scoring
from service.api.problems import problem_handlers
from service.api.service import STATE, Guard, Service, allow
from service.batcher import Batcher
from service.cpus import available_cpus
from service.metrics import ASGIApp, Metrics, Receive, Scope, Send
from service.registry import Registry
from service.settings import Settings

FLUSH_SECONDS = 0.1  # how old a worker's numbers may be when another one is scraped
_logger = logging.getLogger(__name__)


def create_app(settings: Settings, *, guard: Guard = allow) -> ASGIApp:
    """The service as an ASGI app. It loads its models when it starts, and looks for new ones until it stops.

    `guard` is asked about each request to a route before anything else is done for it, here and in service.protocol.
    """
    threads = settings.threads or max(1, available_cpus() // settings.workers)
    registry = Registry(settings.models, threads=threads, max_bytes=settings.max_model_bytes)
    counted = Metrics(registry, shared=settings.workers > 1)
    batcher = Batcher(counted, inline_cells=settings.inline_cells, max_rows=settings.max_rows)
    service = Service(settings, registry, counted, batcher, guard)

    def provide_service() -> Service:
        return service

    def ask_guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        guard(connection.scope["path"], connection.scope["headers"])

    @asynccontextmanager
    async def serving(_: Litestar) -> AsyncIterator[None]:
        heap.keep_freed()
        turns.shorten()
        await _look(service)
        clocks = [asyncio.create_task(_poll(service))]
        if counted.shared:
            clocks.append(asyncio.create_task(_flush(counted)))
        gc.collect()
        gc.freeze()  # what is there now stays; to look through it, the collector would stop everybody for 50 ms now and then
        yield
        gc.unfreeze()
        for clock in clocks:
            clock.cancel()
            with suppress(asyncio.CancelledError):
                await clock
        service.batcher.close()
        counted.flush()

    routes: list[ControllerRouterHandler] = [
        scoring.router,
        scoring.named_router,
        models.router,
        inference.router,
        health.router,
        metrics.metrics,
    ]
    dependencies = {"service": Provide(provide_service, sync_to_thread=False)}
    app = Litestar(
        [*routes, docs.docs_router(routes, dependencies, settings), docs.root],
        dependencies=dependencies,
        guards=[ask_guard],
        exception_handlers=problem_handlers(counted, max_body_bytes=settings.max_body_bytes),
        lifespan=[serving],
        logging_config=None,  # __main__ configures logging
        openapi_config=None,  # api/docs.py writes the document
        request_max_body_size=settings.max_body_bytes,
    )
    observed = counted.observe_requests(cast(ASGIApp, app))

    async def entrance(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope.get("state", {})[STATE] = service  # from where service.protocol takes it
        await observed(scope, receive, send)

    return entrance


async def _poll(service: Service) -> None:
    while True:
        await asyncio.sleep(service.settings.poll_seconds)
        try:
            await _look(service)
        except Exception:  # looking must go on, whatever the file system comes up with
            _logger.exception("looking at %s failed", service.settings.models)


async def _look(service: Service) -> None:
    for load in await service.registry.look():
        service.metrics.observe_load(load)


async def _flush(metrics: Metrics) -> None:
    while True:
        await asyncio.sleep(FLUSH_SECONDS)
        metrics.flush()
