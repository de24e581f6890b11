"""Anomalies among the rows that a model is fitted on, without a label: what becomes of detection,
does the run warn, and does its list of suspects hold them?

`fast`, five seeds, at most 2,000 normal rows with 0, 1, 3 or 5 % of anomalies among them in random
order, on sets that have enough anomalies left to find. Detection and false-alarm rate are at the
default alpha. The list of suspects is cut at 5 % of the rows.

Shapes: N rows, D features.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.adbench.protocol import Float32
from tests.benchmarks.adbench.quality import judge
from tests.benchmarks.trust.product import Fit, Fitted, Refused
from tests.benchmarks.trust.protocol import (
    Case,
    Figures,
    Line,
    Outcome,
    Protocol,
    Skipped,
    at_least,
    over_cases,
    over_sets,
    say,
)
from tests.benchmarks.trust.rows import FEWEST_ANOMALIES, Rows, one_class, share_above

PRESET = "fast"
SHARES = (0.0, 0.01, 0.03, 0.05)
NORMAL = 2000  # at most
SUSPECTS = 0.05  # of the rows, at most


def measure(case: Case, fit: Fit) -> Figures:
    rows = one_class(case)
    normal_ND = rows.fit_ND[:NORMAL]
    most = _anomalies(len(normal_ND), SHARES[-1])
    if len(rows.anomalies_ND) < most + FEWEST_ANOMALIES:
        raise Skipped(f"{len(rows.anomalies_ND)} anomalies, fewer than {most + FEWEST_ANOMALIES}")
    # found are to be the same at every share
    test = rows._replace(anomalies_ND=rows.anomalies_ND[most:])
    figures: dict[str, Any] = {}
    for share in SHARES:
        count = _anomalies(len(normal_ND), share)
        mixed_ND, anomalous_N = _mix(normal_ND, rows.anomalies_ND[:count], case.seed)
        fitted = fit(mixed_ND, preset=PRESET, seed=case.seed)
        figures |= _judged(f"{share:g}", fitted, test)
        figures[f"warned, {share:g}"] = float(bool(fitted.warnings))
        if fitted.suspects is not None:
            suspects = fitted.suspects[: int(SUSPECTS * len(mixed_ND))]
            figures[f"suspected, {share:g}"] = len(suspects) / len(mixed_ND)
            if count:
                figures[f"recall, {share:g}"] = float(anomalous_N[suspects].sum() / count)
        if share:
            try:
                repaired = fit(mixed_ND, preset=PRESET, seed=case.seed, contamination=share)
            except Refused:
                continue
            figures |= _judged(f"{share:g}, repaired", repaired, test)
    return figures


def _anomalies(normal: int, share: float) -> int:
    """How many make the share of all rows; one at least, unless there are to be none."""
    return max(1, round(normal * share / (1 - share))) if share else 0


def _mix(normal_ND: Float32, anomalies_ND: Float32, seed: int) -> tuple[Float32, NDArray[np.bool_]]:
    order = np.random.default_rng(seed).permutation(len(normal_ND) + len(anomalies_ND))
    mixed_ND = np.concatenate([normal_ND, anomalies_ND])[order]
    return mixed_ND, order >= len(normal_ND)


def _judged(name: str, fitted: Fitted, test: Rows) -> dict[str, Any]:
    fresh_N, anomaly_N = fitted.scores(test.fresh_ND), fitted.scores(test.anomalies_ND)
    threshold = fitted.threshold()
    labels_N = np.repeat([False, True], [len(fresh_N), len(anomaly_N)])
    rate = share_above(threshold, fresh_N)
    return {
        f"alpha, {name}": fitted.alpha,
        f"detection, {name}": share_above(threshold, anomaly_N),
        f"AP, {name}": judge(np.concatenate([fresh_N, anomaly_N]), labels_N).average_precision,
        f"rate, {name}": rate,
        f"over, {name}": float(rate > fitted.alpha),
    }


def lines(outcomes: Sequence[Outcome]) -> list[Line]:
    def mean(figure: str, share: float, after: str = "") -> float | None:
        return over_sets(outcomes, f"{figure}, {share:g}{after}")

    def each(figure: str, after: str = "", shares: Sequence[float] = SHARES) -> str:
        return " / ".join(say(mean(figure, share, after)) for share in shares)

    def kept(share: float) -> float | None:
        """Of the clean fit's detection."""
        repaired, clean = mean("detection", share, ", repaired"), mean("detection", 0.0)
        return None if repaired is None or not clean else repaired / clean

    warned = [over_cases(outcomes, f"warned, {share:g}") for share in SHARES]
    shares = " / ".join(f"{share * 100:g}" for share in SHARES)
    most = max(mean("suspected", share) or 0.0 for share in SHARES[1:])
    return [
        Line(
            f"{shares} % of unlabelled anomalies among the training rows: detection at the default"
            " alpha",
            each("detection"),
        ),
        Line("the same: average precision; false-alarm rate", f"{each('AP')}; {each('rate')}"),
        Line(
            "the same: fits with a warning",
            " / ".join(map(say, warned)),
            "a warning from 1 % on",
            min(warned[1:]) >= 0.5 and warned[0] < 0.5,
        ),
        at_least(
            f"the same: suspects listed ({say(most)} of the rows at most), share of the anomalies"
            " among them at 1 / 3 %",
            [mean("recall", 0.01), mean("recall", 0.03)],
            (0.60, 0.45),
        ),
        at_least(
            "the same with --contamination 1 / 5 %: detection, of the clean fit's",
            [kept(0.01), kept(0.05)],
            (0.8, 0.6),
        ),
        Line(
            "the same: false-alarm rate with --contamination 1 / 3 / 5 %; fits over alpha",
            f"{each('rate', ', repaired', SHARES[1:])}; {each('over', ', repaired', SHARES[1:])}",
        ),
    ]


PROTOCOL = Protocol(preset=PRESET, source="sets", seeds=5, measure=measure, lines=lines)
