"""Mutated requests beside good ones over the same connections: who is answered with what, who is
not, and what the server is afterwards.

An exchange is a good request, some mutated ones, and a good one again, pipelined; or a good one and
then one of which nobody knows where it ends, and which closes. One in seven is cut anywhere and
comes in pieces, one in forty is from a client that shuts its writing side. The exchange's number
and the seed say what it sends.
"""

import random
import selectors
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic

from tests.artifacts import MIXED, make_artifact, publish
from tests.benchmarks.hard.connection import Connection, Exchange, as_parts
from tests.benchmarks.hard.good import FORMS, MODEL, ROWS, Good, make_goods
from tests.benchmarks.hard.mutations import Mutated, framed, unframed
from tests.benchmarks.hard.protocol import Line, Options, at_most, none_of
from tests.benchmarks.hard.tally import Tally
from tests.benchmarks.speed.server import resident_bytes
from tests.serving import Process

FLAT = 1.05  # resident memory at the end, over what it was after warm-up
SWEEP_SECONDS = 0.005  # between two looks at those who wait for a moment and not for bytes
TELL_SECONDS = 15
FINDS = (
    "5xx", "hang", "foreign", "lost", "lost after the client shut its side", "no HTTP",
    "an answer that nobody asked for", "a good request refused",
)  # fmt: skip


def measure(options: Options) -> list[Line]:
    with TemporaryDirectory() as folder:
        models = Path(folder)
        artifact = make_artifact()
        publish(models, MODEL, artifact)
        publish(models, "plain", make_artifact(seed=7))
        publish(models, "patched", make_artifact(seed=8))
        publish(models, "mixed", make_artifact(MIXED))
        with Process(models) as server:
            tally, memory = Tally(options.output / "finds"), list[int]()
            began = monotonic()
            fuzz(server, make_goods(artifact), tally, memory, options)
            seconds, died = monotonic() - began, server.popen.poll() is not None
        (options.output / "fuzz.log").write_text("".join(server.log[-10_000:]))
        return lines(tally, memory, seconds, died=died, log=server.log)


def lines(
    tally: Tally, memory: list[int], seconds: float, *, died: bool, log: Sequence[str]
) -> list[Line]:
    tenth = max(1, len(memory) // 10)
    after, end = median(memory[tenth : 2 * tenth] or memory), median(memory[-tenth:])
    answers = sum(tally.statuses.values())
    statuses = ", ".join(f"{status}: {n:,}" for status, n in sorted(tally.statuses.items()))
    return [
        Line(
            "mutated requests; good ones between them; connections; seconds",
            f"{tally.mutated:,}; {tally.good:,}; {tally.connections:,}; {seconds:.0f}",
        ),
        Line("answers by status", statuses),
        *(none_of(_WORDS.get(what, what), tally.finds[what]) for what in FINDS),
        none_of("deaths of the server", died),
        none_of("tracebacks in its log", sum(line.startswith("Traceback") for line in log)),
        at_most(
            f"resident memory at the end ({end / 2**20:.0f} MiB) over that after warm-up",
            end / after,
            FLAT,
        ),
        Line(
            "errors that are no problem+json; what is no request closed without a word",
            f"{tally.plain_errors:,} of {answers:,}; {tally.closed_without_a_word:,}",
        ),
    ]


_WORDS = {
    "5xx": "answers of 5xx",
    "hang": "hangs over 5 s",
    "foreign": "foreign answers",
    "lost": "lost answers",
    "a good request refused": "good requests refused",
    "no HTTP": "answers that are no HTTP",
    "an answer that nobody asked for": "answers that nobody asked for",
    "lost after the client shut its side": "answers lost after the client shut its writing side",
}


def plan(seed: int, index: int, goods: dict[str, list[Good]]) -> Exchange:
    """What an exchange sends, by its number. Those under way at once send other good rows."""
    draw = random.Random(seed << 48 | index)
    first, last = (goods[draw.choice(FORMS)][(2 * index + place) % ROWS] for place in range(2))
    if draw.random() < 0.3:
        requests: tuple[Good | Mutated, ...] = first, unframed(draw)
    else:
        requests = first, *(framed(draw) for _ in range(draw.randrange(2, 6))), last
    data = b"".join(each.data for each in requests)
    if draw.random() < 1 / 7:
        cuts = [draw.randrange(1, len(data)) for _ in range(draw.randrange(1, 4))]
        parts = as_parts(data, cuts, draw.choice((0.0, 0.002)))
    else:
        parts = [(0.0, data)]
    return Exchange(requests, parts, shuts=draw.random() < 1 / 40)


def fuzz(
    server: Process,
    goods: dict[str, list[Good]],
    tally: Tally,
    memory: list[int],
    options: Options,
) -> None:
    """One exchange after the other on each of the connections, until enough has been sent."""
    port = int(server.url.rpartition(":")[2])
    selector = selectors.DefaultSelector()
    index, busy = 0, set[Connection]()
    began = swept = told = looked = monotonic()

    def next_on(connection: Connection) -> bool:
        nonlocal index
        enough = (
            tally.mutated >= options.requests
            if options.requests is not None
            else monotonic() - began >= options.fuzz_seconds
        )
        if enough or server.popen.poll() is not None:
            return False
        exchange = plan(options.seed, index, goods)
        if connection.begin(index, exchange):
            assert connection.socket is not None
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            tally.connections += 1
        index += 1
        tally.mutated += sum(isinstance(each, Mutated) for each in exchange.requests)
        tally.good += sum(isinstance(each, Good) for each in exchange.requests)
        connection.send(monotonic())
        return True

    def go_on(connection: Connection, now: float) -> None:
        before = connection.socket
        while connection.is_done(now):
            if connection.socket is None and before is not None:
                selector.unregister(before)
            if not next_on(connection):
                busy.discard(connection)
                if connection.socket is not None:
                    selector.unregister(connection.socket)
                    connection.close()
                return
            before = connection.socket

    for number in range(options.connections):
        busy.add(connection := Connection(port, number, tally))
        next_on(connection)
    while busy:
        for key, _ in selector.select(SWEEP_SECONDS):
            now = monotonic()
            key.data.receive(now)
            go_on(key.data, now)
        now = monotonic()
        if now - swept >= SWEEP_SECONDS:
            swept = now
            for connection in list(busy):
                connection.send(now)
                go_on(connection, now)
        if now - looked >= 1:
            looked = now
            memory.append(resident_bytes(server.popen.pid))
        if now - told >= TELL_SECONDS:
            told = now
            finds = ", ".join(f"{what}: {n}" for what, n in tally.finds.items())
            rate = tally.mutated / (now - began)
            print(f"{tally.mutated:,} mutated, {rate:.0f}/s; {finds}", file=sys.stderr, flush=True)
    memory.append(resident_bytes(server.popen.pid))
