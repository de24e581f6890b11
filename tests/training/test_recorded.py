"""Rows that the service recorded, read by a retraining."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hourglass.service.model.artifact import Feature
from hourglass.service.watch.record_place import Folder
from hourglass.service.watch.recording import ALARM, ANSWERS, TIME, Recorded, Recording
from hourglass.training.config import RunConfig, load_config, write_config
from hourglass.training.errors import RunError
from hourglass.training.recorded import read_recording
from hourglass.training.retrain import Rows, next_run, of_recorded
from hourglass.training.split import data_of, excluded_of, table_of
from tests.training import tables

MIXED = (
    Feature(name="id", kind="numeric"),
    Feature(name="open", kind="boolean"),
    Feature(name="code", kind="categorical", categories=("007", "008")),
)


def record(
    folder: Path,
    rows_ND: tables.Float32,
    *,
    features: tuple[Feature, ...] = MIXED,
    at: float = 1.79e9,
    alarms: int = 0,
    entity: str | None = None,
) -> None:
    """As the service does; the last rows alarmed."""
    count = len(rows_ND)
    zeros_N = np.zeros(count, np.float32)
    Recording(Folder(folder), most_bytes=2**30).write(
        "pump",
        "v",
        features,
        [
            Recorded(
                rows_ND,
                at + 60.0 * np.arange(count),
                zeros_N,
                zeros_N,
                np.arange(count) >= count - alarms,
                [entity] * count,
            )
        ],
    )


def mixed_rows(rows: int, seed: int = 0) -> tables.Float32:
    draw = np.random.default_rng(seed)
    columns = np.arange(rows), draw.integers(0, 2, rows), draw.integers(0, 2, rows)
    return np.stack(columns, axis=1).astype(np.float32)


def test_columns_are_features_whatever_they_look_like_and_answers_are_none(tmp_path: Path) -> None:
    record(tmp_path, mixed_rows(100))
    config = of_recorded(
        RunConfig(data=str(tmp_path), name="pump", label="bad", normal="0", ignore=("at",)),
        MIXED,
        read_recording(str(tmp_path), "pump"),
    )
    assert (config.label, config.time, config.ignore) == (None, None, ())
    assert config.fitted_at == 1.79e9 + 99 * 60
    data = data_of(table_of(config), config)
    assert [(each.name, each.kind) for each in data.features] == [
        (each.name, each.kind) for each in MIXED
    ]
    assert data.features[2].categories == ("007", "008")
    assert np.array_equal(data.normal_ND, mixed_rows(100))
    assert data.warnings == ()
    by_hand = load_config(None, {"data": str(tmp_path), "name": "pump", "keep": ("id",)})
    with pytest.raises(RunError, match="'007' begins with 0"):
        data_of(table_of(by_hand), by_hand)
    assert {*table_of(by_hand).columns} >= {*ANSWERS}  # which are ignored


def test_after_recorded_rows_a_file_is_read_as_the_last_file_was(tmp_path: Path) -> None:
    record(tmp_path / "recorded", mixed_rows(100), entity="a")
    rows = read_recording(str(tmp_path / "recorded"), "pump")
    told = {
        "label": "bad", "normal": "0", "ignore": ("at",), "null": ("-",), "keep": ("code",),
        "categorical": ("code",), "time": "when", "entity": "machine",
    }  # fmt: skip
    config, models = RunConfig(data="first.csv", name="pump", **told), str(tmp_path)
    for _ in range(2):  # recorded rows twice in a row
        file = tmp_path / "run.toml"
        file.write_text(write_config(of_recorded(config, MIXED, rows)))
        assert load_config(file, {}).label is None
        config = next_run(file, "pump", Rows(str(tmp_path / "recorded")), models)
    config = next_run(file, "pump", Rows("next.csv"), models)
    assert {name: getattr(config, name) for name in told} == told
    assert (config.data, config.file_columns) == ("next.csv", None)


def test_rows_are_left_out_by_when_they_were_recorded(tmp_path: Path) -> None:
    record(tmp_path, mixed_rows(100))
    recorded = read_recording(str(tmp_path), "pump")
    config = of_recorded(RunConfig(data=str(tmp_path), name="pump", recent="30m"), MIXED, recorded)
    assert excluded_of(recorded, config) == tuple(range(1, 70))  # the newest is 99 minutes on
    with pytest.raises(ValueError, match="recent is of rows that have a time"):
        RunConfig(data="rows.csv", name="pump", recent="30m")


def test_of_windows_each_entity_has_its_rows_in_their_order(tmp_path: Path) -> None:
    for entity, seed in (("pump-1", 1), ("pump-2", 2)):
        record(tmp_path, mixed_rows(100, seed), entity=entity)
    config = of_recorded(
        RunConfig(data=str(tmp_path), name="pump", time="at", entity="machine", window=10),
        MIXED,
        read_recording(str(tmp_path), "pump"),
    )
    assert (config.time, config.entity) == (TIME, "hourglass_entity")
    data = data_of(table_of(config), config)
    assert data.entity_names == ("pump-1", "pump-2")
    assert data.is_clock
    assert data.entity_N is not None
    assert np.array_equal(data.normal_ND[data.entity_N == 1], mixed_rows(100, 2))


def test_what_does_not_go_together_is_said_with_its_file(tmp_path: Path) -> None:
    def refused(name: str = "pump") -> str:
        with pytest.raises(RunError) as raised:
            read_recording(str(tmp_path), name)
        return str(raised.value)

    assert "no recorded rows of 'pump': expected" in refused()
    record(tmp_path, mixed_rows(10))
    folder = next(tmp_path.glob("pump/*"))
    own = pl.read_parquet(next(folder.glob("*.parquet")))
    (folder / ".open.parquet-abc").write_bytes(b"half")  # is not read
    (folder / "000000-x-1-1.parquet").write_bytes(b"torn")
    assert "000000-x-1-1.parquet cannot be read" in refused()
    pl.DataFrame({"id": [1.0]}).write_parquet(folder / "000000-x-1-1.parquet")
    assert "was not written by hourglass serve --record: it lacks hourglass_time" in refused()
    other = own.rename({"open": "shut"})
    other.write_parquet(folder / "000000-x-1-1.parquet")
    assert "(differing: open, shut)" in refused()
    (folder / "000000-x-1-1.parquet").unlink()
    assert read_recording(str(tmp_path), "pump").height == 10
    assert read_recording(str(tmp_path / "pump"), "pump").height == 10
    config = RunConfig(data=str(tmp_path), name="pump", group="machine")
    with pytest.raises(RunError, match="was fitted with --group machine"):
        of_recorded(config, MIXED, read_recording(str(tmp_path), "pump"))


def test_a_category_that_was_not_known_is_missing_and_said(tmp_path: Path) -> None:
    rows_ND = mixed_rows(50)
    rows_ND[3, 2] = -1
    record(tmp_path, rows_ND, alarms=2)
    config = of_recorded(
        RunConfig(data=str(tmp_path), name="pump"), MIXED, read_recording(str(tmp_path), "pump")
    )
    frame = table_of(config)
    assert frame[ALARM].sum() == 2
    data = data_of(frame, config)
    assert np.isnan(data.normal_ND[3, 2])
    (warning,) = data.warnings
    assert warning.startswith("1 of 50 recorded rows hold a category")
    assert "(of code)" in warning
