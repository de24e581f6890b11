"""The console's files over HTTP: what is served, how it is kept, and what a page may do."""

import re
from pathlib import Path

import httpx
import pytest

from hourglass.service import VERSION
from tests.serving import serving

CONSOLE = Path(__file__).parents[3] / "service/console"
OWN = [
    path
    for path in CONSOLE.rglob("*")
    if path.suffix in (".js", ".css", ".html") and "vendor" not in path.parts
]


def test_the_root_is_the_console(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert f'data-version="{VERSION}"' in page.text
    assert 'data-read-only="false"' in page.text


def test_the_page_names_the_views_that_there_are(client: httpx.Client) -> None:
    views = re.search(r'data-views="([^"]*)"', client.get("/").text)[1].split()
    assert set(views) >= {"budget", "alarms", "explain", "time", "models", "map"}
    for view in views:
        assert client.get(f"/console/views/{view}.js").status_code == 200


def test_without_its_models_learn_is_no_view(models: Path) -> None:
    with serving(models, learn=False) as client:
        assert "learn" not in re.search(r'data-views="([^"]*)"', client.get("/").text)[1]


def test_every_file_is_served_as_what_it_is(client: httpx.Client) -> None:
    kinds = {
        ".js": "text/javascript; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".svg": "image/svg+xml",
    }
    for path in CONSOLE.rglob("*"):
        if not path.is_file() or path.name == "index.html":
            continue
        answer = client.get(f"/console/{path.relative_to(CONSOLE).as_posix()}")
        assert answer.content == path.read_bytes()
        assert answer.headers["x-content-type-options"] == "nosniff"
        if path.suffix in kinds:
            assert answer.headers["content-type"] == kinds[path.suffix]


@pytest.mark.parametrize("path", ["/", "/console/app.js"])
def test_what_a_browser_has_is_not_sent_again(client: httpx.Client, path: str) -> None:
    first = client.get(path)
    assert first.headers["cache-control"] == "no-cache"
    again = client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert client.get(path, headers={"if-none-match": '"older"'}).content == first.content


def test_a_page_may_run_and_ask_what_this_service_serves_alone(client: httpx.Client) -> None:
    for path in ("/", "/console/replaying.js"):
        policy = dict(
            rule.strip().split(" ", 1)
            for rule in client.get(path).headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert {policy[f"{kind}-src"] for kind in ("script", "style", "connect", "frame")} == {
            "'self'"
        }
        assert policy["img-src"] == "'self' data: blob:"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"


def test_the_page_that_shows_reports_can_ask_nothing_and_reach_nobody(client: httpx.Client) -> None:
    headers = client.get("/console/report.html").headers
    policy = [rule.strip() for rule in headers["content-security-policy"].split(";")]
    assert policy[0] == "default-src 'none'"
    assert "sandbox allow-scripts" in policy
    assert not [rule for rule in policy if "-src" in rule and ("self" in rule or ":" in rule)
                and rule != "img-src data:"]  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "/console/nothing.js",
        "/console/",
        "/console/views",
        "/console/index.html",
        "/console/../app.py",
        "/console/%2e%2e/app.py",
        "/console//etc/passwd",
    ],
)
def test_nothing_else_is_served(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_every_address_is_relative(client: httpx.Client) -> None:
    targets = re.findall(r'(?:src|href)="([^"#][^"]*)"', client.get("/").text)
    assert len(targets) >= 6
    for target in targets:
        assert not target.startswith(("/", "http"))
        assert client.get(f"/{target}").status_code == 200
    for path in OWN:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert re.findall(r"""["'(](?:https?:)?//[^"'\s]+""", text) == [], path


def test_our_own_code_and_styles_are_at_most_200_kb_and_views_that_came_later_37_more() -> None:
    of_time = {CONSOLE / name for name in ("views/time.js", "charts/lanes.js", "filing.js")}
    of_drift, of_shadow = {CONSOLE / "views/drift.js"}, {CONSOLE / "views/challenger.js"}
    later = of_time | of_drift | of_shadow
    assert later < set(OWN)
    assert sum(path.stat().st_size for path in {*OWN} - later) <= 200_000
    assert sum(path.stat().st_size for path in of_time) <= 30_000
    assert sum(path.stat().st_size for path in of_drift) <= 5_000
    assert sum(path.stat().st_size for path in of_shadow) <= 2_000


def test_no_text_becomes_markup() -> None:
    for path in OWN:
        if path.name == "report.html":  # shows a report, which has an origin of its own
            continue
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", path.read_text()
        )
        assert found == [], path


def test_a_reading_process_says_so_in_the_page(models: Path) -> None:
    with serving(models, read_only=True) as client:
        assert 'data-read-only="true"' in client.get("/").text


def test_behind_a_path_without_its_last_slash_the_page_is_one_step_on(models: Path) -> None:
    with serving(models, root_path="/anomalies") as client:
        assert client.get("/anomalies").headers["location"] == "/anomalies/"
        assert client.get("/anomalies/").status_code == 200
        assert client.get("/anomalies/console/app.js").status_code == 200
        assert client.get("/console/app.js").status_code == 200
