"""What every part of the benchmark works with, and how legs become figures."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.speed import models
from tests.benchmarks.speed.figure import Figure, Target
from tests.benchmarks.speed.leg import Counted, Leg, Loaded, Measured, in_rounds
from tests.benchmarks.speed.models import Model
from tests.benchmarks.speed.requests import Query
from tests.benchmarks.speed.server import Cores, Server

BULK_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Bench:
    """One run of it."""

    cores: Cores
    rounds: int
    seconds: int  # of a leg
    config: Path  # of the models
    work: Path  # folder for what is made on the way

    def model(self, width: int) -> Model:
        return models.fit(width, self.config, self.work / "models")

    def server(self, name: str, *command: str, environ: Mapping[str, str] | None = None) -> Server:
        """Started on the server's core, not yet listening."""
        return Server(
            name,
            command,
            self.cores.server,
            log=self.work / "logs" / f"{name}.log",
            environ=environ,
        )

    def ours(self, folder: Path, *flags: str) -> Server:
        """`hourglass serve`."""
        return self.server(
            " ".join(("hourglass", *flags)),
            sys.executable,
            "-m",
            "hourglass.service",
            "serve",
            "--models",
            str(folder),
            "--port",
            "{port}",
            *flags,
        )

    def ordinary(self, folder: Path) -> Server:
        """The same app under uvicorn's own protocol, as any other ASGI server would run it."""
        return self.server(
            "ordinary",
            sys.executable,
            "-m",
            "tests.benchmarks.speed.ordinary",
            str(folder),
            "{port}",
        )

    def echo(self) -> Server:
        """Uvicorn with nothing to do."""
        app = [
            "tests.benchmarks.speed.echo:app",
            "--port",
            "{port}",
            "--lifespan",
            "off",
            "--log-level",
            "warning",
        ]
        fast = ["--http", "httptools", "--loop", "uvloop", "--no-access-log", "--no-server-header"]
        return self.server("echo", sys.executable, "-m", "uvicorn", *app, *fast)

    def load(self, server: Server, query: Query, connections: int) -> Loaded | Counted:
        """From the other core."""
        if query.rows >= BULK_ROWS:
            return Counted(server, query, connections)
        return Loaded(server, query, connections, core=self.cores.load)

    def compare(
        self, part: str, pairs: "Sequence[Pair]", *, also: Sequence[Leg] = ()
    ) -> list[Figure]:
        """All legs in rounds, and each pair's ratio round by round; of what is measured also, rows
        a second.
        """
        legs = [*also, *(leg for pair in pairs for leg in (pair.theirs, pair.ours))]
        measured = in_rounds(legs, self.rounds, self.seconds, tell)
        return [
            *(_limit(part, leg.name, measured[leg.name]) for leg in also),
            *(pair.figure(part, measured) for pair in pairs),
        ]


class Pair(NamedTuple):
    """What is compared: how many times our cost fits into theirs."""

    name: str
    unit: str
    against: str
    theirs: Leg
    ours: Leg
    target: Target | None = None
    rows: int = 1  # of our request, where theirs is measured by the row

    def figure(self, part: str, measured: Mapping[str, Sequence[Measured]]) -> Figure:
        ours, theirs = measured[self.ours.name], measured[self.theirs.name]
        our_costs = [each.cpu_seconds / self.rows for each in ours]
        return Figure(
            part=part,
            name=self.name,
            unit=self.unit,
            values=tuple(
                their.cpu_seconds / cost for their, cost in zip(theirs, our_costs, strict=True)
            ),
            target=self.target,
            ours=tuple(cost * 1e6 for cost in our_costs),
            against=self.against,
            theirs=tuple(each.cpu_seconds * 1e6 for each in theirs),
            per_second=tuple(each.per_second for each in ours),
            checked=sum(each.checked for each in (*ours, *theirs)),
            wrong=sum(each.wrong for each in (*ours, *theirs)),
        )


def _limit(part: str, name: str, measured: Sequence[Measured]) -> Figure:
    """What there is at most, in rows for a second of CPU."""
    costs = tuple(each.cpu_seconds for each in measured)
    return Figure(
        part=part,
        name=name,
        unit="rows/CPU s",
        values=tuple(1 / cost for cost in costs),
        theirs=tuple(cost * 1e6 for cost in costs),
        against="a row",
    )


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
