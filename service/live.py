"""`hourglass stream | watch`: rows as they come, of a file, a broker or a Prometheus."""

import argparse
import logging
import logging.config
import os
import signal
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hourglass.service import logs
from hourglass.service.adapters.access import (
    REGISTRY_AUTH,
    SASL,
    access_of,
    add_access_arguments,
    credentials_of,
)
from hourglass.service.errors import InvalidSettings, printable
from hourglass.service.keys import file as keys
from hourglass.service.logs import announce, warn
from hourglass.service.rows.dialect import add_dialect_arguments, dialect_of
from hourglass.service.settings import CLIENT_KEY, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from hourglass.service.adapters.kafka import KafkaStream
    from hourglass.service.adapters.mqtt import MqttStream
    from hourglass.service.adapters.tally import Tally
    from hourglass.service.serving.registry import Registry

WATCH_PORT = 8001
WATCH_TIMEOUT_SECONDS = 10.0  # for Prometheus to answer one expression


def stream(options: argparse.Namespace) -> int:
    """Tell a service of a file's rows as if they came now, or score what a broker brings."""
    sources = {"DATA": options.data, "--kafka": options.kafka, "--mqtt": options.mqtt}
    named = [name for name, source in sources.items() if source is not None]
    if len(named) > 1:
        raise InvalidSettings(f"expected one source of rows, got {' and '.join(named)}")
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
        key=client_key(options.key_file),
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
    if options.input is None or options.output is None:
        raise InvalidSettings("--kafka expects --input TOPIC and --output TOPIC")
    from hourglass.service.adapters.kafka import KafkaStream, Topics
    from hourglass.service.adapters.kafka_brokers import Brokers
    from hourglass.service.adapters.messages import Reader

    access, avro = access_of(options, os.environ), None
    if options.schema_registry is not None:
        from hourglass.service.adapters.avro import Avro

        flag, path = "--schema-registry-auth-file", options.schema_registry_auth_file
        asking = credentials_of(os.environ, REGISTRY_AUTH, flag, path)
        avro = Avro(options.schema_registry, credentials=asking, tls=access.tls)
    reader = Reader(options.entity, options.time or "time", avro)
    brokers = Brokers(options.kafka, access, options.sasl)
    dead = options.dead_letters or f"{options.output}-dead-letters"

    def made(registry: "Registry", tally: "Tally") -> KafkaStream:
        return KafkaStream(
            brokers,
            Topics(options.input, options.output, dead),
            options.name,
            registry,
            group=options.group or f"hourglass-{options.name}",
            reader=reader,
            tally=tally,
            events_per_day=options.events_per_day,
            gap=options.gap,
            read_back=options.read_back,
        )

    return _stream_from_broker(options, made)


def stream_mqtt(options: argparse.Namespace) -> int:
    """Score what is published to topics until SIGTERM or Ctrl-C."""
    if options.topic is None:
        raise InvalidSettings("--mqtt expects --topic TOPIC, such as plant/+/state")
    from hourglass.service.adapters.mqtt import PORT, TLS_PORT, MqttStream, address_of, topics_of
    from hourglass.service.adapters.mqtt_kept import KEPT
    from hourglass.service.serving.database import prepare

    access = access_of(options, os.environ)
    host, port = address_of(options.mqtt, TLS_PORT if access.tls else PORT)
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
            access=access,
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

    new_loop = None
    with suppress(ImportError):  # of Windows, which gets asyncio's own
        new_loop = import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())
    return 0


def watch(options: argparse.Namespace) -> int:
    """Ask a Prometheus, judge, and expose, until SIGTERM or Ctrl-C."""
    from threading import Event

    from hourglass.service.adapters.judges import Judge, ModelJudge, ServiceJudge
    from hourglass.service.adapters.stream import Change, say
    from hourglass.service.adapters.watch import Watch
    from hourglass.service.adapters.watch_metrics import WatchMetrics, expose
    from hourglass.service.serving.prometheus import TOKEN, Prometheus

    if options.url and options.models:
        raise InvalidSettings("expected --models or --url, got both")
    prometheus = Prometheus(
        options.prometheus, token=os.environ.get(TOKEN), timeout_seconds=WATCH_TIMEOUT_SECONDS
    )
    judge: Judge
    if options.url:
        judge = ServiceJudge(options.name, options.url, key=client_key(options.key_file))
    else:
        judge = ModelJudge(
            options.name,
            options.models or Settings().models,
            cache=options.cache,
            trust=options.trust,
            events_per_day=options.events_per_day,
        )

    def tell(change: Change) -> None:
        print(printable(say(change)), flush=True)

    found = Watch(prometheus, judge, options.every, tell, warn)
    signal.signal(signal.SIGTERM, stop)
    if not options.url:
        judge.plan()  # what is wrong with it is said before anything listens
    metrics = WatchMetrics(options.name, lambda: found.board, options.every)
    port, end = expose(metrics, options.host, options.port)
    host = f"[{options.host}]" if ":" in options.host else options.host
    announce(f"watching {options.prometheus}, metrics on http://{host}:{port}/metrics")
    try:
        found.run(Event())
    finally:
        end()
        judge.close()
    return 0


def add_commands(commands: "argparse._SubParsersAction[Any]", defaults: Settings) -> None:
    """Give the parser `stream` and `watch`; each sets `run`."""
    command = commands.add_parser(
        "stream",
        help="tell a service of the rows of a file as if they came now, and print events; or score"
        " what a broker brings",
        allow_abbrev=False,
    )
    _add_stream_arguments(command, defaults)
    command.set_defaults(run=stream)

    command = commands.add_parser(
        "watch",
        help="ask a Prometheus what a model was fitted on, time after time, and expose its answers",
        allow_abbrev=False,
    )
    command.add_argument("name", metavar="NAME", help="of a model that holds expressions")
    command.add_argument(
        "--prometheus",
        required=True,
        metavar="URL",
        help="its address; PROMETHEUS_TOKEN is sent to it, where it is set",
    )
    command.add_argument(
        "--every",
        type=_span,
        metavar="SPAN",
        help="between rows; of a model of windows as at its fit (as at its fit)",
    )
    command.add_argument(
        "--models",
        metavar="PLACE",
        help=f"folder of models, or a URL as of serve (default: {defaults.models})",
    )
    command.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="where copies of the models of a URL lie"
    )
    command.add_argument(
        "--trust", type=Path, metavar="KEYFILE", help="public keys, one of which signed the model"
    )
    command.add_argument(
        "--events-per-day",
        type=count,
        default=defaults.events_per_day,
        metavar="N",
        help=f"false events of one entity in a day (default: {defaults.events_per_day:g})",
    )
    command.add_argument(
        "--url", help="of a service that judges in place of --models, and keeps streams and events"
    )
    command.add_argument(
        "--key-file",
        type=Path,
        metavar="PATH",
        help=f"a file with the key that the service asks for (or {CLIENT_KEY})",
    )
    command.add_argument(
        "--host", default="127.0.0.1", help="address of /metrics, which asks for no key (127.0.0.1)"
    )
    command.add_argument(
        "--port", type=int, default=WATCH_PORT, help=f"of /metrics, 0 for any ({WATCH_PORT})"
    )
    command.set_defaults(run=watch)


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
    add_service_arguments(file, defaults)
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
    kafka.add_argument(
        "--input", metavar="TOPIC", help="of rows, a JSON object or a record of Avro each"
    )
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
    kafka.add_argument(
        "--schema-registry",
        metavar="URL",
        help="that has the schemas of rows, which are Avro then (default: rows are JSON)",
    )
    kafka.add_argument(
        "--schema-registry-auth-file",
        type=Path,
        metavar="PATH",
        help=f"a file with USER:PASSWORD for it (or {REGISTRY_AUTH})",
    )
    kafka.add_argument(
        "--sasl", choices=SASL, default=SASL[0], help=f"how USER:PASSWORD is told ({SASL[0]})"
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
        type=count,
        default=5.0,
        metavar="SECONDS",
        help="that values of sensors wait for the rest of their row (5)",
    )
    broker = command.add_argument_group("what a broker brings")
    add_access_arguments(broker)
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
        type=count,
        metavar="SECONDS",
        help="time between rows of an entity after which it warms anew (default: the model's)",
    )
    broker.add_argument(
        "--events-per-day",
        type=count,
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


def add_service_arguments(command: "argparse._ActionsContainer", defaults: Settings) -> None:
    """Which service is meant, and the key for it."""
    url = f"http://127.0.0.1:{defaults.port}"
    command.add_argument("--url", default=url, help=f"of the service (default: {url})")
    command.add_argument(
        "--key-file",
        type=Path,
        metavar="PATH",
        help=f"a file with the key that the service asks for (or {CLIENT_KEY})",
    )


def client_key(path: Path | None) -> str | None:
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


def count(text: str) -> float:
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


def _span(text: str) -> float:
    from hourglass.service.rows.times import span_seconds

    try:
        return span_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0 <= speed < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return speed


def stop(*_: object) -> NoReturn:
    """End well: before uvicorn has its own handlers, and after, when it raises again the signal
    that made it stop.
    """
    raise SystemExit(0)
