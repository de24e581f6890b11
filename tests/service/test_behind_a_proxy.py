"""The service behind a real nginx, under a path and TLS, and what names it answers for."""

import re
import shutil
import ssl
import subprocess
import time
from contextlib import contextmanager, suppress

import httpx
import pytest

from tests.lacking import lacking
from tests.posts import request
from tests.serving import ROOT, Connection, free_port, serving

ORIGIN = {"origin": "https://a.example", "access-control-request-method": "POST"}
ROW = {"rows": [[1, 2, 3, 4]]}
SCORE = "/v1/models/plain/score"
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
SHIPPED = ROOT / "deploy/nginx/hourglass.conf"
AROUND = """
daemon off; pid {folder}/pid; error_log {folder}/errors; events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/a; uwsgi_temp_path {folder}/b; scgi_temp_path {folder}/c;
    include {folder}/hourglass.conf;
}}
"""


@contextmanager
def nginx(folder, upstream: int, *, strips: bool):
    """A client of nginx with the configuration in deploy/, but for addresses and certificate, in
    front of the service at that port; whether it takes the path off.
    """
    if shutil.which(NGINX) is None:
        lacking("no nginx")
    port = free_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    shipped = SHIPPED.read_text()
    for said, here in (
        ("127.0.0.1:8000", f"127.0.0.1:{upstream}"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("hourglass.example;", "localhost;"),
        ("/etc/nginx/hourglass.crt", f"{folder}/cert.pem"),
        ("/etc/nginx/hourglass.key", f"{folder}/key.pem"),
        ("http://hourglass/;", "http://hourglass/;" if strips else "http://hourglass;"),
    ):
        assert shipped.count(said) == 1, said
        shipped = shipped.replace(said, here)
    (folder / "hourglass.conf").write_text(shipped)
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder))
    process = subprocess.Popen(
        [NGINX, "-c", folder / "nginx.conf", "-p", folder], stderr=subprocess.PIPE
    )
    trusted = ssl.create_default_context(cafile=folder / "cert.pem")
    try:
        with httpx.Client(base_url=f"https://localhost:{port}", verify=trusted) as client:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with suppress(httpx.TransportError):
                    client.get("/")
                    break
                time.sleep(0.05)
            yield client
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("strips", [True, False], ids=["nginx strips the path", "it does not"])
def test_every_link_leads_back_through_a_proxy(models, tmp_path, strips):
    with (
        serving(models, fast=True, root_path="/anomalies") as direct,
        nginx(tmp_path, direct.base_url.port, strips=strips) as client,
    ):
        answer = client.post("/anomalies" + SCORE, json=ROW)
        assert answer.status_code == 200
        for path in ("/anomalies/", "/anomalies", "/anomalies/docs"):
            page = client.get(path, follow_redirects=True)
            assert (page.status_code, page.url.scheme) == (200, "https")
            assert page.url.path.rstrip("/") == path.rstrip("/")
            targets = re.findall(r'(?:src|href)="([^"#][^"]*)"', page.text)
            assert len(targets) >= 4
            for target in targets:
                assert client.get(page.url.join(target)).status_code == 200
        document = client.get("/anomalies/docs/openapi.json").json()
        assert document["servers"] == [{"url": "/anomalies"}]
        path = next(path for path in document["paths"] if path == "/v1/models")
        assert client.get(document["servers"][0]["url"] + path).status_code == 200
        for url, slug in (
            ("/anomalies/v1/models/nobody/score", "unknown-model"),
            ("/anomalies/v1/nothing", "no-such-path"),
            ("/anomalies" + SCORE, "invalid-json"),
        ):
            problem = client.post(
                url, content=b"{", headers={"content-type": "application/json"}
            ).json()
            assert problem["type"] == f"/anomalies/docs#{slug}"
            assert problem["instance"] == url
            assert f'id="{slug}"' in client.get(problem["type"].partition("#")[0]).text
        assert "error" in client.post("/anomalies/v2/models/nobody/infer", json={}).json()


@pytest.mark.parametrize("prefix", ["", "/anomalies"])
def test_behind_a_root_path_the_fast_path_is_on(models, prefix, monkeypatch):
    from hourglass.service.front.protocol import ScoringProtocol

    parsed = []
    monkeypatch.setattr(ScoringProtocol, "on_message_begin", lambda self: parsed.append(self))
    with (
        serving(models, fast=True, root_path="/anomalies") as client,
        Connection(client) as connection,
    ):
        connection.send(request(path=prefix + SCORE))
        assert connection.answer()[0] == 200
    assert parsed == []


class TestHosts:
    @pytest.mark.parametrize("fast", [True, False])
    def test_bound_to_loopback_it_answers_for_the_local_names_alone(self, models, fast):
        with serving(models, fast=fast) as client:
            for host, status in (
                ("localhost", 200), ("127.0.0.1:8000", 200), ("[::1]:80", 200), ("LOCALHOST:1", 200),
                ("evil.example", 421), ("localhost.evil.example", 421), ("", 421), ("x:80", 421),
            ):  # fmt: skip
                headers = {"host": host}
                assert client.post(SCORE, json=ROW, headers=headers).status_code == status
                answer = client.patch("/v1/models/plain", json={}, headers=headers)
                assert answer.status_code == status
                assert client.get("/health/live", headers=headers).status_code == 200
                assert client.get("/metrics", headers=headers).status_code == 200
            assert answer.json()["detail"] == (
                "expected a Host among 127.0.0.1, [::1], localhost, got 'x:80'; --allowed-hosts"
                " names others"
            )

    @pytest.mark.parametrize(
        ("settings", "host", "status"),
        [
            ({"host": "0.0.0.0"}, "anything.example", 200),
            ({"allowed_hosts": "a.example, b.example"}, "b.example:443", 200),
            ({"allowed_hosts": "a.example"}, "localhost", 421),
            ({"allowed_hosts": "*"}, "evil.example", 200),
            ({"host": "0.0.0.0", "allowed_hosts": "a.example"}, "evil.example", 421),
        ],
    )  # fmt: skip
    def test_other_names_are_a_setting(self, models, settings, host, status):
        with serving(models, fast=True, **settings) as client:
            for _ in range(2):
                answer = client.post(SCORE, json=ROW, headers={"host": host})
                assert answer.status_code == status

    def test_a_request_without_a_host_is_of_no_browser_and_answered(self, models):
        with serving(models, fast=True) as client, Connection(client) as connection:
            connection.send(request().replace(b"Host: localhost\r\n", b""))
            assert connection.answer()[0] == 200


class TestOrigins:
    def test_no_page_from_elsewhere_may_read_an_answer(self, models):
        with serving(models, fast=True) as client:
            answer = client.post(SCORE, json=ROW, headers=ORIGIN)
            assert "access-control-allow-origin" not in answer.headers
            assert (
                "access-control-allow-origin" not in client.options(SCORE, headers=ORIGIN).headers
            )

    def test_origins_are_allowed_by_a_setting(self, models):
        with serving(models, fast=True, cors_origins="https://a.example") as client:
            for _ in range(2):
                answer = client.post(SCORE, json=ROW, headers=ORIGIN)
                assert answer.headers["access-control-allow-origin"] == "https://a.example"
            preflight = client.options(SCORE, headers=ORIGIN)
            assert preflight.is_success
            assert preflight.headers["access-control-allow-origin"] == "https://a.example"
            other = client.post(SCORE, json=ROW, headers={"origin": "https://evil.example"})
            assert "access-control-allow-origin" not in other.headers


def test_a_process_that_only_scores_changes_nothing(models):
    with serving(models, fast=True, read_only=True) as client:
        before = client.get("/v1/models/plain").json()
        for answer in (
            client.patch("/v1/models/plain", json={"alpha": 0.2}),
            client.post("/v1/models/plain/reload"),
        ):
            assert (answer.status_code, answer.json()["type"]) == (403, "/docs#read-only")
        assert client.get("/v1/models/plain").json() == before
        assert client.post(SCORE, json=ROW).status_code == 200
        assert client.post("/v1/models/plain/explain", json=ROW).status_code == 200


def test_whatever_changes_something_is_refused_to_a_process_that_only_scores():
    """A route that is new must say whether it changes what is served."""
    from litestar import Litestar
    from litestar.di import Provide

    from hourglass.service.api import inference, models, scoring
    from hourglass.service.api.entrance import CHANGES

    routes = [scoring.router, scoring.named_router, models.router, inference.router]
    app = Litestar(
        routes, dependencies={"parts": Provide(object, sync_to_thread=False)}, openapi_config=None
    )
    reads = {"score", "explain", "reconstruct", "encode", "decode", "sample", "infer"}
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if handler.http_methods - {"GET", "HEAD", "OPTIONS"}:
                assert handler.handler_name in reads or handler.opt.get(CHANGES), handler
