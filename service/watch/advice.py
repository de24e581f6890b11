"""Advice: what drift means to a person: what has moved, since when, and what to do."""

from collections.abc import Sequence

from hourglass.service.rows.times import time_of
from hourglass.service.watch.drift import Found, Report
from hourglass.service.watch.drift_window import What

MOST_NAMED = 3
OF_FEATURES: tuple[What, ...] = ("distribution", "missing", "outside")
_REFIT = "If it is to stay so, fit again on rows since then."


def say(report: Report, *, rows: int, seconds: float, width: int) -> tuple[str, str]:
    """What there is to say of a model with so many features whose windows have so many rows and
    seconds at least, and what to do.
    """
    if not report.windows:
        return _say_beginning(report, rows, seconds)
    last = report.windows[0]
    if not report.found:
        ended = _time_of(last.ended)
        said = f"Nothing has moved: {last.rows:,} rows up to {ended} are as the fit rows were."
        return said, "Nothing."
    drifts = [each for each in report.found if each.is_drift]
    if not drifts:
        said = f"The last window alone found something: {_listed(report.found)}."
        return said, "Wait for the next window: chance finds something in 1 of 100."
    since = _time_of(min(each.since for each in drifts))
    said = f"Since {since}: {_listed(drifts)}."
    return said, _advise(drifts, width)


def _say_beginning(report: Report, rows: int, seconds: float) -> tuple[str, str]:
    if report.open is None:
        return "No row was scored that is not in a window yet.", "Score rows."
    there = f"{report.open.rows:,.0f} of {rows:,} rows, since {_time_of(report.open.began)}"
    said = f"No window is complete yet: {there}; it takes {seconds:,.0f} s at least."
    if report.so_far and report.so_far.findings:
        return f"{said} So far {report.so_far.findings[0].sentence}.", "Wait until it is complete."
    return said, "Wait until it is complete."


def _listed(found: Sequence[Found]) -> str:
    by_share = sorted(found, key=lambda each: -abs(each.finding.observed - each.finding.reference))
    sentences = [each.finding.sentence for each in by_share[:MOST_NAMED]]
    rest = len(found) - MOST_NAMED
    return "; ".join(sentences) + (f"; and {rest} more" if rest > 0 else "")


def _advise(drifts: Sequence[Found], width: int) -> str:
    whats = {each.finding.what for each in drifts}
    names = list(
        dict.fromkeys(each.finding.feature for each in drifts if each.finding.feature is not None)
    )
    named = ", ".join(names[:MOST_NAMED]) + (" and others" if len(names) > MOST_NAMED else "")
    if width > 1 and 2 * len(names) > width:
        return (
            f"{len(names)} of {width} features moved: see whether the rows come from elsewhere, or"
            f" in other units or another mix. {_REFIT}"
        )
    if "missing" in whats:
        return f"See whether what sends {named} still sends it. {_REFIT}"
    if names:
        return f"Look at what sends {named}: its unit, its sensor, its last release. {_REFIT}"
    if "alarms_under" in whats:
        return (
            "Too few alarms are no good news: rows may repeat, or the model no longer sees what is"
            " strange. Score a row that must alarm."
        )
    return (
        "No feature moved by itself: explain some alarms, which may be real; or features go"
        f" together in another way than they did. {_REFIT}"
    )


def _time_of(seconds: float) -> str:
    return f"{time_of(seconds):%Y-%m-%d %H:%M} UTC"
