"""Rows in Avro, as confluent-kafka writes them by a registry of schemas."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from hourglass.service.adapters.access import Credentials
from hourglass.service.adapters.avro import Avro, RegistryAway, RegistryRefused
from hourglass.service.adapters.messages import Message, Reader
from hourglass.service.errors import HourglassError, InvalidSettings
from tests.artifacts import MIXED, make_served, make_windowed_artifact, publish
from tests.kafka import Cluster, streaming
from tests.schema_registry import SchemaRegistry
from tests.service.adapters.test_kafka import NAMES, assert_once, rows_of

ROW = SerializationContext("rows", MessageField.VALUE)


@pytest.fixture
def registry() -> Iterator[SchemaRegistry]:
    with SchemaRegistry() as registry:
        yield registry


def record_of(fields: dict[str, Any], name: str = "Row") -> dict[str, Any]:
    """A schema."""
    written = [{"name": field, "type": kind} for field, kind in fields.items()]
    return {"type": "record", "name": name, "namespace": "plant", "fields": written}


@contextmanager
def client_of(registry: SchemaRegistry) -> Iterator[SchemaRegistryClient]:
    settings = {"url": registry.url}
    if registry.auth is not None:
        settings["basic.auth.user.info"] = registry.auth
    with SchemaRegistryClient(settings) as client:
        yield client


def written(registry: SchemaRegistry, schema: Any, row: Any) -> bytes:
    """What a producer sends."""
    with client_of(registry) as client:
        body = AvroSerializer(client, json.dumps(schema))(row, ROW)
    assert isinstance(body, bytes)
    return body


def logical(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


def test_a_record_is_read_as_json_would_have_it(registry: SchemaRegistry) -> None:
    at = datetime(2026, 2, 2, 2, 45, 0, 250_000, tzinfo=UTC)
    mode = {"type": "enum", "name": "Mode", "symbols": ["idle", "busy"]}
    fixed = {"type": "fixed", "name": "Money", "size": 8}
    identity = "8f8a1c1e-3b63-4f6b-9f3e-0d4f0f4e8f3a"
    fields: dict[str, tuple[Any, Any, Any]] = {
        "a": ("double", 1.5, 1.5),
        "b": (["null", "float"], None, None),
        "c": ("int", 7, 7),
        "d": ("boolean", True, True),
        "mode": (mode, "busy", "busy"),
        "before": (["null", "plant.Mode"], "idle", "idle"),
        "name": ("string", "pump ü", "pump ü"),
        "raw": ("bytes", b"left", "left"),
        "millis": (logical("long", "timestamp-millis"), at, at.timestamp()),
        "micros": (["null", logical("long", "timestamp-micros")], at, at.timestamp()),
        "local": (
            logical("long", "local-timestamp-millis"),
            at.replace(tzinfo=None),
            at.timestamp(),
        ),
        "day": (logical("int", "date"), date(1970, 1, 3), 2 * 86400.0),
        "clock": (logical("int", "time-millis"), clock(1, 0, 2), 3602.0),
        "price": (logical("bytes", "decimal", precision=9, scale=2), Decimal("-12.50"), -12.5),
        "cost": ({**fixed, **logical("fixed", "decimal", precision=9, scale=2)}, Decimal(3), 3.0),
        "identity": (logical("string", "uuid"), UUID(identity), identity),
    }
    schema = record_of({name: kind for name, (kind, _, _) in fields.items()})
    body = written(registry, schema, {name: value for name, (_, value, _) in fields.items()})
    avro = Avro(registry.url)
    avro.fetch([body])
    found = avro.decode(body)
    assert found == {name: value for name, (_, _, value) in fields.items()}
    json.dumps(found)


def test_rows_are_of_the_features_with_null_as_missing(registry: SchemaRegistry) -> None:
    features = make_served(MIXED).schema
    kinds = {"numeric": "double", "boolean": "boolean", "categorical": "string"}
    fields = {each.name: ["null", kinds[each.kind]] for each in MIXED}
    fields["time"] = logical("long", "timestamp-micros")  # type: ignore[assignment]
    row = {each.name: None for each in MIXED}
    sent = {each.name: (each.categories or (1.0,))[0] for each in MIXED if each.kind != "boolean"}
    at = datetime(2026, 2, 2, tzinfo=UTC)
    bodies = [
        written(registry, record_of(fields), {**row, **sent, "time": at}),
        written(registry, record_of(fields), {**row, "time": at}),
    ]
    messages = [Message(place, body, "left", None) for place, body in enumerate(bodies)]
    reader = Reader(None, "time", Avro(registry.url))
    reader.prepare(messages)
    rows, refused = reader.read(messages, features, few=True)
    assert not refused
    assert rows.time_N.tolist() == [at.timestamp()] * 2
    as_json = [
        Message(place, json.dumps({**row, **more, "time": at.timestamp()}).encode(), "left", None)
        for place, more in enumerate((sent, {}))
    ]
    wanted, _ = Reader(None, "time").read(as_json, features, few=True)
    assert rows.rows_ND.tobytes() == wanted.rows_ND.tobytes()


def test_a_schema_may_refer_to_others(registry: SchemaRegistry) -> None:
    mode = {"type": "enum", "name": "Mode", "namespace": "plant", "symbols": ["idle", "busy"]}
    row = record_of({"mode": "plant.Mode", "a": "double"})
    referring = Schema(json.dumps(row), "AVRO", [SchemaReference("plant.Mode", "mode", 1)])
    with client_of(registry) as client:
        client.register_schema("mode", Schema(json.dumps(mode), "AVRO"))
        body = AvroSerializer(client, referring)({"mode": "busy", "a": 1.0}, ROW)
    assert isinstance(body, bytes)
    avro = Avro(registry.url)
    avro.fetch([body])
    assert avro.decode(body) == {"mode": "busy", "a": 1.0}


def test_a_schema_is_asked_for_once(registry: SchemaRegistry) -> None:
    body = written(registry, record_of({"a": "double"}), {"a": 1.0})
    avro = Avro(f"{registry.url}/")
    registry.asked.clear()
    for _ in range(3):
        avro.fetch([body, body, None, b"\0\0\0\0\x63"])
    assert sorted(registry.asked) == ["/schemas/ids/1", "/schemas/ids/99"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "expected Avro after a zero and the number of its schema, got nothing"),
        (b"", "got nothing"),
        (b'{"a": 1}', "got 8 bytes that begin with 7b"),
        (b"\0\0\0", "got 3 bytes that begin with 00"),
        (b"\0\0\0\0\x63", "the schema registry knows no schema 99"),
        (b"\0\0\0\0\1", "expected Avro of schema 1, got something else: "),
        (b"\0\0\0\0\1\0\0\0\0", "expected Avro of schema 1, got something else: "),
        (b"\0\0\0\0\1" + 9 * b"\0", "got 1 bytes behind it"),
        (b"\0\0\0\0\2\2", "schema 2 is of no record"),
        (b"\0\0\0\0\3\2", "schema 3 is PROTOBUF, expected AVRO"),
        (b"\0\0\0\0\4\2", "schema 4 cannot be read: "),
        (b"\0\0\0\0\5\6", "expected Avro of schema 5, got something else: "),
        (b"\0\0\0\0\6" + b"\xfe" * 9 + b"\1", "expected Avro of schema 6, got something else: "),
        (b"\0\0\0\0\7" + b"\xfe" * 9 + b"\0", "expected Avro of schema 7, got something else: "),
        (b"\0\0\0\0\x08\2", "schema 8 cannot be read: DecodeError"),
        (b"\0\0\0\0\6\4\xff\xff", "expected Avro of schema 6, got something else: "),
    ],
)
def test_what_is_no_record_is_refused_with_a_reason(
    registry: SchemaRegistry, body: bytes | None, said: str
) -> None:
    mode = {"type": "enum", "name": "Mode", "symbols": ["idle"]}
    for schema in (
        record_of({"a": "double"}),
        "long",
        "",
        record_of({"a": "unheard of"}),
        record_of({"a": mode}),
        record_of({"a": "string"}),
        record_of({"a": logical("long", "timestamp-millis")}),
    ):
        registry.schemas.append({"schema": json.dumps(schema)})
    registry.schemas[2]["schemaType"] = "PROTOBUF"
    registry.schemas.append({"schema": "{"})
    avro = Avro(registry.url)
    avro.fetch([body])
    with pytest.raises(HourglassError) as refused:
        avro.decode(body)
    assert said in str(refused.value)


def test_bytes_of_any_kind_are_a_record_or_refused(registry: SchemaRegistry) -> None:
    fields = {"a": ["null", "double"], "b": "string", "c": logical("long", "timestamp-micros")}
    fields["d"] = logical("bytes", "decimal", precision=9, scale=2)
    fields["e"] = {"type": "array", "items": "string"}
    at = datetime(2026, 2, 2, tzinfo=UTC)
    row = {"a": 1.0, "b": "left", "c": at, "d": Decimal(1), "e": ["x", "y"]}
    body = written(registry, record_of(fields), row)
    avro = Avro(registry.url)
    avro.fetch([body])
    refused = 0
    for place in range(5, len(body)):
        for byte in (0, 1, 2, 3, 0x7F, 0x80, 0xFE, 0xFF):
            try:
                avro.decode(body[:place] + bytes([byte]) + body[place + 1 :])
            except HourglassError:
                refused += 1
    assert refused


def test_a_registry_that_is_away_is_no_fault_of_a_message(registry: SchemaRegistry) -> None:
    body = written(registry, record_of({"a": "double"}), {"a": 1.0})
    avro = Avro(registry.url)
    for status in (500, 503, 429, 302, 404):  # 404 as of a proxy: what the registry lacks is 40403
        registry.status = status
        with pytest.raises(RegistryAway, match=f"answered {status}"):
            avro.fetch([body])
    registry.status = 200
    registry.stop()
    with pytest.raises(RegistryAway, match="refused"):
        avro.fetch([body])
    registry.start()
    avro.fetch([body])
    assert avro.decode(body) == {"a": 1.0}


def test_a_registry_is_told_who_asks(registry: SchemaRegistry) -> None:
    body = written(registry, record_of({"a": "double"}), {"a": 1.0})
    registry.auth = "me:ünsaid:more"
    with pytest.raises(RegistryRefused, match="answered 401"):
        Avro(registry.url).fetch([body])
    avro = Avro(registry.url, credentials=Credentials("me", "ünsaid:more"))
    avro.fetch([body])
    assert avro.decode(body) == {"a": 1.0}


@pytest.mark.parametrize(
    "url", ["localhost:8081", "ftp://host", "http://", "http://me:secret@host"]
)
def test_addresses_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(InvalidSettings, match="--schema-registry: expected an address") as refused:
        Avro(url)
    assert "secret" not in str(refused.value)


@pytest.mark.slow
def test_rows_wait_for_a_registry_that_is_away_and_are_answered_once(
    registry: SchemaRegistry, tmp_path: Path
) -> None:
    """It goes before the schema of the second half is asked for, and the process is killed
    meanwhile.
    """
    models = tmp_path / "models"
    publish(models, "plant", make_windowed_artifact(rows=4, gap=600.0))
    cluster = Cluster()
    cluster.make("rows", "scores", "scores-dead-letters")
    registry.auth = "me:secret"
    auth = tmp_path / "auth"
    auth.write_text("me:secret\n")
    at = logical("long", "timestamp-millis")
    sent = rows_of(["left", "right"], 0, 60)
    rows = []
    with client_of(registry) as client:
        old, new = (
            AvroSerializer(
                client, json.dumps(record_of({"time": at, **dict.fromkeys(NAMES, kind)}))
            )
            for kind in ("double", ["null", "double"])
        )
        for place, (entity, row) in enumerate(sent):
            timed = {**row, "time": datetime.fromtimestamp(row["time"], UTC)}
            rows.append((entity, (old if place < 60 else new)(timed, ROW)))
    log, flags = tmp_path / "log", ["--schema-registry", registry.url]
    flags += ["--schema-registry-auth-file", str(auth)]
    with streaming(cluster.address, models, *flags, log=log) as process:
        cluster.put("rows", rows[:60])
        cluster.wait("scores", 60)
        registry.stop()
        cluster.put("rows", rows[60:90])
        wait_for_tries(log, 2)
        process.kill()
    assert cluster.end("scores") == 60
    with streaming(cluster.address, models, *flags, log=log) as process:
        wait_for_tries(log, log.read_text().count(TRIED) + 2)  # nor are the rows before known
        registry.start()
        cluster.put("rows", rows[90:])
        cluster.wait("scores", 120)
        cluster.put("rows", [("left", b"{}")])
        cluster.wait("scores-dead-letters", 1)
        assert process.stop() == 0
    (dead,) = cluster.get("scores-dead-letters")
    assert dead.value() == b"{}"
    assert_once(cluster, sent)
    assert "Traceback" not in log.read_text()
    assert "secret" not in log.read_text()


TRIED = "; it is tried again"


def wait_for_tries(log: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while log.read_text().count(TRIED) < count:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
