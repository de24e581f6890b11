"""create_app(settings): the one place where the service is put together."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.handlers import BaseRouteHandler
from litestar.types import ControllerRouterHandler

from hourglass.service.api import (
    alarms,
    challenger,
    console,
    docs,
    drift,
    feedback,
    health,
    inference,
    metrics,
    models,
    replay,
    reports,
    scoring,
    versions,
)
from hourglass.service.api import streams as streamed
from hourglass.service.api.entrance import FOUND, asked_of, enter, require_allowed
from hourglass.service.api.parts import STATE, Guard, Parts, allow
from hourglass.service.api.problems import problem_handlers
from hourglass.service.errors import InvalidSettings
from hourglass.service.keys.guard import Keys
from hourglass.service.machine.cpus import available_cpus
from hourglass.service.notify.receivers import receivers_of
from hourglass.service.serving.batcher import Batcher
from hourglass.service.serving.exhibits import Exhibits
from hourglass.service.serving.observers import Observers
from hourglass.service.serving.peers import Peers
from hourglass.service.serving.places import open_store
from hourglass.service.serving.registry import Load, Registry
from hourglass.service.serving.room import Room
from hourglass.service.settings import Settings
from hourglass.service.streams.events import EVENTS_PER_ROW, Event
from hourglass.service.streams.state import is_counted
from hourglass.service.streams.streams import FILE, Streams
from hourglass.service.watch.access import AccessLog
from hourglass.service.watch.alarms import MEMORY_ALARMS, Alarms
from hourglass.service.watch.answers import Answers
from hourglass.service.watch.drift import Drift
from hourglass.service.watch.drift_store import DriftStore
from hourglass.service.watch.journal import Journal
from hourglass.service.watch.metrics import ASGIApp, Metrics, Receive, Scope, Send
from hourglass.service.watch.record_place import open_place
from hourglass.service.watch.recorder import Recorder
from hourglass.service.watch.recording import Recording
from hourglass.service.watch.shadow import Shadow
from hourglass.service.watch.traces import Traces
from hourglass.service.watch.traffic import Traffic

START_SECONDS = 1.0  # that the start waits for models; those left are loaded while it answers
FLUSH_SECONDS = 0.1  # how old a worker's numbers may be when another one is scraped
ALARMS_FILE = "alarms.sqlite"  # where workers meet
_logger = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    *,
    guard: Guard | None = None,
    after_load: Callable[[], None] = lambda: None,
    shared: Path | None = None,
    traces: Traces | None = None,
) -> ASGIApp:
    """The service as an ASGI app. It loads its models from its start on, and looks for new ones
    until it stops.

    `guard` is asked once about each request to a route before anything else is done for it, here or
    in front.protocol; without one it is the settings' keys. `after_load` is called, in a thread,
    whenever a model was read. `shared` is a folder where several workers meet, `traces` are told of
    every answer. Nothing of the process is changed here: __main__ does that.
    """
    keys = Keys(settings.keys) if settings.keys else None
    if keys and guard:
        raise InvalidSettings("expected keys or a guard, got both")
    threads = settings.threads or max(1, available_cpus() // settings.workers)
    store = open_store(settings.models, cache=settings.cache, trust=settings.trust)
    registry = Registry(
        store,
        threads=threads,
        max_bytes=settings.max_model_bytes,
        max_loaded=settings.max_loaded,
        exhibits=Exhibits() if settings.learn else None,
        after_load=after_load,
    )
    poll_seconds = settings.poll_seconds or store.poll_seconds
    traffic = Traffic(registry, shared, os.getpid())
    # several workers write and read one file, also where it holds no values
    path = settings.journal or (shared and shared / ALARMS_FILE)
    most = settings.journal_alarms if settings.journal else MEMORY_ALARMS
    journal = Journal(
        Alarms(path, most=most, days=settings.journal_days), values=settings.journal is not None
    )
    watched = Drift(
        registry,
        DriftStore(path, time.time()),
        rows=settings.drift_rows,
        seconds=settings.drift_seconds,
        workers=settings.workers,
    )
    shadow = Shadow(
        registry,
        store,
        share=settings.shadow_share,
        max_bytes=settings.max_model_bytes,
        folder=shared,
        pid=os.getpid(),
        after_load=after_load,
    )
    counted = Metrics(
        registry,
        shared=settings.workers > 1,
        workers=shared,
        traffic=traffic,
        journal=journal,
        drift=watched,
        shadow=shadow,
        keys=keys,
    )

    streams: Streams | None = None
    access = AccessLog(settings.log_format) if settings.access_log else None
    answers = Answers(counted, access, traces)

    def tell(load: Load) -> None:
        counted.observe_load(load)
        if load.served is not None:
            traffic.follow(load.served)
            if streams is not None and is_counted(load.served):
                _logger.info(
                    "%s was fitted on rows that are counted, not timed: events of its streams are"
                    " held to %g in 10,000 rows, whatever --events-per-day says",
                    load.name,
                    EVENTS_PER_ROW * 10_000,
                )

    registry.tell = tell
    peers = Peers(shared, os.getpid(), registry.refresh) if shared else None
    receivers = receivers_of(settings, counted.observe_notice)

    def tell_event(event: Event) -> None:
        counted.observe_event(event)
        for receiver in receivers:
            receiver.tell(event)

    recorder: Recorder | None = None
    if settings.record:
        recorder = Recorder(
            Recording(open_place(settings.record), most_bytes=settings.record_bytes),
            share=settings.record_share,
            rows=settings.record_rows,
            seconds=settings.record_seconds,
            tell=counted.observe_recorded,
        )
    observers = Observers([counted, shadow, *([recorder] if recorder else [])])
    batcher = Batcher(observers, inline_cells=settings.inline_cells, max_rows=settings.max_rows)
    # one body of any size allowed must find room
    room = Room(max(settings.max_held_bytes, settings.max_body_bytes))
    if settings.workers == 1:
        streams = Streams(
            batcher,
            settings.streams or store.path / FILE,
            most=settings.max_entities,
            events_per_day=settings.events_per_day,
            gap=settings.stream_gap,
            tell=tell_event,
            count=counted.observe_stream,
            count_failure=counted.observe_stream_failure,
        )
        counted.open_events, counted.entities = streams.open_events, streams.counts
    azure, of_azure = None, list[ControllerRouterHandler]()
    if settings.azure:
        from hourglass.service.adapters.azure import azure_of
        from hourglass.service.api import azure as azured

        azure = azure_of(settings.models, settings.azure_data)
        of_azure.append(azured.router)
    asked_guard = guard or keys or allow
    parts = Parts(
        settings,
        registry,
        counted,
        answers,
        traffic,
        journal,
        watched,
        shadow,
        observers,
        batcher,
        room,
        asked_guard,
        recorder,
        streams,
        peers=peers,
        azure=azure,
    )

    def provide_parts() -> Parts:
        return parts

    async def ask_guard(
        connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
    ) -> None:
        """A coroutine, since Litestar asks plain functions in threads, side by side."""
        require_allowed(connection, handler, settings)
        connection.scope["state"][FOUND] = asked_guard(asked_of(connection, handler, settings))

    @asynccontextmanager
    async def serving(_: Litestar) -> AsyncIterator[None]:
        if peers:
            peers.listen()
        clocks = [asyncio.create_task(_poll(parts, poll_seconds, started := asyncio.Event()))]
        with suppress(TimeoutError):
            await asyncio.wait_for(started.wait(), START_SECONDS)
        clocks.append(asyncio.create_task(journal.clock()))
        clocks.append(asyncio.create_task(watched.clock()))
        clocks.append(asyncio.create_task(shadow.clock()))
        if recorder:
            clocks.append(asyncio.create_task(recorder.clock()))
        if keys:
            clocks.append(asyncio.create_task(_look_at_keys(keys, poll_seconds)))
        if streams:
            was_open = await streams.start()
            for receiver in receivers:
                receiver.begin(was_open)
            clocks.append(asyncio.create_task(streams.clock()))
        clocks += [asyncio.create_task(receiver.clock()) for receiver in receivers]
        if access:
            clocks.append(asyncio.create_task(access.clock()))
        if counted.shared:
            clocks.append(asyncio.create_task(_flush(counted)))
        yield
        for clock in clocks:
            clock.cancel()
        for ended in await asyncio.gather(*clocks, return_exceptions=True):
            if isinstance(ended, Exception):  # the others are ended well all the same
                _logger.error("a clock of the service had stopped", exc_info=ended)
        if peers:
            peers.close()
        if streams:
            await streams.close()
        if azure:
            await asyncio.to_thread(azure.close)
        registry.close()
        parts.batcher.close()
        journal.close()
        watched.close()
        shadow.close()
        if recorder:
            await recorder.close()
        counted.flush()
        if access:
            access.close()
        if traces:
            await asyncio.to_thread(traces.close)
        _logger.info("stopped: what had come is answered")

    routes: list[ControllerRouterHandler] = [
        scoring.router,
        scoring.named_router,
        models.router,
        reports.router,
        versions.router,
        replay.router,
        alarms.router,
        feedback.router,
        drift.router,
        challenger.router,
        streamed.router,
        inference.router,
        health.router,
        metrics.metrics,
        *of_azure,
    ]
    dependencies = {"parts": Provide(provide_parts, sync_to_thread=False)}
    origins = [each.strip() for each in settings.cors_origins.split(",") if each.strip()]
    app = Litestar(
        [
            *routes,
            docs.docs_router(routes, dependencies, settings),
            console.console_router(settings),
        ],
        dependencies=dependencies,
        guards=[ask_guard],
        exception_handlers=problem_handlers(
            counted, max_body_bytes=settings.max_body_bytes, root_path=settings.root_path
        ),
        cors_config=CORSConfig(allow_origins=origins) if origins else None,
        lifespan=[serving],
        logging_config=None,  # __main__ configures logging
        openapi_config=None,  # api/docs.py writes the document
        request_max_body_size=settings.max_body_bytes,
    )
    observed = enter(answers.observe(cast(ASGIApp, app)), parts)

    async def entrance(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope.get("state", {})[STATE] = parts  # from where front.protocol takes it
        await observed(scope, receive, send)

    return entrance


async def _poll(parts: Parts, seconds: float, started: asyncio.Event) -> None:
    while True:
        try:
            await parts.registry.look()
        except Exception:  # looking must go on, whatever the file system comes up with
            _logger.exception("looking at %s failed", parts.settings.models)
        started.set()
        await asyncio.sleep(seconds)


async def _look_at_keys(keys: Keys, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(keys.look)
        except Exception:  # as of models
            _logger.exception("looking at the file of keys failed")


async def _flush(metrics: Metrics) -> None:
    while True:
        await asyncio.sleep(FLUSH_SECONDS)
        metrics.flush()
