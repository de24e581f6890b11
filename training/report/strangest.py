"""The strangest rows of the file, and what is strange about them: in standard deviations, so that
no value of a row stands in the report. Of a model of windows they are those that it finds strangest
itself, each by the last row of its window, and no two of them share a row.

Shapes: M rows, D features.
"""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.detector import Detector
from hourglass.service.model.schema import Schema
from hourglass.service.rows.sentences import FARTHEST
from hourglass.training.order import Part
from hourglass.training.report.material import Material, Series
from hourglass.training.suspects import Suspect

MOST = 10
MOST_BLAMED = 3  # features of a window
LEAST_SHARE = 0.05  # of the score, that a feature is blamed for
SAID = {
    Part.GAP: "nothing (a gap)",
    Part.FIT: "fitting",
    Part.VALIDATION: "early stopping",
    Part.CALIBRATION: "calibration",
}


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


class Blame(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of a window."""

    feature: str
    share: float  # of the score
    sd: float | None  # of the last row, above what the rows before let expect; None: no number


class StrangeWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One window, by its last row."""

    row: int  # of the file, from 1 without the header
    time: str
    entity: str | None
    is_for: str | None  # what the run did with it; None of a report made anew
    severity: float
    p_value: float
    alarms: bool
    blamed: tuple[Blame, ...]  # those that contribute most first
    text: str


class Strangest(msgspec.Struct, frozen=True, kw_only=True):
    """Of the rows that fitted the model, those that may be anomalies."""

    of_rows: int
    listed: int  # in suspects.csv; 0 of a report made anew
    rows: tuple[Strange, ...]
    of_windows: int | None = None  # None of a model of single rows
    windows: tuple[StrangeWindow, ...] = ()


def strangest_windows(series: Series, detector: Detector) -> NDArray[np.intp]:
    """Which of the clean windows are the strangest and share no row, at most MOST."""
    known_M = np.flatnonzero(~np.isnan(series.score_M))
    chosen: list[int] = []
    for window in known_M[np.argsort(-series.score_M[known_M], kind="stable")].tolist():
        apart = np.abs(series.place_M[chosen] - series.place_M[window])
        if (apart >= detector.window).all():
            chosen.append(window)
        if len(chosen) == MOST:
            break
    return np.array(chosen, dtype=np.intp)


def strangest_of(
    material: Material,
    suspects: Sequence[Suspect],
    rows_MD: NDArray[np.float32],
    *,
    of_rows: int,
    listed: int,
) -> Strangest:
    """The first of these suspects, whose rows are [M, D]; or the strangest windows."""
    detector, features = material.detector, material.detector.manifest.features
    if (series := material.series) is not None:
        return Strangest(
            of_rows=of_rows,
            listed=listed,
            rows=(),
            of_windows=len(series.place_M),
            windows=tuple(_windows(series, material)),
        )
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


def _windows(series: Series, material: Material) -> Iterator[StrangeWindow]:
    detector = material.detector
    place_M = series.place_M[strangest_windows(series, detector)]
    if not len(place_M):
        return
    sample = material.held_out.at(place_M)
    found, rows_MD = sample.explain(), sample.rows_ND
    alarm_M = material.threshold.is_anomaly(found.score)
    sd_MD = np.empty(rows_MD.shape)
    for own, own_M in sample.detectors():
        sd_MD[own_M] = own.expected_sd
    for m, place in enumerate(place_M.tolist()):
        blamed = []
        for d in np.argsort(-found.contributions[m], kind="stable")[:MOST_BLAMED].tolist():
            sd = None
            if not np.isnan(rows_MD[m, d] * sd_MD[m, d]):
                off = float(rows_MD[m, d]) - float(found.reconstruction[m, d])
                sd = float(np.clip(off / sd_MD[m, d], -FARTHEST, FARTHEST))
            share = float(found.contributions[m, d] / found.score[m]) if found.score[m] else 0.0
            name = detector.manifest.features[d].name
            if share >= LEAST_SHARE:
                blamed.append(Blame(feature=name, share=share, sd=sd))
        entity = series.entity_T[place]
        yield StrangeWindow(
            row=int(series.number_T[place]),
            time=series.say_time(float(series.time_T[place])),
            entity=series.entity_names[entity] if series.entity_names else None,
            is_for=None if series.part_T is None else SAID[Part(series.part_T[place])],
            severity=float(found.severity[m]),
            p_value=float(found.p_value[m]),
            alarms=bool(alarm_M[m]),
            blamed=tuple(blamed),
            text="; ".join(map(_say_blame, blamed)),
        )


def _say_blame(blame: Blame) -> str:
    away = "" if blame.sd is None else f" ({_say_sd(blame.sd)})"
    return f"{blame.feature} {blame.share:.0%}{away}"


def _say(deviation: Deviation) -> str:
    if deviation.missing:
        return f"{deviation.feature} is missing"
    if deviation.sd is None:
        return f"{deviation.feature} is another value than expected"
    return f"{deviation.feature} {_say_sd(deviation.sd)}"


def _say_sd(sd: float) -> str:
    return f"{sd:+{'.1f' if abs(sd) < 9.95 else '.0f'}} sd"
