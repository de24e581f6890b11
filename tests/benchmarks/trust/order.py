"""Rows in the file's order: does the second half alarm more often than was certified, and was that
said?

`fast` is fitted on the first half, and the rate at the certified 5 % is that of the second. A set
counts when the rate is over 5 % although the run calls it certified and warns of nothing. Where the
product lowers the promise, the rate is that of the threshold it gives then.
"""

from collections.abc import Sequence

from tests.benchmarks.trust.product import Fit, Refused
from tests.benchmarks.trust.protocol import Case, Figures, Line, Outcome, Protocol, Skipped, say
from tests.benchmarks.trust.rows import in_order, share_above

PRESET = "fast"
ALPHA = 0.05


def measure(case: Case, fit: Fit) -> Figures:
    rows = in_order(case)
    try:
        fitted = fit(rows.fit_ND, preset=PRESET, seed=case.seed, alpha=ALPHA)
    except Refused as reason:
        raise Skipped(str(reason)) from reason
    return {
        "rate": share_above(fitted.threshold(), fitted.scores(rows.fresh_ND)),
        "n": fitted.n,
        "guarantee": fitted.guarantee,
        "warnings": list(fitted.warnings),
    }


def lines(outcomes: Sequence[Outcome]) -> list[Line]:
    over = [outcome for outcome in outcomes if outcome.figures["rate"] > ALPHA]
    silent = [
        outcome
        for outcome in over
        if outcome.figures["guarantee"] == "certified" and not outcome.figures["warnings"]
    ]
    rates = sorted((outcome.figures["rate"] for outcome in silent), reverse=True)
    now = f"{len(silent)} of {len(outcomes)}"
    if rates:
        now += f" ({', '.join(map(say, rates))})"
    certified = sum(outcome.figures["guarantee"] == "certified" for outcome in outcomes)
    return [
        Line(
            "certified 5 %, fit on the first half of a file, rows in the file's order: sets whose"
            " second half alarms over 5 % without a word",
            now,
            "0",
            not silent,
        ),
        Line(
            "the same: sets over 5 %, said or not; sets that were certified",
            f"{len(over)}; {certified} of {len(outcomes)}",
        ),
    ]


PROTOCOL = Protocol(preset=PRESET, source="sets", seeds=1, measure=measure, lines=lines)
