"""The parts of the benchmark that need no peers."""

from contextlib import ExitStack

import numpy as np

from tests.benchmarks.speed.bench import Bench, Pair
from tests.benchmarks.speed.figure import Figure, Target
from tests.benchmarks.speed.leg import Loaded
from tests.benchmarks.speed.requests import Query, make_query

CONNECTIONS = (1, 16, 64, 256)


def one_row(bench: Bench) -> list[Figure]:
    """One JSON row against the bare echo, by connections and route."""
    narrow = bench.model(32)
    query = make_query(narrow, 1, count=16)
    echoed = query._replace(expected=tuple(np.ones(1) for _ in query.bodies))
    with ExitStack() as stack:
        echo, ours, ordinary = (
            stack.enter_context(server)
            for server in (bench.echo(), bench.ours(narrow.folder), bench.ordinary(narrow.folder))
        )
        for server in (echo, ours, ordinary):
            server.wait_until_listening()

        def loaded(server, query: Query, connections: int) -> Loaded:
            return Loaded(server, query, connections, core=bench.cores.load, check=server is not echo)

        pairs = []
        for connections in CONNECTIONS:
            target = Target(1.0, 1.2) if connections == 1 else Target(1.6, 2.5)
            theirs = loaded(echo, echoed, connections)
            for route, server in (("", ours), (", ordinary route", ordinary)):
                name = f"one JSON row, d = 32, {connections} connection{'s' * (connections > 1)}{route}"
                mine = loaded(server, query, connections)
                pairs.append(Pair(name, "× echo", "echo", theirs, mine, None if route else target))
        return bench.compare("one row", pairs)
