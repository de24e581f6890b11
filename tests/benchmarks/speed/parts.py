"""The parts of the benchmark that need nobody else's software."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter

import numpy as np

from tests.benchmarks.speed import openloop
from tests.benchmarks.speed.bench import Bench, Pair, tell
from tests.benchmarks.speed.figure import Figure, Target
from tests.benchmarks.speed.models import Model
from tests.benchmarks.speed.openloop import Latency, Stream, at_rate
from tests.benchmarks.speed.raw import Raw, RawLeg
from tests.benchmarks.speed.requests import RAW, Query, infer_rows, make_query, raw_rows
from tests.benchmarks.speed.server import Server, ServerFailed

CONNECTIONS = (1, 16, 64, 256)
BULK_CONNECTIONS = 4
LATENCY_SECONDS = 3
DOUBTFUL = 0.25  # share of a p99 that the client is late itself
MEBIBYTE = 2**20


def one_row(bench: Bench) -> list[Figure]:
    """One JSON row against the bare echo, by connections, route and width."""
    narrow, wide = bench.model(32), bench.model(784)
    query, wide_query = make_query(narrow, 1, count=16), make_query(wide, 1, count=16)
    with running(bench.echo(), bench.ours(narrow.folder), bench.ordinary(narrow.folder)) as (
        echo,
        ours,
        ordinary,
    ):
        pairs = []
        for connections in CONNECTIONS:
            name = f"one JSON row, d = 32, {connections} connection{'s' * (connections > 1)}"
            theirs = bench.load(echo, echoed(query), connections)
            target = Target(1.0, 1.2) if connections == 1 else Target(1.6, 2.5)
            pairs.append(
                Pair(name, "× echo", "echo", theirs, bench.load(ours, query, connections), target)
            )
            if connections in (1, 64):
                other = bench.load(ordinary, query, connections)
                pairs.append(Pair(f"{name}, ordinary route", "× echo", "echo", theirs, other))
        for connections in (16, 64):
            name = f"one JSON row, d = 784, {connections} connections"
            theirs = bench.load(echo, echoed(wide_query), connections)
            mine = bench.load(ours, wide_query, connections)
            pairs.append(Pair(name, "× echo", "echo", theirs, mine, Target(0.7, 1.0)))
        return bench.compare("one row", pairs)


def access_log(bench: Bench) -> list[Figure]:
    """One JSON row with the access log, in JSON, against the same without it."""
    model = bench.model(32)
    query, logged = make_query(model, 1, count=16), ("--access-log", "--log-format", "json")
    with running(bench.ours(model.folder), bench.ours(model.folder, *logged)) as (plain, logging):
        pairs = [
            Pair(
                f"one JSON row, d = 32, {connections} connections, access log",
                "× without",
                "without",
                bench.load(plain, query, connections),
                bench.load(logging, query, connections),
                Target(0.95, 1.0),
            )
            for connections in (1, 16, 64)
        ]
        return bench.compare("access log", pairs)


def bulk(bench: Bench) -> list[Figure]:
    """Many rows in a body against what onnxruntime alone does with as many."""
    targets = {
        (32, "float32"): Target(0.70, 0.85),
        (128, "float32"): Target(0.80, 0.95),
        (32, "JSON"): Target(0.18, 0.25),
        (128, "JSON"): Target(0.28, 0.35),
    }
    models = [bench.model(width) for width in (32, 128)]
    with running(bench.ours(models[0].folder)) as (ours,), ExitStack() as stack:
        pairs, limits = [], []
        for model in models:
            raw = stack.enter_context(Raw(model, bench.cores.server, bench.work / "raw"))
            many = RawLeg(raw, 1024)
            limits.append(many)
            if model is models[0]:
                some, few = (
                    RawLeg(raw, 64),
                    bench.load(ours, make_query(model, 64, count=8), BULK_CONNECTIONS),
                )
                pairs.append(
                    Pair(
                        f"64 JSON rows, d = {model.width}",
                        "of onnxruntime",
                        "onnxruntime",
                        some,
                        few,
                        rows=64,
                    )
                )
            raw_body = {"encode": raw_rows, "content_type": RAW}
            for kind, encoding in (
                ("float32", {**raw_body, "raw_answer": True}),
                ("float32 (answered in JSON)", raw_body),
                ("JSON", {}),
            ):
                loaded = bench.load(
                    ours, make_query(model, 1024, count=4, **encoding), BULK_CONNECTIONS
                )
                target = targets.get((model.width, kind))
                name = f"1024 {kind} rows, d = {model.width}"
                pairs.append(
                    Pair(name, "of onnxruntime", "onnxruntime", many, loaded, target, rows=1024)
                )
        return bench.compare("bulk", pairs, also=limits)


def latency(bench: Bench) -> list[Figure]:
    """p99 at a fixed rate against the echo's at the same."""
    model = bench.model(32)
    query = make_query(model, 1, count=16)
    figures = []
    with running(bench.echo(), bench.ours(model.folder)) as (echo, ours):
        for rate in (500, 1000):
            legs = {
                "echo": (echo, [at_rate(echoed(query), rate, LATENCY_SECONDS)]),
                "ours": (ours, [at_rate(query, rate, LATENCY_SECONDS)]),
            }
            found = _open_loops(bench, legs)
            name = f"p99 of one row at {rate} requests/s"
            figures.append(
                _latency_figure(
                    name, "× echo", "echo", found["ours"], found["echo"], Target(1.25, 1.0, True)
                )
            )
    return figures


def mixed(bench: Bench) -> list[Figure]:
    """p99 of single rows while bodies of 4096 x 128 arrive 5 a second, against the same without
    them.
    """
    model, wide = bench.model(32), bench.model(128)
    single = at_rate(make_query(model, 1, count=16), 500, LATENCY_SECONDS)
    bodies = {
        "float32": at_rate(
            make_query(wide, 4096, count=4, encode=raw_rows, content_type=RAW), 5, LATENCY_SECONDS
        ),
        "JSON": at_rate(make_query(wide, 4096, count=4), 5, LATENCY_SECONDS),
    }
    with running(bench.ours(model.folder)) as (ours,):
        legs = {
            "alone": (ours, [single]),
            **{kind: (ours, [single, body]) for kind, body in bodies.items()},
        }
        found = _open_loops(bench, legs)
    return [
        _latency_figure(
            f"p99 of one row at {single.per_second:g}/s beside 5 {kind} bodies of 4096 × 128 a"
            " second",
            "× without",
            "without",
            found[kind],
            found["alone"],
            Target(4, 2, True),
        )
        for kind in bodies
    ]


def start(bench: Bench) -> list[Figure]:
    """From exec to the first answer, and memory with one small model after a second of load."""
    model = alone(bench.model(32), bench.work / "one")
    query = make_query(model, 1, count=16)
    spent, waited, resident = [], [], []
    for number in range(bench.rounds + 1):
        with bench.ours(model.folder) as server:
            began = perf_counter()
            answer = server.ask(query)
            cpu, wall = server.cpu_seconds(), perf_counter() - began
            if not query.is_right(0, answer):
                raise ServerFailed(f"the first answer is wrong: {answer[:300]!r}")
            bench.load(server, query, 64).measure(1)
            held = server.resident_bytes()
        tell(f"start {number}: {cpu:.3f} s of CPU, {wall:.3f} s; {held / MEBIBYTE:.1f} MiB")
        if number:  # the first one compiles and fills the page cache
            spent.append(cpu)
            waited.append(wall)
            resident.append(held / MEBIBYTE)
    return [
        Figure(
            part="start",
            name="start to first answer",
            unit="CPU s",
            values=tuple(spent),
            target=Target(0.85, 0.45, at_most=True),
            cost_unit="s by the clock",
            ours=tuple(waited),
        ),
        Figure(
            part="start",
            name="resident memory, one small model",
            unit="MiB",
            values=tuple(resident),
            target=Target(110, 80, at_most=True),
        ),
    ]


def infer(bench: Bench) -> list[Figure]:
    """The Open Inference Protocol's route, where this revision has it."""
    narrow, wide = bench.model(32), bench.model(128)
    path = "/v2/models/{}/infer"
    query = make_query(
        narrow, 1, count=16, encode=infer_rows, path=path.format(narrow.name), before='"data":'
    )
    many = make_query(
        wide, 1024, count=4, encode=infer_rows, path=path.format(wide.name), before='"data":'
    )
    names = (
        "/v2 infer, one JSON row, d = 32, 64 connections",
        "/v2 infer, 1024 JSON rows, d = 128",
    )
    with (
        running(bench.echo(), bench.ours(narrow.folder)) as (echo, ours),
        Raw(wide, bench.cores.server, bench.work / "raw") as raw,
    ):
        answer = ours.ask(query)
        if not query.is_right(0, answer):
            reason = answer.split(b"\r\n")[0].decode(errors="replace")
            return [
                Figure(part="v2", name=name, unit="", failure=f"this revision answers {reason}")
                for name in names
            ]
        theirs = bench.load(echo, echoed(query), 64)
        pairs = [
            Pair(names[0], "× echo", "echo", theirs, bench.load(ours, query, 64)),
            Pair(
                names[1],
                "of onnxruntime",
                "onnxruntime",
                RawLeg(raw, 1024),
                bench.load(ours, many, BULK_CONNECTIONS),
                rows=1024,
            ),
        ]
        return bench.compare("v2", pairs)


@contextmanager
def running(*servers: Server) -> Iterator[tuple[Server, ...]]:
    """All of them, listening."""
    with ExitStack() as stack:
        for server in servers:
            stack.enter_context(server)
        for server in servers:
            server.wait_until_listening()
        yield servers


def echoed(query: Query) -> Query:
    """The same requests, answered by the echo."""
    return query._replace(expected=tuple(np.ones(1) for _ in query.bodies), before='"score":')


def alone(model: Model, folder: Path) -> Model:
    """A folder with this model only."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model.folder / model.name, folder / model.name)
    return model._replace(folder=folder)


def _open_loops(
    bench: Bench, legs: dict[str, tuple[Server, Sequence[Stream]]]
) -> dict[str, list[Latency]]:
    """The first stream's latency of every leg, in rounds, after one that warms the servers up."""
    for server, streams in legs.values():
        openloop.run(server.port, streams)
    found: dict[str, list[Latency]] = {name: [] for name in legs}
    for number in range(bench.rounds):
        for name, (server, streams) in legs.items():
            all_of_them = openloop.run(server.port, streams)
            one = all_of_them[0]._replace(
                wrong=sum(each.wrong for each in all_of_them),
                checked=sum(each.checked for each in all_of_them),
            )
            found[name].append(one)
            tell(
                f"round {number + 1}: {name}: p50 {one.percentile(50) * 1e6:.0f} µs, p99"
                f" {one.percentile(99) * 1e6:.0f} µs; the client was late by"
                f" {np.percentile(one.late_seconds, 99) * 1e6:.0f} µs in the p99"
            )
    return found


def _latency_figure(
    name: str,
    unit: str,
    against: str,
    ours: Sequence[Latency],
    theirs: Sequence[Latency],
    target: Target,
) -> Figure:
    ours_p99, theirs_p99 = ([each.percentile(99) for each in side] for side in (ours, theirs))
    late = max(float(np.percentile(each.late_seconds, 99)) for each in (*ours, *theirs))
    return Figure(
        part="latency",
        name=name,
        unit=unit,
        values=tuple(our / their for our, their in zip(ours_p99, theirs_p99, strict=True)),
        target=target,
        cost_unit="µs p99",
        ours=tuple(value * 1e6 for value in ours_p99),
        against=against,
        theirs=tuple(value * 1e6 for value in theirs_p99),
        checked=sum(each.checked for each in ours),
        wrong=sum(each.wrong for each in (*ours, *theirs)),
        note=(
            f"{name}: p50 {np.median([each.percentile(50) for each in ours]) * 1e6:.0f} µs; the"
            f" client came to 99 % of its requests within {late * 1e6:.0f} µs of their plan"
        ),
        in_doubt=late > DOUBTFUL * min(theirs_p99),
    )
