"""Fit generated tables, and count what becomes of each: published, refused for a reason in the
data, or failed.
"""

import argparse
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl

from hourglass.service.errors import HourglassError
from hourglass.service.model.detector import Detector
from hourglass.service.rows.tables import encode_table
from hourglass.training.config import load_config
from hourglass.training.errors import RunError
from hourglass.training.presets import PRESETS
from hourglass.training.run import run
from tests.benchmarks.fits import tables

# what a table may be refused for, each said of its rows, a column or a cell
IN_THE_DATA = (
    r"there are \d+ normal rows, expected at least",
    r"every cell of the normal rows is missing",
    r"column '.*', row \d+: values around .* differ by .*, and float32",
    r"column '.*', row \d+: expected at most \d+ categories",
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    started, counts = perf_counter(), Counter[str]()
    for seed in range(options.first, options.first + options.tables):
        outcome = attempt(tables.make(seed), options.preset, options.steps)
        counts[outcome.split(":")[0]] += 1
        print(f"{seed} {outcome}", flush=True)
    print(f"{dict(counts)} in {perf_counter() - started:.0f} s")
    return 1 if counts["failed"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.fits", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--preset", choices=PRESETS, default="fast")
    parser.add_argument("--tables", type=int, default=300, help="how many (default: 300)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first (default: 0)")
    parser.add_argument("--steps", type=int, help="of training a network (default: the preset's)")
    return parser


def attempt(table: pl.DataFrame, preset: str, steps: int | None = None) -> str:
    """`published`, `refused: ` and the reason in the data, or `failed: ` and what went wrong."""
    fields: dict[str, Any] = {"preset": preset}
    if steps:
        fields["model"] = {"fit": {"steps": steps}}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        data = Path(folder) / "rows.parquet"
        table.write_parquet(data)
        asked = {"data": str(data), "name": "odd", "models": folder, "threads": 1}
        try:
            report = run(load_config(None, {**fields, **asked}))
            detector = Detector.from_bytes(Path(report.path).read_bytes())
            return _judged(detector, table)
        except (RunError, HourglassError) as error:
            reason = str(error)
            known = any(re.match(pattern, reason) for pattern in IN_THE_DATA)
            return f"{'refused' if known else 'failed'}: {reason}"
        except Exception as error:  # whatever is raised is what a person would see
            return f"failed: {type(error).__name__}: {error}"


def _judged(detector: Detector, table: pl.DataFrame) -> str:
    """A row has no score only where it has no cell, and every score a place among the others."""
    rows_ND = encode_table(table, detector.manifest.features)
    scored, seen_N = detector.score(rows_ND), (~np.isnan(rows_ND)).any(axis=1)
    for name in ("score", "p_value", "severity"):
        wrong_N = ~np.isfinite(getattr(scored, name)[seen_N])
        if wrong_N.any():
            return f"failed: {wrong_N.sum()} rows have no {name}"
    return "published"


if __name__ == "__main__":
    sys.exit(main())
