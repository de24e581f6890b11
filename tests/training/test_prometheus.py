"""A run that asks a real Prometheus for its rows."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from hourglass.service.model.artifact import Feature, Queries
from hourglass.training.__main__ import main
from hourglass.training.config import RunConfig, load_config, write_config
from hourglass.training.data import prepare
from hourglass.training.errors import RunError
from hourglass.training.prometheus import PrometheusConfig, ask, say_missing
from hourglass.training.retrain import Rows, next_run
from hourglass.training.split import data_of, read_rows_of
from tests import prometheus as real
from tests.prometheus import Written
from tests.serving import free_port

ROWS, STEP = 300, 30
END = int(time.time()) // STEP * STEP - 7200
BEGIN = END - (ROWS - 1) * STEP
HOLE = range(100, 120)
QUERIES = {"load": "load", "flow": "sum by (pump) (flow)", "air": "max(air)"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.Prometheus]:
    draw = np.random.default_rng(0)
    times = [BEGIN + STEP * row for row in range(ROWS)]
    written = [Written("air", {}, [(at, 20.0) for at in times])]
    for pump in ("left", "right"):
        load = draw.normal(50, 5, ROWS)
        series = zip(times, load.tolist(), strict=True)
        known = [each for row, each in enumerate(series) if pump == "left" or row not in HOLE]
        written.append(Written("load", {"pump": pump, "unit": "kW"}, known))
        both = [(at, 2 * value) for at, value in known]
        if pump == "left":
            written += [Written("flow", {"pump": pump, "pipe": pipe}, both) for pipe in ("a", "b")]
    with real.running(tmp_path_factory.mktemp("prometheus"), written) as found:
        yield found


def asking(**changes: object) -> PrometheusConfig:
    config = PrometheusConfig(queries=QUERIES, range="150m", step="30s", until=float(END))
    return msgspec.structs.replace(config, **changes)


def test_each_label_set_is_an_entity_and_each_step_a_row(server: real.Prometheus) -> None:
    asked = ask(server.url, asking())
    assert asked.frame.columns == ["time", "entity", "load", "flow", "air"]
    left = asked.frame.filter(pl.col("entity") == '{pump="left"}')
    assert left["time"].to_list() == [float(BEGIN + STEP * row) for row in range(ROWS)]
    assert left["flow"].to_list() == pytest.approx([4 * load for load in left["load"]])
    assert set(asked.frame["air"]) == {20.0}
    right = asked.frame.filter(pl.col("entity") == '{pump="right"}')
    assert right["flow"].null_count() == right.height
    # five steps of 30 s the last sample is taken for the present, and then there is no row
    assert right.height == ROWS - len(HOLE) + 5
    assert asked.config.labels == ("pump",)
    assert say_missing(asked.frame, asked.config) == (
        f"many values are missing ('flow' {right.height / asked.frame.height:.0%}): Prometheus has"
        " none, or its samples were older than 5 steps of 30s; a longer --step, or more --late,"
        " takes older ones"
    )


def test_the_same_is_asked_again_with_what_was_written_down(server: real.Prometheus) -> None:
    flags = {"prometheus": server.url, "query": [f"{n}={q}" for n, q in QUERIES.items()]}
    config = load_config(None, {**flags, "range": "3h", "step": "30s", "name": "pumps"})
    assert (config.data, config.time, config.entity, config.window_rows) == (
        server.url, "time", "entity", 30,
    )  # fmt: skip
    first = read_rows_of(config)
    assert first.config.prometheus is not None
    again = msgspec.convert(msgspec.to_builtins(first.config), RunConfig)  # as run.toml keeps it
    assert read_rows_of(again).frame.equals(first.frame)
    assert write_config(again) == write_config(first.config)


def test_the_rows_feed_the_run_of_ordered_rows(server: real.Prometheus) -> None:
    config = load_config(
        None,
        {
            "prometheus": server.url, "query": ["load=load", "air=avg(air)"], "range": "5h",
            "step": "30s", "name": "pumps", "keep": ["air"],
        },
    )  # fmt: skip
    frame, config = read_rows_of(config)
    data = data_of(frame, config)
    assert [each.name for each in data.features] == ["load", "air"]
    # load has a unit more than avg(air), which is of all entities
    assert data.entity_names == ('{pump="left", unit="kW"}', '{pump="right", unit="kW"}')
    assert data.is_clock
    assert prepare(frame, ignore=("time", "entity")).normal_ND.shape[0] == frame.height


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"queries": {"flow": "flow * 2", "load": "load"}}, "query"),
        ({"queries": {"load": "load", "gone": "nowhere"}}, "query 'gone' has no series from 20"),
        ({"queries": {"load": "load +"}}, "expression 'load': .*parse error"),
        ({"until": 1e9}, "query 'load' has no series"),
        ({"queries": {"load": "load / 0"}}, "all values from 20.* are missing"),
        ({"queries": {"a": 'label_replace(load, "x", "1", "", "")', "b": "load"}}, None),
    ],
)
def test_what_cannot_be_rows_is_said(
    server: real.Prometheus, changes: dict[str, object], expected: str | None
) -> None:
    if expected is None:
        assert ask(server.url, asking(**changes)).config.labels == ("pump", "unit")
        return
    if "flow" in changes.get("queries", {}):  # type: ignore[operator]
        expected = "expression 'flow' has several values for .*: expected one, as max by .pump."
    with pytest.raises(RunError, match=expected):
        ask(server.url, asking(**changes))


def test_a_prometheus_that_is_away_ends_a_run_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    flags = ["--prometheus", url, "--query", "a=up", "--name", "x", "--models", str(tmp_path)]
    assert main(["fit", *flags]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"hourglass-train: no answer from {url}: ")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"prometheus": "http://a", "data": "x.csv"}, "expected DATA or --prometheus, got both"),
        ({"prometheus": "localhost:9090"}, "--prometheus: expected an address such as"),
        ({"prometheus": "http://a", "query": ["up"]}, "--query: expected NAME='PROMQL', got 'up'"),
        ({"prometheus": "http://a", "query": ["a=1", "a=2"]}, "--query: 'a' is named twice"),
        ({"prometheus": "http://a", "query": ["time=x"]}, "a query cannot have the name 'time'"),
        ({"prometheus": "http://a", "query": ["a="]}, "the query 'a' is empty"),
        ({"prometheus": "http://a", "query": ["a=x"], "step": "5"}, "step: expected a span such as"),
        ({"prometheus": "http://a", "query": ["a=x"], "range": "10s"}, "range 10s has not two steps"),
        ({"prometheus": "http://a", "query": ["a=x"], "late": 0}, "late must be at least 1 step"),
        ({"prometheus": "http://a"}, "is an address: expected a file, or what to ask"),
        ({"prometheus": "http://a", "query": ["a=x"], "time": "at"}, "--time names a column of a"),
        ({"data": "x.csv", "query": ["a=x"]}, "--query is of what a Prometheus is asked"),
        ({"data": "x.csv", "step": "1m"}, "--step is of what a Prometheus is asked"),
    ],
)  # fmt: skip
def test_flags_that_do_not_go_together_are_refused(flags: dict[str, object], expected: str) -> None:
    with pytest.raises(RunError, match=expected):
        load_config(None, {"name": "x", **flags})


def test_a_file_of_features_says_the_same_as_flags(tmp_path: Path) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text(
        'name = "x"\ndata = "http://a"\n[prometheus]\nstep = "15s"\n[prometheus.queries]\n'
        'load = "rate(x[1m])"\n'
    )
    flags = {"name": "x", "prometheus": "http://a", "step": "15s", "query": ["load=rate(x[1m])"]}
    assert load_config(toml, {}) == load_config(None, flags)


def test_a_retraining_asks_again_up_to_now(tmp_path: Path) -> None:
    flags = {"name": "x", "prometheus": "http://a", "query": ["load=load"]}
    before = load_config(None, flags)
    assert before.prometheus is not None
    asked = msgspec.structs.replace(before.prometheus, until=1.7e9, labels=("pump",))
    file = tmp_path / "run.toml"
    file.write_text(write_config(msgspec.structs.replace(before, prometheus=asked)))
    again = next_run(file, "x", Rows(None), tmp_path)
    assert again.data == "http://a"
    assert again.prometheus == msgspec.structs.replace(asked, until=None)
    assert next_run(file, "x", Rows("http://b"), tmp_path).data == "http://b"
    # rows of a file are not asked for, and what was asked stays known
    of_file = next_run(file, "x", Rows("rows.csv"), tmp_path)
    assert not of_file.asks_prometheus
    assert of_file.prometheus == again.prometheus
    file.write_text(write_config(load_config(None, {"name": "x", "data": "rows.csv"})))
    with pytest.raises(RunError, match="x was not fitted from a Prometheus: expected DATA"):
        next_run(file, "x", Rows(None), tmp_path)


def test_a_model_holds_the_expressions_of_its_features_alone() -> None:
    config = asking(labels=("pump",))
    features = [Feature(name=name, kind="numeric") for name in ("flow", "load")]
    assert config.of(features) == Queries(
        expressions=("sum by (pump) (flow)", "load"),
        labels=("pump",), step_seconds=30.0, late_seconds=150.0,
    )  # fmt: skip
    assert config.of([Feature(name="other", kind="numeric")]) is None
