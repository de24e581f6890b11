"""A live service with traffic, and pages of one Chromium that look at it.

Whatever a page logs as an error, or asks of another host, fails the test that opened it.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

from hourglass.service.model.artifact import Feature
from hourglass.service.serving.store import REPORT_FILE, REPORT_PAGE
from tests.artifacts import MIXED, NUMERIC, as_json_rows, make_artifact, point, publish, sample_rows
from tests.serving import serving

# what a name must not be able to do: to become markup, to hide, to turn what follows around
ODD = tuple(
    Feature(name=name, kind="numeric", minimum=-3.0, maximum=3.0)
    for name in (
        "<img src=x onerror=alert(1)>",
        "bell\a and \x1b[31m",
        "‮detrever",
        "🫖 kettle",
        '"quoted" & <b>bold</b>',
    )
)
# of a report: the plane is the code turned by a right angle and moved
MAP = {
    "axes": ["component 1", "component 2"],
    "projection": {"mean": [1.0, 0.0], "components": [[0.0, 1.0], [-1.0, 0.0]]},
    "held_out": [[x / 10, y / 10] for x in range(-9, 10) for y in range(-9, 10)],
    "severity": [0.3] * 361,
    "suspects": [[3.0, 3.0, 17]],
    "suspect_severity": [4.2],
}
WIDTH, HEIGHT = 1200, 800
Visit = Callable[..., Page]


@pytest.fixture(scope="package")
def browser(chromium: str) -> Iterator[Browser]:
    """One for all tests here; it ends with them, since its event loop would be in others' way."""
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        running = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield running
        running.close()


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models: `plain` and `mixed` to look at, `odd` with names that are, `tuned` and `two` (of two
    versions) to change, and `reported` with a report.
    """
    models = tmp_path_factory.mktemp("console")
    publish(models, "plain", make_artifact(conditional=True))
    publish(models, "mixed", make_artifact(MIXED, conditional=True))
    publish(models, "odd", make_artifact(ODD, conditional=True))
    publish(models, "tuned", make_artifact(conditional=True))
    version = publish(models, "reported", make_artifact(conditional=True))
    (models / "reported" / version / REPORT_FILE).write_text(json.dumps({"map": MAP}))
    (models / "reported" / version / REPORT_PAGE).write_text("<!doctype html><h1>Fit well</h1>")
    older = publish(models, "two", make_artifact(calibration_rows=300))
    publish(models, "two", make_artifact(NUMERIC[:3]))
    point(models, "two", older)
    return models


@pytest.fixture(scope="package")
def service(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of it; `plain` has scored 400 ordinary rows and twelve in which d is odd."""
    journal = tmp_path_factory.mktemp("journal") / "alarms.sqlite"
    with serving(folder, journal=journal) as client:
        for rows in (plain_rows(400), strange_rows(12)):
            client.post("/v1/models/plain/score", json={"rows": rows}).raise_for_status()
        client.post("/v1/models/odd/score", json={"rows": [[0, 0, 9, 0, 0]]}).raise_for_status()
        yield client


@pytest.fixture
def visit(browser: Browser, service: httpx.Client) -> Iterator[Visit]:
    """Opens a page of the console: visit("#/plain/budget", width=360, scheme="dark")."""
    contexts, errors, hosts = [], [], set()

    def open_page(
        path: str = "",
        *,
        width: int = WIDTH,
        scheme: str = "light",
        client: httpx.Client = service,
        quiet: bool = True,
        clock: bool = False,
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": HEIGHT}, color_scheme=scheme, accept_downloads=False
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        if clock:  # that can be put forward: page.clock.fast_forward(seconds * 1000)
            page.clock.install()
        if quiet:
            page.on("console", lambda said: said.type == "error" and errors.append(said.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        page.goto(f"{client.base_url}/{path}")
        page.locator("main h1 span, main .failed").first.wait_for()
        page.locator(
            ".view > :not(.state, link), .view > .state:not(:text-is('Loading.'))"
        ).first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
    assert hosts <= {"127.0.0.1", None}  # None: of data: and blob:


def plain_rows(n: int, *, seed: int = 7) -> list[list[object]]:
    """Ordinary rows of `plain`."""
    return as_json_rows(NUMERIC, sample_rows(NUMERIC, n, seed=seed))


def strange_rows(n: int) -> list[list[object]]:
    """Rows of `plain` in which the last value is far from what it ever was."""
    rows_ND = sample_rows(NUMERIC, n, seed=9)
    rows_ND[:, 3] = 25 + np.arange(n)
    return as_json_rows(NUMERIC, rows_ND)


def write_csv(path: Path, rows: list[list[object]], *, label: list[int] | None = None) -> Path:
    """A CSV of rows of `plain`, with a column of labels if there are any."""
    head = [feature.name for feature in NUMERIC] + (["faulty"] if label else [])
    lines = [
        ",".join(
            "" if cell is None else str(cell) for cell in (*row, *([label[i]] if label else []))
        )
        for i, row in enumerate(rows)
    ]
    path.write_text("\n".join([",".join(head), *lines]) + "\n")
    return path


def windowed(page: Page, rows: int) -> list[tuple[str, int]]:
    """Has `plain` look at so many rows, as far as the page can tell: rows without enough others
    before them are answered as warming. Returns a list in which each route that got rows, and how
    many, will stand.
    """
    asked: list[tuple[str, int]] = []

    def add_window(route: Route) -> None:
        window = {"rows": rows, "representation": "residual", "expected_sd": [1.0] * 4}
        route.fulfill(json=route.fetch().json() | {"window": window})

    def warm(route: Route) -> None:
        if route.request.method == "GET":
            return route.continue_()
        answer = route.fetch().json()
        name = route.request.url.rpartition("/")[2].partition("?")[0]
        asked.append((name, len(route.request.post_data_json["rows"])))
        for key in ("score", "ratio", "p_value", "severity", "is_anomaly", "reason", "codes"):
            if key in answer:
                answer[key][: rows - 1] = [None] * len(answer[key][: rows - 1])
        if "score" in answer:
            answer["warming"] = [score is None for score in answer["score"]]
        if "explanations" in answer:
            answer["explanations"][: rows - 1] = [[] for _ in answer["explanations"][: rows - 1]]
        for budget in answer.get("alphas", []):
            budget["alarm_rows"] = [row for row in budget["alarm_rows"] if row >= rows - 1]
        return route.fulfill(json=answer)

    page.route(re.compile(r"/v1/models/plain$"), add_window)
    page.route(re.compile(r"/v1/models/plain/(explain|replay|encode)"), warm)
    return asked
