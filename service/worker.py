"""worker_app(settings): what each worker process runs, and what is asked of that process for it."""

import logging
import os
import socket
from pathlib import Path

import uvicorn
from prometheus_client import Counter
from uvicorn.supervisors import Multiprocess

from hourglass.service.app import create_app
from hourglass.service.machine import collector, heap, turns
from hourglass.service.settings import Settings
from hourglass.service.watch.metrics import WORKER_DEATHS
from hourglass.service.watch.traces import traces_of

_logger = logging.getLogger("hourglass.service")


def worker_app(settings: Settings, shared: Path | None = None) -> collector.ASGIApp:
    """The app; called on the thread of the event loop, which then has short turns on its CPU.

    `shared` is the folder of several workers.
    """
    heap.keep_freed()
    turns.shorten()
    traces = traces_of(os.environ)
    app = create_app(settings, after_load=heap.give_back_freed, shared=shared, traces=traces)
    return collector.freeze_when_started(app)


class Server(uvicorn.Server):
    """uvicorn's, which stops without a word."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        connections = len(self.server_state.connections)
        _logger.info("stopping; %s", _said_of(connections, "connection"))
        await super().shutdown(sockets)


class Supervisor(Multiprocess):
    """uvicorn's, which puts another worker in the place of one that died, and says nothing of it.

    The counter lies in the workers' folder, so that each of them exposes it.
    """

    def init_processes(self) -> None:
        self._deaths = Counter(*WORKER_DEATHS, registry=None)
        super().init_processes()

    def keep_subprocess_alive(self) -> None:
        before = list(self.processes)
        super().keep_subprocess_alive()
        for process in before:
            if process not in self.processes:
                self._deaths.inc()
                code = process.exitcode or 0
                how = f"by signal {-code}" if code < 0 else f"with status {code}"
                _logger.error("worker %s died %s; another one takes its place", process.pid, how)

    def handle_int(self) -> None:
        self.handle_term()

    def handle_term(self) -> None:
        _logger.info("stopping; %s", _said_of(len(self.processes), "worker"))
        super().handle_term()


def _said_of(count: int, what: str) -> str:
    return f"{count} {what}{'s'[: count != 1]} end when what has come is answered"
