"""From a trial to the bytes that are published: exported, calibrated through onnxruntime,
described, checked.
"""

from typing import NamedTuple

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from hourglass.service import VERSION
from hourglass.service.model import artifact
from hourglass.service.model.artifact import (
    CalibrationRecord,
    DriftReference,
    Feature,
    Manifest,
    Model,
    Producer,
    RowCounts,
)
from hourglass.service.model.calibration import Threshold, build_table
from hourglass.training.calibrate import attach_table, choose_threshold
from hourglass.training.config import RunConfig
from hourglass.training.core import Core
from hourglass.training.errors import RunError
from hourglass.training.export import export_core, make_self_test, to_bytes
from hourglass.training.export import run as run_graph
from hourglass.training.trial import Prepared, Trial, absorb_held_out

PARITY_TOLERANCE = 1e-4
# of a row that is reproduced exactly only rounding is left, and that differs between machines
SCORE_RESOLUTION = 1e-6
DRIFT_BINS = 10

Float32 = NDArray[np.float32]


class Artifact(NamedTuple):
    data: bytes
    threshold: Threshold


def make_artifact(prepared: Prepared, trial: Trial, config: RunConfig) -> Artifact:
    """The artifact of a fitted member; RunError when the budget asked for cannot be had, or export
    changed the answers.
    """
    split = prepared.split
    absorb_held_out(prepared, trial, config.seed)
    graph = export_core(trial.core)
    _check_parity(trial.core, graph, split.validation_ND)
    score_N = run_graph(graph, [artifact.SCORE], split.calibration_ND)[0]
    table = build_table(np.maximum(score_N, SCORE_RESOLUTION))
    threshold = choose_threshold(table, config.alpha, config.delta, uncertified=config.uncertified)
    attach_table(graph, table)

    member, residuals = trial.core.member, trial.residual_D.tolist()
    features = tuple(
        msgspec.structs.replace(feature, residual_variance=residual)
        for feature, residual in zip(prepared.features, residuals, strict=True)
    )
    manifest = Manifest(
        format=f"{artifact.FORMAT_MAJOR}.{artifact.FORMAT_MINOR}",
        model=Model(
            variant=msgspec.to_builtins(trial.config)["variant"],
            hyper_parameters=msgspec.to_builtins(trial.config),
            seed=config.seed,
            stores_rows=member.stores_rows,
            parameter_count=sum(parameter.numel() for parameter in member.parameters()),
        ),
        producer=Producer(
            hourglass=VERSION,
            torch=torch.__version__.partition("+")[0],
            onnx=onnx.__version__,
            onnxruntime=ort.__version__,
            threads=config.threads,
        ),
        rows=RowCounts(
            fit=len(split.fit_ND),
            validation=len(split.validation_ND),
            calibration=len(split.calibration_ND),
        ),
        features=features,
        calibration=CalibrationRecord(
            method="split-conformal",
            guarantee="certified" if threshold.certified else "marginal",
            n=table.n,
            alpha=threshold.alpha,
            delta=threshold.delta,
        ),
        drift=tuple(
            _drift_reference(feature, column)
            for feature, column in zip(features, split.fit_ND.T, strict=True)
        ),
        self_test=make_self_test(graph, features, config.seed),
        sampling=member.sampling(member.encoding.encode(torch.from_numpy(split.fit_ND))),
        min_observed_fraction=prepared.min_observed_fraction,
    )
    return Artifact(to_bytes(graph, manifest), threshold)


@torch.no_grad()
def _check_parity(core: Core, graph: onnx.ModelProto, rows_ND: Float32) -> None:
    """torch and onnxruntime must agree on real rows before anything is published."""
    rows_ND = rows_ND[:256]
    names = [artifact.SCORE, artifact.CONTRIBUTIONS, artifact.RECONSTRUCTION, artifact.LATENT]
    for name, ours, theirs in zip(
        names, core(torch.from_numpy(rows_ND)), run_graph(graph, names, rows_ND), strict=True
    ):
        scale = float(np.nanmax(np.abs(theirs), initial=1.0))  # one is what a normal score is about
        if not np.allclose(
            ours.numpy(),
            theirs,
            rtol=PARITY_TOLERANCE,
            atol=0.1 * PARITY_TOLERANCE * scale,
            equal_nan=True,
        ):
            raise RunError(
                f"the exported graph computes another {name} than the fitted network; nothing was"
                " published"
            )


def _drift_reference(feature: Feature, column: Float32) -> DriftReference:
    seen = column[~np.isnan(column)]
    missing = len(column) - len(seen)
    if feature.kind != "numeric":
        width = len(feature.categories) or 2
        return DriftReference(
            counts=tuple(int((seen == code).sum()) for code in range(width)), missing=missing
        )
    if not len(seen):
        return DriftReference(missing=missing)
    edges = np.unique(
        np.quantile(seen.astype(np.float64), np.linspace(0, 1, DRIFT_BINS + 1)[1:-1]).astype(
            np.float32
        )
    )
    counts = np.bincount(np.searchsorted(edges, seen, side="right"), minlength=len(edges) + 1)
    return DriftReference(
        edges=tuple(map(float, edges)), counts=tuple(map(int, counts)), missing=missing
    )
