"""Fits from a folder of Parquet files, of whose rows not all are drawn."""

from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
import torch

from hourglass.service.errors import InvalidTable
from hourglass.training.config import RunConfig, load_config
from hourglass.training.core import Core
from hourglass.training.errors import RunError
from hourglass.training.ranks import ALONE
from hourglass.training.run import run
from hourglass.training.split import Prepared, data_of, excluded_of, split_data, table_of
from hourglass.training.streamed import share_sums
from hourglass.training.trial import absorb_held_out, fit_trial
from tests.training import tables

ROWS, DRAWN, FILES = 3000, 900, 3


def write(table: pl.DataFrame, folder: Path) -> Path:
    for number, part in enumerate(np.array_split(np.arange(table.height), FILES)):
        tables.write(table[part.tolist()], folder / f"{number}.parquet")
    return folder


def config_of(data: Path, **flags: object) -> RunConfig:
    given = {"data": str(data), "name": "pump", "models": str(data.parent / "models"), "folds": 0}
    config = load_config(None, {"preset": "fast", **given, **flags})
    return msgspec.structs.replace(config, max_rows=DRAWN, fitted_at=0.0, report=False)


def prepared_of(config: RunConfig) -> Prepared:
    table = table_of(config)
    data = data_of(table, config, excluded_of(table, config))
    return share_sums(split_data(data, config), ALONE)


def numbers(rows: int = ROWS) -> pl.DataFrame:
    return pl.DataFrame(tables.correlated(rows), schema=[f"x{i}" for i in range(4)])


@pytest.mark.slow
def test_of_a_folder_that_is_drawn_whole_the_model_has_the_same_bytes(tmp_path: Path) -> None:
    table = tables.mixed(400)
    folder, file = write(table, tmp_path / "rows"), tables.write(table, tmp_path / "rows.parquet")
    versions = [
        run(
            msgspec.structs.replace(
                config_of(data, label="fault", variant="linear", preset=None), max_rows=10_000
            )
        ).version
        for data in (folder, file)
    ]
    assert versions[0] == versions[1]


def test_the_rows_drawn_are_those_of_the_whole_table(tmp_path: Path) -> None:
    table = tables.mixed(ROWS)
    folder, file = write(table, tmp_path / "rows"), tables.write(table, tmp_path / "rows.parquet")
    streamed, whole = (
        data_of(table_of(config), config)
        for config in (config_of(folder, label="fault"), config_of(file, label="fault"))
    )
    assert np.array_equal(streamed.normal_ND, whole.normal_ND, equal_nan=True)
    assert np.array_equal(streamed.anomalies_AD, whole.anomalies_AD, equal_nan=True)
    assert np.array_equal(streamed.number_N, whole.number_N)
    assert (streamed.features, streamed.warnings) == (whole.features, whole.warnings)
    assert streamed.undrawn is not None
    assert streamed.undrawn.rows_R.sum() == ROWS - DRAWN


def test_sums_are_over_all_rows_but_those_held_out(tmp_path: Path) -> None:
    table = numbers()
    prepared = prepared_of(config_of(write(table, tmp_path / "rows")))
    held_out_MD = np.concatenate(prepared.split[1:])
    rows = {row.tobytes() for row in table.to_numpy()} - {row.tobytes() for row in held_out_MD}
    fitted_ND = np.array([np.frombuffer(row, dtype=np.float32) for row in rows]).astype(float)
    assert prepared.measures is not None
    assert prepared.measures.rows == len(fitted_ND) == ROWS - len(held_out_MD)
    np.testing.assert_allclose(prepared.measures.mean_D, fitted_ND.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(prepared.measures.deviation_D, fitted_ND.std(axis=0), rtol=1e-9)
    assert [each.minimum for each in prepared.features] == fitted_ND.min(axis=0).tolist()
    assert "of the other rows 2,100 count in means" in prepared.data.warnings[-1]


def test_a_copy_of_a_held_out_row_is_in_no_sum(tmp_path: Path) -> None:
    table = numbers(ROWS // 2)
    prepared = prepared_of(config_of(write(pl.concat([table] * 2), tmp_path / "rows")))
    held_out = {row.tobytes() for row in np.concatenate(prepared.split[1:])}
    copies = sum(row.tobytes() in held_out for row in table.to_numpy())
    assert prepared.measures is not None
    assert prepared.measures.rows == 2 * (ROWS // 2 - copies)


def test_closed_forms_are_those_of_all_rows(tmp_path: Path) -> None:
    prepared = prepared_of(config := config_of(write(numbers(), tmp_path / "rows")))
    streamed = fit_trial(prepared, config, config.model)
    absorb_held_out(streamed, prepared.split, 0)
    held_out = {row.tobytes() for row in np.concatenate(prepared.split[1:])}
    others = [row for row in numbers().to_numpy() if row.tobytes() not in held_out]
    split = prepared.split._replace(fit_ND=np.array(others))
    whole = fit_trial(
        share_sums(prepared._replace(data=prepared.data._replace(undrawn=None)), ALONE)._replace(
            split=split, measures=None
        ),
        config,
        config.model,
    )
    first, second = (trial.core.state_dict() for trial in (streamed, whole))
    for name in ("encoding.center_E", "views.scale_VE", "ridge.answer_PE", "half_whiten.root"):
        torch.testing.assert_close(
            first[f"member.{name}"], second[f"member.{name}"], rtol=1e-5, atol=1e-6, msg=name
        )
    assert torch.equal(first["reach.middle_D"], second["reach.middle_D"])
    assert isinstance(streamed.core, Core)
    assert streamed.core.conditional is not None


def test_a_category_that_was_not_drawn_is_known(tmp_path: Path) -> None:
    site = ["rare"] * 2 + ["usual"] * (ROWS - 2)
    config = config_of(write(numbers().with_columns(site=pl.Series(site)), tmp_path / "rows"))
    data = data_of(table_of(config), config)
    assert data.features[4].categories == ("rare", "usual")


def test_a_bad_cell_anywhere_is_refused_with_its_file_and_row(tmp_path: Path) -> None:
    x = numbers()["x1"].to_numpy().copy()
    x[-1] = np.inf
    config = config_of(write(numbers().with_columns(x1=pl.Series(x)), tmp_path / "rows"))
    with pytest.raises(InvalidTable, match=r"column 'x1', row 1000 of \S+2\.parquet: expected a f"):
        data_of(table_of(config), config)


@pytest.mark.parametrize("flags", [{"contamination": 0.1}, {"time": "x0", "window": 1}])
def test_rows_not_drawn_are_left_alone_where_who_is_fitted_depends_on_them(
    flags: dict[str, object], tmp_path: Path
) -> None:
    config = config_of(write(numbers(), tmp_path / "rows"), **flags)
    data = data_of(table_of(config), config)
    data = data.without(np.arange(len(data.normal_ND)) < 5)
    assert data.undrawn is None


def test_windows_are_of_the_newest_rows(tmp_path: Path) -> None:
    table = numbers().with_columns(at=pl.int_range(ROWS, eager=True).shuffle(seed=0))
    config = config_of(write(table, tmp_path / "rows"), time="at")
    data = data_of(table_of(config), config)
    assert data.time_N is not None
    assert (data.time_N.min(), len(data.time_N)) == (ROWS - DRAWN, DRAWN)
    assert data.undrawn is None


def test_a_folder_without_files_is_said_to_hold_none(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    with pytest.raises(RunError, match="holds no Parquet files"):
        table_of(config_of(tmp_path / "rows"))
