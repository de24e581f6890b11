"""Power: which faults of which size in which feature the model sees, and in words which not.

Faults are put into held-out rows, one feature at a time, and counted against the threshold in
force. They say what a model can see of single values, not which model finds more real anomalies.
Into a window a fault is put twice: into its last row alone, as if it had just begun, and into its
last third, as if it had been going on.

Shapes: N rows, W rows of a window, D features.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.calibration import Threshold
from hourglass.service.model.schema import Schema
from hourglass.training.inject import FAULTS, LASTING_FAULTS, inject_fault_in_windows
from hourglass.training.report.estimates import Estimate, share
from hourglass.training.report.sample import Sample
from hourglass.training.windows import shares

MOST_ROWS, FEWEST_ROWS = 100, 25  # that carry each fault
INJECTED = 24_000  # rows in all, about
MOST_FEATURES, FEWEST_FEATURES = 60, 12
INJECTED_CELLS = 2_400_000  # of wide rows, so that fewer features are tried
WINDOW_CELLS = 24_000_000  # of windows, which take 4 s
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
    lasts: bool = False  # over so many last rows of a window as `Power.lasting_rows`
    fault: str  # in words
    alarms: Estimate  # share of the rows with the fault


class FeaturePower(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen of one feature."""

    feature: str
    kind: str
    faults: tuple[Found, ...]
    seen_from: float | None  # the smallest shift of one row, in sd, of which half alarm


class Power(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen of faults in single features."""

    clean: Estimate  # alarms of the same rows without a fault
    features: tuple[FeaturePower, ...]
    of_features: int  # that the model has, of which some are drawn where they are many
    window: int = 1  # rows that an answer looks at
    lasting_rows: int | None = None  # of a window, that a fault lasts if it does
    fitted: bool  # whether most models of the file were fitted on these rows
    cannot_see: tuple[str, ...]  # sentences


def power_of(
    threshold: Threshold, held_out: Sample, *, seed: int, worth: float = 1.0
) -> Power | None:
    """Inject faults into held-out rows, each of which is worth so much; None without a row that can
    be scored.
    """
    detector = held_out.detector
    features, window = detector.manifest.features, detector.window
    schema, rng = Schema.of(detector.manifest), np.random.default_rng(seed)
    held_out = held_out.take(held_out.has_enough_N)
    if not len(held_out):
        return None
    lasting_rows = max(2, shares(window)[1]) if window > 1 else None
    kinds = {
        kind: (*faults, *(LASTING_FAULTS[kind] if lasting_rows else ()))
        for kind, faults in FAULTS.items()
    }
    columns = np.arange(len(features))
    cells = len(kinds["numeric"]) * FEWEST_ROWS * window * len(columns)
    most = min(max(INJECTED_CELLS // cells, FEWEST_FEATURES), MOST_FEATURES)
    if window > 1:
        most = min(max(WINDOW_CELLS // cells, WIDE_FEATURES), MOST_FEATURES)
    if is_wide := len(columns) > WIDE:
        most = WIDE_FEATURES
    if len(columns) > most:
        columns = np.sort(rng.permutation(columns)[:most])
    asked = sum(len(kinds[features[column].kind]) for column in columns)
    count = WIDE_ROWS if is_wide else max(FEWEST_ROWS, min(MOST_ROWS, INJECTED // asked))
    if window > 1:
        affordable = WINDOW_CELLS // (asked * window * len(features))
        count = max(WIDE_ROWS, min(count, affordable))
    chosen = held_out.take(rng.permutation(len(held_out))[:count])
    windows_NWD = chosen.windows_NWD
    worth = min(1.0, worth * len(held_out) / len(chosen))  # together no more than all

    clean_N = threshold.is_anomaly(chosen.score().score)
    clean = share(int(clean_N.sum()), len(clean_N), worth)
    measured = []
    for column in columns.tolist():
        feature, parts, carriers = features[column], [], []
        for fault in kinds[feature.kind]:
            faulty_NWD, changed_N = inject_fault_in_windows(
                windows_NWD, column, fault, lasting_rows or 1, rng
            )
            carries_N = np.flatnonzero(changed_N & schema.has_enough(faulty_NWD[:, -1]))
            parts.append(faulty_NWD[carries_N])
            carriers.append(carries_N)
        faulty = chosen.take(np.concatenate(carriers))
        alarm_M = threshold.is_anomaly(faulty.score_instead(np.concatenate(parts)).score)
        ends = np.cumsum([len(part) for part in parts])[:-1]
        found = tuple(
            Found(
                kind=fault.kind,
                size=fault.size,
                lasts=fault.lasts,
                fault=fault.say(lasting_rows or 1),
                alarms=share(int(alarm_N.sum()), len(alarm_N), worth),
            )
            for fault, alarm_N in zip(kinds[feature.kind], np.split(alarm_M, ends), strict=True)
        )
        seen = [
            each.size
            for each in found
            if each.size is not None and not each.lasts and (each.alarms.value or 0.0) >= HALF
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
        window=window,
        lasting_rows=lasting_rows,
        fitted=detector.manifest.calibration.folds is not None,
        cannot_see=tuple(_blindness(measured, len(features) > len(columns), window, lasting_rows)),
    )


def _blindness(
    measured: Sequence[FeaturePower], drawn: bool, window: int, lasting_rows: int | None
) -> list[str]:
    """What is hardly seen, a sentence for each kind of fault."""
    sentences = []
    others = "the other features" if window == 1 else "the rows before and the other features"
    for kind, lasts, says in (
        (
            "swap",
            False,
            "A wrong value of {names} that lies within its usual range is hardly ever seen: "
            f"{others} say too little of it",
        ),
        ("stuck", False, "A value of {names} that is stuck at the median is hardly ever seen"),
        ("flip", False, "A wrong true or false of {names} is hardly ever seen"),
        ("unseen", False, "A category of {names} that was never met is hardly ever seen"),
        ("missing", False, "A missing value of {names} is hardly ever seen, as such"),
        ("swap", True, "What {names} had {rows} at another time is hardly ever seen"),
        ("frozen", True, "A value of {names} that is frozen {rows} is hardly ever seen"),
        ("flip", True, "A true or false of {names} that is wrong {rows} is hardly ever seen"),
    ):
        asked = [
            (each.feature, found)
            for each in measured
            for found in each.faults
            if (found.kind, found.lasts) == (kind, lasts)
        ]
        blind = [
            (feature, found.alarms) for feature, found in asked if _is_hardly_seen(found.alarms)
        ]
        if blind:
            highest = max(alarms.value or 0.0 for _, alarms in blind)
            n = min(alarms.n for _, alarms in blind)
            names = "any feature"
            if not len(blind) == len(asked) > 1:
                names = _names([feature for feature, _ in blind])
            said = says.format(names=names, rows=f"for {lasting_rows} rows")
            sentences.append(f"{said} (at most {highest:.0%} alarm, n = {n} or more each).")
    numeric = [
        each
        for each in measured
        if each.kind == "numeric" and any(found.size and found.alarms.n for found in each.faults)
    ]
    if small := [each.feature for each in numeric if each.seen_from is None]:
        largest = max(found.size or 0.0 for each in numeric for found in each.faults)
        in_one = "" if window == 1 else ", in one row,"
        sentences.append(
            f"Not even a shift of {largest:g} standard deviations of {_names(small)}{in_one} alarms"
            " in half of the rows."
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
        if window == 1
        else f"An answer looks at {window} rows: what changes more slowly than that shows in the"
        " values alone, and rows that never come are not seen."
    )
    return sentences


def _is_hardly_seen(alarms: Estimate) -> bool:
    return alarms.interval is not None and alarms.interval[1] < HARDLY


def _names(features: list[str]) -> str:
    shown = ", ".join(features[:MOST_NAMED])
    more = len(features) - MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown
