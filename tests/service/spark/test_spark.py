"""Spark itself scores frames, classic and Connect, in processes and an environment of its own, with
Debian's Java.
"""

import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hourglass.service.adapters.files import COLUMNS, open_model, score_file
from hourglass.service.errors import InvalidSettings
from hourglass.service.model.artifact import Feature
from hourglass.spark import main, score
from tests.artifacts import (
    MIXED,
    NUMERIC,
    as_json_rows,
    make_artifact,
    make_windowed_artifact,
    sample_rows,
)
from tests.environment import ensure
from tests.lacking import lacking
from tests.serving import ROOT

pytestmark = pytest.mark.heavy

HERE = Path(__file__).parent
MANY = 400_000
ODD = tuple(
    Feature(name=name, kind="numeric", minimum=-3.0, maximum=3.0)
    for name in ("rate.in", "x y`z", "größe", "Score", "hourglass_score!")
)
WIDE = tuple(Feature(name=f"x{d}", kind="numeric", minimum=-3.0, maximum=3.0) for d in range(32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, and tables for them."""
    folder = tmp_path_factory.mktemp("spark")
    (folder / "single.onnx").write_bytes(make_artifact(MIXED, conditional=True))
    (folder / "ordered.onnx").write_bytes(make_windowed_artifact(rows=3))
    (folder / "odd.onnx").write_bytes(make_artifact(ODD, conditional=True))
    (folder / "wide.onnx").write_bytes(make_artifact(WIDE, conditional=True))
    names = [feature.name for feature in MIXED]
    cells = as_json_rows(MIXED, sample_rows(MIXED, 40, seed=3))
    cells[1][1] = cells[2][2] = cells[3][3] = None
    cells[4][0] = 9.0
    cells[5] = [None, None, None, 1.0]
    single = pl.DataFrame(cells, schema=names, orient="row").with_row_index("n")
    single = single.with_columns(pl.col("n").cast(pl.Int32))
    single.write_parquet(folder / "single.parquet")
    wrong = single.with_columns(heat=pl.lit("warm"))
    wrong.write_parquet(folder / "wrong.parquet")
    odd = pl.DataFrame(sample_rows(ODD, 40, seed=6), schema=[each.name for each in ODD])
    odd.with_columns(n=pl.Series(range(40), dtype=pl.Int32)).write_parquet(folder / "odd.parquet")
    rows_ND = sample_rows(NUMERIC, 40, seed=4)
    rows_ND[25, 1] = 9.0
    began = datetime(2026, 1, 1, tzinfo=UTC)
    ordered = pl.DataFrame(rows_ND, schema=[feature.name for feature in NUMERIC]).with_columns(
        n=pl.Series(range(40), dtype=pl.Int32),
        at=pl.Series(
            [began + timedelta(minutes=n) for n in range(40)], dtype=pl.Datetime("us", "UTC")
        ),
        machine=pl.Series(["east", "west"] * 20),
    )
    ordered.sample(fraction=1.0, shuffle=True, seed=0).write_parquet(folder / "ordered.parquet")
    many = pl.DataFrame(sample_rows(WIDE, MANY, seed=5), schema=[each.name for each in WIDE])
    many.write_parquet(folder / "many.parquet", row_group_size=50_000)
    return folder


class Spark:
    """Its environment, in which the package is found by the names it is imported by."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("java") is None:
            lacking("there is no java: apt-get install openjdk-17-jre-headless")
        self.folder = folder
        self.python = ensure(ROOT / "build" / "clients" / "spark", HERE / "spark.txt", "Spark's")
        self.names = folder / "names"
        (self.names / "hourglass").mkdir(parents=True)
        for name, at in (("service", "service"), ("spark", "service/spark")):
            (self.names / "hourglass" / name).symlink_to(ROOT / at)

    def run(self, *command: str | Path, request: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            input=request,
            env=os.environ
            | {"PYSPARK_PYTHON": str(self.python), "PYTHONPATH": str(self.names)}
            | {"SPARK_LOCAL_IP": "127.0.0.1", "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=600,  # beside a full machine
            check=False,
        )

    def answer(self, *way: str) -> dict[str, Any]:
        (snippet,) = re.findall(
            r"^```python\n(from hourglass.spark .*?)^```$",
            (ROOT / "service/README.md").read_text(),
            re.MULTILINE | re.DOTALL,
        )
        request = {"folder": str(self.folder), "count": MANY, "snippet": snippet}
        done = self.run(self.python, HERE / "spark_calls.py", *way, request=json.dumps(request))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def spark(folder: Path) -> Spark:
    return Spark(folder)


@pytest.fixture(scope="module")
def classic(spark: Spark) -> dict[str, Any]:
    return spark.answer()


@pytest.fixture(scope="module", params=["classic", "connect"])
def answer(request: pytest.FixtureRequest, spark: Spark) -> dict[str, Any]:
    if request.param == "classic":
        return request.getfixturevalue("classic")
    return spark.answer("connect")


def told_by_a_file(folder: Path, name: str, **order: str) -> pl.DataFrame:
    served, _ = open_model(folder / f"{name}.onnx")
    path = folder / f"{name}.parquet"
    return score_file(served, path, progress=lambda _done, _of: None, **order).sort("n")


def assert_alike(told: list[dict[str, Any]], expected: pl.DataFrame, names: list[str]) -> None:
    for name in names:
        assert [row[name] for row in told] == [
            pytest.approx(each, rel=1e-6) if isinstance(each, float) else each
            for each in expected[name].to_list()
        ], name


def test_a_frame_is_answered_as_the_command_answers_its_file(folder: Path, answer: dict[str, Any]):
    told = answer["single"]
    assert list(told[0]) == ["n", "site", *COLUMNS, "blamed"]
    assert_alike(told, told_by_a_file(folder, "single"), ["n", "site", *COLUMNS])
    assert told[4]["blamed"] == ["load"]
    assert told[4]["reason"].startswith("load is 9 kW where ")
    assert {told[5][name] for name in COLUMNS} == {None}
    strict = sum(bool(row["is_anomaly"]) for row in answer["strict"])
    assert 0 < strict <= sum(bool(row["is_anomaly"]) for row in told)


def test_the_readmes_function_finds_the_strange_rows(classic: dict[str, Any]):
    strange = [row for row in classic["single"] if row["is_anomaly"]]
    names = ["n", "severity", "reason", "blamed"]
    assert classic["strange"] == [{name: row[name] for name in names} for row in strange]
    assert 4 in [row["n"] for row in strange]


def test_results_get_a_prefix_where_the_frame_has_such_a_column_in_capitals_or_not(
    answer: dict[str, Any],
):
    assert answer["columns"][:5] == ["Score", "load", "open", "site", "heat"]
    assert answer["columns"][5:] == [f"hourglass_{name}" for name in (*COLUMNS, "blamed")]


def test_names_may_hold_what_spark_reads_as_paths(folder: Path, answer: dict[str, Any]):
    assert list(answer["odd"][0]) == [
        *(each.name for each in ODD), "n", *(f"hourglass_{name}" for name in (*COLUMNS, "blamed")),
    ]  # fmt: skip
    told = [{name: row[f"hourglass_{name}"] for name in COLUMNS} for row in answer["odd"]]
    assert_alike(told, told_by_a_file(folder, "odd"), [*COLUMNS])


@pytest.mark.parametrize("is_large", ["false", "true"])
def test_rows_of_an_entity_are_scored_in_order_wherever_they_lie(
    folder: Path, answer: dict[str, Any], is_large: str
):
    told = answer[f"ordered, {is_large}"]
    expected = told_by_a_file(folder, "ordered", time="at", entity="machine")
    names = [*COLUMNS, "warming"]
    assert_alike(
        [{"n": row["n"], **{name: row[f"hourglass_{name}"] for name in names}} for row in told],
        expected,
        ["n", *names],
    )
    assert sum(row["hourglass_warming"] for row in told) == 4
    assert told[25]["hourglass_blamed"] == ["b"]


def test_what_does_not_go_together_is_said_in_a_sentence(answer: dict[str, Any]):
    refused = answer["refused"]
    assert refused["cell"].startswith("column 'heat', row 1: expected a number, got 'warm'")
    assert refused["column"].startswith("the frame has no column 'heat', which is asked for; its")
    assert refused["kept"].startswith("the frame has no column 'm'")
    assert refused["order"].startswith(
        "a model of rows in order needs the columns time= and entity="
    )
    assert "scores single rows, whatever their order" in refused["no order"]
    assert refused["twice"] == "the frame has several columns 'heat'"
    assert refused["taken"].startswith("the frame has the columns 'score' and 'hourglass_score'")
    assert refused["alpha"] == "alpha: expected a number from 1e-9 to 0.5, got 5"


def readmes_command(folder: Path, out: str) -> list[str]:
    """The README's for spark-submit, with files of this test."""
    (found,) = re.findall(
        r"^\.venv/bin/spark-submit .*$", (ROOT / "service/README.md").read_text(), re.MULTILINE
    )
    instead = {
        "service/spark/__main__.py": str(ROOT / "service/spark/__main__.py"),
        "rows.parquet": str(folder / "single.parquet"),
        "scored.parquet": str(folder / out),
        "models/pump": str(folder / "single.onnx"),
    }
    words = found.split()
    assert {*instead} <= {*words}
    return [instead.get(word, word) for word in words[1:]]


def test_spark_submit_and_python_read_parquet_and_write_parquet(folder: Path, spark: Spark):
    expected = told_by_a_file(folder, "single")
    submit = spark.run(
        spark.python.with_name("spark-submit"), *readmes_command(folder, "submitted")
    )
    assert submit.returncode == 0, submit.stderr
    script = (spark.python, "-m", "hourglass.spark")
    asked = ("--model", "single.onnx", "--columns", "n")
    done = spark.run(*script, "single.parquet", "out", *asked)
    assert done.returncode == 0, done.stderr
    for name in ("submitted", "out"):
        written = pl.read_parquet(folder / name / "*.parquet").sort("n")
        assert_alike(written.to_dicts(), expected, ["n", *COLUMNS])
    for data, out, said in (
        ("wrong.parquet", "no", "column 'heat', row 1: expected a number, got 'warm'"),
        ("single.parquet", "out", "[PATH_ALREADY_EXISTS]"),
    ):
        done = spark.run(*script, data, out, *asked)
        assert (done.returncode, done.stderr.splitlines()[-1][: len(said)]) == (2, said)
        assert "Traceback" not in done.stderr.splitlines()[-1]


def test_all_of_many_rows_are_written_and_it_is_measured_how_fast(
    folder: Path, classic: dict[str, Any]
):
    print({name: f"{rate:,.0f} rows/s" for name, rate in classic["rates"].items()})
    assert len(pl.read_parquet(folder / "many-scored" / "*.parquet")) == MANY


def test_without_the_extra_it_says_what_to_install():
    with pytest.raises(InvalidSettings, match=r"pip install 'hourglass\[spark\]'"):
        score(None, make_artifact())  # Spark is in an environment of its own, and not in this one


def test_without_the_extra_the_script_says_so(capsys: pytest.CaptureFixture[str]):
    assert main(["rows.parquet", "scored.parquet", "--model", "models/pump"]) == 2
    assert capsys.readouterr().err.endswith("pip install 'hourglass[spark]'\n")
