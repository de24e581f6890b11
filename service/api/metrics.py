"""The Prometheus exposition."""

from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency

from service.api.problems import problems
from service.api.service import Service


@get(
    "/metrics",
    summary="Prometheus metrics",
    media_type="text/plain",
    responses=problems(),
    tags=["metrics"],
    sync_to_thread=False,
)
def metrics(request: Request[Any, Any, Any], service: NamedDependency[Service]) -> Response[bytes]:
    body, content_type = service.metrics.expose(request.headers.get("accept", ""))
    return Response(body, media_type=content_type)
