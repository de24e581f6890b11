"""The console of a service that asks for keys."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from hourglass.service.keys.file import add_key, remove_keys
from tests.console.conftest import plain_rows, write_csv
from tests.serving import serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def locked(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, dict[str, str]]]:
    """A client of a service that asks for keys, and keys of it by name."""
    path = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    keys = {
        "all": add_key(path, "all", ["score", "read", "admin"]),
        "reader": add_key(path, "reader", ["read"]),
    }
    with serving(folder, keys=path, poll_seconds=0.1) as client:
        client.path = path
        yield client, keys


@pytest.fixture
def tab(
    browser: Browser, locked: tuple[httpx.Client, dict[str, str]]
) -> Iterator[Callable[[str], Page]]:
    """Opens a page in a context of its own; no page may throw."""
    contexts, errors = [], []

    def open_page(path: str) -> Page:
        contexts.append(browser.new_context())
        page = contexts[-1].new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{locked[0].base_url}/{path}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


def unlock(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use it").click()


def test_a_key_is_asked_for_kept_in_the_tab_and_in_no_address(tab, locked):
    client, keys = locked
    page = tab("#/plain/models")
    expect(page.locator("h1")).to_have_text("This service asks for a key")
    asked = []
    page.on("request", lambda request: asked.append((request.url, request.headers)))
    unlock(page, "hourglass_00000000_" + "0" * 64)
    expect(page.get_by_role("alert")).to_contain_text("one that is not known here")
    unlock(page, keys["all"])
    expect(page.locator("h1")).to_have_text("Which version of plain is in service?")
    page.goto(f"{client.base_url}/#/plain/budget")
    expect(page.get_by_role("slider").first).to_be_visible()
    page.reload()
    expect(page.get_by_role("slider").first).to_be_visible()
    assert not [url for url, _ in asked if "hourglass_" in url]
    assert {headers.get("authorization") for url, headers in asked if "/v1/" in url} >= {
        f"Bearer {keys['all']}"
    }
    assert not [headers for _, headers in asked if "cookie" in headers]
    assert keys["all"] not in page.url
    assert page.evaluate("Object.keys(localStorage)") == []
    other = page.context.new_page()  # another tab
    other.goto(f"{client.base_url}/#/plain/models")
    expect(other.locator("h1")).to_have_text("This service asks for a key")
    page.get_by_role("button", name="Forget the key").click()
    expect(page.locator("h1")).to_have_text("This service asks for a key")


def test_workers_pictures_reports_and_curl_lines_bring_the_key(tab, locked, tmp_path):
    client, keys = locked
    page = tab("#/reported/models")
    unlock(page, keys["all"])
    page.get_by_role("button", name="Report", exact=True).click()
    expect(page.frame_locator("iframe").locator("h1")).to_have_text("Fit well")
    with page.expect_popup() as opened:
        page.get_by_role("button", name="In a window of its own").click()
    expect(opened.value.locator("h1")).to_have_text("Fit well")
    assert keys["all"] not in opened.value.url
    page.goto(f"{client.base_url}/#/plain/budget")
    file = write_csv(tmp_path / "rows.csv", plain_rows(50))
    page.locator("input[type=file]").set_input_files(file)
    expect(page.get_by_text("of 50 rows").or_(page.get_by_text("50 rows")).first).to_be_visible()
    page.goto(f"{client.base_url}/#/plain/explain")
    page.get_by_role("button", name="Example row").click()
    page.get_by_role("button", name="Explain", exact=True).click()
    line = page.locator("pre").filter(has_text="curl")
    expect(line.first).to_contain_text('"authorization: Bearer $HOURGLASS_KEY"')
    assert keys["all"] not in page.content()
    page.goto(f"{client.base_url}/#/-/learn")
    expect(page.locator("h1 span")).not_to_have_text("…")
    expect(page.locator(".failed")).to_have_count(0)


def test_what_a_key_does_not_open_is_said_and_a_key_that_is_void_is_asked_for_anew(tab, locked):
    client, keys = locked
    page = tab("#/two/models")
    unlock(page, keys["reader"])
    page.get_by_role("button", name="Promote").or_(
        page.get_by_role("button", name="Roll back")
    ).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("The model's name").fill("two")
    dialog.locator("button.main").click()
    expect(dialog.get_by_role("alert")).to_contain_text("expected a key with the scope admin")
    dialog.get_by_role("button", name="Cancel").click()
    remove_keys(client.path, "reader", id=None)
    expect(page.locator("h1")).to_have_text("This service asks for a key")
    expect(page.get_by_role("alert")).to_contain_text("not known here")
