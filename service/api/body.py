"""Reading a request's body, and its type."""

from typing import Any

from litestar import Request

from service.errors import UnsupportedMediaType


async def read_body(request: Request[Any, Any, Any]) -> tuple[bytes, str]:
    """The body's bytes and its Content-Type; UnsupportedMediaType when they are compressed."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(f"expected a body without Content-Encoding, got {encoding[:40]}")
    return await request.body(), request.headers.get("content-type", "")
