"""Which normal rows are fit for use, and the three disjoint sets they are split into."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.artifact import Feature
from hourglass.training.calibrate import check_alpha
from hourglass.training.config import RunConfig, SplitConfig
from hourglass.training.data import Data, describe
from hourglass.training.errors import RunError

MIN_NORMAL_ROWS = 20
MIN_OBSERVED_FRACTION = 0.5
CERTIFYING_ROWS = (
    59  # calibrate no fewer, since they can certify 5 % of false alarms with a confidence of 95 %,
)
MAX_CALIBRATION = 0.25  # unless that were more than this share of the rows

Float32 = NDArray[np.float32]


class Split(NamedTuple):
    """Calibration rows are used for nothing but calibration: any other use breaks the guarantee."""

    fit_ND: Float32
    validation_ND: Float32  # early stopping, residual variance, choosing between members
    calibration_ND: Float32


class Prepared(NamedTuple):
    """The data of a run, ready for any member."""

    data: Data
    split: Split
    features: tuple[Feature, ...]  # with missing rate and range, as the fit rows have them
    min_observed_fraction: float


def split_data(data: Data, config: RunConfig) -> Prepared:
    """Split the normal rows; RunError when there are too few, or too few for the budget asked
    for.
    """
    rows_ND, min_observed_fraction = admissible_rows(data.normal_ND)
    split = split_rows(rows_ND, config.split, config.seed)
    if config.alpha is not None:  # known before the fit, so said before it
        check_alpha(
            len(split.calibration_ND), config.alpha, config.delta, uncertified=config.uncertified
        )
    return Prepared(data, split, describe(data.features, split.fit_ND), min_observed_fraction)


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


def split_rows(rows_ND: Float32, config: SplitConfig, seed: int) -> Split:
    """A random split, the same for the same seed."""
    order = np.random.default_rng(seed).permutation(len(rows_ND))
    validation = min(max(1, round(len(rows_ND) * config.validation)), config.validation_cap)
    certifying = min(CERTIFYING_ROWS, round(len(rows_ND) * MAX_CALIBRATION))
    calibration = min(
        max(1, certifying, round(len(rows_ND) * config.calibration)), config.calibration_cap
    )
    held_out_ND, calibration_ND, fit_ND = (
        rows_ND[part] for part in np.split(order, [validation, validation + calibration])
    )
    # a row that shows only what no fit row shows has no score
    known_D = ~np.isnan(fit_ND).all(axis=0)
    split = Split(
        fit_ND,
        *(part[~np.isnan(part[:, known_D]).all(axis=1)] for part in (held_out_ND, calibration_ND)),
    )
    if not all(map(len, split)):
        raise RunError(
            f"of {len(rows_ND)} normal rows, split.validation and split.calibration leave a set"
            " without any"
        )
    return split
