"""What each method asks, one request after the other, without saying how a request is sent.

A generator yields requests, is sent the bodies of their answers, and returns what they mean.
"""

from collections.abc import Generator, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import numpy as np

from hourglass.service.api.alarms import AlarmGroups, AlarmsOfGroup
from hourglass.service.api.drift import ModelDrift
from hourglass.service.api.feedback import FeedbackList
from hourglass.service.api.models import ChangedModel, ModelDetail, Models, Reloaded
from hourglass.service.api.replay import LiveReplay, Replay
from hourglass.service.api.scoring import (
    MAX_CONTRIBUTIONS,
    Contribution,
    EncodeAnswer,
    ExplainAnswer,
    ReconstructAnswer,
    RowsAnswer,
    ScoreAnswer,
)
from hourglass.service.api.streams import Entities, Events, StreamAnswer
from hourglass.service.api.versions import Versions
from hourglass.service.rows.decoding import JSON
from hourglass.service.watch.feedback import Feedback, Verdict

from .answers import ClientError, Problem, Scores, join_scores
from .rows import MOST_ROWS, Part, Rows, is_frame, parts_of

MOST_SWAPS = 3  # that may fall between the parts of one table
T = TypeVar("T")


class Request(NamedTuple):
    """One request."""

    method: str
    path: str  # with its query
    body: bytes | None = None
    content_type: str | None = None
    may_repeat: bool = True  # to send it twice is as good as to send it once
    first: int = 0  # the number of its first row among those given


Steps: TypeAlias = Generator[Request, bytes, T]


class Explanations(NamedTuple):
    """Why rows alarm."""

    scores: Scores
    reason: list[str | None]  # a sentence; None of a row that does not alarm
    features: list[list[Contribution] | None]  # those to blame first; None without a score


def models() -> Steps[Models]:
    """The models in service, and those that could not be brought into it."""
    return (yield from _ask("GET", "/v1/models", Models))


def model(name: str) -> Steps[ModelDetail]:
    """One model: features, budget, guarantee, version."""
    return (yield from _ask("GET", _of(name), ModelDetail))


def score(
    name: str,
    rows: Rows,
    *,
    entity: str | Sequence[str] | None = None,
    time: Sequence[Any] | None = None,
) -> Steps[Scores]:
    """How strange rows are. Of a model of ordered rows `entity` says whose they are, `time` when
    they were; they are sent in one request then, and otherwise in as many as they take.
    """
    answers = yield from _in_parts(name, "score", rows, ScoreAnswer, _beside(entity, time))
    return join_scores(answers)


def explain(
    name: str,
    rows: Rows,
    *,
    top: int = 10,
    entity: str | Sequence[str] | None = None,
    time: Sequence[Any] | None = None,
) -> Steps[Explanations]:
    """Why rows alarm, and the `top` features of each."""
    answers = yield from _in_parts(
        name,
        f"explain?top={top}",
        rows,
        ExplainAnswer,
        _beside(entity, time),
        most=max(1, min(MOST_ROWS, MAX_CONTRIBUTIONS // max(1, top))),
    )
    return Explanations(
        join_scores(list(answers)),
        [reason for answer in answers for reason in answer.reason],
        [features for answer in answers for features in answer.explanations],
    )


def reconstruct(
    name: str,
    rows: Rows,
    *,
    entity: str | Sequence[str] | None = None,
    time: Sequence[Any] | None = None,
) -> Steps[ReconstructAnswer]:
    """Rows without noise and gaps."""
    answers = yield from _in_parts(
        name, "reconstruct", rows, ReconstructAnswer, _beside(entity, time)
    )
    known = [each for answer in answers for each in answer.known_entity or ()]
    return msgspec.structs.replace(
        answers[0],
        rows=[row for answer in answers for row in answer.rows],
        filled=[names for answer in answers for names in answer.filled],
        known_entity=known or msgspec.UNSET,
    )


def encode(name: str, rows: Rows) -> Steps[EncodeAnswer]:
    """The code of each row."""
    answers = yield from _in_parts(name, "encode", rows, EncodeAnswer, {})
    deviations = [each for answer in answers for each in answer.deviations or ()]
    return msgspec.structs.replace(
        answers[0],
        codes=[code for answer in answers for code in answer.codes],
        deviations=deviations or msgspec.UNSET,
    )


def decode(name: str, codes: Rows) -> Steps[RowsAnswer]:
    """The row of each code."""
    body = {"codes": np.asarray(codes, np.float64).tolist()}
    return (yield from _ask("POST", f"{_of(name)}/decode", RowsAnswer, body))


def replay(
    name: str,
    rows: Rows,
    *,
    alphas: Sequence[float] | None = None,
    labels: Sequence[bool | int | None] | None = None,
    rows_per_day: float | None = None,
) -> Steps[Replay]:
    """What other budgets do with these rows."""
    beside = {"alphas": alphas, "labels": labels, "rows_per_day": rows_per_day}
    beside = {key: value for key, value in beside.items() if value is not None}
    return (yield from _whole(name, "replay", rows, Replay, beside))


def live_replay(name: str, *, alphas: Sequence[float] = ()) -> Steps[LiveReplay]:
    """What other budgets would have done with live traffic."""
    query = "?" + urlencode([("alpha", alpha) for alpha in alphas]) if alphas else ""
    return (yield from _ask("GET", f"{_of(name)}/replay{query}", LiveReplay))


def alarms(name: str, *, limit: int = 100) -> Steps[AlarmGroups]:
    """The alarms that were raised, in groups, newest first."""
    return (yield from _ask("GET", f"{_of(name)}/alarms?limit={limit}", AlarmGroups))


def alarms_of(name: str, key: str) -> Steps[AlarmsOfGroup]:
    """The alarms of one group, with their reasons."""
    return (yield from _ask("GET", f"{_of(name)}/alarms/{_quoted(key)}", AlarmsOfGroup))


def drift(name: str) -> Steps[ModelDrift]:
    """What of live rows has moved, since when, and what to do."""
    return (yield from _ask("GET", f"{_of(name)}/drift", ModelDrift))


def say(
    name: str,
    verdict: Verdict,
    *,
    key: str | None = None,
    row: Sequence[Any] | dict[str, Any] | None = None,
    entity: str | None = None,
    until: datetime | None = None,
    note: str | None = None,
) -> Steps[Feedback]:
    """Say what a group of alarms, by its key, or a row was: `real`, `expected`, or `mute` until."""
    said = {"key": key, "row": row, "entity": entity, "until": until, "note": note}
    body = {"verdict": verdict, **{k: value for k, value in said.items() if value is not None}}
    return (yield from _ask("POST", f"{_of(name)}/feedback", Feedback, body, may_repeat=False))


def feedback(name: str, *, limit: int = 100) -> Steps[FeedbackList]:
    """What was said of alarms and rows, last first."""
    return (yield from _ask("GET", f"{_of(name)}/feedback?limit={limit}", FeedbackList))


def stream(name: str, entity: str, rows: Rows, time: Sequence[Any]) -> Steps[StreamAnswer]:
    """The next rows of an entity. The service knows rows that come again, by their time."""
    route = f"streams/{_quoted(entity)}"
    return (yield from _whole(name, route, rows, StreamAnswer, {"time": _times(time)}))


def forget(name: str, entity: str) -> Steps[None]:
    """Forget an entity, whose next rows warm anew."""
    yield Request("DELETE", f"{_of(name)}/streams/{_quoted(entity)}", may_repeat=False)


def streams(name: str) -> Steps[Entities]:
    """The entities, those used last first."""
    return (yield from _ask("GET", f"{_of(name)}/streams", Entities))


def events(
    name: str,
    *,
    since: datetime | str | None = None,
    entity: str | None = None,
    is_open: bool | None = None,
    limit: int = 100,
) -> Steps[Events]:
    """The events of a model's streams, those that began last first."""
    if isinstance(since, datetime):
        since = since.isoformat()
    asked = {
        "since": since,
        "entity": entity,
        "open": None if is_open is None else str(is_open).lower(),
        "limit": limit,
    }
    query = urlencode({key: value for key, value in asked.items() if value is not None})
    return (yield from _ask("GET", f"{_of(name)}/events?{query}", Events))


def set_budget(
    name: str, *, alpha: float | None = None, delta: float | None = None
) -> Steps[ChangedModel]:
    """Change the budget of a running model."""
    body = {key: value for key, value in (("alpha", alpha), ("delta", delta)) if value is not None}
    return (yield from _ask("PATCH", _of(name), ChangedModel, body, may_repeat=False))


def versions(name: str) -> Steps[Versions]:
    """The versions in the model's folder."""
    return (yield from _ask("GET", f"{_of(name)}/versions", Versions))


def promote(name: str, version: str) -> Steps[ModelDetail]:
    """Bring a version into service, forwards or back."""
    body = {"version": version}
    return (yield from _ask("POST", f"{_of(name)}/promote", ModelDetail, body, may_repeat=False))


def reload(name: str) -> Steps[Reloaded]:
    """Look for a new version now."""
    return (yield from _ask("POST", f"{_of(name)}/reload", Reloaded))


A = TypeVar("A", ScoreAnswer, ExplainAnswer, ReconstructAnswer, EncodeAnswer)


def _in_parts(
    name: str,
    route: str,
    rows: Rows,
    kind: type[A],
    beside: dict[str, Any],
    most: int = MOST_ROWS,
) -> Steps[list[A]]:
    """The answers to all parts, by one version and budget: if the model was swapped meanwhile, all
    is asked again.
    """
    if isinstance(rows, Iterator):
        rows = list(rows)
    asks_first = is_frame(rows) or (
        not beside and len(list(islice(parts_of(rows, None, most=most), 2))) > 1
    )
    for _ in range(MOST_SWAPS):
        found = (yield from model(name)) if asks_first else None
        features, whole = None, bool(beside)
        if found is not None:
            features, whole = found.features, whole or found.window is not None
        answers: list[A] = []
        for part in parts_of(rows, features, whole=whole, most=most, beside=beside):
            answers.append((yield from _decoded(_request(name, route, part), kind)))
            if not _alike(answers[-1], found or answers[0]):
                break
        else:
            return answers
    raise _swapped(name)


def _alike(answer: Any, other: Any) -> bool:
    """Whether both are of one version, and by one threshold where they have one."""
    thresholds = {getattr(each, "threshold", None) for each in (answer, other)} - {None}
    return answer.version == other.version and len(thresholds) < 2


def _swapped(name: str) -> ClientError:
    return ClientError(
        f"model {name!r} was swapped {MOST_SWAPS} times while one table was asked; ask again"
    )


def _whole(name: str, route: str, rows: Rows, kind: type[T], beside: dict[str, Any]) -> Steps[T]:
    """The answer to rows in one request."""
    for _ in range(MOST_SWAPS):
        found = (yield from model(name)) if is_frame(rows) else None
        (part,) = parts_of(
            rows, None if found is None else found.features, whole=True, beside=beside
        )
        answer = yield from _decoded(_request(name, route, part), kind)
        if found is None or answer.version == found.version:  # type: ignore[attr-defined]
            return answer
    raise _swapped(name)


def _ask(
    method: str, path: str, kind: type[T], body: object = None, *, may_repeat: bool = True
) -> Steps[T]:
    if body is None:
        return (yield from _decoded(Request(method, path), kind))
    encoded = msgspec.json.encode(body)
    request = Request(method, path, encoded, JSON, may_repeat)
    return (yield from _decoded(request, kind))


def _decoded(request: Request, kind: type[T]) -> Steps[T]:
    answer = yield request
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.DecodeError as error:
        raise ClientError(
            f"{request.path}: the answer is none of this version's service: {error}"
        ) from error


def _request(name: str, route: str, part: Part) -> Request:
    path = f"{_of(name)}/{route}"
    return Request("POST", path, part.body, part.content_type, first=part.first)


def _of(name: str) -> str:
    if "/" in name:  # which the service reads as the route after another model's name
        raise ClientError(f"expected a model's name, got {name!r}")
    return f"/v1/models/{_quoted(name)}"


def _quoted(text: str) -> str:
    if text in ("", ".", ".."):
        raise ClientError(f"expected a name, got {text!r}")
    return quote(text, safe="")


def _beside(entity: str | Sequence[str] | None, time: Sequence[Any] | None) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if entity is not None:
        said["entity"] = entity if isinstance(entity, str) else list(entity)
    if time is not None:
        said["time"] = _times(time)
    return said


def _times(time: Sequence[Any]) -> list[Any]:
    """As bodies have them: ISO 8601, or seconds."""
    values = time.tolist() if isinstance(time, np.ndarray) and time.dtype.kind != "M" else time
    if isinstance(values, np.ndarray):
        return [str(value) for value in values]
    return [each.isoformat() if hasattr(each, "isoformat") else each for each in values]


def problem_of(request: Request, status: int, answer: bytes) -> Problem:
    """What a refusal says."""
    try:
        problem = msgspec.json.decode(answer, type=dict[str, Any])
    except msgspec.DecodeError:
        problem = {"detail": answer[:200].decode(errors="replace").strip()}
    return Problem(status, problem, first=request.first)
