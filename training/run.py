"""run(config) -> a published version: the whole story of a training run, read top to bottom."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import msgspec

from hourglass.service.errors import HourglassError
from hourglass.service.model.artifact import Feature
from hourglass.service.model.calibration import Threshold
from hourglass.service.model.detector import Detector
from hourglass.service.serving.store import ModelFolder, Store, locate
from hourglass.training.artifact import make_artifact
from hourglass.training.compare import choose
from hourglass.training.config import AutoConfig, RunConfig, write_config
from hourglass.training.errors import RunError
from hourglass.training.evaluate import Evaluation, evaluate
from hourglass.training.fit import Epoch, Fitted
from hourglass.training.presets import preset_of
from hourglass.training.publish import check_writable
from hourglass.training.report import Report, write_report
from hourglass.training.trial import Prepared, device_of, fit_trial, prepare_rows


class Progress(NamedTuple):
    """What a run tells while it goes on."""

    stage: Callable[[str], None] = lambda _: None
    epoch: Callable[[Epoch, int], None] = lambda _epoch, _of: None


SILENT = Progress()


def run(config: RunConfig, progress: Progress = SILENT) -> Report:
    """Fit, calibrate, export, verify and publish; RunError or HourglassError in one sentence when
    that cannot be done.
    """
    started = perf_counter()
    progress.stage("reading")
    check_writable(Path(config.models) / config.name)
    prepared = prepare_rows(config)
    _check_replaceable(config, prepared.data.features)

    progress.stage("fitting")
    if isinstance(config.model, AutoConfig):
        trial = choose(prepared, config, config.model, progress.stage, progress.epoch)
    else:
        trial = fit_trial(prepared, config, config.model, progress.epoch)

    progress.stage("exporting")
    data, threshold = make_artifact(prepared, trial, config)

    progress.stage("verifying")
    detector = Detector.from_bytes(data)  # the service's own checks, self-test included
    quality = _evaluate(detector, prepared)

    progress.stage("publishing")
    report = _report(
        config, prepared, trial.fitted, threshold, detector, quality, perf_counter() - started
    )
    resolved = msgspec.structs.replace(
        config,
        alpha=threshold.alpha,
        uncertified=not threshold.certified,
        device=device_of(config),
        model=trial.config,
    )
    beside = {"run.toml": write_config(resolved), "report.json": write_report(report)}
    try:
        Store(Path(config.models)).model(config.name).publish(data, beside)
    except OSError as error:
        raise RunError(
            f"{Path(config.models) / config.name} cannot be written: {error.strerror or error}"
        ) from error
    return report


def _check_replaceable(config: RunConfig, features: tuple[Feature, ...]) -> None:
    """A model whose features differ from those in service would fail every request its clients
    send.
    """
    folder = Path(config.models) / config.name
    if config.force or not ModelFolder(folder).has_current():
        return
    try:
        serving = Detector.from_bytes(locate(folder).read_bytes()).manifest.features
    except HourglassError:
        return  # what is there cannot be served anyway
    before, now = (
        [(feature.name, feature.kind) for feature in each] for each in (serving, features)
    )
    if before == now:
        return
    changed = sorted({name for name, _ in set(before) ^ set(now)}) or ["their order"]
    raise RunError(
        f"{folder} serves a model with other features (differing: {', '.join(changed[:5])}), and"
        " its clients would fail; --force publishes all the same, another --name keeps both"
    )


def _evaluate(detector: Detector, prepared: Prepared) -> Evaluation | None:
    """Anomalies against the calibration rows, which no weight has seen; None without labelled
    anomalies.
    """
    try:
        return evaluate(detector, prepared.split.calibration_ND, prepared.data.anomalies_AD)
    except ValueError:
        return None


def _report(
    config: RunConfig,
    prepared: Prepared,
    fitted: Fitted,
    threshold: Threshold,
    detector: Detector,
    quality: Evaluation | None,
    seconds: float,
) -> Report:
    manifest, data, split = detector.manifest, prepared.data, prepared.split
    return Report(
        name=config.name,
        version=detector.version,
        path=str(Store(Path(config.models)).model(config.name).file(detector.version)),
        preset=preset_of(config.model),
        variant=manifest.model.variant,
        stores_rows=manifest.model.stores_rows,
        parameter_count=manifest.model.parameter_count,
        features=len(manifest.features),
        fit_rows=len(split.fit_ND),
        validation_rows=len(split.validation_ND),
        calibration_rows=len(split.calibration_ND),
        dropped_rows=len(data.normal_ND) - sum(map(len, split)),
        anomalous_rows=len(data.anomalies_AD),
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
        held_out_loss=fitted.held_out_loss,
        alpha=threshold.alpha,
        alpha_chosen=config.alpha is None,
        delta=threshold.delta,
        certified=threshold.certified,
        threshold=threshold.score,
        expected_false_alarm_rate=threshold.expected_false_alarm_rate,
        quality=quality,
        size_bytes=detector.size_bytes,
        seconds=seconds,
    )
