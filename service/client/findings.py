"""What a service answered, as an agent is told of it.

An answer begins with `found`, a sentence in our own words, and gives its numbers. Whatever others
wrote, names of models, features and entities, categories, and sentences that quote them, stands
below keys named `data` alone, escaped and cut, so that nobody who can name a feature or send a row
can speak to the agent in our voice.
"""

from typing import Any

import numpy as np
from msgspec import UNSET

from hourglass.service.api.alarms import AlarmGroups
from hourglass.service.api.drift import ModelDrift
from hourglass.service.api.models import ModelDetail, Models, ModelSummary
from hourglass.service.api.replay import LiveReplay, Replay
from hourglass.service.api.scoring import Contribution
from hourglass.service.model.replay import Outcome, RowsOutcome

from .answers import Scores
from .calls import Explanations
from .quoting import cell, name, sentence, short, when, without_unset

MOST_LISTED = 200  # rows, groups or features in an answer, and alarms of all its budgets
MOST_CATEGORIES = 20  # of a feature, and features of a group


def of_models(found: Models) -> dict[str, Any]:
    """The models in service."""
    said = f"{len(found.models)} model{'s'[: len(found.models) != 1]} in service"
    if found.broken:
        said += f", {len(found.broken)} that cannot be brought into it"
    return {
        "found": f"{said}.",
        "models": [_model(each) for each in found.models[:MOST_LISTED]],
        "others": max(0, len(found.models) - MOST_LISTED),
        "broken": [
            {
                "fault": each.fault,
                "data": {"model": name(each.name), "error": sentence(each.last_error)},
            }
            for each in found.broken[:MOST_LISTED]
        ],
        "waiting": [{"data": {"model": name(each)}} for each in found.waiting[:MOST_LISTED]],
    }


def of_model(detail: ModelDetail) -> dict[str, Any]:
    """One model with its features."""
    of_rows = "single rows"
    if detail.window is not None:
        of_rows = f"rows in time order, {detail.window.rows} at a time"
    return {
        "found": f"This model judges {of_rows} of {detail.feature_count} features, with a"
        f" false-alarm budget of {detail.alpha:.3g}.",
        "models": [_model(detail)],
        "features": [
            {
                "kind": each.kind,
                "minimum": short(each.minimum),
                "maximum": short(each.maximum),
                "missing_rate": short(each.missing_rate),
                "other_categories": max(0, len(each.categories) - MOST_CATEGORIES),
                "data": {
                    "feature": name(each.name),
                    "unit": None if each.unit is None else name(each.unit),
                    "categories": [name(text) for text in each.categories[:MOST_CATEGORIES]],
                },
            }
            for each in detail.features[:MOST_LISTED]
        ],
        "others": max(0, len(detail.features) - MOST_LISTED),
    }


def _model(found: ModelSummary) -> dict[str, Any]:
    return {
        "version": found.version,
        "alpha": found.alpha,
        "threshold": short(found.threshold),
        "guarantee": found.guarantee,
        "expected_false_alarm_rate": short(found.expected_false_alarm_rate),
        "features": found.feature_count,
        "fitted_at": when(found.fitted_at),
        "ready": found.ready,
        "data": {
            "model": name(found.name),
            "variant": name(found.variant),  # whoever made the file wrote it
            "guarantee_reason": sentence(found.guarantee_reason),
            "error": _sentence_or_none(found.last_error),
            "warning": _sentence_or_none(found.warning),
        },
    }


def of_rows(why: Explanations, *, most: int, with_features: bool) -> dict[str, Any]:
    """How strange rows are and why, the strangest first."""
    listed = [(n, _row(why, n)) for n in _strangest(why.scores, most)]
    if with_features:
        listed = [
            (n, {**row, "features": [_feature(each) for each in why.features[n] or ()]})
            for n, row in listed
        ]
    return {
        **_facts(why.scores),
        "rows": [row for _, row in listed],
        "others": max(0, len(why.scores) - most),
    }


def _facts(scores: Scores) -> dict[str, Any]:
    alarms, rows = int(scores.is_anomaly.sum()), len(scores)
    unjudged = int(np.isnan(scores.score).sum())
    said = f"{alarms} of {rows} row{'s'[: rows != 1]} alarm{'s'[: alarms == 1]}"
    said += f" at a false-alarm budget of {scores.alpha:.3g}"
    if unjudged < rows:
        (worst,) = _strangest(scores, 1)
        said += f"; the strangest is row {worst}, of severity {scores.severity[worst]:.3g}"
    if unjudged:
        said += f"; {unjudged} cannot be judged"
    return {
        "found": f"{said}.",
        "alarms": alarms,
        "judged": rows - unjudged,
        "alpha": scores.alpha,
        "threshold": short(scores.threshold),
        "guarantee": scores.guarantee,
        "version": scores.version,
        "data": {
            "model": name(scores.model),
            "warning": _sentence_or_none(scores.warning),
        },
    }


def _strangest(scores: Scores, most: int) -> list[int]:
    """Rows, those that cannot be judged last."""
    order: list[int] = np.argsort(-np.nan_to_num(scores.ratio, nan=-1.0), kind="stable").tolist()
    return order[:most]


def _row(why: Explanations, n: int) -> dict[str, Any]:
    scores, reason = why.scores, why.reason[n]
    return {
        "row": n,
        "is_anomaly": None if np.isnan(scores.score[n]) else bool(scores.is_anomaly[n]),
        "score": short(scores.score[n]),
        "ratio": short(scores.ratio[n]),
        "p_value": short(scores.p_value[n]),
        "severity": short(scores.severity[n]),
        "extrapolated": bool(scores.extrapolated[n]),
        "data": {"reason": _sentence_or_none(reason)},
    }


def _feature(found: Contribution) -> dict[str, Any]:
    numbers = {
        "share": short(found.share),
        "expected_sd": short(found.expected_sd),
        "deviation": short(found.deviation),
        "direction": found.direction,
        "probability": short(found.probability),
        "blamed": found.blamed,
    }
    data = {
        "feature": name(found.feature),
        "actual": cell(found.actual),
        "expected": cell(found.expected),
        "unit": UNSET if found.unit is UNSET else name(found.unit),
    }
    return {**without_unset(numbers), "data": without_unset(data)}


def of_replay(found: Replay) -> dict[str, Any]:
    """What budgets do with rows that were sent."""
    return _of_budgets(found, "rows that you sent")


def of_live_replay(found: LiveReplay) -> dict[str, Any]:
    """What budgets would have done with live traffic."""
    return {**_of_budgets(found, "rows of live traffic"), "since": when(found.since)}


def _of_budgets(found: Replay | LiveReplay, rows: str) -> dict[str, Any]:
    most = max(1, MOST_LISTED // max(1, len(found.alphas)))
    budgets = [_budget(each, most) for each in found.alphas]
    said = f"{len(budgets)} budget{'s'[: len(budgets) != 1]} held against {found.rows} {rows}"
    for each in found.alphas:
        if each.in_force:
            said += f"; that in force, {each.alpha:.3g}, alarms {each.alarms} times"
    return {
        "found": f"{said}.",
        "rows": found.rows,
        "version": found.version,
        "budgets": budgets,
        "data": {"model": name(found.model)},
    }


def _budget(outcome: Outcome, most: int) -> dict[str, Any]:
    numbers = {
        "alpha": outcome.alpha,
        "in_force": outcome.in_force,
        "threshold": short(outcome.threshold),
        "severity_limit": short(outcome.severity_limit),
        "alarms": outcome.alarms,
        "alarm_rate": short(outcome.alarm_rate),
        "interval": [short(bound) for bound in outcome.interval],
        "alarms_per_day": short(outcome.alarms_per_day),
    }
    if isinstance(outcome, RowsOutcome):
        numbers |= {
            "alarm_rows": outcome.alarm_rows[:most],
            "other_alarm_rows": max(0, len(outcome.alarm_rows) - most),
            "precision": short(outcome.precision),
            "recall": short(outcome.recall),
            "false_alarm_rate": short(outcome.false_alarm_rate),
        }
    return without_unset(numbers)


def of_drift(found: ModelDrift) -> dict[str, Any]:
    """Whether live rows are still as those of the fit."""
    said = f"Drift is {found.state.replace('_', ' ')}"
    if found.window is not None:
        said += (
            f": {len(found.findings)} finding{'s'[: len(found.findings) != 1]} in the last window,"
            f" of {found.window.rows} rows"
        )
    return {
        "found": f"{said}.",
        "state": found.state,
        "version": found.version,
        "window_rows": found.window_rows,
        "window_seconds": found.window_seconds,
        "reference_rows": found.reference_rows,
        "windows": len(found.history),
        "findings": [
            {
                "what": each.what,
                "since": when(each.since),
                "windows": each.windows,
                "drifting": each.drifting,
                "reference": short(each.reference),
                "observed": short(each.observed),
                "data": {
                    "feature": None if each.feature is None else name(each.feature),
                    "sentence": sentence(each.sentence),
                },
            }
            for each in found.findings[:MOST_LISTED]
        ],
        "others": max(0, len(found.findings) - MOST_LISTED),
        "data": {
            "model": name(found.model),
            "sentence": sentence(found.sentence),
            "advice": sentence(found.advice),
        },
    }


def of_alarms(found: AlarmGroups) -> dict[str, Any]:
    """The groups of alarms that live traffic raised, newest first."""
    return {
        "found": f"{found.alarms} of {found.rows_scored} rows alarmed since"
        f" {when(found.since)}; of their groups the newest {len(found.groups)} are listed.",
        "since": when(found.since),
        "rows_scored": found.rows_scored,
        "alarms": found.alarms,
        "muted": found.muted,
        "groups": [
            {
                "key": each.key,
                "count": each.count,
                "first": when(each.first),
                "last": when(each.last),
                "severity": short(each.worst.severity),
                "p_value": short(each.worst.p_value),
                "verdict": each.verdict,
                "muted_until": None if each.muted_until is None else when(each.muted_until),
                "data": {
                    "entity": None if each.entity is None else name(each.entity),
                    "features": [name(feature) for feature in each.features[:MOST_CATEGORIES]],
                    "sentence": sentence(each.sentence),
                    "worst": _sentence_or_none(each.worst.sentence),
                },
            }
            for each in found.groups
        ],
        "data": {"model": name(found.model)},
    }


def _sentence_or_none(text: str | None) -> str | None:
    return None if text is None else sentence(text)
