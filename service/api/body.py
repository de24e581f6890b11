"""Reading a request's body, and its type; the form that an answer is asked for in, and packing
it.
"""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, TypeVar, cast

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.handlers import BaseRouteHandler
from litestar.openapi import ResponseSpec

from hourglass.service.api.parts import Parts
from hourglass.service.api.problems import problems
from hourglass.service.errors import InvalidBody, NotAcceptable, UnsupportedMediaType
from hourglass.service.machine.heap import ROOM_BYTES, reserve
from hourglass.service.rows.decoding import JSON, RAW, Body, Float32

# Content-Encoding -> zlib's window bits, which also choose the format; HTTP's deflate is zlib's
# (RFC 9110, 8.4.1.2).
ENCODINGS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
BYTES_OF_A_CELL = 4  # of JSON or float32, for how long reading it takes
T = TypeVar("T")
_LITTLE = 16384  # bytes, which take 0.2 ms
_STEP_BYTES = 2**16  # of what is decompressed at once
_FAST = 1  # zlib's level: numbers shrink little more at a higher one


def of_rows(answer: type[msgspec.Struct], *statuses: int) -> dict[int, ResponseSpec]:
    """What a route that takes rows may answer."""
    return answered(answer, 400, 404, 413, 415, 422, *statuses)


def answered(answer: type[msgspec.Struct], *statuses: int) -> dict[int, ResponseSpec]:
    """What a route that writes its JSON itself may answer."""
    ok = ResponseSpec(answer, description=answer.__doc__ or "", generate_examples=False)
    return {200: ok, **problems(*statuses)}


def in_json(answer: type[msgspec.Struct], *statuses: int) -> dict[str, Any]:
    """What the routes that take rows and answer in JSON alone have in common."""
    return {
        "responses": of_rows(answer, 406, *statuses),
        "guards": [require_json_accepted],
        "status_code": 200,
    }


@asynccontextmanager
async def reading(parts: Parts, body: Body, read: Callable[[], T]) -> AsyncGenerator[T, None]:
    """What is read of a body, rows first where it is more; what is large is read, and in the end
    freed, beside the event loop.
    """
    try:
        came = await parts.batcher.run(len(body) // BYTES_OF_A_CELL, read)
        try:
            yield came
        finally:
            rows = came[0] if isinstance(came, tuple) else came
            parts.batcher.discard(cast("Float32", rows))
    finally:
        parts.batcher.discard(body)


async def read_body(request: Request[Any, Any, Any]) -> tuple[Body, str]:
    """The body's bytes and its Content-Type; UnsupportedMediaType when they are compressed."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(f"expected a body without Content-Encoding, got {encoding[:40]}")
    return await _receive(request), request.headers.get("content-type", "")


async def read_packed_body(
    request: Request[Any, Any, Any], *, max_bytes: int
) -> tuple[int, Callable[[], Body]]:
    """How many bytes the body holds at most, and what gives it, decompressed where it came
    compressed: few bytes can be much work, and many of them at once much memory.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity" and encoding not in ENCODINGS:
        raise UnsupportedMediaType(
            f"expected a Content-Encoding among {', '.join(ENCODINGS)}, got {encoding[:40]}"
        )
    body = await _receive(request)
    if encoding == "identity":
        return len(body), lambda: body
    return max_bytes, partial(unpack, body, encoding, max_bytes=max_bytes)


async def _receive(request: Request[Any, Any, Any]) -> Body:
    """The body, piece by piece to where it stays: to join the pieces of a large one would stop
    everybody.
    """
    body, at = bytearray(), 0
    length = request.content_length or 0
    async for piece in request.stream():
        end = at + len(piece)
        if at <= ROOM_BYTES < end <= length:
            begin, body = body, reserve(length)
            body[:at] = begin
        body[at:end] = piece
        at = end
    del body[at:]
    return body


def unpack(body: Body, encoding: str, *, max_bytes: int) -> Body:
    """Decompressed, but never much more than `max_bytes`: then it is a 413, whatever else would
    have come.

    It is done a little at a time: zlib joins what it has decompressed at once, and holds up
    everybody meanwhile.
    """
    stream, after = zlib.decompressobj(ENCODINGS[encoding]), 0
    unpacked, size = reserve(max_bytes + _STEP_BYTES), 0
    try:
        for at in range(0, len(body), _STEP_BYTES):
            if stream.eof:
                after = len(body) - at
                break
            left = bytes(memoryview(body)[at : at + _STEP_BYTES])
            piece = b"first"
            while left or piece:  # with nothing left it may still hold some back
                piece = stream.decompress(left, _STEP_BYTES)
                unpacked[size : size + len(piece)] = piece
                size += len(piece)
                if size > max_bytes:
                    raise RequestEntityTooLarge
                left = stream.unconsumed_tail
    except zlib.error as error:
        raise InvalidBody(f"the body is not {encoding}: {error}") from error
    if not stream.eof:
        raise InvalidBody(f"the body is cut short, as {encoding} it goes on")
    if after := after + len(stream.unused_data):
        raise InvalidBody(f"expected nothing after the {encoding} data, got {after} bytes")
    del unpacked[size:]
    return unpacked


async def pack(body: bytes, encoding: str) -> bytes:
    """Compressed, in a thread where that takes a while."""
    return (
        _compress(body, encoding)
        if len(body) <= _LITTLE
        else await asyncio.to_thread(_compress, body, encoding)
    )


def accepted_encoding(accept_encoding: str) -> str | None:
    """The encoding that the Accept-Encoding header likes best of those offered; None is none of
    them.
    """
    liked = {
        name: quality for name, quality in _qualities(accept_encoding).items() if name in ENCODINGS
    }
    best = max(liked, key=lambda name: liked[name], default=None)
    return best if best is not None and liked[best] > 0 else None


def accepts_raw(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether raw numbers are asked for by name, and JSON is not liked better; of whatever else is
    accepted, JSON is given.
    """
    liked = _accepted(headers)
    return liked.get(RAW, 0.0) > 0 and liked[RAW] >= _json_quality(liked)


def wanted_report(headers: Iterable[tuple[bytes, bytes]], path: str) -> Literal["html", "json"]:
    """The form of a report: JSON where it is named and liked as well as a page; NotAcceptable where
    neither is accepted.
    """
    liked = _accepted(headers)
    if not any(liked):
        return "html"
    if liked.get(JSON, 0.0) > 0 and liked[JSON] >= liked.get("text/html", 0.0):
        return "json"
    if any(liked.get(each, 0.0) > 0 for each in ("text/html", "text/*", "*/*")):
        return "html"
    if _json_quality(liked) > 0:
        return "json"
    raise NotAcceptable(f"{path} answers in text/html and {JSON}; Accept asks for neither")


def require_json_accepted(
    connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler
) -> None:
    """A guard of routes that answer in JSON alone: NotAcceptable where raw numbers are asked for,
    and no JSON.
    """
    liked = _accepted(connection.scope["headers"])
    if liked.get(RAW, 0.0) > 0 and _json_quality(liked) == 0:
        raise NotAcceptable(
            f"{connection.scope['path']} answers in {JSON} alone, {RAW} is for scores; Accept asks"
            f" for {RAW}"
        )


def _accepted(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, float]:
    return _qualities(
        ",".join(value.decode("latin-1") for name, value in headers if name == b"accept")
    )


def _json_quality(liked: dict[str, float]) -> float:
    return next((liked[name] for name in (JSON, "application/*", "*/*") if name in liked), 0.0)


def _qualities(accept: str) -> dict[str, float]:
    """How much is liked what a header of the Accept family names."""
    liked = {}
    for part in accept.lower().split(","):
        name, *parameters = (each.strip() for each in part.split(";"))
        liked[name] = _quality(parameters)
    return liked


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
