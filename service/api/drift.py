"""Whether live rows are still like those that a model was made of, said to a person."""

from datetime import datetime

import msgspec
from litestar import Router, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from hourglass.service.api.entrance import NEEDS_READ
from hourglass.service.api.parts import Parts
from hourglass.service.api.problems import problems
from hourglass.service.rows.times import time_of
from hourglass.service.watch.advice import say
from hourglass.service.watch.drift import State
from hourglass.service.watch.drift_window import Answers, Compared, DriftWindow, What


class DriftFinding(msgspec.Struct, frozen=True, kw_only=True):
    """What the last window found."""

    what: What
    feature: str | None  # null of the answers
    since: datetime  # when the first window began of those running that found it
    windows: int  # that found it, running
    drifting: bool  # whether they are two at least; one may be chance
    reference: float  # the share that the sentence names, of fit or calibration rows
    observed: float
    sentence: str


class JudgedWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Live rows of a stretch of time held against the fit rows."""

    began: datetime
    ended: datetime
    rows: int  # that were looked at
    seen: int  # that were scored
    sentences: list[str]  # of what is not as it was
    features: list[Compared]  # the worst
    others: int  # features besides
    largest: float | None  # PSI over critical value, of all features
    answers: Answers


class PastWindow(msgspec.Struct, frozen=True, kw_only=True):
    """The same in short."""

    began: datetime
    ended: datetime
    rows: int
    largest: float | None
    findings: int


class ModelDrift(msgspec.Struct, frozen=True, kw_only=True):
    """What has moved, since when, and what to do."""

    model: str
    version: str
    state: State
    sentence: str
    advice: str
    window_rows: int  # that a window has at least, and seconds
    window_seconds: float
    reference_rows: int  # fit rows
    without_reference: int  # features of which the file holds no reference
    findings: list[DriftFinding]
    window: JudgedWindow | None  # the last one that is complete
    so_far: JudgedWindow | None  # the one that is not
    history: list[PastWindow]  # complete ones, the last ones first


@get("/{name:str}/drift", summary="Tell what has moved", responses=problems(404, 409, 503))
async def show_drift(parts: NamedDependency[Parts], name: FromPath[str]) -> ModelDrift:
    served = await parts.registry.get(name)
    watched, manifest = parts.drift, served.detector.manifest
    report, rows = await watched.report(served), watched.rows_of(served)
    sentence, advice = say(report, rows=rows, seconds=watched.seconds, width=len(manifest.features))
    return ModelDrift(
        model=name,
        version=served.detector.version,
        state=report.state,
        sentence=sentence,
        advice=advice,
        window_rows=rows,
        window_seconds=watched.seconds,
        reference_rows=manifest.rows.fit,
        without_reference=sum(not each.counts for each in manifest.drift),
        findings=[
            DriftFinding(
                what=each.finding.what,
                feature=each.finding.feature,
                since=time_of(each.since),
                windows=each.windows,
                drifting=each.is_drift,
                reference=each.finding.reference,
                observed=each.finding.observed,
                sentence=each.finding.sentence,
            )
            for each in report.found
        ],
        window=_judged(report.windows[0]) if report.windows else None,
        so_far=_judged(report.so_far) if report.so_far else None,
        history=[
            PastWindow(
                began=time_of(each.began),
                ended=time_of(each.ended),
                rows=each.rows,
                largest=each.largest,
                findings=len(each.findings),
            )
            for each in report.windows
        ],
    )


router = Router("/v1/models", route_handlers=[show_drift], opt=NEEDS_READ, tags=["drift"])


def _judged(window: DriftWindow) -> JudgedWindow:
    return JudgedWindow(
        began=time_of(window.began),
        ended=time_of(window.ended),
        rows=window.rows,
        seen=window.seen,
        sentences=[each.sentence for each in window.findings],
        features=window.features,
        others=window.others,
        largest=window.largest,
        answers=window.answers,
    )
