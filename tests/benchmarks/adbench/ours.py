"""Ours, the way a user has them: `hourglass-train fit` on a file, and the service's detector on the
artifact it published.
"""

import tempfile
from pathlib import Path
from time import perf_counter, process_time

import polars as pl

from hourglass.service.model.calibration import certified_rank
from hourglass.service.model.detector import Detector
from hourglass.training.config import load_config
from hourglass.training.progress import Progress
from hourglass.training.run import run
from tests.benchmarks.adbench.outcome import Fitted, Hourglass
from tests.benchmarks.adbench.protocol import Float32


def fit(detector: Hourglass, rows_ND: Float32, seed: int) -> Fitted:
    """Publish into a folder that is gone afterwards.

    The budget is left at its default, whatever a run.toml says.
    """
    wall, cpu = {}, {}

    def on_stage(stage: str) -> None:
        wall.setdefault(stage, perf_counter())
        cpu.setdefault(stage, process_time())

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.parquet"
        pl.DataFrame(rows_ND, schema=[f"x{i}" for i in range(rows_ND.shape[1])]).write_parquet(data)
        asked = {"data": str(data), "name": "bench", "models": folder, "seed": seed, "threads": 1}
        left_alone = {
            "label": None,
            "ignore": [],
            "units": {},
            "alpha": None,
            "uncertified": False,
            "force": False,
        }
        config = load_config(
            Path(detector.config) if detector.config else None,
            {**detector.flags, **asked, **left_alone},
        )
        report = run(config, Progress(stage=on_stage))
        on_stage("done")
        artifact = Path(report.path).read_bytes()

    served = Detector.from_bytes(artifact)
    # models of folds absorb theirs one by one
    fitted = next(stage for stage in ("absorbing held-out rows", "exporting") if stage in wall)

    def threshold_at(alpha: float) -> tuple[float, bool]:
        certified = bool(certified_rank(served.table.n, alpha, served.threshold.delta))
        return served.table.threshold(
            alpha, served.threshold.delta, certified=certified
        ).score, certified

    return Fitted(
        score=lambda rows_ND: served.score(rows_ND).score,
        threshold=served.threshold.score,
        alpha=served.threshold.alpha,
        certified=served.threshold.certified,
        fit_seconds=wall[fitted] - wall["fitting"],
        publish_seconds=wall["done"] - wall["loading"],
        cpu_seconds=cpu[fitted] - cpu["fitting"],
        size_bytes=served.size_bytes,
        notes={
            "variant": report.variant,
            "epochs": report.epochs,
            "best_epoch": report.best_epoch,
            "held_out_loss": report.held_out_loss,
            "parameters": report.parameter_count,
            "certified_false_alarm_rate": report.expected_false_alarm_rate,
        },
        threshold_at=threshold_at,
        min_observed=served.manifest.min_observed_fraction,
    )
