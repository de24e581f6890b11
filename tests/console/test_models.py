"""The view Models: versions, what changed between two, and which one is in service."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from hourglass.service.serving.store import Store
from tests.artifacts import NUMERIC, make_artifact, publish, sample_rows
from tests.serving import serving

pytestmark = pytest.mark.slow


def short(version: str) -> str:
    return version[:12]


@pytest.fixture
def versions(service: httpx.Client) -> dict[str, str]:
    """Of the model `two`: the one in service, and the other."""
    answer = service.get("/v1/models/two/versions").json()
    (other,) = {each["version"] for each in answer["versions"]} - {answer["current"]}
    return {"current": answer["current"], "other": other}


def test_the_versions_stand_in_a_table(visit, versions):
    page = visit("#/two/models")
    expect(page.locator("h1")).to_have_text("Which version of two is in service?")
    rows = page.get_by_role("region", name="Versions").get_by_role("row")
    expect(rows).to_have_count(3)
    expect(rows.filter(has_text=short(versions["current"]))).to_contain_text("in service")
    expect(rows.filter(has_text=short(versions["other"]))).not_to_contain_text("in service")


def test_two_marked_versions_are_compared(visit, versions):
    page = visit("#/two/models")
    page.get_by_role("checkbox", name=f"Compare {short(versions['current'])}").check()
    expect(page.get_by_text("Mark a second version")).to_be_visible()
    page.get_by_role("checkbox", name=f"Compare {short(versions['other'])}").check()
    changed = page.get_by_role("table", name="What changed between two versions")
    expect(changed.get_by_role("row", name="features")).to_contain_text("4")
    expect(changed.get_by_role("row", name="features")).to_contain_text("3")
    expect(changed.get_by_role("row", name="variant")).to_contain_text("the same")
    expect(page.get_by_text("1 feature").last).to_contain_text("d")
    page.reload()
    expect(changed).to_be_visible()


def test_a_version_comes_into_service_when_the_name_is_typed_and_can_be_rolled_back(
    visit, versions, service: httpx.Client
):
    page = visit("#/two/models")

    def move(version: str) -> None:
        row = page.get_by_role("region", name="Versions").get_by_role("row", name=short(version))
        row.get_by_role("button", name="Promote").or_(
            row.get_by_role("button", name="Roll back")
        ).click()
        dialog = page.get_by_role("dialog")
        sure = dialog.get_by_role("button", name="Promote").or_(
            dialog.get_by_role("button", name="Roll back")
        )
        expect(sure).to_be_disabled()
        dialog.get_by_role("textbox").fill("tw")
        expect(sure).to_be_disabled()
        dialog.get_by_role("textbox").fill("two")
        page.keyboard.press("Enter")
        expect(row).to_contain_text("in service")
        assert service.get("/v1/models/two").json()["version"] == version

    move(versions["other"])
    move(versions["current"])


def test_a_report_opens_in_a_frame_of_its_own_without_rights(visit):
    page = visit("#/reported/models")
    page.get_by_role("button", name="Report", exact=True).click()
    frame = page.locator("iframe")
    expect(frame).to_have_attribute("sandbox", "allow-scripts allow-popups")
    expect(frame.content_frame.get_by_role("heading")).to_have_text("Fit well")
    assert "report=" in page.url
    page.reload()
    expect(frame.content_frame.get_by_role("heading")).to_have_text("Fit well")
    page.get_by_role("button", name="Close").click()
    expect(frame).to_have_count(0)


def test_what_moves_versions_is_hidden_where_nothing_can_be_changed(visit, folder):
    with serving(folder, read_only=True) as client:
        page = visit("#/two/models", client=client)
        expect(page.get_by_role("region", name="Versions").get_by_role("row")).to_have_count(3)
        assert page.get_by_role("button", name="Promote").count() == 0
        assert page.get_by_role("button", name="Roll back").count() == 0


def test_of_a_challenger_it_is_said_how_it_fares(visit, tmp_path: Path):
    beside = publish(tmp_path, "pump", make_artifact(shift=9))
    current = publish(tmp_path, "pump", make_artifact())
    model = Store(tmp_path).model("pump")
    with serving(tmp_path, shadow_share=1.0) as client:
        page = visit("#/pump/models", client=client)
        expect(page.get_by_role("region", name="Versions")).to_be_visible()
        expect(page.get_by_role("heading", name="In shadow")).to_have_count(0)
        model.challenge(beside)
        client.get("/v1/models/pump/challenger")
        rows = sample_rows(NUMERIC, 400, seed=4).tolist()
        client.post("/v1/models/pump/score", json={"rows": rows}).raise_for_status()
        page.reload()
        expect(page.get_by_role("heading", name="In shadow")).to_be_visible()
        view = page.locator(".view")
        expect(view).to_contain_text(client.get("/v1/models/pump/challenger").json()["sentence"])
        expect(view).to_contain_text("alarms of the challenger")
        expect(view).to_contain_text(f"{short(beside)}; 95 %: ")
        expect(view).to_contain_text(f"{short(current)}; 95 %: ")
        client.post("/v1/models/pump/promote", json={"version": beside}).raise_for_status()
        page.reload()
        expect(page.get_by_role("heading", name="In shadow")).to_have_count(0)
