"""Request head: what it says, if it is a plain score request's, which the fast path answers itself.

Plain is POST, one Content-Length within limits, a body of a type that is read here, and nothing
that changes what the bytes mean.
"""

import re
from dataclasses import dataclass

import httptools

from hourglass.service.api.body import accepts_raw
from hourglass.service.api.entrance import NEEDS_SCORE, SCOPES, answers_for, without_root
from hourglass.service.api.parts import Parts
from hourglass.service.front.limits import MAX_FIELDS
from hourglass.service.keys.guard import WHICHEVER, Asked
from hourglass.service.logs import ID_PATTERN, TRACEPARENT_PATTERN, Identity, read_identity
from hourglass.service.model.artifact import MODEL_NAME
from hourglass.service.rows import decoding

MAX_HEAD_BYTES = 4096  # longer ones are not plain

_BEGINNING = b"POST /v1/"
_NAMED = re.compile(rf"/v1/models/({MODEL_NAME.pattern})/score")
_ODD = frozenset(
    (b"expect", b"transfer-encoding", b"content-encoding", b"upgrade", b"trailer", b"te")
)


# what may differ between the heads of one client: a whole line, with none behind that continues it
_IDENTITY = re.compile(
    rb"\r\n(x-request-id: ?%b|traceparent: ?%b)(?=\r\n[^ \t])" % (ID_PATTERN, TRACEPARENT_PATTERN),
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)  # whose fields are found faster than a NamedTuple's
class RequestHead:
    """What the head of a plain score request says."""

    path: str
    route: str  # as the metrics name it
    name: str | None  # of the model
    content_type: str
    length: int  # of the body, bytes
    raw: bool  # the answer
    asked: Asked  # of the guard
    identity: Identity

    def of(self, headers: tuple[tuple[bytes, bytes], ...]) -> "RequestHead":
        """The same with these fields too, of which it has none: they say what it is known by."""
        return RequestHead(
            self.path,
            self.route,
            self.name,
            self.content_type,
            self.length,
            self.raw,
            self.asked._replace(headers=(*self.asked.headers, *headers)),
            read_identity(headers),
        )


def read_request_head(data: bytes, parts: Parts) -> RequestHead | None:
    """A request's head up to and with its empty line; None unless it is a plain score request's."""
    if not data or len(data) > MAX_HEAD_BYTES:
        return None
    reader = _HeadReader()
    parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    plain = (
        reader.complete and parser.get_method() == b"POST" and parser.get_http_version() == "1.1"
    )
    if not plain or parser.should_upgrade() or not parser.should_keep_alive():
        return None
    return _plain_head(reader.url, reader.headers, parts)


def _plain_head(url: bytes, headers: list[tuple[bytes, bytes]], parts: Parts) -> RequestHead | None:
    settings = parts.settings
    path = without_root(url.decode("latin-1"), settings.root_path)
    name = found[1] if (found := _NAMED.fullmatch(path)) else None
    if name is None and path != "/v1/score":
        return None
    if len(headers) > MAX_FIELDS or not answers_for(headers, settings):
        return None
    values: dict[bytes, bytes] = {}
    for header, value in headers:
        if header in _ODD or (
            header in (b"content-type", b"content-length", b"connection") and header in values
        ):
            return None
        values[header] = value
    if b"origin" in values and settings.cors_origins:
        return None
    if values.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    media_type = decoding.media_type_of(values.get(b"content-type", b"").decode("latin-1"))
    content_type = next(
        (kind for kind in (decoding.JSON, decoding.RAW) if kind == media_type), None
    )
    length = values.get(b"content-length", b"0")
    if content_type is None or not length.isdigit() or len(length) > 15:
        return None
    if not 1 <= int(length) <= settings.max_body_bytes:
        return None
    route = "/v1/score" if name is None else "/v1/models/{name}/score"
    raw = accepts_raw(headers)
    asked = Asked(path, tuple(headers), NEEDS_SCORE[SCOPES], name or WHICHEVER)
    return RequestHead(
        path, route, name, content_type, int(length), raw, asked, read_identity(headers)
    )


def without_identity(data: bytes) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    """A head without the fields that differ from request to request, and those: what is left may
    be known. Where they are twice, or the head has too many fields, they stay.
    """
    found = _IDENTITY.findall(data)
    fields = tuple(
        (name.lower(), value.strip()) for name, _, value in (each.partition(b":") for each in found)
    )
    if not fields or len(dict(fields)) < len(fields) or data.count(b"\n") > MAX_FIELDS:
        return data, ()
    return _IDENTITY.sub(b"", data), fields


def may_begin(data: bytes) -> bool:
    """Whether a plain request's head may begin with these bytes."""
    return len(data) <= MAX_HEAD_BYTES and (
        data.startswith(_BEGINNING) or _BEGINNING.startswith(data)
    )


class _HeadReader:
    """The parser's callbacks."""

    def __init__(self) -> None:
        self.url, self.complete = b"", False
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.complete = True
