"""What all views have in common: keys, themes, phones, screen readers, and how fast they come."""

import re

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.artifacts import make_artifact, publish
from tests.serving import serving

pytestmark = pytest.mark.slow

VIEWS = ("budget", "alarms", "explain", "models", "map")  # test_learn.py looks at Learn


def test_every_view_is_reached_by_keys_alone(visit):
    page = visit()
    seen = []
    for key in ("a", "e", "t", "m", "p", "l", "b"):
        page.keyboard.press("g")
        page.keyboard.press(key)
        current = page.locator("#menu [aria-current=page]")
        expect(current).to_have_attribute("aria-keyshortcuts", f"g {key}")
        seen.append(current.inner_text())
        expect(page.locator("h1 span")).to_be_visible()
    assert seen == ["Alarms", "Explain", "Time", "Models", "Map", "Learn", "Budget"]
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("find a model")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_model_is_found_by_its_name(visit):
    page = visit()
    page.keyboard.press("/")
    page.keyboard.type("pla")
    page.keyboard.press("Enter")
    expect(page.locator("#model")).to_contain_text("plain")
    assert "#/plain/budget" in page.url
    page.go_back()
    expect(page.locator("#model")).to_contain_text("mixed")


def test_a_model_that_is_broken_is_named_with_what_is_wrong(visit, tmp_path):
    publish(tmp_path, "good", make_artifact())
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/current").write_text("nothing\n")
    with serving(tmp_path) as client:
        (broken,) = client.get("/v1/models").json()["broken"]
        page = visit(client=client)
        page.keyboard.press("/")
        said = page.get_by_role("dialog").get_by_text("is not served")
        expect(said).to_have_text(f"bad is not served: {broken['last_error']}")
        page.keyboard.type("good")
        expect(said).to_have_count(0)


def test_letters_that_are_typed_into_a_field_lead_nowhere(visit):
    page = visit("#/plain/explain")
    page.get_by_role("textbox", name="Rows").focus()
    page.keyboard.type("ga/?")
    expect(page.get_by_role("textbox", name="Rows")).to_have_value("ga/?")
    assert "explain" in page.url


def test_the_theme_follows_the_system_and_can_be_switched(visit):
    page = visit(scheme="dark")
    colour = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(colour)
    page.get_by_role("button", name="Theme: system").click()
    light = page.evaluate(colour)
    assert (dark, light) == ("rgb(22, 21, 19)", "rgb(251, 250, 248)")
    page.reload()
    assert page.evaluate(colour) == light
    page.get_by_role("button", name="Theme: light").click()
    assert page.evaluate(colour) == dark
    page.get_by_role("button", name="Theme: dark").click()
    expect(page.get_by_role("button", name="Theme: system")).to_be_visible()


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_fits_a_phone(visit, view: str):
    page = visit(f"#/plain/{view}", width=360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for kind in ("svg text", "button", "h1"):  # nothing that is read is cut off
        for box in (each.bounding_box() for each in page.locator(f"main {kind}").all()):
            assert box is None or box["x"] >= -1, kind


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_no_serious_barrier_and_each_chart_a_name_and_a_table(
    visit, service: httpx.Client, view: str, scheme: str
):
    state = ""
    if view == "alarms":
        state = f"?group={service.get('/v1/models/plain/alarms').json()['groups'][0]['key']}"
    page = visit(f"#/plain/{view}{state}", scheme=scheme)
    if view == "explain":
        page.get_by_role("textbox", name="Rows").fill("[[0, 1, 0, 30], [0, 0, 0, 0]]")
        page.keyboard.press("Control+Enter")
    if view in ("alarms", "explain"):
        page.locator(".dumbbell").first.wait_for()
    for summary in page.locator("summary").all():
        summary.click()
    charts = page.locator("figure.chart").all()
    assert len(charts) == {"budget": 3, "alarms": 1, "explain": 2, "models": 0, "map": 1}[view]
    for chart in charts:
        name = chart.locator("strong").first.inner_text()
        assert chart.get_by_role("img").first.get_attribute("aria-label").startswith(name)
        assert chart.locator("table caption").text_content() == name
        expect(chart.locator("tbody tr").first).to_be_attached()
    options = None if scheme == "light" else {"runOnly": ["color-contrast"]}
    found = Axe().run(page, options=options).response["violations"]
    assert [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ] == []


def test_the_first_view_is_of_200_kb_at_most(visit):
    page = visit("#/plain/budget")
    page.locator("figure svg").first.wait_for()
    size = page.evaluate(
        """() => [
          ...performance.getEntriesByType("navigation"),
          ...performance.getEntriesByType("resource"),
        ].reduce((sum, part) => sum + part.transferSize, 0)"""
    )
    assert 50_000 < size <= 200_000


def test_without_a_model_it_says_what_to_do(visit, tmp_path):
    with serving(tmp_path, poll_seconds=0.2) as client:
        page = visit(client=client, clock=True)
        expect(page.locator(".state")).to_contain_text("No model yet: make demo")
        publish(tmp_path, "first", make_artifact())
        client.post("/v1/models/first/reload").raise_for_status()
        page.clock.fast_forward(5000)
        expect(page.locator("h1")).to_contain_text("How many alarms would")
        expect(page.locator("#model")).to_contain_text("first")


def test_a_service_that_went_away_is_said_to_be_stale(visit, models):
    with serving(models) as client:
        page = visit("#/plain/budget", client=client, quiet=False, clock=True)
        expect(page.locator("#live")).to_have_text("live")
    page.clock.fast_forward(40_000)
    expect(page.locator("#live")).to_have_text(re.compile(r"stale: no answer for \d\d s"))
    expect(page.locator("h1")).to_have_text("How many alarms would 5 % give?")  # still there
    page.locator("#menu").get_by_text("Models").click()
    expect(page.locator(".failed")).to_contain_text("The service does not answer")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_a_model_that_is_not_served_is_said_not_to_be(visit):
    page = visit("#/nobody/budget", quiet=False)
    expect(page.locator(".failed")).to_contain_text("No such model is served")


def test_the_console_works_behind_a_path(visit, folder):
    with serving(folder, root_path="/anomalies") as client:
        page = visit("anomalies/#/plain/budget", client=client)
        expect(page.locator("h1")).to_have_text("How many alarms would 5 % give?")
        page.get_by_role("link", name="API").click()
        expect(page).to_have_url(f"{client.base_url}/anomalies/docs")


def test_a_printed_view_is_dark_on_light(visit):
    page: Page = visit("#/plain/budget", scheme="dark")
    page.emulate_media(media="print")
    assert (
        page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        == "rgb(255, 255, 255)"
    )
    assert page.locator("header").is_hidden()
    assert page.locator("figure svg").first.is_visible()
