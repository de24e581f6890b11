"""`hourglass serve | score | replay | stream | mcp | inspect | keys`, also `python -m
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

from hourglass.service import logs
from hourglass.service.errors import HourglassError, InvalidSettings, printable
from hourglass.service.keys import file as keys
from hourglass.service.keys.commands import add_commands
from hourglass.service.rows.dialect import add_dialect_arguments, dialect_of
from hourglass.service.settings import CLIENT_KEY, Settings, read_settings, variables
from hourglass.service.watch.traces import is_asked_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from hourglass.service.adapters.kafka import KafkaStream
    from hourglass.service.adapters.mqtt import MqttStream
    from hourglass.service.adapters.tally import Tally
    from hourglass.service.machine.collector import ASGIApp
    from hourglass.service.serving.registry import Registry

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
_logger = logging.getLogger("hourglass.service")  # also where this file runs as __main__


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 when it went well, 2 and one sentence on stderr when what it was given is
    wrong.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except HourglassError as error:
        _say(str(error), logging.ERROR)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  or Python complains once more at exit
        return 0
    except MemoryError:
        _say("there is not enough memory for this", logging.ERROR)
        return 2
    except OSError as error:  # a folder that may not be entered, a disk that fails
        _say(
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
        _client_key(None)  # a path in it would be meant for HOURGLASS_KEYS
    if settings.keys and keys.read_keys(settings.keys).is_readable_by_all:
        _warn(f"anybody may read {settings.keys}: chmod 600 {settings.keys}")
    _warn(open_store(settings.models, cache=settings.cache, trust=settings.trust).check())
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
        signal.signal(each, _stop)
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
    _warn(problem)
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
    _warn(problem)
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


def stream(options: argparse.Namespace) -> int:
    """Tell a service of a file's rows as if they came now, or score what a broker brings."""
    if options.kafka is not None:
        return stream_kafka(options)
    if options.mqtt is not None:
        return stream_mqtt(options)
    if options.data is None or options.time is None:
        raise InvalidSettings("expected DATA and --time COLUMN, --kafka BOOTSTRAP, or --mqtt HOST")
    from hourglass.service.adapters.stream import Change, say, stream_file

    def tell(change: Change) -> None:
        print(printable(say(change)), flush=True)

    told = stream_file(
        options.data,
        url=options.url,
        name=options.name,
        time=options.time,
        entity=options.entity,
        speed=options.speed,
        afresh=options.afresh,
        key=_client_key(options.key_file),
        dialect=dialect_of(options),
        tell=tell,
    )
    print(
        f"{told.rows} rows of {told.entities} {'entity' if told.entities == 1 else 'entities'} in"
        f" {told.seconds:.1f} s: {told.opened} event{'s'[: told.opened != 1]} opened,"
        f" {told.closed} closed"
    )
    return 0


def stream_kafka(options: argparse.Namespace) -> int:
    """Score rows of a topic until SIGTERM or Ctrl-C."""
    if options.data is not None or options.input is None or options.output is None:
        raise InvalidSettings("--kafka expects --input TOPIC and --output TOPIC, and no DATA")
    from hourglass.service.adapters.kafka import KafkaStream, Topics
    from hourglass.service.adapters.messages import Reader

    dead = options.dead_letters or f"{options.output}-dead-letters"

    def made(registry: "Registry", tally: "Tally") -> KafkaStream:
        return KafkaStream(
            options.kafka,
            Topics(options.input, options.output, dead),
            options.name,
            registry,
            group=options.group or f"hourglass-{options.name}",
            reader=Reader(options.entity, options.time or "time"),
            tally=tally,
            events_per_day=options.events_per_day,
            gap=options.gap,
            read_back=options.read_back,
        )

    return _stream_from_broker(options, made)


def stream_mqtt(options: argparse.Namespace) -> int:
    """Score what is published to topics until SIGTERM or Ctrl-C."""
    if options.data is not None or options.topic is None:
        raise InvalidSettings("--mqtt expects --topic TOPIC, such as plant/+/state, and no DATA")
    from hourglass.service.adapters.mqtt import MqttStream, address_of, topics_of
    from hourglass.service.adapters.mqtt_kept import KEPT
    from hourglass.service.serving.database import prepare

    host, port = address_of(options.mqtt)
    base = f"hourglass/{options.name}"
    topics = topics_of(options.topic, options.answers or f"{base}/{{entity}}/anomaly", base)
    if options.session:
        prepare(options.session, KEPT)

    def made(registry: "Registry", tally: "Tally") -> MqttStream:
        return MqttStream(
            host,
            port,
            topics,
            options.name,
            registry,
            identifier=options.group or f"hourglass-{options.name}",
            time_field=options.time or "time",
            tally=tally,
            session=options.session,
            events_per_day=options.events_per_day,
            gap=options.gap,
            join_seconds=options.join_seconds,
        )

    return _stream_from_broker(options, made)


def _stream_from_broker(
    options: argparse.Namespace, made: "Callable[[Registry, Tally], KafkaStream | MqttStream]"
) -> int:
    """Score what a broker brings until SIGTERM or Ctrl-C; what is being scored is finished."""
    import asyncio

    from hourglass.service.adapters.tally import Tally
    from hourglass.service.model.detector import DEFAULT_MAX_BYTES
    from hourglass.service.serving.places import open_store
    from hourglass.service.serving.registry import Registry

    logging.config.dictConfig(logs.configuration(options.log_format, "info"))
    store = open_store(options.models, cache=options.cache)
    tally = Tally()
    if options.port is not None:
        tally.serve(options.host, options.port)

    async def run() -> None:
        registry = Registry(store, threads=1, max_bytes=DEFAULT_MAX_BYTES)
        streaming = made(registry, tally)
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, streaming.stop)
        try:
            await streaming.run()
        finally:
            registry.close()

    asyncio.run(run())
    return 0


def mcp(options: argparse.Namespace) -> int:
    """Answer agents until they go, or until SIGTERM or Ctrl-C."""
    from hourglass.client import mcp

    key = _client_key(options.key_file)
    if options.http is None:
        mcp.serve_stdio(options.url, key=key)
    else:
        listening = mcp.listen(options.http)
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, _stop)
        _say(f"agents are answered on http://127.0.0.1:{listening.getsockname()[1]}{mcp.PATH}")
        mcp.serve_http(options.url, listening, key=key)
    return 0


def inspect(options: argparse.Namespace) -> int:
    """Print what a model says of itself."""
    from hourglass.service.adapters import files

    served, problem = files.open_model(options.model)
    _warn(problem)
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
        required=True, metavar="serve | score | replay | stream | mcp | inspect | keys"
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
        "--rows-per-day", type=_count, metavar="N", help="to tell how many alarms a day that makes"
    )
    command.add_argument(
        "--output", type=Path, help="write which rows alarm, and all the rest, here, as .json"
    )
    add_dialect_arguments(command)
    command.set_defaults(run=replay)

    command = commands.add_parser(
        "stream",
        help="tell a service of the rows of a file as if they came now, and print events; or score"
        " what a broker brings",
        allow_abbrev=False,
    )
    _add_stream_arguments(command, defaults)
    command.set_defaults(run=stream)

    command = commands.add_parser(
        "mcp",
        help="let agents ask a running service, by the Model Context Protocol; they change nothing",
        allow_abbrev=False,
    )
    _add_service_arguments(command, defaults)
    way = command.add_mutually_exclusive_group()
    way.add_argument("--stdio", action="store_true", help="answer on stdin and stdout (default)")
    way.add_argument(
        "--http",
        type=int,
        metavar="PORT",
        help="answer on http://127.0.0.1:PORT/mcp, 0 for any free port",
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


def _add_stream_arguments(command: argparse.ArgumentParser, defaults: Settings) -> None:
    command.add_argument(
        "data", type=Path, nargs="?", metavar="DATA", help="a .csv or .parquet file"
    )
    command.add_argument(
        "--name", "--model", required=True, metavar="MODEL", help="of the model in service"
    )
    command.add_argument(
        "--time",
        metavar="COLUMN",
        help="when each row was: it orders them; of messages a field (time), without it when they"
        " were sent",
    )
    command.add_argument(
        "--entity",
        "--key",
        metavar="COLUMN",
        help="what each row is of (default: all of the file's name); of messages a field (default:"
        " their key)",
    )
    file = command.add_argument_group("a file, told to a service")
    _add_service_arguments(file, defaults)
    file.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="TIMES",
        help="how much faster than their times rows come; 0: as fast as they are taken (1)",
    )
    file.add_argument(
        "--afresh", action="store_true", help="make the service forget these entities before"
    )
    add_dialect_arguments(command)
    kafka = command.add_argument_group("topics of Kafka")
    kafka.add_argument("--kafka", metavar="BOOTSTRAP", help="the brokers, as HOST:PORT,HOST:PORT")
    kafka.add_argument("--input", metavar="TOPIC", help="of rows, a JSON object each")
    kafka.add_argument("--output", metavar="TOPIC", help="where answers go")
    kafka.add_argument(
        "--dead-letters",
        metavar="TOPIC",
        help="where messages that cannot be scored go (default: OUTPUT-dead-letters)",
    )
    kafka.add_argument(
        "--read-back",
        type=_whole,
        default=20_000,
        metavar="N",
        help="rows of a partition that are read again to know its entities, after a start or when"
        " partitions change hands (20000)",
    )
    mqtt = command.add_argument_group("topics of MQTT")
    mqtt.add_argument("--mqtt", metavar="HOST[:PORT]", help="the broker")
    mqtt.add_argument(
        "--topic",
        help="of rows, as plant/+/state, where + is the entity; or, where each sensor has a topic,"
        " plant/{entity}/{feature}",
    )
    mqtt.add_argument(
        "--answers",
        metavar="TOPIC",
        help="where answers go, retained (default: hourglass/MODEL/{entity}/anomaly), and events"
        " to TOPIC/event",
    )
    mqtt.add_argument(
        "--session",
        type=Path,
        metavar="PATH",
        help="an SQLite file that keeps what is known of entities (default: in memory, lost with"
        " the process)",
    )
    mqtt.add_argument(
        "--join-seconds",
        type=_count,
        default=5.0,
        metavar="SECONDS",
        help="that values of sensors wait for the rest of their row (5)",
    )
    broker = command.add_argument_group("what a broker brings")
    broker.add_argument(
        "--group",
        metavar="NAME",
        help="by which processes share the partitions, or the session's name at the broker"
        " (default: hourglass-MODEL)",
    )
    broker.add_argument(
        "--models",
        default=str(defaults.models),
        metavar="PLACE",
        help=f"folder or URL of models (default: {defaults.models})",
    )
    broker.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="where copies of the models of a URL lie (default: ~/.cache/hourglass)",
    )
    broker.add_argument(
        "--gap",
        type=_count,
        metavar="SECONDS",
        help="time between rows of an entity after which it warms anew (default: the model's)",
    )
    broker.add_argument(
        "--events-per-day",
        type=_count,
        default=defaults.events_per_day,
        metavar="N",
        help=f"false events of one entity in a day, on average ({defaults.events_per_day:g})",
    )
    broker.add_argument("--port", type=int, help="answer Prometheus on this port (default: do not)")
    broker.add_argument(
        "--host", default=defaults.host, help=f"address of it (default: {defaults.host})"
    )
    broker.add_argument(
        "--log-format",
        choices=("text", "json"),
        default=defaults.log_format,
        help=f"of the log, on stderr (default: {defaults.log_format})",
    )


def _add_service_arguments(command: "argparse._ActionsContainer", defaults: Settings) -> None:
    url = f"http://127.0.0.1:{defaults.port}"
    command.add_argument("--url", default=url, help=f"of the service (default: {url})")
    command.add_argument(
        "--key-file",
        type=Path,
        metavar="PATH",
        help=f"a file with the key that the service asks for (or {CLIENT_KEY})",
    )


def _client_key(path: Path | None) -> str | None:
    """The key that a file or, without one, the environment has; no error repeats any of it."""
    if path is None and CLIENT_KEY not in os.environ:
        return None
    source = f"--key-file {path}" if path else CLIENT_KEY
    try:
        text = path.read_bytes() if path else os.environb[CLIENT_KEY.encode()]
    except OSError as error:
        raise InvalidSettings(f"{source}: {error.strerror}") from error
    if not keys.FORM.fullmatch(text.strip()):
        raise InvalidSettings(
            f"{source}: expected a key, as hourglass keys add prints it; the service's file of keys"
            " is HOURGLASS_KEYS"
        )
    return text.strip().decode()


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


def _count(text: str) -> float:
    try:
        count = float(text)
    except ValueError:
        count = 0.0
    if not 0 < count <= 1e12:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return count


def _whole(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = -1
    if not 0 <= count <= 10**9:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return count


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0 <= speed < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return speed


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
    _say(f"serving {settings.models} on http://{f'[{host}]' if ':' in host else host}:{port}")
    by = {"C": "C", "Python": "Python: C was not compiled, which would be several times as fast"}
    _logger.info("JSON is read and written by %s", by[floats.IMPLEMENTATION])
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


def _stop(*_: object) -> NoReturn:
    """End well: before uvicorn has its own handlers, and after, when it raises again the signal
    that made it stop.
    """
    raise SystemExit(0)


def _show_progress(done: int, total: int) -> None:
    end = "\r" if sys.stderr.isatty() and done < total else "\n"
    print(f"{done} of {total} rows", file=sys.stderr, end=end, flush=True)


def _warn(problem: str | None) -> None:
    if problem:
        _say(problem, logging.WARNING)


def _say(sentence: str, level: int = logging.INFO) -> None:
    """On stderr: for a person as it is, whatever the level; where the log is JSON as a line of
    it.
    """
    if any(isinstance(each.formatter, logs.JSONLines) for each in logging.root.handlers):
        _logger.log(level, sentence)
    else:
        print(f"hourglass: {printable(sentence)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    from hourglass.service import __main__ as importable  # which worker processes can import

    sys.exit(importable.main())
