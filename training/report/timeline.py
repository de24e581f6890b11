"""Timeline: what a report of windows says of time and entities: what each row was for, how alike
neighbours are, how often each block of time alarms, and how the later rows differ from the earlier.

Shapes: N held-out windows, in order of time; M clean windows, T rows, in order of entity and time;
B bins of time; F features.
"""

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.training.guarantee import left_out_rate
from hourglass.training.order import Part
from hourglass.training.report.figures import TimeAxis, time_axis
from hourglass.training.report.material import Material, Series
from hourglass.training.report.scores import Stretch, Uniformity, earlier_and_later, stretch

BINS = 120
MOST_MOVED = 8  # features

Integers = NDArray[np.integer]
Booleans = NDArray[np.bool_]


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows are of one kind."""

    kind: str
    rows: int


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A block of time of held-out windows."""

    name: str
    alarms: Stretch
    # the same at a threshold that the other blocks give; None where it is the model's in any case,
    # or there is no other block
    left_out: float | None

    @property
    def rate(self) -> float:
        """That nothing of this block had a say in, where there is one."""
        return self.left_out if self.left_out is not None else self.alarms.rate.value or 0.0


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """One number, in standard deviations of the earlier half of the held-out rows."""

    feature: str
    mean: float  # of the later half above that of the earlier
    sd: float  # of the later half over that of the earlier


class Bins(msgspec.Struct, frozen=True, kw_only=True):
    """All clean windows by time, in equal steps; None where a step has no window."""

    time: tuple[float, ...]  # the middle of each
    median: tuple[float | None, ...]  # severity
    highest: tuple[float | None, ...]
    held_out: tuple[bool, ...]  # whether most of its windows are
    threshold: float  # severity


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """Of a model of windows."""

    window: int
    representation: Literal["residual", "multi"]
    time: TimeAxis
    is_clock: bool  # whether times are seconds since 1970
    entity: str | None  # column
    entities: int
    unsorted: int  # rows that the file has before an earlier one of their entity
    breaks: int  # steps of time after which a window begins anew
    gap: float | None  # a longer step is one; None: none is
    rows: tuple[Rows, ...]
    windows: int  # that are clean
    held_out: int
    effective: float  # windows that tell as much and are drawn singly
    calibration_effective: float  # the same of those that set the threshold
    blocks: tuple[Block, ...]
    worst: Block | None  # None of one block
    earlier: Stretch  # half of the held-out windows
    later: Stretch
    drift: Uniformity | None  # None of windows that are worth too little
    moved: tuple[Moved, ...]  # those most that moved most
    bins: Bins


def timeline_of(material: Material) -> Timeline | None:
    """None of a model of single rows."""
    series, window = material.series, material.detector.manifest.window
    if series is None or window is None:
        return None
    axis = time_axis(series.column, series.time_T, series.entity_T)
    assert axis is not None
    alarm_N = material.threshold.is_anomaly(material.score_N)
    halves = [
        stretch(name, part_N, material.worth)
        for name, part_N in zip(
            ("the earlier half", "the later half"), np.array_split(alarm_N, 2), strict=True
        )
    ]
    blocks = _blocks(material, series, alarm_N)
    worst = max(blocks, key=lambda block: block.rate) if len(blocks) > 1 else None
    return Timeline(
        window=window.rows,
        representation=window.representation,
        time=axis,
        is_clock=series.is_clock,
        entity=series.entity_column,
        entities=series.entities,
        unsorted=series.unsorted,
        breaks=int((np.diff(series.segment_T) != 0).sum()) - series.entities + 1,
        gap=window.gap,
        rows=_rows(series, window.rows),
        windows=len(series.place_M),
        held_out=len(alarm_N),
        effective=len(alarm_N) * material.worth,
        calibration_effective=material.detector.table.n * material.calibration_worth,
        blocks=blocks,
        worst=worst,
        earlier=halves[0],
        later=halves[1],
        drift=earlier_and_later(material),
        moved=_moved(material),
        bins=_bins(material, series),
    )


def _rows(series: Series, window: int) -> tuple[Rows, ...]:
    """Every row once, by the first of these that it is."""
    ends_T = np.zeros(len(series.time_T), dtype=bool)
    ends_T[series.place_M] = True
    starts = np.flatnonzero(np.diff(series.segment_T, prepend=series.segment_T[0] - 1))
    length = np.diff(starts, append=len(ends_T))
    warming_T = np.arange(len(ends_T)) - np.repeat(starts, length) < window - 1
    kinds: list[tuple[str, Booleans]] = [
        ("not normal: labelled, excluded or left out", ~series.is_normal_T),
        (f"warming: fewer than {window - 1} rows before it since a beginning or a gap", warming_T),
    ]
    if series.part_T is None:
        kinds.append(("end a window that is judged", ends_T))
    else:
        kinds += [
            (says, ends_T & (series.part_T == part))
            for says, part in (
                ("end a window that fits", Part.FIT),
                ("end a window for early stopping", Part.VALIDATION),
                ("end a window that calibrates", Part.CALIBRATION),
                (f"between these, in gaps of {series.gap_rows} rows", Part.GAP),
            )
        ]
    kinds.append(
        (
            "too few values, or a window with a row that is not normal",
            np.ones(len(ends_T), dtype=bool),
        )
    )
    left_T, found = np.ones(len(ends_T), dtype=bool), []
    for kind, is_T in kinds:
        found.append(Rows(kind=kind, rows=int((is_T & left_T).sum())))
        left_T &= ~is_T
    return tuple(each for each in found if each.rows)


def _blocks(material: Material, series: Series, alarm_N: Booleans) -> tuple[Block, ...]:
    blocks = []
    for span, name in enumerate(series.span_names):
        here_N, left_out = series.span_N == span, None
        if material.calibrated and not here_N.all():
            left_out = left_out_rate(material.score_N, here_N, material.threshold.alpha)
        alarms = stretch(name, alarm_N[here_N], material.worth)
        blocks.append(Block(name=name, alarms=alarms, left_out=left_out))
    return tuple(blocks)


def _moved(material: Material) -> tuple[Moved, ...]:
    """By how far the mean moved; a number that was constant before is in its own unit."""
    found = []
    halves = np.array_split(material.held_out.rows_ND.astype(np.float64), 2)
    for d, feature in enumerate(material.detector.manifest.features):
        earlier_N, later_N = (each[:, d][~np.isnan(each[:, d])] for each in halves)
        if feature.kind != "numeric" or not len(earlier_N) or not len(later_N):
            continue
        unit = float(earlier_N.std()) or 1.0
        mean = (float(later_N.mean()) - float(earlier_N.mean())) / unit
        found.append(Moved(feature=feature.name, mean=mean, sd=float(later_N.std()) / unit))
    return tuple(sorted(found, key=lambda each: -abs(each.mean))[:MOST_MOVED])


def _bins(material: Material, series: Series) -> Bins:
    known_M = ~np.isnan(series.score_M)
    time_M = series.time_T[series.place_M[known_M]]
    severity_M = material.detector.table.severities(series.score_M[known_M])
    is_held_out_T = np.zeros(len(series.time_T), dtype=bool)
    is_held_out_T[material.held_out.place_N] = True
    held_out_M = is_held_out_T[series.place_M[known_M]]
    edges = np.linspace(time_M.min(), time_M.max(), BINS + 1)
    bin_M = np.clip(np.searchsorted(edges, time_M, side="right") - 1, 0, BINS - 1)
    order_M = np.argsort(bin_M, kind="stable")
    ends = np.searchsorted(bin_M[order_M], np.arange(1, BINS))
    parts = np.split(order_M, ends)
    severities = [severity_M[part] for part in parts]
    return Bins(
        time=tuple(((edges[1:] + edges[:-1]) / 2).tolist()),
        median=tuple(_round(np.median(each)) if len(each) else None for each in severities),
        highest=tuple(_round(each.max()) if len(each) else None for each in severities),
        held_out=tuple(bool(len(part) and held_out_M[part].mean() >= 0.5) for part in parts),
        threshold=float(
            material.detector.table.severities(np.array([material.threshold.score], np.float32))[0]
        ),
    )


def _round(value: np.floating) -> float:
    return float(f"{float(value):.4g}")
