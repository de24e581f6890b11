"""Several members on the same split: what each reaches, and which one to publish.

Labels are shown and never used to choose.
"""

from time import perf_counter

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from hourglass.service.model.detector import Detector
from hourglass.service.model.guarantee import Guarantee
from hourglass.training.calibrate import attach_table, calibrate, choose_threshold
from hourglass.training.config import AutoConfig, RunConfig, named
from hourglass.training.evaluate import evaluate_labelled
from hourglass.training.export import export_core, to_bytes
from hourglass.training.inject import inject
from hourglass.training.manifest import make_manifest
from hourglass.training.models import ModelConfig
from hourglass.training.progress import SILENT, Progress
from hourglass.training.split import Prepared, data_of, excluded_of, read_rows_of, split_data
from hourglass.training.suspects import look_for_suspects, strangest
from hourglass.training.trial import Trial, absorb_held_out, fit_trial
from hourglass.training.verify import verify

POWER_ALPHA = 0.05  # false-alarm rate at which power is read

Float32 = NDArray[np.float32]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One member's figures."""

    variant: str  # or preset
    # mean error of an observed cell of clean held-out rows, the same measure for every member
    held_out_error: float
    power: float  # share of injected anomalies found at a false-alarm rate of 5 %
    auroc: float | None  # of labelled anomalies against calibration rows
    average_precision: float | None
    size_bytes: int
    fit_seconds: float
    one_row_microseconds: float
    bulk_row_microseconds: float  # a row of 1,024


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What was compared, which one would be published, and why."""

    name: str
    chosen: str
    reason: str
    candidates: tuple[Candidate, ...]
    warnings: tuple[str, ...] = ()  # about columns and rows of the file, each a sentence


def compare(config: RunConfig, auto: AutoConfig, progress: Progress = SILENT) -> Comparison:
    """Fit, export and measure each variant; `linear`, the yardstick, is always among them.

    RunError or HourglassError in one sentence when that cannot be done.
    """
    progress.stage("loading")
    frame, config = read_rows_of(config)
    excluded = excluded_of(frame, config)
    data = data_of(frame, config, excluded)
    if config.contamination:
        strange = look_for_suspects(data, config)
        data = data.without(strangest(data, strange, config.contamination))
    # members are compared on one split
    one = msgspec.structs.replace(config, split=msgspec.structs.replace(config.split, folds=0))
    prepared = split_data(data, one)
    candidates = []
    for variant in dict.fromkeys((*auto.variants, "linear")):
        progress.stage(f"fitting {variant}")
        trial = fit_trial(prepared, config, _candidate(variant, auto, config.window_rows), progress)
        progress.stage(f"measuring {variant}")
        candidates.append(_measure(variant, prepared, trial, config))
    standings = {
        candidate.variant: (candidate.power, candidate.held_out_error) for candidate in candidates
    }
    chosen, reason = pick(standings, injected=4 * len(prepared.split.validation_ND))
    return Comparison(
        name=config.name,
        chosen=chosen,
        reason=reason,
        candidates=tuple(candidates),
        warnings=data.warnings,
    )


def choose(
    prepared: Prepared, config: RunConfig, auto: AutoConfig, progress: Progress = SILENT
) -> Trial:
    """The trial `--variant auto` publishes: the best of the candidates by power and held-out
    error.
    """
    trials = {}
    for variant in auto.variants:
        progress.stage(f"fitting {variant}")
        trials[variant] = fit_trial(
            prepared, config, _candidate(variant, auto, config.window_rows), progress
        )
    standings = {
        variant: (power(trial, prepared, config.seed), held_out_error(trial))
        for variant, trial in trials.items()
    }
    chosen, _ = pick(standings, injected=4 * len(prepared.split.validation_ND))
    return trials[chosen]


def pick(standings: dict[str, tuple[float, float]], *, injected: int) -> tuple[str, str]:
    """The variant of highest power, or of those within one standard error of it the one of least
    held-out error; and why.
    """
    best = max(standings, key=lambda variant: standings[variant][0])
    top = standings[best][0]
    error = float(np.sqrt(max(top * (1 - top), 1e-4) / injected))
    close = [variant for variant, (power, _) in standings.items() if power >= top - error]
    chosen = min(close, key=lambda variant: standings[variant][1])
    if len(close) == 1:
        return chosen, f"{chosen} finds the most injected anomalies, {top:.1%}"
    others = ", ".join(variant for variant in close if variant != chosen)
    return (
        chosen,
        (
            f"{chosen} has the least held-out error among those that find {top:.1%} of the injected"
            f" anomalies, give or take {error:.1%} (the others: {others})"
        ),
    )


def power(trial: Trial, prepared: Prepared, seed: int) -> float:
    """Share of injected anomalies above the level that 5 % of the clean held-out rows exceed."""
    clean_ND = prepared.split.validation_ND
    injected_ND = inject(clean_ND, prepared.features, seed)
    level = np.quantile(_scores(trial, clean_ND), 1 - POWER_ALPHA)
    return float((_scores(trial, injected_ND) > level).mean())


def held_out_error(trial: Trial) -> float:
    """Mean error of a held-out cell, in encoded units, whatever the member's own objective is."""
    return float(trial.residual_D.mean())


def _candidate(name: str, auto: AutoConfig, window: int) -> ModelConfig:
    config = named(name, window)
    if auto.epochs is None:
        return config
    return msgspec.structs.replace(
        config, fit=msgspec.structs.replace(config.fit, epochs=auto.epochs)
    )


@torch.no_grad()
def _scores(trial: Trial, rows_ND: Float32) -> Float32:
    chunks = torch.split(torch.from_numpy(rows_ND), 4096)
    scores: Float32 = torch.cat([trial.core(chunk).score_N for chunk in chunks]).numpy()
    return scores


def _measure(variant: str, prepared: Prepared, trial: Trial, config: RunConfig) -> Candidate:
    """Take a fitted member through the stages of a run up to publishing, and time its answers."""
    split = prepared.split
    found = power(trial, prepared, config.seed)  # by held-out rows, so before they are learnt from
    absorb_held_out(trial, split, config.seed)
    graph = export_core(trial.core)
    table = calibrate(graph, split.calibration_ND, prepared.block_N)
    uncertified = config.uncertified or prepared.block_N is not None
    threshold = choose_threshold(table, config.alpha, config.delta, uncertified=uncertified)
    # nothing of this file is published, nor its promise said
    untested = Guarantee("none", "a candidate of a comparison")
    attach_table(graph, table)
    data = to_bytes(graph, make_manifest(graph, trial, prepared, threshold, untested, config))
    detector = Detector.from_bytes(data)
    verify(detector, trial.core, split.validation_ND)
    quality = evaluate_labelled(detector, split.calibration_ND, prepared.data.anomalies_AD)
    rows_ND = np.resize(split.validation_ND, (1024, detector.width)).astype(np.float32)
    return Candidate(
        variant=variant,
        held_out_error=held_out_error(trial),
        power=found,
        auroc=quality.auroc if quality else None,
        average_precision=quality.average_precision if quality else None,
        size_bytes=len(data),
        fit_seconds=trial.seconds,
        one_row_microseconds=_microseconds(detector, rows_ND[:1]),
        bulk_row_microseconds=_microseconds(detector, rows_ND) / len(rows_ND),
    )


def _microseconds(detector: Detector, rows_ND: Float32, runs: int = 30) -> float:
    """Median wall time of a call, after a few to warm up."""
    seconds = []
    for _ in range(runs + 3):
        started = perf_counter()
        detector.score(rows_ND)
        seconds.append(perf_counter() - started)
    return float(np.median(seconds[3:])) * 1e6
