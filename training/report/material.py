"""Material: a model, and the rows that its report is made of.

Shapes: N normal rows that the model was not fitted on, in the order of the file or of time; A
anomalies; R rows that other methods may be fitted on; D features.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.artifact import LAST_SECOND
from hourglass.service.model.calibration import Threshold
from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema
from hourglass.training.config import RunConfig
from hourglass.training.manifest import UNIX_TIMES
from hourglass.training.split import Prepared

MOST_NAMED = 3  # groups that share a block
DAY_SECONDS = 86_400.0

Float32 = NDArray[np.float32]
Integers = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Material:
    """What every section is made from."""

    detector: Detector
    threshold: Threshold
    held_out_ND: Float32
    score_N: Float32  # each by what it is new to
    order: str  # of these rows: that of the file, or of a column
    calibrated: bool  # whether these rows set the threshold
    are_new: bool  # whether these rows set nothing of the model
    block_N: Integers | None  # a number for each block of time, or of groups; None without
    block_names: tuple[str, ...]  # by these numbers
    anomalies_AD: Float32
    reference_RD: Float32
    new_N: NDArray[np.bool_]  # which held-out rows are none of the reference rows
    rows_per_day: float | None
    rows_per_day_is: str  # given, observed or unknown
    seed: int

    @property
    def anomaly_score_A(self) -> Float32:
        """[A] of those anomalies that can be scored."""
        enough_A = Schema.of(self.detector.manifest).has_enough(self.anomalies_AD)
        score_A = self.detector.score(self.anomalies_AD[enough_A]).score
        return score_A[~np.isnan(score_A)]


def material_of_run(
    detector: Detector, prepared: Prepared, score_N: Float32, config: RunConfig
) -> Material:
    """Of a run: its calibration rows, with the scores that they calibrate by, in the order of
    `prepared`.
    """
    parts = prepared.folds or (prepared.split,)
    calibration_ND = np.concatenate([split.calibration_ND for split in parts])
    first = parts[0]
    order_N = np.argsort(prepared.place_N, kind="stable")
    block_N = prepared.block_N
    rows_per_day, rows_per_day_is = rows_a_day(config.rows_per_day, prepared.time_N)
    return Material(
        detector=detector,
        threshold=detector.threshold,
        held_out_ND=calibration_ND[order_N],
        score_N=score_N[order_N],
        order="the order of the file" if config.time is None else f"the order of {config.time}",
        calibrated=True,
        are_new=False,
        block_N=None if block_N is None else block_N[order_N],
        block_names=block_names(prepared, config),
        anomalies_AD=prepared.data.anomalies_AD,
        reference_RD=np.concatenate([first.fit_ND, first.validation_ND]),
        new_N=order_N < len(first.calibration_ND),
        rows_per_day=rows_per_day,
        rows_per_day_is=rows_per_day_is,
        seed=config.seed,
    )


def rows_a_day(given: float | None, time_N: NDArray[np.float64] | None) -> tuple[float | None, str]:
    """How many rows come a day, and how that is known: told, or seen by times in seconds."""
    if given is not None:
        return given, "given"
    if time_N is not None and len(time_N) > 1 and is_unix(time_N):
        seconds = float(time_N.max() - time_N.min())
        if seconds > 0:
            return (len(time_N) - 1) / seconds * DAY_SECONDS, "observed"
    return None, "unknown"


def is_unix(time_N: NDArray[np.float64]) -> bool:
    """Whether these are seconds since 1970, and not other numbers that grow."""
    return bool(UNIX_TIMES[0] <= time_N.min() and time_N.max() <= UNIX_TIMES[1])


def block_names(prepared: Prepared, config: RunConfig) -> tuple[str, ...]:
    """Of blocks of groups their groups, of blocks of time when they begin and end."""
    block_N, place_N = prepared.block_N, prepared.place_N
    if block_N is None:
        return ()
    names = []
    for block in range(int(block_N.max()) + 1):
        here_N = place_N[block_N == block]
        if prepared.group_N is not None:
            groups = [prepared.data.group_names[g] for g in np.unique(prepared.group_N[here_N])]
            more = f" and {len(groups) - MOST_NAMED} more" if len(groups) > MOST_NAMED else ""
            names.append(f"{config.group} {', '.join(groups[:MOST_NAMED])}{more}")
        elif prepared.time_N is not None and len(here_N):
            times = prepared.time_N[here_N]
            unix = is_unix(prepared.time_N)
            names.append(f"{_say_time(times.min(), unix)} to {_say_time(times.max(), unix)}")
    return tuple(names)


def _say_time(time: float, unix: bool) -> str:
    if not unix:
        return f"{time:g}"
    return datetime.fromtimestamp(min(time, LAST_SECOND), UTC).strftime("%Y-%m-%d %H:%M")
