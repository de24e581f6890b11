"""The view Map: rows in the plane of the code, a loop that scores, a place that is decoded."""

import re

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import plain_rows, strange_rows, windowed, write_csv

pytestmark = pytest.mark.slow


@pytest.fixture
def mapped(visit, tmp_path) -> Page:
    """The map of `plain` with 20 ordinary rows and 3 strange ones."""
    page = visit("#/plain/map")
    path = write_csv(tmp_path / "rows.csv", [*plain_rows(20), *strange_rows(3)])
    page.locator("input[type=file]").set_input_files(path)
    expect(page.locator("circle.mark")).to_have_count(23)
    return page


def test_live_rows_that_are_kept_lie_on_the_map(visit, service: httpx.Client):
    page = visit("#/plain/map")
    kept = sum(each["count"] for each in service.get("/v1/models/plain/alarms").json()["groups"])
    kept += len(service.get("/v1/models/plain/ordinary").json()["rows"])
    expect(page.locator("circle.mark")).to_have_count(kept)
    expect(page.get_by_text("This version has no report")).to_be_visible()


def test_a_row_lies_where_its_code_is(mapped: Page, service: httpx.Client):
    codes = service.post("/v1/models/plain/encode", json={"rows": plain_rows(20)}).json()["codes"]
    mapped.locator("figure:has(circle) summary").click()
    cells = mapped.locator("figure:has(circle) tbody tr").nth(4).locator("td").all_inner_texts()
    assert cells[0] == "row 4 of rows.csv"
    numbers = [float(cell.replace("−", "-")) for cell in cells[1:3]]
    assert numbers == pytest.approx(codes[4], rel=1e-3)


def test_a_loop_around_dots_scores_them(mapped: Page, service: httpx.Client):
    box = mapped.locator("figure svg:has(circle)").bounding_box()
    corners = [(0.02, 0.02), (0.98, 0.02), (0.98, 0.95), (0.02, 0.95), (0.02, 0.03)]
    places = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in corners]
    mapped.mouse.move(*places[0])
    mapped.mouse.down()
    for place in places[1:]:
        mapped.mouse.move(*place, steps=4)
    mapped.mouse.up()
    expect(mapped.locator(".view h2")).to_have_text(re.compile(r"23 rows inside: \d+ alarms"))
    said = int(re.search(r"(\d+) alarms", mapped.locator(".view h2").inner_text())[1])
    body = {"rows": [*plain_rows(20), *strange_rows(3)], "alphas": [0.05]}
    (budget,) = service.post("/v1/models/plain/replay", json=body).json()["alphas"]
    assert said == budget["alarms"] >= 3
    mapped.get_by_role("listbox", name="Rows inside").get_by_role("option").last.click()
    expect(mapped.locator(".dumbbell.blamed").first).to_be_visible()


def test_a_click_decodes_the_place_and_arrows_move_it(visit, service: httpx.Client):
    page = visit("#/plain/map")
    picture = page.locator("figure svg:has(circle)")
    box = picture.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 3)
    heading = page.locator("h2", has_text="Decoded at")
    expect(heading).to_be_visible()
    first = heading.inner_text()
    picture.focus()
    page.keyboard.press("ArrowRight")
    expect(heading).not_to_have_text(first)
    at = [float(each) for each in re.search(r"at=([^&]*)", page.url)[1].split("%2C")]
    row = service.post("/v1/models/plain/decode", json={"codes": [at]}).json()["rows"][0]
    cells = page.get_by_role("region", name="Decoded row").locator("td.figure").all_inner_texts()
    assert [float(cell.replace("−", "-")) for cell in cells] == pytest.approx(row, abs=2e-3)
    page.reload()
    expect(heading).to_be_visible()


def test_a_dot_that_the_pointer_rests_on_shows_its_row(mapped: Page):
    mapped.locator("circle.mark").nth(21).hover()
    expect(mapped.locator(".view h2")).to_have_text("row 21 of rows.csv")
    expect(mapped.locator(".dumbbell.blamed").first).to_contain_text("d")


def test_looking_at_rows_is_no_traffic(mapped: Page, service: httpx.Client):
    counted = service.get("/v1/models/plain/replay").json()["rows"]
    assert counted == 412


def test_the_map_of_the_report_has_held_out_rows_and_suspects(
    visit, service: httpx.Client, tmp_path
):
    page = visit("#/reported/map")
    expect(page.get_by_text("361 held-out rows, in the two directions")).to_be_visible()
    expect(page.locator("path.contour")).to_have_count(3)
    expect(page.get_by_role("option")).to_have_text(
        re.compile("suspect, row 17 of the fit.*severity 4.2")
    )
    page.get_by_role("option").click()
    expect(page.get_by_text("the service has no rows of the fit")).to_be_visible()
    page.locator("input[type=file]").set_input_files(write_csv(tmp_path / "a.csv", plain_rows(3)))
    expect(page.locator("circle.mark")).to_have_count(4)
    page.locator("figure:has(circle) summary").click()
    cells = page.locator("figure:has(circle) tbody tr").first.locator("td").all_inner_texts()
    ((u, v), *_) = service.post("/v1/models/reported/encode", json={"rows": plain_rows(3)}).json()[
        "codes"
    ]
    place = [float(cell.replace("−", "-")) for cell in cells[1:3]]
    assert place == pytest.approx([v, 1 - u], rel=1e-3)


def test_a_place_on_the_map_of_the_report_is_decoded_as_its_code(visit, service: httpx.Client):
    page = visit("#/reported/map?at=0.5,-0.25")
    code = [1 + 0.25, 0.5]
    row = service.post("/v1/models/reported/decode", json={"codes": [code]}).json()["rows"][0]
    page.get_by_role("region", name="Decoded row").wait_for()
    cells = page.get_by_role("region", name="Decoded row").locator("td.figure").all_inner_texts()
    assert [float(cell.replace("−", "-")) for cell in cells] == pytest.approx(row, abs=2e-3)


def test_a_dot_of_a_model_of_windows_is_explained_with_the_rows_before_it(visit, tmp_path):
    page = visit("#/plain/models")
    asked = windowed(page, 5)
    page.locator("#menu").get_by_text("Map").click()
    expect(page.get_by_text("Drop a file to see its rows here, oldest first.")).to_be_visible()
    path = write_csv(tmp_path / "rows.csv", [*plain_rows(20), *strange_rows(3)])
    page.locator("input[type=file]").set_input_files(path)
    expect(page.locator("circle.mark")).to_have_count(19)  # four rows are warming
    page.get_by_role("option").last.click()
    expect(page.locator(".view h2")).to_have_text("row 22 of rows.csv")
    expect(page.locator(".dumbbell.blamed").first).to_contain_text("d")
    assert sorted(asked[:2]) == [("encode", 23), ("replay", 23)]
    assert asked[2:] == [("explain", 5)]
    box = page.get_by_role("img", name="Map of the code").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    for x, y in ((0.99, 0.01), (0.99, 0.95), (0.01, 0.95), (0.01, 0.02)):
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y, steps=3)
    page.mouse.up()
    expect(page.locator(".view h2")).to_have_text(re.compile(r"19 rows inside: [3-9] alarms"))
