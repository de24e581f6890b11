"""The streams' file: states of entities, their events and what their severity was, in SQLite.

One process has a file, by SQLite's exclusive lock; in it one thread. A file that is not there is
made when it is first written. Its errors are sqlite3's.

History is kept in bins of BIN_SECONDS: of each the highest severity, and for each feature the
largest contribution over the threshold, as float16.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.model.served import Served
from hourglass.service.serving.database import Kind, changing, connect
from hourglass.service.streams import chronicle
from hourglass.service.streams.chronicle import Chronicle
from hourglass.service.streams.events import Event
from hourglass.service.streams.state import Answers, State

BIN_SECONDS = 60.0
MOST_BINS = 1_000_000  # of all entities; from there on the oldest are forgotten
MOST_RATIO = np.float32(60000)  # of a contribution over the threshold, in float16
_SCHEMA = """
CREATE TABLE IF NOT EXISTS states (
    model TEXT, entity TEXT, last REAL, body BLOB, PRIMARY KEY (model, entity)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bins (
    model TEXT, entity TEXT, start REAL, severity REAL, contributions BLOB,
    PRIMARY KEY (model, entity, start)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS bins_by_start ON bins (start);
"""
# one process alone: its states are those of its memory
STREAMS = Kind(
    "streams' file", "--streams", 0x48475354, 1, _SCHEMA + chronicle.SCHEMA, is_shared=False
)
Key = tuple[str, str]  # model, entity
Float16 = NDArray[np.float16]


class Bin(NamedTuple):
    """What an entity's rows of BIN_SECONDS have come to."""

    severity: float
    ratios_D: Float16  # contribution / threshold


class History(NamedTuple):
    """What rows of one entity have come to: its bins, in order of time."""

    start_B: NDArray[np.float64]
    severity_B: NDArray[np.float32]
    ratios_BD: Float16


class Changes(NamedTuple):
    """What is to be written at once."""

    states: Mapping[Key, tuple[float, bytes]]  # time of the last row, State as msgpack
    gone: Iterable[Key]
    events: Iterable[Event]
    bins: Mapping[tuple[str, str, float], Bin]


class StreamsFile:
    """The file, or a memory where there is no path."""

    def __init__(self, path: Path | None, *, most_bins: int = MOST_BINS) -> None:
        self._path, self._most_bins = path, most_bins
        self._connection: sqlite3.Connection | None = None

    def states(self, most: int) -> tuple[list[tuple[Key, State]], list[Key]]:
        """The last ones, the oldest of them first; and of which entities there are others: older
        ones, and those of before a change of State.
        """
        database = self._open()
        found = database.execute(
            "SELECT model, entity, body FROM states ORDER BY last DESC LIMIT ?", (most,)
        )
        states, others = [], []
        for model, entity, body in reversed(found.fetchall()):
            try:
                states.append(((model, entity), msgspec.msgpack.decode(body, type=State)))
            except msgspec.MsgspecError:
                others.append((model, entity))
        others += database.execute(
            "SELECT model, entity FROM states ORDER BY last DESC LIMIT -1 OFFSET ?", (most,)
        )
        return states, others

    def write(self, changes: Changes) -> None:
        """All of it or nothing."""
        with changing(self._open(to_write=True)) as database:
            database.executemany("DELETE FROM states WHERE model = ? AND entity = ?", changes.gone)
            database.executemany(
                "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?)",
                [(*key, last, body) for key, (last, body) in changes.states.items()],
            )
            Chronicle(database).write(changes.events)
            self._write_bins(database, changes.bins)

    def chronicle(self) -> Chronicle:
        """The events."""
        return Chronicle(self._open())

    def span(self, model: str) -> tuple[float, float] | None:
        """From the first bin of a model to the end of the last."""
        first, last = (
            self._open()
            .execute("SELECT min(start), max(start) FROM bins WHERE model = ?", (model,))
            .fetchone()
        )
        return None if first is None else (first, last + BIN_SECONDS)

    def severities(
        self, model: str, since: float, seconds: float, bins: int
    ) -> dict[str, list[float | None]]:
        """entity -> the highest severity in each of so many bins from `since` on."""
        found: dict[str, list[float | None]] = {}
        for entity, place, severity in self._open().execute(
            "SELECT entity, CAST((start - :since) / :seconds AS INTEGER) AS place, max(severity)"
            " FROM bins WHERE model = :model AND start >= :since AND start < :until"
            " GROUP BY entity, place",
            {
                "model": model,
                "since": since,
                "seconds": seconds,
                "until": since + bins * seconds,
            },
        ):
            found.setdefault(entity, [None] * bins)[min(place, bins - 1)] = severity
        return found

    def bins_of(self, key: Key, since: float, until: float) -> list[tuple[float, Bin]]:
        """The bins of one entity, in order of time, each with its start."""
        found = self._open().execute(
            "SELECT start, severity, contributions FROM bins WHERE model = ? AND entity = ?"
            " AND start >= ? AND start < ? ORDER BY start",
            (*key, since, until),
        )
        return [
            (start, Bin(value, np.frombuffer(ratios, np.float16))) for start, value, ratios in found
        ]

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self, *, to_write: bool = False) -> sqlite3.Connection:
        if self._connection is None:
            if self._path is not None and not to_write and not self._path.exists():
                return connect(None, STREAMS)  # nothing was written, and reading makes no file
            self._connection = connect(self._path, STREAMS)
        return self._connection

    def _write_bins(
        self, database: sqlite3.Connection, bins: Mapping[tuple[str, str, float], Bin]
    ) -> None:
        for key, each in bins.items():
            found = database.execute(
                "SELECT severity, contributions FROM bins WHERE model = ? AND entity = ?"
                " AND start = ?",
                key,
            ).fetchone()
            if found:
                each = larger(each, Bin(found[0], np.frombuffer(found[1], np.float16)))
            database.execute(
                "INSERT OR REPLACE INTO bins VALUES (?, ?, ?, ?, ?)",
                (*key, each.severity, each.ratios_D.tobytes()),
            )
        (count,) = database.execute("SELECT count(*) FROM bins").fetchone()
        if count > self._most_bins:
            database.execute(
                "DELETE FROM bins WHERE (model, entity, start) IN"
                " (SELECT model, entity, start FROM bins ORDER BY start LIMIT ?)",
                (count - self._most_bins + self._most_bins // 100,),
            )


def history_of(served: Served, answers: Answers) -> History | None:
    """Of the new rows that were judged; None where none was."""
    if answers.looked is None:
        return None
    new = answers.answers[answers.repeated :]
    judged = np.flatnonzero(np.isfinite(new["severity"]))
    if not len(judged):
        return None
    start_B, first_B = np.unique(new["time"][judged] // BIN_SECONDS, return_index=True)
    ratios_ND = answers.looked.contributions_ND[judged] / np.float32(served.threshold.score)
    ratios_BD = np.fmax.reduceat(np.minimum(ratios_ND, MOST_RATIO), first_B)
    return History(
        start_B * BIN_SECONDS,
        np.fmax.reduceat(new["severity"][judged], first_B),
        ratios_BD.astype(np.float16),
    )


def gather(history: Iterable[tuple[Key, History]]) -> dict[tuple[str, str, float], Bin]:
    """The bins of all entities, one of each minute."""
    bins: dict[tuple[str, str, float], Bin] = {}
    for key, each in history:
        severities = each.severity_B.tolist()
        for place, start in enumerate(each.start_B.tolist()):
            found, before = Bin(severities[place], each.ratios_BD[place]), bins.get((*key, start))
            bins[(*key, start)] = larger(found, before) if before else found
    return bins


def larger(one: Bin, other: Bin) -> Bin:
    """Both of them as one; where the features are others now, the contributions are the first's."""
    ratios_D = one.ratios_D
    if len(ratios_D) == len(other.ratios_D):
        ratios_D = np.fmax(ratios_D, other.ratios_D)
    return Bin(max(one.severity, other.severity), ratios_D)
