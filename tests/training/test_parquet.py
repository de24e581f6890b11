from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hourglass.service.errors import InvalidTable
from hourglass.training import parquet
from hourglass.training.errors import RunError
from hourglass.training.parquet import Parquet, files_below, is_large
from tests.training import tables

TABLE = tables.mixed(300)


def write(folder: Path, table: pl.DataFrame = TABLE, files: int = 3) -> Path:
    """The table in so many files, some in a folder of their own."""
    for number, part in enumerate(np.array_split(np.arange(table.height), files)):
        tables.write(table[part.tolist()], folder / "abc"[number] / f"{number}.parquet")
    return folder


def test_a_folder_is_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "STRETCH", 50)
    (write(tmp_path) / ".hidden.parquet").write_bytes(b"no file")
    (tmp_path / "_SUCCESS").touch()
    table = Parquet(files_below(tmp_path))
    assert (table.columns, table.height) == (TABLE.columns, TABLE.height)
    for column in TABLE.columns:
        assert table[column].equals(TABLE[column])
    taken = pl.Series(np.random.default_rng(0).random(TABLE.height) < 0.3)
    assert table.filter(taken).equals(TABLE.filter(taken))
    stretches = list(table.stretches())
    assert max(stretch.rows for stretch in stretches) == 50
    assert pl.concat(table.read(each, TABLE.columns) for each in stretches).equals(TABLE)


def test_cells_that_mean_a_missing_value_are_missing(tmp_path: Path) -> None:
    table = Parquet(files_below(write(tmp_path)), null=("5", "west"))
    assert table["fixed"].null_count() == TABLE.height
    assert set(table["site"].drop_nulls()) == {"north", "south"}


def test_files_that_differ_are_refused_with_file_and_column(tmp_path: Path) -> None:
    def refused() -> str:
        with pytest.raises(RunError) as raised:
            Parquet(files_below(tmp_path))
        return str(raised.value)

    odd = write(tmp_path) / "b/1.parquet"
    tables.write(TABLE.with_columns(pl.col("load").cast(pl.String)), odd)
    assert "b/1.parquet: expected the columns of" in refused()
    assert "got column 'load' of String where that has column 'load' of Float64" in refused()
    tables.write(TABLE.drop("load"), odd)
    assert "got no column 'load'" in refused()
    tables.write(TABLE.select(sorted(TABLE.columns)), odd)
    assert "in its order, got 'broken' elsewhere" in refused()
    odd.write_bytes(b"torn")
    with pytest.raises(InvalidTable, match=r"b/1\.parquet cannot be read"):
        Parquet(files_below(tmp_path))


def test_a_row_is_named_by_its_file(tmp_path: Path) -> None:
    table = Parquet(files_below(write(tmp_path)))
    said = table.place("column 'x', row 108: got inf (of 320 rows)")
    assert said == f"column 'x', row 1 of {tmp_path}/b/1.parquet: got inf (of 320 rows)"


def test_one_file_is_large_by_its_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tables.write(TABLE, tmp_path / "rows.parquet")
    assert not is_large(file)
    monkeypatch.setattr(parquet, "LARGE", 1000)
    assert is_large(file)
    assert not is_large(tmp_path)
    assert not is_large(tables.write(TABLE, tmp_path / "rows.csv"))
