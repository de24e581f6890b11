"""Prometheus: what expressions were at the times of a grid, asked of its HTTP API.

A range is asked in parts: Prometheus refuses more than 11,000 points a series, and a part that
would load too many samples is asked again in halves.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import HourglassError, InvalidSettings
from hourglass.service.rows.label_sets import (
    Joined,
    LabelSet,
    Series,
    Several,
    are_late,
    join,
    name_of,
    selectors,
    shared_labels,
    shared_places,
    written,
)

TOKEN = "PROMETHEUS_TOKEN"  # of the environment  # noqa: S105
MOST_POINTS = 10_000  # of a series, in one request
FEWEST_POINTS = 64  # that are not asked for in halves
TIMEOUT_SECONDS = 60.0
TOO_MUCH = ("too many samples", "timed out")  # what a smaller part may be answered to
LONGEST_SAID = 300

Float64 = NDArray[np.float64]
Booleans = NDArray[np.bool_]


class PrometheusAway(HourglassError):
    """Prometheus does not answer, or not what it should."""


class PrometheusRefused(HourglassError):
    """Prometheus does not take an expression."""


class Grid(NamedTuple):
    """Times that are whole multiples of a step."""

    first: int  # in steps since 1970
    times: int
    step: float  # seconds

    @property
    def time_T(self) -> Float64:
        """Seconds since 1970."""
        return np.round((self.first + np.arange(self.times)) * self.step, 3)


class Asked(NamedTuple):
    """What expressions were: rows of entities, and what is wrong with them."""

    labels: tuple[str, ...]  # which make an entity
    time_T: Float64
    joined: Joined  # without the values that are late
    late_ETD: Booleans  # values that are not there, since samples behind them are too old
    answers: tuple[int, ...]  # series of each expression


class _Data(msgspec.Struct):
    result: list["_Series"]


class _Series(msgspec.Struct):
    metric: dict[str, str]
    values: list[tuple[float, str]] = []


class _Answer(msgspec.Struct):
    status: str
    data: _Data | None = None
    error: str = ""


class _Staying(HTTPRedirectHandler):
    """Follows no redirect: a token is for the address that it was given for, and no other."""

    def redirect_request(self, *_: object) -> None:
        """What redirects is an answer as any other that is none of a Prometheus."""


class Prometheus:
    """A Prometheus, or what has its API. `url` may have a path, `token` is sent as a bearer's."""

    def __init__(
        self, url: str, *, token: str | None = None, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        try:
            parts = urlsplit(url)
            is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # brackets that do not close, a port that is no number
            is_address = False
        if not is_address:
            raise InvalidSettings(
                "--prometheus: expected an address such as http://127.0.0.1:9090, got"
                f" {url.rpartition('@')[2][:200]!r}"
            )
        if parts.username or parts.password:
            raise InvalidSettings(
                "--prometheus: expected an address without a name and a password, which would be"
                f" kept beside the model; a token is read from {TOKEN}"
            )
        self.url = url.rstrip("/")
        self._timeout = timeout_seconds
        token = (token or "").strip()  # a file of a secret often ends with a line's end
        if not (token.isascii() and token.isprintable()):
            raise InvalidSettings(f"{TOKEN}: expected printable ASCII, got something else")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        # proxies of the environment are not used
        self._open = build_opener(ProxyHandler({}), _Staying()).open

    def ask(
        self,
        expressions: Mapping[str, str],
        grid: Grid,
        *,
        late_seconds: float,
        labels: Sequence[str] | None = None,
        on_refusal: Callable[[str, PrometheusRefused], object] | None = None,
    ) -> Asked:
        """What the expressions, by their names, were at all times of a grid; the labels that make
        an entity are found where none are named. PrometheusAway; PrometheusRefused, unless
        `on_refusal` is told: the expression then has no value.
        """
        answers: list[list[Series]] = []
        refused: set[str] = set()
        for name, text in expressions.items():
            try:
                answers.append(self.series(text, grid, name))
            except PrometheusRefused as error:
                if on_refusal is None:
                    raise
                on_refusal(name, error)
                refused.add(name)
                answers.append([])
        names = shared_labels(answers) if labels is None else tuple(labels)
        joined = join(answers, names, grid.times)
        late_ETD = np.zeros(joined.values_ETD.shape, np.bool_)
        found: dict[str, Booleans] = {}
        for place, (name, text) in enumerate(expressions.items()):
            for selector in () if name in refused else selectors(text):
                if selector not in found:
                    found[selector] = self._are_late(
                        selector, grid, name, joined.entities, names, late_seconds
                    )
                late_ETD[:, :, place] |= found[selector]
        late_ETD &= ~np.isnan(joined.values_ETD)
        joined.values_ETD[late_ETD] = np.nan
        return Asked(names, grid.time_T, joined, late_ETD, tuple(map(len, answers)))

    def series(self, expression: str, grid: Grid, name: str = "") -> list[Series]:
        """The series of one expression; `name` is whose it is, for errors."""
        found: dict[tuple[tuple[str, str], ...], Series] = {}
        for start in range(0, grid.times, MOST_POINTS):
            count = min(MOST_POINTS, grid.times - start)
            self._ask_part(expression, grid, start, count, name or expression, found)
        return list(found.values())

    def _are_late(
        self,
        selector: str,
        grid: Grid,
        name: str,
        entities: Sequence[LabelSet],
        labels: Sequence[str],
        late_seconds: float,
    ) -> Booleans:
        """[E, T]: Prometheus takes a sample for the present for five minutes; which of those that a
        selector reads are older than `late_seconds`.
        """
        recent = f"last_over_time({selector}[{round(late_seconds * 1000)}ms])"
        late = self.series(f"{selector} unless {recent}", grid, name)
        fresh: list[Series] = []
        if any(not shared_places(each, labels) for each in late):
            fresh = [
                each for each in self.series(recent, grid, name) if not shared_places(each, labels)
            ]
        return are_late(late, fresh, entities, labels, grid.times)

    def _ask_part(
        self,
        expression: str,
        grid: Grid,
        start: int,
        count: int,
        name: str,
        found: dict[tuple[tuple[str, str], ...], Series],
    ) -> None:
        time_T = grid.time_T
        try:
            data = self._post(
                "query_range",
                {
                    "query": expression,
                    "start": f"{time_T[start]:.3f}",
                    "end": f"{time_T[start + count - 1]:.3f}",
                    "step": f"{grid.step:.15g}",
                },
                name,
            )
        except PrometheusRefused as error:
            if count < 2 * FEWEST_POINTS or not any(each in str(error) for each in TOO_MUCH):
                raise
            half = count // 2
            self._ask_part(expression, grid, start, half, name, found)
            self._ask_part(expression, grid, start + half, count - half, name, found)
            return
        for each in data.result:
            key = tuple(sorted(each.metric.items()))
            if key not in found:
                found[key] = Series(each.metric, np.full(grid.times, np.nan))
            values = np.array([(at, float(value)) for at, value in each.values], np.float64)
            if len(values):
                place_V = np.rint(values[:, 0] / grid.step).astype(np.int64) - grid.first
                found[key].value_T[place_V] = values[:, 1]

    def _post(self, what: str, fields: dict[str, str], name: str) -> _Data:
        request = Request(  # noqa: S310  of http or https alone
            f"{self.url}/api/v1/{what}", urlencode(fields).encode(), self._headers
        )
        try:
            with self._open(request, timeout=self._timeout) as response:
                status, body = response.status, response.read()
        except HTTPError as error:
            with error:
                status, body = error.code, error.read()
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise PrometheusAway(
                f"no answer from {self.url}: {str(reason) or type(reason).__name__}"
            ) from error
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except msgspec.DecodeError as error:
            said = body[:80].decode(errors="replace")
            raise PrometheusAway(
                f"{self.url} answered {status} and not as a Prometheus does: {said!r}"
            ) from error
        if answer.data is not None and answer.status == "success":
            return answer.data
        said = answer.error[:LONGEST_SAID]
        if status in (400, 422) or any(each in said for each in TOO_MUCH):
            raise PrometheusRefused(f"expression {name!r}: {said}")
        raise PrometheusAway(f"{self.url} answered {status}: {said}")


def grid_until(until: float, step: float, count: int) -> Grid:
    """So many times, the last one at or before `until`."""
    return Grid(math.floor(until / step + 1e-9) - count + 1, count, step)


def say_several(found: Several, names: Sequence[str], labels: Sequence[str]) -> str:
    """What is wrong with an expression of which an entity has two series."""
    by = f" by ({', '.join(labels)})" if labels else ""
    return (
        f"expression {names[found.expression]!r} has several values for"
        f" {name_of(labels, found.entity)}, such as those of {written(found.one)} and"
        f" {written(found.other)}: expected one, as max{by} (...) gives"
    )
