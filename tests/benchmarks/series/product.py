"""The product, the way a user has it: `hourglass-train fit --time` on a file, and the service's
detector on the artifact that it published.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from hourglass.service.model.detector import Detector
from hourglass.training.config import load_config
from hourglass.training.evaluate_ordered import Answers, judge
from hourglass.training.run import run
from tests.benchmarks.series.files import Floats, Series

PRESETS = ("fast", "balanced")
WINDOWS = {"single rows": 1, "windows of 30": 30}
PRODUCTS = {
    f"{preset}, {said}": (preset, rows) for preset in PRESETS for said, rows in WINDOWS.items()
}


def fit(series: Series, preset: str, window: int) -> tuple[Detector, Callable[[Floats], Answers]]:
    """The detector, and its answers to a series of rows in order."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.parquet"
        rows = pl.DataFrame(series.train_ND, schema=series.columns)
        rows.with_row_index("row of the series").write_parquet(data)
        flags = {"data": str(data), "name": "series", "models": folder, "preset": preset}
        asked = {"time": "row of the series", "window": window, "report": False, "threads": 1}
        report = run(load_config(None, {**flags, **asked}))
        detector = Detector.from_bytes(Path(report.path).read_bytes())
    features = [series.columns.index(each.name) for each in detector.manifest.features]

    def answers(rows_ND: Floats) -> Answers:
        time_N = np.arange(len(rows_ND), dtype=np.float64)
        rows_NF = rows_ND[:, features].astype(np.float32)
        return judge(detector, rows_NF, time_N, np.zeros(len(rows_ND), dtype=np.int64))

    return detector, answers
