"""Checks: what can be wrong with a fit, each answered by pass, warn or fail and one sentence with
its n; and the verdict that follows.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from hourglass.service.model.artifact import GuaranteeKind
from hourglass.service.model.calibration import Threshold, rows_to_certify
from hourglass.training.exchangeability import Exchangeability
from hourglass.training.report.columns import Columns, Odd
from hourglass.training.report.estimates import Estimate
from hourglass.training.report.power import Power
from hourglass.training.report.scores import Scores
from hourglass.training.verify import TOLERANCE, Difference

Status = Literal["pass", "warn", "fail"]

FEWEST_CALIBRATION = 20
FEWEST_RANGES = 5
TIED = 0.5  # of the rows with one and the same score
MOST_NAMED = 5  # columns


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One question about a fit."""

    name: str
    status: Status
    text: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The worst of the checks, in one sentence."""

    status: Status
    text: str


def is_exchangeable(
    kind: GuaranteeKind, reason: str, tests: Exchangeability | None, *, windows: bool = False
) -> Check:
    """Whether the guarantee's condition was found to hold."""
    name = "Exchangeable rows"
    if tests is None:
        status: Status = "fail" if kind == "none" else "warn"
        return Check(name=name, status=status, text=f"{kind}: {reason}")
    by_itself = ", each looked at by itself" if windows else ""
    if tests.passed and kind == "none":
        return Check(name=name, status="warn", text=f"nothing is guaranteed: {reason}")
    if tests.passed:
        return Check(name=name, status="pass", text=f"{tests.text}{by_itself}")
    if kind == "blocks":
        instead = "windows of whole blocks" if windows else "whole blocks"
        text = f"{tests.text}{by_itself}; {instead} calibrate instead"
        return Check(name=name, status="warn", text=text)
    return Check(name=name, status="fail", text=f"{tests.text}; nothing is guaranteed")


def has_calibration_rows(
    n: int, threshold: Threshold, kind: GuaranteeKind, effective: float | None = None
) -> Check:
    """Whether they are enough for the budget; of windows, those that tell as much singly."""
    needed = rows_to_certify(threshold.alpha, threshold.delta)
    used = threshold.expected_false_alarm_rate / threshold.alpha
    told_by = f"{n:,} calibration rows"
    if effective is not None:
        told_by, n = f"{n:,} calibration windows, worth {effective:,.0f} rows", int(effective)
    text = (
        f"{told_by}, where {needed:,} can certify alpha = {threshold.alpha:g}; the"
        f" threshold is at rank {threshold.rank} and leaves {used:.0%} of the budget in use"
    )
    status: Status = "pass"
    if n < FEWEST_CALIBRATION:
        status = "fail"
    elif n < needed or used < 0.5 or kind != "certified":
        status = "warn"
        if kind != "certified" and n >= needed and used >= 0.5:
            text += f"; the budget is not certified ({kind})"
    return Check(name="Calibration rows", status=status, text=text)


def tells_rows_apart(
    scores: Scores,
    power: Power | None,
    auroc: Estimate | None,
    *,
    unit: str = "rows",
    ranges: int | None = None,
) -> Check:
    """Whether the scores are degenerate: constant, of two values, or at chance. Labelled anomalies
    that make fewer than FEWEST_RANGES ranges are too few to say that they are at chance.
    """
    name = "Scores tell rows apart"
    held_out = f"{scores.rows:,} held-out {unit}"
    told = ranges is None or ranges >= FEWEST_RANGES
    if scores.distinct <= 2:
        values = "one value" if scores.distinct == 1 else "two values"
        text = f"the scores of {held_out} are of {values} only"
        return Check(name=name, status="fail", text=text)
    if told and auroc is not None and auroc.interval is not None and auroc.interval[0] <= 0.5:
        return Check(
            name=name,
            status="fail",
            text=(
                f"at chance on the labelled anomalies: AUROC {auroc.value:.3f} (95 %:"
                f" {auroc.interval[0]:.3f} to {auroc.interval[1]:.3f}, {auroc.told_by})"
            ),
        )
    gross = _gross(power)
    if gross and power and all(_at_chance(each, power.clean) for each in gross):
        return Check(
            name=name,
            status="fail",
            text=(
                f"at chance: shifts by 8 standard deviations alarm no more often than clean rows,"
                f" of which {power.clean.say()} do"
            ),
        )
    if scores.most_common > TIED:
        return Check(
            name=name,
            status="warn",
            text=f"{scores.most_common:.0%} of {held_out} have one and the same score",
        )
    text = f"{scores.distinct:,} distinct scores of {held_out}"
    if auroc is not None and auroc.interval is not None:
        text += (
            f"; AUROC on labelled anomalies {auroc.value:.3f} (95 %: {auroc.interval[0]:.3f} to"
            f" {auroc.interval[1]:.3f}, {auroc.told_by})"
        )
    elif gross:
        best = max(gross, key=lambda each: each.value or 0.0)
        text += f"; of shifts by 8 standard deviations in one feature {best.say(0)} alarm at best"
    return Check(name=name, status="pass", text=text)


def computes_alike(differences: Sequence[Difference] | None) -> Check:
    """Whether the file answers as the fitted network does."""
    name = "Parity"
    if differences is None:
        return Check(
            name=name,
            status="pass",
            text="the file passed its self-test on this machine; the network is not at hand",
        )
    worst = max(differences, key=lambda each: each.size)
    status: Status = "pass" if worst.size <= 1 else "fail"
    return Check(
        name=name,
        status=status,
        text=(
            f"the file and the fitted network differ by {worst.size:.2g} of what is allowed at most"
            f" ({worst.output}; allowed is {TOLERANCE:g} of its unit)"
        ),
    )


def has_no_suspects(warning: str | None, listed: int, rows: int) -> Check:
    """Whether more rows lie far out than is usual."""
    name = "Suspects among the rows"
    if warning:
        return Check(name=name, status="warn", text=warning)
    if not listed:
        return Check(name=name, status="warn", text=f"{rows:,} rows are too few to look for any")
    return Check(
        name=name,
        status="pass",
        text=(
            f"no more of {rows:,} rows lie far out than the fall of the distances suggests; that is"
            " no proof"
        ),
    )


def has_no_odd_columns(columns: Columns) -> tuple[Check, ...]:
    """Leaking, constant, id-like and sentinel columns, each a check."""
    asked: tuple[tuple[str, Status, tuple[str, ...]], ...] = (
        ("Leaking columns", "warn", ("leaking", "nearly leaking")),
        ("Constant columns", "warn", ("constant", "empty")),
        ("Id-like columns", "warn", ("id-like", "sorted")),
        ("Sentinel values", "warn", ("sentinel",)),
    )
    checks = []
    for name, status, kinds in asked:
        found = [odd for odd in columns.odd if odd.kind in kinds]
        if found:
            checks.append(Check(name=name, status=status, text=_list(found)))
            continue
        text = f"none among {len(columns.columns):,} features"
        if name == "Leaking columns" and not columns.anomalies:
            text = "not asked: there are no labelled anomalies"
        checks.append(Check(name=name, status="pass", text=text))
    return tuple(checks)


def has_uniform_p_values(scores: Scores, kind: GuaranteeKind) -> Check:
    """Whether p-values are as promised on rows that did not set them; where blocks calibrate it was
    not promised that they are uniform.
    """
    name = "Uniform p-values"
    if scores.uniform is None:
        text = f"{scores.rows} held-out rows are too few to ask"
        if scores.alarms.effective is not None:
            text = f"{scores.rows} held-out windows, being alike, are worth too little to ask"
        return Check(name=name, status="warn", text=text)
    otherwise: Status = "warn" if kind == "blocks" else "fail"
    status = "pass" if scores.uniform.passed else otherwise
    return Check(name=name, status=status, text=scores.uniform.text)


def verdict_of(checks: Sequence[Check], *, promise: str, detection: Estimate | None) -> Verdict:
    """One sentence: whether the model can be relied on, what it promises, what it finds."""
    failed = [check for check in checks if check.status == "fail"]
    warned = [check for check in checks if check.status == "warn"]
    finds = "what it finds is unknown without labels"
    if detection is not None and detection.value is not None:
        finds = f"it finds {detection.say()} of the labelled anomalies"
    if failed:
        others = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        return Verdict(
            status="fail",
            text=f"Do not rely on it yet: {failed[0].name.lower()}: {failed[0].text}{others}.",
        )
    if warned:
        names = ", ".join(check.name.lower() for check in warned)
        return Verdict(status="warn", text=f"Usable with care ({names}): {promise}, and {finds}.")
    return Verdict(status="pass", text=f"In order: {promise}, and {finds}.")


def _gross(power: Power | None) -> list[Estimate]:
    """Of each number the alarms at the largest shift."""
    if power is None:
        return []
    return [
        max((each for each in feature.faults if each.size), key=lambda each: each.size or 0).alarms
        for feature in power.features
        if feature.kind == "numeric"
    ]


def _at_chance(found: Estimate, clean: Estimate) -> bool:
    return found.interval is None or found.interval[0] <= (clean.value or 0.0)


def _list(found: Sequence[Odd]) -> str:
    shown = "; ".join(each.text for each in found[:MOST_NAMED])
    more = len(found) - MOST_NAMED
    return f"{shown}; and {more} more" if more > 0 else shown
