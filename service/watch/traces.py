"""Traces: a span for each answer, on both ways of a request, for whoever collects OpenTelemetry's.

The span is made when the answer has left, so that a request costs nothing before. Where
OTEL_EXPORTER_OTLP_ENDPOINT is not set nothing of OpenTelemetry is imported. Its other variables
(OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS) mean what they always do:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hourglass.service import VERSION
from hourglass.service.errors import InvalidSettings
from hourglass.service.logs import Identity

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Traces:
    """Spans, sent in batches by a thread."""

    def __init__(self, exporter: "SpanExporter") -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({SERVICE_VERSION: VERSION})
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):  # nobody named it
            resource = resource.merge(Resource({SERVICE_NAME: "hourglass"}))
        self._api = trace
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("hourglass.service", VERSION)

    def answered(
        self,
        identity: Identity,
        client: tuple[str, int] | None,
        method: str,
        path: str,
        route: str,
        status: int,
        seconds: float,
    ) -> None:
        """A span of so many seconds until now, a child of the request's traceparent; its name has
        the route's template, so that there are few.
        """
        api, now = self._api, time.time_ns()
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "url.path": path,
            "http.response.status_code": status,
            "hourglass.request_id": identity.request_id,
        }
        if client:
            attributes["client.address"] = client[0]
        if route != "unmatched":
            attributes["http.route"] = route
        if status >= 500:
            attributes["error.type"] = str(status)
        span = self._tracer.start_span(
            f"{method} {route}",
            context=self._parent(identity.traceparent),
            kind=api.SpanKind.SERVER,
            attributes=attributes,
            start_time=now - int(seconds * 1e9),
        )
        if status >= 500:
            span.set_status(api.StatusCode.ERROR)
        span.end(now)

    def close(self) -> None:
        """Send what there is, and end; blocks as long as the exporter waits."""
        self._provider.shutdown()

    def _parent(self, traceparent: str) -> "Context":
        """An empty context where there is none: whatever else is current has nothing to do with
        it.
        """
        from opentelemetry.context import Context

        if not traceparent:
            return Context()
        _, trace_id, span_id, flags = traceparent.split("-")
        parent = self._api.SpanContext(
            int(trace_id, 16), int(span_id, 16), True, self._api.TraceFlags(int(flags, 16))
        )
        return self._api.set_span_in_context(self._api.NonRecordingSpan(parent), Context())


def traces_of(environ: Mapping[str, str]) -> Traces | None:
    """None where nobody asks for traces; InvalidSettings where they cannot be had."""
    if not is_asked_for(environ):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return Traces(OTLPSpanExporter())


def is_asked_for(environ: Mapping[str, str]) -> bool:
    """Whether traces are; InvalidSettings where they cannot be had."""
    if not environ.get(ENDPOINT):
        return False
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError as error:
        raise InvalidSettings(
            f"{ENDPOINT} is set, but OpenTelemetry is not installed: pip install"
            " 'hourglass[traces]', or unset it"
        ) from error
    return True
