"""What a line looks like, and which request it is about."""

import io
import json
import logging
import os
import re
import signal
import time
from pathlib import Path

import httpx
import pytest

from hourglass.service.logs import Identity, JSONLines, TextLines, about, read_identity
from tests.posts import PLAIN, request
from tests.serving import Connection, Process, serving

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], Identity()),
        ([(b"x-request-id", b"order-7/retry:2")], Identity("order-7/retry:2")),
        ([(b"x-request-id", b"a" * 128)], Identity("a" * 128)),
        ([(b"x-request-id", b"a" * 129)], Identity()),
        ([(b"x-request-id", b"")], Identity()),
        ([(b"x-request-id", b"a\nb")], Identity()),
        ([(b"x-request-id", b'a"b')], Identity()),
        ([(b"x-request-id", "ä".encode())], Identity()),
        ([(b"x-request-id", b"a b"), (b"x-request-id", b"c")], Identity("c")),
        ([(b"traceparent", TRACEPARENT.encode())], Identity("", TRACEPARENT)),
        ([(b"traceparent", TRACEPARENT.upper().encode())], Identity()),
        ([(b"traceparent", f"ff{TRACEPARENT[2:]}".encode())], Identity()),
        ([(b"traceparent", f"00-{'0' * 32}-{SPAN}-01".encode())], Identity()),
        ([(b"traceparent", f"00-{TRACE}-{'0' * 16}-01".encode())], Identity()),
    ],
)
def test_an_identity_is_taken_where_it_is_short_and_safe(headers, expected):
    assert read_identity(headers) == expected


@pytest.fixture
def logged():
    """logged(formatter, level, message, *arguments, error): what the formatter makes of it."""

    def log(formatter: logging.Formatter, message: str, *arguments: object, error=None) -> str:
        record = logging.LogRecord("hourglass.service.x", 40, "", 0, message, arguments, error)
        return formatter.format(record)

    return log


def test_a_json_line_is_one_line_with_the_request_and_the_traceback(logged):
    try:
        raise ValueError("two\nlines")
    except ValueError as raised:
        error = type(raised), raised, raised.__traceback__
    with about(Identity("r1", TRACEPARENT)):
        line = logged(JSONLines(), "POST %s failed", "/a\n/b", error=error)
    assert "\n" not in line
    told = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told.pop("time"))
    assert told.pop("exception").endswith("ValueError: two\nlines")
    assert told == {
        "level": "error",
        "logger": "hourglass.service.x",
        "message": "POST /a\n/b failed",
        "pid": os.getpid(),
        "request_id": "r1",
        "trace_id": TRACE,
        "span_id": SPAN,
    }
    assert "request_id" not in json.loads(logged(JSONLines(), "of no request"))


def test_no_message_of_a_text_line_looks_like_two(logged):
    with about(Identity("r1", TRACEPARENT)):
        line = logged(TextLines(), "GET %s failed", "/a\n2026-01-01 ERROR \x1b[31m")
    end = rf"GET /a\\n2026-01-01 ERROR \\u001b\[31m failed \[request_id=r1 trace_id={TRACE} span_id={SPAN}\]"
    assert re.fullmatch(rf"\S+ \S+ ERROR hourglass\.service\.x: {end}", line)


@pytest.mark.parametrize("fast", [False, True])
def test_an_error_is_logged_with_the_id_that_its_answer_has(models, fast, monkeypatch):
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(JSONLines())
    logger = logging.getLogger("hourglass.service")
    with serving(models, fast=fast) as client:
        batcher = client.server.lifespan.state["parts"].batcher

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("a bug")

        for name in ("ask", "score"):
            monkeypatch.setattr(type(batcher), name, fail)
        logger.addHandler(handler)
        try:
            url, body = "/v1/models/plain/score", {"rows": [[1, 2, 3, 4]]}
            own = client.post(url, json=body, headers={"x-request-id": "mine"})
            made = client.post(url, json=body)
        finally:
            logger.removeHandler(handler)
    assert [own.status_code, made.status_code] == [500, 500]
    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    ids = [line["request_id"] for line in lines if "exception" in line]
    assert ids == ["mine", made.headers["x-request-id"]]
    assert own.headers["x-request-id"] == "mine"


def test_every_line_of_a_service_is_json_and_every_answer_has_one_and_no_body_is_in_any(models):
    secret = "4815.162342"
    bodies = [
        PLAIN.replace(b"4", secret.encode()),
        f'{{"rows":[["{secret}"]]}}'.encode(),
        b"{" + secret.encode(),
    ]
    flags = ("--log-format", "json", "--access-log")
    with (
        Process(models, *flags, HOURGLASS_LOG_LEVEL="debug") as process,
        httpx.Client(base_url=process.url) as client,
    ):
        with Connection(client) as connection:
            for number, body in enumerate(bodies):
                connection.send(
                    request(body, f"X-Request-Id: r{number}", f"traceparent: {TRACEPARENT}")
                )
                assert connection.answer()[1]["x-request-id"] == f"r{number}"
        client.get(f"/nowhere?{secret}", headers={"x-request-id": "lost"})
        json_headers = {"content-type": "application/json", "x-request-id": "why"}
        client.post("/v1/models/plain/explain", content=bodies[0], headers=json_headers)
        with Connection(client) as connection:
            connection.send(b"no HTTP\r\n\r\n")
            assert connection.answer()[0] == 400
        assert process.stop() == 0
    lines = [json.loads(line) for line in process.log]
    assert secret not in "".join(process.log)
    assert re.fullmatch(r"serving .* on http://127\.0\.0\.1:\d+", lines[0]["message"])
    said = [line["message"] for line in lines if "message" in line]
    stopping, stopped = (each for each in said if each.startswith("stop"))
    assert re.fullmatch(r"stopping; \d connections? end when what has come is answered", stopping)
    assert stopped == "stopped: what had come is answered"
    answers = {
        line["request_id"]: (line["method"], line["path"], line["route"], line["status"])
        for line in lines
        if line["logger"] == "hourglass.access" and line["path"] != "/health/live"
    }
    score, template = "/v1/models/plain/score", "/v1/models/{name}/score"
    refused = answers.popitem()
    assert answers == {
        "r0": ("POST", score, template, 200),
        "r1": ("POST", score, template, 422),
        "r2": ("POST", score, template, 400),
        "lost": ("GET", "/nowhere", "unmatched", 404),
        "why": ("POST", "/v1/models/plain/explain", "/v1/models/{name}/explain", 200),
    }
    assert refused[1] == ("other", "", "unmatched", 400)
    first = next(line for line in lines if line.get("request_id") == "r0" and "status" in line)
    assert (first["trace_id"], first["span_id"]) == (TRACE, SPAN)
    assert 0 < first["seconds"] < 5
    assert first["client"] == "127.0.0.1"


def test_what_keeps_a_service_from_starting_is_said_in_json_too(models, capfd, monkeypatch):
    from hourglass.service.__main__ import main

    handlers = logging.root.handlers[:]
    try:
        assert main(["serve", "--models", str(models / "plain"), "--log-format", "json"]) == 2
    finally:
        logging.root.handlers[:] = handlers
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["level"] == "error"
    assert "is the folder of one model" in json.loads(line)["message"]


@pytest.mark.slow
def test_the_death_of_a_worker_and_the_end_are_said(models):
    with Process(models, "--workers", "2", "--log-format", "json") as process:
        children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children")
        worker = next(
            int(pid)
            for pid in children.read_text().split()
            if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
        )
        os.kill(worker, signal.SIGKILL)
        died = f"worker {worker} died by signal 9; another one takes its place"
        deadline = time.monotonic() + 60  # a supervisor waits until a worker answers that starts
        while not any(died in line for line in process.log):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert process.stop(timeout=60) == 0
    said = [json.loads(line)["message"] for line in process.log]
    assert "stopping; 2 workers end when what has come is answered" in said
