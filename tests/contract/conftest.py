"""Artifacts made by training and loaded by the service."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import msgspec
import pytest
import torch

from hourglass.service.model.detector import Detector
from hourglass.training.config import RunConfig, load_config
from hourglass.training.core import Core
from hourglass.training.models import ModelConfig
from hourglass.training.models.associative import AssociativeConfig
from hourglass.training.models.denoising import DenoisingConfig
from hourglass.training.models.linear import LinearConfig
from hourglass.training.models.masked import MaskedConfig
from hourglass.training.models.quantized import QuantizedConfig
from hourglass.training.models.variational import VariationalConfig
from hourglass.training.split import Prepared
from hourglass.training.trial import fit_trial
from tests.training import tables
from tests.training.stages import finish, prepare_rows

# graphs of every kind; tests/training/models takes each member through a whole run
MEMBERS: dict[str, ModelConfig] = {
    "linear": LinearConfig(),
    "denoising": DenoisingConfig(),
    "quantized by distance": QuantizedConfig(score="distance"),
    "variational by probability": VariationalConfig(score="probability", score_draws=2),
    "masked": MaskedConfig(score_rounds=1),
    "associative": AssociativeConfig(
        width=16,
        blocks=1,
        components=16,
        joint_components=16,
        hidden_components=16,
        features=32,
        memory=32,
        bags=2,
    ),
}
FAST = {"linear", "denoising"}  # in test-fast too


SMALL = MEMBERS["associative"]
# graphs of the same kind: what the presets leave out of `associative`
SIBLINGS: dict[str, ModelConfig] = {
    "fast": msgspec.structs.replace(SMALL, levels=(), memory=0, bags=0),
    "balanced": msgspec.structs.replace(SMALL, bags=0),
}


class Pair(NamedTuple):
    """What training knows, and what the service makes of it."""

    prepared: Prepared
    core: Core
    data: bytes
    detector: Detector


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As a run has it: the same digits every time, and no waiting for a busy core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    data = tables.write(tables.mixed(), tmp_path_factory.mktemp("contract") / "mixed.parquet")
    return prepare_rows(load_config(None, {"data": str(data), "name": "pump", "label": "fault"}))


@pytest.fixture(scope="session")
def pairs(prepared: Prepared) -> Callable[[str], Pair]:
    """By the name of the member, each made once."""
    return cache(lambda member: make_pair(prepared, (MEMBERS | SIBLINGS)[member]))


@pytest.fixture(
    params=[
        pytest.param(member, marks=[] if member in FAST else [pytest.mark.slow])
        for member in MEMBERS
    ]
)
def pair(request: pytest.FixtureRequest, pairs: Callable[[str], Pair]) -> Pair:
    return pairs(request.param)


@pytest.fixture
def one_pair(pairs: Callable[[str], Pair]) -> Pair:
    """For what does not depend on the member."""
    return pairs("linear")


def make_pair(prepared: Prepared, model: ModelConfig) -> Pair:
    run = RunConfig(data="unread", name="pump")
    model = msgspec.structs.replace(model, fit=msgspec.structs.replace(model.fit, epochs=5))
    trial = fit_trial(prepared, run, model)
    data = finish(prepared, trial, run)
    return Pair(prepared, trial.core, data, Detector.from_bytes(data))
