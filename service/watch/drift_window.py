"""Drift window: live rows of a stretch of time held against the fit rows, feature by feature, and
their answers against the calibration rows.

All tests of all features together find something in at most LEVEL of the windows in which nothing
has changed (Bonferroni's correction for their number). Two windows running that find the same make
a drift: `Drifting` in drift.py.

Shapes: N rows of the window in order, D features, K blocks, B bins.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.calibration import Threshold
from hourglass.service.model.intervals import interval_of, kolmogorov
from hourglass.service.model.served import Served
from hourglass.service.watch.reference import (
    ABOVE,
    BELOW,
    CODES,
    MISSING,
    UNSEEN,
    Codes,
    Counts,
    Reference,
)
from hourglass.service.watch.stability import BLOCKS, Stability, stability

LEVEL = 0.01  # of a window, all tests together
TESTS_OF_FEATURE, TESTS_OF_ANSWERS = 3, 2
WORST = 12  # features of a window that are kept with their shares; of the rest their number
P_VALUE_BINS = 10  # by which it is seen how much p-values depend on each other

Float32 = NDArray[np.float32]
What = Literal["distribution", "missing", "outside", "p_values", "alarms_over", "alarms_under"]
WHATS: tuple[What, ...] = What.__args__  # type: ignore[attr-defined]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it was, by more than chance explains."""

    what: What
    feature: str | None  # None of the answers
    reference: float  # the share that the sentence names, of the fit or the calibration rows
    observed: float  # the same of the window
    sentence: str


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of a window."""

    feature: str
    psi: float | None  # of the values; None where the file holds no reference
    critical: float | None  # what chance brings it to
    missing: tuple[float, float]  # share of fit rows, and of the window's
    outside: float  # share of values beyond the fit rows' range, or of a category none of them had
    design_effect: float | None  # of as many rows it takes to tell what one independent row tells
    bins: list[str]
    reference: list[float]  # share of each bin
    observed: list[float]


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What the model said of a window's rows."""

    alarms: int
    rate: float
    interval: tuple[float, float]  # of 95 %, by Clopper and Pearson, for independent rows
    promised: float | None  # None where the budget was changed in the window
    statistic: float  # of Kolmogorov and Smirnov, p-values against those of calibration rows
    p_value: float


class DriftWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One window of rows, judged."""

    began: float  # seconds since the epoch
    ended: float
    rows: int  # that were looked at, a random share of those that were scored where these are many
    seen: int  # rows that were scored
    findings: list[Finding]
    features: list[Compared]  # the worst, PSI over critical value
    others: int  # features besides
    largest: float | None  # PSI over critical value, of all features
    answers: Answers


class Sampled(NamedTuple):
    """Rows of a window, in order, each as likely to be among them as any other."""

    began: float
    ended: float
    seen: int
    codes_ND: Codes
    p_value_N: Float32
    alarm_N: NDArray[np.bool_]
    threshold: Threshold | None  # by which they alarmed; None where it was changed


def judge(served: Served, references: Sequence[Reference], sampled: Sampled) -> DriftWindow:
    """Hold a window's rows, one at least, against those that the model was made of."""
    rows, width = sampled.codes_ND.shape
    level = LEVEL / (TESTS_OF_FEATURE * width + TESTS_OF_ANSWERS)
    share = None if is_exchangeable(served) else min(1.0, rows / max(sampled.seen, 1))
    block_N = np.arange(rows) * BLOCKS // rows
    findings: list[Finding] = []
    compared: list[Compared] = []
    for reference, code_N in zip(references, sampled.codes_ND.T, strict=True):
        each = _Feature(reference, _blocks(block_N, code_N, CODES), level, share)
        compared.append(each.compare())
        findings += each.findings()
    ratio = [one.psi / one.critical if one.psi and one.critical else 0.0 for one in compared]
    order = sorted(range(width), key=lambda d: -ratio[d])[:WORST]
    answers, of_answers = _answers(served, sampled, block_N, level, share)
    return DriftWindow(
        began=sampled.began,
        ended=sampled.ended,
        rows=rows,
        seen=sampled.seen,
        findings=[*findings, *of_answers],
        features=[compared[d] for d in order],
        others=width - len(order),
        largest=max(ratio) if any(one.psi is not None for one in compared) else None,
        answers=answers,
    )


def is_exchangeable(served: Served) -> bool:
    """Whether the model's own rows do not depend on each other, as far as its run could tell."""
    record = served.detector.manifest.calibration
    return record.guarantee in ("certified", "marginal") and served.detector.window == 1


def is_one_sided(served: Served) -> bool:
    """Whether p-values are larger than uniform by their making, so that few alarms say nothing."""
    record = served.detector.manifest.calibration
    return record.guarantee == "blocks" or record.method != "split-conformal"


class _Feature:
    """One feature of a window: [K, CODES] counts, and the tests of them."""

    def __init__(
        self, reference: Reference, count_KC: Counts, level: float, share: float | None
    ) -> None:
        self._reference, self._count_KC = reference, count_KC
        bins = len(reference.counts_B)
        self._bin_KB = count_KC[:, :bins].copy()
        if bins and reference.feature.kind == "numeric":  # beyond the range they are in end bins
            self._bin_KB[:, 0] += count_KC[:, BELOW]
            self._bin_KB[:, -1] += count_KC[:, ABOVE]
        self._outside_K = count_KC[:, [BELOW, ABOVE, UNSEEN]].sum(axis=1)
        self._missing_K = count_KC[:, MISSING]
        self._rows_K = count_KC.sum(axis=1)
        seen, outside = reference.seen, reference.outside
        within_K = self._rows_K - self._missing_K - self._outside_K
        self._values = stability(self._bin_KB, reference.counts_B, level=level, share=share)
        self._missing = stability(
            np.stack([self._rows_K - self._missing_K, self._missing_K], axis=1),
            np.array([seen, reference.missing]),
            level=level,
            share=share,
        )
        self._outside = None
        if bins:
            self._outside = stability(
                np.stack([within_K, self._outside_K], axis=1),
                np.array([seen - outside, outside]),
                level=level,
                share=share,
            )

    def compare(self) -> Compared:
        """What is said of it."""
        values, reference = self._values, self._reference
        return Compared(
            feature=reference.feature.name,
            psi=values and values.psi,
            critical=values and values.critical,
            missing=self._missing_shares,
            outside=_share(self._outside_K.sum(), self._rows_K.sum() - self._missing_K.sum()),
            design_effect=values and values.design_effect,
            bins=reference.labels if len(reference.counts_B) else [],
            reference=_shares(reference.counts_B),
            observed=_shares(self._bin_KB.sum(axis=0)),
        )

    def findings(self) -> Iterator[Finding]:
        """What is apart."""
        feature, reference = self._reference.feature, self._reference
        name, unit = feature.name, f" {feature.unit}" if feature.unit else ""
        if self._missing and self._missing.is_apart:
            before, now = self._missing_shares
            yield Finding(
                what="missing",
                feature=name,
                reference=before,
                observed=now,
                sentence=f"{name} is missing in {now:.2%} of rows, of fit rows in {before:.2%}",
            )
        seen = self._rows_K.sum() - self._missing_K.sum()
        before, now = _share(reference.outside, reference.seen), _share(self._outside_K.sum(), seen)
        if self._outside and self._outside.is_apart and now > before:
            where = "has a category that no fit row had"
            if feature.kind == "numeric":
                where = f"lies outside {feature.minimum:.4g} to {feature.maximum:.4g}{unit}"
            yield Finding(
                what="outside",
                feature=name,
                reference=before,
                observed=now,
                sentence=f"{name} {where} in {now:.2%} of rows, by chance in {before:.2%}",
            )
        if self._values and self._values.is_apart:
            yield self._moved(self._values)

    def _moved(self, values: Stability) -> Finding:
        """Named by the one share that moved the most: of values beyond an edge, or of one value."""
        reference, feature = self._reference, self._reference.feature
        r_B = np.array(_shares(reference.counts_B))
        p_B = np.array(_shares(self._bin_KB.sum(axis=0)))
        if feature.kind == "numeric":
            above_r, above_p = 1 - r_B.cumsum()[:-1], 1 - p_B.cumsum()[:-1]
            edge = int(np.abs(above_p - above_r).argmax())
            before, now = float(above_r[edge]), float(above_p[edge])
            unit = f" {feature.unit}" if feature.unit else ""
            what = f"is at or above {reference.edges[edge]:.4g}{unit}"
        else:
            bin_ = int(np.abs(p_B - r_B).argmax())
            before, now = float(r_B[bin_]), float(p_B[bin_])
            what = f"is {reference.labels[bin_]}"
        return Finding(
            what="distribution",
            feature=feature.name,
            reference=max(before, 0.0),
            observed=max(now, 0.0),
            sentence=(
                f"{feature.name} {what} in {max(now, 0.0):.1%} of rows, of fit rows in"
                f" {max(before, 0.0):.1%} (PSI {values.psi:.2g}, by chance at most"
                f" {values.critical:.2g})"
            ),
        )

    @property
    def _missing_shares(self) -> tuple[float, float]:
        reference = self._reference
        return (
            _share(reference.missing, reference.seen + reference.missing),
            _share(self._missing_K.sum(), self._rows_K.sum()),
        )


def _answers(
    served: Served,
    sampled: Sampled,
    block_N: NDArray[np.intp],
    level: float,
    share: float | None,
) -> tuple[Answers, list[Finding]]:
    table, p_value_N, one_sided = served.detector.table, sampled.p_value_N, is_one_sided(served)
    n, rows = table.n, len(p_value_N)
    bin_N = np.clip(np.ceil(p_value_N * P_VALUE_BINS).astype(int) - 1, 0, P_VALUE_BINS - 1)
    tenths_K = _blocks(block_N, bin_N, P_VALUE_BINS)
    even = np.full(P_VALUE_BINS, max(n // P_VALUE_BINS, 1), np.int64)
    dependence = stability(tenths_K, even, level=level, share=share)
    assert dependence is not None
    step_p = table.p_values[1:].astype(np.float64)
    live = np.searchsorted(np.sort(p_value_N), step_p * (1 + 1e-6), side="right") / rows
    apart = live - (step_p * (n + 1) - 1) / n
    distance = max(float((apart if one_sided else np.abs(apart)).max(initial=0.0)), 0.0)
    effective = rows * n / (rows + n) / dependence.inflation
    p_value = kolmogorov(distance, effective, one_sided=one_sided)
    alarms, threshold, findings = int(sampled.alarm_N.sum()), sampled.threshold, []
    if p_value <= level:
        place = int(np.abs(apart).argmax()) if not one_sided else int(apart.argmax())
        findings.append(
            Finding(
                what="p_values",
                feature=None,
                reference=float(live[place] - apart[place]),
                observed=float(live[place]),
                sentence=(
                    f"{live[place]:.1%} of rows have a p-value of at most {step_p[place]:.2g}, of"
                    f" calibration rows {live[place] - apart[place]:.1%}"
                ),
            )
        )
    if threshold is not None:
        kept = np.array([n + 1 - threshold.rank, threshold.rank])
        count_K = _blocks(block_N, sampled.alarm_N.astype(int), 2)
        found, rate = stability(count_K, kept, level=level, share=share), alarms / rows
        over = rate > threshold.expected_false_alarm_rate
        if found and found.is_apart and (over or not one_sided):
            findings.append(
                Finding(
                    what="alarms_over" if over else "alarms_under",
                    feature=None,
                    reference=threshold.expected_false_alarm_rate,
                    observed=rate,
                    sentence=(
                        f"{rate:.2%} of rows alarm, where"
                        f" {threshold.expected_false_alarm_rate:.2%} are promised"
                    ),
                )
            )
    answers = Answers(
        alarms=alarms,
        rate=alarms / rows,
        interval=interval_of(alarms, rows),
        promised=threshold.expected_false_alarm_rate if threshold else None,
        statistic=distance,
        p_value=p_value,
    )
    return answers, findings


def _blocks(block_N: NDArray[np.intp], code_N: NDArray[np.integer], codes: int) -> Counts:
    """[N] codes -> [K, codes] counts."""
    flat = np.bincount(block_N * codes + code_N, minlength=BLOCKS * codes)
    return flat.reshape(BLOCKS, codes)


def _share(part: int, whole: int) -> float:
    return float(part) / float(whole) if whole else 0.0


def _shares(count_B: Counts) -> list[float]:
    return [count / max(int(count_B.sum()), 1) for count in count_B.tolist()]
