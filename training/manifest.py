"""The manifest of a fitted member: what the file says of itself, its features, rows and makers."""

from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from hourglass.service import VERSION
from hourglass.service.model.artifact import (
    BASELINE,
    LAST_SECOND,
    WINDOW,
    Baseline,
    CalibrationRecord,
    DriftReference,
    Feature,
    Manifest,
    Model,
    Producer,
    RowCounts,
    Sampling,
    Window,
    format_of,
)
from hourglass.service.model.calibration import Threshold
from hourglass.service.model.guarantee import Guarantee
from hourglass.service.rows.times import is_clock
from hourglass.training.config import RunConfig
from hourglass.training.core import Core
from hourglass.training.export import make_self_test
from hourglass.training.folds import Folds
from hourglass.training.split import Prepared
from hourglass.training.trial import Trial
from hourglass.training.windows import Windowed

DRIFT_BINS = 10

Float32 = NDArray[np.float32]


class Series(NamedTuple):
    """Of a windowed model the rows, of which a run has prepared what is derived."""

    features: tuple[Feature, ...]  # with missing rate and range, as the fit rows have them
    fit_NF: Float32
    window: Window
    entity_names: tuple[str, ...] | None = None  # of those with baselines


def make_manifest(
    graph: onnx.ModelProto,
    trial: Trial,
    prepared: Prepared,
    threshold: Threshold,
    guarantee: Guarantee,
    config: RunConfig,
    series: Series | None = None,
) -> Manifest:
    """Describe a graph that has its table, with the answers it gives to the self-test's rows."""
    core, split = trial.core, prepared.split
    queries = config.prometheus.of(prepared.row_features) if config.prometheus else None
    window, described, fit_ND, baseline = None, prepared.features, split.fit_ND, None
    if series:
        described, fit_ND, window, names = series
        baseline = Baseline(entities=names) if names else None
    residuals = trial.residual_D.tolist()[: len(described)]  # the row is what is derived first
    features = tuple(
        msgspec.structs.replace(feature, residual_variance=residual)
        for feature, residual in zip(described, residuals, strict=True)
    )
    return Manifest(
        format=format_of(window, baseline, queries),
        model=Model(
            variant=msgspec.to_builtins(trial.config)["variant"],
            hyper_parameters=msgspec.to_builtins(trial.config),
            seed=config.seed,
            stores_rows=core.stores_rows,
            parameter_count=sum(parameter.numel() for parameter in core.parameters()),
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
            calibration=prepared.calibration_rows,
        ),
        features=features,
        calibration=CalibrationRecord(
            method="cross-conformal" if prepared.folds else "split-conformal",
            folds=len(prepared.folds) or None,
            guarantee=guarantee.kind,
            reason=guarantee.reason,
            rule="certified" if threshold.certified else "marginal",
            n=prepared.calibration_rows,
            alpha=threshold.alpha,
            delta=threshold.delta,
        ),
        drift=tuple(
            drift_reference(feature, column)
            for feature, column in zip(features, fit_ND.T, strict=True)
        ),
        self_test=make_self_test(
            graph,
            features,
            config.seed,
            window.rows if window else 1,
            core.baselines if isinstance(core, Windowed) else None,
            baseline.entities[0] if baseline else None,
        ),
        sampling=_sampling(core, fit_ND),
        fitted_at=fitted_at(config, prepared.time_N),
        min_observed_fraction=prepared.min_observed_fraction,
        requires=(*([WINDOW] if window else []), *([BASELINE] if baseline else [])),
        window=window,
        baseline=baseline,
        queries=queries,
    )


def _sampling(core: Core | Folds | Windowed, fit_ND: Float32) -> Sampling | None:
    """How codes of new rows are drawn; codes of several models at once, or of windows, decode to
    nothing real.
    """
    if not isinstance(core, Core):
        return None
    return core.member.sampling(core.encoding.encode(torch.from_numpy(fit_ND)))


def fitted_at(config: RunConfig, time_N: NDArray[np.float64] | None) -> float | None:
    """What the run is given, the newest row's time, or the data file's: equal runs give equal
    bytes, whenever they run. None where none of them is known.
    """
    if config.fitted_at is not None:
        return config.fitted_at
    if time_N is not None and is_clock(time_N.max(initial=0.0, keepdims=True)):
        return float(time_N.max())
    try:
        return float(min(max(int(Path(config.data).stat().st_mtime), 0), LAST_SECOND))
    except OSError:  # moved away since it was read
        return None


def drift_reference(feature: Feature, column: NDArray[np.float32]) -> DriftReference:
    """What the fit rows have of a feature, by which later rows are compared with them."""
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
