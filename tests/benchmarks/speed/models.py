"""The models that are served: fitted once by the product itself on made-up correlated rows, and
kept under build/.
"""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from hourglass.service.model.artifact import INPUT, SCORE
from hourglass.service.serving.store import locate
from tests.benchmarks.machine import ROOT

Float32 = NDArray[np.float32]
FIT_ROWS = 4000
FACTORS = 6  # that the columns are made of


class Model(NamedTuple):
    """One model in a folder that `hourglass serve` takes."""

    folder: Path
    name: str
    width: int
    rows: Path  # what it was fitted on, CSV

    @property
    def path(self) -> Path:
        """Its file."""
        return locate(self.folder / self.name)


def fit(width: int, config: Path, folder: Path) -> Model:
    """`hourglass-train fit` on rows of this width, unless the same code did it with the same
    configuration before.
    """
    code = sorted(path for path in (ROOT / "training").rglob("*.py"))
    fitted_by = hashlib.sha256(b"".join(path.read_bytes() for path in [config, *code])).hexdigest()
    home = folder / f"{config.stem}-{fitted_by[:12]}"
    model = Model(home / "models", f"d{width}", width, home / f"d{width}.csv")
    if not (model.folder / model.name / "current").exists():
        print(f"fitting a model of {width} features", file=sys.stderr, flush=True)
        home.mkdir(parents=True, exist_ok=True)
        names = ",".join(f"x{d}" for d in range(width))
        np.savetxt(
            model.rows, make_rows(FIT_ROWS, width, seed=0), "%.6g", ",", header=names, comments=""
        )
        command = [
            "--config",
            str(config),
            "--name",
            model.name,
            "--models",
            str(model.folder),
            "--quiet",
        ]
        subprocess.run(
            [sys.executable, "-m", "hourglass.training", "fit", str(model.rows), *command],
            cwd=ROOT,
            check=True,
        )
    return model


def make_rows(count: int, width: int, *, seed: int) -> Float32:
    """Correlated rows [count, width]: the same few factors and loadings whatever the seed, which
    draws the rows.
    """
    loadings_FD = np.random.default_rng(width).normal(size=(FACTORS, width))
    draw = np.random.default_rng(seed + 1)
    rows_ND = draw.normal(size=(count, FACTORS)) @ loadings_FD + 0.3 * draw.normal(
        size=(count, width)
    )
    # as sensors give them, and no longer in JSON than they are
    return np.round(rows_ND, 4).astype(np.float32)


def reference(model: Model, rows_ND: Float32) -> Float32:
    """The scores [N] that onnxruntime computes on the whole file, without any code of the
    service.
    """
    session = ort.InferenceSession(model.path, providers=["CPUExecutionProvider"])
    return session.run([SCORE], {INPUT: rows_ND})[0]


def part_of_graph(model: Model, outputs: Sequence[str]) -> bytes:
    """What these outputs need of the graph, as the file has it: onnxruntime computes every node of
    what it is given.
    """
    part = onnx.utils.Extractor(onnx.load(model.path)).extract_model([INPUT], list(outputs))
    del part.metadata_props[:]
    return part.SerializeToString()
