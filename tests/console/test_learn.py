"""The view Learn: a picture through two numbers and back, by hand, against a live service."""

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from hourglass.training import pictures
from tests.serving import serving

pytestmark = pytest.mark.slow

CONSOLE = Path(__file__).parents[2] / "service" / "console"
INK = re.compile(r'"(\w+)": "([0-9a-g]+)"')
ROWS = {
    name: np.array(["0123456789abcdefg".index(sign) for sign in ink], np.float32) / 16
    for name, ink in INK.findall((CONSOLE / "learn" / "presets.js").read_text())
}
PLANE = ".plane"
CARDS = {
    "width", "linear", "tied", "denoising", "sparse", "contractive", "beta", "quantized", "masked",
    "losses", "anomaly",
}  # fmt: skip


def ask(service: httpx.Client, model: str, route: str, **body: object) -> dict:
    answer = service.post(f"/v1/models/learn.{model}/{route}", json=body)
    answer.raise_for_status()
    return answer.json()


@pytest.fixture
def learn(visit) -> Page:
    """The view as it opens: the shapes, the plain autoencoder, a ring."""
    page = visit("#/plain/learn")
    expect(page.locator(".told strong")).to_be_visible()
    return page


def code_of(page: Page) -> list[float]:
    return [float(each) for each in page.locator(PLANE).get_attribute("data-code").split()]


def error_of(page: Page) -> float:
    return float(page.locator(".told").get_attribute("data-error"))


def image(page: Page, name: str) -> list[int]:
    """The pixels of a picture, red, green, blue and alpha each."""
    script = (
        "canvas => Array.from(canvas.getContext('2d')"
        ".getImageData(0, 0, canvas.width, canvas.height).data)"
    )
    return page.get_by_label(name, exact=True).first.evaluate(script)


def until(page: Page, is_so: Callable[[], bool]) -> None:
    """Wait for what the page is about to show; its policy lets no test evaluate text there."""
    for _ in range(100):
        if is_so():
            return
        page.wait_for_timeout(100)
    assert is_so()


def expect_code(page: Page, code: list[float]) -> None:
    until(page, lambda: code_of(page) == pytest.approx(code, rel=1e-3, abs=1e-3))


def test_it_opens_on_a_ring_its_code_and_what_comes_of_that(learn: Page, service: httpx.Client):
    ring = ROWS["ring"]
    (code,) = ask(service, "shapes-plain", "encode", rows=[ring.tolist()])["codes"]
    (rebuilt,) = ask(service, "shapes-plain", "decode", codes=[code])["rows"]
    assert code_of(learn) == pytest.approx(code, rel=1e-3)
    assert error_of(learn) == pytest.approx(np.square(rebuilt - ring).mean(), rel=1e-4)
    expect(learn.locator(".told")).to_contain_text("mean squared error over 144 pixels")
    expect(learn.locator(".presets button")).to_have_count(12)


def test_a_preset_is_encoded_on_click(learn: Page, service: httpx.Client):
    learn.get_by_role("button", name="Encode the shape triangle").click()
    row = ROWS["triangle"].tolist()
    expect_code(learn, ask(service, "shapes-plain", "encode", rows=[row])["codes"][0])


def test_the_dot_is_dragged_to_any_code_and_decoded_there(learn: Page, service: httpx.Client):
    asked: list[str] = []
    learn.on("request", lambda request: asked.append(request.url))
    box = learn.locator(PLANE).bounding_box()
    learn.mouse.move(box["x"] + 60, box["y"] + 80)
    learn.mouse.down()
    learn.mouse.move(box["x"] + 241, box["y"] + 161, steps=20)
    learn.mouse.up()
    reference = service.get("/v1/models/learn.shapes-plain").json()["reference"]
    low, high = np.array(reference["minimum"]), np.array(reference["maximum"])
    low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)
    share = np.array([240 / 320, 1 - 160 / 320])  # within the border of a pixel
    assert code_of(learn) == pytest.approx((low + share * (high - low)).tolist(), abs=1.0)
    code = code_of(learn)
    (rebuilt,) = ask(service, "shapes-plain", "decode", codes=[code])["rows"]
    error = float(np.square(rebuilt - ROWS["ring"]).mean())
    until(learn, lambda: error_of(learn) == pytest.approx(error, rel=0.01))
    assert {url.rpartition("/")[2] for url in asked} == {"decode"}


def test_what_is_drawn_is_encoded(learn: Page, service: httpx.Client):
    learn.get_by_role("button", name="Clear").click()
    box = learn.locator("canvas[tabindex]").bounding_box()
    pixel = box["width"] / 12
    middle = box["x"] + 6.5 * pixel
    learn.mouse.move(middle, box["y"] + 1.5 * pixel)
    learn.mouse.down()
    learn.mouse.move(middle, box["y"] + 9.5 * pixel, steps=30)
    learn.mouse.up()
    drawn = np.zeros((12, 12), np.float32)
    drawn[1:10, 6] = 1
    expect_code(
        learn,
        ask(service, "shapes-plain", "encode", rows=[drawn.ravel().tolist()])["codes"][0],
    )


def test_the_pen_and_the_dot_obey_the_arrow_keys(learn: Page):
    before = code_of(learn)
    learn.locator(PLANE).focus()
    learn.keyboard.press("ArrowRight")
    step = code_of(learn)[0] - before[0]
    assert step > 0
    learn.keyboard.press("Shift+ArrowUp")
    learn.keyboard.press("ArrowLeft")
    after = code_of(learn)
    assert after[0] == pytest.approx(before[0], abs=1e-3)
    assert after[1] > before[1] + 9 * 0.1 * step
    canvas = learn.locator("canvas[tabindex]")
    canvas.focus()
    error = error_of(learn)
    for key in ("ArrowUp", "ArrowUp", "Space"):
        learn.keyboard.press(key)
    until(learn, lambda: error_of(learn) != error)
    expect(learn.locator("#said")).to_have_text("Column 7, row 5: ink 1")


def test_the_variational_code_is_a_cloud_within_a_few_deviations(
    learn: Page, service: httpx.Client
):
    learn.get_by_role("radio", name="variational").check()
    (code,) = ask(service, "shapes-variational", "encode", rows=[ROWS["ring"].tolist()])["codes"]
    expect_code(learn, code)
    assert max(map(abs, code)) < 4
    expect(learn.get_by_label("Sample 3 of the cloud")).to_be_visible()
    before = image(learn, "Sample 1 of the cloud")
    for _ in range(40):
        learn.wait_for_timeout(100)
        if image(learn, "Sample 1 of the cloud") != before:
            break
    assert image(learn, "Sample 1 of the cloud") != before
    assert "mode=variational" in learn.url
    learn.get_by_role("radio", name="plain").check()
    expect(learn.get_by_label("Sample 3 of the cloud")).to_be_hidden()


def test_the_cloud_stands_still_for_who_wants_no_motion(learn: Page):
    learn.emulate_media(reduced_motion="reduce")
    learn.get_by_role("radio", name="variational").check()
    expect(learn.get_by_label("Sample 3 of the cloud")).to_be_visible()
    learn.wait_for_timeout(500)
    before = image(learn, "Sample 1 of the cloud")
    learn.wait_for_timeout(2000)
    assert image(learn, "Sample 1 of the cloud") == before


def test_digits_are_the_second_set_and_the_url_keeps_it(learn: Page, service: httpx.Client):
    learn.get_by_role("radio", name="digits").check()
    expect(learn.locator(".presets button")).to_have_count(10)
    learn.get_by_role("button", name="Encode the digit 7").click()
    code = ask(service, "digits-plain", "encode", rows=[ROWS["7"].tolist()])["codes"][0]
    expect_code(learn, code)
    expect(learn.locator(".told")).to_contain_text("over 64 pixels")
    learn.reload()
    expect(learn.locator(".presets button")).to_have_count(10)


def looks(card: Locator) -> str:
    """What a card says and shows."""
    shown = card.locator("canvas").evaluate_all("all => all.map(each => each.toDataURL())")
    return card.locator("dl").inner_text() + str(shown)


def test_every_exhibit_shows_pictures_facts_and_its_request(learn: Page, service: httpx.Client):
    cards = learn.locator(".exhibit")
    assert {card.get_attribute("id").partition("-")[2] for card in cards.all()} == CARDS
    for card in cards.all():
        card.scroll_into_view_if_needed()
        expect(card.locator("dd").first).to_be_visible()
        expect(card.locator(".failed")).to_have_count(0)
        assert card.locator("canvas").count() >= 2
        before = looks(card)
        slider = card.get_by_role("slider")
        slider.fill(slider.get_attribute("max"))
        until(learn, lambda card=card, before=before: looks(card) != before)
        card.locator("summary").click()
        line = card.locator("pre").inner_text()
        assert re.search(
            rf"^curl -s '{service.base_url}/?v1/models/learn\.[a-z0-9-]+/[a-z]+' \\", line
        )
        path = re.search(r"(/v1/models/\S+)'", line)[1]
        body = re.search(r"-d '(.*)'$", line, re.DOTALL)[1]
        answer = service.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 200


def card(page: Page, name: str):
    found = page.locator(f"#exhibit-{name}")
    found.scroll_into_view_if_needed()
    expect(found.locator("dd").first).to_be_visible()
    return found


def test_a_scrambled_or_inverted_shape_passes_the_threshold(learn: Page, service: httpx.Client):
    found = card(learn, "anomaly")
    slider = found.get_by_role("slider")
    for share, alarm in (("0", "no"), ("1", "yes"), ("0", "no")):
        slider.fill(share)
        expect(found.locator("dd").last).to_have_text(alarm)
    score = ask(service, "shapes-plain", "score", rows=[ROWS["square"].tolist()])
    expect(found.locator("dd").first).to_contain_text(f"{score['score'][0]:.2f}"[:3])
    found.get_by_label("Invert").check()
    expect(found.locator("dd").last).to_have_text("yes")


def test_the_linear_planes_coincide(learn: Page):
    found = card(learn, "linear")
    expect(found.locator("dd").first).to_contain_text("0.000°")
    cosines = []
    for angle in range(0, 181, 20):
        found.get_by_role("slider").fill(str(angle))
        expect(found.locator("output")).to_have_text(f"{angle}°")
        learn.wait_for_timeout(150)
        text = found.locator("dd").last.inner_text().split()[0]
        cosines.append(abs(float(re.match(r"[−-]?[\d.]+", text)[0].replace("−", "-"))))
    assert max(cosines) > 0.98
    assert min(cosines) < 0.35


def test_the_wide_code_copies_more_noise(learn: Page):
    found = card(learn, "width")
    narrow, wide = (
        float(re.match(r"[\d.]+", text)[0]) for text in found.locator("dd").all_inner_texts()
    )
    assert wide > 1.5 * narrow


def test_the_best_possible_step_is_the_closed_form(learn: Page, service: httpx.Client):
    """Of a point on the circle with noise s the posterior mean's radius is I1(k) / I0(k)."""
    got = learn.evaluate(
        "import('./console/learn/exhibits.js').then(module => module.bestGuess([0, 1.5], 0.5))"
    )
    angle = (np.arange(20_000) + 0.5) * np.pi / 20_000
    weight = np.exp(1.5 / 0.25 * (np.cos(angle) - 1))
    assert got == pytest.approx([0, float((weight * np.cos(angle)).sum() / weight.sum())], rel=1e-6)


def test_the_curve_of_the_view_is_the_one_that_was_fitted(learn: Page):
    points = np.array(
        learn.evaluate("import('./console/learn/exhibits.js').then(module => module.CURVE)")
    )
    along = (points[:, 0] + points[:, 1]) / np.sqrt(2)
    across = (points[:, 1] - points[:, 0]) / np.sqrt(2)
    np.testing.assert_allclose(across, pictures.BEND * np.sin(np.pi * along), atol=1e-12)


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_sticks_out_of_a_small_screen(visit, width: int):
    page = visit("#/plain/learn", width=width)
    expect(page.locator(".told strong")).to_be_visible()
    for each in page.locator(".exhibit").all():
        each.scroll_into_view_if_needed()
        expect(each.locator("dd").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, scheme: str):
    page = visit("#/plain/learn?mode=variational", scheme=scheme)
    for each in page.locator(".exhibit").all():
        each.scroll_into_view_if_needed()
        expect(each.locator("dd").first).to_be_visible()
    found = Axe().run(page).response["violations"]
    assert [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ] == []


def test_it_is_not_offered_where_its_models_are_not_served(visit, tmp_path):
    with serving(tmp_path, learn=False) as client:
        page = visit("", client=client)
        expect(page.get_by_role("link", name="Map")).to_be_visible()
        expect(page.get_by_role("link", name="Learn")).to_have_count(0)


def test_its_own_code_is_small():
    files = [*(CONSOLE / "learn").iterdir(), CONSOLE / "views" / "learn.js"]
    assert sum(file.stat().st_size for file in files) <= 70_000
