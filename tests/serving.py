"""Running the service for a test: in a thread of this process, or as a process of its own; on a
free port either way.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import httpx
import uvicorn

from hourglass.service.api.parts import Guard
from hourglass.service.app import create_app
from hourglass.service.front import connection
from hourglass.service.front.protocol import ScoringProtocol
from hourglass.service.settings import Settings
from hourglass.service.watch.traces import Traces

ROOT = Path(__file__).parents[1]


@contextmanager
def serving(
    models: Path,
    *,
    fast: bool = False,
    guard: Guard | None = None,
    traces: Traces | None = None,
    server_options: Mapping[str, object] = MappingProxyType({}),
    **settings: object,
) -> Iterator[httpx.Client]:
    """A client of the real app behind a real server, in a thread; by the ordinary way alone, or
    with the fast path.
    """
    app = create_app(Settings(models=models, **settings), guard=guard, traces=traces)
    options = {
        "http": ScoringProtocol if fast else connection.Connection,
        "access_log": False,
        **server_options,
    }
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on", **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            client.server = server
            yield client
    finally:
        server.should_exit = True
        thread.join()


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for what another thread or process is about to do."""
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Connection:
    """A socket to the server, for bytes as they are."""

    def __init__(self, client: httpx.Client) -> None:
        self.socket = socket.create_connection(
            (client.base_url.host, client.base_url.port), timeout=20
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self.socket.makefile("rb")

    def send(self, *parts: bytes, pause_seconds: float = 0.0) -> None:
        for part in parts:
            self.socket.sendall(part)
            time.sleep(pause_seconds)

    def answer(self, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        line = self._reader.readline()
        assert line, "the server closed the connection"
        headers = {}
        while (header := self._reader.readline().strip()) != b"":
            name, _, value = header.decode().partition(": ")
            headers[name] = value
        return (
            int(line.split()[1]),
            headers,
            self._reader.read(int(headers.get("content-length", 0))) if body else b"",
        )

    def rest(self) -> bytes:
        """Everything until the server closes."""
        return self._reader.read()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self.socket.close()


class Process:
    """`python -m hourglass.service serve` on a free port; `before` is what the command begins with,
    if another program is to start it.
    """

    def __init__(
        self,
        models: Path,
        *flags: str,
        before: Sequence[str | Path] = (),
        **environment: str,
    ) -> None:
        self.popen = subprocess.Popen(
            [
                *before,
                sys.executable,
                "-m",
                "hourglass.service",
                "serve",
                "--models",
                str(models),
                "--port",
                "0",
                *flags,
            ],
            cwd=ROOT,
            env=os.environ | environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.log: list[str] = []
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        self.url = self._wait_for_url()

    def stop(self, sent: signal.Signals = signal.SIGTERM, *, timeout: float = 120) -> int:
        """Send the signal, wait for the end, return the exit status."""
        self.popen.send_signal(sent)
        return self.wait(timeout)

    def wait(self, timeout: float = 120) -> int:
        status = self.popen.wait(timeout)
        self._reading.join()
        return status

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        if self.popen.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
        self.wait()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        with self.popen.stderr:
            self.log.extend(iter(self.popen.stderr.readline, ""))

    def _wait_for_url(self) -> str:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.popen.poll() is None:
            for line in list(self.log):
                if (found := re.search(r"http://[\d.]+:\d+", line)) and _answers(found[0]):
                    return found[0]
            time.sleep(0.02)
        self.popen.kill()
        raise AssertionError("the server did not start:\n" + "".join(self.log))


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/health/live").status_code == 200
    return False


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
