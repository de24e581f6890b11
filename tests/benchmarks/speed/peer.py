"""Others who serve the same model: each in an environment of its own, with one worker and one
thread.
"""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests import environment
from tests.benchmarks.speed.bench import Bench, Pair, tell
from tests.benchmarks.speed.figure import Figure, Target
from tests.benchmarks.speed.models import Model, make_rows
from tests.benchmarks.speed.parts import MEBIBYTE, alone, running
from tests.benchmarks.speed.requests import Query, infer_rows, make_query
from tests.benchmarks.speed.server import Server, ServerFailed, one_thread
from tests.benchmarks.speed.wrk import WrkFailed

APPS = Path(__file__).with_name("peers")
ONE_ROW_CONNECTIONS, MANY_ROWS_CONNECTIONS = 64, 16
QUIET = ("--host", "127.0.0.1", "--quiet")
UVICORN = (
    "python",
    "-m",
    "uvicorn",
    "--app-dir",
    str(APPS),
    "--port",
    "{port}",
    "--no-access-log",
    "--log-level",
    "warning",
)


class Peer(NamedTuple):
    """How one is started and asked."""

    name: str
    command: Sequence[str]  # of its environment
    one: Target  # one row
    many: Target | None = None  # 64 rows
    environ: Mapping[str, str] = {}
    infer_path: str | None = None  # where it speaks the Open Inference Protocol

    @property
    def key(self) -> str:
        return self.name.lower()

    @property
    def requirements(self) -> Path:
        return APPS / "requirements" / f"{self.key}.txt"

    def query(self, model: Model, rows: int, count: int) -> Query:
        if self.infer_path:
            return make_query(
                model, rows, count=count, encode=infer_rows, path=self.infer_path, before='"data":'
            )
        return make_query(model, rows, count=count, path="/score")


PEERS = (
    Peer("FastAPI", (*UVICORN, "fastapi_app:app"), Target(8, 15), Target(10, 15)),
    Peer(
        "MLServer",
        ("mlserver", "start", str(APPS)),
        Target(15, 25),
        Target(4, 6),
        {
            "MLSERVER_MODEL_NAME": "model",
            "MLSERVER_MODEL_IMPLEMENTATION": "mlserver_app.Runtime",
            # in the server's own process: one less to pass rows to
            "MLSERVER_PARALLEL_WORKERS": "0",
            "MLSERVER_DEBUG": "false",
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": "{free}",
            "MLSERVER_METRICS_PORT": "{free}",
            "MLSERVER_METRICS_DIR": "{folder}",
        },
        infer_path="/v2/models/model/infer",
    ),
    Peer(
        "BentoML",
        (
            "bentoml",
            "serve",
            "bentoml_app:Scorer",
            "--working-dir",
            str(APPS),
            "--port",
            "{port}",
            *QUIET,
        ),
        Target(30, 50),
        environ={"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": "{folder}"},
    ),
    Peer("LitServe", ("python", str(APPS / "litserve_app.py"), "{port}"), Target(30, 50)),
    Peer(
        "Robyn",
        ("python", str(APPS / "robyn_app.py"), "--log-level", "WARN", "{port}"),
        Target(2.5, 5),
    ),
    Peer("PyOD", (*UVICORN, "pyod_app:app"), Target(30, 60)),
)


def peers(bench: Bench) -> list[Figure]:
    """Each against ours in turn."""
    model = alone(bench.model(32), bench.work / "one")
    with running(bench.ours(model.folder)) as (ours,):
        return [
            figure
            for peer in PEERS
            for figure in attempt(peer, partial(_compare, bench, ours, model, peer))
        ]


def attempt(peer: Peer, compare: Callable[[], list[Figure]]) -> list[Figure]:
    """The figures, or those that are missing and why: who cannot be installed, started or asked is
    not left out.
    """
    try:
        return compare()
    except (environment.EnvironmentFailed, ServerFailed, WrkFailed, OSError) as error:
        tell(f"{peer.name}: {error}")
        rows = (1, 64) if peer.many else (1,)
        return [
            Figure(part="peers", name=_name(each, peer), unit="", failure=str(error))
            for each in rows
        ]


def _compare(bench: Bench, ours: Server, model: Model, peer: Peer) -> list[Figure]:
    folder = bench.work / "peers" / peer.key
    folder.mkdir(parents=True, exist_ok=True)
    interpreter = environment.ensure(folder / "env", peer.requirements, f"{peer.name}'s")
    program, *arguments = peer.command
    environ = {"MODEL": str(model.path), "PYTHONPATH": str(APPS)}
    environ |= {
        name: value.replace("{folder}", str(folder)) for name, value in peer.environ.items()
    }
    one, many = peer.query(model, 1, 16), peer.query(model, 64, 8)
    if peer.name == "PyOD":
        environ["PYOD_MODEL"], one = _fit_pyod(interpreter, model, one, folder)
    with bench.server(
        peer.key, str(interpreter.with_name(program)), *arguments, environ=environ
    ) as server:
        server.wait_until_right(one)
        started = server.cpu_seconds()

        def pair(query: Query, connections: int, target: Target) -> Pair:
            theirs = bench.load(server, query, connections)
            mine = bench.load(
                ours, make_query(model, query.rows, count=len(query.bodies)), connections
            )
            return Pair(_name(query.rows, peer), f"× {peer.name}", peer.name, theirs, mine, target)

        pairs = [pair(one, ONE_ROW_CONNECTIONS, peer.one)]
        if peer.many:
            pairs.append(pair(many, MANY_ROWS_CONNECTIONS, peer.many))
        figures = bench.compare("peers", pairs)
        held = server.resident_bytes() / MEBIBYTE
    costs = (
        f"{peer.name}: {started:.2f} s of CPU from start to first answer, {held:.0f} MiB resident"
        " after the load"
    )
    tell(costs)
    return [figures[0].with_note(costs), *figures[1:]]


def _name(rows: int, peer: Peer) -> str:
    connections = ONE_ROW_CONNECTIONS if rows == 1 else MANY_ROWS_CONNECTIONS
    return (
        f"{'one JSON row' if rows == 1 else f'{rows} JSON rows'}, d = 32, {connections}"
        f" connections, against {peer.name}"
    )


def _fit_pyod(interpreter: Path, model: Model, query: Query, folder: Path) -> tuple[str, Query]:
    """PyOD serves a detector of its own, fitted on the same rows: its path, and the query with the
    scores it gives.
    """
    rows_ND = np.concatenate(
        [make_rows(query.rows, model.width, seed=100 + n) for n in range(len(query.bodies))]
    )
    np.save(folder / "queries.npy", rows_ND)
    command = [
        str(interpreter),
        str(APPS / "pyod_fit.py"),
        str(model.rows),
        str(folder / "queries.npy"),
        str(folder),
    ]
    done = subprocess.run(command, env=one_thread(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerFailed(
            f"PyOD's detector cannot be fitted: {done.stderr.strip().splitlines()[-1][:300]}"
        )
    scores = np.load(folder / "scores.npy").reshape(len(query.bodies), -1)
    return str(folder / "model.joblib"), query._replace(expected=tuple(scores))
