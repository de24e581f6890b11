"""Choosing between members: by injected anomalies and held-out error, never by labels."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import polars as pl
import pytest

from hourglass.service.serving.store import ModelFolder
from hourglass.training.compare import Comparison, compare, held_out_error, pick, power
from hourglass.training.config import AutoConfig, RunConfig, load_config
from hourglass.training.models.linear import LinearConfig
from hourglass.training.presets import PRESETS
from hourglass.training.run import run
from hourglass.training.trial import fit_trial
from tests.training import tables
from tests.training.conftest import Outcome
from tests.training.stages import prepare_rows


def config(folder: Path, table: pl.DataFrame, **more: object) -> RunConfig:
    path = tables.write(table, folder / "rows.csv")
    given = {"data": str(path), "name": "pump", "models": str(folder / "models"), "label": "fault"}
    return load_config(None, {**given, "folds": 0, **more})


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("comparison")
    auto = AutoConfig(variants=("plain",), epochs=40)
    return compare(config(folder, tables.mixed()), auto)


def test_the_most_powerful_is_chosen() -> None:
    chosen, reason = pick({"plain": (0.9, 0.5), "linear": (0.5, 0.1)}, injected=400)
    assert chosen == "plain"
    assert reason == "plain finds the most injected anomalies, 90.0%"


def test_of_those_within_one_standard_error_the_least_held_out_error_is_chosen() -> None:
    # the standard error of .9 over 400 is .015
    chosen, reason = pick(
        {"plain": (0.9, 0.5), "linear": (0.89, 0.1), "tied": (0.88, 0.0)}, injected=400
    )
    assert chosen == "linear"
    assert reason.endswith(
        "find 90.0% of the injected anomalies, give or take 1.5% (the others: plain)"
    )


@pytest.mark.slow
def test_linear_is_always_compared(comparison: Comparison) -> None:
    assert [candidate.variant for candidate in comparison.candidates] == ["plain", "linear"]


@pytest.mark.slow
def test_every_figure_is_measured(comparison: Comparison) -> None:
    for candidate in comparison.candidates:
        assert 0 < candidate.held_out_error < 10
        assert 0.05 < candidate.power <= 1
        assert candidate.auroc is not None
        assert candidate.auroc > 0.9
        assert candidate.average_precision is not None
        assert 5_000 < candidate.size_bytes < 500_000
        assert candidate.fit_seconds > 0
        assert candidate.one_row_microseconds > candidate.bulk_row_microseconds > 0


@pytest.mark.slow
def test_a_preset_is_compared_by_rows_that_it_has_not_learnt_from(tmp_path: Path) -> None:
    # `fast` is exported with the held-out rows in its mixture, as they may be once they have
    # decided
    run_config = config(tmp_path, tables.mixed())
    auto = AutoConfig(variants=("fast",))
    fast, linear = compare(run_config, auto).candidates
    assert (fast.variant, linear.variant) == ("fast", "linear")
    prepared = prepare_rows(run_config)
    trial = fit_trial(prepared, run_config, PRESETS["fast"])
    assert fast.power == power(trial, prepared, run_config.seed)
    assert fast.held_out_error == held_out_error(trial)


@pytest.mark.slow
def test_auto_takes_a_preset_among_its_candidates_and_its_run_toml_gives_the_same_bytes(
    tmp_path: Path,
) -> None:
    run_config = config(tmp_path, tables.mixed(), variant="auto")
    report = run(msgspec.structs.replace(run_config, model=AutoConfig(variants=("fast",))))
    assert (report.variant, report.epochs, report.stores_rows) == ("associative", 0, "averages")
    written = load_config(
        Path(report.path).with_name("run.toml"), {"models": str(tmp_path / "again")}
    )
    assert run(written).version == report.version


@pytest.mark.slow
def test_labels_never_choose(tmp_path: Path) -> None:
    # the same normal rows under other labels for the rest: the same standing, whatever AUROC they
    # give
    powers = []
    for folder, table in (("few", tables.mixed(anomalies=3)), ("many", tables.mixed(anomalies=60))):
        (tmp_path / folder).mkdir()
        normal = table.filter(pl.col("fault") == 0)
        run_config = config(
            tmp_path / folder,
            pl.concat(
                [
                    tables.mixed(anomalies=1).filter(pl.col("fault") == 0),
                    table.filter(pl.col("fault") == 1),
                ]
            ),
        )
        assert len(normal) == 300
        prepared = prepare_rows(run_config)
        powers.append(power(fit_trial(prepared, run_config, LinearConfig()), prepared, seed=0))
    assert powers[0] == powers[1]


def test_power_is_the_share_of_injected_rows_above_what_one_clean_row_in_twenty_exceeds(
    tmp_path: Path,
) -> None:
    run_config = config(tmp_path, tables.mixed(rows=600))
    prepared = prepare_rows(run_config)
    found = power(fit_trial(prepared, run_config, LinearConfig()), prepared, seed=0)
    assert 0.3 < found < 1


@pytest.mark.slow
def test_auto_publishes_the_chosen_member_and_its_run_toml_names_it(tmp_path: Path) -> None:
    run_config = config(tmp_path, tables.mixed(), variant="auto", epochs=20)
    assert isinstance(run_config.model, AutoConfig)
    narrow = AutoConfig(variants=("linear", "contractive"), epochs=20)
    report = run(
        RunConfig(
            **{f: getattr(run_config, f) for f in run_config.__struct_fields__} | {"model": narrow}
        )
    )
    assert report.variant in ("linear", "contractive")
    written = load_config(
        Path(report.path).with_name("run.toml"), {"models": str(tmp_path / "again")}
    )
    assert written.model.__struct_config__.tag == report.variant
    assert run(written).version == report.version


@pytest.mark.slow
def test_compare_writes_a_table_and_publishes_only_when_told(
    command: Callable[..., Outcome], tmp_path: Path
) -> None:
    path = tables.write(tables.mixed(), tmp_path / "rows.csv")
    given = (
        "compare",
        path,
        "--name",
        "pump",
        "--models",
        tmp_path / "models",
        "--label",
        "fault",
        "--epochs",
        5,
    )
    output = tmp_path / "table.json"
    told = command(*given, "--variants", "linear", "--output", output)
    assert told.code == 0
    assert "To publish: linear finds the most injected anomalies" in told.out
    assert json.loads(output.read_text())["chosen"] == "linear"
    assert not ModelFolder(tmp_path / "models" / "pump").has_current()
    assert command(*given, "--variants", "linear", "--output", output, "--publish").code == 0
    assert ModelFolder(tmp_path / "models" / "pump").has_current()


def test_an_unknown_variant_is_named_with_those_there_are(
    command: Callable[..., Outcome], tmp_path: Path
) -> None:
    path = tables.write(tables.mixed(), tmp_path / "rows.csv")
    told = command(
        "compare", path, "--name", "pump", "--models", tmp_path / "models", "--variants", "vea"
    )
    assert told.code == 2
    assert told.err.startswith(
        "hourglass-train: there is no variant 'vea'; the variants are plain, linear,"
    )
    assert told.err.count("\n") == 1
