"""One member fitted on one split of the data: what a run publishes and a comparison compares."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor

from hourglass.service.model.artifact import Feature
from hourglass.service.rows.tables import read_table
from hourglass.training.calibrate import check_alpha
from hourglass.training.config import RunConfig
from hourglass.training.core import Core
from hourglass.training.data import Data, describe, prepare
from hourglass.training.errors import RunError
from hourglass.training.features import Encoding
from hourglass.training.fit import Epoch, Fitted, fit
from hourglass.training.models import ModelConfig
from hourglass.training.split import Split, admissible_rows, split_rows


class Prepared(NamedTuple):
    """The data of a run, ready for any member."""

    data: Data
    split: Split
    features: tuple[Feature, ...]  # with missing rate and range
    min_observed_fraction: float


class Trial(NamedTuple):
    """A fitted member."""

    config: ModelConfig  # every choice filled in
    core: Core
    fitted: Fitted
    residual_D: Tensor  # mean held-out error of each feature
    seconds: float


def prepare_rows(config: RunConfig) -> Prepared:
    """Read, check and split; RunError or InvalidTable in one sentence when the data cannot be
    used.
    """
    data = prepare(
        read_table(Path(config.data)),
        label=config.label,
        ignore=config.ignore,
        units=config.units,
        max_categories=config.max_categories,
    )
    rows_ND, min_observed_fraction = admissible_rows(data.normal_ND)
    split = split_rows(rows_ND, config.split, config.seed)
    if config.alpha is not None:  # known before the fit, so said before it
        check_alpha(
            len(split.calibration_ND), config.alpha, config.delta, uncertified=config.uncertified
        )
    return Prepared(data, split, describe(data.features, split.fit_ND), min_observed_fraction)


def device_of(run: RunConfig) -> str:
    """Where the loop runs: the GPU where there is one, unless told otherwise; RunError when there
    is none and one is asked for.
    """
    if run.device == "cuda" and not torch.cuda.is_available():
        raise RunError("device is cuda, and torch sees no GPU; leave it at auto, or take cpu")
    if run.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return run.device


def fit_trial(
    prepared: Prepared,
    run: RunConfig,
    model: ModelConfig,
    on_epoch: Callable[[Epoch, int], None] = lambda _epoch, _of: None,
) -> Trial:
    """Fit one member; the same rows, configuration, seed and threads give the same weights."""
    started = perf_counter()
    torch.set_num_threads(run.threads)
    torch.manual_seed(run.seed)
    split = prepared.split
    try:
        encoding = Encoding(prepared.features, split.fit_ND, run.loss)
        config = model.resolve(encoding)
        epochs = config.fit.epochs_for(len(split.fit_ND))
        config = msgspec.structs.replace(
            config, fit=msgspec.structs.replace(config.fit, epochs=epochs)
        )
        member = config.build(encoding)
        fitted = fit(
            member,
            torch.from_numpy(split.fit_ND),
            torch.from_numpy(split.validation_ND),
            config.fit,
            seed=run.seed,
            device=device_of(run),
            on_epoch=lambda epoch: on_epoch(epoch, epochs),
        )
    except ValueError as error:
        raise RunError(str(error)) from error
    core = Core(member).eval()
    residual_D = core.weigh(torch.from_numpy(split.validation_ND))
    return Trial(config, core, fitted, residual_D, perf_counter() - started)


def absorb_held_out(prepared: Prepared, trial: Trial, seed: int) -> None:
    """Let the member learn from the held-out rows as well, once they have decided what they had
    to.
    """
    encode = trial.core.member.encoding.encode
    fit_rows, held_out = (encode(torch.from_numpy(rows_ND)) for rows_ND in prepared.split[:2])
    trial.core.member.absorb_held_out(fit_rows, held_out, seed)
