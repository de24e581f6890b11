"""How fast the console is in a real Chromium: python -m tests.benchmarks.console

It starts a service with one model on 127.0.0.1 and prints a table; a missed target is a result, and
the exit status 0.
"""

import argparse
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, sync_playwright

from tests.artifacts import NUMERIC, as_json_rows, make_artifact, publish, sample_rows
from tests.console.timelines import Made, answering
from tests.serving import serving

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
VIEW_SECONDS, VIEW_BYTES, FRAME_SECONDS, DRAG_SECONDS = 1.0, 200_000, 1 / 30, 0.05
LANES = "200 entities x 240 bins and 60 features"

LOADED = """() => {
  const parts = performance.getEntriesByType("resource");
  const [page] = performance.getEntriesByType("navigation");
  const bytes = [page, ...parts].reduce((sum, each) => sum + each.transferSize, 0);
  return [performance.now() / 1000, bytes];
}"""
# frames while an input event comes before each: the median of 60
FRAMES = """async (move) => {
  const act = new Function("i", move);
  const frame = () => new Promise(requestAnimationFrame);
  const times = [];
  let last = await frame();
  for (let i = 0; i < 60; i++) {
    act(i);
    const now = await frame();
    times.push((now - last) / 1000);
    last = now;
  }
  return times.sort((a, b) => a - b)[30];
}"""
SLIDE = """
  const slider = document.getElementById("alpha");
  slider.value = i % (Number(slider.max) + 1);
  slider.dispatchEvent(new Event("input"));
"""
DRAG = """
  const place = document.querySelector(".lanes");
  const box = place.getBoundingClientRect();
  place.dispatchEvent(new PointerEvent("pointermove", {
    pointerId: 1, clientX: box.left + 300 + 12 * i, clientY: box.top + 50,
  }));
"""
HEATMAP = """async () => {
  const { heatmap } = await import("./console/charts/heatmap.js");
  const numbers = (n) => Array.from({ length: n }, (_, i) => i);
  const data = { rows: numbers(500).map(String), columns: numbers(50).map((i) => `f${i}`),
    values: numbers(500).map((n) => numbers(50).map((d) => ((n * 31 + d * 17) % 97) / 97)) };
  const place = document.createElement("div");
  document.querySelector(".view").replaceChildren(place);
  const started = performance.now();
  heatmap(place, data, { name: "Large", steps: [0.1, 0.2, 0.4, 0.6, 0.8, 0.95] });
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  return (performance.now() - started) / 1000;
}"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser("python -m tests.benchmarks.console", description=__doc__)
    command.add_argument("--rounds", type=int, default=5, help="visits; each starts cold")
    return command


def main() -> int:
    rounds = parser().parse_args().rounds
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("chromium is not installed (Debian: apt-get install chromium)", file=sys.stderr)
        return 2
    with TemporaryDirectory() as folder:
        publish(Path(folder), "plain", make_artifact(conditional=True))
        with serving(Path(folder), fast=True) as client, sync_playwright() as playwright:
            rows = as_json_rows(NUMERIC, sample_rows(NUMERIC, 400, seed=7))
            client.post("/v1/models/plain/score", json={"rows": rows}).raise_for_status()
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            found = [measure(browser, str(client.base_url)) for _ in range(rounds)]
            browser.close()
    print(f"| median of {rounds}, cold caches | now | reach |")
    print("| :-- | --: | --: |")
    for what, form, reach in (
        ("first view, until its chart is there", "{:.2f} s", VIEW_SECONDS),
        ("the same: bytes, the service's own and vendored", "{:,.0f}", VIEW_BYTES),
        ("a frame while the budget is dragged", "{:.4f} s", FRAME_SECONDS),
        ("a heatmap of 500 x 50, drawn", "{:.2f} s", None),
        (f"a frame while a span of {LANES} is dragged", "{:.4f} s", DRAG_SECONDS),
    ):
        values = sorted(each[what] for each in found)
        asked = "–" if reach is None else "at most " + form.format(reach)
        print(f"| {what} | {form.format(values[len(values) // 2])} | {asked} |")
    return 0


def measure(browser: Browser, base: str) -> dict[str, float]:
    """One visit with nothing in the cache."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    page.goto(f"{base}/#/plain/budget")
    page.locator("figure svg").first.wait_for()
    seconds, size = page.evaluate(LOADED)
    frame = page.evaluate(FRAMES, SLIDE)
    heatmap = page.evaluate(HEATMAP)
    answering(page, Made(many=200, features=tuple(f"feature {d}" for d in range(60))))
    page.goto(f"{base}/#/plain/time")
    box = page.locator(".lanes").first.bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 50)
    page.mouse.down()
    dragged = page.evaluate(FRAMES, DRAG)
    page.mouse.up()
    context.close()
    return {
        "first view, until its chart is there": seconds,
        "the same: bytes, the service's own and vendored": size,
        "a frame while the budget is dragged": frame,
        "a heatmap of 500 x 50, drawn": heatmap,
        f"a frame while a span of {LANES} is dragged": dragged,
    }


if __name__ == "__main__":
    sys.exit(main())
