"""What a job is asked and what it answers: one (set, seed, detector)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

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


Question = Literal["quality", "missing", "speed"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One fit, and what is measured of it."""

    path: str  # of the npz file
    seed: int
    name: str  # of the detector
    detector: Hourglass | Baseline
    question: Question = "quality"
    hidden_in_training: float = 0.0  # share of the fit rows' cells

    @property
    def set(self) -> str:
        return Path(self.path).stem

    @property
    def file(self) -> str:
        hidden = f"-hidden-{self.hidden_in_training:g}" if self.hidden_in_training else ""
        return f"{self.name}{hidden}-{self.seed}.json"


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """The test rows with a share of cells missing, beside themselves complete, and with the fit
    rows' means in the gaps.

    All three over the rows that keep enough cells to be scored. False alarms are at `alpha`.
    """

    share: float
    refused: float  # share of test rows with too few cells left
    auroc: float
    average_precision: float
    false_alarm_rate: float
    complete_auroc: float
    complete_average_precision: float
    complete_false_alarm_rate: float
    imputed_auroc: float
    imputed_average_precision: float
    imputed_false_alarm_rate: float
    alpha: float
    certified: (
        bool  # the threshold's rule; the marginal one where there are too few calibration rows
    )


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Rates are shares of the test rows of their kind, at the detector's own threshold."""

    auroc: float
    average_precision: float
    detection_rate: float | None = None
    false_alarm_rate: float | None = None
    alpha: float | None = None  # the budget the threshold is meant to keep
    certified: bool | None = None
    fit_seconds: float | None = None  # from rows in memory to a fitted network, without export
    publish_seconds: float | None = (
        None  # ours: from the file of rows to the published, verified artifact
    )
    cpu_seconds: float | None = (
        None  # of the process during fit_seconds; the steadier figure on a busy machine
    )
    size_bytes: int | None = None  # ours: the artifact; others: the pickled detector
    one_row_microseconds: float | None = None
    bulk_row_microseconds: float | None = None  # a row of 1,024
    bulk_rows_per_second: float | None = None  # many rows in one call
    missing: tuple[Missing, ...] = ()
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
    hidden_in_training: float = 0.0
    revision: str | None = None  # of this repository
    machine: str | None = None


class Fitted(NamedTuple):
    """A detector after fitting, whoever made it."""

    # rows [N, D] -> [N], higher is stranger
    score: Callable[[NDArray[np.float32]], NDArray[np.floating]]
    threshold: float | None
    alpha: float | None
    certified: bool
    fit_seconds: float
    publish_seconds: float | None
    cpu_seconds: float
    size_bytes: int
    notes: dict[str, Any]
    threshold_at: Callable[[float], tuple[float, bool]] | None = (
        None  # alpha -> score, and whether certified; ours
    )
    min_observed: float = 0.0  # share of a row's cells, below which the service refuses it
