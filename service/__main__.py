"""`hourglass serve | score | replay | stream | watch | mcp | inspect | keys`, also `python -m
hourglass.service`.

Logging and signals are set up here and nowhere else; logs.py says what a line looks like.
"""

import argparse
import logging
import logging.config
import os
import signal
import socket
import sys
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NoReturn

import msgspec

from hourglass.service import live, logs
from hourglass.service.errors import HourglassError, InvalidSettings, printable
from hourglass.service.keys import file as keys
from hourglass.service.keys.commands import add_commands
from hourglass.service.logs import announce, warn
from hourglass.service.rows.dialect import add_dialect_arguments, dialect_of
from hourglass.service.settings import CLIENT_KEY, Settings, read_settings, variables
from hourglass.service.watch.traces import is_asked_for

if TYPE_CHECKING:
    from hourglass.service.machine.collector import ASGIApp

# for what is in flight when the service is told to stop: Docker kills after 10
GRACEFUL_SECONDS = 8
# that a worker may be silent before it is killed: beside a full machine imports alone take over 5
WORKER_SECONDS = 30
SERVE_FLAGS = (
    "models",
    "cache",
    "trust",
    "host",
    "port",
    "workers",
    "max_loaded",
    "keep_alive",
    "root_path",
    "allowed_hosts",
    "journal",
    "drift_seconds",
    "shadow_share",
    "record",
    "record_share",
    "streams",
    "max_entities",
    "stream_gap",
    "events_per_day",
    "webhook",
    "webhook_secret_file",
    "alertmanager",
    "public_url",
    "azure",
    "azure_data",
    "read_only",
    "learn",
    "log_format",
    "access_log",
    "keys",
    "without_key",
    "insecure",
)  # which are settings too


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 when it went well, 2 and one sentence on stderr when what it was given is
    wrong.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except HourglassError as error:
        announce(str(error), logging.ERROR)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  or Python complains once more at exit
        return 0
    except MemoryError:
        announce("there is not enough memory for this", logging.ERROR)
        return 2
    except OSError as error:  # a folder that may not be entered, a disk that fails
        announce(
            f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}",
            logging.ERROR,
        )
        return 2


def serve(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; what is in flight is finished."""
    # read when numpy is imported, which is later: its linear algebra, of which nothing here is
    # used, starts a thread for each core
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    flags = {name: getattr(options, name) for name in SERVE_FLAGS}
    settings = read_settings(os.environ, **flags)
    logging.config.dictConfig(logs.configuration(settings.log_format, settings.log_level))
    if settings.streams and settings.workers > 1:
        raise InvalidSettings("--streams needs --workers 1: one process has an entity's state")
    if settings.azure:
        from hourglass.service.adapters.azure import azure_of

        jobs = azure_of(settings.models, settings.azure_data).jobs
        jobs.path.mkdir(parents=True, exist_ok=True)  # where nothing can be written it is said now
    if settings.webhook or settings.alertmanager:
        from hourglass.service.notify.receivers import receivers_of

        receivers_of(settings)  # what is wrong is said before anything starts
    is_asked_for(os.environ)
    from hourglass.service.serving.database import prepare
    from hourglass.service.serving.places import open_store

    if not settings.keys and CLIENT_KEY in os.environ:
        live.client_key(None)  # a path in it would be meant for HOURGLASS_KEYS
    if settings.keys and keys.read_keys(settings.keys).is_readable_by_all:
        warn(f"anybody may read {settings.keys}: chmod 600 {settings.keys}")
    warn(open_store(settings.models, cache=settings.cache, trust=settings.trust).check())
    if settings.streams:
        from hourglass.service.streams.file import STREAMS

        prepare(settings.streams, STREAMS)
    if settings.journal:
        from hourglass.service.watch.alarms import JOURNAL

        prepare(settings.journal, JOURNAL)
    if settings.record:
        from hourglass.service.watch.recording import prepare as prepare_recording

        prepare_recording(settings.record)
    listening = _bind(settings)
    signals = (signal.SIGTERM, signal.SIGINT)
    for each in signals:
        signal.signal(each, live.stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # of a terminal that closes, or a log's rotation
    if settings.workers == 1:
        return _serve(settings, listening)
    with TemporaryDirectory(prefix="hourglass-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # read by prometheus_client in each worker
        return _serve(settings, listening, Path(folder))


def score(options: argparse.Namespace) -> int:
    """Score a file."""
    from hourglass.service.adapters import files

    served, problem = files.open_model(options.model, alpha=options.alpha)
    warn(problem)
    scored = files.score_file(
        served,
        options.data,
        dialect_of(options),
        time=options.time,
        entity=options.entity,
        progress=_show_progress,
    )
    if options.output:
        files.write_table(scored, options.output)
    print(files.summarise(served, scored))
    print(
        f"written to {options.output}" if options.output else "\n" + files.top_rows(served, scored)
    )
    return 0


def replay(options: argparse.Namespace) -> int:
    """Tell what other budgets would have done with a file."""
    from hourglass.service.adapters import files
    from hourglass.service.adapters import replay as replays

    if options.normal is not None and options.label is None:
        raise InvalidSettings("--normal names a value of the column that --label names")
    served, problem = files.open_model(options.model)
    warn(problem)
    replayed = replays.replay_file(
        served,
        options.data,
        dialect_of(options),
        alphas=options.alpha or (),
        label=options.label,
        normal=options.normal,
        rows_per_day=options.rows_per_day,
        time=options.time,
        entity=options.entity,
        progress=_show_progress,
    )
    if options.output:
        replays.write_replay(replayed, options.output)
    print(replays.summarise(replayed))
    if options.output:
        print(f"written to {options.output}")
    return 0


def mcp(options: argparse.Namespace) -> int:
    """Answer agents until they go, or until SIGTERM or Ctrl-C."""
    from hourglass.client import mcp

    key = live.client_key(options.key_file)
    mcp.require_sdk()
    if options.http is None:
        mcp.serve_stdio(options.url, key=key)
    else:
        listening = mcp.listen(options.http)
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, live.stop)
        announce(f"agents are answered on http://127.0.0.1:{listening.getsockname()[1]}{mcp.PATH}")
        mcp.serve_http(options.url, listening, key=key)
    return 0


def inspect(options: argparse.Namespace) -> int:
    """Print what a model says of itself."""
    from hourglass.service.adapters import files

    served, problem = files.open_model(options.model)
    warn(problem)
    if options.json:
        manifest = msgspec.json.format(msgspec.json.encode(served.detector.manifest), indent=2)
        print(printable(manifest.decode()))
    else:
        print(files.describe(served, files.report_of(options.model)))
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="hourglass",
        description="Scores vectors by how surprising they are.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(
        required=True, metavar="serve | score | replay | stream | watch | mcp | inspect | keys"
    )

    command = commands.add_parser(
        "serve", help="serve a folder of models over HTTP", allow_abbrev=False
    )
    defaults = Settings()
    command.add_argument(
        "--models",
        metavar="PLACE",
        help="folder of models, or s3://BUCKET/PREFIX, gs://, az://, file:///FOLDER, mlflow://ALIAS"
        f" (default: {defaults.models})",
    )
    command.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="where copies of the models of a URL lie (default: ~/.cache/hourglass)",
    )
    command.add_argument(
        "--trust",
        type=Path,
        metavar="KEYFILE",
        help="public keys: serve only versions that one of them signed; hourglass-train sign",
    )
    command.add_argument("--host", help=f"address to listen on (default: {defaults.host})")
    command.add_argument(
        "--port", type=int, help=f"port to listen on, 0 for any free one (default: {defaults.port})"
    )
    command.add_argument("--workers", type=int, help=f"processes (default: {defaults.workers})")
    command.add_argument(
        "--max-loaded", type=int, help="models to keep in memory at once (default: all)"
    )
    command.add_argument(
        "--keep-alive",
        type=float,
        metavar="SECONDS",
        help=f"that an idle connection is kept (default: {defaults.keep_alive:g})",
    )
    command.add_argument(
        "--root-path", metavar="PATH", help="what a proxy has in front of every path, as /anomalies"
    )
    command.add_argument(
        "--allowed-hosts",
        metavar="NAMES",
        help="the hosts to answer for, separated by commas, * for any (default: localhost's names"
        " when bound to it, else any)",
    )
    command.add_argument(
        "--journal",
        type=Path,
        metavar="PATH",
        help="an SQLite file to keep alarms in, with their rows (default: the last 1,000 in memory,"
        " without their rows' values)",
    )
    command.add_argument(
        "--drift-seconds",
        type=float,
        metavar="SECONDS",
        help="that a window has at least, which is held against the rows of the fit; a day where"
        f" rows have a daily cycle (default: {defaults.drift_seconds:g})",
    )
    command.add_argument(
        "--shadow-share",
        type=float,
        metavar="SHARE",
        help="of the rows that a challenger is scored on beside the version in service, and answers"
        f" nobody; 0: none (default: {defaults.shadow_share:g})",
    )
    command.add_argument(
        "--record",
        metavar="PLACE",
        help="a folder or a URL such as s3://BUCKET/PREFIX, where a share of scored rows is written"
        " as Parquet for hourglass-train retrain (default: none)",
    )
    command.add_argument(
        "--record-share",
        type=float,
        metavar="SHARE",
        help="of the rows that are recorded, and of streams of the entities (default:"
        f" {defaults.record_share:g})",
    )
    command.add_argument(
        "--streams",
        type=Path,
        metavar="PATH",
        help="an SQLite file that keeps streams (default: streams.sqlite in the folder of models)",
    )
    command.add_argument(
        "--max-entities",
        type=int,
        metavar="N",
        help=f"entities of streams that are kept (default: {defaults.max_entities})",
    )
    command.add_argument(
        "--stream-gap",
        type=float,
        metavar="SECONDS",
        help="time between rows of an entity after which it warms anew (default: the model's)",
    )
    command.add_argument(
        "--events-per-day",
        type=float,
        metavar="N",
        help="false events of one entity's stream in a day, on average"
        f" (default: {defaults.events_per_day:g})",
    )
    command.add_argument(
        "--webhook", metavar="URLS", help="tell these, separated by commas, of events"
    )
    command.add_argument(
        "--webhook-secret-file",
        type=Path,
        metavar="PATH",
        help="the secret that signs what webhooks are told (or HOURGLASS_WEBHOOK_SECRET)",
    )
    command.add_argument(
        "--alertmanager",
        metavar="URLS",
        help="tell these Alertmanagers, separated by commas, of events",
    )
    command.add_argument(
        "--public-url",
        metavar="URL",
        help="where people reach the service, for links (default: http://HOST:PORT)",
    )
    command.add_argument(
        "--azure",
        action="store_true",
        default=None,
        help="speak the multivariate API of the retired Azure Anomaly Detector, too;"
        " hourglass-train work trains what its clients ask for",
    )
    command.add_argument(
        "--azure-data",
        metavar="PLACES",
        help="folders and URLs such as s3://BUCKET/PREFIX, separated by commas, below which the"
        " data must lie that clients of --azure name",
    )
    command.add_argument(
        "--read-only",
        action="store_true",
        default=None,
        help="only score: refuse what changes a model",
    )
    command.add_argument(
        "--no-learn",
        dest="learn",
        action="store_false",
        default=None,
        help="serve no models to play with in the console's view Learn",
    )
    command.add_argument(
        "--log-format",
        choices=("text", "json"),
        help=f"of the log, on stderr: json is an object a line (default: {defaults.log_format})",
    )
    command.add_argument(
        "--access-log", action="store_true", default=None, help="log a line for each answer"
    )
    command.add_argument(
        "--keys",
        type=Path,
        metavar="FILE",
        help="of which requests must bring a key; hourglass keys add NAME makes one",
    )
    command.add_argument(
        "--without-key",
        metavar="WHAT",
        help="metrics, docs or both, separated by a comma: they need no key",
    )
    command.add_argument(
        "--insecure",
        action="store_true",
        default=None,
        help="listen on addresses that others reach without keys",
    )
    command.epilog = f"Every setting can also come from the environment: {', '.join(variables())}."
    command.set_defaults(run=serve)

    command = commands.add_parser(
        "score", help="score the rows of a CSV or Parquet file", allow_abbrev=False
    )
    _add_model_and_data(command)
    command.add_argument(
        "--output", type=Path, help="write the rows with their scores here, as .csv or .parquet"
    )
    add_dialect_arguments(command)
    command.add_argument(
        "--alpha", type=_rate, help="false-alarm rate, in place of the model's own"
    )
    command.set_defaults(run=score)

    command = commands.add_parser(
        "replay",
        help="tell what other budgets would have done with the rows of a file",
        allow_abbrev=False,
    )
    _add_model_and_data(command)
    command.add_argument(
        "--alpha",
        type=_rate,
        action="append",
        help="a false-alarm rate; may be given several times (default: the usual ones)",
    )
    command.add_argument(
        "--label", metavar="COLUMN", help="a column that is 0 or false of normal rows"
    )
    command.add_argument("--normal", metavar="VALUE", help="the label of normal rows, if another")
    command.add_argument(
        "--rows-per-day",
        type=live.count,
        metavar="N",
        help="to tell how many alarms a day that makes",
    )
    command.add_argument(
        "--output", type=Path, help="write which rows alarm, and all the rest, here, as .json"
    )
    add_dialect_arguments(command)
    command.set_defaults(run=replay)

    live.add_commands(commands, defaults)

    command = commands.add_parser(
        "mcp",
        help="let agents ask a running service, by the Model Context Protocol; they change nothing",
        allow_abbrev=False,
    )
    live.add_service_arguments(command, defaults)
    way = command.add_mutually_exclusive_group()
    way.add_argument("--stdio", action="store_true", help="answer on stdin and stdout (default)")
    way.add_argument(
        "--http",
        type=int,
        metavar="PORT",
        help="answer on http://127.0.0.1:PORT/mcp, 0 for any free port; with a key for the service"
        " whoever brings it, as Authorization: Bearer",
    )
    command.set_defaults(run=mcp)

    command = commands.add_parser(
        "inspect", help="print what a model says of itself", allow_abbrev=False
    )
    command.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="a model.onnx, or a folder: MODELS/<name>, or a version's in it",
    )
    command.add_argument("--json", action="store_true", help="print the manifest as JSON")
    command.set_defaults(run=inspect)
    add_commands(commands.add_parser("keys", help="make, list and remove keys", allow_abbrev=False))
    return parser


def _add_model_and_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="a model.onnx, or a folder: MODELS/<name>, or a version's in it",
    )
    command.add_argument("data", type=Path, metavar="DATA", help="a .csv or .parquet file")
    command.add_argument(
        "--time",
        metavar="COLUMN",
        help="of a model of ordered rows: the column to sort by (default: the file's order)",
    )
    command.add_argument(
        "--entity",
        metavar="COLUMN",
        help="of a model of ordered rows: the column that says whose a row is (default: one's)",
    )


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 1e-9 <= rate <= 0.5:
        raise argparse.ArgumentTypeError(f"expected a number from 1e-9 to 0.5, got {text!r}")
    return rate


def _bind(settings: Settings) -> socket.socket:
    """The socket to listen on, taken before anything slow."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # with its protocol named, else asyncio does not see that it is TCP and leaves Nagle on: 40 ms
    # for each answer
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        address = listening.getsockname()[0]
        if not (settings.keys or settings.insecure or ip_address(address).is_loopback):
            raise InvalidSettings(
                f"without keys everybody who reaches {settings.host} could do everything: expected"
                " --keys FILE, a --host of loopback, or --insecure where something else keeps"
                " others out"
            )
        # now: a socket that is bound only can be bound by another process too
        listening.listen(2048)
    except InvalidSettings:
        listening.close()
        raise
    except OSError as error:
        listening.close()
        raise InvalidSettings(
            f"cannot listen on {settings.host} port {settings.port} ({error.strerror}); --port"
            " names another"
        ) from error
    listening.set_inheritable(True)
    return listening


def _serve(settings: Settings, listening: socket.socket, shared: Path | None = None) -> int:
    import uvicorn
    from uvicorn.config import STARTUP_FAILURE

    from hourglass.service import floats
    from hourglass.service.worker import Server, Supervisor

    config = uvicorn.Config(
        partial(_app, settings, shared),
        factory=True,
        http="hourglass.service.front.protocol:ScoringProtocol",
        workers=settings.workers,
        lifespan="on",
        ws="none",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
        timeout_worker_healthcheck=WORKER_SECONDS,
        log_config=logs.configuration(settings.log_format, settings.log_level),
    )
    host, port = listening.getsockname()[:2]
    announce(f"serving {settings.models} on http://{f'[{host}]' if ':' in host else host}:{port}")
    by = {"C": "C", "Python": "Python: C was not compiled, which would be several times as fast"}
    logging.getLogger("hourglass.service").info(
        "JSON is read and written by %s", by[floats.IMPLEMENTATION]
    )
    if settings.workers == 1:
        Server(config).run(sockets=[listening])
        return 0
    supervisor = Supervisor(config, sockets=[listening])
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it would end all workers to start others
    supervisor.run()
    return (
        STARTUP_FAILURE
        if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes)
        else 0
    )


def _app(settings: Settings, shared: Path | None) -> "ASGIApp":
    """Imported once a worker answers its supervisor, which heeds no signal while it waits for
    that: on a busy machine the import takes long.
    """
    from hourglass.service.worker import worker_app

    return worker_app(settings, shared)


def _show_progress(done: int, total: int) -> None:
    end = "\r" if sys.stderr.isatty() and done < total else "\n"
    print(f"{done} of {total} rows", file=sys.stderr, end=end, flush=True)


if __name__ == "__main__":
    from hourglass.service import __main__ as importable  # which worker processes can import

    sys.exit(importable.main())
