"""Gate: may a newly fitted model, the challenger, take the place of that in service, the champion?

No single question sees every model that has gone blind. Anomalies that are injected see none: a
model of contaminated rows finds them as well as a good one does. So the gate asks four kinds of
question, and one clear no refuses:

- before anything is fitted, whether the columns of the new rows are those that the champion knows:
  units, zeros, a sensor that is stuck, missing cells, categories;
- what the champion says of the rows that are new to it. Too many alarms are another population,
  or a model that has aged, and a person has to say which;
- on rows that neither was fitted on, whether both find the same rows strange. What two equal fits
  differ by is measured, where a fit is cheap, by a second one of another seed;
- where there are confirmed anomalies, whether the challenger finds them as the champion does.

Limits are where honest refits and spoilt ones part on half of the benchmark's sets
(tests/benchmarks/gate); they were judged on the other half.

Shapes: N rows, D features, C held-out rows, A confirmed anomalies.
"""

from collections.abc import Sequence
from pathlib import Path
from time import process_time
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom, spearmanr
from sklearn.metrics import average_precision_score

from hourglass.service.model.artifact import UNSEEN, DriftReference, Feature, Manifest
from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema
from hourglass.service.serving.store import ModelFolder
from hourglass.training.fingerprints import Fingerprints
from hourglass.training.verify import Difference

DECISION = "decision.json"  # beside the version that was published, and in the model's folder
FEWEST = 50  # rows that a column is looked at in, or two models are compared on
ERRORS = 5.0  # standard errors beyond a limit that few rows may lie by chance
MISSING = 0.1  # of a column's cells, more or fewer than there were
OUTSIDE = 0.05  # of a column's values far beyond the range that the champion was fitted on
FAR = 0.25  # of its width: a series wanders a little further every day
MOVED = 0.5  # of a column's values in other deciles
RECATEGORISED = 0.4  # of other categories; the benchmark has none
REPEATED = 0.2  # of a column's values that are one value, more than were so near
RESCALED = 5.0  # times as wide, or as narrow, from the first decile to the last
TOO_MANY = 0.2  # of the new rows that alarm beyond the promise
SHIFTED = 0.3  # between p-values of the champion and uniform ones (Kolmogorov and Smirnov)
AGREEMENT = 0.6  # of ranks, at least (Spearman)
LESS_THAN_TWINS = 0.3  # agreement of two fits that differ by their seed, less that of both models
DETECTION, PRECISION = 0.13, 0.08  # that equal fits differ by: share found, average precision
LOST_ALARMS = 0.5  # of those that were raised in service; of equal fits 14 to 41 % are
GROWN = 5.0  # times as large, or as slow
CHANCE = 1e-6  # of a column that varied, or of as many alarms
CHUNK = 4096
TIMED = 20  # calls of one row, the fastest of which counts
CLOCK = 1e-6  # seconds, under which a processor's time is not told

Status = Literal["pass", "warn", "fail"]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Booleans = NDArray[np.bool_]


class GateCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One question, with what was found and what would have been too much."""

    name: str
    status: Status
    text: str
    value: float | None = None
    limit: float | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Who is in service from now on, and why."""

    published: bool  # by the gate's leave
    shadow: bool = False  # beside the champion, as its challenger, and not in its place
    forced: bool  # published although a check failed, because a person said so
    reason: str
    champion: str
    challenger: str | None  # None where the rows were refused, and nothing was fitted
    decided_at: float  # seconds since 1970
    # when a person last said so: what was ordinary before may be so no longer
    forced_at: float | None = None
    checks: tuple[GateCheck, ...]


class Pair(NamedTuple):
    """What both say of the same rows, which neither was fitted on."""

    champion_C: Float32  # scores
    challenger_C: Float32
    twin_C: Float32 | None  # by a fit that differs from the challenger's by its seed alone


class Confirmed(NamedTuple):
    """Scores of confirmed anomalies, NaN where one has too few values."""

    champion_A: Float32
    challenger_A: Float32


def look_at_columns(champion: Manifest, rows_ND: Float32) -> tuple[GateCheck, ...]:
    """Whether rows in raw units have the columns that the champion was fitted on."""
    if len(rows_ND) < FEWEST:
        text = f"{len(rows_ND)} rows are new, and columns are looked at in {FEWEST} at least"
        return (GateCheck(name="Columns", status="warn", text=text),)
    columns = [
        _Column.of(feature, reference, column)
        for feature, reference, column in zip(
            champion.features, champion.drift, rows_ND.T, strict=True
        )
    ]
    return tuple(
        _worst(columns, name, [find(column) for column in columns])
        for name, find in (
            ("Missing cells", _missing),
            ("Constant columns", _constant),
            ("Repeated values", _repeated),
            ("Ranges", _outside),
            ("Scales", _rescaled),
            ("Distributions", _moved),
        )
    )


class _Column(NamedTuple):
    feature: Feature
    reference: DriftReference
    rows: int
    seen: Float64  # values that are not missing, and no unseen categories
    unseen: int

    @classmethod
    def of(cls, feature: Feature, reference: DriftReference, column: Float32) -> "_Column":
        known = column[~np.isnan(column)].astype(np.float64)
        is_unseen = (
            known == UNSEEN if feature.kind == "categorical" else np.zeros(len(known), dtype=bool)
        )
        return cls(feature, reference, len(column), known[~is_unseen], int(is_unseen.sum()))

    @property
    def shares(self) -> tuple[Float64, Float64]:
        """Of the bins of the reference: what the champion was fitted on, and what there is now."""
        counts = np.asarray(self.reference.counts, dtype=np.float64)
        if self.feature.kind == "numeric":
            place = np.searchsorted(np.array(self.reference.edges), self.seen, side="right")
        else:
            place = self.seen.astype(np.int64)
        found = np.bincount(place, minlength=len(counts)).astype(np.float64)
        return counts / max(counts.sum(), 1), found / max(len(self.seen), 1)


class _Found(NamedTuple):
    value: float
    limit: float
    text: str


def _missing(column: _Column) -> _Found:
    expected = column.feature.missing_rate
    found = 1 - (len(column.seen) + column.unseen) / column.rows
    limit = max(MISSING, ERRORS * _error(expected, column.rows))
    return _Found(
        abs(found - expected), limit, f"{found:.1%} of the cells are missing, {expected:.1%} were"
    )


def _constant(column: _Column) -> _Found:
    """How many powers of ten against a column that varied being one value by chance."""
    feature, values = column.feature, column.seen
    if not len(values) or feature.minimum == feature.maximum or np.ptp(values):
        return _Found(0.0, 6.0, "")
    expected, _ = column.shares
    often = float(expected.max(initial=0.0))
    unlikely = -len(values) * np.log10(often) if 0 < often < 1 else 0.0
    return _Found(unlikely, -np.log10(CHANCE), f"every value is {values[0]:g}, and they varied")


def _repeated(column: _Column) -> _Found:
    """How much oftener than any value of its bin one value comes: a sensor that was stuck, or gaps
    that were filled, for a part of the rows.
    """
    if column.feature.kind != "numeric" or not len(column.seen):
        return _Found(0.0, REPEATED, "")
    values, counts = np.unique(column.seen, return_counts=True)
    often = int(counts.argmax())
    share = float(counts[often]) / len(column.seen)
    expected, _ = column.shares
    place = np.searchsorted(np.array(column.reference.edges), values[often], side="right")
    near = float(expected[place]) if len(expected) else 0.0
    limit = REPEATED + ERRORS * _error(near, len(column.seen))
    text = f"{share:.1%} of the values are {values[often]:g}, and {near:.1%} were so near"
    return _Found(share - near, limit, text)


def _outside(column: _Column) -> _Found:
    feature, values = column.feature, column.seen
    if feature.kind == "categorical":
        share = column.unseen / max(len(values) + column.unseen, 1)
        return _Found(share, OUTSIDE, f"{share:.1%} of the values are categories it does not know")
    if feature.minimum is None or feature.maximum is None:
        share = len(values) / column.rows
        return _Found(share, OUTSIDE, f"{share:.1%} of the cells hold values, and none did")
    far = FAR * (feature.maximum - feature.minimum)
    low, high = feature.minimum - far, feature.maximum + far
    share = float(((values < low) | (values > high)).mean()) if len(values) else 0.0
    fitted = sum(column.reference.counts)
    expected = 2 / (fitted + 1)
    limit = max(OUTSIDE, expected + ERRORS * _error(expected, max(len(values), 1)))
    return _Found(
        share,
        limit,
        f"{share:.1%} of the values are outside of {low:g} to {high:g}",
    )


def _rescaled(column: _Column) -> _Found:
    """How many times as wide, or as narrow, of a column whose deciles all differ."""
    edges, values = column.reference.edges, column.seen
    if len(edges) < 9 or len(values) < FEWEST:
        return _Found(1.0, RESCALED, "")
    low, high = np.quantile(values, (0.1, 0.9))
    before, now = edges[-1] - edges[0], float(high - low)
    times = max(now / before, before / now) if now else np.inf
    text = f"eight tenths of the values are {now:.3g} wide, and were {before:.3g}"
    return _Found(times, RESCALED, text)


def _moved(column: _Column) -> _Found:
    """Total variation distance between what was and what is, in the reference's bins."""
    expected, found = column.shares
    if not len(column.seen) or len(expected) < 2:
        return _Found(0.0, MOVED, "")
    distance = float(np.abs(found - expected).sum() / 2)
    chance = float(np.sqrt(len(expected) / (2 * np.pi * len(column.seen))))
    is_numeric = column.feature.kind == "numeric"
    bins, limit = ("deciles", MOVED) if is_numeric else ("categories", RECATEGORISED)
    return _Found(distance, limit + chance, f"{distance:.0%} of the values are in other {bins}")


def _error(share: float, rows: int) -> float:
    return float(np.sqrt(max(share * (1 - share), 1 / rows) / rows))


def _worst(columns: Sequence[_Column], name: str, found: Sequence[_Found]) -> GateCheck:
    worst = max(range(len(found)), key=lambda d: found[d].value / found[d].limit)
    over = [columns[d].feature.name for d, each in enumerate(found) if each.value > each.limit]
    value, limit, text = found[worst]
    value, limit = float(value), float(limit)
    if not over:
        said = f"as they were, in each of {len(columns):,} columns"
        return GateCheck(name=name, status="pass", text=said, value=value, limit=limit)
    more = f", and {len(over) - 1} other columns are as odd" if len(over) > 1 else ""
    said = f"column {columns[worst].feature.name!r}: {text}{more}"
    return GateCheck(name=name, status="fail", text=said, value=value, limit=limit)


def ask_champion(champion: Detector, score_N: Float32) -> tuple[GateCheck, ...]:
    """Whether the champion finds rows that are new to it as normal as it promised, by its scores of
    them.
    """
    score_N = score_N[~np.isnan(score_N)]
    rows, threshold = len(score_N), champion.threshold
    if rows < FEWEST:
        text = f"{rows} rows are new to it, and {FEWEST} are asked about at least"
        return (GateCheck(name="Alarms of the champion", status="warn", text=text),)
    alarms = int(threshold.is_anomaly(score_N).sum())
    share, promised = alarms / rows, threshold.expected_false_alarm_rate
    by_chance = betabinom(rows, threshold.rank, max(champion.table.n + 1 - threshold.rank, 1))
    text = f"{share:.1%} of {rows:,} new rows alarm where {promised:.1%} are expected"
    status: Status = "pass"
    if share - promised > TOO_MANY and by_chance.sf(alarms - 1) < CHANCE:
        status = "fail"
        text += ": they are another population, or it has aged"
    elif by_chance.sf(alarms - 1) < CHANCE:
        status, text = "warn", f"{text}, more than chance explains"
    elif by_chance.cdf(alarms) < CHANCE:
        status, text = "warn", f"{text}, fewer than chance explains"
    found = GateCheck(
        name="Alarms of the champion",
        status=status,
        text=text,
        value=share,
        limit=promised + TOO_MANY,
    )
    p_N = np.sort(champion.table.p_value(score_N).astype(np.float64))
    rank_N = np.arange(1, rows + 1) / rows
    distance = float(np.maximum(np.abs(rank_N - p_N), np.abs(rank_N - 1 / rows - p_N)).max())
    limit = SHIFTED + ERRORS / 2 * float(np.sqrt(1 / rows + 1 / champion.table.n))
    shifted = GateCheck(
        name="Score quantiles",
        status="fail" if distance > limit else "pass",
        text=f"the p-values of new rows differ from uniform ones by {distance:.2f} at most",
        value=distance,
        limit=limit,
    )
    return found, shifted


def compare(pair: Pair, *, same: bool) -> GateCheck:
    """Whether both find the same rows strange; of models that are not of the `same` configuration
    it is no more than a warning.
    """
    name = "Rank agreement"
    known_C = ~(np.isnan(pair.champion_C) | np.isnan(pair.challenger_C))
    rows = int(known_C.sum())
    if rows < FEWEST:
        text = f"{rows} held-out rows, and two models are compared on {FEWEST} at least"
        return GateCheck(name=name, status="warn", text=text)
    found = _agreement(pair.champion_C[known_C], pair.challenger_C[known_C])
    limit = AGREEMENT
    beside = ""
    if pair.twin_C is not None:
        twin = _agreement(pair.twin_C[known_C], pair.challenger_C[known_C])
        limit = min(AGREEMENT, twin - LESS_THAN_TWINS)
        beside = f"; two fits that differ by their seed agree to {twin:.2f}"
    limit -= ERRORS / 2 / float(np.sqrt(rows))
    status: Status = "pass" if found >= limit else "fail" if same else "warn"
    text = f"both rank {rows:,} held-out rows alike to {found:.2f} (Spearman){beside}"
    return GateCheck(name=name, status=status, text=text, value=found, limit=limit)


def _agreement(one_C: Float32, other_C: Float32) -> float:
    """Spearman's, and 0 where one of them finds all rows alike."""
    if not np.ptp(one_C) or not np.ptp(other_C):
        return 0.0
    return float(spearmanr(one_C, other_C).statistic)


def find_confirmed(
    champion: Detector, challenger: Detector, confirmed: Confirmed, pair: Pair
) -> tuple[GateCheck, ...]:
    """Whether the challenger finds confirmed anomalies as the champion does: as many of them over
    its threshold, and ahead of the held-out rows.
    """
    known_A = ~(np.isnan(confirmed.champion_A) | np.isnan(confirmed.challenger_A))
    count = int(known_A.sum())
    if not count:
        return ()
    before_A, now_A = confirmed.champion_A[known_A], confirmed.challenger_A[known_A]
    was_A = champion.threshold.is_anomaly(before_A).astype(np.float64)
    is_A = challenger.threshold.is_anomaly(now_A).astype(np.float64)
    lost = float((was_A - is_A).mean())
    limit = DETECTION + 2 * float(np.sqrt(np.square(was_A - is_A).mean() / count))
    found = GateCheck(
        name="Confirmed anomalies",
        status="pass" if lost <= limit else "fail",
        text=(
            f"{is_A.mean():.1%} of {count:,} confirmed anomalies alarm, {was_A.mean():.1%} with the"
            " champion"
        ),
        value=lost,
        limit=limit,
    )
    normal_C = ~(np.isnan(pair.champion_C) | np.isnan(pair.challenger_C))
    before, now = (
        _average_precision(normal, anomalous)
        for normal, anomalous in (
            (pair.champion_C[normal_C], before_A),
            (pair.challenger_C[normal_C], now_A),
        )
    )
    limit = PRECISION + 1 / float(np.sqrt(count))
    precision = GateCheck(
        name="Confirmed anomalies among held-out rows",
        status="pass" if before - now <= limit else "fail",
        text=f"average precision {now:.3f}, {before:.3f} with the champion",
        value=before - now,
        limit=limit,
    )
    return found, precision


def _average_precision(normal_C: Float32, anomalous_A: Float32) -> float:
    labels_N = np.repeat([False, True], [len(normal_C), len(anomalous_A)])
    return float(average_precision_score(labels_N, np.concatenate([normal_C, anomalous_A])))


def ask_of_journal(
    champion: Detector, challenger: Detector, alarms_A: Float32, ordinary: Pair
) -> tuple[GateCheck, ...]:
    """What the challenger says of rows that the service answered, by the scores of them: it finds
    those normal that did not alarm. Where the champion alarms on many of these by now, normal has
    moved since, and the rest, at the edge of it, tell nothing. Alarms that nobody confirmed may
    have been false, or what the retraining is for, so that few of them among its own are no more
    than a warning.
    """
    checks = []
    known_N = ~(np.isnan(ordinary.champion_C) | np.isnan(ordinary.challenger_C))
    alarms_A = alarms_A[~np.isnan(alarms_A)]
    threshold = challenger.threshold
    if known_N.any():
        name = "Rows that did not alarm"
        moved_N = champion.threshold.is_anomaly(ordinary.champion_C[known_N])
        ordinary_N = ordinary.challenger_C[known_N][~moved_N]
        if (moved := float(moved_N.mean())) > TOO_MANY:
            text = (
                f"{moved:.1%} of {len(moved_N):,} rows that did not alarm in service would by now,"
                " in the model that is in service: normal has moved since"
            )
            checks.append(GateCheck(name=name, status="warn", text=text))
        else:
            share, rows = float(threshold.is_anomaly(ordinary_N).mean()), len(ordinary_N)
            limit = max(TOO_MANY, ERRORS * _error(threshold.expected_false_alarm_rate, rows))
            checks.append(
                GateCheck(
                    name=name,
                    status="pass" if share <= limit else "fail",
                    text=f"{share:.1%} of {rows:,} rows that did not alarm in service would",
                    value=share,
                    limit=limit,
                )
            )
    if rows := len(alarms_A):
        lost = 1 - float(threshold.is_anomaly(alarms_A).mean())
        checks.append(
            GateCheck(
                name="Recent alarms",
                status="pass" if lost <= LOST_ALARMS else "warn",
                text=f"{lost:.1%} of {rows:,} alarms that the service kept would be none",
                value=lost,
                limit=LOST_ALARMS,
            )
        )
    return tuple(checks)


def weigh(
    champion: Detector,
    challenger: Detector,
    differences: Sequence[Difference],
    rows_ND: Float32,
    *,
    same: bool,
) -> tuple[GateCheck, ...]:
    """Parity, size and the time of an answer; rows [N, D] for either, of a windowed model in order.
    Of another configuration than the champion's it may be larger and slower.
    """
    worst = max(differences, key=lambda each: each.size)
    parity = GateCheck(
        name="Parity",
        status="pass" if worst.size <= 1 else "fail",
        text=(
            f"the file and the fitted network differ by {worst.size:.2g} of what is allowed"
            f" ({worst.output})"
        ),
        value=worst.size,
        limit=1.0,
    )
    part_ND = rows_ND[: max(champion.window, challenger.window)]
    before, now = _seconds((champion, challenger), part_ND)
    sizes = champion.size_bytes, challenger.size_bytes
    return (
        parity,
        _grown("Size", *sizes, f"{sizes[1] / 1e6:.3g} MB, {sizes[0] / 1e6:.3g} MB", same=same),
        _grown("Time of an answer", before, now, f"{now * 1e6:.0f} µs, {before * 1e6:.0f} µs",
               same=same),
    )  # fmt: skip


def _grown(name: str, before: float, now: float, text: str, *, same: bool) -> GateCheck:
    status: Status = "pass" if now <= GROWN * before else "fail" if same else "warn"
    return GateCheck(
        name=name,
        status=status,
        text=f"{text} with the champion",
        value=now / before,
        limit=GROWN,
    )


def _seconds(detectors: Sequence[Detector], rows_ND: Float32) -> list[float]:
    """Of each the fastest of some calls, by the processor's time and in turns: what else the
    machine does, and when, is told of neither.
    """
    seconds: list[list[float]] = [[] for _ in detectors]
    for _ in range(TIMED):
        for detector, times in zip(detectors, seconds, strict=True):
            started = process_time()
            detector.score(rows_ND)
            times.append(process_time() - started)
    return [max(min(times), CLOCK) for times in seconds]


def decide(
    checks: Sequence[GateCheck],
    *,
    champion: str,
    challenger: str | None,
    decided_at: float,
    forced: bool,
    forced_at: float | None = None,
    shadow: bool = False,
) -> Decision:
    """Published unless a check failed, or in spite of that by force; `forced_at` is when the
    champion, or one before it, was.
    """
    failed = [check for check in checks if check.status == "fail"]
    if failed:
        others = f", and {len(failed) - 1} more checks failed" if len(failed) > 1 else ""
        reason = f"{failed[0].name.lower()}: {failed[0].text}{others}"
    else:
        warned = [check.name.lower() for check in checks if check.status == "warn"]
        said = f", with a warning about {', '.join(warned)}" if warned else ""
        reason = f"none of {len(checks)} checks failed{said}"
    return Decision(
        published=forced or not failed,
        shadow=shadow,
        forced=forced and bool(failed),
        reason=reason,
        champion=champion,
        challenger=challenger,
        decided_at=decided_at,
        forced_at=decided_at if forced and failed else forced_at,
        checks=tuple(checks),
    )


def write_decision(decision: Decision) -> str:
    """JSON text, a line for each check."""
    return msgspec.json.format(msgspec.json.encode(decision), indent=2).decode() + "\n"


def read_decision(folder: Path) -> Decision | None:
    """What lies in a folder; None where there is nothing that can be read."""
    try:
        return msgspec.json.decode((folder / DECISION).read_bytes(), type=Decision)
    except (OSError, msgspec.DecodeError):
        return None


def keep_decision(folder: ModelFolder, decision: Decision) -> None:
    """The last one of a model, whatever it was."""
    folder.write(DECISION, write_decision(decision).encode())


def recode(rows_ND: Float32, features: Sequence[Feature], others: Sequence[Feature]) -> Float32:
    """Rows encoded by some features, as others of the same names encode them: a category's code is
    its place among those that were met.
    """
    recoded_ND = rows_ND.copy()
    for d, (feature, other) in enumerate(zip(features, others, strict=True)):
        if feature.categories == other.categories:
            continue
        code = {name: code for code, name in enumerate(other.categories)}
        # the last is that of an unseen category, whose code is -1
        codes = np.array([*(code.get(name, UNSEEN) for name in feature.categories), UNSEEN])
        known_N = ~np.isnan(rows_ND[:, d])
        recoded_ND[known_N, d] = codes[rows_ND[known_N, d].astype(np.int64)]
    return recoded_ND


def scores_of(detector: Detector, rows_ND: Float32) -> Float32:
    """[N] of single rows, NaN where one has too few values."""
    score_N = np.full(len(rows_ND), np.nan, dtype=np.float32)
    asked = np.flatnonzero(Schema.of(detector.manifest).has_enough(rows_ND))
    for start in range(0, len(asked), CHUNK):
        part = asked[start : start + CHUNK]
        score_N[part] = detector.score(rows_ND[part]).score
    return score_N


def scores_of_series(
    detector: Detector,
    rows_ND: Float32,
    segment_N: NDArray[np.int64],
    entity_N: NDArray[np.integer],
    names: Sequence[str],
) -> Float32:
    """[M] of all windows of rows in order, one after another, which cross no segment; of entities
    by their numbers among the names, each by its own baseline where the model has some.
    """
    starts = np.flatnonzero(np.diff(segment_N, prepend=-1))
    parts = [np.empty(0, np.float32)]
    for start, part_ND in zip(starts, np.split(rows_ND, starts[1:]), strict=True):
        if len(part_ND) >= detector.window:
            own = detector.of(names[entity_N[start]]) if names else detector
            parts.append(own.score(part_ND).score)
    return np.concatenate(parts)


def is_new_to(known: Fingerprints | None, rows_ND: Float32) -> Booleans:
    """[N] of rows encoded for a model; all where nobody knows what it was made of, or where hardly
    one is new, and none where none is: to the rows of its own fit a model says that they are calm.
    """
    if known is None:
        return np.ones(len(rows_ND), dtype=bool)
    new_N = known.lacks(rows_ND)
    is_told = not 0 < int(new_N.sum()) < FEWEST
    return new_N if is_told else np.ones(len(rows_ND), dtype=bool)
