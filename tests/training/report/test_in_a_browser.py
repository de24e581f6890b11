"""report.html in Chromium: opened as a file, and as the service gives it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from hourglass.training.report.page import write_page
from tests.serving import serving
from tests.training.conftest import Published
from tests.training.report.conftest import Run
from tests.training.report.test_page import EVIL, renamed

CHARTS = ["alarms", "scores", "parts", "uniform", "power", "map", "learning"]

pytestmark = pytest.mark.slow


@contextmanager
def opened(browser: Browser, url: str, **context: object) -> Iterator[Page]:
    """A page that complained of nothing and asked for nothing but itself."""
    with browser.new_context(**context) as tab:
        page, heard, asked = tab.new_page(), [], []
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        yield page
        assert heard == []
        assert asked == [url]


def test_every_chart_is_drawn_offline(contaminated: Run, browser: Browser) -> None:
    url = (contaminated.folder / "report.html").as_uri()
    with opened(browser, url, offline=True) as page:
        drawn = page.eval_on_selector_all(
            "[data-chart]",
            "all => all.filter(each => each.querySelector('svg')).map(each => each.dataset.chart)",
        )
        assert drawn == CHARTS
        assert page.locator("[data-chart=power] text").all_text_contents().count("alone") == 1
        page.click("nav a[href='#privacy']")
        assert page.url.endswith("#privacy")


@pytest.mark.parametrize("width", [360, 1100])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_width_and_follows_the_theme(
    contaminated: Run, browser: Browser, width: int, scheme: str
) -> None:
    url = (contaminated.folder / "report.html").as_uri()
    view = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with opened(browser, url, **view) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        paper = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        lightness = sum(map(int, paper.removeprefix("rgb(").removesuffix(")").split(",")[:3])) / 3
        assert (lightness > 200) == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(published: Published, browser: Browser, scheme: str) -> None:
    with opened(browser, (published.folder / "report.html").as_uri(), color_scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        found = Axe().run(page).response["violations"]
    assert [
        (each["id"], [node["html"] for node in each["nodes"]][:3])
        for each in found
        if each["impact"] in ("serious", "critical")
    ] == []


def test_it_prints_on_a4_with_its_tables_open(contaminated: Run, browser: Browser) -> None:
    url = (contaminated.folder / "report.html").as_uri()
    with opened(browser, url) as page:
        assert page.locator("details.table[open]").count() == 0
        data = page.pdf(prefer_css_page_size=True)
        assert page.locator("details.table:not([open])").count() == 0
    assert b"/MediaBox [0 0 594.95" in data or b"/MediaBox [0 0 595" in data


def test_names_with_html_are_shown_as_text(
    contaminated: Run, browser: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    file.write_text(write_page(renamed(contaminated.facts, EVIL)))
    with opened(browser, file.as_uri()) as page:
        assert page.locator("img").count() == 0
        assert page.locator("td", has_text="</script><img src=x").count() >= 2
        assert page.locator("[data-chart=power] svg").count() == 1


def test_the_service_gives_it_an_origin_of_its_own(published: Published, browser: Browser) -> None:
    with serving(published.folder.parents[1], root_path="/anomalies") as client:
        url = str(client.base_url.join("/anomalies/v1/models/mixed/report"))
        with opened(browser, url) as page:
            assert page.locator("[data-chart] svg").count() == len(CHARTS) + 2  # labels: two more
            assert page.evaluate("self.origin") == "null"
