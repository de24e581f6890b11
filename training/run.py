"""run(config) -> a published version: the whole story of a training run, read top to bottom."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from service import artifact
from service.artifact import (
    CalibrationRecord,
    DriftReference,
    Feature,
    Manifest,
    Model,
    Producer,
    RowCounts,
)
from service.calibration import Threshold, build_table
from service.detector import Detector
from service.errors import HourglassError
from service.tables import read_table
from training import __version__
from training.calibrate import attach_table, choose_threshold
from training.config import RunConfig, write_config
from training.core import Core
from training.data import Data, describe, prepare
from training.errors import RunError
from training.evaluate import Evaluation, evaluate
from training.export import export_core, make_self_test, to_bytes
from training.export import run as run_graph
from training.features import Encoding
from training.fit import Epoch, Fitted, fit
from training.publish import current_version, publish
from training.report import Report, write_report

MIN_NORMAL_ROWS = 20
MIN_OBSERVED_FRACTION = 0.5
PARITY_TOLERANCE = 1e-4
SCORE_RESOLUTION = 1e-6  # of a row that is reproduced exactly only rounding is left, and that differs between machines
DRIFT_BINS = 10

Float32 = NDArray[np.float32]


class Progress(NamedTuple):
    """What a run tells while it goes on."""

    stage: Callable[[str], None] = lambda _: None
    epoch: Callable[[Epoch, int], None] = lambda _epoch, _of: None


SILENT = Progress()


class Split(NamedTuple):
    """The three disjoint sets of normal rows."""

    fit_ND: Float32
    validation_ND: Float32
    calibration_ND: Float32


def run(config: RunConfig, progress: Progress = SILENT) -> Report:
    """Fit, calibrate, export, verify and publish; RunError or HourglassError in one sentence when that cannot be done."""
    started = perf_counter()
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)

    progress.stage("reading")
    data = prepare(
        read_table(Path(config.data)),
        label=config.label,
        ignore=config.ignore,
        units=config.units,
        max_categories=config.max_categories,
    )
    _check_replaceable(config, data.features)
    admissible_ND, min_observed_fraction = _admissible(data.normal_ND)
    split = _split(admissible_ND, config)

    features = describe(data.features, split.fit_ND)
    try:
        encoding = Encoding(features, split.fit_ND, config.loss)
    except ValueError as error:
        raise RunError(str(error)) from error
    model_config = config.model.resolve(encoding)
    epochs = model_config.fit.epochs_for(len(split.fit_ND))
    model_config = msgspec.structs.replace(model_config, fit=msgspec.structs.replace(model_config.fit, epochs=epochs))
    member = model_config.build(encoding)
    progress.stage("fitting")
    try:
        fitted = fit(
            member,
            torch.from_numpy(split.fit_ND),
            torch.from_numpy(split.validation_ND),
            model_config.fit,
            seed=config.seed,
            on_epoch=lambda epoch: progress.epoch(epoch, epochs),
        )
    except ValueError as error:
        raise RunError(str(error)) from error
    core = Core(member).eval()
    residual_D = core.weigh(torch.from_numpy(split.validation_ND)).tolist()

    progress.stage("exporting")
    graph = export_core(core)
    _check_parity(core, graph, split.validation_ND)

    progress.stage("calibrating")
    score_N = run_graph(graph, [artifact.SCORE], split.calibration_ND)[0]
    table = build_table(np.maximum(score_N, SCORE_RESOLUTION))
    threshold = choose_threshold(table, config.alpha, config.delta, uncertified=config.uncertified)
    attach_table(graph, table)
    features = tuple(
        msgspec.structs.replace(feature, residual_variance=residual)
        for feature, residual in zip(features, residual_D, strict=True)
    )
    resolved = msgspec.structs.replace(
        config, alpha=threshold.alpha, uncertified=not threshold.certified, model=model_config
    )
    manifest = Manifest(
        format=f"{artifact.FORMAT_MAJOR}.{artifact.FORMAT_MINOR}",
        model=Model(
            variant=msgspec.to_builtins(model_config)["variant"],
            hyper_parameters=msgspec.to_builtins(model_config),
            seed=config.seed,
            parameter_count=sum(parameter.numel() for parameter in member.parameters()),
        ),
        producer=Producer(
            hourglass=__version__,
            torch=torch.__version__.partition("+")[0],
            onnx=onnx.__version__,
            onnxruntime=ort.__version__,
            threads=config.threads,
        ),
        rows=RowCounts(
            fit=len(split.fit_ND), validation=len(split.validation_ND), calibration=len(split.calibration_ND)
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
            _drift_reference(feature, column) for feature, column in zip(features, split.fit_ND.T, strict=True)
        ),
        self_test=make_self_test(graph, features, config.seed),
        sampling=member.sampling(encoding.encode(torch.from_numpy(split.fit_ND))),
        min_observed_fraction=min_observed_fraction,
    )
    artifact_bytes = to_bytes(graph, manifest)

    progress.stage("verifying")
    detector = Detector.from_bytes(artifact_bytes)  # the service's own checks, self-test included
    quality = _evaluate(detector, split, data)

    progress.stage("publishing")
    report = _report(config, data, split, fitted, threshold, detector, quality, perf_counter() - started)
    publish(
        Path(config.models),
        config.name,
        artifact_bytes,
        {"run.toml": write_config(resolved), "report.json": write_report(report)},
    )
    return report


def _check_replaceable(config: RunConfig, features: tuple[Feature, ...]) -> None:
    """A model whose features differ from those in service would fail every request its clients send."""
    folder = Path(config.models) / config.name
    if config.force or current_version(Path(config.models), config.name) is None:
        return
    try:
        serving = Detector.from_bytes(artifact.locate(folder).read_bytes()).manifest.features
    except HourglassError:
        return  # what is there cannot be served anyway
    before, now = ([(feature.name, feature.kind) for feature in each] for each in (serving, features))
    if before == now:
        return
    changed = sorted({name for name, _ in set(before) ^ set(now)}) or ["their order"]
    raise RunError(
        f"{folder} serves a model with other features (differing: {', '.join(changed[:5])}), and its clients would fail; "
        "--force publishes all the same, another --name keeps both"
    )


def _admissible(normal_ND: Float32) -> tuple[Float32, float]:
    """Normal rows with enough observed cells, and what enough is: half, or less where the data itself has less."""
    if not len(normal_ND):
        raise RunError(f"there are 0 normal rows, expected at least {MIN_NORMAL_ROWS}")
    if np.isnan(normal_ND).all():
        raise RunError("every cell of the normal rows is missing")
    observed_N = (~np.isnan(normal_ND)).mean(axis=1)
    enough = min(MIN_OBSERVED_FRACTION, float(np.quantile(observed_N[observed_N > 0], 0.01, method="lower")))
    kept_ND = normal_ND[observed_N >= enough]
    if len(kept_ND) < MIN_NORMAL_ROWS:
        raise RunError(f"there are {len(kept_ND)} normal rows, expected at least {MIN_NORMAL_ROWS}")
    return kept_ND, enough


def _split(rows_ND: Float32, config: RunConfig) -> Split:
    order = np.random.default_rng(config.seed).permutation(len(rows_ND))
    validation = min(max(1, round(len(rows_ND) * config.split.validation)), config.split.validation_cap)
    held_back = min(max(1, round(len(rows_ND) * config.split.calibration)), config.split.calibration_cap)
    held_out, calibration, fitted = (rows_ND[part] for part in np.split(order, [validation, validation + held_back]))
    # a row that shows only what no fit row shows has no score
    known_D = ~np.isnan(fitted).all(axis=0)
    split = Split(fitted, *(part[~np.isnan(part[:, known_D]).all(axis=1)] for part in (held_out, calibration)))
    if not all(map(len, split)):
        raise RunError(
            f"split.validation and split.calibration leave {', '.join(map(str, map(len, split)))} of {len(rows_ND)} rows "
            "to fit, to hold out and to calibrate on; each needs at least one"
        )
    return split


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
            ours.numpy(), theirs, rtol=PARITY_TOLERANCE, atol=0.1 * PARITY_TOLERANCE * scale, equal_nan=True
        ):
            raise RunError(f"the exported graph computes another {name} than the fitted network; nothing was published")


def _drift_reference(feature: Feature, column: Float32) -> DriftReference:
    seen = column[~np.isnan(column)]
    missing = len(column) - len(seen)
    if feature.kind != "numeric":
        width = len(feature.categories) or 2
        return DriftReference(counts=tuple(int((seen == code).sum()) for code in range(width)), missing=missing)
    if not len(seen):
        return DriftReference(missing=missing)
    edges = np.unique(np.quantile(seen.astype(np.float64), np.linspace(0, 1, DRIFT_BINS + 1)[1:-1]).astype(np.float32))
    counts = np.bincount(np.searchsorted(edges, seen, side="right"), minlength=len(edges) + 1)
    return DriftReference(edges=tuple(map(float, edges)), counts=tuple(map(int, counts)), missing=missing)


def _evaluate(detector: Detector, split: Split, data: Data) -> Evaluation | None:
    """Anomalies against the calibration rows, which no weight has seen; None without labelled anomalies."""
    try:
        return evaluate(detector, split.calibration_ND, data.anomalies_AD)
    except ValueError:
        return None


def _report(
    config: RunConfig,
    data: Data,
    split: Split,
    fitted: Fitted,
    threshold: Threshold,
    detector: Detector,
    quality: Evaluation | None,
    seconds: float,
) -> Report:
    manifest = detector.manifest
    return Report(
        name=config.name,
        version=detector.version,
        path=str(Path(config.models) / config.name / detector.version / artifact.MODEL_FILE),
        variant=manifest.model.variant,
        parameter_count=manifest.model.parameter_count,
        features=len(manifest.features),
        fit_rows=len(split.fit_ND),
        validation_rows=len(split.validation_ND),
        calibration_rows=len(split.calibration_ND),
        dropped_rows=len(data.normal_ND) - sum(map(len, split)),
        anomalous_rows=len(data.anomalies_AD),
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
        held_out_loss=fitted.held_out_loss,
        alpha=threshold.alpha,
        alpha_chosen=config.alpha is None,
        delta=threshold.delta,
        certified=threshold.certified,
        threshold=threshold.score,
        expected_false_alarm_rate=threshold.expected_false_alarm_rate,
        quality=quality,
        size_bytes=detector.size_bytes,
        seconds=seconds,
    )
