"""The view Budget: what other budgets would give, of live rows and of a file."""

import re

import httpx
import pytest
from playwright.sync_api import expect

from tests.console.conftest import plain_rows, strange_rows, windowed, write_csv
from tests.serving import serving

pytestmark = pytest.mark.slow


def test_the_budget_in_force_is_shown_with_its_promise_and_what_was_observed(visit, service):
    page = visit("#/plain/budget")
    live = service.get("/v1/models/plain/replay?alpha=0.05").json()
    (budget,) = live["alphas"]
    assert (live["rows"], budget["in_force"]) == (412, True)
    expect(page.locator("h1")).to_have_text("How many alarms would 5 % give?")
    observed = page.locator(".facts > div:has(dt:text-is('observed'))")
    expect(observed).to_contain_text(f"{budget['alarms']} alarms in 412 rows")
    expect(page.locator(".facts .promise")).to_contain_text(
        "5 % of normal rows, with 95 % confidence"
    )
    expect(page.get_by_role("button", name="In force")).to_be_disabled()
    expect(page.get_by_role("img", name=re.compile("Severity of 412 rows"))).to_have_count(1)


def test_dragging_the_slider_moves_the_threshold_without_asking_again(visit):
    page = visit("#/plain/budget")
    asked = []
    page.on("request", lambda request: "/replay" in request.url and asked.append(request.url))
    slider = page.get_by_role("slider", name="False-alarm budget")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    seen = set()
    for step in range(12):
        page.mouse.move(box["x"] + box["width"] * (0.5 + step / 30), box["y"] + 10)
        page.wait_for_timeout(20)
        seen.add(page.locator("h1").inner_text())
    page.mouse.up()
    assert len(seen) >= 4
    alpha = re.search(r"alpha=([\d.]+)", page.url)[1]
    assert float(alpha) > 0.05
    expect(page.locator(".threshold.tried text")).to_have_text(f"α {float(alpha) * 100:g} %")
    expect(page.get_by_role("button", name="Apply")).to_be_enabled()
    assert len(asked) <= 1  # the look at live rows every five seconds
    page.get_by_role("button", name="Back to α 5 %").click()
    expect(page.locator(".threshold.tried")).to_have_count(0)
    assert "alpha" not in page.url


def test_the_url_brings_a_tried_budget_back(visit):
    page = visit("#/plain/budget?alpha=0.2")
    expect(page.locator("h1")).to_have_text("How many alarms would 20 % give?")
    page.reload()
    expect(page.locator("h1")).to_have_text("How many alarms would 20 % give?")


def test_apply_changes_the_budget_of_the_running_model(visit, service):
    page = visit("#/tuned/budget?alpha=0.1")
    page.get_by_role("button", name="Apply α 10 %").click()
    expect(page.locator(".note")).to_have_text("α 10 % is in force; it was 5 %.")
    assert service.get("/v1/models/tuned").json()["alpha"] == 0.1
    expect(page.get_by_role("button", name="In force")).to_be_disabled()
    assert "alpha" not in page.url


def test_a_budget_that_somebody_else_changes_is_seen(visit, service):
    service.patch("/v1/models/mixed", json={"alpha": 0.05}).raise_for_status()
    page = visit("#/mixed/budget", clock=True)
    expect(page.locator("h1")).to_have_text("How many alarms would 5 % give?")
    service.patch("/v1/models/mixed", json={"alpha": 0.04}).raise_for_status()
    page.clock.fast_forward(5000)
    expect(page.locator("h1")).to_have_text("How many alarms would 4 % give?")
    expect(page.get_by_role("button", name="In force", exact=True)).to_be_disabled()


def test_alarms_a_day_follow_from_the_rows_a_day_that_are_given(visit):
    page = visit("#/plain/budget?rows_a_day=1440")
    promised = page.locator(".facts .promise dd")
    expect(promised).to_contain_text("≤ 72 a day")
    page.get_by_role("spinbutton", name="Alarms a day").fill("20")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("How many alarms would 1 % give?")  # 14.4 a day
    page.get_by_role("spinbutton", name="Rows a day").fill("2000")
    page.keyboard.press("Enter")
    expect(promised).to_contain_text("≤ 20 a day")


def test_by_keyboard_alone_a_budget_is_tried(visit):
    page = visit("#/plain/budget")
    page.get_by_role("slider", name="False-alarm budget").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("h1")).to_have_text("How many alarms would 6 % give?")
    page.keyboard.press("Home")
    expect(page.locator(".threshold.tried")).to_have_count(1)


def test_a_dropped_file_is_held_against_the_budget(visit, service: httpx.Client, tmp_path):
    rows = plain_rows(60) + strange_rows(5) + plain_rows(60, seed=8)
    label = [0] * 60 + [1] * 5 + [0] * 60
    page = visit("#/plain/budget")
    page.locator("input[type=file]").set_input_files(
        write_csv(tmp_path / "a.csv", rows, label=label)
    )
    body = {"rows": rows, "alphas": [0.05, 0.2], "labels": label}
    answer = service.post("/v1/models/plain/replay", json=body).json()
    for budget, words in zip(answer["alphas"], ("5 %", "20 %"), strict=True):
        if words == "20 %":
            page.locator(".bar", has_text="α 20 %").click()
        said = page.locator(".view p", has_text="episode")
        expect(said).to_contain_text(
            f"At α {words}: {budget['alarms']} alarms in {len(budget['episodes'])} episodes"
        )
        expect(said).to_contain_text("Of 5 labelled anomalies 5 alarm (recall 100 %)")
        assert page.get_by_role("listbox", name="Episodes").get_attribute("tabindex") == "0"
    picture = page.locator("figure", has_text="Severity of each row of a.csv")
    expect(picture.get_by_role("img")).to_have_attribute("aria-label", re.compile("125 rows"))
    assert picture.locator("canvas").bounding_box()["width"] > 600
    picture.locator("summary").click()
    expect(picture.locator("tbody tr")).to_have_count(125)
    strangest = page.get_by_role("option", name="rows 60 – 64").or_(
        page.get_by_role("option").filter(has_text="strangest: row 64")
    )
    strangest.first.click()
    expect(page.locator("h2", has_text="Row 64")).to_be_visible()
    expect(page.locator(".dumbbell.blamed")).to_contain_text("d")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b,c\n1,2,3\n", "the file lacks the feature 'd'"),
        ("a,b,c,d\n1,2,3,4\n1,2,wide,4\n", "row 1, feature 'c': expected a number, got 'wide'"),
        ("a,b,c,d\n1,2,3\n", "row 0: expected 4 cells, got 3"),
        ("", "a head with the names of the columns and at least one row were expected"),
    ],
)
def test_a_file_that_does_not_fit_says_where(visit, tmp_path, text: str, said: str):
    (tmp_path / "a.csv").write_text(text)
    page = visit("#/plain/budget")
    page.locator("input[type=file]").set_input_files(tmp_path / "a.csv")
    expect(page.locator(".failed")).to_contain_text(said)


def test_100_000_dropped_rows_are_replayed_without_freezing_the_page(visit, tmp_path):
    rows = [[0.1, -0.1, 0.2, 0.0]] * 100_000
    rows[24_999], rows[25_000], rows[70_000] = strange_rows(3)  # 25,000 rows make a request
    path = write_csv(tmp_path / "long.csv", rows)
    page = visit("#/plain/budget")
    page.evaluate(
        """() => {
          let last = performance.now();
          window.gap = 0;
          const tick = (now) => {
            window.gap = Math.max(window.gap, now - last);
            last = now;
            requestAnimationFrame(tick);
          };
          requestAnimationFrame(tick);
        }"""
    )
    page.locator("input[type=file]").set_input_files(path)
    page.locator("progress").wait_for()
    said = page.locator(".view p", has_text="episodes among")
    said.wait_for(timeout=60_000)
    expect(said).to_contain_text("3 alarms in 2 episodes among 100,000 rows")
    assert page.evaluate("window.gap") < 3000  # the file itself takes longer on one thread
    episodes = page.get_by_role("listbox", name="Episodes").get_by_role("option")
    expect(episodes).to_contain_text(["rows 24,999 – 25,000", "row 70,000"])


def test_a_process_that_only_reads_shows_it_all_and_offers_no_change(visit, folder):
    with serving(folder, read_only=True) as client:
        page = visit("#/plain/budget?alpha=0.1", client=client)
        expect(page.locator("h1")).to_have_text("How many alarms would 10 % give?")
        expect(page.get_by_text("No row was scored")).to_be_visible()
        assert page.get_by_role("button", name=re.compile("Apply|In force")).count() == 0
        expect(page.locator("footer")).to_contain_text("read only")


def test_parts_of_a_file_overlap_by_what_a_model_of_windows_looks_at(visit, tmp_path):
    page = visit("#/plain/models")
    asked = windowed(page, 5)
    page.locator("#menu").get_by_text("Budget").click()
    rows = [*plain_rows(1000) * 25, *plain_rows(600), *strange_rows(1), *plain_rows(399, seed=8)]
    page.locator("input[type=file]").set_input_files(write_csv(tmp_path / "a.csv", rows))
    picture = page.locator("figure", has_text="Severity of each row of a.csv")
    expect(picture.get_by_role("img")).to_have_attribute(
        "aria-label", re.compile("26,000 rows"), timeout=60_000
    )
    assert asked == [("replay", 25_000), ("replay", 1_004)]
    page.get_by_role("slider", name="False-alarm budget").focus()
    page.keyboard.press("Home")  # where the strange row alarms, and few beside it
    page.get_by_role("option").filter(has_text="row 25,600").click()
    expect(page.locator("h2", has_text="Row 25,600")).to_be_visible()
    assert asked[-1] == ("explain", 5)
    expect(page.locator(".dumbbell.blamed")).to_contain_text("d")
