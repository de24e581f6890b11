"""Material: a model, and the rows that its report is made of.

Shapes: N normal rows that the model was not fitted on, in the order of the file or of time; A
anomalies; R rows that other methods may be fitted on; T rows of a series, M clean windows of them;
D features.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.calibration import Threshold
from hourglass.service.model.detector import Detector
from hourglass.service.rows.times import is_clock as are_unix
from hourglass.service.rows.times import time_of
from hourglass.training.config import RunConfig
from hourglass.training.evaluate import PARTS
from hourglass.training.guarantee import effective_rows
from hourglass.training.order import Part
from hourglass.training.report.sample import Sample
from hourglass.training.split import Prepared

MOST_NAMED = 3  # groups that share a block
FEWEST_IN_PART = 30  # rows of which a rate is told
DAY_SECONDS = 86_400.0

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Integers = NDArray[np.integer]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Series:
    """Rows in order of entity and time, and the clean windows among them: those of normal rows
    alone, the last of which can be judged.
    """

    column: str  # of time
    is_clock: bool  # whether it has seconds since 1970
    entity_column: str | None
    entity_names: tuple[str, ...]  # by number
    number_T: Integers  # in the file, from 1 without the header
    time_T: Float64
    entity_T: Integers
    segment_T: Integers  # rows of one follow each other without a gap
    is_normal_T: Booleans
    part_T: Integers | None  # a Part each; None where the rows are no run's
    unsorted: int  # rows that the file has before an earlier one of their entity
    gap_rows: int  # between blocks of a run
    place_M: Integers  # of the rows that clean windows end with
    score_M: Float32
    span_N: Integers  # a number for each block of time of the held-out windows
    span_names: tuple[str, ...]  # by these numbers

    @property
    def entities(self) -> int:
        """How many."""
        return len(np.unique(self.entity_T))

    def say_time(self, time: float) -> str:
        """For people."""
        return say_time(time, is_clock=self.is_clock)


@dataclass(frozen=True, slots=True)
class Material:
    """What every section is made from."""

    detector: Detector
    threshold: Threshold
    held_out: Sample
    score_N: Float32  # each by what it is new to
    order: str  # of these rows: that of the file, or of a column
    calibrated: bool  # whether these rows set the threshold
    are_new: bool  # whether these rows set nothing of the model
    # a number for each block of groups, of time, or of windows for each entity; None without
    block_N: Integers | None
    block_names: tuple[str, ...]  # by these numbers
    blocks_of: str  # what a block is
    anomalies: Sample  # those that can be scored
    anomaly_score_A: Float32
    reference: Sample
    new_N: Booleans  # which held-out rows are none of the reference rows
    rows_per_day: float | None
    rows_per_day_is: str  # given, observed or unknown
    seed: int
    # rows drawn singly that tell as much of a share as one of these, which follow each other
    worth: float = 1.0
    calibration_worth: float = 1.0  # the same of those that set the threshold
    series: Series | None = None  # of a windowed model

    def worth_of(self, rows: int) -> float:
        """What one of so many held-out rows, drawn among all, is worth: all together no more."""
        return min(1.0, self.worth * len(self.held_out) / rows)

    @property
    def ranges_A(self) -> Integers:
        """[A] a number for each anomaly, or of a series for each run of them, which is one thing
        that happened.
        """
        apart = 0 if self.series is None else 1
        return np.cumsum(np.diff(self.anomalies.place_N, prepend=-2) > apart) - 1

    @property
    def unit(self) -> str:
        """What is counted."""
        return "rows" if self.series is None else "windows"


def material_of_run(
    detector: Detector, prepared: Prepared, score_N: Float32, config: RunConfig
) -> Material:
    """Of a run: its calibration rows, with the scores that they calibrate by, in the order of
    `prepared`.
    """
    parts = prepared.folds or (prepared.split,)
    first = parts[0]
    order_N = np.argsort(prepared.place_N, kind="stable")
    block_N = prepared.block_N
    rows_per_day, rows_per_day_is = rows_a_day(config.rows_per_day, prepared.time_N)
    anomalies, anomaly_score_A = scored(Sample.of(detector, prepared.data.anomalies_AD))
    return Material(
        detector=detector,
        threshold=detector.threshold,
        held_out=Sample.of(
            detector, np.concatenate([split.calibration_ND for split in parts])[order_N]
        ),
        score_N=score_N[order_N],
        order="the order of the file" if config.time is None else f"the order of {config.time}",
        calibrated=True,
        are_new=False,
        block_N=None if block_N is None else block_N[order_N],
        block_names=block_names(prepared, config),
        blocks_of="block",
        anomalies=anomalies,
        anomaly_score_A=anomaly_score_A,
        reference=Sample.of(detector, np.concatenate([first.fit_ND, first.validation_ND])),
        new_N=order_N < len(first.calibration_ND),
        rows_per_day=rows_per_day,
        rows_per_day_is=rows_per_day_is,
        seed=config.seed,
    )


def material_of_windows(
    detector: Detector, prepared: Prepared, score_M: Float32, config: RunConfig
) -> Material:
    """Of a run of windows, all of which have these scores."""
    ordered, data = prepared.ordered, prepared.data
    assert ordered is not None
    assert config.time is not None
    calibrating = ordered.windows_of(Part.CALIBRATION)
    worth = effective_rows(score_M[calibrating], ordered.runs_of(calibrating)) / len(calibrating)
    in_time = np.argsort(ordered.time_N[ordered.row_M[calibrating]], kind="stable")
    calibrating = calibrating[in_time]
    held_out = ordered.row_M[calibrating]
    span_N: Integers = np.unique(ordered.block_N[held_out], return_inverse=True)[1]
    if span_N.max() == 0:
        span_N = spans_of(len(held_out))
    anomalies = ordered.windows_of_anomalies()
    anomalies = anomalies[~np.isnan(score_M[anomalies])]
    fitted = [ordered.windows_of(part) for part in (Part.FIT, Part.VALIDATION)]
    rows_per_day, rows_per_day_is = rows_a_day(
        config.rows_per_day, ordered.time_N if data.is_clock else None
    )

    def sample(windows_N: Integers) -> Sample:
        row_N = ordered.row_M[windows_N]
        return Sample(
            detector, ordered.rows_NF, row_N, ordered.entity_N, prepared.data.entity_names
        )

    return Material(
        detector=detector,
        threshold=detector.threshold,
        held_out=sample(calibrating),
        score_N=score_M[calibrating],
        order=f"the order of {config.time}",
        calibrated=True,
        are_new=False,
        block_N=ordered.entity_N[held_out] if data.entity_names else None,
        block_names=data.entity_names,
        blocks_of=config.entity or "block",
        anomalies=sample(anomalies),
        anomaly_score_A=score_M[anomalies],
        reference=sample(np.concatenate(fitted)),
        new_N=np.ones(len(calibrating), dtype=bool),
        rows_per_day=rows_per_day,
        rows_per_day_is=rows_per_day_is,
        seed=config.seed,
        worth=min(worth, 1.0),
        calibration_worth=min(worth, 1.0),
        series=Series(
            column=config.time,
            is_clock=data.is_clock,
            entity_column=config.entity,
            entity_names=data.entity_names,
            number_T=ordered.number_N,
            time_T=ordered.time_N,
            entity_T=ordered.entity_N,
            segment_T=ordered.segment_N,
            is_normal_T=ordered.normal_N,
            part_T=ordered.part_N,
            unsorted=ordered.unsorted,
            gap_rows=ordered.gap_rows,
            place_M=ordered.row_M[ordered.is_clean_M],
            score_M=score_M[ordered.is_clean_M],
            span_N=span_N,
            span_names=names_of_spans(ordered.time_N[held_out], span_N, is_clock=data.is_clock),
        ),
    )


def scored(anomalies: Sample) -> tuple[Sample, Float32]:
    """Those that can be, and their scores."""
    anomalies = anomalies.take(anomalies.has_enough_N)
    score_A = anomalies.score().score
    known_A = ~np.isnan(score_A)
    return anomalies.take(known_A), score_A[known_A]


def in_parts(rows: int) -> list[NDArray[np.intp]]:
    """The numbers of rows in order, in as many parts as are told apart."""
    count = min(PARTS, max(2, rows // FEWEST_IN_PART), rows)
    return np.array_split(np.arange(rows), count)


def spans_of(rows: int) -> Integers:
    """[N] the number of the part that each row in order is in."""
    parts = in_parts(rows)
    return np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def rows_a_day(given: float | None, time_N: Float64 | None) -> tuple[float | None, str]:
    """How many rows come a day, and how that is known: told, or seen by times in seconds."""
    if given is not None:
        return given, "given"
    if time_N is not None and len(time_N) > 1 and are_unix(time_N):
        seconds = float(time_N.max() - time_N.min())
        if seconds > 0:
            return (len(time_N) - 1) / seconds * DAY_SECONDS, "observed"
    return None, "unknown"


def block_names(prepared: Prepared, config: RunConfig) -> tuple[str, ...]:
    """Of blocks of groups their groups, of blocks of time when they begin and end."""
    block_N, place_N = prepared.block_N, prepared.place_N
    if block_N is None:
        return ()
    if prepared.group_N is None:
        if prepared.time_N is None:
            return ()
        is_clock = are_unix(prepared.time_N)
        return names_of_spans(prepared.time_N[place_N], block_N, is_clock=is_clock)
    names = []
    for block in range(int(block_N.max()) + 1):
        here_N = place_N[block_N == block]
        groups = [prepared.data.group_names[g] for g in np.unique(prepared.group_N[here_N])]
        more = f" and {len(groups) - MOST_NAMED} more" if len(groups) > MOST_NAMED else ""
        names.append(f"{config.group} {', '.join(groups[:MOST_NAMED])}{more}")
    return tuple(names)


def names_of_spans(time_N: Float64, block_N: Integers, *, is_clock: bool) -> tuple[str, ...]:
    """When each block begins and ends."""
    names = []
    for block in range(int(block_N.max()) + 1):
        here_N = time_N[block_N == block]
        ends = (here_N.min(), here_N.max()) if len(here_N) else ()
        names.append(" to ".join(say_time(float(time), is_clock=is_clock) for time in ends))
    return tuple(names)


def say_time(time: float, *, is_clock: bool) -> str:
    """A time for people, in UTC, or a number."""
    if not is_clock:
        return f"{time:.10g}"
    return f"{time_of(time):%Y-%m-%d %H:%M}"
