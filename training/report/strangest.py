"""The strangest rows of the file, and what is strange about them: in standard deviations, so that
no value of a row stands in the report.

Shapes: M rows, D features.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.schema import Schema
from hourglass.service.rows.sentences import FARTHEST
from hourglass.training.report.material import Material
from hourglass.training.suspects import Suspect

MOST = 10


class Deviation(msgspec.Struct, frozen=True, kw_only=True):
    """One value of a row, as the others let expect it."""

    feature: str
    sd: float | None  # standard deviations above what was expected; None of what is no number
    missing: bool


class Strange(msgspec.Struct, frozen=True, kw_only=True):
    """One row."""

    row: int  # of the file, from 1 without the header
    times_as_far: float  # from its nearest rows, as the median row is
    share: float  # of the rows that lie as far from theirs
    alike: int  # other suspects that are nearly identical
    p_value: float | None  # by the model, which may have been fitted on it; None: not scored
    alarms: bool
    deviations: tuple[Deviation, ...]
    text: str


class Strangest(msgspec.Struct, frozen=True, kw_only=True):
    """Of the rows that fitted the model, those that may be anomalies."""

    of_rows: int
    listed: int  # in suspects.csv; 0 of a report made anew
    rows: tuple[Strange, ...]


def strangest_of(
    material: Material,
    suspects: Sequence[Suspect],
    rows_MD: NDArray[np.float32],
    *,
    of_rows: int,
    listed: int,
) -> Strangest:
    """The first of these suspects, whose rows are [M, D]."""
    detector, features = material.detector, material.detector.manifest.features
    suspects, rows_MD = suspects[:MOST], rows_MD[:MOST]
    if not len(suspects):
        return Strangest(of_rows=of_rows, listed=listed, rows=())
    scores = detector.score(rows_MD)
    enough_M = Schema.of(detector.manifest).has_enough(rows_MD) & ~np.isnan(scores.score)
    alarm_M = material.threshold.is_anomaly(scores.score) & enough_M
    place = {feature.name: d for d, feature in enumerate(features)}
    conditional = detector.conditional
    expected = None if conditional is None else conditional.expect(rows_MD)
    strange = []
    for m, suspect in enumerate(suspects):
        deviations = []
        for name in suspect.features:
            d = place[name]
            sd = None
            if expected is not None and features[d].kind == "numeric":
                with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                    off = (rows_MD[m, d] - expected.value_ND[m, d]) / expected.sd_ND[m, d]
                sd = float(np.clip(off, -FARTHEST, FARTHEST)) if np.isfinite(off) else None
            missing = bool(np.isnan(rows_MD[m, d]))
            deviations.append(Deviation(feature=name, sd=sd, missing=missing))
        strange.append(
            Strange(
                row=suspect.row,
                times_as_far=suspect.score,
                share=suspect.p_value,
                alike=suspect.alike,
                p_value=float(scores.p_value[m]) if enough_M[m] else None,
                alarms=bool(alarm_M[m]),
                deviations=tuple(deviations),
                text="; ".join(map(_say, deviations)),
            )
        )
    return Strangest(of_rows=of_rows, listed=listed, rows=tuple(strange))


def _say(deviation: Deviation) -> str:
    if deviation.missing:
        return f"{deviation.feature} is missing"
    if deviation.sd is None:
        return f"{deviation.feature} is another value than expected"
    digits = ".1f" if abs(deviation.sd) < 9.95 else ".0f"
    return f"{deviation.feature} {deviation.sd:+{digits}} sd"
