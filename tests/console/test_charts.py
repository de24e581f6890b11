"""The charts by themselves: what they say of awkward data, and how fast they are."""

import pytest
from playwright.sync_api import Page

pytestmark = pytest.mark.slow

DRAW = """
async ([chart, data, options]) => {
  const module = await import(`./console/charts/${chart}.js`);
  const place = document.createElement("div");
  document.querySelector(".view").replaceChildren(place);
  module[chart](place, data, options);
  for (const table of place.querySelectorAll("details")) table.open = true;
  await new Promise((resolve) => setTimeout(resolve, 50));
  return [place.querySelector("svg").getAttribute("aria-label"),
    [...place.querySelectorAll("svg text")].map((text) => text.textContent),
    [...place.querySelectorAll("td")].map((cell) => cell.textContent), place.innerHTML];
}
"""


@pytest.fixture
def page(visit) -> Page:
    return visit("#/plain/explain")


@pytest.mark.parametrize(
    ("chart", "data", "options"),
    [
        ("histogram", {"edges": [0, 1], "counts": [0]}, {"thresholds": [{"at": 3, "label": "far"}]}),
        ("histogram", {"edges": [0, 1, 2], "counts": [5, 0]}, {"log": True, "severities": True}),
        ("bars", [{"label": "none", "value": None}], {}),
        ("bars", [], {}),
        ("heatmap", {"rows": ["0"], "columns": ["a"], "values": [[None]]}, {"steps": [1, 2, 3, 4, 5, 6]}),
        ("scatter", {"points": [], "marks": []}, {}),
        ("scatter", {"points": [[0, 0]] * 40, "marks": []}, {}),
        ("line", {"x": [0], "series": [{"label": "one", "y": [1]}]}, {}),
        ("line", {"x": [0, 1], "series": [{"label": "none", "y": [None, None]}]}, {"log": True}),
        ("dumbbell", [{"feature": "a", "actual": None, "expected": None}], {}),
        ("dumbbell", [{"feature": "a", "actual": 1, "expected": 0, "expected_sd": 0, "deviation": None}], {}),
        ("dumbbell", [], {}),
    ],
)  # fmt: skip
def test_awkward_data_is_drawn_without_a_number_that_is_none(page, chart, data, options):
    name, _, _, markup = page.evaluate(DRAW, [chart, data, {"name": "A chart", **options}])
    assert name.startswith("A chart")
    for word in ("NaN", "undefined", "Infinity", "[object"):
        assert word not in markup


def test_a_histogram_says_how_many_rows_it_is_of(page):
    data = {"edges": [0, 0.5, 1, 4], "counts": [900, 90, 11]}
    name, texts, cells, _ = page.evaluate(DRAW, ["histogram", data, {"name": "Rows"}])
    assert name == "Rows. 1,001 rows."
    assert cells == ["0", "0.5", "900", "0.5", "1", "90", "1", "4", "11"]
    assert "rows" in texts


def test_a_histogram_marks_thresholds_and_where_values_are_extrapolated(page):
    data = {"edges": [0, 1, 2, 3], "counts": [90, 9, 1]}
    marks = [{"at": 1.3, "label": "in force"}, {"at": 7, "label": "tried", "tried": True}]
    options = {"name": "Rows", "severities": True, "thresholds": marks, "beyond": 2.5}
    _, texts, _, markup = page.evaluate(DRAW, ["histogram", data, options])
    assert {"in force", "tried →", "extrapolated"} <= set(texts)
    assert markup.count('class="ordinary"') == 2  # the bin of the threshold is not wholly above it
    assert markup.count('class="severity-2"') == 1
    *_, markup = page.evaluate(DRAW, ["histogram", data, {**options, "beyond": 3}])
    assert "extrapolated" not in markup


def test_bars_say_value_and_interval(page):
    data = [{"label": "α 1 %", "value": 12, "low": 8, "high": 17, "promised": 16}]
    name, texts, cells, _ = page.evaluate(DRAW, ["bars", data, {"name": "Alarms", "unit": "a day"}])
    assert name == "Alarms. α 1 %: 12 (8 – 17) a day"
    assert "12 (8 – 17)" in texts
    assert cells == ["α 1 %", "12", "8", "17", "16"]


def test_a_dumbbell_says_what_was_expected(page):
    flow = {"feature": "flow", "unit": "l/s", "actual": 3.1, "expected": 9.8}
    flow |= {"expected_sd": 0.4, "deviation": -16.75, "blamed": True, "share": 0.5}
    name, texts, cells, _ = page.evaluate(DRAW, ["dumbbell", [flow], {"name": "Why"}])
    assert name == "Why. flow: 3.1, expected 9.8 ± 0.4 l/s, to blame"
    assert "−16.8 sd" in texts
    assert cells == ["flow", "3.1", "9.8", "0.4", "−16.75", "yes", "0.5"]
    hidden = {"name": "Why", "secret": True}
    name, _, cells, _ = page.evaluate(DRAW, ["dumbbell", [flow], hidden])
    assert name == "Why. flow: −16.8 sd, to blame"
    assert "3.1" not in cells


def test_contours_lie_around_most_points(page):
    points = [[x / 10, y / 10] for x in range(-10, 11) for y in range(-10, 11)]
    data = {"points": [*points, [9, 9]], "marks": [{"x": 9, "y": 9, "severity": 5, "label": "far"}]}
    *_, markup = page.evaluate(DRAW, ["scatter", data, {"name": "Map"}])
    assert markup.count('class="contour"') == 3
    place = page.evaluate(
        """() => {
          const [inner, , outer] = [...document.querySelectorAll(".contour")].map((path) => path.getBBox());
          const mark = document.querySelector("circle.mark");
          return [inner.width <= outer.width && inner.height <= outer.height,
            Number(mark.getAttribute("cx")) > outer.x + outer.width];
        }"""
    )
    assert place == [True, True]
