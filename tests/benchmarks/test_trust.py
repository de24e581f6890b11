"""The harness itself, on made-up rows and a made-up product: what it splits, changes, keeps and
tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.trust import (
    changed_cells,
    contamination,
    demo,
    hard_columns,
    product,
    rows,
    severity,
    shuffled,
)
from tests.benchmarks.trust.__main__ import main
from tests.benchmarks.trust.product import Blame, Floats, Integers, Refused
from tests.benchmarks.trust.protocol import (
    Case,
    Outcome,
    Skipped,
    at_least,
    at_most,
    over_cases,
    over_sets,
)
from tests.benchmarks.trust.protocols import PROTOCOLS
from tests.benchmarks.trust.schedule import perform, read_outcomes
from tests.benchmarks.trust.series import read


@dataclass
class Farthest:
    """A product that scores a row by its farthest cell, and knows each column's mean."""

    held_out_ND: Floats
    alpha: float = 0.05
    guarantee: str = "certified"
    warnings: tuple[str, ...] = ()
    suspects: Integers | None = None

    @property
    def n(self) -> int:
        return len(self.held_out_ND)

    def threshold(self, alpha: float | None = None) -> float:
        return rows.oracle(self.scores(self.held_out_ND), alpha or self.alpha)

    def scores(self, rows_ND: Floats) -> Floats:
        return self._distances(rows_ND).max(axis=1)

    def p_values(self, rows_ND: Floats) -> Floats:
        held_out_N = self.scores(self.held_out_ND)
        above_N = (held_out_N[None] >= self.scores(rows_ND)[:, None]).sum(axis=1)
        return (1 + above_N) / (self.n + 1)

    def severities(self, rows_ND: Floats) -> Floats | None:
        return None

    def explain(self, rows_ND: Floats) -> Blame:
        order_ND = np.argsort(-self._distances(rows_ND), axis=1)
        return Blame(order_ND, np.broadcast_to(self.held_out_ND.mean(axis=0), rows_ND.shape))

    def fill(self, rows_ND: Floats) -> Floats:
        return np.where(np.isnan(rows_ND), self.held_out_ND.mean(axis=0), rows_ND)

    def _distances(self, rows_ND: Floats) -> Floats:
        mean_D, sd_D = self.held_out_ND.mean(axis=0), self.held_out_ND.std(axis=0)
        distance_ND = np.abs(rows_ND - mean_D) / np.where(sd_D > 0, sd_D, 1.0)
        return np.nan_to_num(distance_ND, nan=0.0)


def farthest(
    rows_ND: Floats,
    *,
    preset: str,
    seed: int,
    alpha: float | None = None,
    contamination: float = 0.0,
    split_seed: int | None = None,
) -> Farthest:
    if contamination:
        raise Refused("no --contamination")
    return Farthest(rows_ND, alpha or 0.05)


def write_set(path: Path, *, drift: float = 0.0, normal: int = 1400, anomalies: int = 60) -> Path:
    """Numbers around 0 whose mean moves by `drift` from the first to the last row."""
    random = np.random.default_rng(0)
    x_ND = random.normal(size=(normal + anomalies, 3))
    x_ND[:normal] += np.linspace(0, drift, normal)[:, None]
    x_ND[normal:] *= 6
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, X=x_ND.astype(np.float32), y=np.arange(len(x_ND)) >= normal)
    return path


def case(protocol: str, path: Path | str = "", seed: int = 0) -> Case:
    return Case(protocol=protocol, set=Path(path).stem, seed=seed, path=str(path))


def figures(protocol: str, path: Path | str = "", fit: product.Fit = farthest) -> dict:
    outcome = perform(case(protocol, path), fit)
    assert outcome.failure is None
    assert outcome.skipped is None
    return outcome.figures


def told(protocol: str, *outcomes: Outcome) -> dict[str, tuple[str, bool | None]]:
    return {line.what: (line.now, line.met) for line in PROTOCOLS[protocol].lines(outcomes)}


def test_rows_in_order_are_the_first_half_and_the_second(tmp_path: Path) -> None:
    x_N = np.arange(50_000, dtype=np.float32)
    np.savez(tmp_path / "numbered.npz", X=x_N[:, None], y=x_N % 5 == 0)
    fit_ND, fresh_ND, anomalies_ND = rows.in_order(case("order", tmp_path / "numbered.npz"))
    assert (len(fit_ND), len(fresh_ND), len(anomalies_ND)) == (10_000, 20_000, 10_000)
    assert (fit_ND[0, 0], fit_ND[-1, 0]) == (1, 24_999)
    assert (fresh_ND[0, 0], fresh_ND[-1, 0]) == (25_001, 49_999)
    assert (np.diff(fit_ND[:, 0]) > 0).all()


def test_a_draw_has_the_rows_asked_for_and_the_rest_is_fresh(tmp_path: Path) -> None:
    path = write_set(tmp_path / "a.npz", normal=600)
    drawn = rows.draw(case("few-rows", path), 60, 500)
    assert (len(drawn.fit_ND), len(drawn.fresh_ND), len(drawn.anomalies_ND)) == (60, 540, 60)
    with pytest.raises(Skipped, match="600 normal rows, fewer than 800"):
        rows.draw(case("few-rows", path), 300, 500)


def test_a_set_wider_than_the_rest_is_left_out_with_a_reason(tmp_path: Path) -> None:
    np.savez(tmp_path / "wide.npz", X=np.zeros((4, 201)), y=[0, 0, 0, 1])
    outcome = perform(case("shuffled", tmp_path / "wide.npz"), farthest)
    assert outcome.skipped == "201 features, more than 200"


@pytest.mark.parametrize(("alpha", "above"), [(0.05, 5), (0.049, 4), (0.0, 0)])
def test_an_oracle_uses_its_budget_up(alpha: float, above: int) -> None:
    fresh_N = np.random.default_rng(0).permutation(100).astype(np.float64)
    assert (fresh_N > rows.oracle(fresh_N, alpha)).sum() == above


def test_an_oracle_keeps_its_budget_where_scores_are_equal() -> None:
    assert (np.ones(100) > rows.oracle(np.ones(100), 0.05)).sum() == 0


def test_drift_is_counted_when_the_product_is_silent_and_not_when_it_warns(tmp_path: Path) -> None:
    def warning(rows_ND: Floats, **asked: object) -> Farthest:
        return Farthest(rows_ND, warnings=("not exchangeable",))

    still, drifting = (write_set(tmp_path / f"{d}.npz", drift=d) for d in (0.0, 8.0))
    silent = [perform(case("order", path), farthest) for path in (still, drifting)]
    now, met = next(iter(told("order", *silent).values()))
    assert now.startswith("1 of 2 (")
    assert met is False
    warned = [perform(case("order", path), warning) for path in (still, drifting)]
    assert next(iter(told("order", *warned).values())) == ("0 of 2", True)


def test_a_rate_held_in_random_order_is_no_pair_over_alpha(tmp_path: Path) -> None:
    measured = figures("shuffled", write_set(tmp_path / "a.npz"))
    assert measured["oracle, 0.05"] > 0.5
    assert measured["over, 0.05"] == float(measured["used, 0.05"] > 1)
    assert measured["warnings"] == []


def test_few_fresh_rows_add_to_the_pairs_over_alpha() -> None:
    """Of many fresh rows the rate itself is seen, which is over alpha in at most delta of draws."""
    assert shuffled.expected_over(59, 0.05, 10**6) == pytest.approx(0.95**59, abs=1e-3)
    assert 0.05 < shuffled.expected_over(1000, 0.05, 1000) < 0.2
    random = np.random.default_rng(0)
    rates_N = random.beta(1, 59, size=20_000)  # of rank 1 of 59
    over = (random.binomial(200, rates_N) > 10).mean()
    assert shuffled.expected_over(59, 0.05, 200) == pytest.approx(over, abs=0.006)


@pytest.mark.parametrize("kind", ["3 sd", "6 sd"])
def test_a_shift_moves_as_many_cells_by_as_many_deviations(kind: str) -> None:
    random = np.random.default_rng(0)
    rows_ND = random.normal(size=(50, 4)) * [1.0, 10.0, 0.0, 5.0]
    changed_ND, cells_NC = changed_cells.change(rows_ND, rows_ND, kind, 2, random)
    at = np.arange(50)[:, None], cells_NC
    assert (changed_ND != rows_ND).sum() == 100
    assert 2 not in cells_NC  # it is constant
    moved = np.abs(changed_ND - rows_ND)[at] / rows_ND.std(axis=0)[cells_NC]
    np.testing.assert_allclose(moved, changed_cells.SHIFTS[kind])


def test_a_swap_gives_each_cell_another_value_of_its_column() -> None:
    random = np.random.default_rng(0)
    fit_ND = np.repeat(np.arange(3.0), 20)[:, None] + [0.0, 10.0]
    changed_ND, cells_NC = changed_cells.change(fit_ND[:30], fit_ND, "swap", 1, random)
    assert ((changed_ND != fit_ND[:30]).sum(axis=1) == 1).all()
    assert set(changed_ND[:, 0]) <= {0, 1, 2}
    assert cells_NC.shape == (30, 1)


def test_a_farthest_cell_is_named_first_and_a_mean_is_a_means_error_away(tmp_path: Path) -> None:
    measured = figures("changed-cells", write_set(tmp_path / "a.npz"))
    assert measured["one, 6 sd, product, alarmed"] > 0.99
    assert measured["three, 6 sd, product, all"] == 1.0  # there are but three
    assert measured["one, 6 sd, product, error"] == pytest.approx(
        measured["one, 6 sd, column mean, error"]
    )
    assert measured["one, 6 sd, column mean, error"] == pytest.approx(0.8, abs=0.1)
    assert measured["gaps, one, product, error"] == pytest.approx(0.8, abs=0.1)
    # 5 % of the fit rows are over the threshold; whose farthest cell was not the changed one
    assert 0.0 < measured["one, 6 sd, before"] < 0.1
    assert measured["one, 6 sd, product, raised"] >= measured["one, 6 sd, product, alarmed"]


def test_one_gaussian_expects_what_the_others_let_expect() -> None:
    """x1 given x0 is x0, with a deviation of .1 (Eaton, Multivariate Statistics, 1983, prop. 3.13)."""
    random = np.random.default_rng(0)
    x0_N, noise_N = random.normal(size=(2, 5000))
    gaussian = changed_cells.Gaussian(np.stack([x0_N, x0_N + 0.1 * noise_N], axis=1))
    blame = gaussian.explain(np.array([[1.0, 1.0], [1.0, 2.0]]))
    np.testing.assert_allclose(blame.expected[:, 1], 1.0, atol=0.01)
    filled_ND = gaussian.fill(np.array([[1.0, np.nan], [1.0, 2.0], [np.nan, np.nan]]))
    np.testing.assert_allclose(filled_ND, [[1.0, 1.0], [1.0, 2.0], [0.0, 0.0]], atol=0.05)


def test_the_likeliest_sets_of_known_gaussian_rows_are_the_changed_cells_as_far_as_can_be() -> None:
    """Of two cells that move together, the other tells which was changed; a third tells more."""
    random = np.random.default_rng(0)
    common_N1 = random.normal(size=(5000, 1))
    gaussian = changed_cells.Gaussian(common_N1 + 0.1 * random.normal(size=(5000, 6)))
    drawn_ND = gaussian.draw(2000, random)
    assert np.corrcoef(drawn_ND, rowvar=False).min() > 0.98
    changed_ND = drawn_ND[:50].copy()
    changed_ND[:, [1, 4]] += [3.0, -2.0]
    assert {tuple(each) for each in gaussian.likeliest_sets(changed_ND, 2)} == {(1, 4)}


def test_tails_of_few_exponential_scores_are_within_a_factor_of_three_in_most_draws_only() -> None:
    few, many = severity.expected_within(100, 500), severity.expected_within(1000, 10**6)
    assert 0.65 < few < 0.85 < many <= 1.0


def test_suspects_are_counted_among_those_who_are_and_cut_at_the_share(tmp_path: Path) -> None:
    def suspicious(rows_ND: Floats, *, contamination: float = 0.0, **asked: object) -> Farthest:
        strangest = np.argsort(-np.abs(rows_ND).max(axis=1))
        kept_ND = rows_ND if not contamination else rows_ND[strangest[len(rows_ND) // 20 :]]
        return Farthest(kept_ND, warnings=("suspects",), suspects=strangest)

    measured = figures("contamination", write_set(tmp_path / "a.npz", anomalies=300), suspicious)
    assert measured["suspected, 0.01"] == pytest.approx(0.05, abs=0.002)
    assert measured["recall, 0.01"] > 0.7
    assert measured["warned, 0.05"] == 1.0
    assert measured["detection, 0.05, repaired"] > measured["detection, 0.05"]
    few = perform(case("contamination", write_set(tmp_path / "few.npz", anomalies=20)), suspicious)
    assert few.skipped == "20 anomalies, fewer than 47"


@pytest.mark.parametrize("share", contamination.SHARES)
def test_contaminants_make_the_share_of_all_rows(share: float) -> None:
    count = contamination._anomalies(2000, share)
    assert count / (2000 + count) == pytest.approx(share, abs=3e-4)


def test_a_product_without_suspects_misses_their_line(tmp_path: Path) -> None:
    outcome = perform(case("contamination", write_set(tmp_path / "a.npz", anomalies=300)), farthest)
    lines = PROTOCOLS["contamination"].lines([outcome])
    assert [(line.now, line.met) for line in lines if "suspects" in line.what] == [
        ("none / none", False)
    ]


def test_a_refused_budget_finds_nothing_and_is_counted(tmp_path: Path) -> None:
    def strict(rows_ND: Floats, *, alpha: float | None = None, **asked: object) -> Farthest:
        if alpha and len(rows_ND) < 300:
            raise Refused("too few rows")
        return Farthest(rows_ND, alpha or 0.2)

    outcome = perform(case("few-rows", write_set(tmp_path / "a.npz")), strict)
    lines = PROTOCOLS["few-rows"].lines([outcome])
    assert lines[0].now.endswith(" / none / none")
    assert lines[0].met is False
    assert next(line.now for line in lines if "refused" in line.what) == ".000 / 1.000 / 1.000"


def test_a_found_anomaly_beyond_all_held_out_rows_shares_the_smallest_p_value(
    tmp_path: Path,
) -> None:
    measured = figures("default-alpha", write_set(tmp_path / "a.npz"))
    assert 0.5 < measured["smallest p-value"] < 1.0
    assert measured["highest severity"] is None
    assert measured["detection"] > 0.8


def test_a_severity_replaces_the_p_value_where_there_is_one(tmp_path: Path) -> None:
    class Severe(Farthest):
        def severities(self, rows_ND: Floats) -> Floats:
            return self.scores(rows_ND)  # no two alike

    def fit(rows_ND: Floats, **asked: object) -> Severe:
        return Severe(rows_ND)

    outcome = perform(case("default-alpha", write_set(tmp_path / "a.npz")), fit)
    assert outcome.figures["highest severity"] < 0.1
    assert PROTOCOLS["default-alpha"].lines([outcome])[-1].met is True


def test_draws_near_the_smallest_p_value_are_counted(tmp_path: Path) -> None:
    measured = figures("severity", write_set(tmp_path / "a.npz"))
    assert measured["fresh"] == 700
    assert measured["within"] is None  # the made-up product calibrates on all rows
    assert measured["at smallest"] < 0.01


def test_equal_fits_share_all_their_alarms(tmp_path: Path) -> None:
    measured = figures("refits", write_set(tmp_path / "a.npz"))
    assert (measured["shared"], measured["Spearman"]) == (1.0, pytest.approx(1.0))


def test_a_broken_feature_is_named_by_who_looks_at_distances() -> None:
    measured = figures("demo")
    assert measured["65535, not named"] == 0.0
    assert measured["65535, alarms"] == 1.0
    assert measured["x100, alarms"] > 0.9
    assert measured["share one expected row"] == 212  # the column means
    assert {line.met for line in demo.lines([perform(case("demo"), farthest)])} == {True, False}


def test_hard_columns_alarm_or_are_refused() -> None:
    class Coarse(Farthest):
        def scores(self, rows_ND: Floats) -> Floats:
            return super().scores(rows_ND.astype(np.float32).astype(np.float64))

    def coarse(rows_ND: Floats, **asked: object) -> Coarse:
        if rows_ND.shape[1] > 1000:
            raise Refused("2,000 columns")
        return Coarse(rows_ND.astype(np.float32).astype(np.float64), alpha=0.01)

    outcome = perform(case("hard-columns"), coarse)
    empty, wide, offset, beside = hard_columns.COLUMNS
    assert outcome.figures[empty] < 0.05  # the other columns' false alarms
    assert outcome.figures[wide] is None
    assert outcome.figures[offset] < 0.05
    assert outcome.figures[beside] == 1.0
    met = {line.what: line.met for line in hard_columns.lines([outcome])}
    assert met == {empty: False, wide: True, offset: False, beside: True}


def test_a_series_is_read_without_time_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "skab_valve1_0.csv"
    lines = [f"2020-03-09 10:00:{n % 60};{n};{2 * n};{n % 2}.0;0.0" for n in range(410)]
    path.write_text("\n".join(["datetime;Current;Pressure;anomaly;changepoint", *lines]))
    series = read(path)
    assert (series.fit_ND.shape, series.later_ND.shape) == ((400, 2), (10, 2))
    assert series.later_ND[0].tolist() == [400, 800]
    assert series.anomalous_N.tolist() == [False, True] * 5
    for name, lines in (
        ("asd_a_train.csv", ["time,x1", "0,5"]),
        ("asd_a_test.csv", ["time,x1,anomaly", "0,6,1"]),
        ("tep_train.csv", ["time,x1", "0,7"]),
        ("tep_d00.csv", ["time,x1", "0,8"]),
    ):
        (tmp_path / name).write_text("\n".join(lines))
    assert [array.tolist() for array in read(tmp_path / "asd_a_train.csv")] == [
        [[5]],
        [[6]],
        [True],
    ]
    assert [array.tolist() for array in read(tmp_path / "tep_train.csv")] == [[[7]], [[8]], [False]]
    with pytest.raises(Skipped):
        read(tmp_path / "asd_a_test.csv")


def test_a_series_over_its_budget_without_a_word_is_a_miss(tmp_path: Path) -> None:
    path = tmp_path / "tep_train.csv"
    path.write_text("time,x1\n" + "\n".join(f"{n},{n % 10}" for n in range(100)))
    (tmp_path / "tep_d00.csv").write_text("time,x1\n" + "\n".join(f"{n},{n}" for n in range(100)))
    outcome = perform(case("series", path), farthest)
    assert [(line.now, line.met) for line in PROTOCOLS["series"].lines([outcome])] == [
        (".900; 1 of 1", False)
    ]


def test_a_protocol_has_a_case_for_each_set_and_seed() -> None:
    paths = [Path("a.npz"), Path("b.npz")]
    own = PROTOCOLS["contamination"].cases("contamination", paths, None)
    assert [(each.set, each.seed) for each in own[:3]] == [("a", 0), ("b", 0), ("a", 1)]
    assert len(own) == 10
    asked = PROTOCOLS["demo"].cases("demo", [], [7])
    assert [(each.set, each.seed, each.path) for each in asked] == [("demo", 7, "")]


def run(tmp_path: Path, *arguments: str, fit: product.Fit = farthest) -> int:
    return main(
        [str(tmp_path / "sets"), "--only", "order", "--output", str(tmp_path / "out"), *arguments],
        fit,
    )


def test_a_run_that_is_called_again_does_what_failed_and_what_is_new(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted: list[int] = []

    def counting(rows_ND: Floats, **asked: object) -> Farthest:
        fitted.append(len(rows_ND))
        if len(fitted) == 1:
            raise MemoryError("no more")
        return Farthest(rows_ND)

    write_set(tmp_path / "sets" / "a.npz", normal=800)
    assert run(tmp_path, fit=counting) == 0
    assert "Failed: order on a, seed 0: MemoryError: no more" in capsys.readouterr().out
    write_set(tmp_path / "sets" / "b.npz", normal=1000)
    assert run(tmp_path, fit=counting) == 0
    assert fitted == [400, 400, 500]
    assert run(tmp_path, fit=counting) == 0
    assert len(fitted) == 3
    with (tmp_path / "out" / "order.jsonl").open("ab") as file:
        file.write(b'\n{"protocol":"order","set":"c","se')  # as a kill leaves it
    assert {(outcome.set, outcome.failure) for outcome in read_outcomes(tmp_path / "out")} == {
        ("a", None),
        ("b", None),
    }


def test_a_line_that_was_cut_off_does_not_take_the_next_with_it(tmp_path: Path) -> None:
    write_set(tmp_path / "sets" / "a.npz")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "order.jsonl").write_bytes(b'{"protocol":"order","set":"a","se')
    assert run(tmp_path) == 0
    assert [outcome.set for outcome in read_outcomes(tmp_path / "out")] == ["a"]


def test_a_report_measures_nothing_and_says_met_or_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "sets" / "a.npz")
    write_set(tmp_path / "sets" / "b.npz", drift=8.0)
    assert run(tmp_path, "--report") == 1
    assert run(tmp_path, "--sets", "a") == 0
    assert "| 0 of 1 | 0 | met |" in (tmp_path / "out" / "table.md").read_text()
    assert run(tmp_path) == 0
    assert "missed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(tmp_path, "--only", "ordre")


def outcomes(values: Sequence[tuple[str, float | None]]) -> list[Outcome]:
    return [
        Outcome(protocol="p", set=name, seed=seed, figures={"figure": value})
        for seed, (name, value) in enumerate(values)
    ]


def test_sets_weigh_the_same_whatever_their_cases() -> None:
    measured = outcomes([("a", 0.0), ("a", 1.0), ("b", 1.0), ("c", None)])
    assert over_sets(measured, "figure") == pytest.approx(0.75)
    assert over_cases(measured, "figure") == pytest.approx(2 / 3)
    assert over_sets(measured, "other") is None


def test_a_line_is_met_when_each_of_its_figures_is() -> None:
    assert at_least("w", [0.5, 0.62], [0.4, 0.62])[1:] == (
        ".500 / .620",
        "at least .400 / .620",
        True,
    )
    assert at_least("w", [0.5, 0.6], [0.4, 0.62]).met is False
    assert at_least("w", [None], [0.4])[1:] == ("none", "at least .400", False)
    assert at_most("w", [3], [5], ".0f")[1:] == ("3", "at most 5", True)


def test_the_product_fits_scores_and_explains_in_this_process() -> None:
    """The one contact with training: a change of its functions shows here."""
    random = np.random.default_rng(0)
    rows_ND = random.normal(size=(100, 1)) * [1.0, 2.0, -1.0] + 0.1 * random.normal(size=(100, 3))
    fitted = product.fit(rows_ND, preset="fast", seed=0)
    broken_ND = rows_ND[:5] + np.array([0.0, 5.0, 0.0])
    assert fitted.n == 100  # few rows calibrate in folds
    assert (fitted.scores(broken_ND) > fitted.threshold(fitted.alpha)).all()
    assert fitted.threshold() == fitted.threshold(fitted.alpha)
    np.testing.assert_allclose(fitted.p_values(broken_ND), 1 / 101, rtol=1e-6)
    blame = fitted.explain(broken_ND)
    assert blame.order.shape == blame.expected.shape == (5, 3)
    filled_ND = fitted.fill(np.array([[1.0, np.nan, -1.0], [-1.0, np.nan, 1.0]]))
    np.testing.assert_allclose(filled_ND[:, 1], [2.0, -2.0], atol=0.2)
    with pytest.raises(Refused, match="100 calibration rows cannot certify"):
        fitted.threshold(0.01)
    with pytest.raises(Refused, match="cannot be certified"):
        product.fit(rows_ND, preset="fast", seed=0, alpha=0.01)
