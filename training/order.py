"""Order: rows as each entity's series in time, where their windows are fitted, held out and
calibrated on.

Rows next to each other know too much of each other to be drawn singly, so whole blocks of time are
held out, with gaps between that no set gets: as long as a window, so that the windows of two sets
share no row, and GAP_ROWS at least.

Shapes: N rows, F features, M windows, D derived columns.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.artifact import NOBODY, Feature
from hourglass.training.baselines import Baselines, fit_baselines, to_fleet
from hourglass.training.config import RunConfig
from hourglass.training.data import Data, describe
from hourglass.training.errors import RunError
from hourglass.training.windows import Windowing, derive, fit_windowing

BLOCKS = 5  # of time, spread evenly over each entity's rows; the last one ends with the last row
GAP_ROWS, FEW, GAP_ROWS_OF_FEW = 60, 2000, 10  # between blocks; of fewer rows in all
MOST_GAPS = 0.25  # share of the rows that may lie in gaps, or there are fewer blocks
LONG_STEP = 10.0  # median steps, after which the window begins anew

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


class Part(IntEnum):
    """What a row is for."""

    GAP = 0
    FIT = 1
    VALIDATION = 2
    CALIBRATION = 3


class Ordered(NamedTuple):
    """All rows of a run, by entity and time, and the windows of them."""

    features: tuple[Feature, ...]  # as the fit rows have them
    rows_NF: Float32
    fleet_NF: Float32  # the rows in the fleet's units; without baselines as they are
    code_N: Integers  # of each row's entity among those with baselines
    number_N: Integers  # in the file, from 1 without the header
    time_N: Float64
    entity_N: Integers
    segment_N: Integers  # rows of one follow each other
    normal_N: Booleans  # what may be learnt from
    is_anomaly_N: Booleans  # by the label
    part_N: Integers  # a Part
    block_N: Integers  # of time, within each entity
    windowing: Windowing  # of rows in the fleet's units
    baselines: Baselines | None
    entity_names: tuple[str, ...]  # by the codes
    row_M: Integers  # that each window ends with
    derived_MD: Float32
    is_clean_M: Booleans  # no row of it but normal ones, and its last has enough values
    interval: float | None  # median step of time, in its units
    gap: float  # the longest step within a segment
    gap_rows: int  # between blocks
    entities: int
    gaps: int  # steps that are longer
    repeated: int  # rows at the time of the one before
    unsorted: int  # rows that the file has before an earlier one of their entity

    @property
    def rows(self) -> int:
        """W."""
        return self.windowing.rows

    def windows_of(self, part: Part) -> Integers:
        """Clean windows that end in such a part."""
        return np.flatnonzero(self.is_clean_M & (self.part_N[self.row_M] == part))

    def runs_of(self, windows_M: Integers) -> Integers:
        """A number for each of these windows, that those of one block share without a gap."""
        row_M = self.row_M[windows_M]
        return self.segment_N[row_M] * BLOCKS + self.block_N[row_M]

    def in_order_of_time(self) -> Integers:
        """All clean windows."""
        clean_M = np.flatnonzero(self.is_clean_M)
        return clean_M[np.argsort(self.time_N[self.row_M[clean_M]], kind="stable")]

    def windows_of_anomalies(self) -> Integers:
        """Those that end with a labelled anomaly, whatever they hold."""
        return np.flatnonzero(self.is_anomaly_N[self.row_M])

    def longest_stretch(self, most: int) -> slice:
        """The last rows, so many at most, of the longest segment."""
        _, start, count = np.unique(self.segment_N, return_index=True, return_counts=True)
        longest = int(np.argmax(count))
        end = int(start[longest] + count[longest])
        return slice(end - min(most, int(count[longest])), end)


def put_in_order(data: Data, config: RunConfig, min_observed_fraction: float) -> Ordered:
    """The rows by entity and time, split by blocks of time, and what is derived of their windows;
    RunError where they are too few for that.
    """
    history = data.history
    assert history is not None
    assert data.time_N is not None
    assert data.entity_N is not None
    window = config.window_rows
    normal, rest = len(data.normal_ND), len(history.rows_HD)
    number_N = np.concatenate([data.number_N, history.number_H])
    time_N = np.concatenate([data.time_N, history.time_H])
    entity_N = np.concatenate([data.entity_N, history.entity_H])
    order_N = np.lexsort((number_N, time_N, entity_N))
    rows_NF = np.concatenate([data.normal_ND, history.rows_HD])[order_N]
    number_N, time_N, entity_N = number_N[order_N], time_N[order_N], entity_N[order_N]
    normal_N = (np.arange(normal + rest) < normal)[order_N]
    is_anomaly_N = np.concatenate([np.zeros(normal, dtype=bool), history.is_anomaly_H])[order_N]

    same_N = np.diff(entity_N) == 0
    step_N = np.diff(time_N)
    steps = step_N[same_N & (step_N > 0)]
    interval = float(np.median(steps)) if len(steps) else None
    gap = config.gap or (LONG_STEP * interval if interval else np.inf)
    begins_N = ~same_N | (step_N > gap)
    segment_N = np.concatenate([[0], np.cumsum(begins_N)]).astype(np.int64)

    _, length_E = np.unique(entity_N, return_counts=True)
    longest = int(np.unique(segment_N, return_counts=True)[1].max())
    if longest < window:
        of = f"entity of {config.entity}" if config.entity else "stretch without a gap"
        raise RunError(
            f"a window has {window} rows, and no {of} has more than {longest} in a row; --window"
            " takes fewer, --window 1 scores single rows"
        )
    part_N, block_N, gap_rows = _blocks_of(length_E, config)
    fit_N = normal_N & (part_N == Part.FIT)
    if not fit_N.any():
        raise RunError("no normal row is left to be fitted on between the blocks held out")
    features = describe(data.features, rows_NF[fit_N])
    baselines, fleet_NF, code_N = None, rows_NF, np.full(len(rows_NF), NOBODY)
    names: tuple[str, ...] = ()
    if config.baseline == "entity":
        if all(feature.kind != "numeric" for feature in features):
            raise RunError(
                "a baseline is a number's level and spread, and no feature is a number; --baseline"
                " fleet does without"
            )
        known_E = np.unique(entity_N[fit_N])  # of the others nothing is learnt
        names = tuple(data.entity_names[entity] for entity in known_E)
        line_N = np.searchsorted(known_E, entity_N).clip(max=len(known_E) - 1)
        code_N = np.where(known_E[line_N] == entity_N, line_N, NOBODY)
        entities = len(known_E)
        baselines = fit_baselines(rows_NF, code_N, fit_N, features, entities=entities, look=window)
        fleet_NF = to_fleet(baselines, rows_NF, code_N)
    windowing = fit_windowing(
        fleet_NF, segment_N, features, fit_N, window=window, representation=config.representation
    )
    derived_MD, row_M = derive(windowing, fleet_NF, segment_N)
    observed_N = (~np.isnan(rows_NF)).mean(axis=1) >= min_observed_fraction
    others_N = np.concatenate([[0], np.cumsum(~normal_N)])
    is_clean_M = (others_N[row_M + 1] == others_N[row_M + 1 - window]) & observed_N[row_M]
    ordered = Ordered(
        features,
        rows_NF,
        fleet_NF,
        code_N,
        number_N,
        time_N,
        entity_N,
        segment_N,
        normal_N,
        is_anomaly_N,
        part_N,
        block_N,
        windowing,
        baselines,
        names,
        row_M.astype(np.int64),
        derived_MD,
        is_clean_M,
        interval,
        gap,
        gap_rows,
        len(length_E),
        int((same_N & (step_N > gap)).sum()),
        int((same_N & (step_N == 0)).sum()),
        int((same_N & (np.diff(number_N) < 0)).sum()),
    )
    for part in (Part.FIT, Part.VALIDATION, Part.CALIBRATION):
        if not len(ordered.windows_of(part)):
            raise RunError(
                f"{normal:,} normal rows hold no window of {window} for {part.name.lower()} between"
                f" gaps of {gap_rows} rows; --window takes fewer"
            )
    return ordered


def _blocks_of(length_E: Integers, config: RunConfig) -> tuple[Integers, Integers, int]:
    """Of each entity's rows the part and the block of time; and the rows between two blocks."""
    gap = max(config.window_rows, GAP_ROWS if length_E.sum() >= FEW else GAP_ROWS_OF_FEW)
    parts, blocks = [], []
    for length in length_E.tolist():
        part_N = np.full(length, Part.GAP, dtype=np.int64)
        count = min(max(1, int(MOST_GAPS * length / (3 * gap))), BLOCKS)
        block_N = np.arange(length) * count // max(length, 1)
        for block in range(count):
            part_N[block_N == block] = _parts_of(
                int((block_N == block).sum()), gap, block == count - 1, config
            )
        parts.append(part_N)
        blocks.append(block_N)
    return np.concatenate(parts), np.concatenate(blocks), gap


def _parts_of(rows: int, gap: int, is_last: bool, config: RunConfig) -> Integers:
    """Of one block of time what fits, then is held out, then calibrates, with gaps between; of one
    that is too short for that, all fits.
    """
    split = config.split
    validation, calibration = round(rows * split.validation), round(rows * split.calibration)
    lengths = [gap, validation, gap, calibration, 0 if is_last else gap]
    fitted = rows - sum(lengths)
    if min(fitted, validation, calibration) < 1:
        return np.full(rows, Part.FIT, dtype=np.int64)
    kinds = [Part.FIT, Part.GAP, Part.VALIDATION, Part.GAP, Part.CALIBRATION, Part.GAP]
    return np.repeat(np.array(kinds, dtype=np.int64), [fitted, *lengths])
