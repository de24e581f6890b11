"""The report beside a model, over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.artifacts import make_artifact, publish
from tests.serving import serving

PAGE = "<!doctype html><title>pump</title>"
FACTS = '{"name":"pump"}'


def write(folder: Path, name: str, version: str, page: str = PAGE) -> None:
    (folder / name / version / "report.html").write_text(page)
    (folder / name / version / "report.json").write_text(FACTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pump` has two versions, each with its report; `bare` has none."""
    folder = tmp_path_factory.mktemp("models")
    older = publish(folder, "pump", make_artifact(seed=1))
    newer = publish(folder, "pump", make_artifact(seed=2))
    write(folder, "pump", older, PAGE.replace("pump", "older"))
    write(folder, "pump", newer)
    publish(folder, "bare", make_artifact())
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    with serving(folder) as running:
        yield running


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", "html"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "html"),
        ("application/json", "json"),
        ("application/json, text/plain, */*", "json"),
        ("text/html, application/json;q=0.5", "html"),
        ("application/*", "json"),
    ],
)
def test_the_report_comes_in_the_form_that_is_liked_best(
    client: httpx.Client, accept: str, form: str
) -> None:
    answer = client.get("/v1/models/pump/report", headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.text == (PAGE if form == "html" else FACTS)
    wanted = {"html": "text/html; charset=utf-8", "json": "application/json"}
    assert answer.headers["content-type"] == wanted[form]
    assert answer.headers["vary"] == "Accept"


def test_the_query_names_the_form_whatever_is_accepted(client: httpx.Client) -> None:
    asked = {"headers": {"accept": "text/html"}, "params": {"format": "json"}}
    assert client.get("/v1/models/pump/report", **asked).json() == {"name": "pump"}
    refused = client.get("/v1/models/pump/report", params={"format": "pdf"})
    assert refused.status_code == 400


def test_a_form_that_is_not_given_is_said(client: httpx.Client) -> None:
    answer = client.get("/v1/models/pump/report", headers={"accept": "image/png"})
    assert answer.status_code == 406
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_older_version_has_its_own_by_its_beginning(client: httpx.Client, folder: Path) -> None:
    newer = client.get("/v1/models/pump").json()["version"]
    (older,) = (
        path.name for path in (folder / "pump").iterdir() if path.name not in (newer, "current")
    )
    asked = client.get("/v1/models/pump/report", params={"version": older[:10]})
    assert "<title>older" in asked.text
    assert client.get("/v1/models/pump/report", params={"version": newer}).text == PAGE
    nowhere = client.get("/v1/models/pump/report", params={"version": "0" * 64})
    assert (nowhere.status_code, nowhere.json()["type"]) == (404, "/docs#unknown-version")
    assert "of 'pump' is not there; the versions are" in nowhere.json()["detail"]
    assert client.get("/v1/models/pump/report", params={"version": "../../x"}).status_code == 400


def test_the_page_can_ask_nothing_and_stands_in_a_frame_of_its_own_host(
    client: httpx.Client,
) -> None:
    policy = client.get("/v1/models/pump/report").headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    assert rules["frame-ancestors"] == "'self'"
    assert rules["sandbox"] == "allow-scripts"  # an origin of its own


def test_head_tells_what_get_would(client: httpx.Client) -> None:
    asked, got = client.head("/v1/models/pump/report"), client.get("/v1/models/pump/report")
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["content-type"] == got.headers["content-type"]


def test_a_model_without_a_report_says_how_to_make_one(client: httpx.Client) -> None:
    answer = client.get("/v1/models/bare/report")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert (
        "has no report.html beside it; hourglass-train report makes one" in answer.json()["detail"]
    )
    nobody = client.get("/v1/models/nobody/report")
    assert (nobody.status_code, nobody.json()["type"]) == (404, "/docs#unknown-model")


def test_behind_a_proxy_with_a_path_it_is_there_too(folder: Path) -> None:
    with serving(folder, root_path="/anomalies") as behind:
        assert behind.get("/anomalies/v1/models/pump/report").text == PAGE
        problem = behind.get("/anomalies/v1/models/bare/report").json()
    assert problem["type"] == "/anomalies/docs#no-report"
    assert problem["instance"] == "/anomalies/v1/models/bare/report"


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    folder = tmp_path / "models"
    version = publish(folder, "pump", make_artifact())
    (folder / "pump" / version / "report.html").symlink_to(secret)
    with serving(folder) as running:
        answer = running.get("/v1/models/pump/report")
    assert answer.status_code == 409
    assert "secret" not in answer.text.replace("leads out", "")
