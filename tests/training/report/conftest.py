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


def plant(
    rows: int = 900, *, seed: int = 0, start: float = 1.7e9, drift: float = 0.0
) -> pl.DataFrame:
    """Rows of two machines a minute apart: two autoregressive sensors and one that says nothing."""
    parts = []
    for machine in range(2):
        draw = np.random.default_rng((seed, machine))
        noise_NF = draw.normal(size=(rows, 3))
        values_NF = noise_NF.copy()
        for t in range(1, rows):
            values_NF[t, :2] = 0.9 * values_NF[t - 1, :2] + noise_NF[t, :2]
        values_NF += np.linspace(0, drift, rows)[:, None]
        parts.append(
            pl.DataFrame(values_NF, schema=["a", "b", "alone"]).with_columns(
                at=pl.Series(start + 60.0 * np.arange(rows)),
                machine=pl.lit(f"m{machine}"),
                fault=pl.lit(0),
            )
        )
    return pl.concat(parts)


def jump(table: pl.DataFrame, machine: str, rows: range, label: int) -> pl.DataFrame:
    """Let a sensor of a machine jump to and fro within its range, row by row."""
    place = pl.int_range(pl.len()).over("machine")
    here = (pl.col("machine") == machine) & place.is_between(rows.start, rows.stop - 1)
    to_and_fro = pl.when(place % 2 == 0).then(4.0).otherwise(-4.0)
    return table.with_columns(
        a=pl.when(here).then(to_and_fro).otherwise("a"),
        fault=pl.when(here).then(label).otherwise("fault"),
    )


@pytest.fixture(scope="session")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model of windows of 8 rows: two labelled faults of `m0`, one of `m1` that nobody labelled,
    an hour without rows, a time that repeats, and a file in no order.
    """
    folder = tmp_path_factory.mktemp("windows")
    table = jump(jump(plant(), "m0", range(300, 320), 1), "m0", range(600, 620), 1)
    table = jump(table, "m1", range(500, 502), 0)
    place = pl.int_range(pl.len()).over("machine")
    late = (pl.col("machine") == "m1") & (place >= 700)
    again = (pl.col("machine") == "m1") & (place == 50)
    table = table.with_columns(
        at=pl.col("at")
        + pl.when(late).then(3600.0).otherwise(0.0)
        - pl.when(again).then(60.0).otherwise(0.0)
    )
    table = table.sample(fraction=1.0, shuffle=True, seed=1)
    data = tables.write(table, folder / "plant.parquet")
    flags = {"data": str(data), "name": "plant", "models": str(folder / "models"), "window": 8}
    order = {"time": "at", "entity": "machine", "label": "fault"}
    report = run(load_config(None, {**flags, **order, "variant": "linear"}))
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
