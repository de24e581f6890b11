"""The harness of the benchmark of series, on made-up ones."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.benchmarks.series import fleet, outcomes, product
from tests.benchmarks.series.__main__ import main
from tests.benchmarks.series.baselines import BASELINES, knn, mad, mahalanobis, pca
from tests.benchmarks.series.files import FIT_ROWS, LEAD, find
from tests.benchmarks.series.outcomes import FILE, measure, read_outcomes
from tests.benchmarks.series.representations import multi, raw, residual, row
from tests.benchmarks.series.table import make_grids


def write(
    path: Path, rows: int, *, fault: slice = slice(0), seed: int = 0, label: bool = True
) -> None:
    """Two numbers that hang together and drift; in a fault they do not."""
    random = np.random.default_rng(seed)
    state_N = np.convolve(random.normal(size=rows + 9), np.ones(10) / 3, "valid")
    x_ND = np.stack([state_N, -state_N, 0 * state_N], axis=1) + 0.1 * random.normal(size=(rows, 3))
    x_ND[fault, 1] += 4
    anomalous_N = np.zeros(rows, dtype=int)
    anomalous_N[fault] = 1
    frame = pl.DataFrame({"time": range(rows), **{f"x{i}": x_ND[:, i] for i in range(3)}})
    if label:
        frame = frame.with_columns(pl.Series("anomaly", anomalous_N))
    frame.write_csv(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "series"
    folder.mkdir()
    write(folder / "pump_1_train.csv", 900, label=False)
    write(folder / "pump_1_test.csv", 600, fault=slice(300, 340), seed=1)
    write(folder / "plant_train.csv", 700, label=False)
    write(folder / "plant_good.csv", 300, seed=2)
    write(folder / "plant_bad.csv", 300, fault=slice(200, 300), seed=3)
    write(folder / "loop_a.csv", 800, fault=slice(600, 700), seed=4)
    write(folder / "loop_free.csv", 500, label=False)
    return folder


def test_series_are_found_by_the_names_of_their_files(folder: Path) -> None:
    sources = {source.name: source for source in find(folder)}
    assert sorted(sources) == ["loop_a", "plant", "pump_1"]
    assert {source.family for source in sources.values()} == {"loop", "plant", "pump"}
    pump, plant, loop = (sources[name].read() for name in ("pump_1", "plant", "loop_a"))
    assert (pump.train_ND.shape, [len(test.rows_ND) for test in pump.tests]) == ((900, 3), [600])
    assert pump.columns == ("x0", "x1", "x2")
    assert [test.name for test in plant.tests] == ["plant_bad", "plant_good"]
    assert [int(test.anomalous_N.sum()) for test in plant.tests] == [100, 0]
    # the rows before the first that is judged are the last fit rows
    assert len(loop.train_ND) == FIT_ROWS
    np.testing.assert_array_equal(loop.tests[0].rows_ND[:LEAD], loop.train_ND[-LEAD:])
    assert len(loop.tests[0].rows_ND) == 800 - FIT_ROWS + LEAD


def test_what_is_derived_of_a_row_looks_back_and_never_ahead() -> None:
    rows_ND = np.random.default_rng(0).normal(size=(300, 2)).cumsum(axis=0)
    changed_ND = rows_ND.copy()
    changed_ND[200:] += 5
    for represent in (row, raw(10), multi(60), residual(30)):
        derive = represent(rows_ND[:150])
        np.testing.assert_allclose(derive(rows_ND)[:200], derive(changed_ND)[:200], atol=1e-9)
        assert np.abs(derive(rows_ND)[200] - derive(changed_ND)[200]).max() > 1
    window_ND = rows_ND[41:101]
    expected = [rows_ND[100], rows_ND[100] - rows_ND[99]]
    for span in (5, 10, 30, 60):
        expected += [window_ND[-span:].mean(axis=0), window_ND[-span:].std(axis=0)]
    np.testing.assert_allclose(multi(60)(rows_ND)(rows_ND)[100], np.concatenate(expected))
    np.testing.assert_array_equal(raw(3)(rows_ND)(rows_ND)[7], rows_ND[[7, 6, 5]].ravel())


def test_the_forecaster_finds_what_follows_from_the_rows_before() -> None:
    turn_N = np.arange(800) * 0.3
    rows_ND = np.stack([np.sin(turn_N), np.cos(turn_N)], axis=1)
    derived_ND = residual(30)(rows_ND[:500])(rows_ND)
    assert derived_ND.shape == (800, 10)
    assert np.abs(derived_ND[600:, :2]).max() < 0.02  # ridge pulls a little
    np.testing.assert_allclose(derived_ND[700, 8:], derived_ND[671:701, 6:8].mean(axis=0))


def test_baselines_score_as_they_say() -> None:
    fit_ND = np.random.default_rng(0).normal(size=(5000, 3))
    asked_ND = np.array([[0.0, 0, 0], [3, 0, 0], [3, 4, 0]])
    np.testing.assert_allclose(mahalanobis(fit_ND)(asked_ND), [0, 9, 25], atol=1)
    near, _, far = knn(fit_ND)(asked_ND)
    assert near < 0.3
    assert far > 1
    assert mad(np.array([[0.0], [1], [2], [3], [4]]))(np.array([[5.0]])) == [3]
    line_ND = fit_ND[:, :1] * np.array([1.0, 2, 3])
    np.testing.assert_allclose(pca(line_ND)(np.array([[1.0, 2, 3], [2, -1, 0]])), [0, 5], atol=1e-3)


def test_every_baseline_finds_a_fault_and_keeps_a_line_that_is_not_done_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    flags = [str(folder), "--detectors", "baselines", "--output", str(output)]
    assert main([*flags, "--series", "pump_1"]) == 0
    done = read_outcomes(output)
    assert [outcome.detector for outcome in done] == list(BASELINES)
    for outcome in done:
        assert outcome.failure is None
        figures = outcome.tests["pump_1_test"]
        assert (figures.rows, figures.normal_rows, figures.ranges) == (541, 501, 1)
        assert figures.auroc is not None
        assert figures.vus_pr is not None
    by_name = {outcome.detector: outcome.tests["pump_1_test"] for outcome in done}
    assert by_name["row Mahalanobis"].auroc > 0.95  # type: ignore[operator]
    assert by_name["row Mahalanobis"].budgets[-1].found == 1
    with (output / FILE).open("ab") as file:
        file.write(b'\n{"series": "cut')
    assert main(flags) == 0
    again = read_outcomes(output)
    assert len(again) == 3 * len(BASELINES)
    assert again[: len(done)] == done
    plant = next(outcome for outcome in again if outcome.series == "plant")
    assert plant.tests["plant_good"].auroc is None
    table = (output / "table.md").read_text()
    assert table.count("| row Mahalanobis |") == 4
    assert "Revision" in table
    assert "row kNN on plant" in capsys.readouterr().err
    assert main([*flags, "--series", "pump_1"]) == 0
    assert capsys.readouterr().err == ""


def test_a_detector_that_fails_is_told_and_counts_in_no_mean(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(product, "fit", fail)
    source = find(folder)[0]
    outcome = measure(source, next(iter(product.PRODUCTS)))
    assert outcome.failure == "RuntimeError: no such thing"
    assert make_grids([outcome])[0].lines[0][1:] == ["– / – / –", "– / – / –", "–"]


def test_what_is_not_there_is_said(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "has no series" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(folder), "--detectors", "row kNN;nothing"])
    assert "there is no detector 'nothing'" in capsys.readouterr().err
    assert set(outcomes.DETECTORS) == {*product.PRODUCTS, *BASELINES}


def test_a_simulated_fleet_has_machines_in_units_of_their_own_and_faults_of_some() -> None:
    made = fleet.simulated(5, 3, train_rows=300, test_rows=200, tested=2)
    assert [len(each.test_ND) for each in made.machines] == [200, 200, 0, 0, 0]
    faulty = fleet.FAULTS * fleet.FAULT_ROWS
    assert [int(each.anomalous_N.sum()) for each in made.tested] == [faulty, faulty]
    levels_ED = np.stack([each.train_ND.mean(axis=0) for each in made.machines])
    spreads_ED = np.stack([each.train_ND.std(axis=0) for each in made.machines])
    assert (levels_ED.std(axis=0) > 3 * np.median(spreads_ED, axis=0)).all()


def test_series_are_cut_into_machines_of_which_those_with_anomalies_are_tested(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "PARTS", {"pump": 3, "plant": 2})
    sources = find(folder)
    _, pump, plant = fleet.fleets(sources, 2)
    assert [len(each.train_ND) for each in pump.machines] == [300, 300, 300]
    # the fault lies in the second third of the test
    assert [len(each.test_ND) for each in pump.machines] == [0, 200, 0]
    assert pump.tested[0].anomalous_N.sum() == 40
    # rows of the test without anomalies are normal ones
    assert [len(each.train_ND) for each in plant.machines] == [500, 500]
    assert [int(each.anomalous_N.sum()) for each in plant.machines] == [0, 100]


def test_each_way_to_judge_a_fleet_is_measured() -> None:
    made = fleet.simulated(3, 3, train_rows=300, test_rows=300, tested=1)
    ways = [fleet.measure(made, way, "fast", with_cost=False) for way in fleet.WAYS]
    for outcome in ways:
        assert outcome.auroc > 0.6
        assert outcome.vus_pr > outcome.average_precision / 2
    assert [outcome.files for outcome in ways] == [1, 1, 3]
    grid = fleet.make_grid(ways)
    assert [line[0] for line in grid.lines] == [f"{made.name}: {way}" for way in fleet.WAYS]
    assert {line[-1] for line in grid.lines} == {"–"}
    assert "1 of 3" in fleet.make_notes(ways)[0]
