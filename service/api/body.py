"""Reading a request's body, and its type; packing an answer's."""

import asyncio
import zlib
from typing import Any

from litestar import Request
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from service.errors import InvalidBody, UnsupportedMediaType

# Content-Encoding -> zlib's window bits, which also choose the format; HTTP's deflate is zlib's (RFC 9110, 8.4.1.2).
ENCODINGS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_LITTLE = 16384  # bytes, which take 0.2 ms
_FAST = 1  # zlib's level: numbers shrink little more at a higher one


async def read_body(request: Request[Any, Any, Any]) -> tuple[bytes, str]:
    """The body's bytes and its Content-Type; UnsupportedMediaType when they are compressed."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(f"expected a body without Content-Encoding, got {encoding[:40]}")
    return await request.body(), request.headers.get("content-type", "")


async def read_unpacked_body(request: Request[Any, Any, Any], *, max_bytes: int) -> bytes:
    """The body's bytes, decompressed in a thread where they came compressed: few bytes can be much work."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity" and encoding not in ENCODINGS:
        raise UnsupportedMediaType(f"expected a Content-Encoding among {', '.join(ENCODINGS)}, got {encoding[:40]}")
    body = await request.body()
    return body if encoding == "identity" else await asyncio.to_thread(unpack, body, encoding, max_bytes=max_bytes)


def unpack(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """Decompressed, but never more than a byte beyond `max_bytes`: then it is a 413, whatever else would have come."""
    stream = zlib.decompressobj(ENCODINGS[encoding])
    try:
        unpacked = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise InvalidBody(f"the body is not {encoding}: {error}") from error
    if len(unpacked) > max_bytes:
        raise RequestEntityTooLarge
    if not stream.eof:
        raise InvalidBody(f"the body is cut short, as {encoding} it goes on")
    if stream.unused_data:
        raise InvalidBody(f"expected nothing after the {encoding} data, got {len(stream.unused_data)} bytes")
    return unpacked


async def pack(body: bytes, encoding: str) -> bytes:
    """Compressed, in a thread where that takes a while."""
    return _compress(body, encoding) if len(body) <= _LITTLE else await asyncio.to_thread(_compress, body, encoding)


def accepted_encoding(accept_encoding: str) -> str | None:
    """The encoding that the Accept-Encoding header likes best of those offered; None is none of them."""
    liked: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        name, *parameters = (each.strip() for each in part.split(";"))
        if name in ENCODINGS:
            liked[name] = _quality(parameters)
    best = max(liked, key=lambda name: liked[name], default=None)
    return best if best is not None and liked[best] > 0 else None


def _compress(body: bytes, encoding: str) -> bytes:
    compressor = zlib.compressobj(_FAST, zlib.DEFLATED, ENCODINGS[encoding])
    return compressor.compress(body) + compressor.flush()


def _quality(parameters: list[str]) -> float:
    """What q= says, 1 where it says nothing; what is no number is no wish."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
