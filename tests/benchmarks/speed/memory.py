"""Memory over hundreds of reloads and hundreds of thousands of requests: it must not grow."""

import threading
from http.client import HTTPConnection
from statistics import median
from time import perf_counter
from typing import NamedTuple

import msgspec
import onnx

from hourglass.service.model.artifact import version_of
from hourglass.service.serving.store import ModelFolder
from tests.benchmarks.speed.bench import Bench, tell
from tests.benchmarks.speed.figure import Figure, Target
from tests.benchmarks.speed.models import Model
from tests.benchmarks.speed.parts import BULK_CONNECTIONS, MEBIBYTE, alone, running
from tests.benchmarks.speed.requests import RAW, make_query, raw_rows
from tests.benchmarks.speed.server import Server, ServerFailed

RELOADS, REQUESTS = 200, 200_000
WARM_UP = 0.1  # share of both that comes before memory is first looked at
LOOKS = 3
RELOAD_SECONDS = 0.2
LEG_SECONDS = 5
LIMIT_SECONDS = 1800
GROWTH = Target(1.05, 1.05, at_most=True)


class Sample(NamedTuple):
    """After so many reloads and requests."""

    reloads: int
    requests: int
    mebibytes: float


def memory(bench: Bench) -> list[Figure]:
    """Two versions of one model take turns while single rows are answered; bodies of many rows
    between them.
    """
    model = alone(bench.model(32), bench.work / "memory")
    versions = (version_of(model.path.read_bytes()), _publish_again(model))
    single, many = make_query(model, 1, count=16), make_query(model, 1024, count=4)
    raw = make_query(model, 1024, count=4, encode=raw_rows, content_type=RAW)
    samples, wrong, began = [], 0, perf_counter()
    with running(bench.ours(model.folder)) as (server,):
        loads = [bench.load(server, query, BULK_CONNECTIONS) for query in (many, raw)]
        load = bench.load(server, single, 64)
        reloads = requests = 0
        while reloads < RELOADS or requests < REQUESTS:
            if perf_counter() - began > LIMIT_SECONDS:
                raise ServerFailed(
                    f"there were only {reloads} reloads and {requests} requests in"
                    f" {LIMIT_SECONDS} s"
                )
            with _Reloading(server, model, versions) as reloading:
                found = [load.measure(LEG_SECONDS)]
            found += [each.measure(1) for each in loads]
            reloads += reloading.done
            requests += sum(each.checked for each in found)
            wrong += sum(each.wrong for each in found) + reloading.failed
            samples.append(Sample(reloads, requests, server.resident_bytes() / MEBIBYTE))
            tell(
                f"memory: {reloads} reloads, {requests} requests, {samples[-1].mebibytes:.1f} MiB;"
                f" {wrong} wrong"
            )
    return [memory_figure(samples, wrong, perf_counter() - began)]


def memory_figure(samples: list[Sample], wrong: int, seconds: float) -> Figure:
    """The median of the last looks against that of the first ones after the warm-up."""
    warm = [
        each
        for each in samples
        if each.reloads >= WARM_UP * RELOADS and each.requests >= WARM_UP * REQUESTS
    ]
    first, last = warm[0], warm[-1]
    early, late = (
        median(each.mebibytes for each in some) for some in (warm[:LOOKS], warm[-LOOKS:])
    )
    looks = ", ".join(f"{each.mebibytes:.0f}" for each in samples)
    return Figure(
        part="memory",
        name=f"resident memory after {last.reloads} reloads and {last.requests:,} requests",
        unit=f"× that after {first.reloads} and {first.requests:,}",
        values=(late / early,),
        target=GROWTH,
        cost_unit="MiB",
        ours=(late,),
        against="then",
        theirs=(early,),
        checked=last.requests,
        wrong=wrong,
        note=f"The memory part ran for {seconds:.0f} s; MiB at each look: {looks}",
    )


class _Reloading:
    """Moves the pointer and asks the server to look, again and again, until the context is left."""

    def __init__(self, server: Server, model: Model, versions: tuple[str, str]) -> None:
        self.done = self.failed = 0
        self._server, self._model, self._versions = server, model, versions
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._reload, daemon=True)

    def __enter__(self) -> "_Reloading":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _reload(self) -> None:
        while not self._end.wait(RELOAD_SECONDS):
            self.done += 1
            version = self._versions[self.done % 2]
            ModelFolder(self._model.folder / self._model.name).point(version)
            connection = HTTPConnection("127.0.0.1", self._server.port, timeout=30)
            connection.request("POST", f"/v1/models/{self._model.name}/reload")
            answer = connection.getresponse().read()
            connection.close()
            if msgspec.json.decode(answer).get("version") != version:
                self.failed += 1
                tell(f"a reload to {version[:12]} answered {answer[:300]!r}")


def _publish_again(model: Model) -> str:
    """The same model as another version: a comment makes another file of it."""
    again = onnx.load(model.path)
    again.doc_string = "the same again"
    return ModelFolder(model.folder / model.name).publish(again.SerializeToString(), {})
