"""A server process on one core of its own, and what it costs: CPU time, memory."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.benchmarks.machine import ROOT
from tests.benchmarks.speed.requests import Query, answer_bytes

START_SECONDS = 120
IDLE_SECONDS = 5


class ServerFailed(Exception):
    """The reason, in a sentence."""


class Cores:
    """The core that servers are pinned to, and the one that the load comes from."""

    def __init__(self) -> None:
        available = sorted(os.sched_getaffinity(0))
        if len(available) < 2:
            raise ServerFailed("two cores are needed: one for the server, one for the load")
        self.server, self.load = available[:2]


class Server:
    """A command that listens on 127.0.0.1; ended with its children when the context is left.

    `{port}` in the command and its variables stands for the port it is asked on, `{free}` for any
    other.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        core: int,
        *,
        log: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.port = name, free_port()
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                ["taskset", "--cpu-list", str(core), *map(self._fill, command)],
                cwd=ROOT,
                env=one_thread({key: self._fill(value) for key, value in (environ or {}).items()}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        for sent, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
            with suppress(ProcessLookupError):
                os.killpg(self.popen.pid, sent)
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(seconds)
        with suppress(ProcessLookupError):  # children that outlived it
            os.killpg(self.popen.pid, signal.SIGKILL)

    def wait_until_listening(self) -> None:
        self.connect().close()

    def connect(self) -> socket.socket:
        """As soon as it listens; ServerFailed with its last line when it ends before, or takes
        longer than START_SECONDS.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.popen.poll() is not None:
                raise ServerFailed(f"{self.name} ended at its start: {last_line(self.log)}")
            with suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", self.port), timeout=1)
                connection.settimeout(START_SECONDS)
                return connection
            time.sleep(0.005)
        raise ServerFailed(
            f"{self.name} was not listening after {START_SECONDS} s: {last_line(self.log)}"
        )

    def wait_until_right(self, query: Query) -> None:
        """Until it answers the first request with the scores expected: many listen before their
        model is there.
        """
        deadline = time.monotonic() + START_SECONDS
        answer = b"nothing"
        while time.monotonic() < deadline:
            with suppress(OSError):
                answer = self.ask(query)
                if query.is_right(0, answer):
                    return
            time.sleep(0.2)
        raise ServerFailed(
            f"{self.name} did not give the right answer, but {answer[:300]!r};"
            f" {last_line(self.log)}"
        )

    def ask(self, query: Query) -> bytes:
        """Its whole answer, with the head, to the first request, sent as soon as it listens."""
        with self.connect() as connection:
            connection.sendall(query.request(0))
            answer = b""
            while not (wanted := answer_bytes(answer)) or len(answer) < wanted:
                received = connection.recv(2**16)
                if not received:
                    raise ConnectionError(
                        f"{self.name} closed the connection after {answer[:300]!r}"
                    )
                answer += received
        return answer

    def _fill(self, text: str) -> str:
        return text.replace("{port}", str(self.port)).replace("{free}", str(free_port()))

    def cpu_seconds(self) -> float:
        """CPU time of the process and its living children, all threads, whether they have ended or
        not.
        """
        return sum(cpu_seconds(pid) for pid in family(self.popen.pid))

    def wait_until_idle(self) -> None:
        """Until what it was asked is done: hardly any CPU time is spent any more."""
        deadline = time.monotonic() + IDLE_SECONDS
        spent = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(0.03)
            before, spent = spent, self.cpu_seconds()
            if spent - before < 0.003:
                return

    def resident_bytes(self) -> int:
        """What the process and its living children hold in memory; pages they share count for
        each.
        """
        return sum(resident_bytes(pid) for pid in family(self.popen.pid))


def one_thread(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process on one core, where more threads only get into each other's
    way.
    """
    threads = dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1"
    )
    return {**os.environ, **threads, "ORT_DISABLE_TELEMETRY": "1", **(environ or {})}


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, to the nanosecond: its clock, as clock_getcpuclockid(3) makes it of
    the pid.
    """
    with suppress(OSError):
        return time.clock_gettime((~pid << 3) | 2)
    return 0.0


def resident_bytes(pid: int) -> int:
    with suppress(OSError):
        return status_bytes(Path(f"/proc/{pid}/status").read_text(), "VmRSS")
    return 0


def status_bytes(text: str, field: str) -> int:
    """A field of /proc/PID/status that is given in kB; 0 where there is none, as of a process that
    has ended.
    """
    line = next(
        (line for line in text.splitlines() if line.startswith(f"{field}:")), f"{field}: 0 kB"
    )
    return int(line.split()[1]) * 1024


def family(pid: int) -> list[int]:
    """The process and its descendants."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, children.read_text().split())
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
