"""Where the loop runs, and what is too large to be published."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from hourglass.service.adapters.files import open_model
from hourglass.training.config import RunConfig, load_config
from hourglass.training.trial import device_of
from tests.training import tables
from tests.training.conftest import DEVICES, Outcome, Published

Command = Callable[..., Outcome]


def config(device: str) -> RunConfig:
    return msgspec.structs.replace(
        load_config(None, {"data": "unread", "name": "pump"}), device=device
    )


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("without_gpu")
def test_left_open_it_is_the_processor_where_there_is_no_gpu() -> None:
    assert config("auto") == load_config(None, {"data": "unread", "name": "pump"})
    assert device_of(config("auto")) == device_of(config("cpu")) == "cpu"


def test_left_open_it_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(config("auto")) == device_of(config("cuda")) == "cuda"
    assert device_of(config("cpu")) == "cpu"


def test_the_one_that_was_used_stands_in_the_run_beside_the_model(published: Published) -> None:
    run = tomllib.loads((published.folder / "run.toml").read_text())
    assert run["device"] == DEVICES[-1]


@pytest.mark.usefixtures("without_gpu")
def test_a_gpu_that_is_asked_for_and_not_there_is_said_in_one_sentence(
    tmp_path: Path, command: Command
) -> None:
    data, models = (
        tables.write(tables.correlated(80), tmp_path / "table.csv"),
        tmp_path / "models",
    )
    (tmp_path / "run.toml").write_text('device = "cpu"\n')
    flags = "--config", tmp_path / "run.toml", "--device", "cuda"
    outcome = command("fit", data, "--name", "pump", "--models", models, *flags)
    sentence = (
        "hourglass-train: device is cuda, and torch sees no GPU; leave it at auto, or take cpu\n"
    )
    assert outcome == (2, "", sentence)
    assert not models.exists()


def test_any_other_device_is_refused(tmp_path: Path, command: Command) -> None:
    (tmp_path / "run.toml").write_text('device = "tpu"\n')
    outcome = command("fit", "unread.csv", "--name", "pump", "--config", tmp_path / "run.toml")
    assert outcome.code == 2
    assert outcome.err.endswith("run.toml: Invalid enum value 'tpu' - at 'device'\n")


@pytest.mark.parametrize(
    ("folds", "sentence"),
    [
        (
            "0",
            "a model in a file of 0.00172 MB are more than the 0.0017 MB that the service loads;",
        ),
        ("2", "2 models, one for each fold, in one file of"),
    ],
)
def test_a_model_that_the_service_would_not_load_is_refused_before_it_is_exported(
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    folds: str,
    sentence: str,
) -> None:
    limit = 3400 if folds == "2" else 1700
    monkeypatch.setattr("hourglass.training.trial.DEFAULT_MAX_BYTES", limit)
    monkeypatch.setattr("hourglass.training.run.export_core", None)
    data, models = tables.write(tables.correlated(80), tmp_path / "table.csv"), tmp_path / "models"
    (tmp_path / "run.toml").write_text(SMALL)
    flags = ("--config", tmp_path / "run.toml", "--folds", folds)
    outcome = command("fit", data, "--name", "pump", "--models", models, *flags)
    assert outcome.code == 2
    assert sentence in outcome.err
    assert not models.exists()


SMALL = """
preset = "fast"
[model]
features = 0
components = 4
joint_components = 0
"""


@pytest.mark.heavy
def test_a_table_of_ten_thousand_columns_is_published(tmp_path: Path, command: Command) -> None:
    """Beyond 8,192 numbers torch computes no constant before it exports."""
    rows_ND = tables.correlated(120, width=10_000, latent=8)
    data, models = tables.write(rows_ND, tmp_path / "table.parquet"), tmp_path / "models"
    flags = ("--preset", "fast", "--quiet")
    outcome = command("fit", data, "--name", "wide", "--models", models, *flags)
    assert (outcome.code, outcome.err) == (0, "")
    served, _ = open_model(models / "wide")
    broken_ND = rows_ND[:2].copy()
    broken_ND[1, 7777] = 60 * rows_ND[:, 7777].std()
    fine, broken = served.threshold.is_anomaly(served.detector.score(broken_ND).score).tolist()
    assert (fine, broken) == (False, True)
