"""The docs page in Chromium: it shows the routes, and asks nothing of any host but the service."""

import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-quic", "--disable-extensions", "--disable-default-apps",
)  # fmt: skip


@pytest.mark.slow
def test_the_docs_page_shows_every_route_and_asks_nothing_of_another_host(
    client: httpx.Client, chromium: str, tmp_path: Path
) -> None:
    log = tmp_path / "net.json"
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    page = client.base_url.join("/docs")
    ran = subprocess.run(
        [
            chromium,
            *QUIET,
            profile,
            f"--log-net-log={log}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            str(page),
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    paths = client.get("/docs/openapi.json").json()["paths"]
    assert len(paths) >= 10
    for path in paths:
        assert f'data-path="{path}"' in ran.stdout
    asked = _urls(json.loads(log.read_text()), by=f"http://{page.host}:{page.port}")
    assert {urlsplit(url).path for url in asked} >= {
        "/docs/swagger-ui-bundle.js",
        "/docs/openapi.json",
    }
    assert {urlsplit(url).hostname for url in asked} == {"127.0.0.1"}


def _urls(net_log: dict[str, Any], *, by: str) -> list[str]:
    """What pages of that origin requested, from Chromium's network log."""
    started = net_log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    requests = [
        event["params"]
        for event in net_log["events"]
        if event["type"] == started and "params" in event
    ]
    return [request["url"] for request in requests if request.get("initiator") == by]
