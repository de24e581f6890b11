"""What a job is asked and what it answers: one (set, seed, detector)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray


class Hourglass(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One of ours: what `hourglass-train fit` is told."""

    flags: dict[str, Any] = {}
    config: str | None = None  # a run.toml


class Baseline(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One of the field's, by its name among BASELINES."""

    name: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One fit."""

    path: str  # of the npz file
    seed: int
    name: str  # of the detector
    detector: Hourglass | Baseline

    @property
    def set(self) -> str:
        return Path(self.path).stem


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Rates are shares of the test rows of their kind, at the detector's own threshold."""

    auroc: float
    average_precision: float
    detection_rate: float | None = None
    false_alarm_rate: float | None = None
    alpha: float | None = None  # the budget the threshold is meant to keep
    certified: bool | None = None
    fit_seconds: float | None = None  # from rows in memory to a fitted network, without export
    publish_seconds: float | None = None  # ours: from the file of rows to the published, verified artifact
    cpu_seconds: float | None = None  # of the process during fit_seconds; the steadier figure on a busy machine
    size_bytes: int | None = None  # ours: the artifact; others: the pickled detector
    one_row_microseconds: float | None = None
    bulk_row_microseconds: float | None = None  # a row of 1,024
    fit_rows: int | None = None
    test_rows: int | None = None
    anomalies: int | None = None
    features: int | None = None
    notes: dict[str, Any] = {}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The file of one (set, seed, detector): figures, or the reason why there are none."""

    set: str
    seed: int
    detector: str
    baseline: bool
    measured: Measured | None = None
    failure: str | None = None
    revision: str | None = None  # of this repository
    machine: str | None = None


class Fitted(NamedTuple):
    """A detector after fitting, whoever made it."""

    score: Callable[[NDArray[np.float32]], NDArray[np.floating]]  # rows [N, D] -> [N], higher is stranger
    threshold: float | None
    alpha: float | None
    certified: bool
    fit_seconds: float
    publish_seconds: float | None
    cpu_seconds: float
    size_bytes: int
    notes: dict[str, Any]
