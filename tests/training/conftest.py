"""What the tests of training share: one run on a table of every kind, and the command line called
in-process.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
import torch

from hourglass.service.model.detector import Detector
from hourglass.training.__main__ import main
from hourglass.training.config import RunConfig, load_config
from hourglass.training.report import Report
from hourglass.training.run import run
from tests.training import tables

EPOCHS = 150
# fit, held-out and calibration rows of the 300 normal ones of the published run: 12 % are held out,
# and 59 calibrate, being more than 10 %
ROWS = (205, 36, 59)
# that there are; the last is taken if none is asked for
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


class Published(NamedTuple):
    table: pl.DataFrame
    config: RunConfig
    report: Report
    folder: Path  # MODELS/<name>/<version>
    data: bytes
    detector: Detector


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As a run has it: the same digits every time, and no waiting for a busy core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The mixed table, fitted for a moment by a member that is quick to fit, on rows that are split
    once; all else as it is when nothing is said.
    """
    folder = tmp_path_factory.mktemp("published")
    table = tables.mixed()
    path = tables.write(table, folder / "mixed.csv")
    given = {"data": str(path), "name": "mixed", "models": str(folder / "models"), "label": "fault"}
    config = load_config(None, {**given, "variant": "denoising", "epochs": EPOCHS, "folds": 0})
    report = run(config)
    data = Path(report.path).read_bytes()
    return Published(
        table, config, report, Path(report.path).parent, data, Detector.from_bytes(data)
    )


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """`hourglass-train` with these arguments: exit code, standard output and error; however long it
    takes on a busy machine, without lines of progress.
    """
    monkeypatch.setattr("hourglass.training.bars.LINE_SECONDS", 3600.0)

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return Outcome(code, *capsys.readouterr())

    return call
