"""The report of a model of windows: what it says of time, and how sure it is of rates."""

import html
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser
from scipy.signal import lfilter
from scipy.stats import beta, norm

from hourglass.service.model.detector import Detector
from hourglass.service.serving.store import MODEL_FILE
from hourglass.training.config import load_config
from hourglass.training.errors import RunError
from hourglass.training.evaluate import Rate
from hourglass.training.guarantee import effective_rows, left_out_rates
from hourglass.training.order import Part
from hourglass.training.report.budgets import false_alarm_rate
from hourglass.training.report.card import write_card
from hourglass.training.report.estimates import Placements, Worth, auroc, share
from hourglass.training.report.facts import Facts
from hourglass.training.report.page import write_page
from hourglass.training.report.remake import Rows, remake
from hourglass.training.report.sample import Sample
from hourglass.training.report.scores import halves
from hourglass.training.split import data_of, split_data
from tests.serving import serving
from tests.training import tables
from tests.training.conftest import Outcome
from tests.training.report.conftest import Run, facts_of, jump, plant
from tests.training.report.test_in_a_browser import opened

Command = Callable[..., Outcome]
WINDOW = 8
CHARTS = [
    *("alarms", "scores", "anomalies", "parts", "uniform", "severity", "power", "peers", "map"),
    "learning",
]


def check(facts: Facts, name: str) -> str:
    return next(each.text for each in facts.checks if each.name == name)


class TestWhatRowsAreWorth:
    def test_an_interval_of_rows_that_are_alike_holds_the_rate(self) -> None:
        """Of an autoregressive score and of means over ten rows; taken as drawn singly, the
        interval holds it in half of the cases.
        """
        draw, rows, alpha = np.random.default_rng(0), 1000, 0.05
        run_N = np.repeat(np.arange(5), rows // 5)
        held, singly = 0, 0
        for i in range(200):
            noise = draw.normal(size=rows + 500)
            if i % 2:
                score_N = lfilter([1], [1, -0.9], noise)[500:] * np.sqrt(1 - 0.81)
            else:
                score_N = lfilter(np.ones(10), [1], noise)[500:] / np.sqrt(10)
            alarms = int((score_N > norm.isf(alpha)).sum())
            worth = effective_rows(score_N, run_N) / rows
            assert 0.02 < worth < 0.3
            for told in (share(alarms, rows, worth), share(alarms, rows)):
                assert told.interval
                is_held = told.interval[0] <= alpha <= told.interval[1]
                held, singly = (
                    held + (is_held and told.effective is not None),
                    singly + (is_held and told.effective is None),
                )
        assert held >= 0.95 * 200
        assert singly <= 0.75 * 200

    def test_a_row_that_is_copied_ten_times_is_worth_a_tenth(self) -> None:
        score_N = np.random.default_rng(1).normal(size=2000).repeat(10)
        worth = effective_rows(score_N, np.zeros(20_000, dtype=np.int64)) / 20_000
        assert worth == pytest.approx(0.1, rel=0.15)
        told = share(1000, 20_000, 0.1)
        assert told.value == 0.05
        assert told.interval == pytest.approx(
            (beta.ppf(0.025, 100, 1901), beta.ppf(0.975, 101, 1900)), rel=1e-6
        )
        assert told.say() == "5.0% (95 %: 4.1% to 6.0%, n = 20,000, worth 2,000)"

    def test_the_runs_of_rows_may_come_in_any_order_and_are_no_neighbours(self) -> None:
        draw = np.random.default_rng(2)
        score_N = lfilter([1], [1, -0.9], draw.normal(size=6000))
        run_N = np.repeat(np.arange(3), 2000)
        mixed = np.argsort(np.tile(np.arange(2000), 3), kind="stable")
        expected = effective_rows(score_N, run_N)
        assert effective_rows(score_N[mixed], run_N[mixed]) == pytest.approx(expected)
        assert effective_rows(score_N[mixed], np.zeros(6000, dtype=np.int64)) > 2 * expected

    def test_a_threshold_of_few_windows_is_told_by_a_wide_interval(self) -> None:
        singly, alike = false_alarm_rate(10, 199), false_alarm_rate(10, 199, 0.1)
        assert singly.value == alike.value == 0.05
        assert singly.interval == pytest.approx(
            (beta.ppf(0.025, 10, 190), beta.ppf(0.975, 10, 190))
        )
        assert alike.interval
        assert singly.interval
        assert alike.interval[0] < singly.interval[0]
        assert alike.interval[1] > singly.interval[1]
        assert alike.effective == pytest.approx(19.9)

    def test_the_area_of_two_ranges_is_told_by_two_anomalies(self) -> None:
        draw = np.random.default_rng(3)
        normal_N, anomaly_A = draw.normal(size=500), draw.normal(1, 1, size=40)
        placements = Placements.of(normal_N, anomaly_A)
        singly, alike = auroc(placements), auroc(placements, Worth(2 / 40, 0.1))
        assert singly.value == alike.value
        assert singly.interval
        assert alike.interval
        assert alike.interval[1] - alike.interval[0] > 2 * (singly.interval[1] - singly.interval[0])

    def test_halves_that_are_alike_within_need_more_to_differ(self) -> None:
        failed, naive = 0, 0
        for seed in range(60):
            noise = np.random.default_rng(seed).normal(size=1500)
            score_N = np.exp(lfilter([1], [1, -0.9], noise)[500:]).astype(np.float32)
            worth = effective_rows(score_N, np.zeros(1000, dtype=np.int64)) / 1000
            told, singly = halves(score_N, "order", worth), halves(score_N, "order")
            assert told
            assert singly
            failed, naive = failed + (not told.passed), naive + (not singly.passed)
        assert failed <= 3
        assert naive >= 20


class TestOfARun:
    def test_every_row_is_accounted_for_by_what_it_is_for(self, windows: Run) -> None:
        timeline, report = windows.facts.timeline, windows.report
        assert timeline
        kinds = {each.kind: each.rows for each in timeline.rows}
        assert sum(kinds.values()) == 1800
        assert kinds["not normal: labelled, excluded or left out"] == 40
        assert kinds["warming: fewer than 7 rows before it since a beginning or a gap"] == 3 * 7
        assert kinds["end a window that fits"] == report.fit_rows
        assert kinds["end a window for early stopping"] == report.validation_rows
        assert kinds["end a window that calibrates"] == report.calibration_rows == timeline.held_out
        assert kinds["too few values, or a window with a row that is not normal"] == 2 * 7

    def test_time_and_entities_are_told_within_each_entity(self, windows: Run) -> None:
        timeline = windows.facts.timeline
        assert timeline
        assert (timeline.time.column, timeline.entity, timeline.entities) == ("at", "machine", 2)
        assert (timeline.time.step, timeline.gap, timeline.breaks) == (60.0, 600.0, 1)
        # the hour, and the row after the one that came a minute early
        assert (timeline.time.gaps, timeline.time.repeated) == (2, 1)
        assert timeline.unsorted > 500
        assert windows.report.time == timeline.time

    def test_rates_are_by_block_of_time_and_by_entity_and_the_worst_is_said(
        self, windows: Run
    ) -> None:
        facts, timeline = windows.facts, windows.facts.timeline
        assert timeline
        config = load_config(windows.folder / "run.toml", {})
        prepared = split_data(data_of(pl.read_parquet(windows.data), config), config)
        ordered = prepared.ordered
        assert ordered is not None
        detector = Detector.from_bytes((windows.folder / MODEL_FILE).read_bytes())
        calibrating = ordered.windows_of(Part.CALIBRATION)
        score_N = Sample(detector, ordered.rows_NF, ordered.row_M[calibrating]).score().score
        expected = left_out_rates(prepared, score_N, facts.alpha)
        assert [each.left_out for each in timeline.blocks] == pytest.approx(expected)
        assert timeline.worst
        assert timeline.worst.left_out == max(expected)
        quality, rows = windows.report.quality, [each.alarms.rate.n for each in timeline.blocks]
        assert quality
        assert quality.false_alarm_rate == pytest.approx(np.average(expected, weights=rows))
        as_much = Rate.of(quality.false_alarm_rate * timeline.effective, timeline.effective)
        assert quality.false_alarm_interval == pytest.approx(as_much.interval)
        assert timeline.effective == pytest.approx(
            effective_rows(score_N, ordered.runs_of(calibrating))
        )
        told = f"which tell as much as {timeline.effective:.0f} rows that come in no order"
        assert told in facts.guarantee_reason
        assert f"worth {timeline.effective:,.0f} rows" in check(facts, "Calibration rows")
        assert facts.scores.blocks_of == "machine"
        assert [each.name for each in facts.scores.blocks] == ["m0", "m1"]
        assert [each.name for each in facts.scores.parts] == [each.name for each in timeline.blocks]
        assert sum(each.rate.n for each in facts.scores.parts) == len(calibrating)
        assert re.fullmatch(
            r"2023-11-1\d \d\d:\d\d to 2023-11-1\d \d\d:\d\d", timeline.blocks[0].name
        )

    def test_the_bins_of_time_know_where_windows_are_held_out(self, windows: Run) -> None:
        assert windows.facts.timeline
        bins = windows.facts.timeline.bins
        assert len(bins.time) == len(bins.median) == len(bins.highest) == len(bins.held_out)
        assert 0.1 < np.mean(bins.held_out) < 0.25
        starts = np.diff([False, *bins.held_out]).nonzero()[0]
        assert len(starts) >= 4
        highest = [each for each in bins.highest if each is not None]
        assert max(highest) > bins.threshold
        assert all(m <= h for m, h in zip(bins.median, bins.highest, strict=True) if m is not None)

    def test_the_window_that_nobody_labelled_is_named_with_its_time_and_the_feature(
        self, windows: Run
    ) -> None:
        strangest = windows.facts.strangest
        first = strangest.windows[0]
        table = pl.read_parquet(windows.data).with_row_index("row", offset=1)
        own = table.filter(pl.col("machine") == "m1").sort("at")
        jumped = own["row"][500:509].to_list()
        assert first.row in jumped
        assert (first.entity, first.alarms) == ("m1", True)
        # 1.7e9 is 22:13:20 of the day before
        assert first.time.startswith("2023-11-15 06:")
        assert first.blamed[0].feature == "a"
        assert first.blamed[0].share > 0.5
        assert first.is_for in ("fitting", "early stopping", "calibration", "nothing (a gap)")
        assert strangest.of_windows == windows.facts.timeline.windows
        assert strangest.rows == ()
        rows = [each.row for each in strangest.windows]
        assert len(set(rows) & set(jumped)) <= 2  # windows that share no row

    def test_power_is_of_the_last_row_and_of_what_lasts(self, windows: Run) -> None:
        power = windows.facts.power
        assert power
        assert (power.window, power.lasting_rows) == (WINDOW, 2)
        rates = {
            each.feature: {found.fault: found.alarms.value for found in each.faults}
            for each in power.features
        }
        assert rates["a"]["shifted by 8 sd"] == 1
        # another's value is far from what the rows before let expect, of a sensor that has a memory
        assert rates["a"]["another row's value"] > 3 * rates["alone"]["another row's value"]
        assert "4 sd, 2 rows" in rates["b"]
        assert any("for 2 rows" in each or "alone" in each for each in power.cannot_see)
        assert power.cannot_see[-1].startswith("An answer looks at 8 rows")

    def test_labelled_rows_are_counted_by_the_ranges_that_they_make(self, windows: Run) -> None:
        labelled, peers = windows.facts.labelled, windows.facts.peers
        assert labelled
        assert labelled.ranges
        assert (labelled.anomalies, labelled.ranges.n, labelled.ranges.value) == (40, 2, 1.0)
        assert labelled.detection.effective == pytest.approx(2)
        assert labelled.auroc.value is not None
        assert labelled.auroc.value > 0.95
        assert peers.ranges == 2
        assert {each.name for each in peers.methods} >= {"kNN, the row alone", "kNN, last 8 rows"}
        # of two ranges nobody can say that they are at chance, nor that the model is worth it
        assert peers.answer == "not told apart"
        assert check(windows.facts, "Scores tell rows apart").count("AUROC") == 1

    def test_the_page_and_the_card_have_what_the_facts_have(self, windows: Run) -> None:
        page, card = write_page(windows.facts), write_card(windows.facts)
        assert (windows.folder / "report.html").read_text() == page
        assert (windows.folder / "card.md").read_text() == card
        assert len(page.encode()) < 1_000_000
        contents = [
            html.unescape(name) for name in re.findall(r'<li><a href="#\w+">([^<]+)</a>', page)
        ]
        assert contents[2:4] == ["Scores of held-out windows", "Time and entities"]
        assert "The strangest windows" in contents
        timeline = windows.facts.timeline
        assert timeline
        assert f"The worst block, {timeline.worst.name}, alarms at" in page
        assert "An answer looks at 8 rows of 2 entities (machine) in the order of at" in page
        for words in ("held-out rows by", "Each row is judged by itself", "clean held-out rows"):
            assert words not in page
        assert f"held-out windows tell as much as {timeline.effective:,.0f} that" in card
        assert windows.report.summary == windows.facts.verdict.text

    def test_what_of_rows_and_entities_is_in_the_files_is_said(self, windows: Run) -> None:
        said = " ".join(each.what for each in windows.facts.privacy)
        assert "times of 10 strange windows, and whose they are" in said
        assert "entities by name" in said

    def test_no_cell_of_a_strange_window_is_in_the_report(self, windows: Run) -> None:
        text = (windows.folder / "report.json").read_text()
        table = pl.read_parquet(windows.data)
        for each in windows.facts.strangest.windows:
            for value in table.select("a", "b", "alone").row(each.row - 1):
                column = next(c for c in windows.facts.data.columns if c.name == "alone")
                # a jump is of whole numbers, which stand everywhere
                if value not in (column.minimum, column.maximum, 4.0, -4.0):
                    assert f"{value:.6g}" not in text


class TestMadeAnew:
    def test_new_rows_are_told_by_time_and_entity_with_what_they_are_worth(
        self, windows: Run, tmp_path: Path
    ) -> None:
        new = jump(plant(500, seed=7, start=1.8e9), "m1", range(200, 210), 1)
        data = tables.write(new.sample(fraction=1.0, shuffle=True, seed=2), tmp_path / "new.csv")
        facts = remake(
            windows.folder / MODEL_FILE, Rows(data, label="fault", time="at", entity="machine")
        )
        timeline = facts.timeline
        assert timeline
        # each machine warms for 7 rows, and a labelled row spoils the 7 windows after it
        assert timeline.held_out == 1000 - 2 * 7 - 10 - 7
        assert (
            facts.rows
            == f"{timeline.held_out} normal windows of new.csv, that are new to the model"
        )
        assert len(timeline.blocks) == 10
        assert all(each.left_out is None for each in timeline.blocks)
        assert sum(each.rate.n for each in facts.scores.parts) == timeline.held_out
        assert [each.name for each in facts.scores.blocks] == ["m0", "m1"]
        alarms = facts.scores.alarms
        assert alarms.effective == pytest.approx(timeline.effective)
        assert alarms.effective < timeline.held_out / 1.5
        assert alarms.interval
        assert alarms.interval[0] <= facts.alpha
        assert facts.labelled
        assert facts.labelled.ranges
        assert (facts.labelled.ranges.n, facts.labelled.ranges.value) == (1, 1.0)
        assert windows.facts.timeline
        assert timeline.calibration_effective == pytest.approx(windows.facts.timeline.effective)
        assert (facts.budgets.rows_per_day_is, facts.budgets.rows_per_day) == (
            "observed",
            pytest.approx(2 * 1440, rel=0.01),
        )
        assert timeline.drift
        assert timeline.drift.passed
        assert facts.scores.uniform
        assert facts.scores.uniform.against == windows.report.calibration_rows

    def test_drift_of_the_later_rows_is_seen_and_told_by_feature(
        self, windows: Run, tmp_path: Path
    ) -> None:
        moving = plant(500, seed=8, start=1.8e9).with_columns(
            alone=pl.col("alone") + pl.int_range(pl.len()).over("machine") / 50
        )
        data = tables.write(moving, tmp_path / "moving.csv")
        facts = remake(windows.folder / MODEL_FILE, Rows(data, time="at", entity="machine"))
        timeline = facts.timeline
        assert timeline
        assert timeline.drift
        assert not timeline.drift.passed
        assert "the later half of the held-out windows" in timeline.drift.text
        assert timeline.moved[0].feature == "alone"
        assert timeline.moved[0].mean > 1.5
        assert timeline.earlier.rate.value is not None
        assert timeline.later.rate.value is not None
        assert timeline.later.rate.value > timeline.earlier.rate.value + 0.3
        assert timeline.worst
        assert timeline.worst.rate > timeline.blocks[0].rate + 0.5
        assert {each.name: each.status for each in facts.checks}["Uniform p-values"] == "warn"
        assert "p-values are not uniform" in check(facts, "Uniform p-values")

    def test_rows_that_made_the_model_are_not_called_new(self, windows: Run) -> None:
        facts = remake(
            windows.folder / MODEL_FILE,
            Rows(windows.data, label="fault", time="at", entity="machine"),
        )
        assert facts.seen == pytest.approx(1.0, abs=0.05)
        assert "some of which may have made the model" in facts.rows

    def test_it_says_what_to_pass(
        self, windows: Run, contaminated: Run, command: Command, tmp_path: Path
    ) -> None:
        outcome = command("report", windows.folder, windows.data)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert "windows of 8 rows in order of time; --time COLUMN names their time" in outcome.err
        outcome = command("report", windows.folder, windows.data, "--time", "when")
        assert "there is no column 'when'" in outcome.err
        with pytest.raises(RunError, match="this one judges single rows; --group site tells"):
            remake(contaminated.folder / MODEL_FILE, Rows(windows.data, entity="site"))
        short = tables.write(plant(5, seed=9), tmp_path / "short.csv")
        outcome = command("report", windows.folder, short, "--time", "at", "--entity", "machine")
        assert outcome.code == 2
        assert "enough values to be scored and 7 normal rows before it, got none" in outcome.err

    def test_the_command_writes_page_card_and_facts(
        self, windows: Run, command: Command, tmp_path: Path
    ) -> None:
        data = tables.write(plant(200, seed=10, start=1.8e9), tmp_path / "new.csv")
        done = command(
            "report", windows.folder, data, "--time", "at", "--entity", "machine", "--output", tmp_path / "here"
        )  # fmt: skip
        assert (done.code, done.err) == (0, "")
        assert facts_of(tmp_path / "here").timeline
        assert "## In time" in (tmp_path / "here" / "card.md").read_text()


@pytest.mark.slow
class TestInABrowser:
    def test_every_chart_is_drawn_offline(self, windows: Run, browser: Browser) -> None:
        with opened(browser, (windows.folder / "report.html").as_uri(), offline=True) as page:
            drawn = page.eval_on_selector_all(
                "[data-chart]",
                "all => all.filter(each => each.querySelector('svg')).map(each => each.dataset.chart)",
            )
            assert drawn == CHARTS
            blocks = page.locator("[data-chart=severity] svg rect.band").count()
            assert 4 <= blocks <= 10

    @pytest.mark.parametrize("width", [360, 1100])
    def test_it_fits_its_width(self, windows: Run, browser: Browser, width: int) -> None:
        url = (windows.folder / "report.html").as_uri()
        with opened(browser, url, viewport={"width": width, "height": 800}) as page:
            assert page.evaluate("document.documentElement.scrollWidth") == width

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_axe_finds_nothing_serious(self, windows: Run, browser: Browser, scheme: str) -> None:
        url = (windows.folder / "report.html").as_uri()
        with opened(browser, url, color_scheme=scheme) as page:
            page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            found = Axe().run(page).response["violations"]
        assert [
            (each["id"], [node["html"] for node in each["nodes"]][:3])
            for each in found
            if each["impact"] in ("serious", "critical")
        ] == []

    def test_the_service_gives_it_and_the_snippets_run(
        self, windows: Run, browser: Browser
    ) -> None:
        with serving(windows.folder.parents[1]) as client:
            (version,) = client.get("/v1/models/plant/versions").json()["versions"]
            assert version["report"] is True
            facts = client.get("/v1/models/plant/report", params={"format": "json"}).json()
            assert facts["timeline"]["window"] == WINDOW
            with opened(browser, str(client.base_url.join("/v1/models/plant/report"))) as page:
                assert page.locator("[data-chart=severity] svg").count() == 1
            here = str(client.base_url).rstrip("/")
            ran = []
            for snippet in windows.facts.snippets:
                text = snippet.text.replace("http://127.0.0.1:8000", here)
                if snippet.language == "promql":
                    continue
                call = (
                    ["bash", "-ec", text]
                    if snippet.language == "sh"
                    else [sys.executable, "-c", text]
                )
                done = subprocess.run(call, capture_output=True, text=True, check=True)
                if snippet.language == "sh":
                    answer = msgspec.json.decode(done.stdout)
                    assert answer.get("model", answer.get("model_name")) == "plant", answer
                else:
                    assert re.fullmatch(r"(True|False) [\d.]+\n", done.stdout)
                ran.append(snippet.title)
        assert "Send the next row of an entity to its stream" in ran
        assert len(ran) == 5
