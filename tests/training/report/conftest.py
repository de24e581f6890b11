"""A run whose report is known beforehand, and a browser to look at reports with."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
import pytest
from playwright.sync_api import Browser, sync_playwright

from hourglass.training.config import load_config
from hourglass.training.report import Report
from hourglass.training.report.facts import Facts
from hourglass.training.run import run
from tests.training import tables

ODD = range(7, 500, 31)  # rows of the contaminated table, from 1


class Run(NamedTuple):
    report: Report
    facts: Facts
    folder: Path
    data: Path


@pytest.fixture(scope="session")
def contaminated(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four numbers around a plane, a fifth that is independent of them, and among 500 rows some
    far from all others, which nobody has labelled.
    """
    folder = tmp_path_factory.mktemp("contaminated")
    rng = np.random.default_rng(5)
    rows_ND = tables.correlated(500, noise=0.1)
    rows_ND[np.array(ODD) - 1] *= 6
    table = pl.DataFrame(rows_ND, schema=["a", "b", "c", "d"]).with_columns(
        alone=pl.Series(rng.uniform(size=500)), at=pl.Series(np.arange(500) * 60 + 1.7e9)
    )
    data = tables.write(table, folder / "pump.csv")
    flags = {"data": str(data), "name": "pump", "models": str(folder / "models"), "ignore": ("at",)}
    report = run(load_config(None, {**flags, "variant": "linear", "folds": 0}))
    beside = Path(report.path).parent
    return Run(report, facts_of(beside), beside, data)


def facts_of(folder: Path) -> Facts:
    return msgspec.json.decode((folder / "report.json").read_bytes(), type=Facts)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """It ends with the tests that look, since its event loop would be in others' way."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
