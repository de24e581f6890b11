"""What a report says of rows whose truth is known."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from hourglass.service.model.calibration import build_table
from hourglass.training.config import load_config
from hourglass.training.data import prepare
from hourglass.training.report import Report
from hourglass.training.report.budgets import budgets_of
from hourglass.training.report.checks import (
    computes_alike,
    has_calibration_rows,
    has_no_odd_columns,
    is_exchangeable,
)
from hourglass.training.report.columns import columns_of
from hourglass.training.report.facts import Facts
from hourglass.training.report.material import block_names, rows_a_day
from hourglass.training.report.scores import LEVEL, halves, largest_distance
from hourglass.training.run import run
from hourglass.training.split import data_of, split_data
from hourglass.training.verify import Difference
from tests.training import tables
from tests.training.conftest import Published
from tests.training.report.conftest import ODD, Run, facts_of
from tests.training.stages import prepare_rows


def status(facts: Facts, name: str) -> str:
    return next(check.status for check in facts.checks if check.name == name)


class TestOfAContaminatedSet:
    def test_the_suspects_are_listed_and_warned_of(self, contaminated: Run) -> None:
        facts = contaminated.facts
        assert status(facts, "Suspects among the rows") == "warn"
        assert {each.row for each in facts.strangest.rows} <= set(ODD)
        # some of them lie near the middle, and are far from nobody
        assert len({row for _, _, row in facts.map.suspects} & set(ODD)) >= 12
        assert facts.verdict.status == "warn"
        assert "suspects among the rows" in facts.verdict.text
        assert contaminated.report.summary == facts.verdict.text

    def test_a_feature_that_no_other_tells_of_is_named_as_unseen(self, contaminated: Run) -> None:
        power = contaminated.facts.power
        assert power
        (sentence,) = (each for each in power.cannot_see if "usual range" in each)
        assert sentence.startswith("A wrong value of alone that lies within its usual range")
        swapped = {
            each.feature: next(found.alarms for found in each.faults if found.kind == "swap")
            for each in power.features
        }
        assert swapped["alone"].interval
        assert swapped["alone"].interval[1] < 0.25
        assert power.clean.n == 75

    def test_a_larger_shift_is_seen_no_less_often(self, contaminated: Run) -> None:
        power = contaminated.facts.power
        assert power
        for feature in power.features:
            found = [each.alarms.value or 0 for each in feature.faults if each.size]
            assert found == sorted(found)
            assert found[-1] == 1

    def test_without_labels_nobody_knows_whether_the_network_is_worth_it(
        self, contaminated: Run
    ) -> None:
        peers = contaminated.facts.peers
        assert (peers.answer, peers.methods) == ("unknown without labels", ())
        assert contaminated.facts.labelled is None
        assert "what it finds is unknown without labels" in contaminated.facts.verdict.text

    def test_no_cell_of_a_strange_row_is_in_any_of_the_files(self, contaminated: Run) -> None:
        table = pl.read_csv(contaminated.data).drop("at")
        texts = [
            (contaminated.folder / name).read_text()
            for name in ("report.json", "report.html", "card.md", "suspects.csv")
        ]
        extremes = {table[name].min() for name in table.columns}
        extremes |= {table[name].max() for name in table.columns}
        told = [
            value
            for row in ODD
            for value in table.row(row - 1)
            if value not in extremes and any(f"{value:.5g}" in text for text in texts)
        ]
        assert told == []


class TestOfALabelledSet:
    def test_the_other_methods_are_judged_on_the_same_rows(self, published: Published) -> None:
        peers = facts_of(published.folder).peers
        names = [each.name for each in peers.methods]
        assert names == ["this model", "PCA", "Mahalanobis", "kNN", "isolation forest"]
        assert (peers.normal_rows, peers.anomalies) == (59, 20)
        assert {each.auroc.n for each in peers.methods} == {79}
        quality = published.report.quality
        assert quality
        assert peers.methods[0].auroc.value == pytest.approx(quality.auroc)
        assert peers.methods[0].average_precision == pytest.approx(quality.average_precision)
        assert peers.answer in ("yes", "no", "not told apart")

    def test_the_budgets_are_those_of_the_table(self, published: Published) -> None:
        facts, table = facts_of(published.folder), published.detector.table
        in_force = next(each for each in facts.budgets.alphas if each.in_force)
        assert (in_force.alpha, in_force.threshold) == (0.2, published.report.threshold)
        assert in_force.false_alarm_rate
        assert in_force.false_alarm_rate.value == published.report.expected_false_alarm_rate
        for budget in facts.budgets.alphas:
            if budget.refusal is None and not budget.in_force:
                expected = table.threshold(budget.alpha, facts.delta)
                assert budget.threshold == expected.score
        assert "it needs at least" in (facts.budgets.alphas[0].refusal or "")

    def test_all_rows_and_columns_are_accounted_for(self, published: Published) -> None:
        facts = facts_of(published.folder)
        columns = {each.name: each for each in facts.data.columns}
        normal = published.table.filter(pl.col("fault") == 0)
        assert {name: each.missing for name, each in columns.items()} == {
            name: normal[name].null_count() for name in columns
        }
        assert columns["load"].minimum == np.float32(normal["load"].min())
        kinds = {each.kind for each in facts.data.odd}
        assert kinds >= {"constant", "empty"}
        assert status(facts, "Constant columns") == "warn"
        assert (facts.data.rows, facts.data.anomalies) == (300, 20)

    def test_the_facts_stand_beside_the_figures_of_the_run(self, published: Published) -> None:
        data = (published.folder / "report.json").read_bytes()
        assert msgspec.json.decode(data, type=Report) == published.report
        sections = msgspec.json.decode(data)
        assert sections["map"]["axes"] == ["component 1", "component 2"]
        assert len(sections["map"]["held_out"]) == 59 == len(sections["map"]["severity"])
        assert sections["origin"]["version"] == published.detector.version
        assert sections["origin"]["run_toml"] == (published.folder / "run.toml").read_text()
        assert len(sections["learning"][0]["epoch"]) <= 200

    def test_a_code_is_put_on_the_map_by_the_projection(self, published: Published) -> None:
        plane = facts_of(published.folder).map
        codes = published.detector.encode(prepare_rows(published.config).split.calibration_ND)
        points = (codes - np.array(plane.projection.mean)) @ np.array(plane.projection.components).T
        apart = np.linalg.norm(np.array(plane.held_out)[:, None] - points, axis=2)
        assert apart.min(axis=1).max() < 1e-3
        assert len(set(apart.argmin(axis=1).tolist())) == 59


class TestUniformPValues:
    def test_exchangeable_rows_pass_but_for_the_level(self) -> None:
        rng = np.random.default_rng(0)
        found = [halves(rng.gamma(2, size=200).astype(np.float32), "order") for _ in range(300)]
        failed = sum(not each.passed for each in found if each)
        assert failed / 300 <= 3 * LEVEL
        assert all(each.n == each.against == 100 for each in found if each)

    def test_rows_that_drift_fail(self) -> None:
        score_N = np.random.default_rng(1).gamma(2, size=200) * np.linspace(1, 3, 200)
        found = halves(score_N.astype(np.float32), "the order of at")
        assert found
        assert not found.passed
        assert "p-values are not uniform: the later half" in found.text
        assert found.counts[0] > found.band[1]

    def test_too_few_rows_are_not_asked(self) -> None:
        assert halves(np.arange(19, dtype=np.float32), "order") is None

    def test_the_distance_is_that_of_kolmogorov_and_smirnov(self) -> None:
        table = build_table(np.arange(1, 10, dtype=np.float32))
        assert largest_distance(np.full(50, 1.0), table) == pytest.approx(0.9)
        levels = table.p_values.astype(np.float64)
        assert largest_distance(levels, table) == pytest.approx(0.0, abs=1e-6)


class TestChecks:
    def test_parity_is_told_by_the_worst_output(self) -> None:
        found = (Difference("score", 0, 1, 1, 0.2), Difference("latent", 3, 1, 2, 1.7))
        check = computes_alike(found)
        assert check.status == "fail"
        assert "1.7 of what is allowed at most (latent" in check.text
        assert computes_alike(found[:1]).status == "pass"

    def test_calibration_rows_pass_where_they_certify(self, published: Published) -> None:
        threshold = published.detector.threshold
        assert has_calibration_rows(59, threshold, "certified").status == "pass"
        assert has_calibration_rows(59, threshold, "none").status == "warn"
        assert has_calibration_rows(13, threshold, "marginal").status == "fail"

    def test_a_guarantee_of_nothing_never_passes(self, published: Published) -> None:
        tests = published.report.exchangeability
        assert is_exchangeable("certified", "", tests).status == "pass"
        assert is_exchangeable("none", "3 rows were left out", tests).status == "warn"
        assert is_exchangeable("none", "not tested", None).status == "fail"

    def test_each_odd_column_is_found_by_its_check(self) -> None:
        rng = np.random.default_rng(0)
        labels = np.repeat([0, 1], [180, 20])
        frame = pl.DataFrame(
            {
                "usual": rng.normal(size=200),
                "copy": labels * 3,
                "nearly": labels * 10 + rng.normal(size=200),
                "row_id": rng.permutation(np.arange(10_000, 10_200)),
                "gauge": np.where(rng.random(200) < 0.05, -999.0, rng.normal(size=200)),
                "same": np.full(200, 4.0),
                "fault": labels,
            }
        ).sample(fraction=1.0, shuffle=True, seed=0)
        data = prepare(frame, label="fault")
        columns = columns_of(
            data.features, data.normal_ND, data.anomalies_AD, dropped=0, copies=0,
            oddities=data.oddities, warnings=data.warnings, seed=0,
        )  # fmt: skip
        found = {each.name: (each.status, each.text) for each in has_no_odd_columns(columns)}
        assert [status for status, _ in found.values()] == ["warn"] * 4
        for name, column in (
            ("Leaking columns", "copy"), ("Leaking columns", "nearly"), ("Constant columns", "same"),
            ("Id-like columns", "row_id"), ("Sentinel values", "gauge"),
        ):  # fmt: skip
            assert column in found[name][1]
        assert "usual" not in "".join(text for _, text in found.values())


def test_a_run_gives_the_same_model_with_and_without_a_report(
    contaminated: Run, tmp_path: Path
) -> None:
    again = load_config(
        contaminated.folder / "run.toml", {"models": str(tmp_path), "report": False}
    )
    report = run(again)
    assert report.version == contaminated.report.version
    names = {path.name for path in Path(report.path).parent.iterdir()}
    assert not names & {"report.html", "card.md"}
    sections = msgspec.json.decode(Path(report.path).with_name("report.json").read_bytes())
    assert "checks" not in sections
    assert report.summary is None


def test_rows_a_day_are_observed_by_the_time_or_given(published: Published) -> None:
    minutes_N = np.arange(300) * 60 + 1.7e9
    assert rows_a_day(None, minutes_N) == (pytest.approx(1440), "observed")
    assert rows_a_day(50.0, minutes_N) == (50.0, "given")
    assert rows_a_day(None, np.arange(300.0)) == (None, "unknown")  # numbers, but no seconds
    assert rows_a_day(None, None) == (None, "unknown")
    detector = published.detector
    told = budgets_of(
        detector, detector.threshold, rows_per_day=50.0, rows_per_day_is="given", detection=None
    )
    budget = next(each for each in told.alphas if each.in_force)
    assert budget.false_alarm_rate
    assert budget.false_alarm_rate.value
    assert budget.false_alarm_rate.interval
    low, high = budget.false_alarm_rate.interval
    expected = (50 * budget.false_alarm_rate.value, 50 * low, 50 * high)
    assert budget.false_alarms_per_day == pytest.approx(expected)
    assert all(each.precision_found is None for each in told.ceilings)


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ({"time": "at", "window": 1}, "2023-11-14 23:01 to 2023-11-14 23:11"),
        ({"group": "machine"}, "machine m3"),
    ],
)
def test_blocks_are_named_by_their_time_or_their_groups(
    tmp_path: Path, asked: dict[str, Any], first: str
) -> None:
    table = pl.DataFrame(tables.correlated(300), schema=["a", "b", "c", "d"]).with_columns(
        at=pl.Series(np.arange(300) * 60 + 1.7e9),
        machine=pl.Series([f"m{i % 6}" for i in range(300)]),
    )
    ignored = {"at", "machine"} - set(asked.values())
    flags = {"data": "t.csv", "name": "pump", "ignore": tuple(ignored), **asked}
    config = load_config(None, {**flags, "variant": "linear", "folds": 0})
    prepared = split_data(data_of(table, config), config)
    names = block_names(prepared, config)
    assert prepared.block_N is not None
    assert len(names) == prepared.block_N.max() + 1
    assert names[0] == first
