"""Which normal rows are fit for use, and the three disjoint sets they are split into: drawn row by
row, or held out as whole blocks of time or whole groups.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from hourglass.service.errors import InvalidTable
from hourglass.service.model.artifact import Feature
from hourglass.service.rows.tables import read_table
from hourglass.service.watch.recording import ANSWERS, TIME
from hourglass.training.calibrate import check_alpha
from hourglass.training.config import AutoConfig, RunConfig, SplitConfig
from hourglass.training.data import Data, describe, prepare
from hourglass.training.errors import RunError
from hourglass.training.exclusions import read_row_numbers, rows_by_time
from hourglass.training.fingerprints import hash_rows
from hourglass.training.models.associative import AssociativeConfig
from hourglass.training.order import Ordered, Part, put_in_order
from hourglass.training.parquet import Parquet, files_below, is_large
from hourglass.training.prometheus import ask, say_missing
from hourglass.training.recorded import is_recording, read_recording, say_unknown
from hourglass.training.sums import IN_MEMORY, Measures, Sums

MIN_NORMAL_ROWS = 20
MIN_OBSERVED_FRACTION = 0.5
# calibrate no fewer, since they can certify 5 % of false alarms with a confidence of 95 %,
CERTIFYING_ROWS = 59
MAX_CALIBRATION = 0.25  # unless that were more than this share of the rows

BLOCKS = 5  # of time, spread evenly; the last one ends with the last row
GAP = 10  # rows between blocks that no set gets: one for so many calibration rows of a block
FEWEST_IN_BLOCK = 40  # smaller groups share a block, so that it can tell of 5 %
LARGEST_GROUP = 3  # a group of more than one row in so many is always fitted
COMMON = 50
FOLDS = 5
# below so many rows, models of folds find more at the same budget than one with a split of its own
FEW = 600
WIDE = 2000  # features, of which a file of five models is large, and takes long to fit

Float32 = NDArray[np.float32]
Integers = NDArray[np.integer]


class Split(NamedTuple):
    """Calibration rows are used for nothing but calibration: any other use breaks the guarantee."""

    fit_ND: Float32
    validation_ND: Float32  # early stopping, residual variance, choosing between members
    calibration_ND: Float32


class Places(NamedTuple):
    """Where each normal row goes: numbers of rows in their order, ascending within no set."""

    fit_N: Integers
    validation_N: Integers
    calibration_N: Integers
    block_N: Integers | None = None  # of each calibration row; None where rows were drawn singly


class Prepared(NamedTuple):
    """The data of a run, ready for any member."""

    data: Data
    split: Split
    features: tuple[Feature, ...]  # with missing rate and range, as the fit rows have them
    min_observed_fraction: float
    rows_ND: Float32  # all normal rows that can be used, in order of time where there is one
    time_N: NDArray[np.float64] | None  # of these rows
    group_N: Integers | None
    block_N: Integers | None  # of each calibration row; None where rows were drawn singly
    copies: int  # of these rows, those that repeat an earlier one
    # of each calibration row, of one fold after another, its place among all of these rows
    place_N: Integers
    # of each model of several, which calibrate on all rows together: folds.py; then `split` has all
    # of them as fit rows
    folds: tuple[Split, ...] = ()
    # of a windowed model: then the split and the features are of what is derived of windows, and
    # rows_ND are the rows that these end with
    ordered: Ordered | None = None
    sums: Sums = IN_MEMORY  # where the fit rows are, of which `split` has those in memory
    measures: Measures | None = None  # of all fit rows; None: of those in memory

    @property
    def row_features(self) -> tuple[Feature, ...]:
        """Of `rows_ND`."""
        return self.features if self.ordered is None else self.ordered.features

    @property
    def calibration_rows(self) -> int:
        """How many rows calibrate."""
        parts = self.folds or (self.split,)
        return sum(len(split.calibration_ND) for split in parts)


class Table(NamedTuple):
    """A run's rows as they came, and the run with what was found while they were read."""

    frame: pl.DataFrame | Parquet
    config: RunConfig


def read_rows_of(config: RunConfig) -> Table:
    """Of an address what a Prometheus answers; else the table as it lies there."""
    if config.prometheus and config.asks_prometheus:
        asked = ask(config.data, config.prometheus)
        return Table(asked.frame, msgspec.structs.replace(config, prometheus=asked.config))
    return Table(table_of(config), config)


def table_of(config: RunConfig) -> pl.DataFrame | Parquet:
    """A run's table; of a folder the rows that the service has recorded, or those of all Parquet
    files in it, which memory need not hold. What looks like a number and begins with 0 is text in
    a CSV, for `data_of` to refuse, unless it is to be a number.
    """
    if is_recording(config.data):
        return read_recording(config.data, config.name)
    place = Path(config.data)
    if place.is_dir() or is_large(place):
        return Parquet(files_below(place) if place.is_dir() else [place], config.null)
    no_features = [column for column in (config.label, config.time) if column]
    return read_table(
        Path(config.data),
        config.dialect(),
        (*config.categorical, *([config.entity] if config.entity else [])),
        numbers=(*no_features, *config.ignore, *config.keep),
    )


def excluded_of(frame: pl.DataFrame | Parquet, config: RunConfig) -> tuple[int, ...]:
    """The numbers, from 1, of rows that a run leaves out of everything."""
    numbers: set[int] = set()
    if config.exclude:
        numbers.update(read_row_numbers(Path(config.exclude), frame.height))
    time = TIME if is_recording(config.data) else config.time
    if time and (config.recent or config.exclude_times):
        if time not in frame.columns:
            raise RunError(f"there is no column {time!r} in {config.data}")
        numbers.update(rows_by_time(frame[time], config.recent, config.exclude_times))
    return tuple(sorted(numbers))


def data_of(frame: pl.DataFrame | Parquet, config: RunConfig, exclude: Sequence[int] = ()) -> Data:
    """A run's table as the run reads it; rows are left out by their numbers, from 1."""
    if isinstance(frame, Parquet):
        try:
            return _prepared(frame, config, exclude, config.ignore)
        except (RunError, InvalidTable) as error:
            raise type(error)(frame.place(str(error))) from error
    ignore, unknown = config.ignore, None
    if is_recording(config.data):
        ignore, unknown = (*ignore, *ANSWERS), say_unknown(frame)
    elif config.prometheus and config.asks_prometheus:
        unknown = say_missing(frame, config.prometheus)
    data = _prepared(frame, config, exclude, ignore)
    return data._replace(warnings=(*data.warnings, unknown)) if unknown else data


def _prepared(
    frame: pl.DataFrame | Parquet,
    config: RunConfig,
    exclude: Sequence[int],
    ignore: tuple[str, ...],
) -> Data:
    return prepare(
        frame,
        label=config.label,
        ignore=ignore,
        units=config.units,
        max_categories=config.max_categories,
        time=config.time,
        group=config.group,
        exclude=exclude,
        normal=config.normal,
        keep=config.keep,
        categorical=config.categorical,
        dialect=config.dialect(),
        max_rows=config.max_rows,
        seed=config.seed,
        entity=config.entity,
        ordered=config.window_rows > 1,
    )


def split_data(data: Data, config: RunConfig) -> Prepared:
    """Split the normal rows; RunError when there are too few, or too few for the budget asked
    for.
    """
    rows_ND, min_observed_fraction = admissible_rows(data.normal_ND)
    if config.window_rows > 1:
        return _split_windows(data, config, min_observed_fraction)
    kept_N = np.flatnonzero((~np.isnan(data.normal_ND)).mean(axis=1) >= min_observed_fraction)
    time_N = None if data.time_N is None else data.time_N[kept_N]
    group_N = None if data.group_N is None else data.group_N[kept_N]
    if time_N is not None:
        order_N = np.argsort(time_N, kind="stable")
        rows_ND, time_N = rows_ND[order_N], time_N[order_N]
        group_N = None if group_N is None else group_N[order_N]
    hash_N = row_hashes(rows_ND, config.split.seed)
    folds: tuple[Split, ...] = ()
    block_N: Integers | None = None
    if count := folds_of(len(rows_ND), len(data.features), config):
        few = in_folds(hash_N, count, config.split)
        taken = [take(rows_ND, places) for places in few]
        folds = tuple(each[0] for each in taken)
        place_N = np.concatenate([each[2] for each in taken])
        split = Split(rows_ND, rows_ND[:0], rows_ND[:0])
    else:
        if group_N is not None:
            places = by_group(group_N, config.split)
        elif time_N is not None:
            places = by_time(len(rows_ND), config.split)
        else:
            places = one_by_one(hash_N, config.split)
        split, block_N, place_N = take(rows_ND, places)
    prepared = Prepared(
        data,
        split,
        describe(data.features, split.fit_ND),
        min_observed_fraction,
        rows_ND,
        time_N,
        group_N,
        block_N,
        len(rows_ND) - len(np.unique(hash_N)),
        place_N,
        folds,
    )
    if config.alpha is not None and block_N is None:  # known before the fit, so said before it
        check_alpha(
            prepared.calibration_rows, config.alpha, config.delta, uncertified=config.uncertified
        )
    return prepared


def _split_windows(data: Data, config: RunConfig, min_observed_fraction: float) -> Prepared:
    """Windows that end with normal rows and hold no other, by blocks of time."""
    ordered = put_in_order(data, config, min_observed_fraction)
    parts = [ordered.windows_of(part) for part in (Part.FIT, Part.VALIDATION, Part.CALIBRATION)]
    split = Split(*(ordered.derived_MD[part] for part in parts))
    judged_M = ordered.in_order_of_time()
    place_M = np.zeros(len(ordered.row_M), dtype=np.int64)
    place_M[judged_M] = np.arange(len(judged_M))
    rows_ND = ordered.rows_NF[ordered.row_M[judged_M]]
    return Prepared(
        data,
        split,
        ordered.windowing.derived_features(split.fit_ND),
        min_observed_fraction,
        rows_ND,
        ordered.time_N[ordered.row_M[judged_M]],
        None,
        ordered.block_N[ordered.row_M[parts[2]]],
        len(rows_ND) - len(np.unique(row_hashes(rows_ND, config.split.seed))),
        place_M[parts[2]],
        ordered=ordered,
    )


def folds_of(rows: int, features: int, config: RunConfig) -> int:
    """How many folds so many rows are split into; 0 where they are split once. RunError where folds
    are asked for that cannot be had.
    """
    folds = config.split.folds
    if config.time is not None or config.group is not None:
        if folds:
            raise RunError("folds are of rows drawn singly, and --time and --group hold out blocks")
        return 0
    if folds is None:  # a member that is named is taken as it is: its codes can be decoded
        preset = isinstance(config.model, (AssociativeConfig, AutoConfig))
        return FOLDS if preset and rows < FEW and features <= WIDE else 0
    if folds > rows // 2:
        raise RunError(f"{rows} normal rows make {rows // 2} folds at most, got {folds}")
    return folds


def admissible_rows(normal_ND: Float32) -> tuple[Float32, float]:
    """Normal rows with enough observed cells, and what share is enough: half, or less where the
    data itself has less.
    """
    if not len(normal_ND):
        raise RunError(f"there are 0 normal rows, expected at least {MIN_NORMAL_ROWS}")
    if np.isnan(normal_ND).all():
        raise RunError("every cell of the normal rows is missing")
    observed_N = (~np.isnan(normal_ND)).mean(axis=1)
    enough = min(
        MIN_OBSERVED_FRACTION, float(np.quantile(observed_N[observed_N > 0], 0.01, method="lower"))
    )
    kept_ND = normal_ND[observed_N >= enough]
    if len(kept_ND) < MIN_NORMAL_ROWS:
        raise RunError(f"there are {len(kept_ND)} normal rows, expected at least {MIN_NORMAL_ROWS}")
    return kept_ND, enough


def one_by_one(hash_N: NDArray[np.uint64], config: SplitConfig) -> Places:
    """A split by the hash of each row, which keeps copies of a row together.

    Neither the order of the rows nor a run's seed has a part in it: of two fits of the same rows
    the thresholds and tails come from the same rows, and of a fit on more rows largely so. Each
    copy of a row that makes up more than a fiftieth of all is drawn by itself: it repeats by
    nature.
    """
    order_N, key_N = _shuffled(hash_N, config.seed)
    validation, calibration = sizes(len(hash_N), config)
    held_out_N, calibration_N, fit_N = _cut(order_N, key_N, [validation, validation + calibration])
    return Places(fit_N, held_out_N, calibration_N)


def in_folds(hash_N: NDArray[np.uint64], folds: int, config: SplitConfig) -> tuple[Places, ...]:
    """Folds of equal size by the hash of each row, each of which calibrates once; copies of one row
    stay together.
    """
    order_N, key_N = _shuffled(hash_N, config.seed)
    ends = np.linspace(0, len(order_N), folds + 1).round().astype(int)[1:-1]
    parts = _cut(order_N, key_N, ends.tolist())
    places = []
    for fold in range(folds):
        rest_N = np.concatenate([parts[(fold + step) % folds] for step in range(1, folds)])
        validation = min(max(1, round(len(rest_N) * config.validation)), len(rest_N) - 1)
        held_out_N, fit_N = _cut(rest_N, key_N, [validation])
        places.append(Places(fit_N, held_out_N, parts[fold]))
    return tuple(places)


def by_time(rows: int, config: SplitConfig) -> Places:
    """Each fifth of the time is fitted, then held out, then calibrated on, with gaps between: rows
    next to each other know too much of each other.
    """
    validation, calibration = (max(1, size // BLOCKS) for size in sizes(rows, config))
    gap = calibration // GAP
    parts: tuple[list[Integers], list[Integers], list[Integers]] = ([], [], [])
    for block, stretch_N in enumerate(np.array_split(np.arange(rows), BLOCKS)):
        end = len(stretch_N) - (gap if block < BLOCKS - 1 else 0)
        cuts = np.cumsum([end, -calibration, -gap, -validation, -gap])[::-1]
        if cuts[0] < 1:
            raise RunError(f"{rows} normal rows are too few to hold out {BLOCKS} blocks of time")
        fit_N, _, held_out_N, _, calibration_N, _ = np.split(stretch_N, cuts)
        for part, taken_N in zip(parts, (fit_N, held_out_N, calibration_N), strict=True):
            part.append(taken_N)
    block_N = np.repeat(np.arange(BLOCKS), [len(part) for part in parts[2]])
    fitted, held_out, calibrated = parts
    return Places(
        np.concatenate(fitted), np.concatenate(held_out), np.concatenate(calibrated), block_N
    )


def by_group(group_N: Integers, config: SplitConfig) -> Places:
    """Whole groups in random order are calibrated on, then held out, until there are enough rows;
    the rest is fitted. A block is a group, or several small ones.
    """
    count_G = np.bincount(group_N)
    groups = np.random.default_rng(config.seed).permutation(np.flatnonzero(count_G))
    free = [group for group in groups if count_G[group] <= len(group_N) / LARGEST_GROUP]
    if len(groups) < 3 or len(free) < 2:
        raise RunError(
            f"of {len(groups)} groups {len(free)} have at most a third of the rows, expected at"
            " least two of three groups: one to calibrate on, one to hold out, one to fit"
        )
    validation, calibration = sizes(len(group_N), config)
    wanted = max(1, min(BLOCKS, len(groups) // 3))
    calibrated: list[int] = []
    while len(free) > 1 and (len(calibrated) < wanted or count_G[calibrated].sum() < calibration):
        calibrated.append(free.pop(0))
    held_out = [free.pop(0)]
    while len(free) > 1 and count_G[held_out].sum() < validation:
        held_out.append(free.pop(0))
    block_G = _blocks(count_G, calibrated)
    calibration_N = np.flatnonzero(np.isin(group_N, calibrated))
    held_out_N = np.flatnonzero(np.isin(group_N, held_out))
    fit_N = np.flatnonzero(~np.isin(group_N, [*calibrated, *held_out]))
    return Places(fit_N, held_out_N, calibration_N, block_G[group_N[calibration_N]])


def take(rows_ND: Float32, places: Places) -> tuple[Split, Integers | None, Integers]:
    """The rows in their sets; the block and the place of each calibration row. RunError when a set
    is empty.
    """
    fit_ND = rows_ND[places.fit_N]
    # a row that shows only what no fit row shows has no score
    known_D = ~np.isnan(fit_ND).all(axis=0)
    known_N = np.asarray(~np.isnan(rows_ND[:, known_D]).all(axis=1))
    split = Split(
        fit_ND,
        *(rows_ND[part[known_N[part]]] for part in (places.validation_N, places.calibration_N)),
    )
    if not all(map(len, split)):
        raise RunError(
            f"of {len(rows_ND)} normal rows, split.validation and split.calibration leave a set"
            " without any"
        )
    block_N, calibrating_N = places.block_N, known_N[places.calibration_N]
    return (
        split,
        None if block_N is None else block_N[calibrating_N],
        places.calibration_N[calibrating_N],
    )


def sizes(rows: int, config: SplitConfig) -> tuple[int, int]:
    """How many rows are held out, and calibrate."""
    validation = min(max(1, round(rows * config.validation)), config.validation_cap)
    certifying = min(CERTIFYING_ROWS, round(rows * MAX_CALIBRATION))
    calibration = min(max(1, certifying, round(rows * config.calibration)), config.calibration_cap)
    return validation, calibration


def row_hashes(rows_ND: Float32, seed: int) -> NDArray[np.uint64]:
    """[N] a number that rows share which are equal in every cell, and others do not."""
    return hash_rows(rows_ND, seed.to_bytes(8, "little"))


def _shuffled(hash_N: NDArray[np.uint64], seed: int) -> tuple[Integers, NDArray[np.uint64]]:
    """The rows in the order of their hashes; and the number of each that stays with its copies."""
    _, copy_N, count = np.unique(hash_N, return_inverse=True, return_counts=True)
    common_N = count[copy_N] > len(hash_N) / COMMON
    random = np.random.default_rng(seed)
    drawn_N = random.integers(2**64, size=len(hash_N), dtype=np.uint64)
    key_N = np.where(common_N, drawn_N, hash_N)
    return np.argsort(key_N, kind="stable"), key_N


def _cut(order_N: Integers, key_N: NDArray[np.uint64], sizes: list[int]) -> list[Integers]:
    """Parts that end after so many rows, or after the copies of the last of them."""
    ends = [
        size + int((key_N[order_N[size:]] == key_N[order_N[size - 1]]).cumprod().sum())
        for size in sizes
    ]
    return np.split(order_N, ends)


def _blocks(count_G: Integers, groups: list[int]) -> Integers:
    """[G] the block of each of these groups; small ones share one, with the last where they are too
    few.
    """
    block_G = np.zeros(len(count_G), dtype=int)
    block, rows = 0, 0
    for group in groups:
        if rows >= FEWEST_IN_BLOCK:
            block, rows = block + 1, 0
        block_G[group] = block
        rows += count_G[group]
    if rows < FEWEST_IN_BLOCK and block:
        block_G[block_G == block] = block - 1
    return block_G
