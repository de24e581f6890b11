"""Where the loop runs."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

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
