"""A model in service looks at new rows before they are fitted: what it finds too strange is left
out, but for its own false alarms.

Of normal rows it flags a share q by itself. So nothing is left out unless more are flagged than
that share, its calibration draw and chance explain; then the strangest of them are, as many as
there are too many, and as many as q stays. Rows that are flagged in great number are another
population, or the model has aged: then nothing is left out, and the report says so.

Where rows are left out, anomalies that it finds less strange are among the rest. So of the rows
that were to fit, those with a p-value of up to UNTAUGHT do not. Calibration keeps its own: what is
left out of the fit alone breaks no promise.

Shapes: N rows.
"""

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom

from hourglass.service.model.calibration import marginal_rank
from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema
from hourglass.training.fingerprints import Fingerprints

LEVEL = 0.02  # p-value up to which a row is flagged
UNTAUGHT = 0.05  # p-value up to which a row does not fit, where some are left out
# of clean tables, at most, lose a few rows: few calibration rows say little of what a model flags,
# so that a stricter test would find no anomalies
BY_CHANCE = 0.2
ANOTHER_POPULATION = 0.2  # of the rows too many: they are not anomalies any more
CHUNK = 4096


class Screened(msgspec.Struct, frozen=True, kw_only=True):
    """What a model in service did with the new rows."""

    version: str  # of the model in service
    rows: int  # it was asked about: those that it was not made of
    flagged: int
    expected: float  # false alarms among as many normal rows
    left_out: int
    reason: str


class Screening(NamedTuple):
    left_out_N: NDArray[np.bool_]
    said: Screened


def screen(
    serving: Detector, rows_ND: NDArray[np.float32], known: Fingerprints | None = None
) -> Screening:
    """Ask a detector about rows [N, D] encoded for it, but those whose fingerprints it has."""
    left_out_N = np.zeros(len(rows_ND), dtype=bool)
    new_N = Schema.of(serving.manifest).has_enough(rows_ND)
    if known:
        new_N &= ~known.holds(rows_ND)
    asked = np.flatnonzero(new_N)
    parts = [
        serving.score(rows_ND[asked[start : start + CHUNK]])
        for start in range(0, len(asked), CHUNK)
    ]
    score_N = np.concatenate([np.empty(0, np.float32), *(part.score for part in parts)])
    p_N = np.concatenate([np.empty(0, np.float32), *(part.p_value for part in parts)])
    n = serving.table.n
    rank = marginal_rank(n, LEVEL)
    flagged = int((p_N <= np.float32(LEVEL * (1 + 1e-6))).sum())
    expected = len(asked) * rank / (n + 1)

    def said(left_out: int, reason: str) -> Screening:
        return Screening(
            left_out_N,
            Screened(
                version=serving.version,
                rows=len(asked),
                flagged=flagged,
                expected=expected,
                left_out=left_out,
                reason=reason,
            ),
        )

    if not len(asked):
        return said(0, "no row is new to it")
    if rank == 0:
        return said(0, f"the {n} calibration rows of the model in service are too few to screen")
    if flagged <= betabinom.ppf(1 - BY_CHANCE, len(asked), rank, n + 1 - rank):
        return said(0, "no more rows are flagged than its own false alarms explain")
    excess = round(flagged - expected)
    if excess > ANOTHER_POPULATION * len(asked):
        return said(
            0,
            "so many rows are flagged that they are another population, or the model in service"
            " has aged",
        )
    left_out_N[asked[np.argsort(-score_N, kind="stable")[:excess]]] = True
    return said(excess, "as many rows as are flagged beyond its own false alarms, the strangest")
