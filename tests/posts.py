"""Requests as bytes: what clients post, by what becomes of it within these limits."""

import json

import numpy as np

LIMITS = {"max_rows": 100, "max_body_bytes": 20_000, "inline_cells": 1000}
PLAIN, RAW_ROW = b'{"rows":[[1,2,3,4]]}', np.array([[1, 2, 3, 4]], "<f4").tobytes()


def request(
    body: bytes = PLAIN,
    *headers: str,
    path: str = "/v1/models/plain/score",
    method: str = "POST",
    kind: str | None = "application/json",
    length: int | None = -1,
    version: str = "1.1",
) -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *headers]
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length == -1 else length}")
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body


def rows(*values: object) -> bytes:
    return json.dumps({"rows": values}).encode()


VALID = {
    "one row": request(),
    "several rows": request(rows([1, 2, 3, 4], [0, None, 0, 0], [5, 6, 7.5, 8e3])),
    "a gap": request(rows([None, 2, 3, 4])),
    "objects": request(rows({"a": 1, "b": 2, "c": 3, "d": 4})),
    "white space": request(b' { "rows" : [ [ 1 , 2 , 3 , 4 ] ] } \n'),
    "a hundred rows": request(rows(*[[1.25, 2, 3, n] for n in range(100)])),
    "float32": request(RAW_ROW, kind="application/octet-stream"),
    "float32, a hundred rows": request(RAW_ROW * 100, kind="application/octet-stream"),
    "float32 back": request(PLAIN, "Accept: application/octet-stream"),
    "float32 there and back": request(RAW_ROW * 3, "accept: */*;q=.1, Application/Octet-Stream", kind="application/octet-stream"),
    "float32 back of many": request(RAW_ROW * 100, "Accept: application/octet-stream", kind="application/octet-stream"),
    "float32 back by the second of two headers": request(PLAIN, "Accept: text/html", "Accept: application/octet-stream"),
    "float32 back rather than nothing": request(PLAIN, "Accept: application/octet-stream;q=0"),
    "json rather than float32": request(PLAIN, "Accept: application/octet-stream;q=0.5, application/json"),
    "categories": request(rows([1.5, True, "south", 2], [1.5, False, "east", None]), path="/v1/models/mixed/score"),
    "rows twice": request(b'{"rows":[[1,2,3,4]],"rows":[[4,3,2,1]]}'),
    "a type with parameters": request(kind="Application/JSON; charset=utf-8"),
    "keep-alive": request(PLAIN, "Connection: Keep-Alive"),
    "an id of its own": request(PLAIN, "X-Request-Id: order-7/retry:2"),
    "a place in a trace": request(PLAIN, "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x-request-id: 1"),
    "two ids": request(PLAIN, "X-Request-Id: first", "X-Request-Id: second"),
    "an id that is unsafe": request(PLAIN, 'X-Request-Id: a"b'),
    "an id that is too long": request(PLAIN, "X-Request-Id: " + "a" * 129),
    "headers that mean nothing here": request(PLAIN, "Accept: text/html", "Accept-Encoding: gzip", "Cookie: a=b", "X-Y: ü"),
}  # fmt: skip

INVALID = {
    "no json": request(b"{"),
    "an empty object": request(b"{}"),
    "no rows": request(rows()),
    "a row too short": request(rows([1, 2, 3])),
    "a row too long, one too short": request(rows([1, 2, 3, 4, 5], [1, 2, 3])),
    "a string": request(rows([1, 2, 3, "x"])),
    "a boolean": request(rows([1, 2, 3, True])),
    "beyond float32": request(rows([1, 2, 3, 1e39])),
    "beyond any float": request(b'{"rows":[[1,2,3,1e999]]}'),
    "NaN": request(b'{"rows":[[1,2,3,NaN]]}'),
    "NaN under a name that cannot be sent back": request(b'{"rows":[{"\\ud800":NaN}]}'),
    "the same in a large body": request(b'{"rows":[{"\\ud800":NaN}]}' + b" " * 5000),
    "mostly gaps": request(rows([1, None, None, None])),
    "a score beyond float32": request(rows([3e38, -3e38, 3e38, 0])),
    "one score beyond float32 of several": request(rows([1, 2, 3, 4], [3e38, -3e38, 3e38, 0])),
    "too many rows": request(rows(*[[1, 2, 3, 4]] * 101)),
    "another field": request(b'{"rows":[[1,2,3,4]],"x":1}'),
    "something behind": request(PLAIN + b"x"),
    "no utf-8": request(b'{"rows":[["\xff",2,3,4]]}'),
    "half a float32": request(RAW_ROW[:-1], kind="application/octet-stream"),
    "float32 infinity": request(np.array([np.inf] * 4, "<f4").tobytes(), kind="application/octet-stream"),
    "a score beyond float32, as float32": request(rows([1, 2, 3, 4], [3e38, -3e38, 3e38, 0]), "Accept: application/octet-stream"),
    "no rows, as float32": request(rows(), "Accept: application/octet-stream"),
    "an unknown model": request(path="/v1/models/nobody/score"),
    "no name where there are two": request(path="/v1/score"),
    "an unknown model and no json": request(b"{", path="/v1/models/nobody/score"),
}  # fmt: skip

ODD = {
    "an empty body": request(b""),
    "no length": request(b"", length=None),
    "no type": request(kind=None),
    "another type": request(kind="text/plain"),
    "compressed": request(PLAIN, "Content-Encoding: gzip"),
    "not compressed, and said so": request(PLAIN, "Content-Encoding: identity"),
    "too large": request(b" " * 20_001),
    "a query": request(path="/v1/models/plain/score?x=1"),
    "an encoded path": request(path="/v1/models/%70lain/score"),
    "an encoded slash": request(path="/v1/models%2Fplain/score"),
    "a slash behind": request(path="/v1/models/plain/score/"),
    "two slashes": request(path="//v1/models/plain/score"),
    "dots": request(path="/v1/models/x/../plain/score"),
    "a whole url": request(path="http://x/v1/models/plain/score"),
    "a name that can be none": request(path="/v1/models/PLAIN/score"),
    "another route": request(path="/v1/models/plain/explain"),
    "another route as float32": request(PLAIN, "Accept: application/octet-stream", path="/v1/models/plain/explain"),
    "another method": request(b"", method="GET", kind=None, length=None),
    "put": request(method="PUT"),
    "in chunks": request(b"14\r\n" + PLAIN + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=None),
    "in chunks with a trailer": request(b"14\r\n" + PLAIN + b"\r\n0\r\nX: y\r\n\r\n", "Transfer-Encoding: chunked", length=None),
    "an upgrade to nothing known": request(PLAIN, "TE: trailers"),
    "two types": request(PLAIN, "Content-Type: text/plain"),
    "a long head": request(PLAIN, "X: " + "y" * 9000),
}  # fmt: skip

CLOSING = {
    "two lengths": request(PLAIN, "Content-Length: 3"),
    "two lengths that agree": request(PLAIN, f"Content-Length: {len(PLAIN)}"),
    "a length and chunks": request(b"14\r\n" + PLAIN + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "chunks said in another way": request(PLAIN, "Transfer-Encoding: xchunked"),
    "a folded header": request(PLAIN, "X: y\r\n z"),
    "a header with a space before its colon": request(PLAIN, "X : y"),
    "a header with a null": request(PLAIN, "X: \0"),
    "a bare line feed": request().replace(b"\r\n", b"\n", 1),
    "a negative length": request(length=-2),
    "a length with a sign": request(PLAIN, f"Content-Length: +{len(PLAIN)}", length=None),
    "a length beyond all": request(length=10**20),
    "version 1.0": request(version="1.0"),
    "version 2.0": request(version="2.0"),
    "no version": b"POST /v1/models/plain/score\r\n\r\n",
    "close": request(PLAIN, "Connection: close"),
    "close and keep-alive": request(PLAIN, "Connection: keep-alive, close"),
    "garbage": bytes(range(256)) * 20,
    "the beginning of http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a connection to elsewhere": b"CONNECT x:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
}  # fmt: skip
