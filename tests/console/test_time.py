"""The view Time: lanes, brush, ranked features and events, over timelines that are made up; and
over those of a real service with streams.
"""

import re
from datetime import UTC, datetime, timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.artifacts import (
    NUMERIC,
    as_json_rows,
    make_windowed_artifact,
    publish,
    sample_rows,
)
from tests.console.conftest import plain_rows, strange_rows, write_csv
from tests.console.timelines import SECONDS, Made, answering, event, iso
from tests.serving import serving

pytestmark = pytest.mark.slow

RANK = """async ([answer, span]) => {
  const { rank } = await import("./console/views/time.js");
  return rank(answer, span);
}"""


@pytest.fixture
def look(visit):
    """Opens Time of `plain` with what is made up: look(Made(), "?entity=pump-1")."""

    def open_view(made: Made, state: str = "", **options) -> Page:
        page = visit("#/plain/models", **options)
        answering(page, made)
        page.goto(f"{page.url.partition('#')[0]}#/plain/time{state}")
        page.locator(".view.time > div > *").first.wait_for()
        return page

    return open_view


def lanes_of(page: Page):
    return page.get_by_role("region", name=re.compile("^Highest severity"))


def drag(page: Page, region, begin: float, end: float) -> None:
    """Over shares of the width that the bins of 240 take."""
    left, right = (box_of(page, region, share) for share in (begin, end))
    page.mouse.move(*left)
    page.mouse.down()
    page.mouse.move((left[0] + right[0]) / 2, left[1])
    page.mouse.move(*right)
    page.mouse.up()


def box_of(page: Page, region, share: float, lane: int = 0, *, above: bool = False):
    box = region.locator("svg").bounding_box()
    left, right = (152, box["width"] - 8)
    return box["x"] + left + share * (right - left), box["y"] + 24 * lane + (3 if above else 16)


def test_each_entity_has_a_lane_and_the_strangest_is_picked(look):
    page = look(Made())
    expect(page.locator("h1")).to_have_text("What is strange now?")
    expect(page.locator(".view")).to_contain_text(
        "1 open event; 2 events in this range, of 3 entities"
    )
    expect(page.locator(".view h2")).to_have_text("pump-0")
    labels = lanes_of(page).locator("text.small").all_text_contents()
    assert labels == ["warming", "pump-0", "pump-1", "pump-2"]
    said = page.get_by_role("img", name="Highest severity").get_attribute("aria-label")
    assert "pump-0: at most 5.1; pump-1: at most 0.3; pump-2: no answer, warming" in said
    region = page.get_by_role("region", name="What each feature of pump-0 adds")
    assert region.locator("text.small").all_text_contents()[0] == "c"  # what adds most comes first


def test_a_bin_without_an_answer_is_empty_and_warming_is_never_calm(look):
    page = look(Made(many=2))
    calm = lanes_of(page).locator("path.severity-0").get_attribute("d")
    assert calm.count("M") == 2  # of pump-0, before and after its event; none of pump-1
    expect(lanes_of(page).locator("line.warming")).to_have_count(1)
    expect(page.locator(".view")).to_contain_text("Warming, and not judged yet: 1.")
    page.mouse.move(*box_of(page, lanes_of(page), 0.5, lane=1))
    expect(page.locator(".reading").first).to_contain_text("warming, cannot be judged yet")
    page.mouse.move(*box_of(page, lanes_of(page), 0.62))
    expect(page.locator(".reading").first).to_contain_text("5.1 severity")


def test_a_lane_is_picked_by_pointer_and_by_keys_and_the_url_keeps_it(look):
    page = look(Made())
    page.mouse.click(*box_of(page, lanes_of(page), 0.3, lane=1))
    expect(page.locator(".view h2")).to_have_text("pump-1")
    assert "entity=pump-1" in page.url
    lanes_of(page).focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".view h2")).to_have_text("pump-2: warming, not judged yet")
    page.reload()
    expect(page.locator(".view h2")).to_have_text("pump-2: warming, not judged yet")
    expect(page.get_by_text("No event of pump-2 in this range.")).to_be_visible()


def test_a_drag_ranks_the_features_for_its_span_and_says_by_what(look):
    made = Made()
    page = look(made)
    ranked = page.locator("figure", has=page.get_by_text("Features ranked"))
    expect(ranked).to_contain_text("By what each adds on average in 240 bins with an answer.")
    drag(page, lanes_of(page), 145.5 / 240, 153.5 / 240)
    expect(ranked).to_contain_text("Features ranked for 2025-11-29 06:45 – 2025-11-29 06:54")
    expect(ranked).to_contain_text(
        "By what each adds in the 9 bins of the span with an answer, on average, less the same in"
        " the 231 bins outside it."
    )
    expect(ranked.locator("svg text").first).to_have_text("c")
    expect(ranked.locator("svg text.figure").first).to_have_text("1.8")
    ranked.locator("summary").click()
    expect(ranked.locator("tbody tr")).to_have_count(4)
    order = ranked.locator("td:first-child").all_inner_texts()
    expected = page.evaluate(RANK, [made.of("pump-0", 240), [145, 153]])
    assert order == [each["feature"] for each in expected]
    assert f"from={iso(145 / 240 * SECONDS)[:-1].replace(':', '%3A')}" in page.url
    page.reload()
    expect(ranked).to_contain_text("Features ranked for 2025-11-29 06:45 – 2025-11-29 06:54")


def test_the_brush_moves_and_widens_by_keys_over_both_charts(look):
    page = look(Made())
    ranked = page.locator("figure", has=page.get_by_text("Features ranked"))
    page.get_by_role("region", name="What each feature").focus()
    page.keyboard.press("ArrowLeft")
    expect(ranked).to_contain_text("08:19 – 2025-11-29 08:20")  # the last bin
    for key in ("ArrowLeft", "Shift+ArrowRight", "Shift+ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    expect(ranked).to_contain_text("in the 2 bins of the span")
    expect(page.locator("#said")).to_have_text(re.compile("^[abcd] ranks first.$"))
    moved = [each.evaluate("e => e.style.transform") for each in page.locator(".brush").all()]
    assert len(moved) == 2
    assert moved[0] == moved[1]
    page.keyboard.press("Escape")
    expect(page.locator(".brush").first).to_be_hidden()
    expect(ranked).to_contain_text("for the whole range")
    assert "from=" not in page.url


def test_features_are_ranked_by_the_mean_inside_less_the_mean_outside(visit):
    page = visit("#/plain/models")
    answer = {
        "features": ["loud", "rises", "falls"],
        "contributions": [[2, 2, 2, 2], [0.1, 0.5, 0.7, None], [1, 0.1, 0.1, 1]],
    }
    found = page.evaluate(RANK, [answer, [1, 2]])
    assert [each["feature"] for each in found] == ["rises", "loud", "falls"]
    assert found[0] == {
        "feature": "rises",
        "mean": pytest.approx(0.6),
        "rest": pytest.approx(0.1),
        "inside": 2,
        "outside": 1,
    }
    everywhere = page.evaluate(RANK, [answer, None])
    assert [each["feature"] for each in everywhere] == ["loud", "falls", "rises"]
    assert {each["outside"] for each in everywhere} == {0}


def test_a_bracket_opens_its_event_with_sentence_features_and_span(look):
    page = look(Made())
    drawn = lanes_of(page).locator("path.whisker").get_attribute("d")
    assert drawn.count("M") == 2 + 3  # the open one has no end
    page.mouse.click(*box_of(page, lanes_of(page), 1250 / SECONDS, above=True))
    opened = page.locator('[data-key="closed"]')
    expect(opened).to_have_attribute("aria-expanded", "true")
    expect(opened).to_contain_text("2025-11-29 04:36 – 2025-11-29 04:45")
    expect(page.locator(".reason")).to_have_text("a is 3.1 where 9.8 ± 0.4 was expected.")
    expect(page.locator(".list")).to_contain_text(
        "Closed: 40 rows in 8 min; peak at 2025-11-29 04:38"
    )
    expect(page.locator("figure", has=page.get_by_text("Features ranked"))).to_contain_text(
        "Features ranked for 2025-11-29 04:36"
    )
    assert "event=closed" in page.url
    page.locator('[data-key="open"]').click()
    expect(page.locator('[data-key="open"]')).to_contain_text("2025-11-29 06:44 – now")
    expect(page.locator('[data-key="open"]')).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".reason")).to_have_count(0)


def test_what_is_new_comes_by_itself_and_focus_and_span_stay(look):
    made = Made(events=[])
    page = look(made, clock=True)
    expect(page.locator("h1")).to_have_text("Was anything strange, and when?")
    lanes_of(page).focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".brush").first).to_be_visible()
    made.events.append(event("new", "pump-0", 0.6 * SECONDS, None, "c"))
    page.clock.fast_forward(5_000)
    expect(page.locator("h1")).to_have_text("What is strange now?")
    expect(page.locator('[data-key="new"]')).to_be_visible()
    expect(lanes_of(page)).to_be_focused()
    expect(page.locator(".brush").first).to_be_visible()


def test_nothing_is_drawn_anew_where_nothing_is_new(look):
    page = look(Made(), clock=True)
    page.evaluate("document.querySelector('.lanes').dataset.seen = 'yes'")
    page.clock.fast_forward(5_000)
    page.clock.fast_forward(5_000)
    expect(page.locator(".lanes").first).to_have_attribute("data-seen", "yes")


def test_bins_are_no_narrower_than_those_that_the_service_keeps(look):
    made = Made(until=1200)
    page = look(made)
    expect(page.locator(".view h2")).to_have_text("pump-0")
    assert [each["bins"] for each in made.asked] == ["240", "20"]
    expect(page.locator("figure", has=page.get_by_text("Features ranked"))).to_contain_text(
        "in 20 bins with an answer"
    )


def test_names_are_shown_as_the_text_that_they_are(look):
    name = "<img src=x onerror=alert(1)>\a/?#"
    page = look(Made(first=name, events=[event("odd", name, 0.6 * SECONDS, None, "<b>c</b>")]))
    expect(page.locator(".view h2")).to_have_text("<img src=x onerror=alert(1)>␇/?#")
    page.locator('[data-key="odd"]').click()
    expect(page.locator(".reason")).to_have_text("<b>c</b> is 3.1 where 9.8 ± 0.4 was expected.")
    assert page.locator("main img, main b").count() == 0
    page.reload()
    expect(page.locator('[data-key="odd"]')).to_have_attribute("aria-expanded", "true")


def test_a_range_is_asked_for(look):
    made = Made()
    page = look(made)
    assert made.asked[-1] == {"bins": "240", "limit": "200"}
    with page.expect_response("**/timeline?*"):
        page.get_by_role("combobox", name="Range of time").select_option("last hour")
    expect(page).to_have_url(re.compile("range=hour"))
    since = datetime.fromisoformat(made.asked[-1]["since"])
    assert abs(datetime.now(UTC) - timedelta(hours=1) - since) < timedelta(minutes=2)
    page.get_by_role("combobox", name="Range of time").select_option("from … to …")
    with page.expect_response("**/timeline?*since=*"):
        page.get_by_label("since").fill("2025-11-29T05:00")
    expect(page).to_have_url(re.compile("since=2025-11-29T05%3A00%3A00.000Z"))
    assert made.asked[-1]["since"] == "2025-11-29T05:00:00.000Z"
    assert "until" not in made.asked[-1]


def test_without_a_stream_it_says_how_one_is_fed(look):
    page = look(Made(many=0, events=[]))
    said = page.locator(".view .state")
    expect(said).to_contain_text("No entity has sent rows yet. plain judges single rows")
    line = page.locator("pre").inner_text()
    assert "/v1/models/plain/streams/pump-1'" in line
    assert re.findall(r'"(\w+)":', line.partition("-d ")[2]) == ["rows", "a", "b", "c", "d"]
    expect(page.get_by_role("button", name="Copy as curl")).to_be_visible()


def test_an_entity_that_left_keeps_its_lane(look):
    page = look(Made(many=2, left="pump-0", events=[]), "?entity=pump-0", quiet=False)
    expect(page.locator(".view h2")).to_have_text("pump-0")
    expect(page.locator(".view")).to_contain_text("The last row is of 2025-11-29 08:19.")
    figure = page.locator("figure", has=page.get_by_text("Features ranked"))
    expect(figure).to_contain_text("By what each adds on average in 0 bins with an answer.")


def test_streams_of_a_windowed_model_are_seen_live(visit, tmp_path):
    publish(tmp_path, "pumps", make_windowed_artifact(rows=4))
    ordinary = as_json_rows(NUMERIC, sample_rows(NUMERIC, 200, seed=3))
    strange = [[0.0, 0.0, 0.0, 400.0 * (-4) ** i] for i in range(6)]
    with serving(tmp_path, streams=tmp_path / "streams.sqlite") as client:
        page = visit("#/pumps/time", client=client)
        expect(page.locator(".view .state")).to_contain_text("pumps looks at 4 rows")
        begin = 1_764_390_000

        def send(entity: str, first: int, rows: list[list[object]]) -> dict[str, object]:
            time = [begin + 10 * (first + i) for i in range(len(rows))]
            body = {"time": time, "rows": rows}
            answer = client.post(f"/v1/models/pumps/streams/{entity}", json=body)
            return answer.raise_for_status().json()

        send("p/1", 0, ordinary)
        send("p2", 0, ordinary[:2])
        expect(lanes_of(page)).to_be_visible(timeout=12_000)  # it comes by itself
        expect(page.locator(".view")).to_contain_text("Warming, and not judged yet: 1.")
        answer = send("p/1", 200, strange)
        assert answer["event"] is not None
        expect(page.locator("h1")).to_have_text("What is strange now?", timeout=12_000)
        expect(page.locator(".view h2")).to_have_text("p/1")
        page.locator(f'[data-key="{answer["event"]["id"]}"]').click()
        expect(page.locator(".reason")).to_have_text(answer["event"]["sentence"])
        ranked = page.locator("figure", has=page.get_by_text("Features ranked"))
        expect(ranked.locator("svg text").first).to_have_text("d")
        assert lanes_of(page).locator("path.whisker").get_attribute("d").count("M") == 2


def test_a_service_without_streams_says_so(visit):
    page = visit("#/plain/models", quiet=False)
    problem = {"type": "not-found", "title": "Not found", "status": 404, "detail": "No such route"}
    page.route("**/timeline**", lambda route: route.fulfill(status=404, json=problem))
    page.goto(f"{page.url.partition('#')[0]}#/plain/time")
    expect(page.locator(".view .state")).to_have_text(
        "This service keeps no timeline: it knows no streams."
    )


def test_a_dropped_file_with_times_is_looked_at_as_a_stream(look, service, tmp_path):
    rows = [*plain_rows(40), *strange_rows(2)]
    path = write_csv(tmp_path / "pumps.csv", rows)
    head, *lines = path.read_text().splitlines()
    # out of order, and two entities; the strange rows are the last of the second
    named = [f"{line},2026-03-01 10:{i:02}:00,p{i % 2}" for i, line in enumerate(lines)]
    path.write_text("\n".join([f"{head},time,machine", *named[::-1]]))
    page = look(Made())
    page.locator("input[type=file]").set_input_files(path)
    expect(page.locator("h1")).to_have_text("Was anything strange in pumps.csv?")
    answer = service.post("/v1/models/plain/explain?top=4", json={"rows": rows}).json()
    most = [max(answer["severity"][entity::2]) for entity in (0, 1)]
    first, second = sorted((0, 1), key=lambda entity: -most[entity])
    page.locator(".view summary").first.click()
    table = page.locator("figure", has=page.get_by_text("Highest severity")).locator("td")
    expect(table).to_have_count(8)
    cells = table.all_inner_texts()
    assert [cells[0], cells[4]] == [f"p{first}", f"p{second}"]
    assert cells[1].startswith(f"{most[first]:.4f}"[:5])
    expect(page.locator(".view h2")).to_have_text(f"p{first}")
    page.get_by_role("region", name="What each feature").focus()
    page.keyboard.press("ArrowLeft")  # the last bin has the strange row alone
    ranked = page.locator("figure", has=page.get_by_text("Features ranked"))
    expect(ranked.locator("svg text").first).to_have_text("d")
    page.get_by_role("button", name="Back to the streams").click()
    expect(page.locator(".view h2")).to_have_text("pump-0")


def test_a_file_without_times_says_what_was_expected(look, tmp_path):
    path = write_csv(tmp_path / "rows.csv", plain_rows(3), label=[0, 0, 1])
    page = look(Made())
    page.locator("input[type=file]").set_input_files(path)
    expect(page.locator(".failed")).to_contain_text(
        "a column of times was expected, dates or seconds since 1970; beside the features it has"
        " faulty"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_has_no_serious_barrier_and_each_chart_a_name_and_a_table(look, scheme: str):
    page = look(Made(many=8), "?event=open", scheme=scheme)
    page.locator(".reason").wait_for()
    for summary in page.locator("summary").all():
        summary.click()
    charts = page.locator("figure.chart").all()
    assert len(charts) == 3
    for chart in charts:
        name = chart.locator("strong").first.inner_text()
        assert chart.get_by_role("img").first.get_attribute("aria-label").startswith(name)
        assert chart.locator("table caption").text_content() == name
        expect(chart.locator("tbody tr").nth(3)).to_be_attached()
    found = Axe().run(page).response["violations"]
    assert [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ] == []


def test_it_fits_a_phone(look):
    page = look(Made(many=80), width=360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for box in (each.bounding_box() for each in page.locator("main svg text").all()):
        assert box["x"] >= -1
