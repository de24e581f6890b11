"""The access log's lines."""

import json
import re
import threading

import pytest

from hourglass.service.watch import access
from hourglass.service.watch.access import AccessLog

ASKED = ("127.0.0.1", 40_000), "POST", "/v1/models/100%/score", "/v1/models/{name}/score"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def written(log: AccessLog, *answers: tuple) -> None:
    for each in answers:
        log.add(each)
    log.close()


def test_a_line_of_json_tells_what_was_asked_and_answered():
    out: list[str] = []
    log = AccessLog("json", out.append)
    written(
        log,
        (1.5, "r1", "", *ASKED, 200, 0.00012),
        (2.25, "r2", TRACEPARENT, None, *ASKED[1:], 503, 2.0),
    )
    first, second = map(json.loads, "".join(out).splitlines())
    assert first.pop("pid") == second.pop("pid")
    assert first == {
        "time": "1970-01-01T00:00:01.500Z",
        "level": "info",
        "logger": "hourglass.access",
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/v1/models/100%/score",
        "route": "/v1/models/{name}/score",
        "status": 200,
        "seconds": 0.00012,
        "request_id": "r1",
    }
    assert (second["time"], second["client"], second["status"]) == (
        "1970-01-01T00:00:02.250Z",
        "",
        503,
    )
    assert (second["trace_id"], second["span_id"]) == tuple(TRACEPARENT.split("-")[1:3])


def test_a_line_of_text_does_so_too_and_no_path_makes_two_of_it():
    out: list[str] = []
    asked = (ASKED[0], "GET", "/a\n/b\x1b%d", "unmatched")
    written(AccessLog("text", out.append), (1.5, "r1", TRACEPARENT, *asked, 404, 0.001))
    said = r"127\.0\.0\.1 GET /a\\n/b\\u001b%d 404 in 1000 us"
    ids = r"\[request_id=r1 trace_id=0af\w+ span_id=b7a\w+\]"
    line = rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:01,500 INFO hourglass\.access: {said} {ids}\n"
    assert re.fullmatch(line, "".join(out))


def test_lines_leave_in_order_in_pieces_that_a_pipe_keeps_together():
    out: list[str] = []
    written(
        AccessLog("json", out.append), *((1.0, f"r{n}", "", *ASKED, 200, 0.1) for n in range(1000))
    )
    assert all(each.endswith("\n") and len(each) <= access.PIPE_BYTES for each in out)
    assert len(out) < 100
    ids = [json.loads(line)["request_id"] for line in "".join(out).splitlines()]
    assert ids == [f"r{n}" for n in range(1000)]


def test_a_line_that_is_longer_than_a_piece_leaves_alone():
    out: list[str] = []
    long = (ASKED[0], "GET", "/" + "a" * 2 * access.PIPE_BYTES, "unmatched")
    written(
        AccessLog("json", out.append),
        (1.0, "r1", "", *long, 404, 0.1),
        (1.0, "r2", "", *ASKED, 200, 0.1),
    )
    assert [json.loads(each)["request_id"] for each in out] == ["r1", "r2"]


def test_lines_that_nobody_takes_are_lost_and_counted_and_hold_up_nothing(monkeypatch, caplog):
    monkeypatch.setattr(access, "MOST_WAITING", 10)
    out: list[str] = []
    taken = threading.Event()
    log = AccessLog("json", lambda text: (taken.wait(), out.append(text)))
    for batch in range(5):
        for _ in range(4):
            log.add((1.0, f"r{batch}", "", *ASKED, 200, 0.1))
        log.flush()
    taken.set()
    log._thread.submit(int).result()
    written(log, (1.0, "last", "", *ASKED, 200, 0.1))
    ids = [json.loads(line)["request_id"] for line in "".join(out).splitlines()]
    assert ids == ["r0"] * 4 + ["r1"] * 4 + ["last"]
    assert "12 lines of the access log were lost" in caplog.text


@pytest.mark.parametrize("format_", ["text", "json"])
def test_many_paths_are_not_remembered_for_ever(format_):
    log = AccessLog(format_, lambda _: None)
    written(
        log, *((1.0, "r", "", None, "GET", f"/{n}", "unmatched", 404, 0.1) for n in range(5000))
    )
    assert len(log._questions) <= 1024
