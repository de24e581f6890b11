"""Facts: everything that a report says, section by section; report.html and card.md are made of
them, and report.json has the same.
"""

from collections.abc import Sequence
from pathlib import Path
from time import process_time
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.artifact import GuaranteeKind
from hourglass.service.model.guarantee import guarantee_of
from hourglass.training.exchangeability import Exchangeability
from hourglass.training.gate import Decision
from hourglass.training.report import checks
from hourglass.training.report.budgets import Budgets, budgets_of
from hourglass.training.report.checks import Check, Verdict
from hourglass.training.report.columns import Columns
from hourglass.training.report.estimates import Estimate, Placements, Worth, auroc, share
from hourglass.training.report.material import Material
from hourglass.training.report.origin import Cost, Curve, Origin, cost_of, origin_of
from hourglass.training.report.peers import Peers, peers_of
from hourglass.training.report.plane import Plane, plane_of
from hourglass.training.report.power import Power, power_of
from hourglass.training.report.privacy import Held, privacy_of
from hourglass.training.report.sample import Sample
from hourglass.training.report.scores import Scores, scores_of
from hourglass.training.report.snippets import Snippet, snippets_of
from hourglass.training.report.strangest import Strangest, strangest_of, strangest_windows
from hourglass.training.report.timeline import Timeline, timeline_of
from hourglass.training.suspects import Suspect
from hourglass.training.verify import Difference

FORMAT = 1  # raised where a field's name or meaning changes


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """What the labelled anomalies say."""

    normal_rows: int
    anomalies: int  # that can be scored
    auroc: Estimate
    detection: Estimate  # share of the anomalies that alarm
    ranges: Estimate | None = None  # share of runs of anomalies of which a row alarms; of windows


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A report."""

    report_format: int = FORMAT
    name: str
    version: str
    rows: str  # which rows it is made of
    seen: float | None  # share of them that fitted or calibrated the model; None: not known
    alpha: float
    delta: float
    guarantee: GuaranteeKind
    guarantee_reason: str
    promise: str  # the same as part of a sentence
    verdict: Verdict
    checks: tuple[Check, ...]
    budgets: Budgets
    scores: Scores
    timeline: Timeline | None = None  # of a model of windows
    labelled: Labelled | None
    power: Power | None
    peers: Peers
    strangest: Strangest
    data: Columns
    map: Plane
    learning: tuple[Curve, ...]
    privacy: tuple[Held, ...]
    cost: Cost
    origin: Origin
    snippets: tuple[Snippet, ...]
    gate: Decision | None = None  # None where no model was in service


class Told(NamedTuple):
    """What a report cannot find by itself: it is told by the run, or by whoever remakes it."""

    name: str
    rows: str
    is_run: bool  # or else the report is made anew
    seen: float | None
    data_file: Path
    run_toml: str | None
    columns: Columns
    tests: Exchangeability | None
    differences: Sequence[Difference] | None
    suspects: Sequence[Suspect]  # the strangest first
    suspect_MD: NDArray[np.float32]  # their rows
    suspects_listed: int
    suspects_of: int  # rows
    contamination_warning: str | None
    curves: tuple[Curve, ...]
    fit_cpu_seconds: float | None
    fit_seconds: float | None
    fingerprints: bool
    gate: Decision | None = None


def gather(material: Material, told: Told) -> Facts:
    """Make every section."""
    started = process_time()
    detector, threshold = material.detector, material.threshold
    manifest = detector.manifest
    guarantee = guarantee_of(manifest.calibration, threshold)
    promise = _promise(guarantee.kind, threshold.alpha, threshold.delta, detector.window)
    labelled = labelled_of(material)
    scores = scores_of(material)
    power = power_of(threshold, material.held_out, seed=material.seed, worth=material.worth)
    timeline = timeline_of(material)
    area = labelled.auroc if labelled else None
    found = (
        checks.is_exchangeable(
            guarantee.kind, guarantee.reason, told.tests, windows=timeline is not None
        ),
        checks.has_calibration_rows(
            detector.table.n,
            threshold,
            guarantee.kind,
            None if timeline is None else timeline.calibration_effective,
        ),
        checks.tells_rows_apart(
            scores,
            power,
            area,
            unit=material.unit,
            ranges=labelled.ranges.n if labelled and labelled.ranges else None,
        ),
        checks.has_uniform_p_values(scores, guarantee.kind),
        checks.computes_alike(told.differences),
        checks.has_no_suspects(told.contamination_warning, told.suspects_listed, told.suspects_of),
        *checks.has_no_odd_columns(told.columns),
    )
    detection = labelled.detection if labelled else None
    suspects, numbers = (
        Sample.of(detector, told.suspect_MD),
        [suspect.row for suspect in told.suspects],
    )
    if (series := material.series) is not None:
        place_M = series.place_M[strangest_windows(series, detector)]
        suspects = material.held_out.at(place_M)
        numbers = series.number_T[place_M].tolist()
    plane = plane_of(material, suspects, numbers)
    strangest = strangest_of(
        material,
        told.suspects,
        told.suspect_MD,
        of_rows=told.suspects_of,
        listed=told.suspects_listed if told.is_run else 0,
    )
    return Facts(
        name=told.name,
        version=detector.version,
        rows=told.rows,
        seen=told.seen,
        alpha=threshold.alpha,
        delta=threshold.delta,
        guarantee=guarantee.kind,
        guarantee_reason=guarantee.reason,
        promise=promise,
        verdict=checks.verdict_of(found, promise=promise, detection=detection),
        checks=found,
        budgets=budgets_of(
            detector,
            threshold,
            rows_per_day=material.rows_per_day,
            rows_per_day_is=material.rows_per_day_is,
            detection=detection,
            worth=material.calibration_worth,
        ),
        scores=scores,
        timeline=timeline,
        labelled=labelled,
        power=power,
        peers=peers_of(material),
        strangest=strangest,
        data=told.columns,
        map=plane,
        learning=told.curves,
        privacy=privacy_of(
            manifest,
            shown_on_map=len(plane.held_out),
            suspects=len(plane.suspects),
            listed=strangest.listed,
            fingerprints=told.fingerprints,
            windows=len(strangest.windows),
            entities=timeline is not None and timeline.entity is not None,
        ),
        origin=origin_of(detector, told.data_file, told.run_toml),
        snippets=snippets_of(told.name, manifest, threshold.alpha),
        gate=told.gate,
        cost=cost_of(
            detector,
            material.held_out.rows_ND,
            fit_cpu_seconds=told.fit_cpu_seconds,
            fit_seconds=told.fit_seconds,
            report_cpu_seconds=process_time() - started,
        ),
    )


def labelled_of(material: Material) -> Labelled | None:
    """None without a labelled anomaly that can be scored."""
    score_A, score_N = material.anomaly_score_A, material.score_N
    if not len(score_A):
        return None
    ranges_A, alarm_A = material.ranges_A, material.threshold.is_anomaly(score_A)
    ranges = len(np.unique(ranges_A))
    worth = Worth(ranges / len(score_A), material.worth)
    placements = Placements.of(score_N.astype(np.float64), score_A.astype(np.float64))
    return Labelled(
        normal_rows=len(score_N),
        anomalies=len(score_A),
        auroc=auroc(placements, worth),
        detection=share(int(alarm_A.sum()), len(score_A), worth.anomaly),
        ranges=(
            None if material.series is None else share(len(np.unique(ranges_A[alarm_A])), ranges)
        ),
    )


def _promise(kind: GuaranteeKind, alpha: float, delta: float, window: int) -> str:
    share = f"{100 * alpha:.3g}%"
    return {
        "certified": f"at most {share} of normal rows alarm, with {1 - delta:.0%} confidence",
        "marginal": f"about {share} of normal rows alarm on average, which is not certified",
        "blocks": (
            f"at most {share} of normal rows alarmed in every block looked at"
            if window == 1
            else f"at most {share} of the windows of the blocks held out alarmed"
        ),
        "none": f"nothing is promised of the share of normal rows that alarm, where {share} was"
        " asked for",
    }[kind]
