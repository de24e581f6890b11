"""What the field uses otherwise: PyOD's detectors at the library's defaults, and DTE-NP, on
standardised rows.

Runs in an environment of its own (requirements.txt); the libraries are imported when a detector is
fitted.
"""

import importlib
import inspect
import pickle
from collections.abc import Mapping
from time import perf_counter, process_time
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.adbench.outcome import Baseline, Fitted
from tests.benchmarks.adbench.protocol import Float32

CONTAMINATION = 0.1  # PyOD's default: its threshold is the 90 % quantile of the fit rows' scores


class Source(NamedTuple):
    """Where a detector comes from, and what is not left at its default."""

    module: str
    name: str
    arguments: Mapping[str, Any] = MappingProxyType({})


BASELINES = {
    "knn": Source("pyod.models.knn", "KNN"),  # distance to the 5th neighbour
    "knn-mean": Source("pyod.models.knn", "KNN", {"method": "mean"}),
    "lof": Source("pyod.models.lof", "LOF"),
    "iforest": Source("pyod.models.iforest", "IForest"),
    "ecod": Source("pyod.models.ecod", "ECOD"),
    "copod": Source("pyod.models.copod", "COPOD"),
    "hbos": Source("pyod.models.hbos", "HBOS"),
    "pca": Source("pyod.models.pca", "PCA"),
    "autoencoder": Source("pyod.models.auto_encoder", "AutoEncoder"),
    "vae": Source("pyod.models.vae", "VAE"),
    "deepsvdd": Source("pyod.models.deep_svdd", "DeepSVDD"),
    "lunar": Source("pyod.models.lunar", "LUNAR"),
    "dif": Source("pyod.models.dif", "DIF"),
    "ocsvm": Source("pyod.models.ocsvm", "OCSVM"),
    "dte-np": Source("tests.benchmarks.adbench.dte", "DteNp"),
    "knn-local-scale": Source("tests.benchmarks.adbench.local_scale", "LocalScale"),
}


def fit(baseline: Baseline, rows_ND: Float32, seed: int) -> Fitted:
    """Standardise by the fit rows, seed every generator there is, fit."""
    source = BASELINES[baseline.name]
    kind = getattr(importlib.import_module(source.module), source.name)
    _seed(seed)
    given = {"random_state": seed, "n_features": rows_ND.shape[1]}
    accepted = inspect.signature(kind).parameters
    detector = kind(
        **{name: value for name, value in given.items() if name in accepted}, **source.arguments
    )

    wall, cpu = perf_counter(), process_time()
    wide_ND = rows_ND.astype(np.float64)
    center_D, scale_D = wide_ND.mean(axis=0), wide_ND.std(axis=0)
    scale_D[scale_D == 0] = 1.0
    detector.fit((wide_ND - center_D) / scale_D)
    seconds, cpu_seconds = perf_counter() - wall, process_time() - cpu

    def score(rows_ND: Float32) -> NDArray[np.floating]:
        return np.asarray(
            detector.decision_function((rows_ND.astype(np.float64) - center_D) / scale_D)
        ).ravel()

    threshold = getattr(detector, "threshold_", None)  # DTE-NP has none
    return Fitted(
        score=score,
        threshold=None if threshold is None else float(threshold),
        alpha=None if threshold is None else CONTAMINATION,
        certified=False,
        fit_seconds=seconds,
        publish_seconds=None,
        cpu_seconds=cpu_seconds,
        size_bytes=len(pickle.dumps(detector)),
        notes={},
    )


def _seed(seed: int) -> None:
    np.random.seed(seed)
    try:
        import torch
    except ImportError:
        return
    torch.manual_seed(seed)
    torch.set_num_threads(1)
