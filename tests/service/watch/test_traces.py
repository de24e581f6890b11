"""A span for each answer, on both ways, and what leaves for a collector."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from hourglass.service.logs import Identity
from hourglass.service.watch.traces import ENDPOINT, Traces, traces_of
from tests.posts import INVALID, PLAIN, request
from tests.serving import Connection, Process, serving

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"traceparent: 00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize("fast", [False, True])
def test_every_answer_has_a_span_named_after_its_route_and_under_its_caller(models, fast):
    exporter = InMemorySpanExporter()
    with serving(models, fast=fast, traces=Traces(exporter)) as client:
        with Connection(client) as connection:
            connection.send(request(PLAIN, TRACEPARENT, "x-request-id: r1"))
            connection.send(INVALID["a string"])
            assert [connection.answer()[0] for _ in range(2)] == [200, 422]
        client.get("/nowhere")
    first, second, third = sorted(  # what is refused is so before what is scored
        exporter.get_finished_spans(),
        key=lambda each: [200, 422, 404].index(each.attributes["http.response.status_code"]),
    )
    names = [each.name for each in (first, second, third)]
    assert names == ["POST /v1/models/{name}/score"] * 2 + ["GET unmatched"]
    assert first.kind is SpanKind.SERVER
    assert f"{first.context.trace_id:032x}" == TRACE
    assert (f"{first.parent.span_id:016x}", first.parent.is_remote) == (SPAN, True)
    assert 0 < first.end_time - first.start_time < 5e9
    assert first.attributes == {
        "http.request.method": "POST",
        "url.path": "/v1/models/plain/score",
        "http.route": "/v1/models/{name}/score",
        "http.response.status_code": 200,
        "hourglass.request_id": "r1",
        "client.address": "127.0.0.1",
    }
    assert (second.parent, second.status.status_code) == (None, StatusCode.UNSET)
    assert second.context.trace_id != first.context.trace_id
    assert "http.route" not in third.attributes


def test_an_error_of_the_service_is_one_of_the_span_and_what_is_not_sampled_is_not_kept():
    exporter = InMemorySpanExporter()
    traces = Traces(exporter)
    asked = None, "GET", "/v1/models", "/v1/models"
    traces.answered(Identity("r1"), *asked, 503, 0.5)
    traces.answered(Identity("r2", f"00-{TRACE}-{SPAN}-00"), *asked, 200, 0.5)
    traces.close()
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "503"
    assert span.end_time - span.start_time == 500_000_000
    assert span.resource.attributes["service.name"] == "hourglass"


def test_without_an_endpoint_there_are_none():
    assert traces_of({}) is None
    assert traces_of({ENDPOINT: ""}) is None


def test_a_collector_gets_what_was_answered_before_the_service_ended(models):
    received: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            assert self.path == "/v1/traces"
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            endpoint = f"http://127.0.0.1:{collector.server_port}"
            variables = {ENDPOINT: endpoint, "OTEL_SERVICE_NAME": "pumps-eu"}
            with Process(models, **variables) as process:
                url = f"{process.url}/v1/models/plain/score"
                assert httpx.post(url, json={"rows": [[1, 2, 3, 4]]}).is_success
                assert process.stop() == 0
        finally:
            collector.shutdown()
            thread.join()
    resources = [
        each
        for body in received
        for each in ExportTraceServiceRequest.FromString(body).resource_spans
    ]
    spans = [span for each in resources for scope in each.scope_spans for span in scope.spans]
    assert "POST /v1/models/{name}/score" in {span.name for span in spans}
    named = {item.key: item.value.string_value for item in resources[0].resource.attributes}
    assert named["service.name"] == "pumps-eu"
