"""The Prometheus exposition."""

from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency

from hourglass.service.api.entrance import NEEDS_READ, OPENED_BY
from hourglass.service.api.parts import Parts
from hourglass.service.api.problems import problems


@get(
    "/metrics",
    summary="Prometheus metrics",
    media_type="text/plain",
    responses=problems(),
    opt={**NEEDS_READ, OPENED_BY: "metrics"},
    tags=["metrics"],
)
async def metrics(
    request: Request[Any, Any, Any], parts: NamedDependency[Parts]
) -> Response[bytes]:
    body, content_type = await parts.metrics.scrape(request.headers.get("accept", ""))
    if content_type.startswith("text/"):  # to which Litestar adds the charset
        content_type = content_type.partition("; charset=")[0]
    return Response(body, media_type=content_type)
