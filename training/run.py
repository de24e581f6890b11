"""run(config) -> a published version: the whole story of a training run, read top to bottom."""

import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter, process_time

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import HourglassError, InvalidArtifact
from hourglass.service.model.artifact import NOBODY, Feature, Window
from hourglass.service.model.calibration import Threshold, build_table
from hourglass.service.model.detector import Detector
from hourglass.service.model.guarantee import Guarantee
from hourglass.service.model.schema import Schema
from hourglass.service.serving.signatures import SIGNATURE_FILE, SigningKey
from hourglass.service.serving.store import ModelFolder
from hourglass.training.calibrate import (
    attach_table,
    calibration_scores,
    choose_threshold,
    rank_table,
    window_scores,
)
from hourglass.training.challenge import (
    Challenger,
    Champion,
    judge_rows,
    meet_challenger,
    meet_rows,
    say_refusal,
    without_strange_fit_rows,
)
from hourglass.training.compare import choose
from hourglass.training.config import AutoConfig, RunConfig, write_config
from hourglass.training.core import Core
from hourglass.training.errors import Refused, RunError
from hourglass.training.evaluate import (
    NO_RATE,
    Evaluation,
    Rate,
    cross_fitted,
    evaluate_labelled,
    evaluate_out_of_fold,
    evaluate_scores,
)
from hourglass.training.exchangeability import Exchangeability
from hourglass.training.export import export_core, to_bytes
from hourglass.training.fingerprints import FILE as FINGERPRINTS
from hourglass.training.fingerprints import fingerprint, read_fingerprints, write_fingerprints
from hourglass.training.folds import Folds
from hourglass.training.gate import (
    DECISION,
    Decision,
    keep_decision,
    read_decision,
    write_decision,
)
from hourglass.training.guarantee import (
    effective_rows,
    exchangeability_of,
    left_out_rates,
    promise,
)
from hourglass.training.journal import Journal
from hourglass.training.manifest import Series, make_manifest
from hourglass.training.order import Ordered, Part
from hourglass.training.presets import preset_of
from hourglass.training.progress import SILENT, Progress
from hourglass.training.publish import alone, check_writable, model_of
from hourglass.training.ranks import ALONE, Ranks
from hourglass.training.report import LeftOut, Report, TimeAxis, time_axis, write_report
from hourglass.training.report.card import CARD, write_card
from hourglass.training.report.columns import columns_of
from hourglass.training.report.facts import Facts, Told, gather
from hourglass.training.report.material import material_of_run, material_of_windows
from hourglass.training.report.origin import Curve, Recorder
from hourglass.training.report.page import PAGE, write_page
from hourglass.training.split import Prepared, data_of, excluded_of, read_rows_of, split_data
from hourglass.training.streamed import share_sums
from hourglass.training.suspects import (
    REPORTED,
    SUSPECTS,
    list_suspects,
    look_for_suspects,
    strangest,
    warn,
    write_suspects,
)
from hourglass.training.trial import Trial, absorb_held_out, device_of, fit_folds, fit_trial
from hourglass.training.verify import ROWS, Difference, verify
from hourglass.training.windows import Windowed, expected_deviations


def run(
    config: RunConfig,
    progress: Progress = SILENT,
    journal: Journal | None = None,
    ranks: Ranks | None = None,
) -> Report:
    """Fit a model on the normal rows of a table, and publish it; RunError or HourglassError in one
    sentence when that cannot be done, and then nothing is published. Refused where a model is in
    service, and the gate lets this one not take its place. Of several processes the first one
    returns; the others end with the fit.
    """
    cache = Path(config.cache) if config.cache else None
    folder = model_of(config.models, config.name, cache)
    ranks = ranks or ALONE
    with alone(folder) if ranks.is_first else nullcontext():
        return _run(config, folder, progress, journal, ranks)


def _run(
    config: RunConfig,
    folder: ModelFolder,
    progress: Progress,
    journal: Journal | None,
    ranks: Ranks,
) -> Report:
    started, started_cpu = perf_counter(), process_time()
    recorder = Recorder(progress)
    progress = recorder.progress
    progress.stage("loading")
    check_writable(folder.path)
    unsafe = folder.require_writable()
    key = SigningKey(Path(config.sign_with)) if config.sign_with else None
    frame, config = read_rows_of(config)

    progress.stage("looking at the data")
    excluded = excluded_of(frame, config)
    data = data_of(frame, config, excluded)
    del frame  # far larger than the rows made of it
    looked_at_ND = data.normal_ND
    normal_rows = len(looked_at_ND)

    champion: Champion | None = None
    decision: Decision | None = None
    serving = _check_replaceable(config, folder, data.features)
    if config.shadow and serving is None:
        raise RunError(
            f"--shadow has a model scored beside that in service, and {config.name} has none in"
            " service that takes the same rows; without it this one is published"
        )
    if serving:
        progress.stage("screening")
        known = read_fingerprints(published := folder.file(serving.version).parent)
        champion = meet_rows(serving, known, data, config, journal)
        if before := read_decision(published):
            champion = champion._replace(forced_at=before.forced_at)
        decision = judge_rows(champion, config)
        if not decision.published:
            raise _refused(folder, decision)
        data = data.without(champion.left_out_N)
    screened = champion.screened if champion else None

    progress.stage("looking for suspects")
    strange = look_for_suspects(data, config)
    suspects = list_suspects(data, strange) if strange else ()
    numbers = np.array([suspect.row for suspect in suspects[:REPORTED]], dtype=np.int64)
    suspect_MD, suspects_of = (
        data.normal_ND[np.searchsorted(data.number_N, numbers)],
        len(data.normal_ND),
    )
    warning = warn(strange) if strange else None
    contaminated = 0
    if config.contamination:
        left_out_N = strangest(data, strange, config.contamination)
        contaminated = int(left_out_N.sum())
        data = data.without(left_out_N)
    left_out = LeftOut(
        rows=normal_rows,
        excluded=len(excluded),
        screened=screened.left_out if screened else 0,
        contaminated=contaminated,
        alarmed=int(champion.alarmed_N.sum()) if champion else 0,
        confirmed=int(champion.confirmed_N.sum()) if champion else 0,
    )

    progress.stage("splitting")
    prepared = split_data(data, config)
    split, untaught = prepared.split, 0
    if champion and screened and screened.left_out:
        prepared = without_strange_fit_rows(champion, prepared)
        untaught = sum(map(len, split)) - sum(map(len, prepared.split))
        split = prepared.split

    progress.stage("fitting")
    prepared = share_sums(prepared, ranks, progress)
    data = prepared.data
    if prepared.folds:
        model = config.model
        if isinstance(model, AutoConfig):
            first = prepared._replace(split=prepared.folds[0])
            model = choose(first, config, model, progress).config
        trial = fit_folds(prepared, config, model, progress)
    else:
        if isinstance(config.model, AutoConfig):
            trial = choose(prepared, config, config.model, progress)
        else:
            trial = fit_trial(prepared, config, config.model, progress)
        progress.stage("absorbing held-out rows")
        absorb_held_out(trial, split, config.seed)
    ranks.part()

    ordered, windows = prepared.ordered, None
    if ordered is not None:
        assert isinstance(trial.core, Core)
        core = Windowed(ordered.windowing, trial.core, ordered.baselines)
        trial = trial._replace(core=core)

    progress.stage("exporting")
    graph = export_core(trial.core)

    progress.stage("calibrating")
    if isinstance(trial.core, Folds):
        table, score_N = rank_table(trial.core), trial.core.out_of_fold()
    elif ordered is not None:
        windows = window_scores(graph, ordered)
        score_N = windows[ordered.windows_of(Part.CALIBRATION)]
        table = build_table(score_N)
    else:
        score_N = calibration_scores(graph, split.calibration_ND)
        table = build_table(score_N, block_N=prepared.block_N)
    uncertified = config.uncertified or prepared.block_N is not None
    threshold = choose_threshold(table, config.alpha, config.delta, uncertified=uncertified)

    progress.stage("testing exchangeability")
    found = exchangeability_of(prepared, threshold.alpha, config)
    rates = left_out_rates(prepared, score_N, threshold.alpha)
    effective = (
        None
        if ordered is None
        else effective_rows(score_N, ordered.runs_of(ordered.windows_of(Part.CALIBRATION)))
    )
    guarantee = promise(prepared, threshold, found, config, rates, left_out.bias(), effective)

    progress.stage("describing")
    attach_table(graph, table)
    series = None if ordered is None else _series(ordered, is_clock=data.is_clock)
    manifest = make_manifest(graph, trial, prepared, threshold, guarantee, config, series)
    file = to_bytes(graph, manifest)

    progress.stage("evaluating")
    try:
        detector = Detector.from_bytes(file)  # the service's own checks, self-test included
    except InvalidArtifact as error:
        raise RunError(
            f"the service would not load the file of {len(file) / 1e6:.3g} MB: {error}; --preset"
            " fast and fewer columns make a smaller one"
        ) from error
    if isinstance(trial.core, Folds):
        quality = evaluate_out_of_fold(detector, score_N, data.anomalies_AD)
        false_alarms = NO_RATE  # no row is new to all models
    elif ordered is not None:
        assert windows is not None
        quality = _quality_of_windows(detector, ordered, windows)
        false_alarms = _left_out(prepared, rates, effective)
    else:
        quality = evaluate_labelled(detector, split.calibration_ND, data.anomalies_AD)
        false_alarms = cross_fitted(detector, split.calibration_ND, config.seed)
    if quality:
        quality = msgspec.structs.replace(
            quality, false_alarm_rate=false_alarms.rate, false_alarm_interval=false_alarms.interval
        )

    progress.stage("verifying")
    compared, code = split.fit_ND if prepared.folds else split.validation_ND, NOBODY
    if ordered is not None:
        stretch = ordered.longest_stretch(ordered.rows - 1 + ROWS)
        compared, code = ordered.rows_NF[stretch], int(ordered.code_N[stretch.start])
    differences = verify(detector, trial.core, compared, code)

    decision = None
    if champion and champion.detector.version != detector.version:
        progress.stage("asking the gate")
        challenger = Challenger(detector, trial, prepared, score_N, differences)
        decision = meet_challenger(champion, challenger, config)

    resolved = msgspec.structs.replace(
        config,
        alpha=threshold.alpha,
        uncertified=not threshold.certified,
        device=device_of(config),
        cache=None,
        sign_with=None,
        window=config.window_rows,
        fitted_at=detector.manifest.fitted_at,
        model=trial.config,
    )
    seconds = perf_counter() - started
    report = _report(
        config, folder, prepared, trial, threshold, guarantee, found, detector, quality, seconds
    )
    report = msgspec.structs.replace(
        report,
        left_out=msgspec.structs.replace(left_out, untaught=untaught),
        dropped_rows=report.dropped_rows - untaught,
        screened=screened,
        warnings=(*data.warnings, unsafe) if unsafe else data.warnings,
        contamination_warning=warning,
        suspects_listed=len(suspects),
        suspects=suspects[:REPORTED],
        shadow=config.shadow and decision is not None,
    )
    beside = {
        "run.toml": write_config(resolved),
        "report.json": write_report(report),
        FINGERPRINTS: write_fingerprints(
            fingerprint(prepared.rows_ND if ordered else np.concatenate(split), looked_at_ND)
        ),
    }
    if config.report:
        progress.stage("reporting")
        facts = _gather(
            config,
            prepared,
            detector,
            report,
            score_N=score_N if windows is None else windows,
            differences=differences,
            suspect_MD=suspect_MD,
            suspects_of=suspects_of,
            run_toml=beside["run.toml"],
            curves=recorder.curves(report.preset or report.variant),
            cpu_seconds=process_time() - started_cpu,
            gate=decision,
        )
        report = msgspec.structs.replace(report, summary=facts.verdict.text)
        beside["report.json"] = write_report(report, facts)
        beside[PAGE] = write_page(facts)
        beside[CARD] = write_card(facts)
    if suspects:
        beside[SUSPECTS] = write_suspects(suspects)

    if decision:
        beside[DECISION] = write_decision(decision)

    progress.stage("publishing")
    try:
        folder.keep(file, beside)
        if decision:
            if not decision.published:
                raise _refused(folder, decision)
            keep_decision(folder, decision)
        if key:
            folder.write(SIGNATURE_FILE, key.sign(file), version=detector.version)
        if config.shadow and decision:
            folder.challenge(detector.version)
        else:
            folder.point(detector.version, over=champion.detector.version if champion else None)
    except OSError as error:
        raise RunError(f"{folder.place()} cannot be written: {error.strerror or error}") from error
    return report


def _refused(folder: ModelFolder, decision: Decision) -> Refused:
    """What a run ends with whose model is not to be in service."""
    keep_decision(folder, decision)
    return Refused(say_refusal(folder.name, decision))


def _series(ordered: Ordered, *, is_clock: bool) -> Series:
    """What the manifest says of the rows of windows."""
    held_out_N = np.isin(ordered.part_N, (Part.VALIDATION, Part.CALIBRATION)) & ordered.normal_N
    deviations = expected_deviations(
        ordered.windowing, ordered.fleet_NF, ordered.segment_N, held_out_N
    )
    window = Window(
        rows=ordered.rows,
        representation=ordered.windowing.representation,
        expected_sd=deviations,
        interval=ordered.interval if is_clock else None,
        gap=ordered.gap if math.isfinite(ordered.gap) else None,
    )
    fitted_N = ordered.normal_N & (ordered.part_N == Part.FIT)
    names = ordered.entity_names if ordered.baselines else None
    return Series(ordered.features, ordered.rows_NF[fitted_N], window, names)


def _quality_of_windows(
    detector: Detector, ordered: Ordered, score_M: NDArray[np.float32]
) -> Evaluation | None:
    """Windows that end with labelled anomalies against those that calibrate; None without any."""
    anomalies_A = score_M[ordered.windows_of_anomalies()]
    known_A = ~np.isnan(anomalies_A)
    try:
        return evaluate_scores(
            detector,
            score_M[ordered.windows_of(Part.CALIBRATION)],
            anomalies_A[known_A],
            int(ordered.is_anomaly_N.sum() - known_A.sum()),
        )
    except ValueError:
        return None


def _left_out(prepared: Prepared, rates: Sequence[float], effective: float | None) -> Rate:
    """How many windows of all blocks alarm, each block at the threshold of the others, by as many
    rows as they tell as much as; no rate of one block.
    """
    if not rates or effective is None or prepared.block_N is None:
        return NO_RATE
    rows = np.unique(prepared.block_N, return_counts=True)[1]
    rate = float(np.average(rates, weights=rows))
    return Rate(rate, Rate.of(rate * effective, effective).interval)


def _check_replaceable(
    config: RunConfig, folder: ModelFolder, features: tuple[Feature, ...]
) -> Detector | None:
    """The model in service where it has the same features and window. One whose features differ
    would fail every request that its clients send.
    """
    if not folder.has_current():
        return None
    try:
        folder.fetch(version := folder.current())
        serving = Detector.from_bytes(folder.read(version, max_bytes=sys.maxsize).data)
    except HourglassError:
        return None  # what is there cannot be served anyway
    before, now = (
        [(feature.name, feature.kind) for feature in each]
        for each in (serving.manifest.features, features)
    )
    if before == now and serving.window == config.window_rows:
        return serving
    if config.force:
        return None
    if before == now:
        raise RunError(
            f"{folder.place()} serves a model that looks at {serving.window} rows, this one would"
            f" look at {config.window_rows}, and its clients would have to know; --window"
            f" {serving.window} keeps it, --force publishes all the same, another --name keeps both"
        )
    changed = sorted({name for name, _ in set(before) ^ set(now)}) or ["their order"]
    raise RunError(
        f"{folder.place()} serves a model with other features (differing:"
        f" {', '.join(changed[:5])}), and its clients would fail; --force"
        " publishes all the same, another --name keeps both"
    )


def _report(
    config: RunConfig,
    folder: ModelFolder,
    prepared: Prepared,
    trial: Trial,
    threshold: Threshold,
    guarantee: Guarantee,
    found: Exchangeability,
    detector: Detector,
    quality: Evaluation | None,
    seconds: float,
) -> Report:
    manifest, data, split = detector.manifest, prepared.data, prepared.split
    in_blocks = prepared.block_N is not None
    gap_rows = len(prepared.rows_ND) - sum(map(len, split)) if in_blocks else 0
    return Report(
        name=config.name,
        version=detector.version,
        path=folder.place(detector.version),
        preset=preset_of(config.model),
        variant=manifest.model.variant,
        stores_rows=manifest.model.stores_rows,
        parameter_count=manifest.model.parameter_count,
        features=len(manifest.features),
        fit_rows=len(split.fit_ND),
        validation_rows=len(split.validation_ND),
        calibration_rows=prepared.calibration_rows,
        folds=len(prepared.folds),
        dropped_rows=len(data.normal_ND) - sum(map(len, split)) - gap_rows,
        gap_rows=gap_rows,
        window=detector.window,
        copied_rows=prepared.copies,
        time=_time_axis(config, prepared),
        anomalous_rows=len(data.anomalies_AD),
        epochs=trial.fitted.epochs,
        best_epoch=trial.fitted.best_epoch,
        held_out_loss=trial.fitted.held_out_loss,
        alpha=threshold.alpha,
        alpha_chosen=config.alpha is None,
        delta=threshold.delta,
        certified=guarantee.kind == "certified",
        guarantee=guarantee.kind,
        guarantee_reason=guarantee.reason,
        exchangeability=found,
        threshold=threshold.score,
        expected_false_alarm_rate=threshold.expected_false_alarm_rate,
        quality=quality,
        size_bytes=detector.size_bytes,
        seconds=seconds,
    )


def _time_axis(config: RunConfig, prepared: Prepared) -> TimeAxis | None:
    """Of all rows that windows look at, or else of the normal ones."""
    of = prepared.data if prepared.ordered is None else prepared.ordered
    return time_axis(config.time, of.time_N, of.entity_N)


def _gather(
    config: RunConfig,
    prepared: Prepared,
    detector: Detector,
    report: Report,
    *,
    score_N: NDArray[np.float32],
    differences: Sequence[Difference],
    suspect_MD: NDArray[np.float32],
    suspects_of: int,
    run_toml: str,
    curves: tuple[Curve, ...],
    cpu_seconds: float,
    gate: Decision | None,
) -> Facts:
    data, ordered = prepared.data, prepared.ordered
    if ordered is None:
        material, normal_ND = material_of_run(detector, prepared, score_N, config), prepared.rows_ND
        dropped = report.dropped_rows
    else:
        material = material_of_windows(detector, prepared, score_N, config)
        normal_ND = ordered.rows_NF[ordered.normal_N]
        dropped = int((~Schema.of(detector.manifest).has_enough(normal_ND)).sum())
    held_out = f"{len(material.score_N):,}"
    told = Told(
        name=config.name,
        rows=(
            f"all {held_out} rows, each scored by the model that it is new to"
            if prepared.folds
            else f"the {held_out} calibration {material.unit} of the run, which set the threshold"
        ),
        is_run=True,
        seen=1.0,
        data_file=Path(config.data),
        run_toml=run_toml,
        columns=columns_of(
            detector.manifest.features,
            normal_ND,
            data.anomalies_AD,
            dropped=dropped,
            copies=prepared.copies,
            oddities=data.oddities,
            warnings=data.warnings,
            seed=config.seed,
        ),
        tests=report.exchangeability,
        differences=differences,
        suspects=report.suspects,
        suspect_MD=suspect_MD,
        suspects_listed=report.suspects_listed,
        suspects_of=suspects_of,
        contamination_warning=report.contamination_warning,
        curves=curves,
        fit_cpu_seconds=cpu_seconds,
        fit_seconds=report.seconds,
        fingerprints=True,
        gate=gate,
    )
    return gather(material, told)
