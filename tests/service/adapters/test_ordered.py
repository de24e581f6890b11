"""Files of rows in order, through a windowed model."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hourglass.service.__main__ import main
from hourglass.service.adapters import files
from hourglass.service.adapters.files import open_model, score_file
from hourglass.service.adapters.replay import replay_file
from hourglass.service.errors import InvalidSettings, InvalidTable
from hourglass.service.model.served import Served
from tests.artifacts import (
    NUMERIC,
    as_json_rows,
    make_artifact,
    make_windowed_artifact,
    publish,
    sample_rows,
)
from tests.serving import serving

NAMES = [feature.name for feature in NUMERIC]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish(folder, "pump", make_windowed_artifact(gap=600.0))
    publish(folder, "single", make_artifact())
    return folder


@pytest.fixture(scope="module")
def served(models: Path) -> Served:
    return open_model(models / "pump")[0]


def table(rows: int = 60) -> pl.DataFrame:
    """Two machines by turns, a minute between their rows, an hour's pause in the middle."""
    rows_ND = sample_rows(NUMERIC, rows, seed=4)
    rows_ND[30, 1], rows_ND[45] = 9.0, np.nan
    minutes = pl.Series([n // 2 + 60 * (n >= rows // 2) for n in range(rows)])
    return pl.DataFrame(rows_ND, schema=NAMES).with_columns(
        machine=pl.Series(["07", "8"] * (rows // 2)),
        at=pl.datetime(2026, 1, 1) + pl.duration(minutes=minutes),
        fault=pl.Series([int(n == 44) for n in range(rows)]),
    )


def quiet(done: int, total: int) -> None:
    """Tell nobody."""


def write(frame: pl.DataFrame, path: Path) -> Path:
    frame.write_csv(path) if path.suffix == ".csv" else frame.write_parquet(path)
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("chunk", [files.CHUNK_ROWS, 5])
def test_a_file_in_any_order_is_answered_as_over_http(
    models: Path,
    served: Served,
    tmp_path: Path,
    ending: str,
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "CHUNK_ROWS", chunk)
    frame = table()
    body = {
        "rows": as_json_rows(NUMERIC, frame.select(NAMES).to_numpy().astype(np.float32)),
        "entity": frame["machine"].to_list(),
        "time": [f"{at.isoformat()}Z" for at in frame["at"]],
    }
    with serving(models) as client:
        answer = client.post("/v1/models/pump/explain?top=1", json=body).raise_for_status().json()
    shuffled = frame.with_row_index("n").sample(fraction=1.0, shuffle=True, seed=2)
    path = write(shuffled, tmp_path / f"rows.{ending}")
    scored = score_file(served, path, time="at", entity="machine", progress=quiet).sort("n")
    assert answer["warming"].count(True) == 12
    assert sum(score is None for score in answer["score"]) == 13
    for name in (*files.COLUMNS, files.WARMING):
        assert scored[name].to_list() == [
            pytest.approx(each, rel=1e-6) if isinstance(each, float) else each
            for each in answer[name]
        ]
    assert any(answer["reason"])


def test_without_columns_the_files_rows_are_one_entitys_in_order(
    served: Served, tmp_path: Path
) -> None:
    frame = table()
    scored = score_file(served, write(frame, tmp_path / "rows.csv"), progress=quiet)
    rows_ND = frame.select(NAMES).to_numpy().astype(np.float32)
    expected = served.detector.score(rows_ND).score
    np.testing.assert_array_equal(scored["score"].to_numpy()[3:], expected)
    assert scored["score"].null_count() == 4  # and one that holds nothing


def test_names_that_are_taken_are_written_apart(served: Served, tmp_path: Path) -> None:
    path = write(table().with_columns(warming=pl.lit(1)), tmp_path / "rows.csv")
    scored = score_file(served, path, progress=quiet)
    assert scored["hourglass_warming"].sum() == 3
    assert "3 rows have fewer than 3 rows before them" in files.summarise(served, scored)


def test_what_a_file_lacks_is_said(models: Path, served: Served, tmp_path: Path) -> None:
    path = write(table(), tmp_path / "rows.csv")
    with pytest.raises(InvalidTable, match="no column 'when' to be the time; the columns are 'a'"):
        score_file(served, path, time="when", progress=quiet)
    bad = write(table().with_columns(machine=pl.lit("east")), tmp_path / "bad.csv")
    with pytest.raises(InvalidTable, match="time column 'machine', row 1"):
        score_file(served, bad, time="machine", progress=quiet)
    single, _ = open_model(models / "single")
    with pytest.raises(InvalidSettings, match=r"single scores single rows, .*: no --entity"):
        score_file(single, path, entity="machine", progress=quiet)
    with pytest.raises(InvalidSettings, match="no --time"):
        replay_file(single, path, time="at", progress=quiet)


def test_a_replay_counts_judged_rows_and_episodes_of_one_machine(
    served: Served, tmp_path: Path
) -> None:
    path = write(table(), tmp_path / "rows.csv")
    replayed = replay_file(
        served, path, alphas=[0.05], label="fault", time="at", entity="machine", progress=quiet
    )
    assert (replayed.rows, replayed.refused_rows, replayed.warming_rows) == (47, 1, 12)
    assert all(each.first % 2 == each.last % 2 for each in replayed.alphas[0].episodes)


def test_the_commands_say_it_in_words(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = str(write(table(), tmp_path / "rows.csv")), str(tmp_path / "scores.csv")
    order = ["--time", "at", "--entity", "machine"]
    assert main(["score", str(models / "pump"), path, *order, "--output", output]) == 0
    said = capsys.readouterr().out
    assert "60 rows scored by pump" in said
    assert "12 rows have fewer than 3 rows before them: not scored" in said
    assert "1 rows hold too few values" in said
    assert pl.read_csv(output)["warming"].sum() == 12
    assert main(["score", str(models / "pump"), path]) == 0
    assert "mostly because of" in capsys.readouterr().out
    assert main(["replay", str(models / "pump"), path, *order]) == 0
    assert "12 have too few rows before them" in capsys.readouterr().out
    assert main(["inspect", str(models / "pump")]) == 0
    assert (
        "4 rows in order of time, the judged one last (residual), counted; after a step of over"
        " 600 a new one begins" in capsys.readouterr().out
    )
    assert main(["inspect", str(models / "single")]) == 0
    assert "single rows, in any order" in capsys.readouterr().out
    assert main(["score", str(models / "single"), path, "--time", "at"]) == 2
    assert "scores single rows" in capsys.readouterr().err


def test_each_entitys_rows_are_judged_by_its_baseline_and_who_has_none_is_told_of(
    tmp_path: Path,
) -> None:
    data = make_windowed_artifact(gap=600.0, entities={"07": (100.0, 5.0)})
    publish(tmp_path, "fleet", data)
    served, _ = open_model(tmp_path / "fleet")
    frame = table()
    path = write(frame, tmp_path / "rows.csv")
    scored = score_file(served, path, time="at", entity="machine", progress=quiet)
    is_known = frame["machine"] == "07"
    assert scored["known_entity"].to_list() == is_known.to_list()
    for name in ("07", "8"):
        own = frame.filter(pl.col("machine") == name).select(NAMES).to_numpy().astype(np.float32)
        expected = served.detector.of(name).score(own[:15]).score
        found = scored.filter(pl.col("machine") == name)["score"].to_numpy()[3:15]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert "30 rows are of no entity that the model knows" in files.summarise(served, scored)
    assert "a level and spread of each of 1 entities" in files.describe(served)
    alone = replay_file(served, path, time="at", entity="machine", alphas=[0.05], progress=quiet)
    assert alone.alphas[0].alarms == scored["is_anomaly"].sum()
