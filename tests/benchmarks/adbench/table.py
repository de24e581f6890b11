"""From outcomes to a table: means over seeds and sets, ranks, and detectors against each other."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Literal

import msgspec
import numpy as np
from scipy.stats import rankdata, wilcoxon

from tests.benchmarks.adbench.outcome import Measured, Outcome

TIE = 1e-5  # what a reference with five places can tell
REFERENCE = "ref:"  # before the name of a detector that is known from a file only

Metric = Literal["auroc", "average_precision"]
METRICS: tuple[Metric, Metric] = ("auroc", "average_precision")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A detector.

    Means are over its sets, each a mean over its seeds; costs are medians over fits.
    """

    detector: str
    baseline: bool
    sets: int
    auroc: float
    average_precision: float
    # mean, among the detectors of this table; 1 is best, a failed fit is last
    auroc_rank: float | None
    average_precision_rank: float | None
    detection_rate: float | None
    false_alarm_rate: float | None
    alpha: float | None  # mean budget that these two belong to
    within_budget: float | None  # share of fits whose false-alarm rate is at most their alpha
    fit_seconds: float | None
    cpu_seconds: float | None  # of fitting
    publish_seconds: float | None
    size_bytes: float | None
    one_row_microseconds: float | None
    bulk_row_microseconds: float | None


class Duel(msgspec.Struct, frozen=True, kw_only=True):
    """A detector against another on the sets and seeds that both have."""

    detector: str
    against: str
    metric: Metric
    wins: int
    ties: int
    losses: int
    difference: float  # mean over sets
    p: float  # Wilcoxon signed-rank test, two-sided


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    set: str
    seed: int
    detector: str
    reason: str


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is reported."""

    seeds: tuple[int, ...]
    sets: tuple[str, ...]
    rows: tuple[Row, ...]  # best mean AUROC first
    per_set: dict[str, dict[str, dict[str, float]]]  # metric -> set -> detector -> mean over seeds
    duels: tuple[Duel, ...]
    failures: tuple[Failure, ...]
    revisions: tuple[str, ...]
    machines: tuple[str, ...]


def make_table(outcomes: Sequence[Outcome], against: Sequence[str] | None = None) -> Table:
    """`against`: the detectors to compare with; None for every baseline there is."""
    runs = [outcome for outcome in outcomes if outcome.measured]
    detectors = list(dict.fromkeys(outcome.detector for outcome in runs))
    sets = sorted({outcome.set for outcome in outcomes}, key=_by_number)
    failures = [outcome for outcome in outcomes if outcome.failure is not None]
    baselines = {outcome.detector for outcome in runs if outcome.baseline}
    per_set = {metric: _per_set(runs, sets, metric) for metric in METRICS}
    ranks = {metric: _mean_ranks(per_set[metric], detectors, failures) for metric in METRICS}
    rows = sorted(
        (_row(name, name in baselines, runs, per_set, ranks) for name in detectors),
        key=lambda row: -row.auroc,
    )
    opponents = [
        row.detector
        for row in rows
        if (row.detector in (baselines if against is None else against))
    ]
    duels = (
        duel(runs, row.detector, opponent, metric)
        for metric in METRICS
        for row in rows
        for opponent in opponents
        if row.detector != opponent and not row.detector.startswith(REFERENCE)
    )
    return Table(
        seeds=tuple(sorted({outcome.seed for outcome in outcomes})),
        sets=tuple(sets),
        rows=tuple(rows),
        per_set=per_set,
        duels=tuple(found for found in duels if found),
        failures=failed(outcomes),
        revisions=tuple(sorted({outcome.revision for outcome in outcomes if outcome.revision})),
        machines=tuple(sorted({outcome.machine for outcome in outcomes if outcome.machine})),
    )


def failed(outcomes: Iterable[Outcome]) -> tuple[Failure, ...]:
    return tuple(
        Failure(set=each.set, seed=each.seed, detector=each.detector, reason=each.failure)
        for each in outcomes
        if each.failure is not None
    )


def duel(runs: Iterable[Outcome], detector: str, against: str, metric: Metric) -> Duel | None:
    """None where the two have no set and seed in common."""
    scores: dict[tuple[str, int], dict[str, float]] = {}
    for run in runs:
        if run.measured and run.detector in (detector, against):
            scores.setdefault((run.set, run.seed), {})[run.detector] = getattr(run.measured, metric)
    pairs: dict[str, list[float]] = {}
    for (name, _), both in scores.items():
        if len(both) == 2:
            pairs.setdefault(name, []).append(both[detector] - both[against])
    if not pairs:
        return None
    differences = np.array([fmean(values) for values in pairs.values()])
    differences[np.abs(differences) <= TIE] = 0.0
    return Duel(
        detector=detector,
        against=against,
        metric=metric,
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
        difference=float(differences.mean()),
        p=float(wilcoxon(differences).pvalue) if differences.any() else 1.0,
    )


def read_outcomes(output: Path) -> list[Outcome]:
    """Every outcome in a folder."""
    return [
        msgspec.json.decode(path.read_bytes(), type=Outcome)
        for path in sorted(output.glob("*/*-*.json"))
    ]


def read_reference(path: Path, seed: int = 0) -> list[Outcome]:
    """A CSV with the columns set, model, auroc, auprc as baselines, their names marked."""
    with path.open(newline="", encoding="utf-8") as lines:
        return [
            Outcome(
                set=line["set"],
                seed=seed,
                detector=REFERENCE + line["model"],
                baseline=True,
                measured=Measured(
                    auroc=float(line["auroc"]), average_precision=float(line["auprc"])
                ),
            )
            for line in csv.DictReader(lines)
        ]


def _per_set(
    runs: Iterable[Outcome], sets: Iterable[str], metric: Metric
) -> dict[str, dict[str, float]]:
    values: dict[str, dict[str, list[float]]] = {name: {} for name in sets}
    for run in runs:
        values[run.set].setdefault(run.detector, []).append(getattr(run.measured, metric))
    return {
        name: {detector: fmean(seeds) for detector, seeds in row.items()}
        for name, row in values.items()
    }


def _mean_ranks(
    per_set: dict[str, dict[str, float]], detectors: Sequence[str], failures: Iterable[Outcome]
) -> dict[str, float]:
    """Over the sets on which every detector has been tried."""
    failed = {(failure.set, failure.detector) for failure in failures}
    ranks = [
        rankdata([-row.get(detector, -np.inf) for detector in detectors])
        for name, row in per_set.items()
        if all(detector in row or (name, detector) in failed for detector in detectors)
    ]
    return dict(zip(detectors, np.mean(ranks, axis=0).tolist(), strict=True)) if ranks else {}


def _row(
    detector: str,
    baseline: bool,
    runs: Iterable[Outcome],
    per_set: dict[Metric, dict[str, dict[str, float]]],
    ranks: dict[Metric, dict[str, float]],
) -> Row:
    means = {
        metric: [row[detector] for row in per_set[metric].values() if detector in row]
        for metric in METRICS
    }
    measured = [run.measured for run in runs if run.detector == detector and run.measured]
    kept = [
        each.false_alarm_rate <= each.alpha
        for each in measured
        if each.false_alarm_rate is not None and each.alpha is not None
    ]
    return Row(
        detector=detector,
        baseline=baseline,
        sets=len(means["auroc"]),
        auroc=fmean(means["auroc"]),
        average_precision=fmean(means["average_precision"]),
        auroc_rank=ranks["auroc"].get(detector),
        average_precision_rank=ranks["average_precision"].get(detector),
        detection_rate=_mean([each.detection_rate for each in measured]),
        false_alarm_rate=_mean([each.false_alarm_rate for each in measured]),
        alpha=_mean([each.alpha for each in measured]),
        within_budget=fmean(kept) if kept else None,
        fit_seconds=_median([each.fit_seconds for each in measured]),
        cpu_seconds=_median([each.cpu_seconds for each in measured]),
        publish_seconds=_median([each.publish_seconds for each in measured]),
        size_bytes=_median([each.size_bytes for each in measured]),
        one_row_microseconds=_median([each.one_row_microseconds for each in measured]),
        bulk_row_microseconds=_median([each.bulk_row_microseconds for each in measured]),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(median(known)) if known else None


def _by_number(name: str) -> tuple[int, str]:
    """10_cover after 2_annthyroid."""
    number = name.partition("_")[0]
    return int(number) if number.isdigit() else 10**6, name
