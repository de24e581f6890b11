"""Mutated requests, by their number: the same seed and number give the same bytes.

A framed request ends where its length says, so that exactly one answer is due to it. Of others the
parser that uvicorn uses tells whether one is.
"""

import gzip
import json
import random
import struct
import zlib
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Literal, NamedTuple

import httptools

Ends = Literal["complete", "bad", "incomplete"]


class Mutated(NamedTuple):
    kind: str
    data: bytes
    method: str
    path: str | None = None  # what a problem's `instance` must be, where it is known
    framed: bool = True
    ends: Ends = "complete"  # as the parser has it; of one that is framed it is so by its making


class Base(NamedTuple):
    """A request that is right."""

    method: str
    path: str
    content_type: str | None
    body: bytes


NUMBERS, MIXED_ROW = [0.5, -1.25, 2.0, 1e-3], [1.5, True, "south", -2]
JSON, OCTETS = "application/json", "application/octet-stream"


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _infer() -> bytes:
    data = struct.pack("<8f", *NUMBERS, *NUMBERS)
    tensor = {"name": "features", "shape": [2, 4], "datatype": "FP32"}
    return _json({"inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}]}) + data


INFER = {
    "id": "x",
    "inputs": [{"name": "features", "shape": [1, 4], "datatype": "FP32", "data": NUMBERS}],
    "outputs": [{"name": "score"}, {"name": "contributions"}],
}
BASES = (
    *(
        Base("POST", f"/v1/models/{model}/{route}", JSON, _json({"rows": [row, row]}))
        for model, row in (("plain", NUMBERS), ("mixed", MIXED_ROW))
        for route in ("score", "explain", "reconstruct", "encode", "replay")
    ),
    Base("POST", "/v1/models/plain/score", JSON, _json({"rows": [NUMBERS]})),
    Base("POST", "/v1/models/plain/score", JSON, _json({"rows": [NUMBERS] * 40})),
    Base(
        "POST",
        "/v1/models/mixed/score",
        JSON,
        _json({"rows": [{"load": 1, "open": False, "site": "north", "heat": None}]}),
    ),
    *(
        Base("POST", f"/v1/models/plain/{route}", OCTETS, struct.pack("<8f", *NUMBERS * 2))
        for route in ("score", "explain", "reconstruct", "decode", "replay")
    ),
    Base(
        "POST",
        "/v1/models/plain/replay",
        JSON,
        _json({"rows": [NUMBERS] * 3, "alphas": [0.05], "labels": [0, 1, None], "rows_per_day": 9}),
    ),
    Base("POST", "/v1/models/plain/score", "text/csv", b"a,b,c,d\n0.5,-1.25,2.0,0.001\n"),
    Base("POST", "/v1/models/plain/decode", JSON, _json({"codes": [[0.5, -1]]})),
    Base("POST", "/v1/models/plain/sample", JSON, _json({"count": 5, "seed": 0})),
    Base("POST", "/v1/score", JSON, _json({"rows": [NUMBERS]})),
    Base("PATCH", "/v1/models/patched", JSON, _json({"alpha": 0.1, "delta": 0.05})),
    Base("POST", "/v1/models/patched/reload", None, b""),
    Base("POST", "/v1/models/patched/promote", JSON, _json({"version": "0123"})),
    Base("POST", "/v2/models/plain/infer", JSON, _json(INFER)),
    Base("POST", "/v2/models/plain/infer", OCTETS, _infer()),
    Base("POST", "/v2/models/plain/versions/0123/infer", JSON, _json(INFER)),
    *(
        Base("GET", path, None, b"")
        for path in (
            "/v1/models", "/v1/models/plain", "/v1/models/mixed", "/health/live", "/health/ready",
            "/v2", "/v2/models/plain", "/v2/models/plain/ready", "/v2/health/live",
            "/v1/models/plain/replay?alpha=0.05&alpha=0.1", "/v1/models/plain/versions",
            "/v1/models/plain/alarms?limit=5&since=2026-01-01T00:00:00Z", "/v1/models/plain/ordinary",
            "/v1/models/plain/alarms/0123456789abcdef", "/v1/models/plain/report?format=json", "/",
            "/console/app.js", "/v1/models/learn.shapes-plain",
        )
    ),
)  # fmt: skip
BOMB = gzip.compress(bytes(2**21))
RARE = tuple(Base("GET", path, None, b"") for path in ("/metrics", "/docs", "/docs/openapi.json"))
WORDS = (
    b"NaN", b"-NaN", b"Infinity", b"1e999", b"-1e999", b"1e39", b"3.4028236e38", b"1e-400", b"-0",
    b"9" * 400, b"0." + b"0" * 400 + b"1", b"1e", b"01", b"+1", b".5", b"0x1", b"1_0", b"null",
    b"true", b"tru", b'""', b'"\\ud800"', b'"\\u0000"', b'"north "', b"\xff", b"\xc3\x28",
    b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x00", b"\x1f", b"[", b"]", b"{", b"}", b"[]", b"{}",
    b"[" * 600, b'{"a":' * 600, b"[[" * 40 + b"]]" * 40, b",", b",,", b":", b'"', b"\\", b"/*",
    b'"rows":', b'"rows":[[1,2,3,4]],', b'{"rows":[', b"18446744073709551616", b"-1", b"1e18",
    b"9223372036854775807", b" " * 3000, b"\r\n\r\n", b"\n", b"\xe2\x80\xa8", b'"' + b"x" * 5000,
)  # fmt: skip
TYPES = (
    JSON, OCTETS, "text/csv", "text/plain", "application/json; charset=utf-16", "application/xml",
    "APPLICATION/JSON", "application/json;", "multipart/form-data; boundary=x", "*/*", "", "a" * 900,
    "application/vnd.api+json", "application/octet-stream; x=y", "\xff", "application/json, text/csv",
)  # fmt: skip
HEADERS = (
    ("Accept", OCTETS), ("Accept", "text/html"), ("Accept", "*/*;q=0"), ("Accept", "a/b;q=x,;;,"),
    ("Accept-Encoding", "gzip"), ("Accept-Encoding", "br;q=1, deflate"), ("Expect", "100-continue"),
    ("Expect", "201-x"), ("Upgrade", "h2c"), ("Upgrade", "websocket"), ("TE", "trailers"),
    ("Content-Encoding", "gzip"), ("Content-Encoding", "deflate"), ("Content-Encoding", "br"),
    ("Content-Encoding", "gzip, gzip"), ("Inference-Header-Content-Length", "5"),
    ("Inference-Header-Content-Length", "-1"), ("Inference-Header-Content-Length", "9" * 30),
    ("Inference-Header-Content-Length", "x"), ("Cookie", "a=b; " * 300), ("X", "\xff\xfe"), ("X", ""),
    ("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-Prefix", "//evil"), ("Range", "bytes=0-1"),
    ("If-None-Match", "*"), ("Origin", "null"), ("Date", "31 Dec 9999"), ("X" * 600, "y" * 2000),
    ("Connection", "keep-alive"), ("Keep-Alive", "timeout=-1"), ("Authorization", "Basic \xe4"),
)  # fmt: skip
METHODS = (
    "GET",
    "HEAD",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "POST",
    "PROPFIND",
    "M-SEARCH",
)
QUERIES = (
    "top=3", "top=-1", "top=0", "top=99999999999999999999", "top=x", "top=1&top=2", "top", "top=1.5",
    "x=1", "%00", "%ff", "=&=&", "top=%31", "seed=1", "a[b]=c", "top=nan", "q=" + "z" * 3000,
)  # fmt: skip
PATHS = (
    "/", "//", "/v1", "/v1/models/", "/v1/models//score", "/v1/models/../score", "/v1/models/%2e%2e",
    "/v1/models/nobody/score", "/v1/models/PLAIN/score", "/v1/models/plain/score/", "/v1/models/%ff",
    "/v1/models/plain%2Fscore", "/v1/models/%00/score", "/v1/models/" + "a" * 3000 + "/score",
    "/v2/models/plain/versions/../infer", "/v1/models/plain:predict", "/docs/../../etc/passwd",
    "/docs/%2e%2e/app.py", "/v1/models/plain/streams/x", "/v1/models/%E2%82%AC", "/*", "/;", "/favicon.ico",
)  # fmt: skip
PREFACES = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(90),
    bytes(range(256)) * 8, b"\r\n" * 50, b"GET / HTTP/0.9\r\n\r\n", b"GET /\r\n\r\n", b"\x00" * 300,
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", b"BREW / HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET * HTTP/1.1\r\n\r\n", b"GET " + b"/a" * 9000,
    b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 2000 + b"\r\n", b"GET / HTTP/1.1\r\nX: \x00\r\n\r\n",
    b"SSH-2.0-x\r\n", b"\xef\xbb\xbfGET / HTTP/1.1\r\n\r\n", b"GET http://x/v1/models HTTP/1.1\r\n\r\n",
)  # fmt: skip
LENGTHS = (
    "-1", "+5", "0x5", "5 5", "", "99999999999999999999999", "4294967296", "18446744073709551615",
    "1.5", "five", "5,5", "5, 6", " 5", "\t5", "٥", "1e1", "33554433", "99999999999",
)  # fmt: skip
CHUNKS = (
    b"5\r\nab\r\n0\r\n\r\n", b"-1\r\n\r\n", b"ffffffffffffffff1\r\nx", b"g\r\n", b"5;x=y\r\nhello\r\n0\r\n\r\n",
    b"5;" + b"e" * 9000 + b"\r\nhello\r\n0\r\n\r\n", b"0\r\n" + b"t: u\r\n" * 1500 + b"\r\n",
    b"5\nhello\n0\n\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"00000000000000000000005\r\nhello\r\n0\r\n\r\n",
    b"1\r\na\r\n" * 3000 + b"0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"ffffffff\r\nhello", b"",
    b"0\r\nContent-Length: 5\r\n\r\nhello", b" 5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\nx",
)  # fmt: skip


def framed(draw: random.Random) -> Mutated:
    """One request that ends where it says; what it holds may be anything."""
    base = RARE[draw.randrange(len(RARE))] if draw.random() < 0.002 else draw.choice(BASES)
    return draw.choice(FRAMED)(base, draw)


def unframed(draw: random.Random) -> Mutated:
    """What has to be a connection's last: where it ends nobody can be sure of."""
    mutated = draw.choice(UNFRAMED)(draw.choice(BASES), draw)
    return mutated._replace(ends=how_it_ends(mutated.data))


def how_it_ends(data: bytes) -> Ends:
    """Whether these bytes hold a whole request, or are none; as llhttp has it. A head without an end
    may be waited for, whatever it says.
    """
    seen = _Seen()
    try:
        httptools.HttpRequestParser(seen).feed_data(data)
    except httptools.HttpParserUpgrade:
        return "complete"
    except httptools.HttpParserError:
        return "complete" if seen.complete else "bad" if b"\r\n\r\n" in data else "incomplete"
    return "complete" if seen.complete else "incomplete"


class _Seen:
    complete = 0

    def on_message_complete(self) -> None:
        self.complete += 1


def request(
    base: Base,
    *headers: tuple[str, str],
    body: bytes | None = None,
    content_type: str | None = None,
    framing: str | None = None,
    **changes: str,
) -> bytes:
    """Bytes of a request; with its length, unless another framing is given."""
    body = base.body if body is None else body
    base = base._replace(**changes)
    lines = [f"{base.method} {base.path} HTTP/1.1", "Host: localhost"]
    if (kind := base.content_type if content_type is None else content_type) is not None:
        lines.append(f"Content-Type: {kind}")
    lines += [f"{name}: {value}" for name, value in headers]
    if framing is not None:
        lines.append(framing)
    elif body or base.method in ("POST", "PATCH", "PUT"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode("utf-8" if framing else "latin-1") + body


def mutate(data: bytes, draw: random.Random) -> bytes:
    """One to three changes anywhere."""
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(data) + 1)
        match draw.randrange(6):
            case 0:
                data = data[:at] + draw.choice(WORDS) + data[at:]
            case 1:
                data = data[:at] + draw.choice(WORDS) + data[at + draw.randrange(1, 6) :]
            case 2:
                data = data[:at] + data[at + draw.randrange(1, 12) :]
            case 3:
                data = data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
            case 4:
                data = data[:at] + data[at // 2 : at] * draw.randrange(1, 4) + data[at:]
            case 5:
                data = data[:at]
    return data


def _body(base: Base, draw: random.Random) -> Mutated:
    data = request(base, body=mutate(base.body, draw))
    return Mutated("body", data, base.method, base.path)


def _value(base: Base, draw: random.Random) -> Mutated:
    """JSON that is JSON, of other values."""
    try:
        sent = json.loads(base.body)
    except ValueError:
        return _random(base, draw)
    values = (
        None, True, -1, 0, 1e300, 10**30, "", "x" * 300, [], {}, [[]], [None] * 4, {"a": 1},
        [[[[1]]]], "\ud800", [[1, 2, 3, 4]] * 50, {"rows": []}, [1e39], -1e-300, 2**63,
    )  # fmt: skip
    for _ in range(draw.randrange(1, 3)):
        at: Any = sent
        while True:  # down to anywhere
            keys = list(at) if isinstance(at, dict) else range(len(at))
            if not keys:
                break
            key = draw.choice(keys)
            if isinstance(at[key], dict | list) and draw.random() < 0.8:
                at = at[key]
                continue
            at[key] = deepcopy(draw.choice(values))
            if isinstance(at, dict) and draw.random() < 0.2:
                name = draw.choice(("x", "", "rows", "outputs", "count", "alpha"))
                at[name] = deepcopy(draw.choice(values))
            break
    return Mutated("value", request(base, body=_json(sent)), base.method, base.path)


def _random(base: Base, draw: random.Random) -> Mutated:
    body = draw.randbytes(draw.choice((0, 1, 3, 4, 15, 16, 17, 160, 3000)))
    return Mutated("random bytes", request(base, body=body), base.method, base.path)


def _type(base: Base, draw: random.Random) -> Mutated:
    data = request(base, content_type=draw.choice(TYPES))
    return Mutated("content type", data, base.method, base.path)


def _header(base: Base, draw: random.Random) -> Mutated:
    headers = draw.sample(HEADERS, draw.randrange(1, 4))
    kind = "header, upgrade" if any(name == "Upgrade" for name, _ in headers) else "header"
    if kind != "header":
        headers.append(("Connection", "Upgrade"))
    return Mutated(kind, request(base, *headers), base.method, base.path)


def _path(base: Base, draw: random.Random) -> Mutated:
    data = request(base, path=draw.choice(PATHS))
    return Mutated("path", data, base.method)


def _query(base: Base, draw: random.Random) -> Mutated:
    data = request(base, path=f"{base.path}?{draw.choice(QUERIES)}")
    return Mutated("query", data, base.method, base.path)


def _method(base: Base, draw: random.Random) -> Mutated:
    method = draw.choice(METHODS)
    return Mutated("method", request(base, method=method), method, base.path)


def _compressed(base: Base, draw: random.Random) -> Mutated:
    name, body = draw.choice(
        (
            ("gzip", gzip.compress(base.body, 1)),
            ("deflate", zlib.compress(base.body)),
            ("gzip", BOMB),
            ("gzip", gzip.compress(base.body, 1)[:-5]),
            ("deflate", mutate(zlib.compress(base.body), draw)),
        )
    )
    data = request(base, ("Content-Encoding", name), body=body)
    return Mutated("compressed", data, base.method, base.path)


def _wide(base: Base, draw: random.Random) -> Mutated:
    """UTF-16, UTF-32, a mark of byte order."""
    text = base.body.decode("latin-1")
    body = text.encode(draw.choice(("utf-16", "utf-32", "utf-16-le", "utf-8-sig")))
    return Mutated("encoding", request(base, body=body), base.method, base.path)


def _chunks(base: Base, draw: random.Random) -> Mutated:
    """In chunks that are right."""
    left, parts = mutate(base.body, draw) if draw.random() < 0.5 else base.body, []
    while left:
        size = draw.choice((1, 2, 7, 100, 4000))
        parts.append(left[:size])
        left = left[size:]
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))
    data = request(base, body=body, framing="Transfer-Encoding: chunked")
    return Mutated("chunked", data, base.method, base.path)


def _length(base: Base, draw: random.Random) -> Mutated:
    size = len(base.body)
    wrong = draw.choice(
        (*LENGTHS, str(size + draw.randrange(1, 90)), str(draw.randrange(size + 1)))
    )
    data = request(base, framing=f"Content-Length: {wrong}")
    return Mutated("wrong length", data, base.method, framed=False)


def _lengths(base: Base, draw: random.Random) -> Mutated:
    size = len(base.body)
    other = draw.choice(
        (f"Content-Length: {size + 1}", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip",
         "Transfer-Encoding: chunked, identity", "Transfer-Encoding:\x0bchunked",
         "Transfer-Encoding : chunked", f"Content-Length : {size}")
    )  # fmt: skip
    data = request(base, framing=f"Content-Length: {size}\r\n{other}")
    return Mutated("two lengths", data, base.method, framed=False)


def _bad_chunks(base: Base, draw: random.Random) -> Mutated:
    body = draw.choice(CHUNKS)
    data = request(base, body=body, framing="Transfer-Encoding: chunked")
    return Mutated("bad chunks", data, base.method, framed=False)


def _anywhere(base: Base, draw: random.Random) -> Mutated:
    return Mutated("anywhere", mutate(request(base), draw), base.method, framed=False)


def _head(base: Base, draw: random.Random) -> Mutated:
    head, _, body = request(base).partition(b"\r\n\r\n")
    return Mutated("head", mutate(head, draw) + b"\r\n\r\n" + body, base.method, framed=False)


def _cut(base: Base, draw: random.Random) -> Mutated:
    data = request(base)
    return Mutated("cut off", data[: draw.randrange(len(data))], base.method, framed=False)


def _preface(base: Base, draw: random.Random) -> Mutated:
    return Mutated("another protocol", draw.choice(PREFACES), "GET", framed=False)


def _close(base: Base, draw: random.Random) -> Mutated:
    body = mutate(base.body, draw)
    data = request(base, ("Connection", draw.choice(("close", "close, x", "Close"))), body=body)
    return Mutated("close", data, base.method, framed=False)


def _old(base: Base, draw: random.Random) -> Mutated:
    data = request(base).replace(
        b"HTTP/1.1", draw.choice((b"HTTP/1.0", b"HTTP/2.0", b"http/1.1")), 1
    )
    return Mutated("version", data, base.method, framed=False)


Mutation = Callable[[Base, random.Random], Mutated]
FRAMED: tuple[Mutation, ...] = (
    _body, _body, _body, _value, _value, _random, _type, _header, _path, _query, _method,
    _compressed, _wide, _chunks,
)  # fmt: skip
UNFRAMED: tuple[Mutation, ...] = (
    _length, _lengths, _bad_chunks, _anywhere, _anywhere, _head, _cut, _preface, _close, _old,
)  # fmt: skip
