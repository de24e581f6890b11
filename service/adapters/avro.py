"""Avro in Confluent's wire format -> what a message in JSON would hold.

A body is a zero, the number of its schema in four bytes, and the record. Schemas are of a registry,
and kept by their numbers.

A registry that is away is no fault of a message: `fetch` says so before anything is read. A time is
its seconds since 1970, a decimal a number, an enum, a UUID and bytes are text.
"""

import base64
import io
import ssl
import struct
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from http.client import HTTPException
from time import monotonic
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener
from uuid import UUID

import msgspec

from hourglass.service.adapters.access import Credentials
from hourglass.service.errors import HourglassError, InvalidBody, InvalidSettings

NEEDED = "Avro needs the package fastavro: pip install 'hourglass[avro]'"
TIMEOUT_SECONDS = 10.0
UNKNOWN = (40401, 40402, 40403)  # codes of a registry that lacks a subject, a version, a schema
MOST_SAID = 10_000  # bytes of a refusal that are read
UNKNOWN_SECONDS = 10.0  # after which a number that the registry did not know is asked for again
MOST_UNKNOWN = 10_000  # numbers that are kept so
DEEPEST = 32  # schemas that refer to others
HEAD = struct.Struct(">bI")
UNREADABLE = (  # what fastavro raises of bodies that are not of their schema
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
# types and logical types whose values JSON has not as they are
UNLIKE_JSON = frozenset({"bytes", "fixed"})


class RegistryAway(HourglassError):
    """The registry of schemas does not answer, or not what it should."""


class RegistryRefused(HourglassError):
    """The registry of schemas does not let us ask."""


class Reference(msgspec.Struct, frozen=True):
    """A schema that another one names."""

    subject: str
    version: int


class Registered(msgspec.Struct, frozen=True, rename="camel"):
    """A schema as a registry has it."""

    schema: str
    schema_type: str | None = None  # Avro's
    references: list[Reference] | None = None


class Schema(NamedTuple):
    """What a body is read by; `fault` says why it cannot be."""

    parsed: Any
    unlike_json: tuple[str, ...]  # fields
    fault: str | None = None


class Avro:
    """Schemas of a registry, and the bodies that are of them."""

    def __init__(
        self,
        url: str,
        *,
        credentials: Credentials | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        try:
            import fastavro
            from fastavro.schema import SchemaParseException
        except ImportError as error:
            raise InvalidSettings(NEEDED) from error
        try:
            parts = urlsplit(url)
            is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # brackets that do not close, a port that is no number
            is_address = False
        shown = url.rpartition("@")[2][:200]
        if not is_address:
            raise InvalidSettings(
                "--schema-registry: expected an address such as http://127.0.0.1:8081, got"
                f" {shown!r}"
            )
        if parts.username or parts.password:
            raise InvalidSettings(
                "--schema-registry: expected an address without a name and a password"
            )
        self._fastavro, self._url = fastavro, url.rstrip("/")
        self._invalid = (SchemaParseException, msgspec.MsgspecError, *UNREADABLE)
        self._headers = {"accept": "application/vnd.schemaregistry.v1+json, application/json"}
        if credentials is not None:
            said = base64.b64encode(f"{credentials.user}:{credentials.password}".encode()).decode()
            self._headers["authorization"] = f"Basic {said}"
        context = tls or ssl.create_default_context()
        # proxies of the environment are not used
        self._open = build_opener(ProxyHandler({}), _Staying(), HTTPSHandler(context=context)).open
        self._schemas: dict[int, Schema] = {}
        self._unknown: dict[int, float] = {}  # when the registry said so

    def fetch(self, bodies: Iterable[bytes | None]) -> None:
        """Have the schemas that these name, but those that the registry does not know:
        RegistryAway, RegistryRefused.
        """
        for number in {found for body in bodies if (found := _number_of(body)) is not None}:
            asked = self._unknown.get(number)
            is_unknown = asked is not None and monotonic() - asked < UNKNOWN_SECONDS
            if number in self._schemas or is_unknown:
                continue
            registered = self._ask(f"/schemas/ids/{number}")
            if registered is None:
                if len(self._unknown) >= MOST_UNKNOWN:
                    self._unknown.clear()
                self._unknown[number] = monotonic()
            else:
                self._schemas[number] = self._parse(registered)

    def decode(self, body: bytes | None) -> dict[str, Any]:
        """The record of a message; InvalidBody."""
        number = _number_of(body)
        if number is None or body is None:
            got = "nothing" if not body else f"{len(body)} bytes that begin with {body[:1].hex()}"
            raise InvalidBody(f"expected Avro after a zero and the number of its schema, got {got}")
        schema = self._schemas.get(number)
        if schema is None:
            raise InvalidBody(f"the schema registry knows no schema {number}")
        if schema.fault is not None:
            raise InvalidBody(f"schema {number} {schema.fault}")
        rest = io.BytesIO(body)
        rest.seek(HEAD.size)
        try:
            sent = self._fastavro.schemaless_reader(rest, schema.parsed, None)
        except UNREADABLE as error:
            reason = str(error) or type(error).__name__
            said = f"expected Avro of schema {number}, got something else: {reason}"
            raise InvalidBody(said) from error
        if rest.tell() != len(body):
            raise InvalidBody(
                f"expected Avro of schema {number}, got {len(body) - rest.tell()} bytes behind it"
            )
        if not isinstance(sent, dict):
            raise InvalidBody(f"schema {number} is of no record")
        for name in schema.unlike_json:
            sent[name] = _as_json(sent[name])
        return sent

    def _parse(self, registered: Registered) -> Schema:
        if registered.schema_type not in (None, "AVRO"):
            return Schema(None, (), f"is {registered.schema_type}, expected AVRO")
        named: dict[str, Any] = {}
        self._read_references(registered, named, DEEPEST)
        try:
            written = msgspec.json.decode(registered.schema)
            parsed = self._fastavro.parse_schema(written, named)
        except self._invalid as error:
            return Schema(None, (), f"cannot be read: {type(error).__name__}: {error}"[:300])
        fields = parsed.get("fields", []) if isinstance(parsed, dict) else []
        unlike = tuple(each["name"] for each in fields if _is_unlike_json(each["type"], named))
        return Schema(parsed, unlike)

    def _read_references(self, registered: Registered, named: dict[str, Any], depth: int) -> None:
        """Add to the types by name those of schemas that this one refers to."""
        for each in (registered.references or ()) if depth else ():
            path = f"/subjects/{quote(each.subject, safe='')}/versions/{each.version}"
            found = self._ask(path)
            if found is not None:
                self._read_references(found, named, depth - 1)
                try:
                    self._fastavro.parse_schema(msgspec.json.decode(found.schema), named)
                except self._invalid:
                    continue  # what it would have named is missed by who names it

    def _ask(self, path: str) -> Registered | None:
        """None of what it does not know."""
        request = Request(self._url + path, headers=self._headers)  # noqa: S310
        try:
            with self._open(request, timeout=TIMEOUT_SECONDS) as response:
                return msgspec.json.decode(response.read(), type=Registered)
        except HTTPError as error:
            body = b""
            with suppress(OSError, HTTPException), error:
                body = error.read(MOST_SAID)
            if error.code == 404 and _code_of(body) in UNKNOWN:
                return None
            said = f"the schema registry at {self._url} answered {error.code}"
            if error.code in (401, 403):
                raise RegistryRefused(said) from error
            raise RegistryAway(said) from error
        except (OSError, HTTPException, msgspec.MsgspecError) as error:
            reason = getattr(error, "reason", error)
            said = f"the schema registry at {self._url}: {reason or type(error).__name__}"
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise RegistryRefused(said) from error
            raise RegistryAway(said) from error


class _Staying(HTTPRedirectHandler):
    """Follows no redirect: a password is for the address that it was given for, and no other."""

    def redirect_request(self, *_: object) -> None:
        """What redirects is an answer as any other that is none of a registry."""


class _Refusal(msgspec.Struct):
    error_code: int


def _code_of(body: bytes) -> int | None:
    """What a registry says is wrong; None of an answer that is none of a registry, as of a proxy
    before one that is away.
    """
    try:
        return msgspec.json.decode(body, type=_Refusal).error_code
    except msgspec.MsgspecError:
        return None


def _number_of(body: bytes | None) -> int | None:
    """Of the schema; None of a body in another format."""
    if body is None or len(body) < HEAD.size or body[0] != 0:
        return None
    return int(HEAD.unpack_from(body)[1])


def _is_unlike_json(written: Any, named: dict[str, Any]) -> bool:
    """Whether values of a type may be others than JSON's; types by name are of `named`."""
    if isinstance(written, str):
        known = named.get(written)
        return written in UNLIKE_JSON or (known is not None and known["type"] == "fixed")
    if isinstance(written, list):
        return any(_is_unlike_json(each, named) for each in written)
    return "logicalType" in written or _is_unlike_json(written["type"], named)


def _as_json(value: object) -> object:
    """A value as JSON would have it."""
    match value:
        case datetime():
            # a local one has no zone: of a time without one that is UTC's
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        case date():
            return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
        case clock():
            passed = timedelta(hours=value.hour, minutes=value.minute, seconds=value.second)
            return passed.total_seconds() + value.microsecond / 1e6
        case Decimal():
            return float(value)
        case UUID():
            return str(value)
        case bytes():
            return value.decode(errors="backslashreplace")
    return value
