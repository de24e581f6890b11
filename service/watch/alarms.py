"""Alarms: what is kept of them, in SQLite, and how they are grouped.

Alarms of one model and entity for which the same features are to blame, less than GAP_SECONDS after
each other, are one group: a storm is one line. Its key is made of all that and of the first one's
time, and stays what it is however long the storm goes on. The counts are of all alarms; of the
alarms themselves the last ones are kept, GROUP_ALARMS of each group and the worst, so that a storm
drives no other group out.

The file is one that several processes write. Without a file the same lies in memory.
"""

import hashlib
import json
import math
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from hourglass.service.errors import InvalidSettings, UnknownAlarms
from hourglass.service.rows.times import time_of
from hourglass.service.serving import database as databases
from hourglass.service.serving.database import Kind
from hourglass.service.watch import feedback
from hourglass.service.watch.feedback import Feedback, Verdict, Word

GAP_SECONDS = 300.0
GROUP_ALARMS = 100
MEMORY_ALARMS = 1000  # kept where there is no file
ORDINARY_ROWS = 200  # of each model
PRUNE_SECONDS = 60.0  # between looks for what is too old
DAY_SECONDS = 86400.0
MOST_NAMED = 3  # features, of alarms without a sentence
_SCHEMA = """
CREATE TABLE IF NOT EXISTS began (time REAL NOT NULL);
CREATE TABLE IF NOT EXISTS models (
    model TEXT PRIMARY KEY, rows INTEGER NOT NULL, alarms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS groups (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, model TEXT NOT NULL, entity TEXT,
    features TEXT NOT NULL, first REAL NOT NULL, last REAL NOT NULL, count INTEGER NOT NULL,
    worst INTEGER NOT NULL, severity REAL NOT NULL, p_value REAL NOT NULL, time REAL NOT NULL,
    sentence TEXT);
CREATE INDEX IF NOT EXISTS groups_by_time ON groups (model, last);
CREATE TABLE IF NOT EXISTS alarms (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, time REAL NOT NULL,
    version TEXT NOT NULL, score REAL NOT NULL, severity REAL NOT NULL, p_value REAL NOT NULL,
    row TEXT, reasons TEXT, sentence TEXT);
CREATE INDEX IF NOT EXISTS alarms_by_key ON alarms (key, id);
CREATE INDEX IF NOT EXISTS alarms_by_time ON alarms (time);
CREATE TABLE IF NOT EXISTS ordinary (
    model TEXT NOT NULL, slot INTEGER NOT NULL, time REAL NOT NULL, version TEXT NOT NULL,
    severity REAL NOT NULL, p_value REAL NOT NULL, row TEXT NOT NULL, PRIMARY KEY (model, slot));
"""
JOURNAL = Kind("journal", "--journal", 0x48474C53, 1, _SCHEMA + feedback.SCHEMA, is_shared=True)


class Signature(NamedTuple):
    """What alarms of one group have in common."""

    entity: str | None
    features: tuple[str, ...]  # to blame, in the order of their names; none: it differs as a whole


class Alarm(NamedTuple):
    """One alarm that is kept; rows and reasons are JSON."""

    signature: Signature
    time: float  # seconds since the epoch
    version: str
    score: float
    severity: float
    p_value: float
    row: str | None
    reasons: str | None  # None where there was no time to look for them
    sentence: str | None


class OrdinaryRow(NamedTuple):
    """One row that did not alarm."""

    slot: int
    time: float
    version: str
    severity: float
    p_value: float
    row: str


class Entry(NamedTuple):
    """What a while brought of one model."""

    model: str
    rows: int
    counts: dict[Signature, int]  # of all alarms
    alarms: Sequence[Alarm]  # those that are kept, in order of time; of each signature one at least
    ordinary: Sequence[OrdinaryRow]


class WorstAlarm(msgspec.Struct, frozen=True):
    """The most severe alarm of a group."""

    severity: float
    p_value: float
    time: datetime
    sentence: str | None  # why; null where no reasons were found


class AlarmGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Alarms of one entity for which the same features are to blame, none of them more than five
    minutes after the one before.
    """

    key: str  # stays the same as long as the group grows
    entity: str | None  # null of rows that belong to none
    features: list[str]  # to blame; empty where the rows differ as a whole
    count: int
    first: datetime
    last: datetime
    worst: WorstAlarm
    sentence: str
    verdict: Verdict | None  # what was said of it last: real or expected
    muted_until: datetime | None  # its pattern; what is past holds no more


class KeptAlarm(msgspec.Struct, frozen=True, kw_only=True):
    """One alarm of a group; its row and the reasons are JSON."""

    time: datetime
    version: str
    score: float
    severity: float
    p_value: float
    sentence: str | None
    row: msgspec.Raw | None
    reasons: msgspec.Raw | None


class KeptRow(msgspec.Struct, frozen=True, kw_only=True):
    """One ordinary row; it is JSON."""

    time: datetime
    version: str
    severity: float
    p_value: float
    row: msgspec.Raw


class Alarms:
    """The file, or the memory; used by one thread, and opened when it is first used.

    Its errors are sqlite3's.
    """

    def __init__(self, path: Path | None, *, most: int = MEMORY_ALARMS, days: float = 365.0):
        self._path, self._most, self._seconds = path, most, days * DAY_SECONDS
        self._began, self._pruned_at = time.time(), 0.0
        self._connection: sqlite3.Connection | None = None

    def write(self, entries: Sequence[Entry]) -> None:
        """All of it or nothing."""
        with databases.changing(self._open()) as database:
            for entry in entries:
                self._write(database, entry)
            self._prune(database)

    def began(self) -> float:
        """Since when all alarms have been counted."""
        (seconds,) = self._open().execute("SELECT min(time) FROM began").fetchone()
        return float(seconds)

    def counts(self, model: str) -> tuple[int, int]:
        """How many rows were scored, and alarms raised."""
        found = self._open().execute("SELECT rows, alarms FROM models WHERE model = ?", (model,))
        rows, alarms = found.fetchone() or (0, 0)
        return rows, alarms

    def groups(self, model: str, *, since: float, most: int) -> list[AlarmGroup]:
        """Those with an alarm since then, the last ones first."""
        found = self._open().execute(
            f"{_GROUP} WHERE model = ? AND last >= ? ORDER BY last DESC, id DESC LIMIT ?",
            (model, since, most),
        )
        return [_group(*row) for row in found]

    def group(self, model: str, key: str) -> tuple[AlarmGroup, list[KeptAlarm]]:
        """One of them with the alarms that are kept, the last ones first; UnknownAlarms."""
        database = self._open()
        found = database.execute(f"{_GROUP} WHERE model = ? AND key = ?", (model, key)).fetchone()
        if found is None:
            raise _unknown(model, key)
        rows = database.execute(
            "SELECT time, version, score, severity, p_value, sentence, row, reasons FROM alarms"
            " WHERE key = ? ORDER BY time DESC, id DESC",
            (key,),
        )
        return _group(*found), [
            KeptAlarm(
                time=time_of(at),
                version=version,
                score=score,
                severity=severity,
                p_value=p_value,
                sentence=sentence,
                row=_raw(row),
                reasons=_raw(reasons),
            )
            for at, version, score, severity, p_value, sentence, row, reasons in rows
        ]

    def ordinary(self, model: str) -> list[KeptRow]:
        """The ordinary rows, the last ones first."""
        rows = self._open().execute(
            "SELECT time, version, severity, p_value, row FROM ordinary WHERE model = ?"
            " ORDER BY time DESC",
            (model,),
        )
        return [
            KeptRow(
                time=time_of(at),
                version=version,
                severity=severity,
                p_value=p_value,
                row=msgspec.Raw(row.encode()),
            )
            for at, version, severity, p_value, row in rows
        ]

    def muted(self, model: str) -> int:
        """How many alarms made no group, since somebody did not want to see them."""
        return feedback.muted(self._open(), model)

    def feedback(self, model: str, *, most: int) -> list[Feedback]:
        """What was said of alarms and rows, last first."""
        return feedback.newest(self._open(), model, most)

    def add_feedback(self, model: str, word: Word) -> Feedback:
        """Keep it, of a group together with those of its rows that are kept; UnknownAlarms,
        FullJournal.
        """
        with databases.changing(self._open()) as database:
            if word.key is None:
                rows = [word.row] if word.row is not None else []
                return feedback.add(database, model, word, None, rows)
            entity, features = _pattern(database, model, word.key)
            kept = []
            if word.verdict != "mute":
                kept = database.execute(
                    "SELECT row FROM alarms WHERE key = ? AND row IS NOT NULL ORDER BY id",
                    (word.key,),
                ).fetchall()
            word = word._replace(entity=entity)
            return feedback.add(database, model, word, features, [row for (row,) in kept])

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect(self._path, self._began)
        return self._connection

    def _write(self, database: sqlite3.Connection, entry: Entry) -> None:
        database.execute(
            "INSERT INTO models VALUES (?, ?, ?) ON CONFLICT (model) DO UPDATE"
            " SET rows = rows + excluded.rows, alarms = alarms + excluded.alarms",
            (entry.model, entry.rows, sum(entry.counts.values())),
        )
        for signature, count in entry.counts.items():
            alarms = [alarm for alarm in entry.alarms if alarm.signature == signature]
            self._write_group(database, entry.model, signature, count, alarms)
        database.executemany(
            "INSERT OR REPLACE INTO ordinary VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(entry.model, *row) for row in entry.ordinary],
        )

    def _write_group(
        self,
        database: sqlite3.Connection,
        model: str,
        signature: Signature,
        count: int,
        alarms: list[Alarm],
    ) -> None:
        entity, features = signature.entity, json.dumps(signature.features, ensure_ascii=False)
        first, last = alarms[0].time, alarms[-1].time
        if feedback.is_muted(database, model, entity, features, last):
            feedback.count_muted(database, model, count)
            return
        open_group = database.execute(
            "SELECT key, severity FROM groups WHERE model = ? AND entity IS ? AND features = ?"
            " AND last >= ? AND first <= ? ORDER BY last DESC LIMIT 1",
            (model, entity, features, first - GAP_SECONDS, last + GAP_SECONDS),
        ).fetchone()
        if open_group is None:
            said = json.dumps([model, entity, signature.features, round(first * 1000)])
            key, severity = hashlib.sha256(said.encode()).hexdigest()[:16], -1.0
            database.execute(
                "INSERT OR IGNORE INTO groups (key, model, entity, features, first, last, count,"
                " worst, severity, p_value, time) VALUES (?, ?, ?, ?, ?, ?, 0, 0, -1, 1, ?)",
                (key, model, entity, features, first, last, first),
            )
        else:
            key, severity = open_group
        database.execute(
            "UPDATE groups SET count = count + ?, first = min(first, ?), last = max(last, ?)"
            " WHERE key = ?",
            (count, first, last, key),
        )
        for alarm in alarms:
            number = database.execute(
                "INSERT INTO alarms (key, time, version, score, severity, p_value, row, reasons,"
                " sentence) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (key, *alarm[1:]),
            ).lastrowid
            if alarm.severity > severity:
                severity = alarm.severity
                database.execute(
                    "UPDATE groups SET worst = ?, severity = ?, p_value = ?, time = ?,"
                    " sentence = coalesce(?, sentence) WHERE key = ?",
                    (number, severity, alarm.p_value, alarm.time, alarm.sentence, key),
                )
        database.execute(
            "DELETE FROM alarms WHERE key = ? AND id NOT IN"
            " (SELECT id FROM alarms WHERE key = ? ORDER BY id DESC LIMIT ?)"
            " AND id != (SELECT worst FROM groups WHERE key = ?)",
            (key, key, GROUP_ALARMS, key),
        )

    def _prune(self, database: sqlite3.Connection) -> None:
        """Have no more than there may be, and nothing older."""
        (last,) = database.execute("SELECT max(id) FROM alarms").fetchone()
        if last is not None:
            (kept,) = database.execute("SELECT count(*) FROM alarms").fetchone()
            database.execute(
                "DELETE FROM alarms WHERE id IN (SELECT id FROM alarms ORDER BY id LIMIT ?)",
                (max(kept - self._most, 0),),
            )
        (groups,) = database.execute("SELECT count(*) FROM groups").fetchone()
        if groups > self._most:
            database.execute(
                "DELETE FROM groups WHERE id IN (SELECT id FROM groups ORDER BY last LIMIT ?)",
                (groups - self._most,),
            )
        if (now := time.time()) < self._pruned_at + PRUNE_SECONDS:
            return
        self._pruned_at, before = now, now - self._seconds
        for table, column in (("alarms", "time"), ("groups", "last"), ("ordinary", "time")):
            database.execute(f"DELETE FROM {table} WHERE {column} < ?", (before,))  # noqa: S608


class KeptRows(NamedTuple):
    """Rows of one model as JSON, of those whose values were kept."""

    alarms: list[str]  # but those that a person said were expected
    confirmed: list[str]  # that a person said were real, and those of the groups asked for
    ordinary: list[str]


def read_rows(
    path: Path, model: str, keys: Sequence[str], *, ordinary_since: float = 0.0
) -> KeptRows:
    """What a file that a service may be writing has of a model, and of the groups of these keys,
    and the ordinary rows since a time, in seconds since 1970; InvalidSettings where it is no
    journal, UnknownAlarms where it has no such group.
    """
    if not path.is_file():
        raise InvalidSettings(f"there is no journal {path}; --journal names the service's file")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            databases.require_ours(database, JOURNAL)
            found = database.execute(
                "SELECT alarms.row, groups.key FROM alarms JOIN groups ON alarms.key = groups.key"
                " WHERE groups.model = ? AND alarms.row IS NOT NULL ORDER BY alarms.id",
                (model,),
            ).fetchall()
            groups = database.execute("SELECT key FROM groups WHERE model = ?", (model,))
            known = {key for (key,) in groups}
            ordinary = database.execute(
                "SELECT row FROM ordinary WHERE model = ? AND time >= ?", (model, ordinary_since)
            )
            rows = [row for (row,) in ordinary]
            said = feedback.said_of_rows(database, model)
    except sqlite3.Error as error:
        raise InvalidSettings(
            f"the journal {path} cannot be read, or is no journal of Hourglass ({error}); --journal"
            " names the service's file"
        ) from error
    if unknown := [key for key in keys if key not in known]:
        raise UnknownAlarms(f"no alarms of {model} are kept under the key {unknown[0][:80]!r}")
    real = [row for row, key in found if key in keys]
    return KeptRows(
        [row for row, _ in found if said.get(row) != "expected"],
        [*real, *(row for row, verdict in said.items() if verdict == "real" and row not in real)],
        rows,
    )


def connect(path: Path | None, began: float) -> sqlite3.Connection:
    """A connection to the file, or to a memory of its own; a new one counts since `began`."""
    database = databases.connect(path, JOURNAL)
    try:
        database.execute("PRAGMA secure_delete = ON")  # what is too old is nowhere any more
        database.execute(
            "INSERT INTO began SELECT ? WHERE NOT EXISTS (SELECT * FROM began)", (began,)
        )
    except BaseException:
        database.close()
        raise
    return database


def _pattern(database: sqlite3.Connection, model: str, key: str) -> tuple[str | None, str]:
    found: tuple[str | None, str] | None = database.execute(
        "SELECT entity, features FROM groups WHERE model = ? AND key = ?", (model, key)
    ).fetchone()
    if found is None:
        raise _unknown(model, key)
    return found


def _unknown(model: str, key: str) -> UnknownAlarms:
    return UnknownAlarms(f"no alarms of {model} are kept under the key {key[:80]!r}")


_GROUP = (
    "SELECT key, entity, features, count, first, last, severity, p_value, time, sentence,"  # noqa: S608 - of constants
    f" {feedback.OF_GROUP} FROM groups"
)


def _group(
    key: str,
    entity: str | None,
    features: str,
    count: int,
    first: float,
    last: float,
    severity: float,
    p_value: float,
    at: float,
    sentence: str | None,
    verdict: Verdict | None,
    muted_until: float | None,
) -> AlarmGroup:
    return AlarmGroup(
        key=key,
        entity=entity,
        features=json.loads(features),
        count=count,
        first=time_of(first),
        last=time_of(last),
        worst=WorstAlarm(severity, p_value, time_of(at), sentence),
        sentence=_say(json.loads(features), count, last - first, sentence),
        verdict=verdict,
        muted_until=None if muted_until is None else time_of(muted_until),
    )


def _say(features: list[str], count: int, seconds: float, worst: str | None) -> str:
    if worst is None:
        named = ", ".join(features[:MOST_NAMED])
        more = f" and {len(features) - MOST_NAMED} more" if len(features) > MOST_NAMED else ""
        worst = f"mostly because of {named}{more}" if features else "differs as a whole"
    if count == 1:
        return worst
    return f"{count:,} alarms within {_say_long(seconds)}, the worst: {worst}"


def _say_long(seconds: float) -> str:
    for unit, size in (("days", DAY_SECONDS), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(math.ceil(seconds), 1)} s"


def _raw(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text.encode())
