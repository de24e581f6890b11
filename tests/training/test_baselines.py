"""Baselines: each entity's level and spread, how they are shrunk, and the graph that knows them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from hourglass.service.model.artifact import (
    BASELINE_CENTER,
    BASELINE_SCALE,
    NOBODY,
    RECONSTRUCTION,
    SCORE,
    Feature,
)
from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema
from hourglass.service.model.served import Served
from hourglass.service.rows import ordered
from hourglass.service.rows.ordered import Ordered
from hourglass.training.baselines import GAUSSIAN, Baselines, fit_baselines, from_fleet, to_fleet
from hourglass.training.config import RunConfig, load_config
from hourglass.training.errors import RunError
from hourglass.training.evaluate_ordered import judge
from hourglass.training.export import export_core, run_windows
from hourglass.training.report import Report
from hourglass.training.report.material import material_of_windows
from hourglass.training.run import run
from hourglass.training.split import data_of, split_data, table_of
from hourglass.training.windows import Windowed
from tests.training import tables
from tests.training.test_windows import windowed

Float32 = NDArray[np.float32]
LOOK = 10
NUMBER = (Feature(name="load", kind="numeric"),)
MIXED = (
    Feature(name="load", kind="numeric"),
    Feature(name="open", kind="boolean"),
    Feature(name="site", kind="categorical", categories=("north", "south")),
)


def fitted(own: list[Float32], features: tuple[Feature, ...] = NUMBER) -> Baselines:
    """Of each entity's rows, all of which are fit rows."""
    code_N = np.repeat(np.arange(len(own)), [len(rows) for rows in own])
    rows_NF = np.concatenate(own)
    all_N = np.ones(len(rows_NF), dtype=bool)
    return fit_baselines(rows_NF, code_N, all_N, features, entities=len(own), look=LOOK)


def column(*values: float) -> Float32:
    return np.array(values, np.float32)[:, None]


def even(center: float, spread: float, rows: int) -> Float32:
    """Evenly spaced rows of this median and median absolute deviation."""
    return column(*np.linspace(center - 2 * spread, center + 2 * spread, rows))


def of_code(rows_TF: Float32, code: int) -> NDArray[np.int64]:
    return np.full(len(rows_TF), code)


def test_an_entity_with_many_rows_has_its_own_median_and_spread() -> None:
    baselines = fitted([even(-100, 1, 9001), even(0, 4, 9001), even(100, 2, 9001)])
    np.testing.assert_allclose(baselines.center[:, 0], [-100, 0, 100, 0], atol=0.01)
    # what lies between the levels is far more than what lies within
    fleet_spread = np.hypot(GAUSSIAN * 2, np.sqrt(2e4 / 3))
    own = GAUSSIAN * np.array([1, 4, 2])
    np.testing.assert_allclose(baselines.scale[:3, 0], own / fleet_spread, rtol=0.01)
    assert baselines.scale[3, 0] == 1


def test_what_is_shrunk_follows_from_the_rows() -> None:
    """Against the formulas, written out for one column of three entities."""
    own = [even(0, 1, 2001), even(3, 1, 2001), even(6, 4, 3)]
    baselines = fitted(own)
    rows = np.concatenate(own)[:, 0].astype(np.float64)
    fleet, looks = np.median(rows), np.array([200.1, 200.1, 0.3])
    median, spread = np.array([0.0, 3, 6]), GAUSSIAN * np.array([1.0, 1, 8])
    # of three rows the middle one of the distances 0, 8 and 8 is 8
    within = GAUSSIAN
    between = np.sqrt(max(np.mean((median - fleet) ** 2 - within**2 / looks), 0))
    weight = looks / (looks + (within / between) ** 2)
    np.testing.assert_allclose(
        baselines.center[:3, 0], fleet + weight * (median - fleet), rtol=1e-5, atol=1e-6
    )
    kept = np.exp(np.log(within) + looks / (looks + 1) * (np.log(spread) - np.log(within)))
    expected = np.hypot(kept, between * np.sqrt(1 - weight)) / np.hypot(within, between)
    np.testing.assert_allclose(baselines.scale[:3, 0], expected, rtol=1e-5)


def test_an_entity_of_a_few_rows_is_nearly_the_fleets() -> None:
    draw = np.random.default_rng(0)
    levels = draw.normal(0, 1, 40)
    own = [draw.normal(level, 1, (500, 1)).astype(np.float32) for level in levels]
    baselines = fitted([*own, draw.normal(3, 1, (3, 1)).astype(np.float32)])
    fleet = float(baselines.fleet_F[0])
    # three rows of a level at three standard deviations move it by a third
    assert abs(float(baselines.center[40, 0]) - fleet) < 1.0
    assert 0.8 < float(baselines.scale[40, 0]) < 1.0
    moved = np.array([float(center) for center in baselines.center[:40, 0]]) - levels
    assert np.abs(moved).max() < 0.25


def test_few_rows_tell_levels_apart_that_lie_far_from_each_other() -> None:
    own = [even(1000.0 * e, 1, 500) for e in range(9)]
    baselines = fitted([*own, column(5499, 5500, 5501)])
    assert float(baselines.center[9, 0]) == pytest.approx(5500, abs=0.1)
    assert float(baselines.scale[9, 0]) < 0.01


def test_who_has_no_rows_and_who_is_not_known_are_in_the_fleets_units() -> None:
    missing = column(*[np.nan] * 30)
    baselines = fitted([even(5, 1, 300), even(9, 2, 300), missing])
    rows_NF = column(1e9, -3.25, np.nan, 7)
    for code in (NOBODY, 3, 10**9, -(10**9)):
        np.testing.assert_array_equal(to_fleet(baselines, rows_NF, of_code(rows_NF, code)), rows_NF)
        np.testing.assert_array_equal(
            from_fleet(baselines, rows_NF, of_code(rows_NF, code)), rows_NF
        )
    np.testing.assert_allclose(
        to_fleet(baselines, rows_NF, of_code(rows_NF, 2)), rows_NF, rtol=1e-6, atol=1e-5
    )


def test_a_column_that_does_not_vary_has_what_is_usual() -> None:
    mostly = np.where(np.arange(4000)[:, None] % 10, 0, 1).astype(np.float32)
    baselines = fitted([even(0, 1, 4000), even(0, 1, 4000), column(*[7.0] * 4000), mostly])
    scale = baselines.scale[:, 0].numpy()
    # the median of the three spreads there are; and the standard deviation of who is mostly 0
    assert scale[2] == pytest.approx(scale[0], rel=0.01)
    assert scale[3] / scale[0] == pytest.approx(0.3 / GAUSSIAN, rel=0.05)
    flat = fitted([column(*[3.0] * 40), column(*[3.0] * 40)])
    np.testing.assert_array_equal(flat.scale[:, 0], 1)
    apart = fitted([column(*[3.0] * 40), column(*[5.0] * 40)])
    assert np.isfinite(apart.scale.numpy()).all()
    assert (apart.scale > 0).all()


def test_categories_and_booleans_stay_as_they_are() -> None:
    draw = np.random.default_rng(0)
    own = [
        np.stack([draw.normal(50 * e, 1, 300), *draw.integers(0, 2, (2, 300))], axis=1)
        for e in range(3)
    ]
    baselines = fitted([rows.astype(np.float32) for rows in own], MIXED)
    rows_NF = np.float32([[50, 1, 0], [50, 0, 1], [np.nan, np.nan, -1]])
    for mapped_NF in (
        to_fleet(baselines, rows_NF, of_code(rows_NF, 1)),
        from_fleet(baselines, rows_NF, of_code(rows_NF, 1)),
    ):
        np.testing.assert_array_equal(mapped_NF[:, 1:], rows_NF[:, 1:])


def test_rows_are_mapped_as_numpy_maps_them_and_back() -> None:
    draw = np.random.default_rng(1)
    own = [draw.normal(1e4 * e, 1 + e, (200, 1)).astype(np.float32) for e in range(5)]
    baselines = fitted(own)
    center_EF, scale_EF = baselines.center.numpy(), baselines.scale.numpy()
    for code, rows_NF in enumerate(own):
        fleet_NF = to_fleet(baselines, rows_NF, of_code(rows_NF, code))
        expected_NF = baselines.fleet_F.numpy() + (rows_NF - center_EF[code]) / scale_EF[code]
        np.testing.assert_allclose(fleet_NF, expected_NF, rtol=1e-6)
        np.testing.assert_allclose(
            from_fleet(baselines, fleet_NF, of_code(rows_NF, code)), rows_NF, rtol=1e-4, atol=1e-3
        )


MACHINES, ROWS, WINDOW = 6, 300, 8
SENSORS = ("load", "flow", "heat")


def machine(number: int, rows: int, *, seed: int, start: int = 0) -> pl.DataFrame:
    """Sensors that hang on a load which remembers itself, in units of the machine's own."""
    draw, units = np.random.default_rng([seed, number]), np.random.default_rng([99, number])
    load_T, noise_TF = np.zeros(rows), 0.3 * draw.normal(size=(rows, len(SENSORS)))
    for t in range(1, rows):
        load_T[t] = 0.9 * load_T[t - 1] + 0.4 * draw.normal()
    rows_TF = load_T[:, None] * np.array([1.0, 1.0, -1.0]) + noise_TF
    level_F, spread_F = units.normal(0, 20, len(SENSORS)), np.exp(units.normal(0, 1, len(SENSORS)))
    columns = dict(zip(SENSORS, (level_F + spread_F * rows_TF).T, strict=True))
    return pl.DataFrame({"at": np.arange(start, start + rows), **columns}).with_columns(
        is_on=pl.Series(draw.random(rows) < 0.5), machine=pl.lit(f"{number:03}")
    )


def asked(**changes: object) -> RunConfig:
    fields = {"data": "t.csv", "name": "fleet", "time": "at", "entity": "machine"}
    fields |= {"window": WINDOW, "variant": "linear", "baseline": "entity", "alpha": 0.05}
    return load_config(None, {**fields, **changes})


class Fleet(NamedTuple):
    report: Report
    detector: Detector
    data: bytes


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Six machines and one of a few rows, by a whole run on a CSV."""
    folder = tmp_path_factory.mktemp("fleet")
    table = pl.concat(
        [*(machine(i, ROWS, seed=1) for i in range(MACHINES)), machine(7, 12, seed=1)]
    )
    # of whom only anomalies are there, nothing is learnt
    broken = machine(6, 40, seed=1).with_columns(fault=pl.lit(1))
    table = pl.concat([table.with_columns(fault=pl.lit(0)), broken])
    table.write_csv(folder / "t.csv")
    report = run(asked(data=str(folder / "t.csv"), models=str(folder / "models"), label="fault"))
    data = Path(report.path).read_bytes()
    return Fleet(report, Detector.from_bytes(data), data)


def rows_of(table: pl.DataFrame) -> Float32:
    return table.select(*SENSORS, "is_on").cast(pl.Float32).to_numpy()


def test_the_file_names_the_entities_and_requires_that_they_are_known(fleet: Fleet) -> None:
    manifest = fleet.detector.manifest
    assert (manifest.format, manifest.requires) == ("1.4", ("window", "baseline"))
    assert manifest.baseline is not None
    assert manifest.baseline.entities == ("000", "001", "002", "003", "004", "005", "007")
    assert manifest.self_test.entity == "000"
    known = [fleet.detector.knows(each) for each in ("003", "3", "006", "", None)]
    assert known == [True, *[False] * 4]


def test_affine_changes_of_an_entitys_units_leave_its_scores_as_they_are(fleet: Fleet) -> None:
    """Of two machines in the same state each knows it in its own units."""
    detector, model = fleet.detector, onnx.load_model_from_string(fleet.data)
    tensors = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    center_EF, scale_EF = tensors[BASELINE_CENTER], tensors[BASELINE_SCALE]
    rows_TF = rows_of(machine(2, 200, seed=5))
    rows_TF[60, 1] += 8 * scale_EF[2, 1]
    rows_TF[90, 2] = np.nan
    scores = detector.of("002").score(rows_TF)
    assert (scores.p_value < 0.05).any()
    other_TF = center_EF[4] + (rows_TF - center_EF[2]) / scale_EF[2] * scale_EF[4]
    others = detector.of("004").score(other_TF.astype(np.float32))
    np.testing.assert_allclose(others.score, scores.score, rtol=2e-3)
    # in the other's units they are strange
    assert np.median(detector.of("004").score(rows_TF).p_value) < 0.02
    explained, again = detector.of("002").explain(rows_TF), detector.of("004").explain(other_TF)
    np.testing.assert_allclose(
        (again.reconstruction - center_EF[4]) / scale_EF[4],
        (explained.reconstruction - center_EF[2]) / scale_EF[2],
        rtol=1e-3,
        atol=1e-2,
    )
    np.testing.assert_allclose(
        detector.of("004").expected_sd[:3] / detector.of("002").expected_sd[:3],
        (scale_EF[4] / scale_EF[2])[:3],
        rtol=1e-6,
    )


def test_later_rows_of_each_machine_are_ordinary_and_what_is_expected_is_near(fleet: Fleet) -> None:
    for number in range(MACHINES):
        rows_TF = rows_of(machine(number, 400, seed=2))
        own = fleet.detector.of(f"{number:03}")
        found = own.explain(rows_TF)
        assert float((found.p_value <= 0.05).mean()) < 0.2
        away_NF = (rows_TF[WINDOW - 1 :] - found.reconstruction)[:, :3] / own.expected_sd[:3]
        assert 0.7 < float(np.sqrt(np.square(away_NF).mean())) < 1.4


def test_an_entity_that_is_not_known_is_judged_by_the_fleets_units(fleet: Fleet) -> None:
    rows_TF = rows_of(machine(3, 60, seed=3))
    plain, unknown = fleet.detector.score(rows_TF), fleet.detector.of("nobody").score(rows_TF)
    np.testing.assert_array_equal(plain.score, unknown.score)
    assert fleet.detector.of("nobody") is fleet.detector
    assert not np.allclose(plain.score, fleet.detector.of("003").score(rows_TF).score)


def test_series_and_windows_of_an_entity_are_answered_alike(fleet: Fleet) -> None:
    own, rows_TF = fleet.detector.of("001"), rows_of(machine(1, 40, seed=4))
    windows = np.stack([rows_TF[t : t + WINDOW] for t in range(40 - WINDOW + 1)])
    np.testing.assert_allclose(
        own.score(rows_TF).score, own.score_windows(windows).score, rtol=1e-5
    )
    explained = own.explain_windows(windows)
    np.testing.assert_allclose(own.score(rows_TF).score, explained.score, rtol=1e-5)
    np.testing.assert_allclose(
        own.reconstruct(rows_TF), explained.reconstruction, rtol=1e-5, atol=1e-5
    )


def test_mixed_rows_of_many_entities_are_each_judged_by_their_own(fleet: Fleet) -> None:
    detector = fleet.detector
    served = Served("fleet", detector, Schema.of(detector.manifest), detector.threshold, 0.0)
    parts = [rows_of(machine(number, 30, seed=6)) for number in (0, 5, 9)]
    rows_ND = np.stack(parts, axis=1).reshape(-1, 4)
    came = Ordered(rows_ND, ["000", "005", "009"] * 30, None, b"")
    spread = ordered.spread(served, came, ordered.score_in_order(served, came))
    for place, name in enumerate(("000", "005", "009")):
        expected = detector.of(name).score(parts[place]).score
        np.testing.assert_array_equal(spread.scores.score[place::3][WINDOW - 1 :], expected)
    assert spread.known_entity_N is not None
    assert spread.known_entity_N.tolist() == [True, True, False] * 30


def test_a_report_is_of_what_each_entitys_detector_says(fleet: Fleet) -> None:
    path = Path(fleet.report.path)
    config = load_config(path.with_name("run.toml"), {})
    prepared = split_data(data_of(table_of(config), config), config)
    ordered, names = prepared.ordered, prepared.data.entity_names
    assert ordered is not None
    score_N = judge(
        fleet.detector, ordered.rows_NF, ordered.time_N, ordered.entity_N, names
    ).score_N
    material = material_of_windows(fleet.detector, prepared, score_N[ordered.row_M], config)
    held_out = material.held_out
    np.testing.assert_allclose(
        held_out.score().score, score_N[held_out.place_N], rtol=2e-3, atol=1e-4
    )


@pytest.fixture(scope="module")
def graph() -> tuple[Windowed, onnx.ModelProto]:
    """Of an unfitted network, with made-up tables."""
    core = windowed()
    draw = np.random.default_rng(0)
    size = (3, len(core.features))
    is_number = np.array([each.kind == "numeric" for each in core.features])
    core.baselines = Baselines(
        np.where(is_number, draw.normal(size=size[1]), 0),
        np.where(is_number, draw.normal(0, 30, size), 0),
        np.where(is_number, np.exp(draw.normal(size=size)), 1),
    )
    return core.eval(), export_core(core)


def test_the_graph_answers_as_torch_does_of_each_entity(
    graph: tuple[Windowed, onnx.ModelProto],
) -> None:
    core, model = graph
    assert core.baselines is not None
    draw = np.random.default_rng(2)
    rows_TF = draw.normal(size=(40, len(core.features)))
    rows_TF[:, 1:] = np.abs(rows_TF[:, 1:]).round().clip(0, 1)
    rows_TF[::7, 0] = np.nan
    rows_NF = np.concatenate([rows_TF] * 4).astype(np.float32)
    code_N = np.repeat([0, 1, 2, NOBODY], 40)
    own_NF = from_fleet(core.baselines, rows_NF, code_N)
    (score_M, expected_MF), row_M = run_windows(
        model, [SCORE, RECONSTRUCTION], own_NF, code_N + 1, core.rows, code_N
    )
    with torch.no_grad():
        output = core(torch.from_numpy(own_NF.reshape(4, 40, -1)), torch.tensor([0, 1, 2, NOBODY]))
    np.testing.assert_allclose(score_M, output.score_N.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(expected_MF, output.reconstruction_ND.numpy(), rtol=1e-4, atol=1e-4)
    # the same rows in the units of each are the same to it
    np.testing.assert_allclose(
        score_M.reshape(4, -1), np.stack([score_M[row_M >= 120]] * 4), rtol=1e-3
    )


def test_the_tables_stand_in_the_file_once(graph: tuple[Windowed, onnx.ModelProto]) -> None:
    core, model = graph
    assert core.baselines is not None
    tensors = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    for name, table in (
        (BASELINE_CENTER, core.baselines.center),
        (BASELINE_SCALE, core.baselines.scale),
    ):
        np.testing.assert_array_equal(tensors[name], table.numpy())
        assert any(name in node.input for node in model.graph.node)
        same = [other for other, value in tensors.items() if np.array_equal(value, tensors[name])]
        assert same == [name]


@pytest.mark.parametrize(
    "changes", [{"entity": None}, {"window": 1}, {"time": None, "entity": None, "window": None}]
)
def test_a_baseline_is_of_entities_and_windows(changes: dict[str, object]) -> None:
    with pytest.raises(RunError, match=r'baseline = "entity" is of windows of several entities'):
        asked(**changes)


def test_without_a_number_there_is_none(tmp_path: Path) -> None:
    table = machine(0, 200, seed=1).select("at", "is_on", "machine")
    data = tables.write(table, tmp_path / "t.parquet")
    with pytest.raises(RunError, match="no feature is a number; --baseline fleet does without"):
        run(asked(data=str(data), models=str(tmp_path / "models")))
