"""Keys on a real server: on both ways, pipelined, with several workers, and what clients of ours do
with them.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hourglass.service.api.entrance import SCOPES
from hourglass.service.front.protocol import ScoringProtocol
from hourglass.service.keys.file import add_key, read_keys, remove_keys
from tests.artifacts import make_artifact, publish
from tests.posts import PLAIN, RAW_ROW, request
from tests.serving import ROOT, Connection, Process, serving, wait_until

ROW = {"rows": [[1, 2, 3, 4]]}
SCORE = "/v1/models/plain/score"


@pytest.fixture
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.jsonl"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def counted(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.labels["key"], sample.labels["outcome"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "hourglass_key_requests_total"
    }


def test_with_keys_the_fast_path_is_on_also_where_it_refuses(models, path, monkeypatch):
    key, parsed = add_key(path, "a", ["score"]), []
    monkeypatch.setattr(ScoringProtocol, "on_message_begin", lambda self: parsed.append(self))
    with serving(models, fast=True, keys=path) as client, Connection(client) as connection:
        connection.send(request(PLAIN, f"X-API-Key: {key}") + request())
        assert [connection.answer()[0] for _ in range(2)] == [200, 401]
    assert parsed == []


@pytest.mark.parametrize("fast", [False, True])
def test_pipelined_requests_are_answered_in_order_each_by_its_key(models, path, fast):
    good, other = add_key(path, "good", ["score"]), add_key(path, "other", ["read"])
    slow = add_key(path, "slow", ["score"], rate=0.01)
    sent = [
        f"Authorization: Bearer {good}",
        "X-Api-Key: wrong",
        f"x-api-key: {other}",
        f"X-API-Key: {slow}",
        f"X-API-Key: {slow}",
        "X-Nothing: 0",
    ]
    with (
        serving(models, fast=fast, keys=path) as client,
        Connection(client) as connection,
    ):
        for pause in (False, True):  # all at once, and each body apart from its head
            for header in sent:
                if pause:
                    head, body = request(PLAIN, header)[: -len(PLAIN)], PLAIN
                    connection.send(head, body[:5], body[5:], pause_seconds=0.02)
            if not pause:
                connection.send(b"".join(request(PLAIN, header) for header in sent))
            answers = [connection.answer() for _ in sent]
            statuses = [status for status, _, _ in answers]
            assert statuses == [200, 401, 403, 429 if pause else 200, 429, 401]
            for status, headers, body in answers:
                answer = json.loads(body)
                if status == 200:
                    assert answer["model"] == "plain"
                    continue
                assert headers["content-type"] == "application/problem+json"
                assert answer["instance"] == SCORE
                assert headers.get("www-authenticate") == (
                    'Bearer realm="hourglass"' if status == 401 else None
                )
                if status == 429:
                    assert 90 <= int(headers["retry-after"]) <= 100
        metrics = client.get("/metrics", headers=bearer(other)).text
    assert counted(metrics) == {
        ("good", "allowed"): 2, ("other", "forbidden"): 2, ("slow", "allowed"): 1, ("slow", "limited"): 3,
        ("other", "allowed"): 1,
    }  # fmt: skip
    assert 'hourglass_rejections_total{reason="key"} 4.0' in metrics
    assert 'hourglass_rejections_total{reason="scope"} 2.0' in metrics
    assert 'hourglass_rejections_total{reason="rate"} 3.0' in metrics
    assert good not in metrics
    assert good.split("_")[2][:8] not in metrics


def test_both_ways_refuse_in_the_same_bytes(models, path):
    key = add_key(path, "pumps", ["score"], models=["pump-*"])
    read = add_key(path, "reader", ["read"])
    sent = [
        request(PLAIN), request(PLAIN, "X-API-Key: a"), request(PLAIN, f"X-API-Key: {key}"),
        request(PLAIN, f"X-API-Key: {read}"), request(RAW_ROW, f"X-API-Key: {read}", kind="application/octet-stream"),
        request(PLAIN, f"X-API-Key: {key}", path="/v1/score"), request(b"{", f"X-API-Key: {key}"),
        request(PLAIN, path="/v1/models/nobody/score"),
        request(PLAIN, f"X-API-Key: {key}", path="/v1/models/pump-nobody/score"),
        request(b"x" * 300_000, "X-API-Key: a"),
    ]  # fmt: skip
    found = []
    for fast in (False, True):
        with serving(models, fast=fast, keys=path) as client:
            answers = []
            for data in sent:
                with Connection(client) as connection:
                    connection.send(data)
                    answers.append(connection.answer())
            for _, headers, _ in answers:
                headers.pop("date")
                headers.pop("x-request-id")  # made for each
                headers.pop("connection", None)
            found.append(answers)
    assert found[0] == found[1]
    assert [status for status, _, _ in found[1]] == [
        401,
        401,
        403,
        403,
        403,
        403,
        403,
        401,
        404,
        401,
    ]


def test_a_large_body_without_a_key_is_thrown_away_and_the_connection_goes_on(models, path):
    key = add_key(path, "a", ["score"])
    large = b" " * 3_000_000
    with (
        serving(
            models, fast=True, keys=path, max_held_bytes=1_000_000, max_body_bytes=4_000_000
        ) as client,
        Connection(client) as connection,
    ):
        room = client.server.lifespan.state["parts"].room
        connection.send(request(large, "X-API-Key: a")[:-1])
        time.sleep(0.2)
        assert room.held == 0
        connection.send(b" " + request(PLAIN, f"X-API-Key: {key}"))
        assert [connection.answer()[0] for _ in range(2)] == [401, 200]


def test_every_route_says_which_scope_opens_it_and_the_readme_says_the_same(models, path):
    """Each route is asked with a key of each scope: it opens where the table says so."""
    keys = {scope: add_key(path, scope, [scope]) for scope in ("score", "read", "admin")}
    with serving(models, keys=path, journal=path.parent / "alarms.sqlite") as client:
        client.timeout = 60  # the document takes a busy machine seconds
        state = client.server.config.loaded_app
        found = {}
        for method, template, needed in routes_of(client):
            url = (
                template.replace("{name:str}", "plain").replace("{version:str}", "0" * 64)
                .replace("{entity:path}", "e").replace("{key:str}", "0" * 16)
                .replace("{file:path}", "app.js").replace("{file:str}", "start.js")
            )  # fmt: skip
            opens = {
                scope
                for scope, key in keys.items()
                if client.request(method, url, headers=bearer(key)).status_code not in (401, 403)
            }
            without = client.request(method, url).status_code != 401
            assert opens == (set(needed) or set(keys)), (method, url)
            assert without is (not needed), (method, url)
            found[method, re.sub(r":\w+\}", "}", template)] = needed
        assert state is not None
    assert found == documented()


def routes_of(client):
    """Method, path and scopes of every route that the service answers."""
    from litestar import Litestar

    app = next(
        cell.cell_contents
        for cell in _cells(client.server.config.loaded_app)
        if isinstance(cell.cell_contents, Litestar)
    )
    for route in app.routes:
        for handler in route.route_handlers:
            for method in sorted(handler.http_methods - {"OPTIONS"}):
                assert SCOPES in handler.opt, (method, route.path)
                yield method, route.path_format, handler.opt[SCOPES]


def _cells(function, depth=8):
    """Those of a function and of the functions that it wraps."""
    for cell in getattr(function, "__closure__", None) or ():
        yield cell
        if depth:
            yield from _cells(cell.cell_contents, depth - 1)
    for attribute in ("app", "asgi_app"):
        if depth and (inner := getattr(function, attribute, None)) is not None:
            yield from _cells(inner, depth - 1)


def documented():
    """The table of service/README.md."""
    text = (ROOT / "service/README.md").read_text()
    table = text.partition("| scope | routes |\n|---|---|\n")[2].partition("\n\n")[0]
    found = {}
    for line in table.splitlines():
        scope, routes = (cell.strip() for cell in line.strip("|").split("|", 1))
        scopes = tuple(each for each in ("score", "read", "admin") if each in scope)
        for methods, path in re.findall(r"`([A-Z]+) (/\S*)`", routes):
            found[methods, path] = scopes
    return found


def test_a_list_holds_the_models_that_the_key_is_for(models, path):
    publish(models, "pump-1", make_artifact())
    publish(models, "broken", b"no model")
    narrow = add_key(path, "narrow", ["score", "read", "admin"], models=["pump-*"])
    wide = add_key(path, "wide", ["read"])
    with serving(models, keys=path) as client:
        for key, names, broken in (
            (narrow, ["pump-1"], 0),
            (wide, ["mixed", "plain", "pump-1"], 1),
        ):
            answer = client.get("/v1/models?exhibits=true", headers=bearer(key)).json()
            assert [each["name"] for each in answer["models"]] == names
            assert len(answer["broken"]) == broken
            assert bool(answer["waiting"]) is (key is wide)  # the exhibits
        headers = bearer(narrow)
        for url in ("/v1/models/plain", "/v1/models/nobody", "/v2/models/plain", "/metrics"):
            assert client.get(url, headers=headers).status_code == 403
        assert client.patch("/v1/models/plain", json={}, headers=headers).status_code == 403
        assert client.patch("/v1/models/pump-1", json={}, headers=headers).status_code == 200
        assert client.post("/v1/score", json=ROW, headers=headers).status_code == 403


def test_probes_need_no_key_and_tell_no_names(models, path):
    add_key(path, "a", ["read"])
    with serving(models, keys=path) as client:
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/ready").json() == {"status": "ready", "models": []}
        assert client.get("/v2/health/ready").json() == {"ready": True}
    with serving(path.parent, keys=path) as client:
        answer = client.get("/health/ready")
        assert (answer.status_code, answer.json()["detail"]) == (503, "no model is in service")


def test_what_needs_a_key_is_a_setting(models, path):
    key = add_key(path, "a", ["read"])
    for without, metrics, docs in (
        ("", 401, 401), ("metrics", 200, 401), ("docs", 401, 200), ("docs,metrics", 200, 200),
    ):  # fmt: skip
        with serving(models, keys=path, without_key=without) as client:
            client.timeout = 60
            assert client.get("/metrics").status_code == metrics
            assert client.get("/docs").status_code == docs
            assert client.get("/docs/openapi.json").status_code == docs
            assert client.get("/v1/models").status_code == 401
            for url in ("/metrics", "/docs", "/docs/openapi.json"):
                assert client.get(url, headers=bearer(key)).status_code == 200
            assert client.get("/docs/icon.svg").status_code == 200
            assert client.get("/").status_code == 200


def test_refusals_of_the_open_inference_protocol_are_in_its_form(models, path):
    add_key(path, "a", ["read"])
    with serving(models, keys=path) as client:
        answer = client.post("/v2/models/plain/infer", json={})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="hourglass"'
    assert answer.json() == {
        "error": "expected a key, as Authorization: Bearer KEY or as x-api-key: KEY, got none"
    }


@pytest.mark.parametrize("fast", [False, True])
def test_pages_from_elsewhere_may_send_a_key(models, path, fast):
    key = add_key(path, "a", ["score"])
    origin = "https://a.example"
    with serving(models, fast=fast, keys=path, cors_origins=origin) as client:
        asks = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        }
        answer = client.options(SCORE, headers=asks)
        assert answer.status_code == 204
        assert "authorization" in answer.headers["access-control-allow-headers"].lower()
        headers = {"origin": origin, **bearer(key)}
        assert client.post(SCORE, json=ROW, headers=headers).status_code == 200
        assert client.post(SCORE, json=ROW, headers={"origin": origin}).status_code == 401


def test_the_document_says_which_keys_are_needed(models, path):
    add_key(path, "a", ["read"])
    with serving(models) as client:
        client.timeout = 60
        open_document = client.get("/docs/openapi.json").json()
    assert "securitySchemes" not in open_document["components"]
    with serving(models, keys=path, without_key="docs,metrics") as client:
        client.timeout = 60
        document = client.get("/docs/openapi.json").json()
    assert document["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer"},
        "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    paths = document["paths"]
    assert paths["/v1/models/{name}/score"]["post"]["security"] == [
        {"bearer": ["score"]}, {"x-api-key": ["score"]},
    ]  # fmt: skip
    either = paths["/v1/models/{name}"]["get"]["security"]
    assert either == [
        {"bearer": ["score"]}, {"x-api-key": ["score"]}, {"bearer": ["read"]}, {"x-api-key": ["read"]},
    ]  # fmt: skip
    assert paths["/v1/models/{name}"]["patch"]["security"][0] == {"bearer": ["admin"]}
    for url in ("/health/live", "/health/ready", "/v2/health/live", "/metrics"):
        assert "security" not in paths[url]["get"]
        assert "401" not in paths[url]["get"]["responses"]
    for url, operations in paths.items():
        for operation in operations.values():
            if "security" in operation:
                assert operation["responses"].keys() >= {"401", "403", "429"}, url
                schema = "InferenceError" if url.startswith("/v2") else "Problem"
                (content,) = operation["responses"]["401"]["content"].values()
                assert content["schema"]["$ref"] == f"#/components/schemas/{schema}"


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hourglass.service", *map(str, arguments)],
        cwd=ROOT, env=os.environ | environment, text=True, capture_output=True, check=False, timeout=120,
    )  # fmt: skip


class TestCommands:
    def test_a_key_is_printed_once_listed_without_its_secret_and_removed(self, path):
        made = run("keys", "add", "pumps", "--scope", "score", "--scope", "read", "--model", "pump-*", "--rate", "6000/m", "--expires", "90d", "--keys", path)  # fmt: skip
        assert (made.returncode, made.stdout.count("\n")) == (0, 1), made.stderr
        assert "is not shown again" in made.stderr
        (key,) = read_keys(path).keys
        assert made.stdout.startswith(f"hourglass_{key.id}_")
        assert (key.scopes, key.models, key.rate) == (("score", "read"), ("pump-*",), 100)
        assert (key.expires - key.created).total_seconds() == 90 * 86400
        listed = run("keys", "list", HOURGLASS_KEYS=str(path)).stdout.splitlines()
        assert listed[0].split() == "NAME ID SCOPES MODELS RATE CREATED EXPIRES".split()
        assert listed[1].split()[:5] == ["pumps", key.id, "score,read", "pump-*", "100/s"]
        assert made.stdout.strip()[20:] not in "\n".join(listed)
        gone = run("keys", "remove", "pumps", "--keys", path)
        assert gone.stdout == f"removed pumps {key.id}\n"
        assert read_keys(path).keys == []

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("add", "a", "--scope", "write"), "invalid choice: 'write'"),
            (("add", "a"), "the following arguments are required: --scope"),
            (("add", "a b", "--scope", "read"), "the key: Expected str matching regex"),
            (("add", "a", "--scope", "read", "--rate", "5"), "expected a rate such as 100/s"),
            (("add", "a", "--scope", "read", "--expires", "0d"), "expected a time such as 90d"),
            (("add", "a", "--scope", "read", "--model", "a/b"), "the key: Expected str matching"),
            (("remove", "a"), "has no key 'a'; it has none"),
        ],
    )
    def test_what_is_wrong_is_one_sentence_and_exit_code_2(self, path, arguments, said):
        path.write_text('{"format":"hourglass-keys","version":1}\n')
        done = run("keys", *arguments, "--keys", path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert said in done.stderr


class TestServing:
    @pytest.mark.parametrize(
        ("flags", "environment", "said"),
        [
            (("--host", "0.0.0.0"), {}, "without keys everybody who reaches 0.0.0.0"),
            ((), {"HOURGLASS_HOST": "0.0.0.0"}, "--keys FILE, a --host of loopback, or --insecure"),
            (("--keys", "nowhere.jsonl"), {}, "the file of keys nowhere.jsonl cannot be read: No such file"),
            (("--without-key", "everything"), {}, "--without-key is 'everything'"),
            ((), {"HOURGLASS_KEY": "/etc/keys"}, "the service's file of keys is HOURGLASS_KEYS"),
        ],
    )  # fmt: skip
    def test_it_does_not_start_open_by_mistake(self, models, flags, environment, said):
        done = run("serve", "--models", models, "--port", "0", *flags, **environment)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert said in done.stderr

    @pytest.mark.parametrize("flag", ["--insecure", "--keys"])
    def test_it_listens_beyond_loopback_with_keys_or_when_it_is_told_to(self, models, path, flag):
        add_key(path, "a", ["read"])
        flags = ("--insecure",) if flag == "--insecure" else ("--keys", str(path))
        with Process(models, "--host", "0.0.0.0", *flags) as process:
            status = httpx.get(
                process.url.replace("0.0.0.0", "127.0.0.1") + "/v1/models"
            ).status_code
            assert process.stop() == 0
        assert status == (200 if flag == "--insecure" else 401)

    @pytest.mark.slow
    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_all_workers_heed_a_change_and_a_broken_file_changes_nothing(
        self, models, path, workers
    ):
        first, reader = add_key(path, "a", ["score"]), add_key(path, "reader", ["read"])
        each_its_own = httpx.Limits(max_keepalive_connections=0)  # so that all workers get some
        flags = ("--workers", workers, "--keys", str(path))
        with (
            Process(models, *flags, HOURGLASS_POLL_SECONDS="0.1") as process,
            httpx.Client(base_url=process.url, limits=each_its_own, timeout=60) as client,
        ):

            def statuses(key: str) -> set[int]:
                asked = (client.post(SCORE, json=ROW, headers=bearer(key)) for _ in range(16))
                return {answer.status_code for answer in asked}

            assert statuses(first) == {200}
            second = add_key(path, "a", ["score"])
            wait_until(lambda: statuses(second) == {200})
            assert statuses(first) == {200}  # both, while one takes over from the other
            remove_keys(path, "a", id=first.split("_")[1])
            wait_until(lambda: statuses(first) == {401})
            whole = path.read_bytes()
            path.write_bytes(whole[:-20])
            text = ""

            def is_told() -> bool:
                nonlocal text
                text = client.get("/metrics", headers=bearer(reader)).text
                return "hourglass_keys_error 1.0" in text

            wait_until(is_told)
            assert statuses(second) == {200}
            path.write_bytes(whole)
            wait_until(lambda: not is_told())
            wait_until(lambda: statuses(second) == {200})
            # other workers' numbers may be a little older
            wait_until(lambda: is_told() or counted(text)["a", "allowed"] >= 16 * 4)
            assert process.stop() == 0
        assert "the keys read before stay in force" in "".join(process.log)
        assert second not in "".join(process.log)

    @pytest.mark.slow
    def test_the_streams_command_brings_a_key(self, models, path, tmp_path_factory):
        key = add_key(path, "a", ["score"])
        folder = tmp_path_factory.mktemp("rows")
        (folder / "rows.csv").write_text("at,a,b,c,d\n1,0,0,0,0\n2,0,0,0,0\n")
        (folder / "key").write_text(key + "\n")
        with Process(models, "--keys", str(path)) as process:
            command = ("stream", folder / "rows.csv", "--url", process.url, "--name", "plain", "--time", "at", "--speed", "0", "--afresh")  # fmt: skip
            refused = run(*command)
            assert refused.returncode == 2
            assert "answered 401: expected a key, as Authorization: Bearer KEY" in refused.stderr
            for done in (
                run(*command, "--key-file", folder / "key"),
                run(*command, HOURGLASS_KEY=key),
            ):
                assert (done.returncode, done.stderr) == (0, "")
                assert done.stdout.startswith("2 rows of 1 entity")
            wrong = run(*command, HOURGLASS_KEY="letmein")
            assert (wrong.returncode, "letmein" in wrong.stderr) == (2, False)
            assert process.stop() == 0
