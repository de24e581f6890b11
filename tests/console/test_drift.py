"""The view Drift: what moved, since when, what to do, and where its values went."""

from collections.abc import Iterator

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.artifacts import MIXED, as_json_rows, make_artifact, publish, sample_rows
from tests.serving import serving

pytestmark = pytest.mark.slow


def send(client: httpx.Client, rows: int, *, seed: int, moved: float = 0.0) -> None:
    rows_ND = sample_rows(MIXED, rows, seed=seed)
    rows_ND[:, 0] += moved
    body = {"rows": as_json_rows(MIXED, rows_ND)}
    client.post("/v1/models/pumps/score", json=body).raise_for_status()
    client.get("/v1/models/pumps/drift").raise_for_status()  # closes the window


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service of which `pumps` has had one window as before, and two in which load is higher."""
    models = tmp_path_factory.mktemp("drift")
    publish(models, "pumps", make_artifact(MIXED, calibration_rows=1000))
    publish(models, "quiet", make_artifact(MIXED))
    with serving(models, drift_seconds=0.0) as client:
        for seed, moved in enumerate((0.0, 0.5, 0.5)):
            send(client, 1000, seed=seed, moved=moved)
        yield client


def test_it_says_what_moved_and_shows_where_its_values_went(visit, drifting: httpx.Client):
    page = visit("#/pumps/drift", client=drifting)
    expect(page.locator("h1")).to_have_text("Has anything drifted?")
    answer = drifting.get("/v1/models/pumps/drift").json()
    expect(page.locator(".view p").first).to_have_text(f"drifting: {answer['sentence']}")
    expect(page.locator(".view")).to_contain_text(answer["advice"])
    expect(page.locator(".view ul li").first).to_contain_text("2 windows, since")
    chart = page.locator("figure", has_text="How far each feature is from the fit rows")
    assert chart.get_by_role("img").get_attribute("aria-label").count("load: ") == 1
    chart.locator("g.bar", has_text="heat").locator("text").first.click()
    expect(page.locator("figure", has_text="Values of heat")).to_be_visible()
    page.get_by_role("button", name="Show load").press("Enter")
    assert "feature=load" in page.url
    values = page.locator("figure", has_text="Values of load")
    values.locator("summary").click()
    expect(values.locator("tbody tr")).to_have_count(10)
    past = page.locator("figure", has_text="The worst feature of each window")
    expect(past.locator("svg")).to_be_visible()
    page.reload()
    expect(page.locator("figure", has_text="Values of load")).to_be_visible()


def test_without_a_window_it_says_how_far_it_is(visit, drifting: httpx.Client):
    page = visit("#/quiet/drift", client=drifting)
    expect(page.locator(".view p").first).to_contain_text("unknown: No row was scored")
    expect(page.locator(".view")).to_contain_text("0 of 1,000 rows")
    assert page.locator("figure").count() == 0


def test_it_is_reached_by_keys_and_draws_itself_anew(visit, drifting: httpx.Client):
    page = visit("#/pumps/alarms", client=drifting, clock=True)
    page.keyboard.press("g")
    page.keyboard.press("d")
    expect(page.locator("h1")).to_have_text("Has anything drifted?")
    send(drifting, 1000, seed=9)
    page.clock.fast_forward(5000)
    expect(page.locator(".view p").first).to_contain_text("stable: Nothing has moved")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_has_no_serious_barrier_and_fits_a_phone(visit, drifting: httpx.Client, scheme: str):
    page = visit("#/pumps/drift?feature=load", client=drifting, scheme=scheme, width=360)
    page.locator("figure svg").nth(2).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for summary in page.locator("summary").all():
        summary.click()
    found = Axe().run(page).response["violations"]
    assert [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ] == []
