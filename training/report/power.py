"""Power: which faults of which size in which feature the model sees, and in words which not.

Faults are put into held-out rows, one feature at a time, and counted against the threshold in
force. They say what a model can see of single values, not which model finds more real anomalies.

Shapes: N rows, D features.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.calibration import Threshold
from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema
from hourglass.training.inject import FAULTS, inject_fault
from hourglass.training.report.estimates import Estimate, share

MOST_ROWS, FEWEST_ROWS = 100, 25  # that carry each fault
INJECTED = 24_000  # rows in all, about
MOST_FEATURES, FEWEST_FEATURES = 60, 12
INJECTED_CELLS = 2_400_000  # of wide rows, so that fewer features are tried
WIDE = 2000  # features: a row of more takes a tenth of a second, so that fewer still are tried
WIDE_FEATURES, WIDE_ROWS = 3, 10
HARDLY = 0.25  # a fault is hardly seen where surely fewer than one in four alarm
HALF = 0.5
MOST_NAMED = 8  # features in a sentence

Float32 = NDArray[np.float32]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """How often one fault alarms."""

    kind: str
    size: float | None  # standard deviations of a shift
    fault: str  # in words
    alarms: Estimate  # share of the rows with the fault


class FeaturePower(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen of one feature."""

    feature: str
    kind: str
    faults: tuple[Found, ...]
    seen_from: float | None  # the smallest shift, in sd, of which half alarm


class Power(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen of faults in single features."""

    clean: Estimate  # alarms of the same rows without a fault
    features: tuple[FeaturePower, ...]
    of_features: int  # that the model has, of which some are drawn where they are many
    fitted: bool  # whether most models of the file were fitted on these rows
    cannot_see: tuple[str, ...]  # sentences


def power_of(
    detector: Detector, threshold: Threshold, held_out_ND: Float32, *, seed: int
) -> Power | None:
    """Inject faults into held-out rows; None without a row that can be scored."""
    features = detector.manifest.features
    schema, rng = Schema.of(detector.manifest), np.random.default_rng(seed)
    rows_ND = held_out_ND[schema.has_enough(held_out_ND)]
    if not len(rows_ND):
        return None
    columns = np.arange(len(features))
    affordable = INJECTED_CELLS // (len(FAULTS["numeric"]) * FEWEST_ROWS * len(columns))
    most = min(max(affordable, FEWEST_FEATURES), MOST_FEATURES)
    if is_wide := len(columns) > WIDE:
        most = WIDE_FEATURES
    if len(columns) > most:
        columns = np.sort(rng.permutation(columns)[:most])
    asked = sum(len(FAULTS[features[column].kind]) for column in columns)
    count = WIDE_ROWS if is_wide else max(FEWEST_ROWS, min(MOST_ROWS, INJECTED // asked))
    rows_ND = rows_ND[rng.permutation(len(rows_ND))[:count]]

    def alarms(faulty_ND: Float32) -> int:
        return int(threshold.is_anomaly(detector.score(faulty_ND).score).sum())

    clean = share(alarms(rows_ND), len(rows_ND))
    measured = []
    for column in columns.tolist():
        feature, parts = features[column], []
        for fault in FAULTS[feature.kind]:
            faulty_ND, changed_N = inject_fault(rows_ND, column, fault, rng)
            parts.append(faulty_ND[changed_N & schema.has_enough(faulty_ND)])
        alarm_M = threshold.is_anomaly(detector.score(np.concatenate(parts)).score)
        ends = np.cumsum([len(part) for part in parts])[:-1]
        found = tuple(
            Found(
                kind=fault.kind,
                size=fault.size,
                fault=fault.say(),
                alarms=share(int(alarm_N.sum()), len(alarm_N)),
            )
            for fault, alarm_N in zip(FAULTS[feature.kind], np.split(alarm_M, ends), strict=True)
        )
        seen = [
            each.size
            for each in found
            if each.size is not None and (each.alarms.value or 0.0) >= HALF
        ]
        measured.append(
            FeaturePower(
                feature=feature.name,
                kind=feature.kind,
                faults=found,
                seen_from=min(seen, default=None),
            )
        )
    return Power(
        clean=clean,
        features=tuple(measured),
        of_features=len(features),
        fitted=detector.manifest.calibration.folds is not None,
        cannot_see=tuple(_blindness(measured, len(features) > len(columns))),
    )


def _blindness(measured: Sequence[FeaturePower], drawn: bool) -> list[str]:
    """What is hardly seen, a sentence for each kind of fault."""
    sentences = []
    for kind, says in (
        (
            "swap",
            "A wrong value of {names} that lies within its usual range is hardly ever seen: the"
            " other features say too little of it",
        ),
        ("stuck", "A value of {names} that is stuck at the median is hardly ever seen"),
        ("flip", "A wrong true or false of {names} is hardly ever seen"),
        ("unseen", "A category of {names} that was never met is hardly ever seen"),
        ("missing", "A missing value of {names} is hardly ever seen, as such"),
    ):
        blind = [
            (each.feature, found.alarms)
            for each in measured
            for found in each.faults
            if found.kind == kind and _is_hardly_seen(found.alarms)
        ]
        if blind:
            highest = max(alarms.value or 0.0 for _, alarms in blind)
            n = min(alarms.n for _, alarms in blind)
            asked = sum(found.kind == kind for each in measured for found in each.faults)
            names = (
                "any feature" if len(blind) == asked > 1 else _names([each[0] for each in blind])
            )
            said = says.format(names=names)
            sentences.append(f"{said} (at most {highest:.0%} alarm, n = {n} or more each).")
    numeric = [
        each
        for each in measured
        if each.kind == "numeric" and any(found.size and found.alarms.n for found in each.faults)
    ]
    if small := [each.feature for each in numeric if each.seen_from is None]:
        largest = max(found.size or 0.0 for each in numeric for found in each.faults)
        sentences.append(
            f"Not even a shift of {largest:g} standard deviations of {_names(small)} alarms in half"
            " of the rows."
        )
    unsure = {size for each in numeric if (size := each.seen_from) is not None}
    if unsure:
        span = f"{min(unsure):g} to {max(unsure):g}" if len(unsure) > 1 else f"{min(unsure):g}"
        sentences.append(
            f"Of single numbers, shifts under {span} standard deviations are missed more often than"
            " not, by feature as the table says."
        )
    if drawn:
        sentences.append("The features that were not drawn for this table were not tried.")
    sentences.append(
        "Each row is judged by itself: a slow drift, a frozen sensor whose value is a usual one, a"
        " wrong order or rate of rows, and rows that never come are not seen."
    )
    return sentences


def _is_hardly_seen(alarms: Estimate) -> bool:
    return alarms.interval is not None and alarms.interval[1] < HARDLY


def _names(features: list[str]) -> str:
    shown = ", ".join(features[:MOST_NAMED])
    more = len(features) - MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown
