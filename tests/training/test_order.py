"""Order: entities' series, where blocks of them are held out, and which windows are clean."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hourglass.service.model.detector import Detector
from hourglass.training.config import RunConfig, load_config
from hourglass.training.errors import RunError
from hourglass.training.guarantee import effective_rows
from hourglass.training.order import Ordered, Part
from hourglass.training.report import Report
from hourglass.training.run import run
from hourglass.training.split import Prepared, data_of, split_data
from tests.training import tables

ROWS, WINDOW = 600, 8


def series(rows: int = ROWS, *, seed: int = 0, start: float = 1.7e9) -> pl.DataFrame:
    """Two autoregressive sensors, a row each minute."""
    draw = np.random.default_rng(seed)
    noise_NF = draw.normal(size=(rows, 2))
    values_NF = np.zeros_like(noise_NF)
    for t in range(1, rows):
        values_NF[t] = 0.9 * values_NF[t - 1] + noise_NF[t]
    return pl.DataFrame(
        {"at": start + 60.0 * np.arange(rows), "a": values_NF[:, 0], "b": values_NF[:, 1]}
    )


def machines(*rows: int) -> pl.DataFrame:
    """The same of several machines."""
    return pl.concat(
        series(count, seed=i).with_columns(machine=pl.lit(f"m{i}")) for i, count in enumerate(rows)
    )


def asked(**changes: object) -> RunConfig:
    fields = {"data": "t.csv", "name": "pump", "time": "at", "variant": "linear", "window": WINDOW}
    return load_config(None, {**fields, **changes})


def prepared_of(table: pl.DataFrame, **changes: object) -> Prepared:
    config = asked(**changes)
    return split_data(data_of(table, config), config)


def ordered_of(table: pl.DataFrame, **changes: object) -> Ordered:
    ordered = prepared_of(table, **changes).ordered
    assert ordered is not None
    return ordered


def fitted(table: pl.DataFrame, folder: Path, **changes: object) -> Report:
    data = tables.write(table, folder / "t.parquet")
    return run(asked(data=str(data), models=str(folder / "models"), **changes))


def test_rows_of_any_order_are_each_entitys_in_time() -> None:
    table = machines(300, 200).sample(fraction=1.0, shuffle=True, seed=3)
    ordered = ordered_of(table, entity="machine")
    straight = ordered_of(machines(300, 200), entity="machine")
    np.testing.assert_array_equal(ordered.rows_NF, straight.rows_NF)
    np.testing.assert_array_equal(np.unique(ordered.segment_N, return_counts=True)[1], [300, 200])
    assert (ordered.entities, ordered.unsorted > 100, straight.unsorted) == (2, True, 0)


def test_windows_cross_no_entity_and_no_gap() -> None:
    table = machines(300, 200)
    table = table.with_columns(
        at=pl.when(pl.int_range(500) < 100).then("at").otherwise(pl.col("at") + 3600)
    )
    ordered = ordered_of(table, entity="machine")
    assert (ordered.interval, ordered.gap, ordered.gaps) == (60.0, 600.0, 1)
    np.testing.assert_array_equal(
        np.unique(ordered.segment_N, return_counts=True)[1], [100, 200, 200]
    )
    starts_M = ordered.row_M - WINDOW + 1
    np.testing.assert_array_equal(ordered.segment_N[starts_M], ordered.segment_N[ordered.row_M])
    assert len(ordered.row_M) == 500 - 3 * (WINDOW - 1)
    assert ordered_of(table, entity="machine", gap=1e5).gaps == 0


def test_times_that_repeat_are_counted() -> None:
    table = series()
    table = table.with_columns(
        at=pl.when(pl.int_range(ROWS) == 5).then(pl.col("at") - 60).otherwise("at")
    )
    assert ordered_of(table).repeated == 1


@pytest.mark.parametrize(("rows", "window", "gap"), [(600, 8, 10), (600, 30, 30), (4000, 8, 60)])
def test_windows_of_two_sets_share_no_row(rows: int, window: int, gap: int) -> None:
    ordered = ordered_of(series(rows), window=window)
    assert ordered.gap_rows == gap
    used = {}
    for part in (Part.FIT, Part.VALIDATION, Part.CALIBRATION):
        row_M = ordered.row_M[ordered.windows_of(part)]
        used[part] = set(np.unique(row_M[:, None] - np.arange(window)).tolist())
        assert len(row_M) >= 0.1 * rows
    assert not used[Part.FIT] & used[Part.CALIBRATION]
    assert not used[Part.VALIDATION] & used[Part.CALIBRATION]
    assert not used[Part.FIT] & used[Part.VALIDATION]


def test_long_series_hold_out_five_blocks_and_short_ones_fewer() -> None:
    for rows, blocks in ((4000, 5), (600, 5), (100, 1)):
        block_N = prepared_of(series(rows)).block_N
        assert block_N is not None
        assert len(np.unique(block_N)) == blocks


def test_anomalies_and_rows_left_out_are_history_and_never_learnt() -> None:
    table = series().with_columns(fault=(pl.int_range(ROWS) == 300).cast(pl.Int64))
    config = asked(label="fault")
    data = data_of(table, config, exclude=(50,))
    left_out_N = data.number_N == 400
    ordered = split_data(data.without(left_out_N), config).ordered
    assert ordered is not None
    unclean = ordered.row_M[~ordered.is_clean_M]
    spoilt = [*range(49, 49 + WINDOW), *range(300, 300 + WINDOW), *range(399, 399 + WINDOW)]
    assert unclean.tolist() == spoilt
    assert len(ordered.rows_NF) == ROWS
    assert ordered.row_M[ordered.windows_of_anomalies()].tolist() == [300]


def test_of_too_many_rows_the_newest_are_taken() -> None:
    config = asked()
    config = load_config(None, {"data": "t.csv", "name": "p", "time": "at", "max_rows": 400})
    data = data_of(series(), config)
    assert len(data.normal_ND) == 400
    assert data.number_N.min() == 201
    assert any("the newest 400 of the 600 rows are used" in each for each in data.warnings)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"window": 10_001}, "window must be from 1 to 10000 rows, got 10001"),
        ({"window": 0}, "window must be from 1 to 10000 rows, got 0"),
        ({"time": None}, "window is of rows in order of time: name their time column"),
        ({"time": None, "window": None, "entity": "m"}, "entity is of rows in order of time"),
        ({"gap": 0.0}, "gap must be above 0, got 0"),
        ({"variant": "auto"}, "members are compared on single rows, and not on windows"),
        ({"group": "m"}, "whole groups cannot be; entity keeps the windows"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(RunError, match=problem):
        asked(**changes)


def test_thirty_rows_are_looked_at_where_a_time_is_named() -> None:
    assert asked(window=None).window_rows == 30
    assert asked(window=None, time=None).window_rows == 1
    assert asked(window=1).window_rows == 1


def test_a_window_longer_than_every_series_is_refused() -> None:
    with pytest.raises(RunError, match="a window has 30 rows, and no entity of machine has more"):
        prepared_of(machines(20, 25), entity="machine", window=30)
    with pytest.raises(RunError, match="hold no window of 30 for"):
        prepared_of(series(60), window=30)


def test_a_run_of_windows_publishes_what_its_toml_gives_again(tmp_path: Path) -> None:
    report = fitted(series(), tmp_path)
    detector = Detector.from_bytes(Path(report.path).read_bytes())
    window = detector.manifest.window
    assert window is not None
    assert (window.rows, window.interval, window.gap) == (WINDOW, 60.0, 600.0)
    assert [feature.name for feature in detector.manifest.features] == ["a", "b"]
    # the innovations of both sensors have a standard deviation of 1
    assert window.expected_sd == pytest.approx((1.0, 1.0), abs=0.15)
    assert report.guarantee == "blocks"
    assert "windows in 5 held-out blocks of at together" in report.guarantee_reason
    again = run(load_config(Path(report.path).parent / "run.toml", {}))
    assert again.version == report.version


def test_later_rows_alarm_as_often_as_asked_and_a_change_that_a_row_hides_is_found(
    tmp_path: Path,
) -> None:
    report = fitted(series(4000), tmp_path, alpha=0.05)
    detector = Detector.from_bytes(Path(report.path).read_bytes())
    later_TF = series(4000, seed=9).select("a", "b").to_numpy().astype(np.float32)
    rate = float((detector.score(later_TF).score > detector.threshold.score).mean())
    assert 0.02 < rate < 0.1
    # a sensor that jumps to and fro within its range: no single row is odd
    jumping_TF = later_TF.copy()
    jumping_TF[2000:2100, 0] = np.where(np.arange(100) % 2, 1.5, -1.5)
    alarms_M = detector.score(jumping_TF).score > detector.threshold.score
    assert alarms_M[2000 : 2100 - WINDOW].mean() > 0.8


def test_as_many_rows_tell_as_the_autocorrelation_says() -> None:
    draw = np.random.default_rng(0)
    score_N = np.zeros(20_000, np.float32)
    noise_N = draw.normal(size=20_000)
    for t in range(1, 20_000):
        score_N[t] = 0.8 * score_N[t - 1] + noise_N[t]
    one_block = np.zeros(20_000, dtype=np.int64)
    # (1 - 0.8) / (1 + 0.8), of ranks nearly
    assert effective_rows(score_N, one_block) / 20_000 == pytest.approx(1 / 9, rel=0.15)
    # of white noise only positive sums are added up
    shuffled_N = draw.permutation(score_N)
    assert effective_rows(shuffled_N, one_block) / 20_000 == pytest.approx(1, abs=0.2)


def test_numbers_that_count_rows_are_no_seconds() -> None:
    dates = pl.datetime_range(pl.datetime(2026, 5, 4), pl.datetime(2026, 5, 5), "144s", eager=True)
    for at, is_clock in (
        (pl.Series(np.arange(ROWS)), False),
        (pl.Series(60.0 * np.arange(ROWS)), False),
        (pl.Series(1.7e9 + 60.0 * np.arange(ROWS)), True),
        (dates[:ROWS], True),
        (dates[:ROWS].dt.to_string("%Y-%m-%d %H:%M:%S"), True),
        (pl.Series(np.arange(ROWS)).cast(pl.String), False),
    ):
        assert data_of(series().with_columns(at=at), asked()).is_clock is is_clock


def test_a_model_of_another_window_is_not_replaced_unasked(tmp_path: Path) -> None:
    counted = fitted(series(start=0), tmp_path)
    window = Detector.from_bytes(Path(counted.path).read_bytes()).manifest.window
    assert window is not None
    assert window.interval is None  # a step of 60 that is no minute
    assert window.gap == 600.0
    with pytest.raises(RunError, match="serves a model that looks at 8 rows, this one would look"):
        fitted(series(), tmp_path, window=4)
    assert fitted(series(), tmp_path, window=4, force=True).version
