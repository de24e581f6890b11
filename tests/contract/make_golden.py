"""Write a golden artifact of the present format: `python -m tests.contract.make_golden VARIANT`;
with `--window W` of rows in order, with `--baseline` of two entities that have baselines, and with
`--queries` of rows that a Prometheus was asked for.

See golden/README.md.
"""

import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import torch

from hourglass.service.model.artifact import (
    UNSEEN,
    Baseline,
    Feature,
    Queries,
    Window,
    format_of,
)
from hourglass.service.model.calibration import Threshold
from hourglass.service.model.detector import Detector
from hourglass.service.rows.tables import encode_table
from hourglass.service.serving.store import MODEL_FILE
from hourglass.training.config import ModelConfig, RunConfig
from hourglass.training.models import VARIANTS
from hourglass.training.prometheus import PrometheusConfig
from hourglass.training.run import run
from hourglass.training.trial import fit_trial
from tests.training import tables
from tests.training.stages import finish, prepare_rows
from tests.training.tables import Float32

FOLDER = Path(__file__).parent / "golden"
ROWS = 24
SMALL = {
    "hidden": (16,),
    "latent": 3,
    "width": 4,
    "blocks": 1,
    "components": 4,
    "joint_components": 4,
    "hidden_components": 4,
    "features": 4,
    "memory": 8,
}

Cells = tuple[tuple[float | None, ...], ...]


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """What a golden artifact says and answers; None is NaN."""

    version: str
    variant: str
    features: tuple[Feature, ...]
    threshold: Threshold
    calibration_rows: int
    rows: Cells
    score: tuple[float | None, ...]
    p_value: tuple[float | None, ...]
    contributions: Cells
    reconstruction: Cells
    latent: Cells
    severity: tuple[float | None, ...] = ()  # from format 1.1 on
    deviation: Cells = ()  # of a variational code, from format 1.2 on


def write(variant: str, window: int = 1, *, baseline: bool = False, queries: bool = False) -> Path:
    """Fit, and write the artifact and its answers; FileExistsError where there is one."""
    known = Window(rows=window, representation="residual", expected_sd=()) if window > 1 else None
    entities = Baseline(entities=()) if baseline else None
    asked = Queries(expressions=(), labels=(), step_seconds=1, late_seconds=1) if queries else None
    path = FOLDER / f"{variant}-{format_of(known, entities, asked)}.onnx"
    if path.exists():
        raise FileExistsError(f"{path} is there, and stays as it is")
    torch.set_num_threads(1)
    if known is None:
        data = make(variant)
    else:
        data = make_windowed(variant, window, baseline=baseline, queries=queries)
    path.with_suffix(".json").write_bytes(
        msgspec.json.format(msgspec.json.encode(answers(data)), indent=0) + b"\n"
    )
    path.write_bytes(data)
    return path


def make(variant: str) -> bytes:
    """The artifact's bytes, small enough to be kept for ever."""
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            data=str(tables.write(tables.mixed(), Path(folder) / "mixed.parquet")),
            name="golden",
            label="fault",
        )
        prepared = prepare_rows(config)
    return finish(prepared, fit_trial(prepared, config, small(variant)), config)


def make_windowed(
    variant: str, window: int, *, baseline: bool = False, queries: bool = False
) -> bytes:
    """The same of a model of rows in order, by a whole run; with a baseline of two entities, of
    which the second has units of its own; with what its features would be asked by.
    """
    with tempfile.TemporaryDirectory() as folder:
        table = tables.mixed(800, anomalies=0).drop("fault").with_row_index("at")
        order = {}
        if baseline:
            is_second = pl.col("at") >= len(table) // 2
            table = table.with_columns(
                *(
                    pl.when(is_second)
                    .then(3 * pl.col(name) + 50)
                    .otherwise(pl.col(name))
                    .alias(name)
                    for name in ("load", "flow", "heat")
                ),
                entity=pl.when(is_second).then(pl.lit("second")).otherwise(pl.lit("first")),
            )
            order = {"entity": "entity", "baseline": "entity"}
        names = [name for name in table.columns if name not in ("at", "entity")]
        asked = PrometheusConfig(queries={name: f"avg by (plant) ({name})" for name in names})
        config = RunConfig(
            **order,
            prometheus=asked if queries else None,
            data=str(tables.write(table, Path(folder) / "mixed.parquet")),
            name="golden",
            models=folder,
            time="at",
            window=window,
            alpha=0.05,
            report=False,
            fitted_at=0.0,
            model=small(variant),
        )
        version = run(config).version
        return (Path(folder) / "golden" / version / MODEL_FILE).read_bytes()


def small(variant: str) -> ModelConfig:
    """The variant's configuration, of a network that is small enough to be kept."""
    model = VARIANTS[variant]()
    fields = {field: value for field, value in SMALL.items() if field in model.__struct_fields__}
    return msgspec.structs.replace(
        model, **fields, fit=msgspec.structs.replace(model.fit, epochs=100)
    )


def answers(data: bytes) -> Golden:
    """What the service answers now, to rows of the self-test's entity."""
    detector = Detector.from_bytes(data)
    detector = detector.of(detector.manifest.self_test.entity)
    rows_ND = odd_rows(detector)
    explanation = detector.explain(rows_ND)
    code_NK, deviation_NK = detector.encode_with_deviation(rows_ND)
    return Golden(
        version=detector.version,
        variant=detector.manifest.model.variant,
        features=detector.manifest.features,
        threshold=detector.threshold,
        calibration_rows=detector.table.n,
        rows=cells(rows_ND),
        score=numbers(explanation.score),
        p_value=numbers(explanation.p_value),
        contributions=cells(explanation.contributions),
        reconstruction=cells(explanation.reconstruction),
        latent=cells(code_NK),
        severity=numbers(explanation.severity),
        deviation=() if deviation_NK is None else cells(deviation_NK),
    )


def odd_rows(detector: Detector) -> Float32:
    """Normal and anomalous rows, rows with holes, a category that was not met, values far out, and
    a row with nothing.
    """
    table = tables.mixed(ROWS - 8, anomalies=8, seed=1)
    rows_ND = encode_table(table, detector.manifest.features)
    rows_ND[0, 4] = UNSEEN
    rows_ND[1, ::2] = np.nan
    rows_ND[2, 0], rows_ND[3, 1] = 1e6, -3e38
    rows_ND[4] = np.nan
    return np.roll(
        rows_ND, detector.window - 1, axis=0
    )  # behind those that are only looked back at


def cells(values_ND: Float32) -> Cells:
    return tuple(numbers(row) for row in values_ND)


def numbers(values: Float32) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else float(f"{value:.9g}") for value in values)


if __name__ == "__main__":
    window = int(sys.argv[sys.argv.index("--window") + 1]) if "--window" in sys.argv else 1
    asked = "--queries" in sys.argv
    print(write(sys.argv[1], window, baseline="--baseline" in sys.argv, queries=asked))
