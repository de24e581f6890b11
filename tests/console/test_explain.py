"""The view Explain: rows in, reasons out; and names that are shown as the text that they are."""

import json
import subprocess

import httpx
import pytest
from playwright.sync_api import expect

from tests.console.conftest import ODD, plain_rows, strange_rows, windowed, write_csv

pytestmark = pytest.mark.slow


def test_pasted_rows_are_explained_strangest_first(visit, service: httpx.Client):
    rows = [*plain_rows(3), *strange_rows(2)]
    page = visit("#/plain/explain")
    page.get_by_role("textbox", name="Rows").fill(json.dumps(rows))
    page.get_by_role("button", name="Explain", exact=True).click()
    answer = service.post("/v1/models/plain/explain?top=4", json={"rows": rows}).json()
    alarms = sum(answer["is_anomaly"])
    expect(
        page.locator("#view").get_by_text(f"{alarms} alarms among 5 rows at α 5 %")
    ).to_be_visible()
    options = page.get_by_role("option")
    strangest = max(range(5), key=lambda row: answer["score"][row])
    expect(options.first).to_contain_text(f"row {strangest}")
    expect(page.locator(".reason")).to_have_text(answer["reason"][strangest])
    expect(page.locator(".dumbbell.blamed")).to_have_count(
        sum(each["blamed"] for each in answer["explanations"][strangest])
    )
    expect(page.get_by_role("img", name="Which feature of which row")).to_have_count(1)


def test_arrows_step_through_rows_and_the_url_brings_them_back(visit):
    page = visit("#/plain/explain")
    page.get_by_role("textbox", name="Rows").fill(json.dumps(plain_rows(4)))
    page.keyboard.press("Control+Enter")
    page.get_by_role("listbox", name="Rows").focus()
    page.keyboard.press("ArrowDown")
    picked = page.get_by_role("option", selected=True)
    second = picked.inner_text().split("\n")[0]
    expect(page.locator(".view h2")).to_have_text(second.capitalize())
    page.reload()
    expect(page.locator(".view h2")).to_have_text(second.capitalize())


def test_a_cell_of_the_heatmap_picks_its_row(visit):
    page = visit("#/plain/explain")
    page.get_by_role("textbox", name="Rows").fill(json.dumps(plain_rows(4)))
    page.keyboard.press("Control+Enter")
    heatmap = page.get_by_role("region", name="Which feature of which row")
    heatmap.focus()
    for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator(".view h2")).to_have_text("Row 1")
    expect(page.get_by_role("option", selected=True)).to_contain_text("row 1")
    expect(page.locator(".reading")).to_contain_text("1 · b: ")
    box = heatmap.locator("svg").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] - 16)
    expect(page.locator(".view h2")).to_have_text("Row 3")
    expect(page.get_by_role("option", selected=True)).to_contain_text("row 3")


def test_a_dropped_csv_is_explained(visit, tmp_path):
    page = visit("#/plain/explain")
    path = write_csv(tmp_path / "rows.csv", [*plain_rows(2), *strange_rows(1)], label=[0, 0, 1])
    page.locator("input[type=file]").set_input_files(path)
    expect(page.locator("#view").get_by_text("among 3 rows of rows.csv")).to_be_visible()
    expect(page.locator(".view h2")).to_have_text("Row 2")


def test_the_copied_curl_line_gives_the_same_answer(visit, service: httpx.Client):
    page = visit("#/mixed/explain")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Example row").click()
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    line = page.evaluate("navigator.clipboard.readText()")
    ran = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    row = json.loads(page.get_by_role("textbox", name="Rows").input_value())[0]
    answer = service.post("/v1/models/mixed/explain", json={"rows": [row]})
    assert json.loads(ran.stdout) == answer.json()


def test_a_row_that_does_not_fit_says_where(visit):
    page = visit("#/plain/explain", quiet=False)
    page.get_by_role("textbox", name="Rows").fill('[[1, 2, 3, "wide"]]')
    page.keyboard.press("Control+Enter")
    expect(page.locator(".failed")).to_contain_text("'d'")
    page.get_by_role("textbox", name="Rows").fill("[[1, 2")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".failed")).to_contain_text("These are no rows of this model")


def test_names_are_shown_as_the_text_that_they_are(visit):
    page = visit("#/odd/explain")
    page.get_by_role("button", name="Example row").click()
    expect(page.locator(".dumbbell")).to_have_count(len(ODD))
    page.locator("details.numbers summary").first.click()
    expect(page.locator("details.numbers td:first-child")).to_have_count(len(ODD))
    cells = page.locator("details.numbers td:first-child").all_inner_texts()
    assert set(cells) == {
        "<img src=x onerror=alert(1)>",
        "bell␇ and ␛[31m",
        "‹U+202E›detrever",
        "🫖 kettle",
        '"quoted" & <b>bold</b>',
    }
    assert page.locator("main img, main b").count() == 0
    page.goto(page.url.replace("explain", "alarms").partition("?")[0])
    page.locator(".list button").first.click()
    expect(page.locator(".dumbbell").first).to_be_visible()
    assert page.locator("main img, main b").count() == 0


def test_a_model_of_windows_says_how_many_rows_it_needs_and_shows_the_feature_over_time(visit):
    page = visit("#/plain/models")
    asked = windowed(page, 5)
    page.locator("#menu").get_by_text("Explain").click()
    text = page.get_by_role("textbox", name="Rows")
    text.fill(json.dumps(plain_rows(1)))
    page.keyboard.press("Control+Enter")
    expect(page.locator(".failed")).to_contain_text(
        "plain looks at 5 rows: paste 5 rows or more, oldest first, or drop a file; there is 1"
    )
    page.get_by_role("button", name="Example row").click()
    expect(page.locator(".view h2")).to_have_text("Row 4")
    assert asked == [("explain", 5)]
    text.fill(json.dumps([*plain_rows(6), *strange_rows(1)]))
    page.keyboard.press("Control+Enter")
    expect(page.locator(".view h2")).to_have_text("Row 6")
    over = page.locator("figure", has=page.get_by_text("d over time"))
    over.locator("summary").click()
    expect(over.locator("tr")).to_have_count(8)
    cells = over.locator("tr").all()
    assert [cells[row + 1].locator("td").all_inner_texts()[2] == "–" for row in range(7)] == [
        True,
        True,
        True,
        True,
        False,
        False,
        False,
    ]  # nothing is expected of the rows that warm
    assert cells[7].locator("td").all_inner_texts()[:2] == ["6", "25"]
    page.get_by_role("listbox", name="Rows").focus()
    page.keyboard.press("End")
    expect(page.locator(".reason")).to_contain_text("Warming: plain looks at 5 rows")
    expect(page.get_by_role("option", selected=True)).to_contain_text("warming")
