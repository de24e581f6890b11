"""A file's rows told to a service as if they came now, at the speed of their times or faster; what
opens and closes meanwhile is told.

Shapes: N rows of a file in order of time.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import HourglassError, InvalidSettings, InvalidTable
from hourglass.service.model.artifact import Feature
from hourglass.service.rows.dialect import USUAL, Dialect
from hourglass.service.rows.tables import encode_table, read_rows
from hourglass.service.rows.times import to_seconds

if TYPE_CHECKING:
    import polars as pl

MOST_ROWS = 512  # of all entities, told together
PATIENCE_SECONDS = 20.0  # for a service that is about to start
TICK_SECONDS = 0.05  # that rows wait for each other at the most
TIMEOUT_SECONDS = 30.0

Float64 = NDArray[np.float64]


class ServiceRefused(HourglassError):
    """The service cannot be reached, or does not take what it is told."""


class ServiceAway(ServiceRefused):
    """The service does not answer, or not now."""


class Change(msgspec.Struct, frozen=True):
    """An event that opened or closed, as the service tells of it."""

    entity: str
    start: datetime
    peak: datetime
    end: datetime | None
    open: bool
    rows: int
    severity: float | None
    features: list[str]
    sentence: str | None


class _Answer(msgspec.Struct, frozen=True):
    changes: list[Change]


class _Model(msgspec.Struct, frozen=True):
    features: list[Feature]


class Told(NamedTuple):
    """What came of it all."""

    rows: int
    entities: int
    opened: int
    closed: int
    seconds: float


def stream_file(
    data: Path,
    *,
    url: str,
    name: str,
    time: str,
    entity: str | None,
    speed: float,
    afresh: bool = False,
    key: str | None = None,
    dialect: Dialect = USUAL,
    tell: Callable[[Change], None],
) -> Told:
    """Tell the service of the rows, and the caller of each event that opens or closes.

    `speed` is how much faster than their own times rows come; 0 does not wait at all. `afresh`
    makes the service forget what it knows of these entities before. `key` is sent with every
    request.
    """
    with closing(Service(url, key)) as service:
        features = service.features(name)
        frame = read_rows(data, features, dialect, time=time, entity=entity)
        time_N = to_seconds(frame[time])
        order_N = np.argsort(time_N, kind="stable")
        time_N, frame = time_N[order_N], frame[order_N]
        entities = [data.stem] * frame.height if entity is None else _names(frame[entity])
        rows = _rows(frame, features, dialect)
        if afresh:
            for each in dict.fromkeys(entities):
                service.forget(name, each)
        opened = closed = 0
        started = monotonic()
        for part in _due(time_N, speed):
            for each in dict.fromkeys(entities[part]):
                own = [i for i in range(part.start, part.stop) if entities[i] == each]
                body = {"time": time_N[own].tolist(), "rows": [rows[i] for i in own]}
                for change in service.tell(name, each, body):
                    opened += change.open
                    closed += not change.open
                    tell(change)
        return Told(frame.height, len(set(entities)), opened, closed, monotonic() - started)


class Service:
    """A service that is asked over one connection."""

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError as error:
            raise InvalidSettings(f"--url: {url!r} has no port that could be one") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidSettings(
                f"--url: expected an address such as http://127.0.0.1:8000, got {url!r}"
            )
        made = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = made(parts.hostname, port, timeout=TIMEOUT_SECONDS)
        self._url, self._prefix = url, parts.path.rstrip("/")
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    def features(self, name: str) -> list[Feature]:
        """Of a model; waits for a service that is about to start."""
        until = monotonic() + PATIENCE_SECONDS
        path = f"/v1/models/{quote(name, safe='')}"
        while True:
            try:
                return msgspec.json.decode(self.ask("GET", path), type=_Model).features
            except ServiceRefused as error:
                if not isinstance(error.__cause__, ConnectionError) or monotonic() > until:
                    raise
                sleep(0.2)

    def tell(self, name: str, entity: str, body: dict[str, Any]) -> list[Change]:
        """The next rows of an entity; what they opened and closed."""
        path = f"/v1/models/{quote(name, safe='')}/streams/{quote(entity, safe='')}"
        answer = self.ask("POST", path, msgspec.json.encode(body))
        return msgspec.json.decode(answer, type=_Answer).changes

    def forget(self, name: str, entity: str) -> None:
        path = f"/v1/models/{quote(name, safe='')}/streams/{quote(entity, safe='')}"
        self.ask("DELETE", path)

    def close(self) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of an answer; ServiceAway, ServiceRefused."""
        headers = self._headers
        if body is not None:
            headers = {**headers, "content-type": "application/json"}
        try:
            self._connection.request(method, self._prefix + path, body, headers)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, HTTPException) as error:
            self._connection.close()
            reason = str(error) or type(error).__name__
            raise ServiceAway(f"no answer from {self._url}: {reason}") from error
        if response.status >= 400 and not (method == "DELETE" and response.status == 404):
            hint = "; --afresh makes it forget this entity" if response.status == 409 else ""
            refused = ServiceAway if response.status >= 500 else ServiceRefused
            raise refused(f"{path} answered {response.status}: {_detail(answer)}{hint}")
        return answer


def say(change: Change) -> str:
    """One line for a person."""
    severity = "" if change.severity is None else f", severity {change.severity:.1f}"
    if change.open:
        why = change.sentence or ", ".join(change.features) or "no reason is known"
        return f"{_clock(change.start)}  {change.entity}: event opened{severity}: {why}"
    end = "" if change.end is None else f" at {_clock(change.end)}"
    return (
        f"{_clock(change.start)}  {change.entity}: event closed{end}, {change.rows}"
        f" row{'s'[: change.rows > 1]}, peak"
        f" {_clock(change.peak)}{severity}: {', '.join(change.features) or 'no feature'}"
    )


def _clock(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _due(time_N: Float64, speed: float) -> Iterator[slice]:
    """Rows that are due, in order, as soon as they are."""
    started, done = monotonic(), 0
    while done < len(time_N):
        passed = (monotonic() - started) * speed if speed else math.inf
        stop = int(np.searchsorted(time_N, time_N[0] + passed, side="right"))
        if stop > done:
            part = slice(done, min(stop, done + MOST_ROWS))
            yield part
            done = part.stop
        else:
            sleep(TICK_SECONDS)


def _rows(frame: "pl.DataFrame", features: list[Feature], dialect: Dialect) -> list[dict[str, Any]]:
    """As JSON has them, by the features' names; what is missing is left out."""
    columns: dict[str, list[Any]] = {}
    numbers = [each for each in features if each.kind != "categorical"]
    encoded_ND = encode_table(frame, tuple(numbers), dialect)
    for feature, column_N in zip(numbers, encoded_ND.T, strict=True):
        made: Callable[[float], Any] = bool if feature.kind == "boolean" else float
        columns[feature.name] = [None if v != v else made(v) for v in column_N.tolist()]
    for feature in features:
        if feature.kind == "categorical":
            if feature.name not in frame.columns:
                raise InvalidTable(f"there is no column {feature.name!r}, a feature of the model")
            columns[feature.name] = _cells(frame[feature.name])
    return [
        {name: values[i] for name, values in columns.items() if values[i] is not None}
        for i in range(frame.height)
    ]


def _cells(column: "pl.Series") -> list[str | None]:
    import polars as pl

    return column.cast(pl.String).to_list()


def _names(column: "pl.Series") -> list[str]:
    """Of the entities; InvalidTable where one is missing."""
    cells = _cells(column)
    if None in cells:
        raise InvalidTable(
            f"column {column.name!r}, row {cells.index(None) + 1}: expected an entity, got nothing"
        )
    return [each for each in cells if each is not None]


def _detail(answer: bytes) -> str:
    try:
        problem = msgspec.json.decode(answer)
        return str(problem.get("detail") or problem.get("title"))
    except (msgspec.DecodeError, AttributeError):
        return answer[:200].decode(errors="replace")
