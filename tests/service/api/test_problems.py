"""Whatever is wrong with a request is a problem+json that says what, where, what was expected and
what came; never a traceback.
"""

import gzip
import json
import logging
import socket
import time

import httpx
import pytest

from hourglass.service import errors
from hourglass.service.api.problems import BUG, HTTP_KINDS, KINDS
from hourglass.service.watch.metrics import REASONS
from tests.serving import serving

SCORE = "/v1/models/plain/score"
JSON = {"content-type": "application/json"}
RAW = {"content-type": "application/octet-stream"}


def problem_of(answer: httpx.Response, status: int, kind: str) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"/docs#{kind}"
    assert problem["status"] == status
    assert problem["instance"] == answer.request.url.path
    assert problem["title"]
    assert problem["detail"]
    assert "Traceback" not in answer.text
    return problem


@pytest.mark.parametrize(
    ("rows", "status", "kind", "row", "feature", "expected", "got"),
    [
        ("[[1,2,3]]", 422, "invalid-row", 0, None, "4 features", "3"),
        ("[[1,2,3,4],[1,2,3,4,5]]", 422, "invalid-row", 1, None, "4 features", "5"),
        ("[[1,2,3,4],[1,2]]", 422, "invalid-row", 1, None, "4 features", "2"),
        ('[{"a":1,"b":2,"c":3,"d":4,"e":5}]', 422, "invalid-row", 0, "e", None, None),
        ('[{"a":1,"b":2,"c":3}]', 422, "invalid-row", 0, "d", "a value or null", "nothing"),
        ('[[1,2,"three",4]]', 422, "invalid-row", 0, "c", "a number or null", '"three"'),
        ("[[1,2,true,4]]", 422, "invalid-row", 0, "c", "a number or null", "true"),
        (
            "[[1,2,3,4],[1,NaN,3,4]]",
            400,
            "invalid-number",
            1,
            "b",
            "a finite number within float32",
            "NaN",
        ),
        (
            "[[1,Infinity,3,4]]",
            400,
            "invalid-number",
            0,
            "b",
            "a finite number within float32",
            "Infinity",
        ),
        (
            "[[1,-Infinity,3,4]]",
            400,
            "invalid-number",
            0,
            "b",
            "a finite number within float32",
            "-Infinity",
        ),
        (
            "[[1,2,3,1e39]]",
            400,
            "invalid-number",
            0,
            "d",
            "a finite number within float32",
            "1e+39",
        ),
        (
            "[[1,2,3,-1e400]]",
            400,
            "invalid-number",
            0,
            "d",
            "a finite number within float32",
            "-1e400",
        ),
        (
            "[[1,2,3,4],[1,null,null,null]]",
            422,
            "invalid-row",
            1,
            None,
            "at least 2 of 4 values",
            "1 (25%)",
        ),
    ],
)
def test_a_row_that_does_not_fit_is_named_with_what_was_expected_and_what_came(
    client, rows, status, kind, row, feature, expected, got
):
    problem = problem_of(
        client.post(SCORE, content=f'{{"rows":{rows}}}', headers=JSON), status, kind
    )
    assert problem.get("row") == row
    assert problem.get("feature") == feature
    assert problem.get("expected") == expected
    assert problem.get("got") == got
    assert f"row {row}" in problem["detail"]
    assert feature is None or feature in problem["detail"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "kind", "detail"),
    [
        (b"", JSON, 400, "invalid-body", "the body is empty"),
        (b"", RAW, 400, "invalid-body", "the body is empty"),
        (b"12345", RAW, 422, "invalid-row", "expected a multiple of 16 bytes"),
        (b"{", JSON, 400, "invalid-json", "the body is not JSON"),
        (b"[[1,2,3,4]]", JSON, 400, "invalid-json", "expected a JSON object"),
        (b'{"rows":[]}', JSON, 400, "invalid-body", "expected at least one row"),
        (b'{"rows":[[1,2,3,4]],"x":1}', JSON, 400, "invalid-json", "got 'x' too"),
        (b'{"rows":[[1,2,3,4]]}', {}, 415, "unsupported-media-type", "got none"),
        (b'{"rows":[[1,2,3,4]]}', {"content-type": "text/csv"}, 415, "unsupported-media-type", "got text/csv"),
        (gzip.compress(b"{}", mtime=0), JSON | {"content-encoding": "gzip"}, 415, "unsupported-media-type", "got gzip"),
        (b'{"rows":[' + b",".join([b"[1,2,3,4]"] * 101) + b"]}", JSON, 413, "too-many-rows", "at most 100 rows .*, got 101"),
        (bytes(16 * 101), RAW, 413, "too-many-rows", "at most 100 rows in one request, got 101"),
        (b" " * 20_001, JSON, 413, "too-large", "at most 20000 bytes"),
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_read_is_a_problem(client, body, headers, status, kind, detail):
    for what in ("score", "explain", "reconstruct", "encode"):
        problem = problem_of(
            client.post(f"/v1/models/plain/{what}", content=body, headers=headers), status, kind
        )
        assert detail.partition(" .*")[0] in problem["detail"]


def test_a_body_that_grows_too_large_without_saying_so_is_refused(client):
    answer = client.post(SCORE, content=iter([b" " * 10_000] * 3), headers=JSON)
    problem_of(answer, 413, "too-large")


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/v1", "/v1/models/plain/nothing", "/docs/nothing.js", "/health", "/%ff%00"],
)
def test_a_path_that_leads_nowhere_is_a_404(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.json()["type"]) == (404, "/docs#no-such-path")


def test_an_unknown_model_is_a_404_that_names_the_known_ones(client):
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("POST", "/reload"),
        ("POST", "/score"),
        ("POST", "/decode"),
    ):
        answer = client.request(method, f"/v1/models/nobody{path}", json={})
        assert problem_of(answer, 404, "unknown-model")["detail"].endswith(
            "served are: mixed, plain"
        )


def test_another_method_is_a_405_that_says_which_are_allowed(client):
    for method, path, allowed in (
        ("GET", SCORE, "POST"),
        ("DELETE", "/v1/models/plain", "GET"),
        ("POST", "/metrics", "GET"),
    ):
        answer = client.request(method, path)
        problem_of(answer, 405, "method-not-allowed")
        assert allowed in answer.headers["allow"].split(", ")


def test_head_is_a_405_without_a_body_where_there_is_no_get(client):
    answer = client.head(SCORE)
    assert (answer.status_code, answer.content) == (405, b"")


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/health/ready", "/docs", "/v2"])
def test_head_is_answered_as_get_is_without_a_body(client, path):
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert "content-length" in head.headers


@pytest.mark.parametrize("verb", ["predict", "explain"])
def test_kserves_first_protocol_is_told_where_to_go(client, verb):
    answer = client.post(f"/v1/models/plain:{verb}", json={"instances": [[1, 2, 3, 4]]})
    assert answer.status_code in (404, 405)
    assert answer.json()["detail"] == (
        f":{verb} is of KServe's first protocol, which is not spoken here; rows go to"
        " /v1/models/plain/score, or in the Open Inference Protocol to /v2/models/plain/infer"
    )


@pytest.mark.parametrize("path", [SCORE, "/v1/models/plain/decode", "/v2/models/plain/infer"])
@pytest.mark.parametrize(("encoding", "name"), [("utf-8-sig", "UTF-8"), ("utf-16", "UTF-16")])
def test_a_byte_order_mark_is_named(client, path, encoding, name):
    body = '{"rows": [[1, 2, 3, 4]]}'.encode(encoding)
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    problem = answer.json()
    assert answer.status_code == 400
    assert f"begins with a byte order mark of {name}, expected UTF-8 without one" in (
        problem.get("detail") or problem["error"]
    )


def test_a_defect_of_the_service_is_a_500_without_a_traceback_and_logged_with_one(
    models, monkeypatch, caplog
):
    def broken(*_: object, **__: object) -> bytes:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("hourglass.service.rows.encoding.encode_each", broken)
    with serving(models) as client, caplog.at_level(logging.ERROR):
        answer = client.post(SCORE, json={"rows": [[1, 2, 3, 4]]})
        rejected = client.get("/metrics").text
    problem_of(answer, 500, "internal-error")
    assert "secret" not in answer.text
    assert "ZeroDivisionError: secret detail" in caplog.text
    assert 'hourglass_rejections_total{reason="internal"} 1.0' in rejected


def test_a_client_that_goes_while_sending_harms_nobody_and_is_counted_as_a_body_unread(
    models, caplog
):
    with serving(models) as client:
        host, port = client.base_url.host, client.base_url.port
        with socket.create_connection((host, port)) as leaving:
            leaving.sendall(
                f"POST {SCORE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n".encode()
                + b'{"rows"'
            )
        rejected, deadline = "", time.monotonic() + 5
        while 'hourglass_rejections_total{reason="body"} 1.0' not in rejected:
            assert time.monotonic() < deadline, rejected
            rejected = client.get("/metrics").text
    assert 'hourglass_rejections_total{reason="value"} 0.0' in rejected
    assert "Traceback" not in caplog.text


def test_every_domain_error_a_route_can_raise_has_its_place_in_the_table():
    offline = {errors.HourglassError, errors.InvalidSettings}
    offline.add(errors.InvalidKeys)  # of the file, at the start or in the log
    offline.add(errors.NotLoaded)  # who meets it waits; if not, it is an UnknownModel
    every = {
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.HourglassError)
    }
    assert every - offline == set(KINDS)


def test_every_problem_has_a_kind_of_its_own_a_reason_that_is_counted_and_a_place_in_the_docs(
    client,
):
    kinds = [*KINDS.values(), *HTTP_KINDS.values(), BUG]
    assert len({kind.slug for kind in kinds}) == len(kinds)
    assert {kind.reason for kind in kinds} <= set(REASONS)
    page = client.get("/docs").text
    assert all(f'id="{kind.slug}"' in page for kind in kinds)


def test_a_feature_named_in_the_clients_words_survives_into_json(client):
    answer = client.post(
        SCORE, content=json.dumps({"rows": [{"\u2028é\U0001f600" * 50: 1}]}), headers=JSON
    )
    assert problem_of(answer, 422, "invalid-row")["feature"].startswith("\u2028é")
