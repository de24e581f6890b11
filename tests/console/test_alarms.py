"""The view Alarms: groups, and one by one what was expected where."""

import re

import httpx
import pytest
from playwright.sync_api import expect

from tests.console.conftest import strange_rows

pytestmark = pytest.mark.slow


def test_without_an_alarm_it_says_how_many_rows_were_looked_at(visit):
    page = visit("#/two/alarms")
    expect(page.locator("h1")).to_have_text("Has anything alarmed?")
    expect(page.locator(".view > p")).to_contain_text("0 rows scored since")
    assert page.locator(".list li").count() == 0


def test_an_open_group_shows_its_alarms_and_what_was_expected(visit, service: httpx.Client):
    page = visit("#/plain/alarms")
    answer = service.get("/v1/models/plain/alarms").json()
    group = next(each for each in answer["groups"] if each["features"] == ["d"])
    line = page.locator(f'[data-key="{group["key"]}"]')
    expect(line).to_contain_text(f"{group['count']} alarms")
    expect(line).to_contain_text(group["sentence"])
    line.click()
    expect(line).to_have_attribute("aria-expanded", "true")
    expect(page.locator(".view h2")).to_contain_text(f"{group['count']} alarms, newest first")
    expect(page.locator(".dumbbell.blamed text").first).to_contain_text("d")
    assert f"group={group['key']}" in page.url
    line.click()
    expect(page.locator(".view h2")).to_have_count(0)


def test_arrows_step_through_alarms_and_the_url_keeps_the_place(visit, service: httpx.Client):
    groups = service.get("/v1/models/plain/alarms").json()["groups"]
    key = next(each["key"] for each in groups if each["features"] == ["d"])
    page = visit(f"#/plain/alarms?group={key}")
    alarms = service.get(f"/v1/models/plain/alarms/{key}").json()["alarms"]
    page.get_by_role("listbox", name="Alarms of the group").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_text(f"Alarm 3 of {len(alarms)}")).to_be_visible()
    assert "alarm=2" in page.url
    page.reload()
    expect(page.get_by_text(f"Alarm 3 of {len(alarms)}")).to_be_visible()
    page.locator("summary", has_text="The row").click()
    assert f"{alarms[2]['row'][3]:g}" in page.locator("details table").inner_text()


def test_a_new_alarm_appears_by_itself(visit, service: httpx.Client):
    page = visit("#/mixed/alarms", clock=True)
    expect(page.locator(".list li")).to_have_count(0)
    row = {"load": 40.0, "open": True, "site": "north", "heat": 0.0}
    service.post("/v1/models/mixed/score", json={"rows": [row]}).raise_for_status()
    page.clock.fast_forward(5000)
    expect(page.locator(".list li")).to_have_count(1)
    expect(page.locator(".view > p").first).to_have_text(
        re.compile("1 alarm in 1 group; 1 row scored")
    )


def test_a_group_that_is_gone_is_said_to_be(visit):
    page = visit("#/plain/alarms?group=feedfacefeedface", quiet=False)
    expect(page.get_by_text("This group is no longer kept")).to_be_visible()


def test_an_alarm_is_explained_anew(visit, service: httpx.Client):
    groups = service.get("/v1/models/plain/alarms").json()["groups"]
    key = next(each["key"] for each in groups if each["features"] == ["d"])
    page = visit(f"#/plain/alarms?group={key}")
    page.get_by_role("button", name="Explain it anew").click()
    expect(page.locator("h1")).to_have_text("Why would these rows alarm?")
    expect(page.locator("#view").get_by_text("1 alarm among 1 row")).to_be_visible()
    assert any(f"{row[3]}" in page.url for row in strange_rows(12))


def test_what_was_said_of_a_group_stands_at_it(visit, service: httpx.Client):
    groups = service.get("/v1/models/odd/alarms").json()["groups"]
    (key,) = (each["key"] for each in groups)
    page = visit(f"#/odd/alarms?group={key}")
    line = page.locator(f'[data-key="{key}"]')
    page.get_by_role("button", name="Expected", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Kept as expected with 1 row.")
    expect(line).to_contain_text("expected")
    page.get_by_role("button", name="Real", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Kept as real with 1 row.")
    page.get_by_role("combobox", name="Mute alarms like these").select_option("for 8 hours")
    expect(line).to_contain_text("muted until")
    service.post("/v1/models/odd/score", json={"rows": [[0, 0, 9, 0, 0]]}).raise_for_status()
    page.reload()
    expect(page.locator(".view > p").first).to_contain_text("2 alarms in 1 group")
    expect(page.locator(".view > p").first).to_contain_text("1 alarm muted.")
    page.get_by_role("combobox", name="Mute alarms like these").select_option("no longer")
    expect(line).not_to_contain_text("muted")
    said = service.get("/v1/models/odd/feedback").json()["feedback"]
    assert [each["verdict"] for each in said] == ["mute", "mute", "real", "expected"]
