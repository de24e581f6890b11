"""Write a golden artifact of the present format: `python -m tests.contract.make_golden VARIANT`.

See golden/README.md.
"""

import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import torch

from hourglass.service.model.artifact import UNSEEN, Feature, format_of
from hourglass.service.model.calibration import Threshold
from hourglass.service.model.detector import Detector
from hourglass.service.rows.tables import encode_table
from hourglass.training.config import RunConfig
from hourglass.training.models import VARIANTS
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


def write(variant: str) -> Path:
    """Fit, and write the artifact and its answers; FileExistsError where there is one."""
    path = FOLDER / f"{variant}-{format_of(None)}.onnx"
    if path.exists():
        raise FileExistsError(f"{path} is there, and stays as it is")
    torch.set_num_threads(1)
    data = make(variant)
    path.with_suffix(".json").write_bytes(
        msgspec.json.format(msgspec.json.encode(answers(data)), indent=0) + b"\n"
    )
    path.write_bytes(data)
    return path


def make(variant: str) -> bytes:
    """The artifact's bytes, small enough to be kept for ever."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunConfig(
            data=str(tables.write(tables.mixed(), Path(folder) / "mixed.parquet")),
            name="golden",
            label="fault",
        )
        prepared = prepare_rows(run)
    model = VARIANTS[variant]()
    fields = {field: value for field, value in SMALL.items() if field in model.__struct_fields__}
    model = msgspec.structs.replace(
        model, **fields, fit=msgspec.structs.replace(model.fit, epochs=100)
    )
    return finish(prepared, fit_trial(prepared, run, model), run)


def answers(data: bytes) -> Golden:
    """What the service answers now."""
    detector = Detector.from_bytes(data)
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
    return rows_ND


def cells(values_ND: Float32) -> Cells:
    return tuple(numbers(row) for row in values_ND)


def numbers(values: Float32) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else float(f"{value:.9g}") for value in values)


if __name__ == "__main__":
    print(write(sys.argv[1]))
