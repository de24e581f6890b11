"""How a challenger fares beside the version in service, said to a person."""

from datetime import datetime
from typing import Literal

import msgspec
from litestar import Router, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from hourglass.service.api.entrance import NEEDS_READ
from hourglass.service.api.parts import Parts
from hourglass.service.api.problems import problems
from hourglass.service.model.intervals import interval_of
from hourglass.service.model.served import Served
from hourglass.service.rows.times import time_of
from hourglass.service.watch.shadow import JUDGED, Compared

TELLING = 20  # alarms, expected or met, from which on their number tells something
State = Literal["none", "scored", "failed", "off"]


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two versions, on the rows that both were asked about."""

    version: str
    fitted_at: datetime | None  # null where it cannot be read
    alpha: float | None
    promised: float | None  # share of normal rows that its budget lets alarm
    alarms: int
    alarm_rate: float | None  # null without rows
    # of the rate, with 95 % confidence for rows that do not depend on each other
    interval: tuple[float, float]


class ModelChallenger(msgspec.Struct, frozen=True, kw_only=True):
    """What both versions said of the same rows."""

    model: str
    state: State
    sentence: str
    advice: str
    share: float  # of the rows that the challenger is asked about
    since: datetime | None
    rows: int  # that both judged
    both: int  # alarmed at by both
    neither: int
    agreement: float | None  # share of the rows of which both say the same
    unjudged: int  # that the challenger alone cannot judge
    dropped: int  # that it was not asked about, since there was no time
    champion: Contender | None
    challenger: Contender | None


@get("/{name:str}/challenger", summary="Compare with a challenger", responses=problems(404, 503))
async def show_challenger(parts: NamedDependency[Parts], name: FromPath[str]) -> ModelChallenger:
    served = await parts.registry.get(name)
    found = None if served.is_exhibit else await parts.shadow.report(served)
    counts = found.counts if found else {}
    both, neither = counts.get("both", 0), counts.get("neither", 0)
    rows = sum(counts.get(outcome, 0) for outcome in JUDGED)
    champion = challenger = None
    if found:
        champion = _contender(served.detector.version, served, counts["champion"] + both, rows)
        own = found.challenger
        challenger = _contender(own.version, own.served, counts["challenger"] + both, rows)
    state = _state(found, parts.shadow.share)
    sentence, advice = _say(name, state, found, champion, challenger, rows)
    return ModelChallenger(
        model=name,
        state=state,
        sentence=sentence,
        advice=advice,
        share=parts.shadow.share,
        since=time_of(found.since) if found else None,
        rows=rows,
        both=both,
        neither=neither,
        agreement=(both + neither) / rows if rows else None,
        unjudged=counts.get("unjudged", 0),
        dropped=counts.get("dropped", 0),
        champion=champion,
        challenger=challenger,
    )


router = Router("/v1/models", route_handlers=[show_challenger], opt=NEEDS_READ, tags=["models"])


def _contender(version: str, served: Served | None, alarms: int, rows: int) -> Contender:
    return Contender(
        version=version,
        fitted_at=time_of(served.fitted_at) if served else None,
        alpha=served.threshold.alpha if served else None,
        promised=served.threshold.expected_false_alarm_rate if served else None,
        alarms=alarms,
        alarm_rate=alarms / rows if rows else None,
        interval=interval_of(alarms, rows),
    )


def _state(found: Compared | None, share: float) -> State:
    if found is None:
        return "none"
    if found.challenger.served is None or found.is_failing:
        return "failed"
    return "scored" if share else "off"


def _say(
    name: str,
    state: State,
    found: Compared | None,
    champion: Contender | None,
    challenger: Contender | None,
    rows: int,
) -> tuple[str, str]:
    if found is None or champion is None or challenger is None:
        return (
            f"{name} has no challenger.",
            f"hourglass-train retrain {name} DATA --shadow fits one, hourglass-train challenge"
            f" {name} VERSION names a version that is there.",
        )
    version = challenger.version[:12]
    if state == "failed":
        problem = found.challenger.problem
        why = problem.sentence if problem else "it failed at the last rows, as the log says"
        return (
            f"The challenger {version or 'of ' + name} cannot be scored: {why}.",
            f"hourglass-train challenge {name} VERSION names another one, --clear none.",
        )
    if state == "off":
        return f"The challenger {version} is not scored.", "--shadow-share says on how many rows."
    if not rows:
        return f"No row has come since {version} is the challenger.", "Score rows."
    agreed = found.counts["both"] + found.counts["neither"]
    sentence = (
        f"Of {rows:,} rows {champion.alarms / rows:.2%} alarm with the version in service, and"
        f" {challenger.alarms / rows:.2%} would with the challenger {version}; of"
        f" {agreed / rows:.2%} both say the same."
    )
    return sentence, _advise(name, champion, challenger, rows)


def _advise(name: str, champion: Contender, challenger: Contender, rows: int) -> str:
    assert champion.promised is not None
    assert challenger.promised is not None
    expected = challenger.promised * rows
    if expected < TELLING and challenger.alarms < TELLING:
        return (
            f"Wait: of so few rows the challenger's budget lets {expected:.1f} alarm, and"
            f" {TELLING} tell something."
        )
    is_over = challenger.interval[0] > challenger.promised
    was_over = champion.interval[0] > champion.promised
    if is_over and was_over:
        return (
            "Both alarm more often than their budgets let normal rows: explain some alarms, which"
            " may be real; else normal has moved since both were fitted."
        )
    if is_over:
        return (
            "The challenger alarms more often than its budget lets normal rows, the version in"
            " service does not: look at the rows that it was fitted on before it is promoted."
        )
    if challenger.interval[1] < challenger.promised:
        return (
            "The challenger alarms less often than normal rows would let it: it may not see what is"
            " strange. Score a row that must alarm before it is promoted."
        )
    return (
        f"Nothing speaks against it: hourglass-train promote {name} {challenger.version[:12]}"
        " brings it into service."
    )
