"""One member fitted on one split of the data: what a run publishes and a comparison compares."""

import math
from time import perf_counter
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor

from hourglass.service.model.detector import DEFAULT_MAX_BYTES
from hourglass.service.rows.memory import available_bytes
from hourglass.training.conditional import fit_conditional
from hourglass.training.config import RunConfig
from hourglass.training.core import Core
from hourglass.training.data import describe
from hourglass.training.errors import RunError
from hourglass.training.features import Encoding
from hourglass.training.fit import Fitted, fit
from hourglass.training.folds import Folds
from hourglass.training.models import ModelConfig
from hourglass.training.progress import SILENT, Progress
from hourglass.training.split import Prepared, Split
from hourglass.training.sums import measure
from hourglass.training.windows import Windowed

TOGETHER = 2  # as many steps as one model would take are shared by the models of folds
LARGE = 10_000  # a size that a model's memory is looked at for
FLOAT32_BYTES = 4
WEIGHT_BYTES = 16  # a float32, its gradient and the two moments of it that Adam keeps


class Trial(NamedTuple):
    """A fitted member."""

    config: ModelConfig  # every choice filled in
    core: Core | Folds | Windowed
    fitted: Fitted
    residual_D: Tensor  # mean held-out error of each feature
    seconds: float


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
    prepared: Prepared, run: RunConfig, model: ModelConfig, progress: Progress = SILENT
) -> Trial:
    """Fit one member; the same rows, configuration, seed and threads give the same weights.

    RunError when the config does not suit the rows, or the loss stops being a number.
    """
    started = perf_counter()
    torch.set_num_threads(run.threads)
    torch.manual_seed(run.seed)
    split, ranks = prepared.split, prepared.sums.ranks
    if len(split.fit_ND) < ranks.count:
        raise RunError(f"{len(split.fit_ND)} fit rows are too few for {ranks.count} processes")
    measures = prepared.measures or measure(split.fit_ND, prepared.sums)
    try:
        encoding = Encoding(
            prepared.features, split.fit_ND, run.loss, measures=measures, sums=prepared.sums
        )
        config = model.resolve(encoding)
        epochs = config.fit.epochs_for(len(split.fit_ND))
        config = msgspec.structs.replace(
            config, fit=msgspec.structs.replace(config.fit, epochs=epochs)
        )
        _require_memory(config, encoding)
        member = config.build(encoding)
        fitted = fit(
            member,
            torch.from_numpy(split.fit_ND),
            torch.from_numpy(split.validation_ND),
            config.fit,
            seed=run.seed,
            device=device_of(run),
            ranks=ranks,
            progress=progress,
        )
    except ValueError as error:
        raise RunError(str(error)) from error
    core = Core(member).eval()
    _require_loadable(core, 1)
    core.reach.fit(torch.from_numpy(measures.ends_2D), encoding.gaussian_D)
    residual_D = core.weigh(torch.from_numpy(split.validation_ND))
    return Trial(config, core, fitted, residual_D, perf_counter() - started)


def fit_folds(
    prepared: Prepared, run: RunConfig, model: ModelConfig, progress: Progress = SILENT
) -> Trial:
    """Fit one member without each fold, and score the fold by it; RunError as `fit_trial`."""
    started = perf_counter()
    if model.fit.epochs is None:
        steps = math.ceil(model.fit.steps * TOGETHER / len(prepared.folds))
        model = msgspec.structs.replace(model, fit=msgspec.structs.replace(model.fit, steps=steps))
    cores, trials, scores = [], [], []
    for number, split in enumerate(prepared.folds, 1):
        progress.stage(f"fitting model {number} of {len(prepared.folds)}")
        features = describe(prepared.data.features, split.fit_ND)
        trial = fit_trial(prepared._replace(split=split, features=features), run, model, progress)
        assert isinstance(trial.core, Core)
        absorb_held_out(trial, split, run.seed)
        _require_loadable(trial.core, len(prepared.folds))
        trial.core.conditional = None  # there is one for all
        cores.append(trial.core)
        trials.append(trial)
        with torch.no_grad():
            scores.append(trial.core(torch.from_numpy(split.calibration_ND)).score_N.numpy())
    rows_ND = prepared.split.fit_ND
    encoding = Encoding(prepared.features, rows_ND, run.loss)
    folds = Folds(cores, scores, encoding).eval()
    folds.fit_conditional(rows_ND)
    residual_D = torch.stack([trial.residual_D for trial in trials]).mean(dim=0)
    return Trial(trials[0].config, folds, trials[0].fitted, residual_D, perf_counter() - started)


def _require_memory(config: ModelConfig, encoding: Encoding) -> None:
    """ValueError where the member alone, built without its numbers, is larger than memory."""
    settings = msgspec.to_builtins(config)
    del settings["fit"]
    sizes = [size for value in settings.values() for size in np.ravel(value) if size is not None]
    if max((size for size in sizes if not isinstance(size, str)), default=0) < LARGE:
        return  # the first look at a model without numbers takes seconds
    with torch.device("meta"):
        member = config.build(encoding)
    weights = sum(tensor.numel() for tensor in member.parameters())
    others = sum(tensor.numel() for tensor in member.buffers())
    needed, available = WEIGHT_BYTES * weights + FLOAT32_BYTES * others, available_bytes()
    if available is not None and needed > available:
        raise ValueError(
            f"a model of {weights + others:,} numbers takes at least {needed / 1e9:.3g} GB of"
            f" memory to fit, and {available / 1e9:.3g} GB are left; make it smaller, its width"
            " first"
        )


def _require_loadable(core: Core, models: int) -> None:
    """RunError where so many models of this size are a file that the service does not load."""
    size = models * FLOAT32_BYTES * sum(tensor.numel() for tensor in core.state_dict().values())
    if size > DEFAULT_MAX_BYTES:
        of_folds = f"{models} models, one for each fold, in one" if models > 1 else "a model in a"
        raise RunError(
            f"{of_folds} file of {size / 1e6:.3g} MB are more than the"
            f" {DEFAULT_MAX_BYTES / 1e6:.3g} MB that the service loads;"
            f" {'--folds 0 fits one, ' if models > 1 else ''}--preset fast and fewer columns make a"
            " smaller file"
        )


def absorb_held_out(trial: Trial, split: Split, seed: int) -> None:
    """Let the member learn from the held-out rows as well, once they have decided what they had
    to: when to stop, which member to publish, the unit of each error; and learn of both what
    values let expect of each other.
    """
    assert isinstance(trial.core, Core)
    member = trial.core.member
    fit_rows, held_out = (
        member.encoding.encode(torch.from_numpy(rows_ND))
        for rows_ND in (split.fit_ND, split.validation_ND)
    )
    member.absorb_held_out(fit_rows, held_out, seed)
    trial.core.conditional = fit_conditional(member.encoding, fit_rows.concatenate(held_out))
