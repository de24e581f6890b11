"""`hourglass stream`: a file's rows told to a service as if they came now."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hourglass.service.__main__ import main
from hourglass.service.adapters import stream
from hourglass.service.model.artifact import Feature
from tests.artifacts import NUMERIC, make_windowed_artifact, publish, sample_rows
from tests.serving import free_port, serving

BEGIN = datetime(2026, 5, 4, tzinfo=UTC)
NAMES = [feature.name for feature in NUMERIC]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams") / "models"
    publish(folder, "plant", make_windowed_artifact(rows=4, gap=600.0))
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two pumps a minute apart, in no order; one of them goes wrong in row 60, for ten rows."""
    parts = []
    for seed, pump in ((3, "left"), (4, "right")):
        rows = sample_rows(NUMERIC, 120, seed=seed)
        if pump == "right":
            rows[60:70] += 200
        times = [f"{BEGIN + timedelta(minutes=i):%Y-%m-%d %H:%M:%S}" for i in range(120)]
        frame = pl.DataFrame(rows, schema=NAMES).with_columns(
            pl.Series("at", times), pl.lit(pump).alias("pump"), pl.lit("x").alias("not a feature")
        )
        parts.append(frame)
    path = tmp_path / "today.csv"
    pl.concat(parts).sample(fraction=1.0, shuffle=True, seed=0).write_csv(path)
    return path


def flags(table: Path, url: str, *more: str) -> list[str]:
    order = ["--name", "plant", "--time", "at", "--entity", "pump", "--speed", "0"]
    return ["stream", str(table), "--url", url, *order, *more]


def test_events_are_printed_as_they_open_with_their_reason_and_as_they_close(
    models: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(models, streams=tmp_path / "streams.sqlite") as client:
        url = str(client.base_url)
        assert main(flags(table, url)) == 0
        opened, closed, last = capsys.readouterr().out.splitlines()
        assert opened.startswith("2026-05-04 01:00:00  right: event opened, severity ")
        assert "differs as a whole: c is " in opened
        assert "right: event closed at 2026-05-04 01:12:00, 13 rows, peak 2026-05-04 01:" in closed
        assert last.startswith("240 rows of 2 entities in ")
        assert last.endswith("s: 1 event opened, 1 closed")
        # the service has judged each entity's rows in order
        entities = client.get("/v1/models/plant/streams").json()["entities"]
        assert {each["entity"]: each["rows"] for each in entities} == {"left": 120, "right": 120}
        # the newest rows alone would be answered alike: older ones are late
        assert main(flags(table, url)) == 2
        refused = capsys.readouterr().err
        assert "answered 409" in refused
        assert refused.rstrip().endswith("--afresh makes it forget this entity")
        assert refused.count("\n") == 1
        assert main(flags(table, url, "--afresh")) == 0
        assert "1 event opened, 1 closed" in capsys.readouterr().out


def test_without_an_entity_all_rows_are_of_the_file(
    models: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pl.read_csv(table).filter(pl.col("pump") == "left").write_parquet(table.with_suffix(".parquet"))
    with serving(models) as client:
        order = ["--name", "plant", "--time", "at", "--speed", "0"]
        data = str(table.with_suffix(".parquet"))
        assert main(["stream", data, "--url", str(client.base_url), *order]) == 0
        (only,) = client.get("/v1/models/plant/streams").json()["entities"]
    assert (only["entity"], only["rows"]) == ("today", 120)
    assert "120 rows of 1 entity" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_entity_is_named_as_the_file_has_it(models: Path, tmp_path: Path, suffix: str) -> None:
    """And the dialect of the file is that of `score`."""
    parts = []
    for name in ("007", "7"):
        rows = pl.DataFrame(sample_rows(NUMERIC, 6), schema=NAMES)
        times = pl.Series(
            "at", [f"{BEGIN + timedelta(minutes=i):%Y-%m-%d %H:%M}" for i in range(6)]
        )
        parts.append(rows.with_columns(times, pl.lit(name).alias("pump")))
    table, frame = tmp_path / f"pumps{suffix}", pl.concat(parts)
    if suffix == ".csv":
        frame.write_csv(table, separator=";", decimal_comma=True, include_header=False)
        columns = [f"column_{place}" for place in range(1, 7)]
        frame.columns = columns
    else:
        frame.write_parquet(table)
    with serving(tmp_path / "models", streams=tmp_path / "streams.sqlite") as client:
        names = frame.columns
        publish(tmp_path / "models", "plant", make_windowed_artifact(named(names[:4]), rows=4))
        client.post("/v1/models/plant/reload").raise_for_status()
        flags = ["--name", "plant", "--time", names[4], "--entity", names[5], "--speed", "0"]
        dialect = ["--separator", ";", "--decimal", ",", "--no-header"]
        more = dialect if suffix == ".csv" else []
        assert main(["stream", str(table), "--url", str(client.base_url), *flags, *more]) == 0
        entities = client.get("/v1/models/plant/streams").json()["entities"]
    assert {each["entity"]: each["rows"] for each in entities} == {"007": 6, "7": 6}


def named(names: list[str]) -> tuple[Feature, ...]:
    return tuple(Feature(name=name, kind="numeric") for name in names)


def test_rows_wait_for_their_times() -> None:
    time_N = np.array([0.0, 0, 10, 30, 30.5])
    started = time.monotonic()
    seen = [(time.monotonic() - started, part) for part in stream._due(time_N, speed=100.0)]
    assert [part.start for _, part in seen] == [0, *(part.stop for _, part in seen[:-1])]
    assert seen[0][1] == slice(0, 2)
    assert seen[-1][1].stop == 5
    for seconds, part in seen:
        assert seconds >= time_N[part.stop - 1] / 100 - 1e-3
    assert seen[-1][0] < 5
    many_N = np.zeros(stream.MOST_ROWS + 1)
    parts = list(stream._due(many_N, speed=0))
    assert parts == [slice(0, stream.MOST_ROWS), slice(stream.MOST_ROWS, stream.MOST_ROWS + 1)]


def test_rows_are_told_by_name_and_what_is_missing_is_left_out() -> None:
    features = [
        Feature(name="load", kind="numeric"),
        Feature(name="open", kind="boolean"),
        Feature(name="site", kind="categorical", categories=("north",)),
    ]
    frame = pl.DataFrame(
        {"site": ["north", None], "load": [1.5, None], "open": [True, None], "else": [1, 2]}
    )
    rows = stream._rows(frame, features, stream.USUAL)
    assert rows == [{"load": 1.5, "open": True, "site": "north"}, {}]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--name", "absent"], "answered 404"),
        (["--time", "hour"], "there is no column 'hour' to be the time; the columns are"),
        (["--time", "pump"], "time column 'pump', row 1: expected a date, a time"),
        (["--entity", "who"], "there is no column 'who' to be the entity"),
        (["--url", "ftp://127.0.0.1"], "--url: expected an address such as http://127.0.0.1:8000"),
        (["--url", "http://127.0.0.1:x"], "has no port that could be one"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    models: Path, table: Path, capsys: pytest.CaptureFixture[str], change: list[str], said: str
) -> None:
    with serving(models) as client:
        assert main([*flags(table, str(client.base_url)), *change]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_service_that_does_not_come_is_waited_for_and_then_named(
    table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PATIENCE_SECONDS", 0.3)
    url = f"http://127.0.0.1:{free_port()}"
    started = time.monotonic()
    assert main(flags(table, url)) == 2
    assert time.monotonic() - started > 0.3
    assert f"hourglass: no answer from {url}: " in capsys.readouterr().err


@pytest.mark.parametrize("speed", ["-1", "inf", "nan", "fast"])
def test_a_speed_is_a_number(table: Path, capsys: pytest.CaptureFixture[str], speed: str) -> None:
    with pytest.raises(SystemExit):
        main([*flags(table, "http://127.0.0.1:1"), "--speed", speed])
    assert f"expected a number of at least 0, got '{speed}'" in capsys.readouterr().err
