"""Real series in time order: how often do later normal rows alarm, and does the run say so?

SKAB: fit the first 400 rows of each valve's file, as its authors do; the rest is later. TEP: fit
the normal training run; later is another normal run. ASD: fit a server's training file; later is
its test file, at 1 %. Columns of time and labels are no features, and rows marked anomalous are not
counted.

Shapes: N rows, D features.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from tests.benchmarks.trust.product import Fit, Floats
from tests.benchmarks.trust.protocol import Case, Figures, Line, Outcome, Protocol, Skipped, say

PRESET = "balanced"
SKAB_FIT_ROWS = 400
NOT_FEATURES = ("datetime", "time", "anomaly", "changepoint")
ALPHAS = {"skab": 0.05, "tep": 0.05, "asd": 0.01}


class Series(NamedTuple):
    fit_ND: Floats
    later_ND: Floats
    anomalous_N: NDArray[np.bool_]  # of the later rows


def read(path: Path) -> Series:
    """Skipped where the file is another's second half, or no series with labels."""
    kind = path.stem.partition("_")[0]
    if kind == "skab" and "valve" in path.stem:
        frame = pl.read_csv(path, separator=";")
        first, later = frame[:SKAB_FIT_ROWS], frame[SKAB_FIT_ROWS:]
    elif path.stem == "tep_train":
        first, later = pl.read_csv(path), pl.read_csv(path.with_name("tep_d00.csv"))
    elif kind == "asd" and path.stem.endswith("_train"):
        test = path.with_name(path.name.replace("_train", "_test"))
        first, later = pl.read_csv(path), pl.read_csv(test)
    else:
        raise Skipped("fitted or judged with another file, or without a label")
    columns = [column for column in first.columns if column not in NOT_FEATURES]
    anomalous = later["anomaly"].to_numpy() if "anomaly" in later.columns else np.zeros(len(later))
    return Series(
        first.select(columns).cast(pl.Float64).to_numpy(),
        later.select(columns).cast(pl.Float64).to_numpy(),
        anomalous != 0,
    )


def measure(case: Case, fit: Fit) -> Figures:
    series = read(Path(case.path))
    kind = case.set.partition("_")[0]
    alpha = ALPHAS[kind]
    fitted = fit(series.fit_ND, preset=PRESET, seed=case.seed, alpha=alpha)
    score_N = fitted.scores(series.later_ND)
    alarmed_N = score_N > fitted.threshold()
    both = 0 < series.anomalous_N.sum() < len(score_N)
    return {
        "kind": kind,
        "alpha": alpha,
        "n": fitted.n,
        "guarantee": fitted.guarantee,
        "warnings": list(fitted.warnings),
        "rate": float(alarmed_N[~series.anomalous_N].mean()),
        "detection": float(alarmed_N[series.anomalous_N].mean()) if both else None,
        "AUROC": float(roc_auc_score(series.anomalous_N, score_N)) if both else None,
    }


def lines(outcomes: Sequence[Outcome]) -> list[Line]:
    return [
        _line(kind, own)
        for kind in ALPHAS
        if (own := [outcome for outcome in outcomes if outcome.figures["kind"] == kind])
    ]


def _line(kind: str, outcomes: Sequence[Outcome]) -> Line:
    alpha = ALPHAS[kind]
    rates = [outcome.figures["rate"] for outcome in outcomes]
    silent = [
        outcome
        for outcome in outcomes
        if outcome.figures["rate"] > alpha
        and outcome.figures["guarantee"] == "certified"
        and not outcome.figures["warnings"]
    ]
    return Line(
        f"{kind.upper()}, {len(outcomes)} series in time order, certified {alpha:.0%}: alarms on"
        " later normal rows; over alpha without a word",
        f"{' / '.join(map(say, rates))}; {len(silent)} of {len(outcomes)}",
        "0 without a word",
        not silent,
    )


PROTOCOL = Protocol(preset=PRESET, source="series", seeds=1, measure=measure, lines=lines)
